"""The degeneration study: its methods, figures and phrases on networks whose answers are known."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from arlm.core import Spec
from arlm.domains import TextDomain
from arlm.errors import UserError
from arlm.models.ngram import KneserNeyNGram
from arlm.models.pixelcnn import PixelCNN
from arlm.models.rnn import LSTMLanguageModel
from arlm.models.transformer import TransformerLanguageModel
from arlm.sampling import row_seeds
from arlm.tokenizers import BPETokenizer, CharacterTokenizer
from arlm.training.module import AutoregressiveModule
from datamodules.digits import Digits
from datamodules.text_file import TextFile
from tools.degeneration.__main__ import main
from tools.degeneration.measures import held_out, measure, rates
from tools.degeneration.methods import DEFAULT, FAMILIES, parse_method
from tools.degeneration.phrases import goes_on, nats_by_repetition, random_phrases, repeated

ALPHABET = " .abcdefgh"
DOMAIN = TextDomain(CharacterTokenizer(ALPHABET))


def encode(*texts: str) -> Tensor:
    return torch.stack([DOMAIN.encode(text) for text in texts])


def counted(text: str, order: int = 3) -> KneserNeyNGram:
    net = KneserNeyNGram(DOMAIN.spec(64), order=order)
    if text:
        net.count(DOMAIN.encode(text)[None])
    return net.eval()


def lstm() -> LSTMLanguageModel:
    torch.manual_seed(0)
    return LSTMLanguageModel(DOMAIN.spec(64), width=16, depth=1).double()


@pytest.mark.parametrize(
    ("text", "family"),
    [
        ("draws", "draws"),
        ("temperature=0.5", "draws"),
        ("preset=llamacpp", "draws"),
        ("greedy", "searches"),
        ("beam=4", "searches"),
        ("contrastive=5:penalty=0.3", "searches"),
        ("dry=0.8,top_p=0.9", "draws with a penalty"),
        ("preset=notes", "draws with a penalty"),
        ("dry=0.8,greedy", "greedy with a penalty"),
    ],
)
def test_families(text: str, family: str) -> None:
    assert parse_method(text, DOMAIN).family == family


def test_every_default_method_has_a_place() -> None:
    methods = [parse_method(text, DOMAIN) for text in DEFAULT]
    assert len({method.name for method in methods}) == len(methods)
    assert {method.family for method in methods} == set(FAMILIES)


@pytest.mark.parametrize("method", DEFAULT)
def test_every_default_method_continues_its_prompts(method: str) -> None:
    prompts = encode("abab", "cdcd")
    rows = parse_method(method, DOMAIN)(lstm(), row_seeds(0, 2), prompts, 12)
    assert rows.shape == (2, 12)
    assert torch.equal(rows[:, :4], prompts)


def test_searches_of_one_candidate_are_greedy() -> None:
    prompts = encode("abab", "cdcd", "efef")
    names = ("greedy", "beam=1", "contrastive=1", "temperature=0.3,top_k=1")
    rows = [parse_method(n, DOMAIN)(lstm(), row_seeds(0, 3), prompts, 20) for n in names]
    assert all(torch.equal(rows[0], other) for other in rows[1:])


def test_what_follows_a_name_is_used() -> None:
    """More beams find likelier rows; the whole penalty ignores probabilities; each differs from greedy."""
    net, prompts = lstm(), encode("abab", "cdcd", "efef")

    def nats(name: str) -> Tensor:
        rows = parse_method(name, DOMAIN)(net, row_seeds(0, 3), prompts, 20)
        return net.log_prob(rows)[:, 4:].sum(1)

    assert (nats("beam=30") > nats("greedy")).any()
    assert (nats("contrastive=5:penalty=1") < nats("contrastive=5:penalty=0")).all()
    assert torch.equal(nats("contrastive=5:penalty=0"), nats("greedy"))
    assert not torch.equal(nats("contrastive=5"), nats("greedy"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("beam", "--method: 'beam' is not understood; write for example beam=4"),
        ("contrastive=x", "--method: 'contrastive=x' is not understood"),
        ("gready", "--method: unknown method 'gready'"),
        ("preset=nets", "--preset: 'nets' is unknown"),
    ],
)
def test_methods_that_are_none(text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        parse_method(text, DOMAIN)
    assert message in str(error.value)


def test_rates_of_characters() -> None:
    found = rates(["AB, c.\n", "X9!"])
    by_hand = {"spaces": 1, "line breaks": 1, "commas": 1, "full stops": 1, "other marks": 1}
    assert found == pytest.approx(
        {k: 10 * v for k, v in (by_hand | {"capitals": 3, "other letters": 2}).items()}
    )
    assert all(math.isnan(v) for v in rates([""]).values())


def test_figures_under_a_uniform_network_and_a_judge() -> None:
    # after the prompt: "ab ab ab ab ab " and "cd ef gh ab cd "
    rows = encode("hhab ab ab ab ab ", "hhcd ef gh ab cd ")
    judge = counted("ab " * 50 + "cd ef gh ")
    found = measure(rows, 2, DOMAIN, counted(""), judge)
    assert found.texts == ["ab ab ab ab ab ", "cd ef gh ab cd "]
    figures = found.figures
    assert figures["perplexity"] == pytest.approx(len(ALPHABET))
    assert figures["log_prob"] == pytest.approx(-math.log(len(ALPHABET)))
    nats = -judge.log_prob(rows)[:, 2:].double().mean().item()
    assert figures["judge_perplexity"] == pytest.approx(math.exp(nats))
    # five words ab: two 4-grams, one of them again; the other text has no 4-gram twice
    assert figures["repeated_4"] == pytest.approx(100 * (1 / 2 + 0) / 2)
    assert figures["diversity"] == pytest.approx(100 * (1 / 4 * 1 / 3 * 1 / 2 + 1) / 2)
    assert figures["distinct_1"] == pytest.approx(100 * 4 / 10)
    # pairs: ab ab four times | cd ef, ef gh, gh ab, ab cd
    assert figures["distinct_2"] == pytest.approx(100 * 5 / 8)
    assert figures["loops"] == 0  # 15 tokens are fewer than a loop needs
    assert found.counts == [6, 2, 1, 1]
    assert found.rates["spaces"] == pytest.approx(100 / 3)


def test_the_log_probability_is_that_of_a_character() -> None:
    domain = TextDomain(BPETokenizer.train(["abababab " * 9], 259))
    row = domain.encode("abababab abab")
    assert len(row) < len("abababab abab") - 4
    net = KneserNeyNGram(domain.spec(64)).eval()
    found = measure(torch.stack([row, row]), 0, domain, net, net)
    nats = len(row) * math.log(259)
    assert found.figures["log_prob"] == pytest.approx(-nats / len("abababab abab"))


def test_loops_are_those_of_tokens() -> None:
    rows = encode("h" + "ab " * 8, "h" + "abc efg dhb dfe a. a. g ."[:24])
    assert measure(rows, 1, DOMAIN, counted(""), counted("")).figures["loops"] == 50


@pytest.fixture
def data(tmp_path: Path) -> TextFile:
    """A text whose last tenth is held out, and has other letters than the rest."""
    text = tmp_path / "text.txt"
    text.write_text("ab cd. " * 600 + "ef gh. " * 67)
    data = TextFile(str(text), tokenizer="character", one_held_out=True, length=32, batch_size=4)
    data.prepare_data()
    return data


def test_held_out_rows_are_of_the_test_text_and_all_different(data: TextFile) -> None:
    rows = held_out(data, KneserNeyNGram(data.spec), 4, 5, 10)
    assert rows.tokens.shape == rows.others.shape == (4, 15)
    assert rows.prompted == 5
    whole = data.corpus("test").whole()
    starts = torch.linspace(0, len(whole) - 15, 8).long().tolist()
    for index, start in enumerate(starts):
        given = (rows.tokens, rows.others)[index % 2][index // 2]
        assert torch.equal(given, whole[start : start + 15])
    assert "ab" not in data.domain.decode(rows.tokens.flatten())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((1, 5, 10), "--texts: 1 is out of range"),
        ((4, 0, 10), "--prompt-tokens: 0 is out of range"),
        ((4, 5, 0), "--new-tokens: 0 is out of range"),
        ((400, 5, 10), "--texts: the test text has 467 tokens, too few for 800 different rows"),
        ((4, 5, 27), "--new-tokens: 5 tokens of a prompt and 27 more do not fit the network"),
    ],
)
def test_rows_that_cannot_be_had(data: TextFile, given: tuple, message: str) -> None:
    net = TransformerLanguageModel(data.spec, width=8, depth=1, heads=2)
    held_out(data, net, 4, 5, 26)
    with pytest.raises(UserError) as error:
        held_out(data, net, *given)
    assert message in str(error.value)


def test_nats_of_each_repetition() -> None:
    net, phrases = lstm(), encode("abc", "ddh", "f.f")
    found = nats_by_repetition(net, phrases, 4)
    for i, text in enumerate(("abc", "ddh", "f.f")):
        nats = -net.log_prob(encode(text * 4))[0]
        for k in range(4):
            assert found[i, k].item() == pytest.approx(nats[3 * k : 3 * k + 3].mean().item())
    assert torch.equal(repeated(phrases, 2)[1], DOMAIN.encode("ddhddh"))
    short = TransformerLanguageModel(Spec(10, (11,)), width=8, depth=1, heads=2)
    assert nats_by_repetition(short, phrases, 3).shape == (3, 3)
    with pytest.raises(UserError, match="--repetitions: 4 times 3 tokens do not fit"):
        nats_by_repetition(short, phrases, 4)


def test_random_phrases_use_the_whole_vocabulary() -> None:
    assert len(random_phrases(lstm(), 50, 8).unique()) == len(ALPHABET)


def test_the_share_of_phrases_that_go_on() -> None:
    # after c comes a, after a b, after b c; nothing else was seen, so "acb" never comes again
    net, phrases = counted("abc" * 40), encode("abc", "acb")
    assert goes_on(net, parse_method("greedy", DOMAIN), phrases) == 0.5
    assert goes_on(net, parse_method("no_repeat_ngram=2,greedy", DOMAIN), phrases) == 0


@pytest.fixture
def run(data: TextFile, tmp_path: Path) -> Path:
    return trained(data, tmp_path, partial(TransformerLanguageModel, width=8, depth=1, heads=2))


def trained(data: pl.LightningDataModule, folder: Path, net: Callable) -> Path:
    module = AutoregressiveModule(data.spec, net)  # type: ignore[attr-defined]
    flags = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    trainer = pl.Trainer(**flags, max_steps=1, limit_val_batches=0, enable_progress_bar=False)
    trainer.fit(module, data)
    trainer.save_checkpoint(folder / "x.ckpt")
    return folder / "x.ckpt"


def test_methods_end_to_end(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ["draws", "top_k=2", "top_k=4", "greedy", "dry=0.8,greedy", "beam=2", "preset=notes"]
    options = [part for name in chosen for part in ("--method", name)]
    sizes = ["--texts", "3", "--prompt-tokens", "4", "--new-tokens", "20"]
    main(["methods", str(run), *sizes, *options, "--out", str(tmp_path / "out")])
    names = ["human text", "other human text", *chosen]
    record = json.loads((tmp_path / "out" / "methods.json").read_text())
    assert list(record) == names
    assert all(len(one["text"]) == 20 for one in record.values())
    printed = capsys.readouterr().out
    assert (tmp_path / "out" / "methods.md").read_text() == printed.removesuffix("\n")
    firsts = [line.split(" | ")[0].removeprefix("| ") for line in printed.splitlines()]
    assert firsts == ["method", "---", *names, "", "in 100 characters", "---", *names, ""]
    for picture in ("methods", "zipf", "characters"):
        assert (tmp_path / "out" / f"{picture}.png").read_bytes().startswith(b"\x89PNG")


def test_phrases_end_to_end(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--texts", "3", "--phrase-tokens", "4", "--repetitions", "3", "--phrase", "ab cd. "]
    main(["phrases", str(run), *sizes, "--method", "greedy", "--out", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert (tmp_path / "out" / "phrases.md").read_text() == printed.removesuffix("\n")
    rows = [line.split(" | ")[0].removeprefix("| ") for line in printed.splitlines()]
    titles = ["phrases of the test text", "random tokens", "'ab cd. '"]
    lines = [f"x.ckpt: {title}" for title in titles]
    head = ["nats a token, by repetition", "---"]
    assert rows == [*head, *lines, "", "written a fourth time", "---", "greedy", ""]
    assert (tmp_path / "out" / "phrases.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "command: '' is not known; choose methods or phrases"),
        (["phrases", "RUN", "--repetitions", "0"], "--repetitions: 0 is out of range"),
        (["phrases", "RUN", "--phrase-tokens", "0"], "--phrase-tokens: 0 is out of range"),
        (["phrases", "RUN", "--texts", "500"], "--texts: the test text has 467 tokens"),
        (["phrases", "RUN", "--texts", "0"], "--texts: 0 is out of range"),
        (["phrases", "RUN", "--phrase", "xyz"], "--phrase: character 'x' is unknown"),
        (["methods", "RUN", "--method", "nothing"], "--method: unknown method 'nothing'"),
        (["methods", "RUN", "--out", "/proc/x"], "--out: cannot write '/proc/x'"),
    ],
)
def test_mistakes(run: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    out = ["--out", str(tmp_path / "out")] if arguments else []
    given = [str(run) if a == "RUN" else a for a in arguments[:2]]
    with pytest.raises(UserError) as error:
        main([*given, *out, *arguments[2:]])
    assert message in str(error.value)


def test_a_run_of_images_is_refused(tmp_path: Path) -> None:
    run = trained(Digits(), tmp_path, partial(PixelCNN, width=4, depth=1, head_width=4))
    with pytest.raises(UserError, match="models no text"):
        main(["methods", str(run), "--out", str(tmp_path / "out")])
