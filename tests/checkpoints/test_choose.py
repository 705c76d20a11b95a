"""Which checkpoint a folder means."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from arlm import checkpoints
from arlm.checkpoints import choose, find, record, summarise
from arlm.checkpoints.describe import PREFIX
from arlm.errors import UserError
from arlm.inference.summary import describe_checkpoint
from arlm.models.pixelcnn import PixelCNN
from datamodules.digits import Digits


def version(
    folder: Path,
    number: int,
    figure: float | None,
    width: int = 4,
    mode: str = "min",
    name: str = "best",
    **data: object,
) -> Path:
    """Write a checkpoint; a version with a greater number is newer."""
    module = Digits(**data)
    net = PixelCNN(module.spec, width=width, depth=1, head_width=4)
    weights = {PREFIX + key: value for key, value in net.state_dict().items()}
    run = {"step": 7, "monitor": "val/nll", "mode": mode, "figure": figure}
    run["figures"] = {"val/nll": figure, "val/bits_per_dim": 2.5}
    path = folder / f"version_{number}" / "checkpoints" / f"{name}.ckpt"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": weights, "arlm": record(net, weights, module, "", run)}, path)
    os.utime(path, (number, number))
    return path


def test_the_best_figure_of_one_configuration_wins(tmp_path: Path) -> None:
    version(tmp_path, 0, 1.5)
    best = version(tmp_path, 1, 1.2, batch_size=8, seed=3)
    version(tmp_path, 2, 1.4)
    version(tmp_path, 3, None)  # a short run, without a validation
    version(tmp_path, 4, float("nan"))
    assert find(tmp_path) == best
    assert find(tmp_path / "version_2") == tmp_path / "version_2/checkpoints/best.ckpt"
    assert choose(tmp_path).versions == 5
    assert not choose(tmp_path).others
    line = describe_checkpoint(tmp_path)
    assert line == (
        f"{best}: step 7, PixelCNN on digits, val/nll 1.2, val/bits_per_dim 2.5, "
        "the best of 5 versions"
    )


def test_a_figure_can_be_better_when_it_is_larger(tmp_path: Path) -> None:
    version(tmp_path, 0, None, mode="max")
    best = version(tmp_path, 1, 0.9, mode="max")
    version(tmp_path, 2, 0.5, mode="max")
    assert find(tmp_path) == best


def test_another_network_or_data_is_named_and_does_not_compete(tmp_path: Path) -> None:
    other = version(tmp_path, 0, 0.1, width=6)
    labelled = version(tmp_path, 1, 0.2, labels=True)
    best = version(tmp_path, 2, 1.5)
    version(tmp_path, 3, 1.6)
    chosen = choose(tmp_path)
    assert chosen.path == best
    assert chosen.versions == 2
    assert [summary.path for summary in chosen.others] == [labelled, other]
    line = describe_checkpoint(tmp_path)
    for number in (0, 1):
        assert f"{tmp_path}/version_{number} (PixelCNN on digits)" in line.partition("passed")[2]


def test_damaged_versions_are_passed_over(tmp_path: Path) -> None:
    best = version(tmp_path, 0, 1.5)
    damaged = version(tmp_path, 1, 1.0)
    damaged.write_bytes(damaged.read_bytes()[:-2000])
    assert find(tmp_path) == best
    assert describe_checkpoint(tmp_path).endswith(f"passed over: {damaged} (damaged)")
    best.write_bytes(b"x")
    with pytest.raises(UserError, match="truncated or no checkpoint"):
        checkpoints.load(tmp_path)


def test_last_counts_only_without_any_best(tmp_path: Path) -> None:
    last = version(tmp_path, 1, 0.5, name="last")
    assert find(tmp_path) == last
    best = version(tmp_path, 0, 1.5)
    assert find(tmp_path) == best


def test_a_run_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    version(Path("runs/digits"), 0, 1.5)
    assert find("digits") == Path("runs/digits/version_0/checkpoints/best.ckpt")
    with pytest.raises(UserError, match="'other' does not exist; give"):
        find("other")
    version(Path("digits"), 0, 1.5)  # what is here comes before what is in runs
    assert find("digits") == Path("digits/version_0/checkpoints/best.ckpt")


def test_a_network_without_a_run_has_a_summary(tmp_path: Path) -> None:
    data = Digits()
    net = PixelCNN(data.spec, width=4, depth=1, head_width=4)
    path = checkpoints.save(tmp_path / "x.ckpt", net, data)
    assert summarise(path).figure is None
    assert describe_checkpoint(path) == f"{path}: PixelCNN on digits"
