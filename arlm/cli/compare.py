"""`arlm compare RUN [RUN ...]`: networks on the same tokens, as a table and as one HTML page."""

from __future__ import annotations

import csv
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arlm.cli.parser import Parser, bar
from arlm.errors import UserError

if TYPE_CHECKING:
    from arlm.core import Autoregressor
    from arlm.data.folders import Split
    from arlm.inference.scorer import TokenScores
    from arlm.reports.comparison import Model

SAMPLES = 3
SENTENCES = 8  # translated in the report
LONGEST = 256  # tokens of a sample of networks without a longest row
CONTEXT_TOKENS = 2**17  # tokens from which the loss by context is computed


def main(arguments: Sequence[str]) -> None:
    """Run the verb."""
    parser = Parser("compare", "Networks on exactly the same tokens: a table and an HTML page.")
    parser.add_argument(
        "runs",
        nargs="+",
        help="checkpoints or folders of runs; NAME=RUN,RUN,... is one model with several seeds",
    )
    parser.add_argument("--data", help="a file of configs/data/ to score instead of the runs' own")
    parser.add_argument("--split", default="test", choices=["train", "val", "test"])
    parser.add_argument("--out", default="comparison.html", help="page (default comparison.html)")
    parser.add_argument("--seed", type=int, default=0, help="of samples and bootstrap (default 0)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    options = parser.parse(arguments)
    groups = named(options.runs)

    import torch  # only now

    from arlm.evaluation.paired import paired_difference
    from arlm.inference.runs import open_run
    from arlm.inference.scorer import check_same
    from arlm.reports.comparison import markdown, page
    from arlm.reports.files import check_writable
    from arlm.reports.view import view_of

    out = Path(options.out)
    check_writable(out)
    groups_loaded: dict[str, list] = {}
    every: dict[str, TokenScores] = {}
    first: Any = None
    for name, runs in groups.items():
        loaded = []
        for run in runs:
            checkpoint, module = open_run(run, options.data)
            scores = score_run(run, checkpoint.net, module, options.split)
            check_same(every | {run: scores})  # before more work is done
            every.setdefault(run, scores)
            loaded.append((run, checkpoint, module, scores))
            first = first or (checkpoint, module)
        groups_loaded[name] = loaded
    longest = [one.net.max_length for group in groups_loaded.values() for _, one, _, _ in group]
    length = min(LONGEST if limit is None else limit for limit in longest)
    models = [
        summarise(*group, options.split, length, options.seed) for group in groups_loaded.items()
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
    data = ", ".join(module.provenance[k] for k in ("name",) if k in module.provenance)
    title = f"{data}, {options.split} split"
    out.write_text(page(title, models, view_of(domain), words, frequency), encoding="utf-8")
    if options.json:
        print(
            json.dumps(
                {"title": title, "models": [as_json(model, domain.unit) for model in models]}
            )
        )
    else:
        print(f"{title}: {len(best.scores.tokens)} tokens", markdown(rows), out, sep="\n")


def named(runs: Sequence[str]) -> dict[str, list[str]]:
    """Runs of each model, by the name that it has in the report."""
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
    """Score a split, with a bar."""
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
    """One line of the report from the runs of one model: the mean over its seeds.

    Args:
        loaded: (run, checkpoint, data, scores) of each seed.
        length: of samples and of the windows in which loss is shown by context.
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
    began = time.perf_counter()
    view = view_of(domain)
    count_drawn = SENTENCES if view.items(module, split) else SAMPLES
    shown = view.draw(net, module, split, count_drawn, seed, length)
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
        sampling=shown.tokens / (time.perf_counter() - began),
        by_context=by_context(net, module, split, length),
        curve=curve(checkpoints.find(run)),
        shown=shown,
    )


def by_context(
    net: Autoregressor, module: Any, split: Split, length: int
) -> list[tuple[float, float]]:
    """(tokens read before, mean nats) in disjoint windows, in steps of a power of two; [] for images."""
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
    """Parameters of a network, shared ones once."""
    return sum(parameter.numel() for parameter in net.parameters())


def curve(path: Path) -> list[tuple[float, float, float]]:
    """(tokens seen, seconds, nll) at each validation, from the metrics beside a checkpoint."""
    metrics = path.parent.parent / "metrics.csv"
    if not metrics.exists():
        print(f"note: '{metrics}' is missing, so there is no learning curve", file=sys.stderr)
        return []
    with metrics.open(newline="") as file:
        wanted = "tokens_seen", "seconds", "val/nll"
        rows = [[row.get(name) for name in wanted] for row in csv.DictReader(file)]
    return [tuple(map(float, row)) for row in rows if all(row)]  # type: ignore[misc, arg-type]


def as_json(model: Model, unit: str) -> dict[str, Any]:
    """Plain numbers of a model."""
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
