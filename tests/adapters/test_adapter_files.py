"""Adapters in files of their own, by Python and by the command line."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import laws
import lora_laws
import pytest
import torch
from conftest import ROOT, run_arlm

import arlm
from arlm import checkpoints
from arlm.adapters import LoRA, load_adapter, save_adapter
from arlm.errors import UserError
from arlm.models.rnn import LSTMLanguageModel
from datamodules.text_file import TextFile

FOX = "the quick brown fox jumps over the lazy dog. " * 60
SHORT = ["--trainer.max_steps", 3, "--trainer.limit_val_batches", 1, "--samples.n", 0]
SHORT += ["--trainer.accelerator", "cpu"]
DATA = ["--data", "TextFile", "--data.path", "text.txt", "--data.length", 16]
LORA = ["--model.net", "LoRA", "--model.net.base", "pretrained"]
LORA += ["--model.net.base.checkpoint", "runs/base"]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text(FOX)
    data = TextFile(str(tmp_path / "text.txt"), tokenizer="character", length=16)
    net = laws.lively(LSTMLanguageModel(data.spec, width=8, depth=1)).float()
    return checkpoints.save(tmp_path / "base.ckpt", net, data)


def test_an_adapter_goes_through_a_file_and_shares_its_base(base: Path, tmp_path: Path) -> None:
    loaded = arlm.load(base)
    nets = [
        lora_laws.adapted(LoRA, loaded.net),
        lora_laws.adapted(LoRA, loaded.net, targets=["*hh*"]),
    ]
    paths = [save_adapter(tmp_path / f"{i}.ckpt", net) for i, net in enumerate(nets)]
    other = arlm.load(base).net
    again = [load_adapter(other, path) for path in paths]
    assert again[0].base is again[1].base is other
    assert load_adapter(again[0], paths[1]).base is other
    tokens = laws.rows(other, 3)
    for net, found in zip(nets, again, strict=True):
        assert torch.equal(found(tokens), net(tokens))
        assert not found.training
    assert load_adapter(other.train(), paths[0]).training
    large, small = (p.stat().st_size for p in (base, paths[1]))
    assert small < large


def test_another_base_is_refused(base: Path, tmp_path: Path) -> None:
    net = arlm.load(base).net
    path = save_adapter(tmp_path / "adapter.ckpt", lora_laws.adapted(LoRA, net))
    with torch.no_grad():
        net.head.bias[0] += 1e-3
    with pytest.raises(UserError, match=r"'.*adapter.ckpt' belongs to another base \(its weights"):
        load_adapter(net, path)
    with pytest.raises(UserError, match="is no adapter, but a whole network"):
        load_adapter(net, base)
    with pytest.raises(UserError, match="is an adapter without its base"):
        arlm.load(path)
    with pytest.raises(UserError, match="its network is a LSTMLanguageModel and no adapter"):
        save_adapter(tmp_path / "x.ckpt", net)
    with pytest.raises(UserError, match="does not exist"):
        load_adapter(net, tmp_path / "missing.ckpt")
    contents = torch.load(path, weights_only=True)
    next(iter(contents["state_dict"].values())).add_(1)
    torch.save(contents, path)
    with pytest.raises(UserError, match=r"checkpoint: the weight low_rank.* is damaged"):
        load_adapter(arlm.load(base).net, path)


def test_fit_export_and_use(base: Path, tmp_path: Path) -> None:
    """LoRA by flags; its run needs no base; its adapter needs one, the right one; resume; learning rates."""
    run = partial(run_arlm, folder=tmp_path)
    lstm = ["--config", ROOT / "configs/text/docs_lstm.yaml", "--model.net.width", 8]
    for name, seed in (("base", 0), ("other", 1)):
        done = run("fit", *lstm, *SHORT, *DATA, "--seed_everything", seed, "--run-name", name)
        assert done.code == 0, done.err
    tuned = [*LORA, *DATA, *SHORT, "--model.net.rank", 2, "--model.optimizer", "AdamW"]
    tuned += ["--model.optimizer.lr", 0.05, "--run-name", "tuned"]
    done = run("fit", *tuned)
    assert done.code == 0, done.err
    before, after = (arlm.load(tmp_path / f"runs/{n}").net for n in ("base", "tuned"))
    for name, weight in before.state_dict().items():
        assert torch.equal(weight, after.base.state_dict()[name])
    done = run("adapter", "runs/tuned", "--out", "adapter.ckpt")
    assert done.code == 0, done.err
    figures = {}
    for name, more in {
        "base": ["runs/base"],
        "tuned": ["runs/tuned"],
        "adapter": ["runs/base", "--adapter", "adapter.ckpt"],
    }.items():
        done = run("evaluate", *more, "--json")
        assert done.code == 0, done.err
        figures[name] = done.out.split('"nll": ')[1].split(",")[0]
        if name != "base":
            drawn = run("sample", *more, "-n", 1, "--prompt", "the ", "--max-new-tokens", 9)
            assert drawn.code == 0, drawn.err
            figures[f"drawn {name}"] = drawn.out
    assert figures["tuned"] == figures["adapter"] != figures["base"]
    assert figures["drawn tuned"] == figures["drawn adapter"]
    error = run("sample", "runs/other", "--adapter", "adapter.ckpt").error()
    assert "--adapter: 'adapter.ckpt' belongs to another base" in error
    error = run("adapter", "runs/base", "--out", "x.ckpt").error()
    assert "its network is a LSTMLanguageModel and no adapter" in error
    error = run("fit", *tuned[:-2], "--model.net.targets", "[nothing]").error()
    assert "model.net.targets: 'nothing' matches no matrix" in error
    error = run("fit", *tuned[:-2], "--model.net.rank", 0).error()
    assert "model.net.rank: 0 is out of range; choose at least 1" in error
    resumed = [*tuned, "--trainer.max_steps", 5, "--resume"]
    done = run("fit", *resumed)
    assert done.code == 0, done.err
    net = arlm.load(tmp_path / "runs/tuned").net
    for name, weight in before.state_dict().items():
        assert torch.equal(weight, net.base.state_dict()[name])


def test_frozen_by_pattern_from_the_command_line(base: Path, tmp_path: Path) -> None:
    run = partial(run_arlm, folder=tmp_path)
    tuned = ["--model.net", "pretrained", "--model.net.checkpoint", "base.ckpt", *DATA, *SHORT]
    tuned += ["--model.net.options", '{"trained_state": true}', "--model.layer_decay", 0.5]
    tuned += ["--model.learning_rates", '{"*": 0, "initial_state.*": 1}', "--run-name", "state"]
    done = run("fit", *tuned)
    assert done.code == 0, done.err
    before, after = arlm.load(base).net, arlm.load(tmp_path / "runs/state").net
    for name, weight in before.state_dict().items():
        assert torch.equal(weight, after.state_dict()[name])
    assert all(bool(part.any()) for part in after.initial_state)
    done = run("fit", *tuned, "--trainer.max_steps", 5, "--resume")
    assert done.code == 0, done.err
    error = run("fit", *tuned[:-4], "--model.learning_rates", '{"nothing": 0}').error()
    assert "model.learning_rates: 'nothing' matches no parameter of LSTM" in error
