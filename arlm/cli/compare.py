"""`arlm compare RUN [RUN ...]`: compare networks on the same tokens, in a table and an HTML page."""

from __future__ import annotations

import csv
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arlm.cli.parser import Parser, add_data_options, add_run_options, bar, open_data
from arlm.errors import UserError

if TYPE_CHECKING:
    from arlm.core import Autoregressor
    from arlm.data.folders import Split
    from arlm.inference.scorer import TokenScores
    from arlm.reports.comparison import Model

SAMPLES = 3  # per model in the report
SENTENCES = 8  # number of sentences that are translated in the report
LONGEST = 256  # largest number of tokens in a sample, and in a window for the loss by context
CONTEXT_TOKENS = 2**17  # number of tokens from which the loss by context is computed


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
        "--json", action="store_true", help="print one JSON object instead of the table"
    )
    options = parser.parse(arguments)
    groups = named(options.runs)

    import torch  # late: --help and errors need no torch

    from arlm.evaluation.paired import paired_difference
    from arlm.inference.scorer import check_same
    from arlm.reports.comparison import markdown, page
    from arlm.reports.files import check_writable, write_text
    from arlm.reports.view import view_of

    out = Path(options.out)
    check_writable(out)
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

    checkpoint, module = first
    words, domain = module.words(options.split), checkpoint.domain
    rows = [model.row(domain.unit, words) for model in models]
    frequency = torch.zeros(domain.vocab_size, dtype=torch.long)
    for batch in module.loader("train"):
        frequency += batch.tokens[batch.scored].bincount(minlength=domain.vocab_size)
    data = module.provenance.get("name", "")
    title = f"{data}, {options.split} split"
    write_text(page(title, models, view_of(domain), words, frequency), out)
    if options.json:
        print(
            json.dumps(
                {"title": title, "models": [as_json(model, domain.unit) for model in models]}
            )
        )
    else:
        print(f"{title}: {len(best.scores.tokens)} tokens", markdown(rows), out, sep="\n")


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
    from arlm.reports.comparison import Model
    from arlm.reports.view import view_of

    run, (net, domain, *_), module, scores = loaded[0]
    kinds = {(type(one.net).__name__, count(one.net)) for _, one, _, _ in loaded}
    if len(kinds) > 1:
        raise UserError(f"runs: {name!r} mixes networks: {kinds}; give them names of their own")
    nats = torch.stack([part.nats for *_, part in loaded])
    efforts = [effort(checkpoints.read(path)) for path, *_ in loaded]
    started = time.perf_counter()
    view = view_of(domain)
    samples = SENTENCES if view.items(module, split) else SAMPLES
    shown = view.draw(net, module, split, samples, seed, length)
    return Model(
        name=name,
        network=type(net).__name__,
        protocol=module.protocol,
        parameters=count(net),
        seeds=len(loaded),
        scores=replace(
            scores, nats=nats.mean(0), seconds=sum(p.seconds for *_, p in loaded) / len(loaded)
        ),
        nll_by_seed=nats.mean(1).tolist(),
        trained_tokens=sum(tokens for tokens, _ in efforts) / len(efforts),
        trained_seconds=sum(seconds for _, seconds in efforts) / len(efforts),
        sampling=shown.tokens / (time.perf_counter() - started),
        by_context=by_context(net, module, split, length),
        curve=curve(checkpoints.find(run)),
        shown=shown,
    )


def by_context(
    net: Autoregressor, module: Any, split: Split, length: int
) -> list[tuple[float, float]]:
    """(tokens of context, mean nats) in disjoint windows, in bins of powers of two; [] for images."""
    import torch

    from arlm.data.dataset import Rows
    from arlm.data.windows import TextDataset, TextWindows
    from arlm.evaluation.paired import by_bins
    from arlm.inference.scorer import score_split

    if not isinstance(module.dataset(split), TextDataset):
        return []
    separate = module.separate_documents
    windows = TextWindows(
        module.corpus(split), module.domain, length, length, separate_documents=separate
    )
    chosen = torch.arange(min(len(windows), max(1, CONTEXT_TOKENS // length)))
    scores = score_split(net, windows, [Rows(0, part) for part in chosen.split(16)])
    edges = [0, *(2**i for i in range(length.bit_length()))]
    return [(edge, mean) for edge, mean, _ in by_bins(scores.nats, scores.context, edges)]


def effort(contents: dict[str, Any]) -> tuple[float, float]:
    """Tokens and seconds of training that a checkpoint records; 0 for what it does not."""
    recorded = contents.get("effort")
    values = recorded if isinstance(recorded, dict) else {}
    tokens, seconds = values.get("tokens"), values.get("seconds")
    return (
        tokens if isinstance(tokens, int | float) else 0,
        seconds if isinstance(seconds, int | float) else 0.0,
    )


def count(net: Autoregressor) -> int:
    """Number of parameters of a network, shared ones counted once."""
    return sum(parameter.numel() for parameter in net.parameters())


def curve(path: Path) -> list[tuple[float, float, float]]:
    """(tokens seen, seconds, nll) at each validation, from the run's metrics.csv."""
    metrics = path.parent.parent / "metrics.csv"
    if not metrics.exists():
        print(f"note: '{metrics}' is missing, so there is no learning curve", file=sys.stderr)
        return []
    with metrics.open(newline="") as file:
        wanted = "tokens_seen", "seconds", "val/nll"
        rows = [[row.get(name) for name in wanted] for row in csv.DictReader(file)]
    return [tuple(map(float, row)) for row in rows if all(row)]  # type: ignore[misc, arg-type]


def as_json(model: Model, unit: str) -> dict[str, Any]:
    """The figures of a model for JSON."""
    return {
        "name": model.name,
        "network": model.network,
        "protocol": model.protocol,
        "parameters": model.parameters,
        "seeds": model.seeds,
        "tokens": len(model.scores.tokens),
        **model.scores.figures(unit),
        "nll_by_seed": model.nll_by_seed,
        "trained_tokens": model.trained_tokens,
        "trained_seconds": model.trained_seconds,
        "difference": model.difference,
    }
