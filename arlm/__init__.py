"""arlm: autoregressive models of text, translations and images as sequences of discrete tokens.

    import arlm
    net, domain, *_ = arlm.load("runs/docs_transformer")

Names are imported at first use, so that `arlm --help` does not wait for torch. `datamodules` is imported at
once, from beside this package: so it is arlm's own for everything that follows, and neither a folder of that
name in the working directory nor another installed package takes its place.
"""

import importlib
import os
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Autoregressor": "arlm.core",
    "Batch": "arlm.core",
    "Spec": "arlm.core",
    "UserError": "arlm.errors",
    "generate": "arlm.sampling",
    "load": "arlm.checkpoints",
    "row_seeds": "arlm.sampling",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'arlm' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def _import_own(package: str) -> None:
    """Import a package that is installed beside arlm, unless one of that name is imported already."""
    home = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    if package in sys.modules:
        return
    spec = PathFinder.find_spec(package, [home])
    if spec is None or spec.loader is None:
        raise ImportError(f"arlm: {home} holds no package {package}; install arlm again")
    module = module_from_spec(spec)
    sys.modules[package] = module
    spec.loader.exec_module(module)


_import_own("datamodules")
