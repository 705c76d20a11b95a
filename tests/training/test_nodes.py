"""Two nodes, rehearsed on the loopback address: agents of torchrun, and processes with the variables of SLURM."""

from __future__ import annotations

import csv
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, run_arlm

OPTIONS = "--config digits_pixelcnn --trainer.accelerator cpu --trainer.max_epochs -1 "
OPTIONS += "--trainer.check_val_every_n_epoch null --trainer.max_steps 4 "
OPTIONS += "--trainer.val_check_interval 2 --samples.n 1"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def commands(launcher: str, fit: list[str]) -> list[tuple[list[str], dict[str, str]]]:
    """The command of each node, and what it adds to the environment."""
    port = str(free_port())
    if launcher == "slurm":
        job = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1", "SLURM_NNODES": "2"}
        job |= {"SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "rehearsal", "SLURM_LOCALID": "0"}
        job |= {"SLURM_NODELIST": "127.0.0.1", "MASTER_PORT": port}
        names = ("SLURM_PROCID", "SLURM_NODEID")
        return [([sys.executable, *fit], job | dict.fromkeys(names, str(node))) for node in (0, 1)]
    agent = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nnodes",
        "2",
        "--nproc-per-node",
        "1",
    ]
    agent += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "1"]
    return [([*agent, *fit], {})] * 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "strategy"), [("torchrun", "ddp"), ("torchrun", "fsdp2"), ("slurm", "ddp")]
)
def test_two_nodes_are_one_process_with_twice_the_batch(
    launcher: str, strategy: str, tmp_path: Path
) -> None:
    nodes = (
        f"--trainer.strategy {strategy} --trainer.num_nodes 2 --trainer.devices 1 --run-name nodes"
    )
    fit = ["-m", "arlm", "fit", *OPTIONS.split(), *nodes.split()]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    runs = [
        subprocess.Popen(
            command,
            cwd=tmp_path,
            env=environment | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for command, more in commands(launcher, fit)
    ]
    try:
        outputs = [run.communicate(timeout=200) for run in runs]
    finally:
        for run in runs:
            run.kill()
    assert [run.returncode for run in runs] == [0, 0], outputs
    first = [out for out, _ in outputs if out.strip()]
    assert first == ["runs/nodes/version_0\n"]  # one process reports
    assert [path.name for path in (tmp_path / "runs/nodes").iterdir()] == ["version_0"]
    alone = run_arlm("fit", *OPTIONS.split(), "--data.batch_size", 64, folder=tmp_path)
    assert alone.code == 0, alone.err
    figures = [
        [float(row["val/nll"]) for row in csv.DictReader(path.open()) if row["val/nll"]]
        for path in (
            tmp_path / "runs/nodes/version_0/metrics.csv",
            tmp_path / alone.out.strip() / "metrics.csv",
        )
    ]
    assert len(figures[0]) == 2
    assert figures[0] == pytest.approx(figures[1], rel=1e-6)
    assert run_arlm("sample", "nodes", "-n", 1, folder=tmp_path).code == 0
