"""unmask: fill the masks of a context token by token, each time with what is already filled in view.

    The [MASK] sat on the [MASK]  ->  The [MASK] sat on the mat  ->  The cat sat on the mat

A network of masked text predicts all masked tokens independently of one another. Filling them one by one, in an order
drawn uniformly for each row, draws from the mixture over orders of p(x_o1) p(x_o2 | x_o1) ..., whose nats the
order-agnostic bound is above. Several in one pass are faster and ignore what those have to do with each other.

References:
    | A Deep and Tractable Density Estimator (Uria, Murray, Larochelle, 2014), a uniformly random order
    | https://arxiv.org/abs/1310.1757
    | Mask-Predict (Ghazvininejad et al., 2019), the most confident first | https://arxiv.org/abs/1904.09324
    | Autoregressive Diffusion Models (Hoogeboom et al., 2022), several in a pass | https://arxiv.org/abs/2110.02037
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from arlm.core import Autoregressor, log_softmax
from arlm.errors import require
from arlm.sampling.inference_context import inference_context
from arlm.sampling.noise import Noise, Uniform, mix, position_keys, seed_tensor, uniform

GIVEN = -1  # the pass of a token that was no mask


class Unmasked(NamedTuple):
    """Rows without masks."""

    tokens: Tensor  # (B, S) int64, the context with its masks filled
    log_prob: Tensor  # (B, S) nats of each token when it was filled; 0 where it was given
    passes: Tensor  # (B, S) int64, the pass in which it was filled; GIVEN where it was given


def unmask(
    net: Autoregressor,
    context: Tensor,
    mask_id: int,
    seeds: Sequence[int] | Tensor,
    order: Literal["random", "confident"] | Tensor = "random",
    per_pass: int = 1,
    noise: Noise = Uniform(),  # noqa: B008  (frozen)
    forced: Tensor | None = None,
    gaps: Tensor | None = None,
) -> Unmasked:
    """Fill every mask of a context by drawing from the network.

    Args:
        net: predicts token t of a row from a context that has a mask, or anything else, at position t, such as
            `BERT`; text has the same tokens in row and context.
        context: (B, S) int64, at most as long as the network's rows.
        mask_id: the mask.
        seeds: of the rows; a row does not depend on its batch.
        order: "random": uniform over all orders, for each row by its seed; "confident": first the tokens of which the
            network is surest; or numbers (B, S), of which the smallest is the position that is filled first.
        per_pass: tokens that are filled in one pass.
        noise: draws the tokens.
        forced: (B, S) tokens to fill in place of drawn ones, -1 where tokens are drawn; so rows are scored.
        gaps: (B, S) bool, the masks to fill; None fills all.
    """
    require(per_pass >= 1, "per_pass", per_pass, "choose at least 1")
    known = isinstance(order, Tensor) or order in ("random", "confident")
    require(known, "order", order, "choose random or confident")
    seeds = seed_tensor(seeds, context.device)
    positions = torch.arange(context.shape[1], device=context.device)[None]
    numbers = noise.numbers(seeds, positions)
    rank: Tensor | None = None
    if isinstance(order, Tensor):
        rank = order.double()
    elif order == "random":
        rank = uniform(mix(position_keys(seeds, positions) ^ -1))
    tokens, passes = context.clone(), torch.full_like(context, GIVEN)
    total = torch.zeros(context.shape, dtype=torch.float64, device=context.device)
    gaps, step = context == mask_id if gaps is None else gaps, 0
    with inference_context(net):
        while bool((masked := (tokens == mask_id) & gaps).any()):
            row, column = masked.nonzero(as_tuple=True)
            log_prob = log_softmax(net(torch.zeros_like(tokens), tokens)[row, column])  # (N, V)
            first = torch.full_like(total, torch.inf)
            first[masked] = -log_prob.amax(-1).double() if rank is None else rank[masked]
            chosen = masked & (first.argsort(dim=1, stable=True).argsort(1) < per_pass)
            which = chosen[row, column]
            row, column, log_prob = row[which], column[which], log_prob[which]
            drawn = noise.draw(log_prob, numbers[row, column], None)
            if forced is not None:
                given = forced[row, column]
                drawn = torch.where(given >= 0, given, drawn)
            tokens[row, column] = drawn
            total[row, column] = log_prob.gather(1, drawn[:, None])[:, 0].double()
            passes[row, column] = step
            step += 1
    return Unmasked(tokens, total, passes)
