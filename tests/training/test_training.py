"""Lightning runs: they learn, resume exactly, and leave checkpoints that need nothing else."""

from __future__ import annotations

import copy
import json
import math
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from conftest import ROOT

import arlm
from arlm.checkpoints.describe import checksums, entry_checksum
from arlm.core import Autoregressor, Spec
from arlm.errors import UserError
from arlm.models.pixelcnn import PixelCNN
from arlm.models.rnn import LSTMLanguageModel
from arlm.models.transformer import TransformerLanguageModel
from arlm.reports.view import view_of
from arlm.sampling import Sampler, row_seeds
from arlm.training.callbacks import AtomicCheckpointIO, AverageOncePlateaued, WriteSamples
from arlm.training.module import AutoregressiveModule
from arlm.training.schedules import WarmupCosine, planned_steps
from datamodules.digits import Digits
from datamodules.text_file import TextFile

warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\).*")


class Losses(pl.Callback):
    """Every step's loss."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer, module, outputs, *_) -> None:
        self.values.append(outputs["loss"].item())


class StopAt(pl.Callback):
    """Die in the middle of an epoch, after a checkpoint."""

    def __init__(self, step: int, path: Path) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, *_) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True


def run(folder: Path, steps: int, *callbacks: pl.Callback, resume: Path | None = None, **model):
    pl.seed_everything(0, verbose=False)
    module = AutoregressiveModule(
        model.pop("spec", Digits().spec),
        model.pop("net", partial(PixelCNN, width=4, depth=1, head_width=4)),
        optimizer=model.pop("optimizer", partial(torch.optim.AdamW, lr=3e-3)),
        scheduler=partial(WarmupCosine, warmup=5),
    )
    trainer = pl.Trainer(
        default_root_dir=folder,
        max_steps=steps,
        accelerator="cpu",
        logger=pl.loggers.CSVLogger(folder),
        callbacks=[*callbacks],
        plugins=[AtomicCheckpointIO()],
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=5,
        **model.pop("trainer", {}),
    )
    trainer.fit(module, model.pop("data", None) or Digits(), ckpt_path=resume)
    return module, trainer


def test_a_network_learns_and_writes_samples(tmp_path: Path) -> None:
    losses = Losses()
    _, trainer = run(tmp_path, 100, losses, WriteSamples(4))
    assert sum(losses.values[-10:]) < 0.85 * sum(losses.values[:10])
    assert trainer.callback_metrics["val/bits_per_dim"] < 4.09
    log = Path(trainer.log_dir)
    assert list((log / "samples").glob("step-*.png"))
    assert "train/bits_per_dim" in (log / "metrics.csv").read_text()


def lstm_run(
    folder: Path, steps: int, *callbacks: pl.Callback, resume: Path | None = None, **batching
):
    text = folder / "text.txt"
    folder.mkdir(exist_ok=True)
    text.write_text("the quick brown fox jumps over the lazy dog. " * 60)
    data = TextFile(str(text), "character", length=16, batch_size=4, **batching)
    net = partial(LSTMLanguageModel, width=8, depth=2, dropout=0.3)
    return run(folder, steps, *callbacks, resume=resume, spec=data.spec, net=net, data=data)


@pytest.mark.parametrize("batching", ["windows", "continuous"])
def test_a_run_killed_in_the_middle_of_an_epoch_resumes_exactly(
    tmp_path: Path, batching: str
) -> None:
    whole, first, rest = Losses(), Losses(), Losses()
    reference, _ = lstm_run(tmp_path / "a", 60, whole, batching=batching)
    saved = tmp_path / "half.ckpt"
    lstm_run(tmp_path / "b", 60, first, StopAt(45, saved), batching=batching)  # an epoch: 37 steps
    torch.manual_seed(99)
    resumed, _ = lstm_run(tmp_path / "c", 60, rest, resume=saved, batching=batching)
    effort = torch.load(saved, weights_only=True)["effort"]
    assert effort["tokens"] == 45 * 4 * 16
    assert resumed.effort.tokens == 60 * 4 * 16
    assert resumed.effort.seconds > effort["seconds"] > 0
    assert len(first.values) == 45
    assert first.values + rest.values == whole.values
    for name, value in reference.net.state_dict().items():
        assert torch.equal(value, resumed.net.state_dict()[name]), name


@pytest.mark.parametrize(
    "flags",
    [
        {"max_epochs": 3},
        {"max_epochs": 3, "accumulate_grad_batches": 4},
        {"max_epochs": 3, "limit_train_batches": 5, "accumulate_grad_batches": 2},
        {"max_epochs": 3, "limit_train_batches": 0.5},
        {"max_epochs": 3, "max_steps": 20},
        {"max_steps": 20},
    ],
    ids=str,
)
def test_planned_steps_are_those_of_lightning(flags: dict) -> None:
    data = Digits()
    net = partial(PixelCNN, width=4, depth=1, head_width=4)
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, **flags)
    seen: list[float] = []

    class Look(pl.Callback):
        def on_train_batch_end(self, trainer, *_) -> None:
            seen[:] = [planned_steps(trainer), trainer.estimated_stepping_batches]
            trainer.should_stop = True

    trainer.callbacks.append(Look())
    trainer.fit(AutoregressiveModule(data.spec, net), data)
    assert seen[0] == seen[1] > 3


def average(decay: float = 0.9) -> pl.Callback:
    return pl.callbacks.EMAWeightAveraging(decay=decay)


def test_averaged_weights_are_evaluated_saved_and_drawn_from(tmp_path: Path) -> None:
    seen: dict[str, torch.Tensor] = {}

    class Look(pl.Callback):
        def on_validation_batch_start(self, trainer, module, *_) -> None:
            seen["evaluated"] = module.net.first.weight.detach().clone()

        def on_train_batch_end(self, trainer, module, *_) -> None:
            seen["trained"] = module.net.first.weight.detach().clone()

    samples = WriteSamples(n=4)
    _, trainer = run(tmp_path, 44, average(), Look(), samples)
    trainer.save_checkpoint(tmp_path / "average.ckpt")
    saved = arlm.load(tmp_path / "average.ckpt").net
    assert torch.equal(saved.first.weight, seen["evaluated"])
    assert not torch.equal(seen["evaluated"], seen["trained"])
    drawn = Sampler()(saved, row_seeds(0, 4)).tokens
    (again,) = view_of(Digits().domain).show(drawn).save(tmp_path / "again")
    (written,) = tmp_path.rglob("step-*.png")
    assert written.read_bytes() == again.read_bytes()


def test_a_killed_run_with_averaged_weights_resumes_exactly(tmp_path: Path) -> None:
    whole, _ = run(tmp_path / "a", 60, average())
    path = tmp_path / "half.ckpt"
    run(tmp_path / "b", 60, average(), StopAt(50, path))
    resumed, _ = run(tmp_path / "c", 60, average(), resume=path)
    for before, after in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(before, after)


def test_averages_leave_constants_as_they_are(tmp_path: Path) -> None:
    seen: list[torch.Tensor] = []

    class Look(pl.Callback):
        def on_validation_batch_start(self, trainer, module, *_) -> None:
            seen.append(module.net.embed.values.clone())

    run(tmp_path, 44, average(), Look())
    assert torch.equal(seen[-1], torch.linspace(-1, 1, 17))


def test_weights_are_averaged_once_validation_stops_improving(tmp_path: Path) -> None:
    seen: list[tuple[bool, torch.Tensor, torch.Tensor]] = []

    class Look(pl.Callback):
        def on_train_batch_end(self, trainer, module, *_) -> None:
            mean = callback._average_model.module.net.first.weight.detach().clone()
            seen.append((callback.averaging, mean, module.net.first.weight.detach().clone()))

    callback = AverageOncePlateaued(patience=1)
    callback.history = [0.0, 5.0]  # no validation will be as good as that
    run(tmp_path, 60, callback, Look(), trainer={"val_check_interval": 20})
    plain = [torch.equal(mean, now) for averaging, mean, now in seen if not averaging]
    assert all(plain)
    assert len(plain) == 20
    since = torch.stack([now for averaging, _, now in seen if averaging])
    # the mean includes the last weights before it started
    expected = torch.cat([seen[19][2][None], since]).mean(0)
    assert torch.allclose(seen[-1][1], expected, atol=1e-6)


def test_a_run_that_diverges_stops_and_keeps_its_last_good_checkpoint(tmp_path: Path) -> None:
    class Explode(pl.Callback):
        def on_train_batch_start(self, trainer, module, *_) -> None:
            if trainer.global_step == 45:  # after an epoch of 37
                next(module.net.parameters()).data.fill_(math.nan)

    keep = pl.callbacks.ModelCheckpoint(
        tmp_path, "best", save_last=True, save_on_exception=True, enable_version_counter=False
    )
    with pytest.raises(UserError, match="training diverged: nan or inf at step 49; lower its lr"):
        lstm_run(tmp_path / "run", 60, keep, Explode())
    for name in ("best", "last"):
        contents = torch.load(tmp_path / f"{name}.ckpt", weights_only=True)
        assert contents["global_step"] == 37
        assert all(bool(weight.isfinite().all()) for weight in contents["state_dict"].values())


def test_accumulated_gradients_are_those_of_the_larger_batch(tmp_path: Path) -> None:
    def trained(name: str, batch_size: int, **trainer) -> torch.Tensor:
        sgd = partial(torch.optim.SGD, lr=0.1)
        data = Digits(batch_size=batch_size)
        module, _ = run(tmp_path / name, 2, data=data, optimizer=sgd, trainer=trainer)
        return module.net.first.weight.detach()

    one = trained("one", 32)
    two = trained("two", 16, accumulate_grad_batches=2)
    assert torch.allclose(one, two, atol=1e-6)


@pytest.mark.parametrize("fused", [True, False])
def test_bfloat16_clips_with_any_optimizer(tmp_path: Path, fused: bool) -> None:
    norms: list[float] = []

    class Look(pl.Callback):
        def on_before_zero_grad(self, trainer, module, optimizer) -> None:
            grads = [p.grad for p in module.parameters() if p.grad is not None]
            if grads:
                norms.append(float(torch.stack([g.norm() for g in grads]).norm()))

    clip = {"precision": "bf16-mixed", "gradient_clip_val": 1e-3}
    run(tmp_path, 3, Look(), optimizer=partial(torch.optim.AdamW, fused=fused), trainer=clip)
    assert norms
    assert max(norms) < 1.1e-3


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    _, trainer = run(folder, 10)
    path = folder / "digits.ckpt"
    trainer.save_checkpoint(path)
    return path


def test_a_checkpoint_alone_is_enough(trained: Path) -> None:
    net, domain, data, _ = arlm.load(trained)
    assert isinstance(net, PixelCNN)
    assert not net.training
    assert net.width == 4
    assert domain.levels == 17
    assert data["class_path"] == "datamodules.digits.Digits"
    assert len(data["provenance"]["sha256"]) == 64
    tokens = Digits().dataset("test").tokens[:3].long()
    assert torch.isfinite(net.log_prob(tokens)).all()


def edited(trained: Path, path: Path, **changes) -> Path:
    contents = copy.deepcopy(torch.load(trained, weights_only=True))
    for key, value in changes.items():
        if value is None:
            del contents[key]
        else:
            contents[key] = value(contents[key])
    if "arlm" in contents:
        entry = contents["arlm"]
        if changes.get("state_dict"):
            entry["weights"] = json.dumps(checksums(contents["state_dict"]))
        entry["checksum"] = entry_checksum(entry)
    torch.save(contents, path)
    return path


def test_bad_checkpoints_are_refused(trained: Path, tmp_path: Path) -> None:
    truncated = tmp_path / "truncated.ckpt"
    truncated.write_bytes(trained.read_bytes()[:-3000])
    empty = tmp_path / "empty.ckpt"
    empty.write_bytes(b"")
    text = tmp_path / "text.ckpt"
    text.write_text("hello")
    foreign = edited(trained, tmp_path / "foreign.ckpt", arlm=None)
    plain = tmp_path / "plain.ckpt"
    torch.save([1, 2], plain)
    newer = edited(trained, tmp_path / "newer.ckpt", arlm=lambda a: a | {"format": 99})
    other = {"class_path": "arlm.models.pixelcnn.PixelCNN", "init_args": {"width": 5, "depth": 1}}
    swapped = edited(
        trained, tmp_path / "other.ckpt", arlm=lambda a: a | {"network": json.dumps(other)}
    )
    evil = {"class_path": "os.system", "init_args": {}}
    untrusted = edited(
        trained, tmp_path / "evil.ckpt", arlm=lambda a: a | {"network": json.dumps(evil)}
    )
    diverged = edited(
        trained,
        tmp_path / "diverged.ckpt",
        state_dict=lambda weights: {key: weight * math.inf for key, weight in weights.items()},
    )
    for path, message in [
        (tmp_path / "missing.ckpt", "does not exist; give"),
        (tmp_path, "holds no best.ckpt"),
        (truncated, r"truncated or no checkpoint \(.+\); use another"),
        (empty, "truncated or no checkpoint"),
        (text, "truncated or no checkpoint"),
        (foreign, "not written by arlm; train"),
        (plain, "not written by arlm"),
        (newer, "has format 99"),
        (swapped, "do not fit the network"),
        (untrusted, "os.system, which is not arlm's"),
        (diverged, "holds nan or inf in "),
    ]:
        folder = tmp_path / "nothing" if path == tmp_path else path
        folder.mkdir() if path == tmp_path else None
        with pytest.raises(UserError, match=message) as caught:
            arlm.load(folder)
        assert "\n" not in str(caught.value)


def test_resuming_with_another_network_is_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model.net: .*give the configuration"):
        run(tmp_path, 12, resume=trained, net=partial(PixelCNN, width=5, depth=1, head_width=5))


def test_a_resumed_run_may_use_less_memory(tmp_path: Path) -> None:
    """Options of memory may change, and a checkpoint that was written before they existed resumes."""
    small = partial(TransformerLanguageModel, width=4, depth=1, heads=1)
    _, trainer = run(tmp_path, 2, net=small)
    trainer.save_checkpoint(tmp_path / "new.ckpt")

    def before(entry: dict) -> dict:
        network = json.loads(entry["network"])
        for name in ("max_logits", "activation_checkpointing"):
            del network["init_args"][name]
        return entry | {"network": json.dumps(network)}

    edited(tmp_path / "new.ckpt", tmp_path / "old.ckpt", arlm=before)
    for name in ("old", "new"):
        less = partial(small, activation_checkpointing=True, max_logits=99)
        module, _ = run(tmp_path, 3, resume=tmp_path / f"{name}.ckpt", net=less)
        assert module.global_step == 3
        assert isinstance(arlm.load(tmp_path / f"{name}.ckpt").net, TransformerLanguageModel)


def test_a_kill_leaves_no_half_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"a": torch.zeros(9)}, path)
    before = path.read_bytes()

    def die(contents, file) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", die)
    with pytest.raises(KeyboardInterrupt):
        AtomicCheckpointIO().save_checkpoint({"a": torch.ones(9)}, path)
    assert path.read_bytes() == before
    monkeypatch.undo()
    AtomicCheckpointIO().save_checkpoint({"a": torch.ones(9)}, path)
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_tensorboard_gets_images(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    data = Digits()
    module = AutoregressiveModule(data.spec, partial(PixelCNN, width=4, depth=1, head_width=4))
    trainer = pl.Trainer(
        max_steps=2,
        limit_val_batches=1,
        val_check_interval=2,
        accelerator="cpu",
        logger=pl.loggers.TensorBoardLogger(tmp_path),
        callbacks=[WriteSamples(3)],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, data)
    events = EventAccumulator(trainer.log_dir).Reload()
    assert events.Tags()["images"] == ["samples"]
    (image,) = events.Images("samples")
    assert (image.width, image.height) == (3 * 8, 8)  # the three samples side by side


def test_matrices_decay_and_vectors_do_not() -> None:
    module = AutoregressiveModule(Spec(5, (8,)), partial(LSTMLanguageModel, width=4, depth=1))
    module.trainer = type("T", (), {"estimated_stepping_batches": 10, "max_epochs": -1})()  # type: ignore[assignment]
    groups = module.configure_optimizers()["optimizer"].param_groups
    for group in groups:
        decays = group["kind"] in ("matrix", "head")
        assert (group["weight_decay"] > 0) == decays
        assert all((p.ndim >= 2) == (group["kind"] != "vector") for p in group["params"])
    assert sum(len(g["params"]) for g in groups) == len(list(module.net.parameters()))


def test_a_network_that_cannot_use_a_context_refuses_it() -> None:
    with pytest.raises(UserError, match="cannot condition on the context"):
        LSTMLanguageModel(Spec(5, (8,), context=Spec(10, (1,))))


def test_the_interface_needs_only_forward() -> None:
    class Bigram(Autoregressor):
        def __init__(self, spec: Spec) -> None:
            super().__init__(spec)
            self.embed = torch.nn.Embedding(spec.vocab_size + 1, spec.vocab_size)

        def forward(self, tokens, context=None):
            start = torch.full_like(tokens[:, :1], self.spec.vocab_size)
            return self.embed(torch.cat([start, tokens[:, :-1]], dim=1))

    tokens, log_prob = arlm.generate(Bigram(Spec(4, (6,))), [1, 2])
    assert tokens.shape == log_prob.shape == (2, 6)


@pytest.mark.slow
def test_two_processes_are_one_with_twice_the_batch(tmp_path: Path) -> None:
    weights = []
    for name, batch, flags in (
        ("one", 16, []),
        ("two", 8, ["--trainer.strategy", "ddp", "--trainer.devices", "2"]),
    ):
        command = [
            *(
                sys.executable,
                "-m",
                "arlm",
                "fit",
                "--config",
                "configs/images/digits_pixelcnn.yaml",
            ),
            *("--data.batch_size", str(batch), "--trainer.accelerator", "cpu", *flags),
            *("--trainer.max_epochs", "1", "--trainer.check_val_every_n_epoch", "1"),
            *("--model.net.width", "4", "--model.net.depth", "1", "--samples.n", "2"),
            *("--trainer.logger.save_dir", str(tmp_path), "--trainer.logger.name", name),
        ]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
        weights.append(arlm.load(tmp_path / name).net.state_dict())
    for key, value in weights[0].items():
        assert torch.allclose(value, weights[1][key], atol=1e-5), key
