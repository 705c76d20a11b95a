"""Fitting by counting: one pass gives the counts of the whole split, resumed or not, and nothing is counted twice."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from conftest import ROOT, run_arlm

import arlm
from arlm.core import Autoregressor, Spec
from arlm.data import module as data_module
from arlm.data.module import TokenDataModule
from arlm.errors import UserError
from arlm.models.ngram import KneserNeyNGram
from arlm.models.rnn import LSTMLanguageModel
from arlm.models.unigram import Histogram, Unigram
from arlm.training.callbacks import AtomicCheckpointIO
from arlm.training.module import AutoregressiveModule
from arlm.training.objectives import Counting, Likelihood
from datamodules.digits import Digits
from datamodules.text_file import TextFile

NGRAM = ["--config", str(ROOT / "configs/text/shakespeare_ngram.yaml"), "--samples.n", "1"]
SHAKESPEARE = {"path": "tinyshakespeare/input.txt", "tokenizer": "character", "one_held_out": True}


class SaveAt(pl.Callback):
    """Write a checkpoint in the middle of the pass."""

    def __init__(self, step: int, path: Path) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, *_) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


def fit(
    folder: Path, data: TokenDataModule, net, *callbacks: pl.Callback, resume: Path | None = None
) -> Autoregressor:
    module = AutoregressiveModule(data.spec, net, Counting())
    trainer = pl.Trainer(
        default_root_dir=folder,
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        callbacks=[*callbacks],
        plugins=[AtomicCheckpointIO()],
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, data, ckpt_path=resume)
    return module.net


def whole(data: TokenDataModule, kind: type, *arguments: int) -> Autoregressor:
    """A network that counts the whole training split at once."""
    net = kind(data.spec, *arguments)
    corpus = getattr(data, "corpus", None)
    net.count(
        data.dataset("train").tokens.long() if corpus is None else corpus("train").whole()[None]
    )
    return net


def assert_same_counts(one: Autoregressor, other: Autoregressor) -> None:
    for (name, a), (_, b) in zip(one.named_buffers(), other.named_buffers(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("batching", ["windows", "continuous"])
def test_one_pass_counts_the_whole_text(batching: str, tmp_path: Path, data_dir: Path) -> None:
    data = TextFile("tinyshakespeare/input.txt", batching=batching, length=100, batch_size=7)
    assert_same_counts(
        fit(tmp_path, data, partial(KneserNeyNGram, order=5)), whole(data, KneserNeyNGram, 5)
    )


@pytest.mark.parametrize("kind", [KneserNeyNGram, Unigram, Histogram])
def test_a_resumed_pass_counts_the_rest(kind: type, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(data_module, "COUNTED_TOKENS", 64 * 100)  # 15 batches
    path = tmp_path / "half.ckpt"
    expected = whole(Digits(), kind)
    assert_same_counts(fit(tmp_path, Digits(), kind, SaveAt(4, path)), expected)
    saved = torch.load(path, weights_only=True)["state_dict"]["net.counts"]
    assert 0 < saved.sum() < expected.counts.sum() / 2
    assert_same_counts(fit(tmp_path, Digits(), kind, resume=path), expected)


def test_verbs_on_a_fitted_run(tmp_path: Path, data_dir: Path) -> None:
    for name, order in (("bigram", 2), ("fivegram", 5)):
        logger = ["--trainer.logger.init_args.name", name]
        done = run_arlm("fit", *NGRAM, *logger, "--model.net.order", order, folder=tmp_path)
        assert done.code == 0, done.err
        assert "Warning" not in done.err
    net = arlm.load(tmp_path / "runs/fivegram").net
    assert_same_counts(net, whole(TextFile(**SHAKESPEARE), KneserNeyNGram, 5))
    done = run_arlm(
        "evaluate", "runs/fivegram", "--split", "val", "--baselines", "--json", folder=tmp_path
    )
    figures = json.loads(done.out)["models"]
    assert figures["KneserNeyNGram"]["nll"] == pytest.approx(figures["5-gram"]["nll"], abs=1e-6)
    done = run_arlm("sample", "runs/fivegram", "-n", 1, "--prompt", "ROMEO:", folder=tmp_path)
    assert done.out.startswith("ROMEO:"), done.err
    done = run_arlm(
        "compare", "runs/bigram", "runs/fivegram", "--split", "val", "--json", folder=tmp_path
    )
    rows = {row["name"]: row for row in json.loads(done.out)["models"]}
    assert rows["fivegram"]["nll"] == pytest.approx(figures["5-gram"]["nll"], abs=1e-6)
    assert rows["bigram"]["nll"] > 2.4
    assert rows["bigram"]["trained_tokens"] == 1003854
    # The pass is over: a resumed run counts nothing more.
    checkpoint = tmp_path / "runs/fivegram/version_0/checkpoints/last.ckpt"
    done = run_arlm("fit", *NGRAM, "--ckpt_path", checkpoint, folder=tmp_path)
    assert done.code == 0, done.err
    done = run_arlm("validate", *NGRAM, "--ckpt_path", checkpoint, folder=tmp_path)
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ["--trainer.max_epochs", "2"],
            "trainer.max_epochs: 2 is out of range; choose 1: counting",
        ),
        (["--model.net.order", "0"], "model.net.order: 0 is out of range; choose 1 to 10, because"),
        (
            ["--model.objective", "arlm.training.objectives.Likelihood"],
            "model.objective: KneserNeyNGram has no parameters to optimise; choose",
        ),
        (
            ["--model.net", "arlm.models.rnn.LSTMLanguageModel"],
            "model.objective: Counting cannot fit LSTMLanguageModel, which is trained by gradients",
        ),
    ],
)
def test_what_cannot_be_counted_is_refused(
    more: list[str], message: str, tmp_path: Path, data_dir: Path
) -> None:
    assert message in run_arlm("fit", *NGRAM, *more, folder=tmp_path).error()


def test_several_processes_are_refused(monkeypatch) -> None:
    module = AutoregressiveModule(Digits().spec, Unigram, Counting())
    module.trainer = pl.Trainer(max_epochs=1, logger=False, accelerator="cpu")
    module.setup("fit")
    monkeypatch.setattr(pl.Trainer, "world_size", 2)
    module.setup("validate")
    with pytest.raises(UserError, match=r"^trainer\.devices: 2 is out of range; choose 1"):
        module.setup("fit")


def test_other_objectives_keep_their_batches() -> None:
    data = Digits()
    assert data.train_dataloader().order.training
    for objective, training in ((Counting(), False), (Likelihood(), True)):
        data.trainer = pl.Trainer(logger=False, accelerator="cpu")
        net = Unigram if not training else partial(LSTMLanguageModel, width=4, depth=1)
        data.trainer.strategy._lightning_module = AutoregressiveModule(data.spec, net, objective)
        assert data.train_dataloader().order.training == training


def test_evaluation_counts_nothing() -> None:
    net = Unigram(Spec(17, (8, 8, 1)))
    objective = Counting()
    objective.prepare(net)
    (batch,) = Digits().single_pass()
    terms = objective.loss(net.eval(), batch)
    assert not net.counts.any()
    assert terms.figures["evaluated"] == terms.count == batch.tokens.numel()
    terms = objective.loss(net.train(), batch)
    assert net.counts.sum() == batch.tokens.numel()
    sums = {name: float(value) for name, value in terms.figures.items()}
    assert objective.figures({"sum": 0.0, "count": 1.0} | sums, "dim") == {}
