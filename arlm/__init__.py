"""arlm: autoregressive models of text, translations and images as sequences of discrete tokens.

    import arlm
    net, domain, *_ = arlm.load("runs/docs_transformer")

Names are imported at first use, so that `arlm --help` does not wait for torch.
"""

import importlib
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
