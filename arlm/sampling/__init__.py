"""Sampling: decoding strategies that draw the same tokens from the same noise, and beam search."""

from arlm.sampling.beam import Beams, BeamStep, beam_search
from arlm.sampling.details import Alternatives, Block, Details
from arlm.sampling.finish import Finish, finish_reasons
from arlm.sampling.fixed_point import FixedPoint, fixed_point
from arlm.sampling.generate import (
    Generated,
    Sampler,
    class_count,
    class_labels,
    generate,
    prepare,
)
from arlm.sampling.gumbel_watermark import GumbelWatermark
from arlm.sampling.noise import Gumbel, Noise, Uniform, draw, row_seeds, seed_tensor, uniform_noise
from arlm.sampling.sliding import SlidingSteps, begin_steps, kept
from arlm.sampling.steps import SamplerState, Steps, begin
from arlm.sampling.watermark import Detection, Watermark

__all__ = [
    "Alternatives",
    "BeamStep",
    "Beams",
    "Block",
    "Details",
    "Detection",
    "Finish",
    "FixedPoint",
    "Generated",
    "Gumbel",
    "GumbelWatermark",
    "Noise",
    "Sampler",
    "SamplerState",
    "SlidingSteps",
    "Steps",
    "Uniform",
    "Watermark",
    "beam_search",
    "begin",
    "begin_steps",
    "class_count",
    "class_labels",
    "draw",
    "finish_reasons",
    "fixed_point",
    "generate",
    "kept",
    "prepare",
    "row_seeds",
    "seed_tensor",
    "uniform_noise",
]
