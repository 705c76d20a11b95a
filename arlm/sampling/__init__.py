"""Sampling: decoding strategies that draw the same tokens from the same noise, and searches."""

from arlm.sampling.beam import Beams, BeamStep, beam_search
from arlm.sampling.best_of import Best, best_of
from arlm.sampling.contrastive_search import contrastive_search
from arlm.sampling.details import Alternatives, Block, Details
from arlm.sampling.drafts import Draft, NetworkDraft, PromptLookup
from arlm.sampling.enumeration import Enumeration, enumerate_rows
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
from arlm.sampling.speculative import Speculation, Speculative, speculate, speculative
from arlm.sampling.steps import SamplerState, Steps, begin
from arlm.sampling.unended import Unended, unended
from arlm.sampling.unmask import Unmasked, unmask
from arlm.sampling.watermark import Detection, Watermark

__all__ = [
    "Alternatives",
    "BeamStep",
    "Beams",
    "Best",
    "Block",
    "Details",
    "Detection",
    "Draft",
    "Enumeration",
    "Finish",
    "FixedPoint",
    "Generated",
    "Gumbel",
    "GumbelWatermark",
    "NetworkDraft",
    "Noise",
    "PromptLookup",
    "Sampler",
    "SamplerState",
    "SlidingSteps",
    "Speculation",
    "Speculative",
    "Steps",
    "Unended",
    "Uniform",
    "Unmasked",
    "Watermark",
    "beam_search",
    "begin",
    "begin_steps",
    "best_of",
    "class_count",
    "class_labels",
    "contrastive_search",
    "draw",
    "enumerate_rows",
    "finish_reasons",
    "fixed_point",
    "generate",
    "kept",
    "prepare",
    "row_seeds",
    "seed_tensor",
    "speculate",
    "speculative",
    "unended",
    "uniform_noise",
    "unmask",
]
