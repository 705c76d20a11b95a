"""Networks made of networks are saved and loaded: guidance of images, ensembles of texts."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from conftest import run_arlm

import arlm
from arlm import checkpoints
from arlm.adapters import LogitArithmetic, guided, pretrained
from arlm.core import Spec
from arlm.data.dataset import Rows
from arlm.errors import UserError
from arlm.models.neural_ngram import NeuralNGram
from arlm.models.pixelcnn import PixelCNN
from arlm.models.rnn import LSTMLanguageModel
from arlm.models.transformer import TransformerLanguageModel
from arlm.sampling import class_labels, generate
from datamodules.digits import Digits
from datamodules.text_file import TextFile

FOX = "the quick brown fox jumps over the lazy dog. " * 60
DIGITS = Digits(labels=True, label_dropout=0.1)


def drawn(net: torch.nn.Module) -> torch.nn.Module:
    """With random weights large enough that contexts matter."""
    torch.manual_seed(1)
    for weight in net.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return net.eval()


def text(folder: Path, content: str = FOX, tokenizer: str = "character", length: int = 16):
    (folder / "text.txt").write_text(content)
    return TextFile(str(folder / "text.txt"), tokenizer, length=length, batch_size=4)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A checkpoint of a small network of labelled digits with a null class."""
    net = drawn(PixelCNN(DIGITS.spec, width=8, depth=1, head_width=8))
    return checkpoints.save(tmp_path / "image.ckpt", net, DIGITS)


@pytest.fixture
def texts(tmp_path: Path) -> list[Path]:
    """Checkpoints of two networks with the same tokens."""
    data = text(tmp_path)
    nets = LSTMLanguageModel(data.spec, width=8), NeuralNGram(data.spec, order=3, width=8)
    return [
        checkpoints.save(tmp_path / f"text{i}.ckpt", drawn(net), data) for i, net in enumerate(nets)
    ]


def test_guidance_is_saved_loaded_sampled_evaluated_and_compared(
    image: Path, tmp_path: Path
) -> None:
    loaded = arlm.load(image)
    net = guided(loaded.net, 2.5)
    path = checkpoints.save(tmp_path / "guided.ckpt", net, loaded)
    again = arlm.load(path)
    context = class_labels(net, None, 12)
    tokens = generate(net, range(12), context=context).tokens
    assert torch.equal(generate(again.net, range(12), context=context).tokens, tokens)
    assert torch.equal(again.net(tokens, context), net(tokens, context))
    assert again.data == loaded.data
    assert len(list(again.net.parameters())) == len(list(loaded.net.parameters()))  # once
    plain, found = (json.loads(run_arlm("evaluate", each, "--json").out) for each in (image, path))
    assert found["data"] == plain["data"]
    assert found["models"] != plain["models"]
    assert run_arlm("compare", f"plain={image}", f"guided={path}", folder=tmp_path).code == 0
    for name, arguments in {"a": [path], "b": [image, "--guidance", "2.5"]}.items():
        done = run_arlm("sample", *arguments, "-n", "10", "--out", f"{name}.png", folder=tmp_path)
        assert done.code == 0, done.err
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_guidance_of_guidance(image: Path, tmp_path: Path) -> None:
    loaded = arlm.load(image)
    net = guided(guided(loaded.net, 2.0), 1.5)
    path = checkpoints.save(tmp_path / "twice.ckpt", net, loaded)
    tokens, context = torch.randint(17, (3, 64)), torch.tensor([[0], [5], [9]])
    assert torch.equal(arlm.load(path).net(tokens, context), net(tokens, context))


@pytest.mark.parametrize("options", [["--label", "3"], [], ["--decoding", "fixed_point"]])
def test_guidance_of_1_is_plain_sampling(image: Path, tmp_path: Path, options: list) -> None:
    images = []
    for more in ([], ["--guidance", "1"], ["--guidance", "4"]):
        arguments = [image, *options, *more, "-n", "20", "--out", "x.png"]
        assert run_arlm("sample", *arguments, folder=tmp_path).code == 0
        images.append((tmp_path / "x.png").read_bytes())
    assert images[0] == images[1] != images[2]


def test_classes_in_turn_leave_the_null_class_out(image: Path) -> None:
    net = arlm.load(image).net
    assert net.spec.context == Spec(11, (1,), kind="label", null_id=10)
    assert class_labels(net, None, 12).flatten().tolist() == [*range(10), 0, 1]
    for verb in ("sample", "score"):
        done = run_arlm(verb, image, *(["x.png"] if verb == "score" else []), "--label", "10")
        assert "--label: 10 is out of range; choose 0 to 9" in done.error() or verb == "score"


def test_guidance_is_refused_without_a_null_class(texts: list[Path], tmp_path: Path) -> None:
    data = Digits(labels=True)
    net = PixelCNN(data.spec, width=8, depth=1, head_width=8)
    path = checkpoints.save(tmp_path / "no_null.ckpt", net, data)
    for each in (path, texts[0]):
        error = run_arlm("sample", each, "--guidance", "2").error()
        assert "--guidance: 2.0 given, but the network has no null class; train it with" in error
    for value in ("nan", "inf", "x"):
        assert "--guidance" in run_arlm("sample", path, "--guidance", value).error()


