"""Checkpoints that describe themselves: `load` rebuilds the network and the domain from the file alone."""

from arlm.checkpoints.describe import describe, record
from arlm.checkpoints.load import Loaded, build, find, load, read

__all__ = ["Loaded", "build", "describe", "find", "load", "read", "record"]
