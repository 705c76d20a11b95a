"""Nats of the missing tokens of spans: networks that see both sides, a causal one that sees the left, and a unigram.

python -m tools.span_study RUN [RUN ...] [--causal RUN ...] [--split test] [--json]

All score the same tokens, those in the gaps of the windows of the first run's data, without sentinels and ends. A
causal network of the same tokenizer reads the whole text before a token, from the start of its window. `low` and
`high` bound the mean by a bootstrap over blocks of tokens. `with ends` is a network's nats of whole targets, the
sentinels and ends included, for each missing token.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from arlm.core import Autoregressor, Batch, device_of
from arlm.domains import SpanDomain
from arlm.errors import UserError
from arlm.evaluation.paired import paired_difference
from arlm.inference.baselines import ngram
from arlm.inference.placement import moved
from arlm.inference.runs import open_run
from arlm.reports.span_view import scored_tokens


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, usage=__doc__.splitlines()[2])
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--causal", nargs="*", default=[])
    parser.add_argument("--split", choices=["train", "val", "test"], default="val")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    try:
        table = study(options.runs, options.causal, options.split)
    except UserError as error:
        print(f"arlm: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    if options.json:
        print(json.dumps(table))
        return
    width = max(map(len, table))
    print(" " * width, *(f"{name:>10}" for name in next(iter(table.values()))))
    for name, row in table.items():
        cells = (
            "-" if v is None else f"{v:.4f}" if isinstance(v, float) else v for v in row.values()
        )
        print(f"{name:{width}}", *(f"{cell:>10}" for cell in cells))


def study(runs: Sequence[str], causal: Sequence[str], split: Any) -> dict[str, dict[str, Any]]:
    """The row of each network, by its name."""
    first = open_run(runs[0])
    domain, data = first.loaded.domain, first.data
    if not isinstance(domain, SpanDomain):
        raise UserError(f"RUN: '{runs[0]}' fills no spans; give a run of datamodules.span_text")
    batches: list[Batch] = [*data.loader(split)]
    table = {"unigram": figures(ngram(data, 1).eval(), batches, domain)}
    for path in causal:
        net = open_run(path).loaded.net
        if net.spec.fingerprint != data.spec.fingerprint:
            raise UserError(
                f"--causal: '{path}' has another tokenizer than '{runs[0]}'; train both with one"
            )
        table[f"{path}, left only"] = figures_of_left(net, batches, domain)
    for path in runs:
        other = open_run(path)
        if other.data.provenance != data.provenance or other.data.spec != data.spec:
            raise UserError(
                f"RUN: '{path}' has other gaps than '{runs[0]}'; give runs of the same data"
            )
        table[path] = figures(other.loaded.net, batches, domain)
    return table


@torch.inference_mode()
def figures(net: Autoregressor, batches: list[Batch], domain: SpanDomain) -> dict[str, Any]:
    """Of a network of targets."""
    found, whole = [], 0.0
    for batch in batches:
        nats = scored_tokens(net, moved(batch, device_of(net)))[0].cpu()
        missing = batch.scored & (batch.tokens < domain.first_sentinel)
        found.append(nats[missing])
        whole += float(nats[batch.scored].sum())
    return row(torch.cat(found), whole)


@torch.inference_mode()
def figures_of_left(net: Autoregressor, batches: list[Batch], domain: SpanDomain) -> dict[str, Any]:
    """Of a causal network of the texts."""
    found = []
    for batch in batches:
        for source, target in zip(batch.context, batch.tokens, strict=True):  # type: ignore[arg-type]
            text, missing = with_gaps(domain, source, target)
            nats = -net.log_prob(text[None].to(device_of(net)))[0].double().cpu()
            found.append(nats[missing])
    return row(torch.cat(found), None)


def with_gaps(domain: SpanDomain, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The text (L,) of a source and a target, and which of its tokens are missing in the source, (L,) bool."""
    spans = domain.spans(target)
    gaps = [int(token) - domain.first_sentinel for token in source[source != domain.pad_id]]
    sizes = [len(spans[gap]) if gap >= 0 else 1 for gap in gaps]
    inside = torch.tensor([gap >= 0 for gap in gaps])
    return domain.restored(source, target), inside.repeat_interleave(torch.tensor(sizes))


def row(nats: Tensor, whole: float | None) -> dict[str, Any]:
    """The figures of nats (N,) of the missing tokens, and of the sum for whole targets."""
    mean, low, high = paired_difference(nats, torch.zeros_like(nats))
    ends = None if whole is None else whole / len(nats)
    return {"tokens": len(nats), "nats": mean, "low": low, "high": high, "with ends": ends}


if __name__ == "__main__":
    main()