def test_an_ensemble_from_yaml_and_from_flags(texts: list[Path], tmp_path: Path) -> None:
    """A run of two trained networks; its checkpoint needs their files no longer."""
    nets = [
        {"class_path": "arlm.adapters.pretrained", "init_args": {"checkpoint": str(path)}}
        for path in texts
    ]
    data = {
        "class_path": "datamodules.text_file.TextFile",
        "init_args": {"path": "text.txt", "tokenizer": "character", "length": 16},
    }
    config = {
        "data": data | {"init_args": data["init_args"] | {"batch_size": 4}},
        "model": {
            "net": {
                "class_path": "arlm.adapters.LogitArithmetic",
                "init_args": {"nets": nets, "weights": [0.5, 0.5]},
            }
        },
    }
    (tmp_path / "ensemble.yaml").write_text(yaml.safe_dump(config))
    still = ["--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", "0"]
    short = ["--trainer.max_steps", "2", "--trainer.accelerator", "cpu", *still]
    short += ["--samples.n", "0", "--trainer.val_check_interval", "1"]
    flags = ["--data", data["class_path"], "--data.path", "text.txt", "--data.batch_size", "4"]
    flags += ["--data.tokenizer", "character", "--data.length", "16"]
    flags += ["--model.net", "arlm.adapters.LogitArithmetic", "--model.net.weights", "[0.5, 0.5]"]
    flags += ["--model.net.nets", json.dumps(nets)]
    tokens = torch.randint(20, (3, 16))
    first, second = (arlm.load(path).net for path in texts)
    expected = 0.5 * (first(tokens).log_softmax(-1) + second(tokens).log_softmax(-1))
    for name, arguments in {"yaml": ["--config", "ensemble.yaml"], "flags": flags}.items():
        folder = tmp_path / name
        folder.mkdir()
        for file in ("text.txt", "ensemble.yaml"):
            (folder / file).write_bytes((tmp_path / file).read_bytes())
        done = run_arlm("fit", *arguments, *short, folder=folder)
        assert done.code == 0, done.err
        found = next((folder / "runs").rglob("last.ckpt"))
        net = arlm.load(found).net
        assert (net(tokens) - expected).abs().max() < 1e-6
        described = json.loads(checkpoints.read(found)["arlm"]["network"])
        kinds = [part["class_path"] for part in described["init_args"]["nets"]]
        assert kinds == [
            "arlm.models.rnn.LSTMLanguageModel",
            "arlm.models.neural_ngram.NeuralNGram",
        ]
        assert "pretrained" not in json.dumps(described)
    for path in texts:
        path.unlink()
    assert arlm.load(found).net(tokens).shape == (3, 16, expected.shape[-1])
    done = run_arlm("sample", found, "-n", "2", "--prompt", "the ", folder=tmp_path)
    assert [text[:4] for text in done.out.split("\n---\n")] == ["the "] * 2


def test_pretrained_copies_weights_and_refuses_other_tokens(
    texts: list[Path], image: Path, tmp_path: Path
) -> None:
    spec = arlm.load(texts[0]).net.spec
    copy, trained = pretrained(str(texts[0]))(spec), arlm.load(texts[0]).net
    assert copy.training
    tokens = torch.randint(20, (3, 16))
    assert torch.equal(copy(tokens), trained(tokens))
    longer = pretrained(str(texts[0]))(text(tmp_path, length=20).spec)
    assert longer.spec.length == 20
    assert torch.equal(longer(tokens), trained(tokens))
    other = text(tmp_path, FOX.replace("q", "Q"))  # as many characters
    assert other.spec.vocab_size == spec.vocab_size
    message = (
        r"was trained with other tokens than those of the data \(28 of tokenizer \w{16}, not 28 of"
    )
    with pytest.raises(UserError, match=message):
        pretrained(str(texts[0]))(other.spec)
    with pytest.raises(UserError, match="was trained with other contexts than those of the data"):
        pretrained(str(image))(Digits(labels=True).spec)
    net = TransformerLanguageModel(spec, width=8, depth=1, heads=2, positions="learned")
    path = checkpoints.save(tmp_path / "table.ckpt", net, text(tmp_path))
    longer = pretrained(str(path))(text(tmp_path, length=20).spec).eval()
    assert torch.equal(longer(tokens), net.eval()(tokens))
    pictures = TransformerLanguageModel(DIGITS.spec, width=8, depth=1, heads=2, positions="learned")
    path = checkpoints.save(tmp_path / "pictures.ckpt", pictures, DIGITS)
    with pytest.raises(
        UserError, match=r"rows of shape \(8, 8, 1\), and its weights do not fit rows"
    ):
        pretrained(str(path))(replace(DIGITS.spec, shape=(9, 8, 1)))
    with pytest.raises(UserError, match="does not exist; give a"):
        pretrained(str(tmp_path / "missing.ckpt"))(spec)


