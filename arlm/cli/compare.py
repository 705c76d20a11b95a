"""`arlm compare RUN [RUN ...]`: compare networks on the same tokens, in a table and an HTML page."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from arlm.cli.imports import quick_imports
from arlm.cli.parser import Parser, add_data_options, add_run_options, bar, open_data, print_json
from arlm.errors import UserError

if TYPE_CHECKING:
    from arlm.core import Autoregressor
    from arlm.data.folders import Split
    from arlm.inference.scorer import TokenScores
    from arlm.reports.comparison import Model

SAMPLES = 3  # per model in the report
SENTENCES = 8  # number of sentences that are translated in the report
LONGEST = 256  # largest number of tokens in a sample, and in a window for the loss by context
BEAM, LENGTH_PENALTY = 5, 1.0  # of translations, as in `arlm evaluate`


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    parser = Parser("compare", "Compare networks on the same tokens, in a table and an HTML page.")
    add_run_options(parser, several=True)
    add_data_options(parser)
    parser.add_argument(
        "--out", default="comparison.html", help="HTML page (default comparison.html)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the samples and the bootstrap (default 0)"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object with all figures instead of the table",
    )
    options = parser.parse(arguments)
    groups = named(options.runs)

    with quick_imports():  # late: --help and errors need no torch
        import torch

        from arlm.evaluation.classification import mcnemar
        from arlm.evaluation.paired import paired_difference
        from arlm.inference.scorer import check_same
        from arlm.reports.comparison import lines, page, text_table
        from arlm.reports.files import PAGES, check_writable, write_text
        from arlm.reports.view import view_of

    out = Path(options.out)
    check_writable(out, suffixes=PAGES)
    loaded_groups: dict[str, list] = {}
    scores_of_runs: dict[str, TokenScores] = {}
    first: Any = None
    for name, runs in groups.items():
        loaded = []
        for run in runs:
            checkpoint, module = open_data(options, run)
            scores = score_run(run, checkpoint.net, module, options.split)
            check_same(scores_of_runs | {run: scores})  # at once, before other runs are scored
            scores_of_runs.setdefault(run, scores)
            loaded.append((run, checkpoint, module, scores))
            first = first or (checkpoint, module)
        loaded_groups[name] = loaded
    longest = [one.net.max_length for group in loaded_groups.values() for _, one, _, _ in group]
    length = min(LONGEST if limit is None else limit for limit in longest)
    models = [
        summarise(*group, options.split, length, options.seed) for group in loaded_groups.items()
    ]
    best = min(models, key=lambda model: float(model.scores.nats.mean()))
    for model in models:
        if model is not best:
            model.difference = paired_difference(model.scores.nats, best.scores.nats, options.seed)
            if model.correct is not None and best.correct is not None:
                model.mcnemar = mcnemar(model.correct, best.correct)

    checkpoint, module = first
    words, domain = module.words(options.split), checkpoint.domain
    frequency = torch.zeros(domain.vocab_size, dtype=torch.long)
    for batch in module.loader("train"):
        frequency += batch.tokens[batch.scored].bincount(minlength=domain.vocab_size)
    title = f"{module.provenance.get('name', type(module).__name__)}, {options.split} split"
    command = f"arlm compare {shlex.join(arguments)}"
    write_text(page(title, models, view_of(domain), words, frequency, command), out)
    if options.json:
        figures = [model.figures(domain.unit, words) for model in models]
        print_json({"title": title, "models": figures})
    else:
        names = [model.name for model in models]
        table = text_table(names, lines(models, domain.unit, words))
        print(f"{title}: {len(best.scores.tokens):,} tokens; * is the best", table, out, sep="\n")


def named(runs: Sequence[str]) -> dict[str, list[str]]:
    """Runs of each model, by its name in the report."""
    groups: dict[str, list[str]] = {}
    for run in runs:
        name, equals, several = run.partition("=")
        if not equals or Path(run).exists():
            path = Path(run)
            name, several = (
                (path.parent.parent.parent if path.suffix == ".ckpt" else path).name,
                run,
            )
        if name in groups:
            raise UserError(f"runs: two are called {name!r}; write NAME={run}")
        groups[name] = [part for part in several.split(",") if part]
        if not groups[name]:
            raise UserError(f"runs: {name!r} names no run; write NAME=RUN,RUN")
    return groups


def score_run(run: str, net: Autoregressor, module: Any, split: Split) -> TokenScores:
    """Score a split, with a progress bar."""
    from arlm.inference.scorer import score_split

    loader = module.loader(split)
    if net.spec.vocab_size != module.spec.vocab_size:
        raise UserError(
            f"--data: it has {module.spec.vocab_size} tokens, but '{run}' knows {net.spec.vocab_size}"
        )
    with bar(f"scoring {run}", "batch", len(loader)) as progress:

        def batches() -> Any:
            for rows in loader.order:
                yield rows
                progress.update()

        return score_split(net, loader.dataset, batches())


def summarise(name: str, loaded: list, split: Split, length: int, seed: int) -> Model:
    """One model of the report: the mean over the seeds of its runs.

    Args:
        name: name of the model.
        loaded: (run, checkpoint, data module, scores) of each seed.
        split: split of the data.
        length: tokens of a sample, and of the windows for the loss by context.
        seed: of the samples.
    """
    import torch

    from arlm import checkpoints
    from arlm.inference.measures import by_context, curves, effort, parameters, timed
    from arlm.reports.comparison import Model
    from arlm.reports.view import view_of

    _, (net, domain, *_), module, scores = loaded[0]
    kinds = {(type(one.net).__name__, parameters(one.net)) for _, one, _, _ in loaded}
    if len(kinds) > 1:
        raise UserError(f"runs: {name!r} mixes networks: {kinds}; give them names of their own")
    nats = torch.stack([part.nats for *_, part in loaded])
    efforts = [effort(checkpoints.read(path)) for path, *_ in loaded]
    view = view_of(domain)
    samples = SENTENCES if view.items(module, split) else SAMPLES
    drawn, seconds = timed(lambda: view.draw(net, module, split, samples, seed, length))
    metrics = [checkpoints.find(run).parent.parent / "metrics.csv" for run, *_ in loaded]
    return Model(
        name=name,
        network=type(net).__name__,
        protocol=module.protocol,
        parameters=parameters(net),
        seeds=len(loaded),
        scores=replace(
            scores, nats=nats.mean(0), seconds=sum(p.seconds for *_, p in loaded) / len(loaded)
        ),
        nats_by_seed=nats,
        trained_tokens=sum(tokens for tokens, _ in efforts) / len(efforts),
        trained_seconds=sum(seconds for _, seconds in efforts) / len(efforts),
        sampling=drawn.tokens / seconds,
        by_context=[by_context(one.net, data, split, length) for _, one, data, _ in loaded],
        curves=[curves(path, "tokens_seen", "seconds", "val/nll") for path in metrics],
        shown=drawn.show(),
        quality=quality(name, loaded, split),
        correct=view.correct(net, module, split),
    )


def quality(name: str, loaded: list, split: Split) -> dict[str, float]:
    """Figures other than the likelihood, such as BLEU, the mean over the runs; {} if there are none.

    Figures of several titles, such as accuracies of tokens and of labels, have names of the form `title: figure`.
    """
    from arlm.reports.view import view_of

    found: dict[str, dict[str, list[float]]] = {}  # by title and figure, of each run
    for _, (net, domain, *_), module, _ in loaded:
        view = view_of(domain)
        with bar(f"translating with {name}", "item", view.items(module, split)) as progress:
            figures = view.quality(net, module, split, BEAM, LENGTH_PENALTY, progress.update)
        for title, values in figures.items():
            if title in view.simple_titles:
                continue
            of_title = found.setdefault(title, {})
            for key, value in values.items():
                number = value[0] if isinstance(value, tuple) else value
                if isinstance(number, int | float):
                    of_title.setdefault(key, []).append(number)
    return {
        key if len(found) == 1 else f"{title}: {key}": fmean(numbers)
        for title, values in found.items()
        for key, numbers in values.items()
    }
