"""The choice of a backend by the work at hand, without a clock."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from pathlib import Path

import pytest
import torch

from arlm.core import Spec
from arlm.errors import UserError
from arlm.models.pixelcnn import PixelCNN
from arlm.pixels.base import PixelState
from arlm.programs import choice, native_backend
from arlm.programs.choice import (
    CALL,
    COMPILE,
    READ,
    Choice,
    Work,
    start_seconds,
    use_native,
    work_of,
)
from arlm.programs.program import Opcode, Program, Slice
from arlm.programs.torch_backend import TorchBackend

SMALL, LARGE = Work(1e4, 1e6, 16), Work(1e7, 1e6, 16)  # torch takes about 0.03 and 30 seconds
CPU = torch.device("cpu")


def test_more_work_chooses_machine_code() -> None:
    for start in (READ, COMPILE):
        assert not Choice().is_native_faster(SMALL, start)
        assert Choice().is_native_faster(LARGE, start)
    between = Work(
        4 / CALL, 1e6, 1
    )  # saves about 4 seconds: more than reading, less than compiling
    assert Choice().is_native_faster(between, start_seconds(started=False, compiled=True))
    assert not Choice().is_native_faster(between, start_seconds(started=False, compiled=False))
    assert Choice().is_native_faster(SMALL, start_seconds(started=True, compiled=True))


def test_four_images_of_a_large_network_are_no_faster_as_lanes() -> None:
    """They take the time of 16, so torch is chosen even in a process that has started machine code."""
    assert not Choice().is_native_faster(Work(1e4, 3e9, 4), 0.0)
    assert Choice().is_native_faster(Work(1e4, 3e9, 1), 0.0)
    assert Choice().is_native_faster(Work(1e4, 3e9, 16), 0.0)


def test_small_batches_add_up() -> None:
    chosen = Choice()
    taken = [chosen.take(SMALL, READ) for _ in range(200)]
    first = taken.index(True)
    assert not any(taken[:first])
    assert all(taken[first:])
    assert first * SMALL.saved <= READ < (first + 1) * SMALL.saved
    asked = Choice()
    assert not any(asked.is_native_faster(SMALL, READ) for _ in range(200))


def test_work_is_counted() -> None:
    program = Program(height=4, width=6, channels=1, groups=1)
    source, out = program.scratch(3), program.scratch(2)
    program.linear(source, torch.zeros(3, 2), out)  # 6 products, one call
    program.add(Opcode.GATE, Slice(0, 4), out, out)  # 2 numbers, two calls
    assert work_of(program, 5, 24) == Work(calls=3 * 24, products=8 * 24, images=5)
    assert work_of(program, 5, 12) == Work(calls=3 * 12, products=8 * 12, images=5)
    program.phase = (2, 1, 1)  # every fourth pixel
    program.add(Opcode.RELU, out, out)
    assert work_of(program, 5, 24) == Work(calls=3 * 24 + 6, products=8 * 24 + 12, images=5)
    program.phase = (1, 0, 0)
    program.row_stage()
    program.linear(source, torch.zeros(3, 2), out)  # a call for each row
    program.row_stage(scan=True)
    program.linear(source, torch.zeros(3, 2), out)  # a call for each column
    assert work_of(program, 5, 24) == Work(
        calls=3 * 24 + 6 + 4 + 24, products=8 * 24 + 12 + 12 * 24, images=5
    )


def test_attention_reads_half_of_the_pixels() -> None:
    program = Program(height=2, width=4, channels=3, groups=1)
    query, out = program.scratch(5), program.scratch(7)
    keys, values = program.history(5, 1)[0].here, program.history(7, 1)[0].here
    program.add(Opcode.ATTEND, query, out, keys, c=values)
    assert work_of(program, 1, 24) == Work(calls=5 * 8, products=(5 + 7) * 4 * 8, images=1)


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has not started machine code, which is on disk."""
    monkeypatch.delenv("ARLM_NATIVE", raising=False)
    monkeypatch.setattr(choice, "CHOICE", Choice())
    monkeypatch.setattr(native_backend, "INSTALLED", True)
    monkeypatch.setattr(choice, "is_started", lambda: False)
    monkeypatch.setattr(choice, "is_compiled", lambda: True)


@pytest.mark.usefixtures("fresh")
def test_the_environment_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    program = Program(2, 2, 1, 1)

    def chosen(dtype: torch.dtype = torch.float32, device: torch.device = CPU) -> bool:
        return use_native(program, 1, 4, dtype, device)

    assert not chosen()
    monkeypatch.setenv("ARLM_NATIVE", "1")
    assert chosen()
    assert not chosen(torch.float64)
    assert not chosen(device=torch.device("meta"))
    monkeypatch.setenv("ARLM_NATIVE", "yes")
    with pytest.raises(UserError, match=r"ARLM_NATIVE: 'yes' .*choose auto, 0 or 1"):
        chosen()
    monkeypatch.setenv("ARLM_NATIVE", "1")
    monkeypatch.setattr(native_backend, "INSTALLED", False)
    assert not chosen()


@pytest.mark.usefixtures("fresh")
def test_networks_choose_by_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    net = PixelCNN(Spec(2, (6, 6, 1)), width=4, depth=2, head_width=4)
    program = net.program()
    batch = 16
    assert work_of(program, batch, 36).saved < READ
    state = net.start(batch, 36)[1]
    assert isinstance(state, PixelState)
    assert isinstance(state.backend, TorchBackend)
    assert not state[torch.tensor([1, 0])].native
    monkeypatch.setattr(choice, "READ", work_of(program, batch, 36).saved)
    state = net.start(batch, 36)[1]  # the second batch: together they cost as much as the start
    assert isinstance(state, PixelState)
    assert state.native
    assert not isinstance(state.backend, TorchBackend)


def test_machine_code_on_disk_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert not native_backend.is_compiled()
    python = f"py{sys.version_info.major}{sys.version_info.minor}{sys.abiflags}"
    index = tmp_path / "programs_0" / f"native_code.run-101.{python}.nbi"
    index.parent.mkdir()
    version = importlib.metadata.version("numba")
    index.write_bytes(b"\x80\x04\x95" + version.encode() + b"...")
    assert native_backend.is_compiled()
    index.write_bytes(b"\x80\x04\x95" + b"0.0.1" + b"...")
    assert not native_backend.is_compiled()
    index.write_bytes(version.encode())
    native_backend.compiled()
    assert native_backend.is_compiled()
    os.utime(index, (1, 1))  # older than the source
    assert not native_backend.is_compiled()
    monkeypatch.setattr(native_backend, "is_started", lambda: False)
    native_backend.compiled()
    assert not index.exists()
