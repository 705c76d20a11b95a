"""Networks made of networks. A wrapped network is named by class path only: nothing here imports a model."""

from arlm.adapters.context_as_prefix import ContextAsPrefix
from arlm.adapters.logit_arithmetic import (
    LogitArithmetic,
    contrastive,
    guided,
    proxy_tuned,
)
from arlm.adapters.pretrained import pretrained

__all__ = [
    "ContextAsPrefix",
    "LogitArithmetic",
    "contrastive",
    "guided",
    "pretrained",
    "proxy_tuned",
]
