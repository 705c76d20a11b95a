"""Self-describing checkpoints: `load` rebuilds the network and the domain from the file alone.

`save` writes a network without training, `describe` is what a checkpoint says of an object.
"""

from arlm.checkpoints.choose import Choice, Summary, choose, find, printable, summarise
from arlm.checkpoints.classes import build, find_class, for_any_spec, import_class
from arlm.checkpoints.describe import describe, record
from arlm.checkpoints.differences import differences
from arlm.checkpoints.load import Loaded, load, load_domain, read, verify_archive
from arlm.checkpoints.save import save

__all__ = [
    "Choice",
    "Loaded",
    "Summary",
    "build",
    "choose",
    "describe",
    "differences",
    "find",
    "find_class",
    "for_any_spec",
    "import_class",
    "load",
    "load_domain",
    "printable",
    "read",
    "record",
    "save",
    "summarise",
    "verify_archive",
]
