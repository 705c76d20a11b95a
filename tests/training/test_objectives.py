"""Objectives: distillation from a teacher, objectives without an optimizer, and what is refused."""

from __future__ import annotations

import copy
import hashlib
import math
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from conftest import ROOT, run_arlm
from pytorch_lightning.plugins.precision import MixedPrecision
from torch import Tensor, nn
from torch.utils.data import DataLoader

import arlm
from arlm.core import Batch, Scores, Spec
from arlm.data.dataset import Rows
from arlm.errors import UserError
from arlm.models.neural_ngram import NeuralNGram
from arlm.models.pixelcnn import PixelCNN
from arlm.training.module import AutoregressiveModule
from arlm.training.objectives import Classification, Distillation, Likelihood, Objective, Terms
from arlm.training.objectives.distillation import divergences
from datamodules.digits import Digits

SMALL: Any = partial(PixelCNN, width=4, depth=1, head_width=4)


def fitted(
    folder: Path,
    objective: Objective | None = None,
    data: Any = None,
    resume: Path | None = None,
    callbacks: Any = (),
    optimizer: Any = None,
    **flags: Any,
) -> tuple[AutoregressiveModule, pl.Trainer]:
    """A short run on digits."""
    pl.seed_everything(0, verbose=False)
    data = data or Digits(batch_size=16)
    module = AutoregressiveModule(data.spec, SMALL, objective, optimizer)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        callbacks=[*callbacks],
        **quiet | {"max_steps": 4, "limit_val_batches": 2} | flags,
    )
    trainer.fit(module, data, ckpt_path=resume)
    return module, trainer


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of digits."""
    path = tmp_path_factory.mktemp("teacher") / "teacher.ckpt"
    fitted(path.parent)[1].save_checkpoint(path)
    return path


def batch() -> Batch:
    return Digits().dataset("train")[Rows(0, torch.arange(3))]


@pytest.mark.parametrize("kl", ["forward", "reverse"])
def test_the_loss_is_the_divergence_of_scored_tokens(kl: Any, teacher: Path) -> None:
    torch.manual_seed(1)
    net, objective = SMALL(Digits().spec).double(), Distillation(str(teacher), kl).double()
    objective.prepare(net)
    rows = batch()
    rows = rows._replace(scored=torch.rand(rows.tokens.shape) < 0.5)
    terms = objective.loss(net, rows)
    loaded = arlm.load(teacher).net.double()
    own, theirs = (each(rows.tokens).log_softmax(-1) for each in (net, loaded))
    p, q = (theirs, own) if kl == "forward" else (own, theirs)
    expected = F.kl_div(q, p, reduction="none", log_target=True).sum(-1)[rows.scored]
    assert int(terms.count) == len(expected)
    assert torch.allclose(terms.sum, expected.sum(), rtol=1e-12)
    nats = -net.log_prob(rows.tokens)[rows.scored].sum()
    sums = {"count": len(expected)} | {k: float(v) for k, v in terms.figures.items()}
    figures = objective.figures(sums, "dim")
    assert figures["kl"] == pytest.approx(float(expected.mean()), rel=1e-12)
    assert figures["nll"] == pytest.approx(float(nats) / len(expected), rel=1e-12)
    ours, reference = (
        torch.autograd.grad(s, net.first.weight)[0] for s in (terms.sum, expected.sum())
    )
    assert torch.allclose(ours, reference, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["likelihood", "classification", "forward", "reverse"])
def test_a_token_of_weight_two_counts_like_two_tokens(name: str, teacher: Path) -> None:
    objective: Objective
    if name == "likelihood":
        objective, net = Likelihood(), Penalised(Digits().spec, width=4, depth=1).double()
    elif name == "classification":
        objective, net = Classification(), Penalised(Digits().spec, width=4, depth=1).double()
    else:
        direction: Any = name
        objective, net = Distillation(str(teacher), direction), SMALL(Digits().spec).double()
    objective.double().prepare(net.eval())
    rows = batch()
    weights = torch.tensor([[2.0], [1.0], [0.0]]).expand(rows.tokens.shape)
    weighted = objective.loss(net, rows._replace(weights=weights))
    chosen = [0, 0, 1]
    repeated = objective.loss(
        net, Batch(rows.tokens[chosen], rows.scored[chosen], rows.units[chosen])
    )
    assert float(weighted.count) == float(repeated.count)
    assert torch.allclose(weighted.sum, repeated.sum, rtol=1e-12)
    for figure, value in repeated.figures.items():
        assert float(weighted.figures[figure]) == pytest.approx(float(value), rel=1e-12), figure


class Penalised(PixelCNN):
    """A network with a penalty of each token."""

    def score(self, tokens: Tensor, context: Tensor | None = None) -> Scores:
        scores = super().score(tokens, context)
        return scores._replace(auxiliary=tokens.double())

    def logits_and_auxiliary(self, tokens: Tensor, context: Tensor | None = None) -> Any:
        return self(tokens, context), tokens.double()


def test_a_network_does_not_diverge_from_itself(teacher: Path) -> None:
    net, objective = arlm.load(teacher).net, Distillation(str(teacher))
    objective.prepare(net)
    terms = objective.loss(net, batch())
    (gradient,) = torch.autograd.grad(terms.sum, net.first.weight)
    assert abs(float(terms.sum)) < 1e-4
    assert float(gradient.abs().max()) < 1e-4


def test_impossible_tokens_add_nothing() -> None:
    p = torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0]], dtype=torch.float64).log()
    q = torch.tensor([[0.25, 0.75, 0.0], [0.2, 0.3, 0.5]], dtype=torch.float64).log()
    q.requires_grad_()
    found = divergences(p, q)
    expected = [
        0.5 * math.log(2) + 0.5 * math.log(2 / 3),
        0.5 * math.log(2.5) + 0.5 * math.log(5 / 3),
    ]
    assert found.tolist() == pytest.approx(expected, rel=1e-12)
    found.sum().backward()
    assert q.grad is not None
    assert bool(q.grad.isfinite().all())


def test_a_teacher_is_frozen_and_no_part_of_the_run(teacher: Path, tmp_path: Path) -> None:
    before = arlm.load(teacher).net.state_dict()
    module, trainer = fitted(tmp_path, Distillation(str(teacher)), val_check_interval=2)
    objective: Any = module.objective
    (net,) = objective._frozen
    assert not net.training
    assert not any(parameter.requires_grad for parameter in net.parameters())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(name.startswith("net.") for name in module.state_dict())
    module.double()
    assert next(net.parameters()).dtype == torch.float64
    path = tmp_path / "student.ckpt"
    trainer.save_checkpoint(path)
    saved = torch.load(path, weights_only=True)["objective_files"]
    assert saved == {"teacher": hashlib.sha256(teacher.read_bytes()).hexdigest()}
    assert set(trainer.callback_metrics) >= {"val/kl", "val/nll", "val/ppl", "val/bits_per_dim"}
    fitted(tmp_path, Distillation(str(teacher)), resume=path, max_steps=5)
    with pytest.raises(
        UserError, match=r"ckpt_path: the run was trained with the files \{'teacher'"
    ):
        fitted(tmp_path, resume=path, max_steps=5)


def test_bad_teachers_are_refused(teacher: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.ckpt"
    damaged.write_bytes(teacher.read_bytes()[:-2000])
    with pytest.raises(UserError, match=r"model.objective.teacher: .*truncated or no checkpoint"):
        Distillation(str(damaged))
    with pytest.raises(UserError, match=r"model.objective.teacher: .*does not exist"):
        Distillation(str(tmp_path / "missing.ckpt"))
    with pytest.raises(UserError, match=r"model.objective.kl: both is out of range"):
        Distillation(str(teacher), "both")  # type: ignore[arg-type]
    for spec in (Spec(5, (8, 8, 1), unit="dim"), Spec(17, (4, 4, 1), unit="dim")):
        with pytest.raises(UserError, match="give a teacher with the same tokens") as caught:
            AutoregressiveModule(spec, SMALL, Distillation(str(teacher)))
        assert "\n" not in str(caught.value)
    rows = batch()._replace(starts_document=torch.ones(3, dtype=torch.bool))
    objective = Distillation(str(teacher))
    objective.prepare(SMALL(Digits().spec))
    with pytest.raises(UserError, match=r"data.batching: .*choose windows"):
        objective.loss(SMALL(Digits().spec), rows)


def loader(batches: list[Any]) -> DataLoader:
    """A loader of the given batches."""
    return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]


class Counted(Objective):
    """Fits a bias by counting, without optimizer."""

    monitor, sums, optimizes = "count", ("seen",), False

    def loss(self, net: Any, batch: Batch) -> Terms:
        if net.training:
            net.counts += batch.tokens.flatten().bincount(minlength=len(net.counts))
        count = batch.scored.sum()
        return Terms(torch.zeros(()), count, {"seen": count})

    def figures(self, sums: Any, unit: str) -> dict[str, float]:
        return {"count": sums["seen"]}


def test_an_objective_may_need_no_optimizer(tmp_path: Path) -> None:
    data = Digits(batch_size=16)

    class Counting(PixelCNN):
        def __init__(self, spec: Spec) -> None:
            super().__init__(spec, width=4, depth=1, head_width=4)
            self.register_buffer("counts", torch.zeros(17, dtype=torch.long))

    module = AutoregressiveModule(data.spec, Counting, Counted())
    before = copy.deepcopy(list(module.parameters()))
    trainer = pl.Trainer(
        default_root_dir=tmp_path, accelerator="cpu", logger=False, max_epochs=1,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0, gradient_clip_val=1.0,
    )  # fmt: skip
    trainer.fit(module, data)
    counted = len(data.dataset("train")) * 64  # one pass over the whole split
    counts: Any = module.net.counts
    assert int(counts.sum()) == counted == module.effort.tokens
    assert float(trainer.callback_metrics["val/count"]) == len(data.dataset("val")) * 64
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))


class Other(NamedTuple):
    """Another type of batch."""

    tokens: Tensor


def test_a_batch_of_another_type_is_refused(tmp_path: Path) -> None:
    class Others(Digits):
        def train_dataloader(self) -> Any:
            return loader([Other(torch.zeros(2, 64))] * 4)

    with pytest.raises(UserError, match=r"Likelihood takes batches of type Batch, .* yields Other"):
        fitted(tmp_path, data=Others())


class WithHead(Likelihood):
    """Likelihood, plus a parameter of its own in the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Linear(1, 1)

    def loss(self, net: Any, batch: Batch) -> Terms:
        terms = super().loss(net, batch)
        more = self.value(batch.scored.sum().float()[None]).sum()
        return Terms(terms.sum + more, terms.count, terms.figures)


