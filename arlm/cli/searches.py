"""The texts of `arlm sample --best-of` and `--penalty-alpha`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from arlm.errors import UserError, require

if TYPE_CHECKING:
    from torch import Tensor

    from arlm.core import Autoregressor
    from arlm.inference.writer import Written
    from arlm.reports.view import View

CANDIDATES = 5  # of a step of contrastive search, by default


class Counted:
    """Texts as they come, and how many tokens were drawn for them so far.

    Args:
        texts: all that are drawn, also those that are not printed.
    """

    def __init__(self, texts: Iterable[Written]) -> None:
        self._texts, self.tokens = texts, 0

    def __iter__(self) -> Iterator[Written]:
        for one in self._texts:
            self.tokens += one.tokens
            yield one


def likeliest(drawn: Iterator[Written], together: int, kept: int) -> Iterator[Written]:
    """Of each `together` texts, which follow one prompt, the `kept` likeliest in order; of equal ones the first."""
    while texts := list(islice(drawn, together)):
        yield from sorted(texts, key=lambda text: text.nats)[:kept]


def check_room(size: int, window: int) -> None:
    """Refuse a prompt of `size` tokens after which contrastive search can write none."""
    if size >= window - 1:
        raise UserError(
            f"--prompt: {size} tokens leave no room in the window of {window}, of which contrastive search reserves "
            f"one; give at most {window - 2} tokens, or omit --penalty-alpha"
        )


def contrasted(
    options: argparse.Namespace, net: Autoregressor, view: View, given: Tensor, length: int
) -> Written:
    """The text of `length` tokens that contrastive search finds after a prompt (P,)."""
    from arlm.inference.writer import Written
    from arlm.sampling import class_labels, contrastive_search

    size, most = len(given), net.spec.vocab_size
    count = min(CANDIDATES, most) if options.top_k is None else options.top_k
    require(1 <= count <= most, "--top-k", count, f"choose 1 to {most}")
    found = contrastive_search(
        *(net, 1, length),
        top_k=count,
        penalty=options.penalty_alpha,
        context=class_labels(net, options.label, 1),
        prompt=given[None] if size else None,
    )
    end = int(found.lengths[0])
    nats = -float(found.log_prob[0, size:].sum())
    return Written(
        view.domain.decode(found.tokens[0, :end].cpu()), end - size, nats, found.finish[0]
    )
