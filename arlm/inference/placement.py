"""Where and in which number format a loaded network runs: `--device`, `--precision` and `--compile` of the verbs.

    --precision   weights, features and logits      log-probabilities of tokens, and the draw
    32            float32                           float32 (default)
    64            float64                           float64
    bf16          bfloat16, 8 bits of mantissa      float32, of bfloat16 logits
    16            float16, 11 bits of mantissa      float32, of float16 logits

The weights themselves are cast (Lightning's "bf16-true"), so one network runs in the same way in scoring, sampling
and beam search. `fit --trainer.precision bf16-mixed` keeps float32 weights and casts inside operations; figures
of the two differ by rounding. Networks that count have no weights and stay in float64.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from typing import TypeVar

import torch

from arlm.core import Autoregressor, Batch
from arlm.errors import UserError, require
from arlm.sampling.generate import SamplesRows

N = TypeVar("N", bound=Autoregressor)
DTYPES = {"32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16, "64": torch.float64}


def device_named(name: str) -> torch.device:
    """The device `cpu`, `cuda` or `cuda:N`; `auto` is the first GPU, or the CPU where there is none.

    Raises:
        UserError: the name is not known, or the machine has no such device.
    """
    count = torch.cuda.device_count()
    if name == "auto":
        return torch.device("cuda:0" if count else "cpu")
    found = re.fullmatch(r"cpu|cuda(?::(\d+))?", name)
    require(found is not None, "--device", repr(name), "choose auto, cpu, cuda or cuda:N")
    if name != "cpu":
        number = int((found and found[1]) or 0)
        has = f"has {count} GPUs that torch can use"
        if number >= count:
            raise UserError(f"--device: '{name}' is missing; this machine {has}, choose auto")
        return torch.device("cuda", number)
    return torch.device("cpu")


def place(net: N, device: torch.device, precision: str = "32", compile: bool = False) -> N:
    """Move a network, cast it, and compile it; in place, and returned.

    Args:
        net: in eval mode.
        device: from `device_named`.
        precision: one of `DTYPES`.
        compile: compile scoring, and decoding of networks that are not decoded by a program
            (`arlm.programs`). The first rows wait for the compiler; parameters and their names do not change.
    """
    require(precision in DTYPES, "--precision", precision, f"choose {', '.join(DTYPES)}")
    net.to(device, DTYPES[precision])
    if compile:
        _compile(net)
    return net


def _compile(net: Autoregressor) -> None:
    compiler = next(filter(shutil.which, (os.environ.get("CXX", "g++"), "clang++")), None)
    if compiler is None:
        raise UserError("--compile: torch needs a C++ compiler, and finds none; omit it")
    # They warn of a machine without a GPU, and of code that is left to Python.
    for name in ("torch.utils.cpp_extension", "torch._dynamo"):
        logging.getLogger(name).setLevel(logging.ERROR)
    scoring = ("forward", "log_prob", "score", "score_chunk")
    names = [name for name in scoring if hasattr(net, name)]
    # A program is run by calls, or by machine code, that the compiler cannot see into.
    if not any(isinstance(module, SamplesRows) for module in net.modules()):
        names.append("advance")
    for name in names:
        # Positions grow in decoding: with fixed sizes each of them would be compiled anew.
        setattr(net, name, torch.compile(getattr(net, name), dynamic=name == "advance" or None))


def moved(batch: Batch, device: torch.device) -> Batch:
    """A batch on a device."""
    return Batch(*(None if part is None else part.to(device) for part in batch))  # type: ignore[arg-type]
