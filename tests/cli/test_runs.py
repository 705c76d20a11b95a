"""`arlm runs` and `arlm show`."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT, run_arlm
from PIL import Image

import arlm
from arlm.checkpoints.describe import entry_checksum
from arlm.cli.parser import print_json
from arlm.inference.listing import parts
from arlm.inference.measures import curves, read_metrics
from arlm.models.transformer import TransformerLanguageModel

TINY = ["--model.net.width", 4, "--model.net.depth", 1, "--trainer.accelerator", "cpu"]
QUICK = ["--samples.n", 0, "--trainer.limit_val_batches", 1]
DIGITS = ["--config", ROOT / "configs/images/digits_pixelcnn.yaml", *TINY, *QUICK]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs of digits, the first of which is the better one, and a damaged one."""
    folder = tmp_path_factory.mktemp("listed")
    for number, steps in enumerate((3, 1)):
        short = ["--trainer.max_steps", steps, "--run-name", "digits"]
        assert run_arlm("fit", *DIGITS, *short, folder=folder).code == 0
        for path in folder.rglob(f"version_{number}/checkpoints/*.ckpt"):
            os.utime(path, (10**9 + number, 10**9 + number))
    damaged = folder / "runs/other/version_0/checkpoints/last.ckpt"
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"x")
    os.utime(damaged, (10**8, 10**8))
    return folder


def test_runs_are_listed(folder: Path) -> None:
    done = run_arlm("runs", "--json", folder=folder)
    assert done.code == 0, done.err
    damaged, first, second = json.loads(done.out)
    assert "truncated or no checkpoint" in damaged["error"]
    assert [row["run"] for row in (first, second)] == [
        f"runs/digits/version_{number}" for number in (0, 1)
    ]
    assert (first["network"], first["data"], first["step"]) == ("PixelCNN", "digits", 3)
    assert first["best"] < second["best"]
    assert first["figure"] == "bits_per_dim"
    assert [row["newest"] for row in (damaged, first, second)] == [False, False, True]
    lines = run_arlm("runs", folder=folder).out.splitlines()
    assert lines[0].split() == ["run", "network", "data", "steps", "last", "best", "saved"]
    assert "cannot be read" in lines[1]
    assert f"{first['best']:.4f}  bits/dim" in lines[2]
    assert lines[3].endswith(" *")
    assert sum(line.endswith("*") for line in lines) == 1


def test_a_run_is_shown(folder: Path) -> None:
    done = run_arlm("show", "digits", "--json", folder=folder)
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert record["checkpoint"] == "runs/digits/version_0/checkpoints/best.ckpt"
    net = arlm.load(folder / record["checkpoint"]).net
    count = sum(p.numel() for p in net.parameters())
    assert record["network"]["parameters"] == sum(record["network"]["parts"].values()) == count
    children = {name: sum(p.numel() for p in m.parameters()) for name, m in net.named_children()}
    named = {name: value for name, value in record["network"]["parts"].items() if name in children}
    assert named == {name: value for name, value in children.items() if name in named} != {}
    assert record["network"]["init_args"]["width"] == 4
    assert record["provenance"]["name"] == "digits"
    assert len(record["provenance"]["sha256"]) == 64
    assert record["training"]["step"] == 3
    assert record["training"]["objective"] == "Likelihood"
    assert "--run-name digits" in record["training"]["command"]
    assert str(ROOT) not in record["training"]["command"]  # shipped configurations by name
    assert set(record["versions"]) == {"arlm", "torch", "pytorch-lightning", "python"}
    assert record["versions"]["torch"] == torch.__version__
    text = run_arlm("show", "runs/digits/version_0", folder=folder).out
    assert f"parameters    {count:,}\n" in text
    assert f"versions      arlm {arlm.__version__}\n" in text
    assert "\x1b" not in text


def test_tied_weights_count_once(tmp_path: Path) -> None:
    net = TransformerLanguageModel(arlm.Spec(7, (5,)), width=8, heads=2, depth=2, tied=True)
    torch.save({f"net.{k}": v for k, v in net.state_dict().items()}, tmp_path / "x")
    weights = torch.load(tmp_path / "x", mmap=True)
    assert sum(parts(weights).values()) == sum(p.numel() for p in net.parameters())


