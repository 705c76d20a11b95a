"""Write a network to a checkpoint without training it, such as one that is made of trained networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from arlm.checkpoints.describe import PREFIX, record
from arlm.checkpoints.specs import check_spec
from arlm.core import Autoregressor
from arlm.errors import UserError
from arlm.storage import replacing


def save(path: str | Path, net: Autoregressor, data: Any) -> Path:
    """Write a checkpoint that `load`, `arlm sample`, `arlm evaluate` and `arlm compare` read.

    Args:
        path: the file, such as `model.ckpt`.
        net: the network; its spec is that of the data.
        data: what it models: the `TokenDataModule`, or the `Loaded` checkpoint of a run on the same data.

    Returns: the path.

    Raises:
        UserError: the network is for other tokens than the data or cannot be described, or the file cannot be
            written.
    """
    path = Path(path)
    check_spec(net.spec, data.domain)
    weights = {PREFIX + name: weight.cpu() for name, weight in net.state_dict().items()}
    contents = {"state_dict": weights, "arlm": record(net, weights, data)}
    return write(path, contents)


def write(path: Path, contents: dict[str, Any], field: str = "path") -> Path:
    """Write the contents of a checkpoint; errors name `field`. Returns the path."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            torch.save(contents, file)
    except (OSError, RuntimeError) as error:  # torch raises the second
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{field}: '{path}' cannot be written ({reason}); choose another") from None
    return path
