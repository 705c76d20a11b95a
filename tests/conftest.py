"""One torch thread: with two, OpenMP spins at every barrier when the cores are shared."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported; subprocesses inherit it

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)
ROOT = Path(__file__).parents[1]


@pytest.fixture
def data_dir() -> Path:
    """The folder of real data sets, or a skip."""
    folder = os.environ.get("ARLM_DATA_DIR")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs the data sets of ARLM_DATA_DIR")
    return Path(folder).resolve()
