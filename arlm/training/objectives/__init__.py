"""Objectives: what a run minimises, and the figures that it reports. One objective, one file."""

from arlm.training.objectives.base import Objective, Terms
from arlm.training.objectives.likelihood import Likelihood

__all__ = ["Likelihood", "Objective", "Terms"]
