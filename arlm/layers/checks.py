"""Checks of a network's arguments."""

from __future__ import annotations

from arlm.errors import UserError, require

LARGEST = 10**6  # of a width or depth; a damaged checkpoint may name any number


def check_sizes(dropout: float = 0.0, **sizes: int) -> None:
    """Raise a UserError for sizes out of [1, LARGEST], and for dropout outside [0, 1)."""
    for name, size in sizes.items():
        require(size >= 1, f"model.net.{name}", size, "choose at least 1")
        require(size <= LARGEST, f"model.net.{name}", size, f"choose at most {LARGEST}")
    require(0 <= dropout < 1, "model.net.dropout", dropout, "choose from 0 up to below 1")


def check_heads(width: int, heads: int, kv_heads: int) -> None:
    """Raise a UserError unless 2 * heads divides the width, and kv_heads divides heads."""
    if width % (2 * heads):
        raise UserError(
            f"model.net.width: {width} cannot be split into {heads} heads of an even size; "
            f"choose a multiple of {2 * heads}"
        )
    if heads % kv_heads:
        raise UserError(
            f"model.net.kv_heads: {kv_heads} does not divide {heads} heads; choose a divisor of it"
        )