def test_empty_and_missing_folders(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    assert run_arlm("runs", folder=tmp_path).out == "no runs in runs\n"
    assert json.loads(run_arlm("runs", "--json", folder=tmp_path).out) == []
    assert "folder: 'nope' does not exist" in run_arlm("runs", "nope", folder=tmp_path).error()
    assert "'nope' does not exist" in run_arlm("show", "nope", folder=tmp_path).error()


def test_lightning_is_not_imported(folder: Path) -> None:
    code = (
        "import sys; from arlm.cli import runs, show; runs.main([]); show.main(['digits']); "
        "sys.exit('pytorch_lightning' in sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def edited(path: Path, out: Path, change: dict, **tensors: object) -> Path:
    """A checkpoint with other entries in its description, and with other contents beside it."""
    contents = torch.load(path, weights_only=True)
    entry = contents["arlm"]
    for part, values in change.items():
        entry[part] = json.dumps(json.loads(entry[part]) | values)
    entry["checksum"] = entry_checksum(entry)
    out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(contents | tensors, out)
    return out


@pytest.mark.parametrize(
    "record",
    [
        {"figure": 10**400},
        {"figure": "x", "figures": 3},
        {"monitor": None, "figures": {}},
        {"step": "\x1b[2J", "monitor": "\x1b[2J"},
    ],
    ids=str,
)
def test_odd_records_are_listed_and_shown(record: dict, folder: Path, tmp_path: Path) -> None:
    best = folder / "runs/digits/version_0/checkpoints/best.ckpt"
    odd = edited(best, tmp_path / "runs/odd/version_0/checkpoints/last.ckpt", {"run": record})
    (odd.parent / "best.ckpt").symlink_to("gone.ckpt")
    for verb in (["runs"], ["runs", "--json"], ["show", "odd"]):
        told = run_arlm(*verb, folder=tmp_path)
        assert told.code == 0, told.err
        assert "PixelCNN" in told.out
        assert "\x1b" not in told.out


def test_control_characters_of_a_description_are_not_printed(folder: Path, tmp_path: Path) -> None:
    best = folder / "runs/digits/version_0/checkpoints/best.ckpt"
    change = {"network": {"class_path": "a\x1b[2J.B\n", "init_args": {"\x1b[2J": 3}}}
    told = run_arlm("show", edited(best, tmp_path / "x.ckpt", change), folder=tmp_path)
    assert told.code == 0, told.err
    assert "a[2J.B" in told.out
    assert "\x1b" not in told.out


@pytest.mark.parametrize("weights", [None, {"net.x": 5}, {"net.x": torch.eye(2).to_sparse()}])
def test_weights_that_are_none_are_refused(weights: object, folder: Path, tmp_path: Path) -> None:
    best = folder / "runs/digits/version_0/checkpoints/best.ckpt"
    odd = edited(best, tmp_path / "x.ckpt", {}, state_dict=weights)
    refused = run_arlm("show", odd, folder=tmp_path).error()
    assert f"'{odd}' cannot be read" in refused or "is no part of a checkpoint" in refused


@pytest.mark.parametrize("stride", ["4", 0, -1, 2.5])
def test_a_stride_that_is_none_is_not_used(stride: object, folder: Path, tmp_path: Path) -> None:
    best = folder / "runs/digits/version_0/checkpoints/best.ckpt"
    args = {"init_args": {"stride": stride}, "class_path": "their.Data", "provenance": {}}
    odd = edited(best, tmp_path / "x.ckpt", {"data": args})
    Image.new("L", (8, 8)).save(tmp_path / "black.png")
    told = run_arlm("score", odd, "black.png", folder=tmp_path)
    assert told.code == 0, told.err


def test_configurations_of_ones_own_are_listed_without_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/short.yaml").write_text("seed_everything: 0")
    (tmp_path / "mine/long.yaml").write_text("# arlm fit --config long\nseed_everything: 0\n")
    monkeypatch.setattr("arlm.inference.configurations.folder", lambda: tmp_path)
    lines = run_arlm("configs", folder=tmp_path).out.splitlines()
    assert lines[2:5] == ["mine:", "  long", "  short"]


def test_cells_without_numbers_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,val/nll\n1,2.5\n2,x\n3,\n4,1.5,7\n")
    rows = read_metrics(tmp_path / "metrics.csv")
    assert rows == [
        {"step": 1, "val/nll": 2.5},
        {"step": 2},
        {"step": 3},
        {"step": 4, "val/nll": 1.5},
    ]
    assert curves(tmp_path / "metrics.csv", "step", "val/nll") == [[1, 2.5], [4, 1.5]]


def test_json_holds_no_infinity(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"nats": math.inf, "rows": [(1.5, math.nan)], "n": 3})
    assert json.loads(capsys.readouterr().out) == {"nats": None, "rows": [[1.5, None]], "n": 3}
