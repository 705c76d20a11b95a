"""How networks are called while they draw."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from arlm.core import Autoregressor, device_of


@contextmanager
def inference_context(net: Autoregressor) -> Iterator[None]:
    """Eval mode, inference mode and full precision, also when called during a Trainer's run."""
    training = [module for module in net.modules() if module.training]
    for module in training:
        module.training = False
    try:
        with torch.inference_mode(), torch.autocast(device_of(net).type, enabled=False):
            yield
    finally:
        for module in training:
            module.training = True
