"""What a verb writes is whole or not there, and the one line about a full disk names the file."""

from __future__ import annotations

import json
import os
import resource
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from conftest import ROOT, run_arlm
from PIL import Image

from arlm.errors import UserError
from arlm.inference import writer
from arlm.models.pixelcnn import PixelCNN
from arlm.reports.files import check_writable
from arlm.reports.images import write_animation
from arlm.sampling import class_labels
from datamodules.digits import Digits
from tools.fuzz.originals import write_originals

# A command, and the file that it cannot write. `old` is there before.
WRITERS = {
    "sample rnn.ckpt -n 40 --out old.txt": "old.txt",
    "sample image.ckpt --out old.png": "old.png",
    "sample rnn.ckpt --beam 3 --tree old.html": "old.html",
    "sample rnn.ckpt --beam 3 --tree old.png": "old.png",
    "score rnn.ckpt note.txt --html old.html": "old.html",
    "score image.ckpt image.png --out old.png": "old.png",
    "attention gpt.ckpt abc --html old.html": "old.html",
    "attention gpt.ckpt abc --out old.png": "old.png",
    "translate pair.ckpt many.txt --temperature 1 --out old.txt": "old.txt",
    "translate pair.ckpt dates.txt --tree old.png": "old.png",
    "compare a=rnn.ckpt --out old.html": "old.html",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outputs")
    write_originals(folder)
    (folder / "many.txt").write_text("3 May 2001\n" * 30)
    for suffix in ("txt", "png", "gif", "html"):
        (folder / f"old.{suffix}").write_text("old")
    return folder


@contextmanager
def full_disk(room: int = 64) -> Iterator[None]:
    """Files can have `room` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(("command", "name"), WRITERS.items())
def test_a_full_disk_leaves_the_old_file(command: str, name: str, folder: Path) -> None:
    if command.startswith("compare"):  # its tokens are prepared first
        assert run_arlm("evaluate", "rnn.ckpt", folder=folder).code == 0
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with full_disk():
        done = run_arlm(*shlex.split(command), folder=folder)
    line = done.error()
    assert f"cannot write '{name}' (File too large); free some space" in line
    assert before == {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_full_disk_leaves_the_old_animation(folder: Path) -> None:
    pictures = [torch.full((8, 8, 1), shade, dtype=torch.uint8) for shade in range(50)]
    with (
        full_disk(),
        pytest.raises(UserError, match=r"cannot write '.*old.gif' \(File too large\)"),
    ):
        write_animation(pictures, folder / "old.gif")
    assert (folder / "old.gif").read_text() == "old"
    assert Image.open(write_animation(pictures, folder / "new.gif")).n_frames == 50  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "command", ["sample rnn.ckpt --out new/x.txt", "sample rnn.ckpt --out new"]
)
def test_a_folder_in_the_way_is_refused_before_the_work(command: str, folder: Path) -> None:
    (folder / "new" / "x.txt").mkdir(parents=True, exist_ok=True)
    assert "(Is a directory)" in run_arlm(*command.split(), folder=folder).error()


def test_a_pipe_is_not_opened_before_the_work(folder: Path) -> None:
    """Opening a pipe waits for its reader, and closing it ends the reader's input."""
    os.mkfifo(folder / "pipe.txt")
    check_writable(folder / "pipe.txt")


def test_what_was_translated_before_a_refusal_is_kept(folder: Path) -> None:
    (folder / "half.txt").write_text("3 May 2001\n\n")
    line = run_arlm(
        "translate", "pair.ckpt", "half.txt", "--out", "done.txt", folder=folder
    ).error()
    assert "line 2 of 'half.txt': it is empty" in line
    assert (folder / "done.txt").read_text().count("\n") == 1


def start(command: str, folder: Path, **options) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    script = f"{shlex.quote(sys.executable)} -m arlm {command}"
    return subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        **options,
    )


@pytest.mark.parametrize("command", ["--help", "configs", "runs ."])
def test_a_full_standard_output_is_said_in_one_line(command: str, folder: Path) -> None:
    done = start(f"{command} > /dev/full", folder)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "arlm: error: output: cannot be written (No space left on device); check where it goes, and "
        "the space there"
    ]


def test_a_reader_that_leaves_ends_the_drawing(folder: Path) -> None:
    """100,000 texts would take minutes; `head` leaves after the first."""
    command = "sample rnn.ckpt -n 100000 --max-new-tokens 64 | head -1; echo ${PIPESTATUS[0]}"
    done = start(command, folder, timeout=250)
    assert done.stdout.splitlines()[-1] == "141"
    assert "Traceback" not in done.stderr


def test_texts_are_printed_batch_by_batch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run_arlm("sample", "rnn.ckpt", "-n", 5, "--json", folder=folder)
    drawn: list[int] = []
    draw = writer.written

    def counted(net, decode, prompts, *arguments, **options):
        drawn.append(len(prompts))
        return draw(net, decode, prompts, *arguments, **options)

    monkeypatch.setattr("arlm.inference.writer.written", counted)
    monkeypatch.setattr("arlm.inference.capacity.TOGETHER", 32)
    parts = run_arlm("sample", "rnn.ckpt", "-n", 5, "--json", folder=folder)
    assert drawn == [2, 2, 1]
    one, other = ([json.loads(line) for line in run.out.splitlines()] for run in (parts, whole))
    nats = [[record.pop("nats") for record in records] for records in (one, other)]
    assert one == other
    assert nats[0] == pytest.approx(nats[1], rel=1e-6)  # products of other sizes round otherwise
    assert len(one) == 5


def test_labels_continue_in_the_next_batch() -> None:
    net = PixelCNN(Digits(labels=True).spec, width=4, depth=1)
    whole, part = class_labels(net, None, 30), class_labels(net, None, 7, 13)
    assert whole is not None
    assert part is not None
    assert part.tolist() == whole[13:20].tolist()
