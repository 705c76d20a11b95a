"""Networks made of networks. A wrapped network is named by class path only: nothing here imports a model."""

from arlm.adapters.adapted import Adapted
from arlm.adapters.classifier import Classifier
from arlm.adapters.context_as_prefix import ContextAsPrefix
from arlm.adapters.files import load_adapter, save_adapter
from arlm.adapters.logit_arithmetic import (
    LogitArithmetic,
    contrastive,
    guided,
    proxy_tuned,
)
from arlm.adapters.lora import LoRA
from arlm.adapters.pretrained import pretrained
from arlm.adapters.regressor import Regressor
from arlm.adapters.with_embeddings import with_embeddings

__all__ = [
    "Adapted",
    "Classifier",
    "ContextAsPrefix",
    "LoRA",
    "LogitArithmetic",
    "Regressor",
    "contrastive",
    "guided",
    "load_adapter",
    "pretrained",
    "proxy_tuned",
    "save_adapter",
    "with_embeddings",
]
