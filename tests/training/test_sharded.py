"""Sharded checkpoints: read by every verb and by one process, replaced as a whole, and refused when damaged or crafted."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from conftest import run_arlm
from distributed import train
from torch import distributed

from arlm import checkpoints
from arlm.checkpoints.sharded import META, METADATA, digest
from arlm.errors import UserError
from arlm.training import fully_sharded


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A sharded checkpoint of one process, written three times, and the result of the run."""
    path = tmp_path_factory.mktemp("run") / "best.ckpt"
    cache = str(path.with_name("cache"))
    with patch.dict(os.environ, {"MASTER_PORT": "0", "XDG_CACHE_HOME": cache}):
        given = {"path": str(path), "strategy": "fsdp2", "devices": 1}
        path.write_bytes(b"a file, of a run that was not sharded")
        train("windows", {"batch_size": 8}, stop=2, **given)
        with (
            patch.object(fully_sharded, "replacing", side_effect=OSError("disk full")),
            pytest.raises(UserError, match=r"checkpoint: cannot write '.*best.ckpt' \(disk full\)"),
        ):
            train("windows", {"batch_size": 8}, stop=3, **given)
        checkpoints.load(path)  # that of before
        result = train("windows", {"batch_size": 8}, stop=4, **given)
    distributed.destroy_process_group()
    return path, result


@pytest.fixture
def copy(written: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    return shutil.copytree(written[0], tmp_path / "best.ckpt")


def shards(path: Path) -> Path:
    (folder,) = path.glob("shards-*")
    return folder


def sealed(path: Path) -> None:
    """Give a checkpoint the checksums of its files, as whoever crafts one would."""
    contents = torch.load(path / META, weights_only=True)
    contents["shards"]["sha256"] = {file.name: digest(file) for file in shards(path).iterdir()}
    torch.save(contents, path / META)


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        checkpoints.load(path)
    return str(caught.value)


def test_a_stopped_write_leaves_the_checkpoint_before_it(
    written: tuple[Path, dict[str, Any]],
) -> None:
    path, result = written
    assert sorted(file.name for file in path.iterdir()) == [META, shards(path).name]
    loaded = checkpoints.load(path)
    for name, weight in loaded.net.state_dict().items():
        assert torch.equal(weight, result["weights"][name].to(weight.dtype))


def test_no_path_of_the_machine_is_written(written: tuple[Path, dict[str, Any]]) -> None:
    path, _ = written
    assert str(path.parent).encode() not in (shards(path) / METADATA).read_bytes()


def test_verbs_read_it(written: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    path, _ = written
    for run in (path, path.parent):
        assert checkpoints.find(run) == path
    text = run_arlm("sample", path, "--max-new-tokens", 4, folder=tmp_path)
    assert run_arlm("convert", path, "--out", "plain.ckpt", folder=tmp_path).out == "plain.ckpt\n"
    plain = run_arlm("sample", "plain.ckpt", "--max-new-tokens", 4, folder=tmp_path)
    assert plain.code == text.code == 0
    assert plain.out == text.out
    for given in (path, tmp_path / "plain.ckpt"):
        assert "parameters" in run_arlm("show", given, folder=tmp_path).out
    refused = run_arlm("convert", "plain.ckpt", "--out", "x.ckpt", folder=tmp_path)
    assert "one file already" in refused.error()


FIT = "fit --trainer.accelerator cpu --trainer.strategy fsdp2 --trainer.devices 2 --config"
STREAMS = "--data.batching continuous --data.separate_documents true"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("digits_pixelcnn --trainer long", "trainer.callbacks: averaged weights are not possible"),
        (f"docs_lstm {STREAMS}", "data.separate_documents: streams of documents need"),
    ],
)
def test_what_cannot_be_sharded_is_refused_before_processes_start(
    more: str, message: str, tmp_path: Path
) -> None:
    refused = run_arlm(*FIT.split(), *more.split(), folder=tmp_path)
    assert refused.error().startswith(f"arlm: error: {message}")


@pytest.mark.parametrize("name", [METADATA, "__0_0.distcp"])
def test_a_flipped_bit_is_seen(name: str, copy: Path) -> None:
    file = shards(copy) / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert f"the shard {name} in" in refusal(copy)


@pytest.mark.parametrize("name", [METADATA, "__0_0.distcp"])
def test_a_missing_file_is_seen(name: str, copy: Path) -> None:
    (shards(copy) / name).unlink()
    assert "is damaged" in refusal(copy) or "asks for more than it holds" in refusal(copy)


class Executed:
    """What a crafted `.metadata` would run."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


def test_nothing_of_a_crafted_list_is_executed(copy: Path, tmp_path: Path) -> None:
    target = tmp_path / "executed"
    (shards(copy) / METADATA).write_bytes(pickle.dumps(Executed(str(target))))
    sealed(copy)
    assert "cannot be read (UnpicklingError)" in refusal(copy)
    assert not target.exists()


@pytest.mark.parametrize("change", ["elsewhere", "size", "bytes"])
def test_a_crafted_list_is_refused(change: str, copy: Path) -> None:
    file = shards(copy) / METADATA
    found = pickle.loads(file.read_bytes())
    if change == "elsewhere":
        for part in found.storage_data.values():
            part.relative_path = f"../{META}"
    if change == "size":
        for item in found.state_dict_metadata.values():
            item.size = torch.Size([10**10, 10**3])
    if change == "bytes":
        first = next(iter(found.state_dict_metadata))
        found.state_dict_metadata[first] = None
    file.write_bytes(pickle.dumps(found))
    sealed(copy)
    expected = {"size": "asks for more than it holds"}.get(change, "are no tensors")
    assert expected in refusal(copy)


@pytest.mark.parametrize("name", ["../best.ckpt", "shards-0", 1, None])
def test_a_folder_of_shards_is_beside_its_list(name: Any, copy: Path) -> None:
    contents = torch.load(copy / META, weights_only=True)
    contents["shards"]["folder"] = name
    torch.save(contents, copy / META)
    assert "names no shards" in refusal(copy)
