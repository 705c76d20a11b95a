"""The texts of `arlm sample --best-of` and `--penalty-alpha`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from arlm.core import Autoregressor
    from arlm.inference.writer import Written
    from arlm.reports.view import View

CANDIDATES = 5  # of a step of contrastive search, by default


def likeliest(drawn: Iterator[Written], together: int, kept: int) -> Iterator[Written]:
    """Of each `together` texts, which follow one prompt, the `kept` likeliest in order; of equal ones the first."""
    while texts := list(islice(drawn, together)):
        yield from sorted(texts, key=lambda text: text.nats)[:kept]


def contrasted(
    options: argparse.Namespace, net: Autoregressor, view: View, given: Tensor, length: int
) -> Written:
    """The text of `length` tokens that contrastive search finds after a prompt (P,)."""
    from arlm.inference.writer import Written
    from arlm.sampling import class_labels, contrastive_search

    size = len(given)
    found = contrastive_search(
        *(net, 1, length),
        top_k=CANDIDATES if options.top_k is None else options.top_k,
        penalty=options.penalty_alpha,
        context=class_labels(net, options.label, 1),
        prompt=given[None] if size else None,
    )
    end = int(found.lengths[0])
    nats = -float(found.log_prob[0, size:].sum())
    return Written(
        view.domain.decode(found.tokens[0, :end].cpu()), end - size, nats, found.finish[0]
    )