def test_a_network_of_networks_starts_at_another_length(texts: list[Path], tmp_path: Path) -> None:
    loaded = [arlm.load(path) for path in texts]
    nets = [lambda spec, net=each.net: net for each in loaded]
    both = LogitArithmetic(loaded[0].net.spec, nets, [0.5, 0.5])
    path = checkpoints.save(tmp_path / "both.ckpt", both, text(tmp_path))
    longer = pretrained(str(path))(text(tmp_path, length=24).spec)
    assert [net.spec.length for net in (longer, *longer.nets)] == [24, 24, 24]
    tokens = torch.randint(20, (3, 16))
    assert torch.equal(longer.eval()(tokens), arlm.load(path).net(tokens))
    again = checkpoints.save(tmp_path / "longer.ckpt", longer, text(tmp_path, length=24))
    assert arlm.load(again).net.nets[0].spec.length == 24
    table = TransformerLanguageModel(both.spec, width=8, depth=1, heads=2, positions="learned")
    mixed = LogitArithmetic(both.spec, [nets[0], lambda spec: table], [0.5, 0.5])
    path = checkpoints.save(tmp_path / "mixed.ckpt", mixed, text(tmp_path))
    longer = pretrained(str(path))(text(tmp_path, length=24).spec)
    assert longer.nets[1].position_vectors.shape[0] == 24


@pytest.mark.parametrize(
    ("nets", "more", "message"),
    [
        (1, ["--model.net.weights", "[0.5, 0.5]"], "2 weights for 1 nets or indices; give one"),
        (2, ["--model.net.weights", "[0.5]"], "1 weights for 2 nets or indices; give one of"),
        (
            2,
            ["--model.net.weights", "[0.5, 0.5]", "--model.net.contexts", "[given, all]"],
            "model.net",
        ),
        (
            2,
            ["--model.net.weights", "[0.5, 0.5]", "--data", "Digits"],
            "data: it is for ImageDomain, but",
        ),
    ],
)
def test_a_wrong_ensemble_is_one_line(
    texts: list[Path], tmp_path: Path, nets: int, more: list[str], message: str
) -> None:
    parts = [
        {"class_path": "arlm.adapters.pretrained", "init_args": {"checkpoint": str(path)}}
        for path in texts[:nets]
    ]
    flags = ["--data", "datamodules.text_file.TextFile", "--data.path", str(tmp_path / "text.txt")]
    flags += ["--data.tokenizer", "character", "--data.length", "16", "--data.batch_size", "4"]
    flags += ["--model.net", "arlm.adapters.LogitArithmetic", "--model.net.nets", json.dumps(parts)]
    done = run_arlm("fit", *flags, *more, "--trainer.accelerator", "cpu", folder=tmp_path)
    assert message in done.error()


def test_save_refuses_what_cannot_be_described_or_written(tmp_path: Path) -> None:
    data = text(tmp_path)
    net = partial(LSTMLanguageModel, width=4)(data.spec)
    with pytest.raises(UserError, match="cannot be written"):
        checkpoints.save(tmp_path / "text.txt" / "x.ckpt", net, data)
    again = arlm.load(checkpoints.save(tmp_path / "new" / "x.ckpt", net, data))
    assert checkpoints.describe(again.domain) == checkpoints.describe(data.domain)
    assert again.data["provenance"] == data.provenance
    assert again.config == ""


def test_specs_carry_the_fingerprint_of_their_tokenizer(tmp_path: Path) -> None:
    byte, ours = text(tmp_path, tokenizer="byte").spec, text(tmp_path).spec
    assert ours.fingerprint == text(tmp_path, FOX * 2).spec.fingerprint
    assert len({byte.fingerprint, ours.fingerprint, None}) == 3
    assert len(ours.fingerprint) == 16
    assert DIGITS.spec.fingerprint is None


def test_label_dropout_is_a_pure_function_of_seed_epoch_and_rows() -> None:
    train, rows = DIGITS.dataset("train"), torch.arange(1000)
    plain = Digits(labels=True).dataset("train")[Rows(0, rows)].context
    first, second = (train[Rows(epoch, rows)].context for epoch in (0, 1))
    assert torch.equal(first, train[Rows(0, rows)].context)
    for found in (first, second):
        dropped = found == 10
        assert 0.06 < dropped.double().mean() < 0.14
        assert torch.equal(found[~dropped], plain[~dropped])
    assert not torch.equal(first, second)
    other = Digits(labels=True, label_dropout=0.1, seed=1).dataset("train")
    assert not torch.equal(first, other[Rows(0, rows)].context)
    for split in ("val", "test"):  # evaluation keeps its labels
        assert DIGITS.dataset(split)[Rows(0, torch.arange(180))].context.max() == 9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_dropout": 1.0}, "data.label_dropout: 1.0 is out of range; choose 0 to below 1"),
        ({"label_dropout": -0.1}, "data.label_dropout: -0.1 is out of range; choose 0 to below"),
        ({"label_dropout": float("nan")}, "data.label_dropout: nan is out of range; choose 0 to"),
        ({"label_dropout": 0.1, "labels": False}, "data.label_dropout: 0.1 is out of range; set"),
    ],
)
def test_wrong_label_dropout(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Digits(**{"labels": True} | options)
