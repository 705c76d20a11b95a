"""`arlm evaluate CKPT`: likelihood of a checkpoint on a split, beside baselines that know no network."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from arlm.commands import Parser, shows_progress

if TYPE_CHECKING:
    from torch import Tensor

    from arlm.data import ResumableLoader
    from arlm.evaluation.likelihood import Likelihood

    # tokens (B, T) and context -> nats (B, T)
    Scorer: TypeAlias = Callable[[Tensor, Tensor | None], Tensor]


def main(arguments: Sequence[str]) -> None:
    """Run the verb."""
    parser = Parser("evaluate", "Likelihood of a checkpoint on a split, every token scored once.")
    parser.add_argument("checkpoint", help="a .ckpt file, or the folder of a run")
    parser.add_argument("--split", default="test", choices=["train", "val", "test"])
    parser.add_argument(
        "--baselines", action="store_true", help="fit simple models to the same training data too"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    options = parser.parse(arguments)

    from arlm.checkpoint import build, load  # Lightning is imported only now
    from arlm.evaluation.baselines import baselines

    net, domain, data, _ = load(options.checkpoint)
    provenance = data.pop("provenance")
    module = build(data)
    module.prepare_data()
    if module.provenance != provenance:
        told = f"note: the data differs from that of training, which was {provenance}"
        print(told, file=sys.stderr)

    scorers: dict[str, Scorer] = {type(net).__name__: net.log_prob}
    if options.baselines:
        for name, scorer in baselines(module).items():
            scorers[name] = without_context(scorer)
    likelihoods = score(scorers, module.loader(options.split), domain.unit)

    rows = {
        name: {figure: float(value) for figure, value in likelihood.compute().items()}
        for name, likelihood in likelihoods.items()
    }
    counted = next(iter(likelihoods.values()))
    counts = {"tokens": int(counted.tokens), f"{domain.unit}s": int(counted.units)}
    if options.json:
        print(json.dumps({"split": options.split} | counts | {"data": provenance, "models": rows}))
    else:
        named = ", ".join(provenance[k] for k in ("name", "protocol") if k in provenance)
        told = ", ".join(f"{count} {what}" for what, count in counts.items())
        print(f"{named}, {options.split} split: {told}")
        print_table(rows)


def without_context(log_prob: Callable[[Tensor], Tensor]) -> Scorer:
    """A baseline looks at the tokens only."""
    return lambda tokens, _: log_prob(tokens)


def score(scorers: dict[str, Scorer], loader: ResumableLoader, unit: str) -> dict[str, Likelihood]:
    """The likelihood of one split under each scorer, from the same batches."""
    import torch
    from tqdm import tqdm

    from arlm.evaluation.likelihood import Likelihood

    likelihoods = {name: Likelihood(unit) for name in scorers}
    with torch.inference_mode():
        for batch in tqdm(loader, desc="scoring", disable=not shows_progress()):
            for name, log_prob in scorers.items():
                likelihoods[name].update(log_prob(batch.tokens, batch.context), batch)
    return likelihoods


def print_table(rows: dict[str, dict[str, float]]) -> None:
    """One row a model, one column a figure."""
    width = max(map(len, rows))
    figures = list(next(iter(rows.values())))
    print(" " * width, *(f"{name:>14}" for name in figures))
    for name, row in rows.items():
        print(f"{name:{width}}", *(f"{row[figure]:14.4f}" for figure in figures))
