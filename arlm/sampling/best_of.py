"""Best of n: several samples of each row, of which the one with the highest score is kept.

References:
    | WebGPT: Browser-assisted question-answering with human feedback (Nakano et al., 2021), rejection sampling
    | https://arxiv.org/abs/2112.09332
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from arlm.core import Autoregressor
from arlm.errors import require
from arlm.sampling.generate import generate
from arlm.sampling.noise import row_seeds


class Best(NamedTuple):
    """The best sample of each row, and the scores of all."""

    tokens: Tensor  # (B, T) int64
    log_prob: Tensor  # (B, T) nats under the network
    chosen: Tensor  # (B,) int64, which of its n samples was the best; of equal ones the first
    scores: Tensor  # (B, n) float64


def best_of(
    net: Autoregressor,
    n: int,
    seed: int = 0,
    rows: int = 1,
    length: int | None = None,
    *,
    scorer: Callable[[Any], float] | None = None,
    decode: Callable[[Tensor], Any] | None = None,
    forced: Tensor | None = None,
    context: Tensor | None = None,
    **arguments: Any,
) -> Best:
    """Draw n samples for each row and keep the best.

    Args:
        net: the network.
        n: samples of each row. Row i has the samples i n to i n + n - 1 of `row_seeds`.
        seed: of the samples.
        rows: B.
        length: tokens in a row; see `generate`.
        scorer: of a row's tokens (T,), or of what `decode` makes of them; by default the log-probability of the row
            under the network.
        decode: tokens (T,) to a native object, such as a domain's.
        forced: (B, P) int64, as for `generate`.
        context: (B, S) int64, or None.
        arguments: of `generate`: processors, noise, progress, and lengths (B,).
    """
    require(n >= 1, "n", n, "choose at least 1")
    require(rows >= 1, "rows", rows, "choose at least 1")
    if (lengths := arguments.pop("lengths", None)) is not None:
        arguments["lengths"] = [most for most in lengths for _ in range(n)]

    def repeated(each: Tensor | None) -> Tensor | None:
        return None if each is None else each.repeat_interleave(n, 0)

    own = {"forced": repeated(forced), "context": repeated(context), **arguments}
    drawn = generate(net, row_seeds(seed, rows * n), length, **own)
    if scorer is None:
        scores = drawn.log_prob.sum(1).double()
    else:
        ended = zip(drawn.tokens.cpu(), drawn.lengths.tolist(), strict=True)
        rows_of = [row[:end] for row, end in ended]  # without what follows the end
        natives = [row if decode is None else decode(row) for row in rows_of]
        scores = torch.tensor([float(scorer(native)) for native in natives], dtype=torch.float64)
    scores = scores.to(drawn.tokens.device).view(rows, n)
    chosen = scores.argmax(1)
    at = chosen + n * torch.arange(rows, device=chosen.device)
    return Best(drawn.tokens[at], drawn.log_prob[at], chosen, scores)
