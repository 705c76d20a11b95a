"""nan and inf are found in tensors of every type."""

from __future__ import annotations

import math

import pytest
import torch

from arlm.training.finite import Diverged, all_finite, check_finite, tensors_of


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_one_broken_number_among_many(dtype: torch.dtype, broken: float) -> None:
    good = [torch.zeros(0), torch.arange(3), "text", None, torch.full((70_000,), 2, dtype=dtype)]
    last = torch.ones(5, 7, dtype=dtype)
    assert all_finite([*good, last])
    last[2, 3] = broken
    assert not all_finite([*good, last])
    with pytest.raises(Diverged, match="nan or inf at step 7"):
        check_finite([*good, last], 7)


def test_weights_and_optimizer_states_of_a_checkpoint() -> None:
    weights, state = torch.ones(2), {0: {"exp_avg": torch.ones(2), "step": 3}}
    contents = {"state_dict": {"net.a": weights}, "optimizer_states": [{"state": state}]}
    assert all_finite(tensors_of(contents))
    state[0]["exp_avg"][1] = math.nan
    assert not all_finite(tensors_of(contents))
