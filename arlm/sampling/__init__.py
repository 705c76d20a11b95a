"""Sampling: one noise, one draw, several strategies."""

from arlm.sampling.generate import Generated, Sampler, generate
from arlm.sampling.noise import draw, row_seeds, uniform_noise

__all__ = ["Generated", "Sampler", "draw", "generate", "row_seeds", "uniform_noise"]
