"""The pickle of a checkpoint, scanned before it is loaded: what it would call, and how much memory it would take.

PyTorch's restricted loader runs no foreign code, but it calls `bytearray(n)`, `torch.FloatTensor(n)` and the like
for a pickle of a few bytes. A checkpoint needs plain values and tensors only.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from arlm.checkpoints.members import Damaged

LARGEST = 2**24  # bytes of a pickle; one of 1,000 tensors and their optimizer takes 0.4 MB
MOST = 2**20  # containers in it, of up to 500 bytes each
CALLS = 2**14  # calls in a pickle, beside some for each tensor
SHARED = 16  # how often the tensors may use the bytes of the file; tied weights use some twice
STORAGES = (
    *("Bool", "Byte", "Char", "Short", "Int", "Long", "Half", "BFloat16", "Float", "Double"),
    *("ComplexFloat", "ComplexDouble"),
)
ALLOWED = {
    "collections OrderedDict",
    "builtins set",
    "__builtin__ set",
    "torch Size",
    "torch device",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    *(f"torch {kind}" for kind in dir(torch) if isinstance(getattr(torch, kind), torch.dtype)),
    *(f"torch {kind}Storage" for kind in STORAGES),
}
CONTAINERS = {
    *("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "EMPTY_SET", "MARK"),
    *("TUPLE1", "TUPLE2", "TUPLE3"),
}
# Torch's loader does not know these either; here they cannot hide a call from the scan.
REFUSED = {"STACK_GLOBAL", "INST", "OBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"}


def scan(content: bytes, tensors: int) -> None:
    """Raise Damaged for a pickle that is no checkpoint's.

    Args:
        content: the pickle, protocol 2.
        tensors: number of members of the archive.
    """
    if len(content) > LARGEST:
        raise Damaged(f"its pickle has {len(content)} bytes; at most {LARGEST} are read")
    containers, calls = MOST, CALLS + 4 * tensors  # that are left
    for opcode, argument, _ in pickletools.genops(content):
        name = opcode.name
        if name in CONTAINERS:
            containers -= 1
        elif name in ("REDUCE", "NEWOBJ"):
            calls -= 1
        elif name in REFUSED or (name == "GLOBAL" and argument not in ALLOWED):
            raise Damaged(f"it names {str(argument)[:60]}, which is no part of a checkpoint")
        if containers < 0 or calls < 0:
            raise Damaged("its pickle has far too many containers or calls")


def check_tensors(contents: Any, size: int) -> None:
    """Raise Damaged for tensors that are larger than what the file holds of them, before anything copies them.

    Args:
        contents: of a checkpoint of `size` bytes.
    """
    total = 0
    for tensor in _tensors(contents):
        plain = tensor.layout is torch.strided and tensor.device.type == "cpu"
        held = tensor.numel() * tensor.element_size()
        total += held
        if not plain or held > tensor.untyped_storage().nbytes():
            raise Damaged("it holds a tensor that is larger than its storage, or no plain one")
    if total > SHARED * size:
        raise Damaged(f"its tensors of {total} bytes are views of fewer")


def _tensors(contents: Any) -> Iterator[Tensor]:
    """Every tensor within dictionaries, lists, tuples and sets; each container is visited once."""
    waiting, seen = [contents], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, dict | list | tuple | set) and id(value) not in seen:
            seen.add(id(value))
            waiting.extend(value)
            if isinstance(value, dict):
                waiting.extend(dict.values(value))
