"""Files are replaced as a whole, and only abandoned temporary files are removed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from arlm import storage
from arlm.storage import replace, replace_file, replacing

WRITER = """
import sys, time
from arlm.storage import replacing
with replacing(sys.argv[1]) as file:
    file.write(b"unfinished")
    file.flush()
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def writer(tmp_path: Path):
    """A process in the middle of writing `tmp_path / "file"`."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", WRITER, str(tmp_path / "file")]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    replace_file(path, b"old")
    with pytest.raises(RuntimeError), replacing(path) as file:  # noqa: PT012
        file.write(b"new")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_what_another_process_is_writing_stays_until_it_is_killed(
    tmp_path: Path, writer: subprocess.Popen
) -> None:
    replace_file(tmp_path / "file", b"mine")
    replace_file(tmp_path / "other", b"mine")
    assert len(os.listdir(tmp_path)) == 3
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    replace_file(tmp_path / "other", b"mine")
    assert len(os.listdir(tmp_path)) == 3  # of another file
    replace_file(tmp_path / "file", b"mine")
    assert sorted(os.listdir(tmp_path)) == ["file", "other"]


def test_all_abandoned_files_of_a_folder(tmp_path: Path, writer: subprocess.Popen) -> None:
    storage.remove_abandoned(tmp_path)
    assert len(os.listdir(tmp_path)) == 1
    writer.kill()
    writer.wait()
    storage.remove_abandoned(tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_file_that_was_removed_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, removed = replace.fcntl.flock, []

    def steal(file, operation: int) -> None:
        if not removed:
            removed.extend(tmp_path.iterdir())
            removed[0].unlink()
        real(file, operation)

    monkeypatch.setattr(replace.fcntl, "flock", steal)
    replace_file(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


def test_file_and_folder_are_synchronised_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, real = [], os.fsync

    def fsync(handle: int) -> None:
        calls.append((os.path.isdir(f"/proc/self/fd/{handle}"), (tmp_path / "file").exists()))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    replace_file(tmp_path / "file", b"new")
    assert calls == [
        (False, False),
        (True, True),
    ]  # the file before its rename, the folder after it


def test_links_and_devices(tmp_path: Path) -> None:
    replace_file("/dev/null", b"nothing")
    assert not Path("/dev/null").is_file()
    replace_file(tmp_path / "file", b"old")
    (tmp_path / "link").symlink_to("file")
    replace_file(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"new"


def test_permissions_are_those_of_other_new_files(tmp_path: Path) -> None:
    replace_file(tmp_path / "file", b"new")
    (tmp_path / "plain").write_bytes(b"new")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode
    (tmp_path / "file").chmod(0o600)
    replace_file(tmp_path / "file", b"newer")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600


def test_a_folder_is_locked_until_its_lock_is_released(tmp_path: Path) -> None:
    first = storage.FolderLock(tmp_path)
    with pytest.raises(BlockingIOError):
        storage.FolderLock(tmp_path)
    first.release()
    storage.FolderLock(tmp_path).release()
    assert os.listdir(tmp_path) == []


def test_a_folder_is_replaced_only_where_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/part").write_bytes(b"old")
    with pytest.raises(IsADirectoryError):
        replace_file(tmp_path / "folder", b"new")
    with replacing(tmp_path / "folder", folder=True) as file:
        file.write(b"new")
    assert (tmp_path / "folder").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["folder"]
