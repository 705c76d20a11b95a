"""Sampling: one noise, one draw, several strategies."""

from arlm.sampling.beam import Beams, beam_search
from arlm.sampling.fixed_point import FixedPoint, fixed_point
from arlm.sampling.generate import Generated, Sampler, generate, labels_in_turn
from arlm.sampling.noise import draw, row_seeds, uniform_noise

__all__ = [
    "Beams",
    "FixedPoint",
    "Generated",
    "Sampler",
    "beam_search",
    "draw",
    "fixed_point",
    "generate",
    "labels_in_turn",
    "row_seeds",
    "uniform_noise",
]
