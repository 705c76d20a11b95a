"""Prompt tuning and prefix tuning: trained vectors, or trained keys and values, at positions before the row.

    positions     -3  -2  -1 |  0   1   2  ...
    prompt        p0  p1  p2 | <s>  x0  x1         inputs of the first block; blocks compute their keys and values
    prefix        k0  k1  k2 |  .   .   .          keys and values of every block, trained themselves

Tokens keep their positions. Rotary angles, ALiBi's penalty and sliding windows see the vectors at positions -P to -1;
a learned table of positions has none for them.

References:
    | The Power of Scale for Parameter-Efficient Prompt Tuning (Lester et al., 2021) | https://arxiv.org/abs/2104.08691
    | Prefix-Tuning: Optimizing Continuous Prompts for Generation (Li, Liang, 2021), without its reparametrisation
    | https://arxiv.org/abs/2101.00190
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from arlm.errors import UserError, require
from arlm.layers.attention import causal_mask
from arlm.layers.kv_cache import KVCache
from arlm.layers.positional_encoding import rotary_table


class TrainedPrefix(nn.Module):
    """Keys and values of each block, (1, heads, P, d), before those of every row. A subclass writes `forward`.

    Args:
        size: P.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(
        self, blocks: Iterable[Any], slopes: Tensor | None, windows: Sequence[int | None]
    ) -> tuple[KVCache, ...]:
        """Keys and values of each block of the network.

        Args:
            blocks: of the network.
            slopes: (heads,) of ALiBi, or None.
            windows: the sliding window of each block, or None.
        """
        raise NotImplementedError


class Prompt(TrainedPrefix):
    """Trained input vectors.

    Args:
        size: P.
        width: features of each.
        rotary: (2, P, d / 2) angles of their positions, or None.
    """

    def __init__(self, size: int, width: int, rotary: Tensor | None) -> None:
        super().__init__(size)
        self.vectors = nn.Parameter(torch.empty(size, width))
        self.register_buffer("rotary", rotary, persistent=False)

    def forward(
        self, blocks: Iterable[Any], slopes: Tensor | None, windows: Sequence[int | None]
    ) -> tuple[KVCache, ...]:
        x, found = self.vectors[None], []
        positions = torch.arange(-self.size, 0, device=x.device)
        blocks = list(blocks)
        for block, window in zip(blocks, windows, strict=True):
            found.append(block.keys(x, self.rotary))
            if block is not blocks[-1]:
                x = block(x, self.rotary, causal_mask(positions, positions, slopes, window))
        return tuple(found)


class Prefix(TrainedPrefix):
    """Trained keys and values of every block.

    Args:
        size: P.
        depth, heads, features: blocks, heads of keys, and features of a head.
    """

    def __init__(self, size: int, depth: int, heads: int, features: int) -> None:
        super().__init__(size)
        self.keys, self.values = (
            nn.Parameter(torch.empty(depth, heads, size, features)) for _ in range(2)
        )

    def forward(
        self, blocks: Iterable[Any], slopes: Tensor | None, windows: Sequence[int | None]
    ) -> tuple[KVCache, ...]:
        pairs = zip(self.keys.split(1), self.values.split(1), strict=True)
        return tuple(pairs)


def trained_prefix(
    prompt_vectors: int,
    prefix_vectors: int,
    width: int,
    depth: int,
    heads: int,
    kv_heads: int,
    rotary_base: float,
    positions: str,
) -> TrainedPrefix | None:
    """What a transformer's options ask for: a prompt, a prefix, or nothing."""
    for name, size in {"prompt_vectors": prompt_vectors, "prefix_vectors": prefix_vectors}.items():
        require(size >= 0, f"model.net.{name}", size, "choose 0 for none, or more")
    if prompt_vectors and prefix_vectors:
        raise UserError(
            f"model.net.prefix_vectors: {prefix_vectors} given beside prompt_vectors {prompt_vectors}; choose one"
        )
    features = width // heads
    if prefix_vectors:
        return Prefix(prefix_vectors, depth, kv_heads, features)
    if not prompt_vectors:
        return None
    rotary = None
    if positions == "rotary":
        rotary = rotary_table(prompt_vectors, features, rotary_base, -prompt_vectors)
    return Prompt(prompt_vectors, width, rotary)