def test_parameters_of_an_objective_are_trained_and_saved(tmp_path: Path) -> None:
    objective = WithHead()
    before = objective.value.weight.detach().clone()
    _, trainer = fitted(tmp_path, objective)
    assert not torch.equal(before, objective.value.weight)
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    assert isinstance(arlm.load(tmp_path / "run.ckpt").net, PixelCNN)
    saved = torch.load(tmp_path / "run.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(saved["objective.value.weight"], objective.value.weight)


class NothingScored(Digits):
    """The third batch of four has no scored token."""

    def train_dataloader(self) -> Any:
        batches = [batch() for _ in range(4)]
        batches[2] = batches[2]._replace(scored=torch.zeros_like(batches[2].scored))
        return loader(batches)


class Weights(pl.Callback):
    """The first weight after every batch."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def on_train_batch_end(self, trainer, module, *_) -> None:
        self.seen.append(module.net.first.weight.detach().clone())


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("precision", ["32", "bf16", "16"])
def test_a_step_without_scored_tokens_is_skipped(
    fused: bool, precision: str, tmp_path: Path
) -> None:
    weights = Weights()
    optimizer = partial(torch.optim.AdamW, lr=0.01, weight_decay=0.1, fused=fused)
    kind: Any = f"{precision}-mixed"
    plugins = [] if precision == "32" else [MixedPrecision(kind, "cpu")]
    given = {"callbacks": [weights], "optimizer": optimizer, "plugins": plugins}
    fitted(tmp_path, data=NothingScored(), **given)
    _, second, third, fourth = weights.seen
    assert torch.equal(second, third)
    assert not torch.equal(third, fourth)
    assert bool(fourth.isfinite().all())


class Gradients(pl.Callback):
    """A copy of the gradients of each step, as the optimizer gets them."""

    def __init__(self) -> None:
        self.seen: list[list[Tensor]] = []

    def on_train_batch_end(self, trainer, module, *_) -> None:
        if trainer.global_step > len(self.seen):
            self.seen.append([p.grad.clone() for p in module.parameters()])


def test_a_short_last_step_of_an_epoch_is_divided_by_its_own_count(tmp_path: Path) -> None:
    """Five batches in steps of three: the last step of the epoch has two."""
    gradients = Gradients()
    sgd = partial(torch.optim.SGD, lr=0.0)
    flags = {"limit_train_batches": 5, "accumulate_grad_batches": 3, "max_steps": 2}
    module, _ = fitted(tmp_path, callbacks=[gradients], optimizer=sgd, precision="64-true", **flags)
    batches = list(Digits(batch_size=16).train_dataloader())[:5]
    for step, part in enumerate((batches[:3], batches[3:])):
        nats = sum(-module.net.log_prob(b.tokens).sum() for b in part)
        expected = torch.autograd.grad(
            nats / sum(b.tokens.numel() for b in part), [*module.parameters()]
        )  # type: ignore[arg-type]
        for ours, reference in zip(gradients.seen[step], expected, strict=True):
            assert torch.allclose(ours, reference, rtol=1e-10, atol=1e-13)


class StopAfter(pl.Callback):
    """Saves a checkpoint after a number of batches, and stops."""

    def __init__(self, batches: int, path: Path) -> None:
        self.batches, self.path = batches, path

    def on_train_batch_end(self, trainer, module, outputs, batch, index) -> None:
        if index + 1 == self.batches:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True


@pytest.mark.parametrize("batches", [8, 9, 10])
def test_a_run_resumes_exactly_within_a_step(batches: int, tmp_path: Path) -> None:
    flags = {"accumulate_grad_batches": 4, "max_steps": 5, "min_steps": 1}
    whole, _ = fitted(tmp_path / "a", **flags)
    path = tmp_path / "half.ckpt"
    fitted(tmp_path / "b", callbacks=[StopAfter(batches, path)], **flags)
    resumed, _ = fitted(tmp_path / "c", resume=path, **flags)
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_monitored_figure_is_the_objectives(teacher: Path, tmp_path: Path) -> None:
    config = ROOT / "configs/images/digits_distilled.yaml"
    flags = ["--model.objective.teacher", teacher, "--trainer.max_steps", 6, "--samples.n", 0]
    often = ["--trainer.val_check_interval", 2, "--trainer.check_val_every_n_epoch", "null"]
    for kl, name in (("forward", "f"), ("reverse", "r")):
        more = ["--model.objective.kl", kl, "--trainer.logger.name", name]
        done = run_arlm("fit", "--config", config, *flags, *often, *more, folder=tmp_path)
        assert done.code == 0, done.err
        folder = tmp_path / "runs" / name / "version_0"
        callbacks = torch.load(folder / "checkpoints/best.ckpt", weights_only=True)["callbacks"]
        (state,) = (v for k, v in callbacks.items() if k.startswith("RunCheckpoint"))
        assert state["monitor"] == "val/kl"
        assert "val/nll" in (folder / "metrics.csv").read_text()
    shown = run_arlm("evaluate", tmp_path / "runs/r", folder=tmp_path)
    assert "PixelCNN" in shown.out
    drawn = run_arlm("sample", tmp_path / "runs/f", "-n", 1, "--out", "x.png", folder=tmp_path)
    assert drawn.code == 0, drawn.err


def test_the_command_line_refuses_in_one_line(teacher: Path, tmp_path: Path) -> None:
    config = ROOT / "configs/images/digits_pixelcnn.yaml"
    distill = ["--model.objective", "arlm.training.objectives.Distillation"]
    text = ["--config", ROOT / "configs/translation/dates_lstm.yaml", "--data.pairs", 2000]
    for given, message in [
        (["--model.objective.label_smoothing", 1.5], "model.objective.label_smoothing: 1.5 is out"),
        ([*distill, "--model.objective.teacher", "none.ckpt"], "'none.ckpt' does not exist"),
        ([*text, *distill, "--model.objective.teacher", teacher], "the same tokens"),
    ]:
        base = [] if "--config" in given else ["--config", config]
        done = run_arlm("fit", *base, *given, "--samples.n", 0, folder=tmp_path)
        assert message in done.error()


def test_smoothing_needs_independent_rows() -> None:
    net = NeuralNGram(Spec(5, (4,)), order=3, embedding=4, width=6)
    objective = Likelihood(0.1)
    objective.prepare(net)
    tokens, starts = torch.zeros(2, 4, dtype=torch.long), torch.ones(2, dtype=torch.bool)
    rows = Batch(tokens, tokens >= 0, torch.ones(2, 4), None, starts)
    with pytest.raises(UserError, match=r"model.objective.label_smoothing: .*choose 0"):
        objective.loss(net, rows)
