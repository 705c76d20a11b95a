"""`arlm sample --best-of` and `--penalty-alpha`: those of Python, and options that do not fit them."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Result, run_arlm
from small_runs import write_text_and_image
from torch import Tensor

from arlm import checkpoints
from arlm.cli.texts import draw
from arlm.core import Spec
from arlm.domains import TextDomain
from arlm.inference.writer import Written, written
from arlm.models.transformer import TransformerLanguageModel
from arlm.reports.view import view_of
from arlm.sampling import Uniform, best_of, contrastive_search
from arlm.tokenizers import CharacterTokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("searches")
    write_text_and_image(folder, "ab cd" * 500)
    return folder


def sample(folder: Path, *arguments: object) -> Result:
    return run_arlm("sample", "text.ckpt", "--precision", 64, *arguments, folder=folder)


def records(run: Result) -> list[dict]:
    assert run.code == 0, run.err
    return [json.loads(line) for line in run.out.splitlines()]


def test_the_best_of_n_is_the_likeliest_of_the_same_texts(folder: Path) -> None:
    (folder / "prompts.txt").write_text("ab\na\n")
    given = ("--prompt-file", "prompts.txt", "--max-new-tokens", 9, "--seed", 4, "--json")
    everything = records(sample(folder, *given, "-n", 6))
    best = records(sample(folder, *given, "--best-of", 6, "-n", 2))
    for prompt in (0, 1):
        own = everything[6 * prompt : 6 * prompt + 6]
        expected = sorted(own, key=lambda one: one["nats"])[:2]
        found = best[2 * prompt : 2 * prompt + 2]
        assert [one["text"] for one in found] == [one["text"] for one in expected]
    loaded = checkpoints.load(folder / "text.ckpt")
    encode, decode = loaded.domain.encode, loaded.domain.decode
    net = loaded.net.double()
    row = best_of(net, 5, 4, length=11, forced=encode("ab")[None]).tokens[0]
    one = ("--prompt", "ab", "--max-new-tokens", 9, "--seed", 4, "--best-of", 5, "--json")
    assert records(sample(folder, *one))[0]["text"] == decode(row)


def test_all_drawn_tokens_count(folder: Path) -> None:
    given = ("--max-new-tokens", 9, "--draft", "lookup", "--best-of", 6, "-n", 2)
    run = sample(folder, *given)
    assert run.code == 0, run.err
    assert "draft: 54 tokens in " in run.err
    assert "\n54 tokens, " in run.err


@pytest.mark.parametrize("label", [None, 2])
@pytest.mark.parametrize(
    ("given", "classes"),
    [({"best_of": None, "n": 2}, [0, 1, 2, 0]), ({"best_of": 5, "n": 2}, [0] * 5 + [1] * 5)],
)
def test_texts_that_are_compared_have_one_class(
    given: dict, classes: list[int], label: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    domain = TextDomain(CharacterTokenizer("abcd"))
    spec = replace(domain.spec(8), context=Spec(3, (1,), kind="label"))
    net = TransformerLanguageModel(spec, width=8, heads=2, depth=1).eval()
    contexts: list[int] = []

    def record(*arguments: Any, context: Tensor, **options: Any) -> list[Written]:
        contexts.extend(context[:, 0].tolist())
        return written(*arguments, context=context, **options)

    monkeypatch.setattr("arlm.inference.writer.written", record)
    monkeypatch.setattr("arlm.inference.capacity.rows_together", lambda net, length: 3)
    names = {"max_new_tokens": 3, "noise": Uniform(), "stop": (), "top": None, "seed": 0}
    options = argparse.Namespace(**given, **names, label=label)
    prompts = [domain.encode("a"), domain.encode("bc")]
    found = list(draw(options, net, view_of(domain), (), prompts))
    assert contexts == (classes if label is None else [label] * len(classes))
    for one, number in zip(found, contexts, strict=True):
        row = domain.encode(one.text)[None]
        nats = -net.log_prob(row, torch.tensor([[number]]))[0, -one.tokens :].sum()
        assert one.nats == pytest.approx(float(nats.detach()), rel=1e-4)


def test_contrastive_search_is_that_of_python(folder: Path) -> None:
    loaded = checkpoints.load(folder / "text.ckpt")
    net, prompt = loaded.net.double(), loaded.domain.encode("ab")[None]
    texts = set()
    for options, chosen in (
        (["--penalty-alpha", 0.6], {}),
        (["--penalty-alpha", 0.9, "--top-k", 3], {"penalty": 0.9, "top_k": 3}),
        (["--penalty-alpha", 0], {"penalty": 0.0}),
    ):
        found = contrastive_search(net, 1, 12, prompt=prompt, **chosen)
        given = ("--prompt", "ab", "--max-new-tokens", 10, *options)
        (one,) = records(sample(folder, *given, "--json"))
        assert one["text"] == loaded.domain.decode(found.tokens[0])
        assert one["nats"] == pytest.approx(-float(found.log_prob.sum()))
        assert one["finish"] == "length"
        texts.add(one["text"])
    assert len(texts) > 1
    (whole,) = records(sample(folder, "--penalty-alpha", 0.5, "--json"))  # what the window takes
    assert (whole["tokens"], whole["finish"]) == (15, "length")
    longest = ("--prompt", ("ab cd" * 3)[:14], "--penalty-alpha", 0.5)
    (one,) = records(sample(folder, *longest, "--json"))
    assert one["tokens"] == 1
    greedy = sample(folder, "--prompt", "ab", "--max-new-tokens", 10, "--greedy")
    assert greedy.out == sample(folder, *given).out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--best-of", 2, "-n", 3], "--best-of: 2 is out of range; choose at least -n, 3"),
        (["--best-of", 2, "--stream"], "--best-of: it compares whole texts that were drawn; omit"),
        (["--best-of", 2, "--beam", 2], "--best-of: it compares whole texts that were drawn; omit"),
        (["--penalty-alpha", 2], "--penalty-alpha: 2.0 is out of range; choose 0 to 1"),
        (["--penalty-alpha", 0.5, "--beam", 2], "search draws nothing; omit --beam"),
        (["--penalty-alpha", 0.5, "--draft", "lookup"], "search draws nothing; omit --draft"),
        (["--penalty-alpha", 0.5, "--top-p", 0.5, "--stream"], "omit --top-p, --stream"),
        (["--penalty-alpha", 0.5, "-n", 2], "-n: contrastive search finds one text, not 2; omit"),
        (["--penalty-alpha", 0.5, "--top-k", 0], "--top-k: 0 is out of range; choose 1 to 5"),
        (
            ["--penalty-alpha", 0.5, "--max-new-tokens", 16],
            "rows of 16 tokens, and one that is reserved, exceed the window of 16",
        ),
        (
            ["--beam", 2, "--max-new-tokens", 17],
            "--beam: rows of 17 tokens exceed the window of 16",
        ),
        *(
            (
                ["--penalty-alpha", 0.5, "--prompt", ("ab cd" * 5)[:size], *new],
                f"--prompt: {size} tokens leave no room in the window of 16, of which contrastive search reserves one",
            )
            for size in (15, 16, 22)
            for new in ([], ["--max-new-tokens", 1])
        ),
    ],
)
def test_what_does_not_fit_is_one_line(folder: Path, arguments: list, message: str) -> None:
    assert message in sample(folder, *arguments).error()


@pytest.mark.parametrize("option", [["--best-of", 2], ["--penalty-alpha", 0.5]])
def test_images_are_not_searched(folder: Path, option: list) -> None:
    refused = run_arlm("sample", "image.ckpt", *option, folder=folder).error()
    assert f"{option[0]}: {option[1]} given, but" in refused
