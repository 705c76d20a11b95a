"""The option `--keep` of `arlm sample`: the part of an image or a piece that stays."""

from __future__ import annotations

from arlm.errors import UserError


def side_and_share(keep: str) -> tuple[str, float]:
    """The side that `--keep` names and its share, between 0 and 1: "top:0.5" -> ("top", 0.5)."""
    side, _, number = keep.partition(":")
    try:
        share = float(number)
    except ValueError:
        share = -1.0
    if side not in ("top", "bottom", "left", "right") or not 0 < share < 1:
        raise UserError(
            f"--keep: {keep!r} is not understood; "
            "write top, bottom, left or right and a share, such as top:0.5"
        )
    return side, share
