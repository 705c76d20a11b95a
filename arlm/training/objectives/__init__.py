"""Objectives: what a run minimises, and the figures that it reports. One objective, one file."""

from arlm.training.objectives.base import Objective, Terms
from arlm.training.objectives.classification import Classification
from arlm.training.objectives.counting import Counting
from arlm.training.objectives.distillation import Distillation
from arlm.training.objectives.likelihood import Likelihood
from arlm.training.objectives.masked import MaskedLikelihood

__all__ = [
    "Classification",
    "Counting",
    "Distillation",
    "Likelihood",
    "MaskedLikelihood",
    "Objective",
    "Terms",
]
