"""`arlm evaluate CKPT`: likelihood on a split, with baselines; BLEU for translators, accuracy for classifiers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Sized
from typing import TYPE_CHECKING, Any, TypeAlias

from arlm.cli.imports import quick_imports
from arlm.cli.parser import (
    Parser,
    add_beam_options,
    add_data_options,
    add_run_options,
    bar,
    check_beam_options,
    open_data,
    print_json,
)

if TYPE_CHECKING:
    from torch import Tensor

    from arlm.core import Autoregressor, Batch
    from arlm.evaluation.metric import Likelihood

    Scorer: TypeAlias = Callable[[Batch], Tensor]  # nats (B, T)


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    parser = Parser(
        "evaluate",
        "Likelihood of a split under a checkpoint; every token of val and test is scored once.",
    )
    add_run_options(parser)
    add_data_options(parser)
    parser.add_argument(
        "--baselines",
        action="store_true",
        help="also score simple models fitted to the same training data",
    )
    add_beam_options(parser)
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object instead of the table"
    )
    options = parser.parse(arguments)
    check_beam_options(options)

    with quick_imports():  # late: --help and errors need no torch
        from arlm.core import device_of
        from arlm.evaluation.likelihood import figures
        from arlm.inference.baselines import baselines, independent_batches
        from arlm.inference.placement import moved
        from arlm.inference.scorer import BatchScorer
        from arlm.reports.view import view_of

    loaded, data = open_data(options)
    net, domain, provenance = loaded.net, loaded.domain, data.provenance
    loader, scorer = data.loader(options.split), BatchScorer(net)
    device = device_of(net)

    def on_its_device(batch: Batch) -> Tensor:
        return scorer(moved(batch, device)).log_prob.cpu()

    network: dict[str, Scorer] = {type(net).__name__: on_its_device}
    likelihoods = score(network, loader, domain.unit)
    simple_nets = baselines(data) if options.baselines else {}
    if simple_nets:
        simple = {name: simple_scorer(net) for name, net in simple_nets.items()}
        likelihoods |= score(simple, independent_batches(data, options.split), domain.unit)

    words = data.words(options.split)
    rows = {
        name: figures(float(sums.nats), float(sums.tokens), float(sums.units), domain.unit, words)
        for name, sums in likelihoods.items()
    }
    first = next(iter(likelihoods.values()))
    counts = {"tokens": int(first.tokens), f"{domain.unit}s": int(first.units)}
    if words:
        counts["words"] = words
    view = view_of(domain)
    with bar("evaluating", "item", view.items(data, options.split)) as progress:
        search = (options.beam, options.length_penalty, progress.update)
        quality = view.quality(net, data, options.split, *search)
        for name, simple_net in simple_nets.items():
            more = view.baseline_quality(simple_net, data, options.split)
            quality |= {f"{title}, {name}": values for title, values in more.items()}
    if options.json:
        record = {"split": options.split} | counts | {"data": provenance, "models": rows} | quality
        print_json(record)
        return
    named = {"name": type(data).__name__} | provenance
    name = ", ".join(named[k] for k in ("name", "protocol") if k in named)
    amounts = ", ".join(f"{count} {unit}" for unit, count in counts.items())
    print(f"{name}, {options.split} split: {amounts}")
    print_table(rows)
    for title, values in quality.items():
        print(f"{title}:", *named_figures(values))


def named_figures(values: dict[str, Any]) -> list[str]:
    """Figures of quality with their names, and signatures as they are.

    Figures with intervals, nats, gains and their bounds have four digits, figures in per cent two.
    """
    of_nats = {"gain"} | {name for name in values if name.startswith("nats")}
    if of_nats & set(values):
        of_nats |= {"low", "high"}
    found = []
    for name, value in values.items():
        if isinstance(value, tuple):
            mean, low, high = value
            found.append(f"{name} {mean:.4f} [{low:.4f}, {high:.4f}]")
        elif isinstance(value, float):
            found.append(f"{name} {value:.{4 if name in of_nats else 2}f}")
        else:
            found.append(value if isinstance(value, str) else f"{name} {value}")
    return found


def simple_scorer(net: Autoregressor) -> Scorer:
    """A scorer of batches, for a network that reads their context if its spec has one."""
    reads = net.spec.context is not None
    return lambda batch: net.log_prob(batch.tokens, batch.context if reads else None)


def score(scorers: dict[str, Scorer], loader: Iterable[Batch], unit: str) -> dict[str, Likelihood]:
    """The likelihood of one split under each scorer, from the same batches."""
    import torch

    from arlm.evaluation.metric import Likelihood

    likelihoods = {name: Likelihood(unit) for name in scorers}
    total = len(loader) if isinstance(loader, Sized) else 0
    with torch.inference_mode(), bar("scoring", "batch", total) as progress:
        for batch in loader:
            for name, log_prob in scorers.items():
                likelihoods[name].update(log_prob(batch), batch)
            progress.update()
    return likelihoods


def print_table(rows: dict[str, dict[str, float]]) -> None:
    """Print a row for each model and a column for each figure."""
    width = max(map(len, rows))
    names = list(next(iter(rows.values())))
    print(" " * width, *(f"{name:>14}" for name in names))
    for model, row in rows.items():
        print(f"{model:{width}}", *(f"{row[name]:14.4f}" for name in names))
