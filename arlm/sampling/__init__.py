"""Sampling: decoding strategies that draw the same tokens from the same noise, and beam search."""

from arlm.sampling.beam import Beams, beam_search
from arlm.sampling.fixed_point import FixedPoint, fixed_point
from arlm.sampling.generate import Generated, Sampler, class_labels, generate
from arlm.sampling.noise import draw, row_seeds, uniform_noise

__all__ = [
    "Beams",
    "FixedPoint",
    "Generated",
    "Sampler",
    "beam_search",
    "class_labels",
    "draw",
    "fixed_point",
    "generate",
    "row_seeds",
    "uniform_noise",
]
