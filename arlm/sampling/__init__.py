"""Sampling: one noise, one draw, several strategies."""

from arlm.sampling.fixed_point import FixedPoint, fixed_point
from arlm.sampling.generate import Generated, Sampler, generate, labels_in_turn
from arlm.sampling.noise import draw, row_seeds, uniform_noise

__all__ = [
    "FixedPoint",
    "Generated",
    "Sampler",
    "draw",
    "fixed_point",
    "generate",
    "labels_in_turn",
    "row_seeds",
    "uniform_noise",
]
