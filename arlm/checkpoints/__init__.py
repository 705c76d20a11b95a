"""Self-describing checkpoints: `load` rebuilds the network and the domain from the file alone."""

from arlm.checkpoints.classes import build, find_class
from arlm.checkpoints.describe import describe, record
from arlm.checkpoints.load import Loaded, find, load, read, verify_archive

__all__ = [
    "Loaded",
    "build",
    "describe",
    "find",
    "find_class",
    "load",
    "read",
    "record",
    "verify_archive",
]
