"""Texts as fields of processors, and sweeps of lists, on the command line."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import run_arlm
from small_runs import write_text_and_image

from arlm.cli.parser import print_json
from arlm.cli.texts import as_json
from arlm.cli.translate import shown
from arlm.domains import TextDomain
from arlm.inference.translator import Translation
from arlm.inference.writer import Written
from arlm.reports.view import view_of
from arlm.tokenizers import CharacterTokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network of the characters "ab c" that is not trained, and one of images."""
    folder = tmp_path_factory.mktemp("texts")
    write_text_and_image(folder, "ab c" * 500)
    return folder


def test_words_are_spelled_by_the_tokenizer_of_the_run(folder: Path) -> None:
    given = ("sample", "text.ckpt", "-n", 20, "--max-new-tokens", 40)
    free = run_arlm(*given, folder=folder)
    assert free.code == 0, free.err
    assert all(text in free.out for text in ("ab", "c ", "a"))
    words = ("--processors", 'bad_words=["ab", "c "],logit_bias={"a":-1,"b":1.5}')
    banned = run_arlm(*given, *words, folder=folder)
    assert banned.code == 0, banned.err
    assert "ba" in banned.out
    assert not any(text in banned.out for text in ("ab", "c "))
    preset = ("--preset", 'llamacpp:logit_bias={"a":-inf}')
    without = run_arlm(*given, *preset, folder=folder)
    assert without.code == 0, without.err
    assert "a" not in without.out
    forced = run_arlm(*given, "--processors", 'forced_tokens=["cab "],top_k=3', folder=folder)
    assert all(text.startswith("cab ") for text in forced.out.split("\n---\n"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("text", "--processors", 'bad_words=["x"]'), "bad_words: the tokenizer cannot spell 'x'"),
        (("text", "--processors", 'dry=1:breakers=["ab"]'), "dry:breakers: no token has 'ab' in"),
        (
            ("image", "--processors", 'bad_words=["x"]'),
            "ImageDomain has no tokenizer; give numbers",
        ),
        # A sweep is bound like other processors.
        (("image", "--sweep", 'bad_words=["x"]'), "ImageDomain has no tokenizer; give numbers"),
        (("image", "--sweep", "bad_words=[1,2"), "--sweep: the brackets in '[1,2' do not match"),
        (("image", "--sweep", "bad_words=[1,2],[3]"), "bad_words needs lists of tokens for words"),
    ],
)
def test_what_is_no_text_of_the_run_is_one_line(
    folder: Path, arguments: tuple[str, ...], message: str
) -> None:
    name, *others = arguments
    assert message in run_arlm("sample", f"{name}.ckpt", *others, folder=folder).error()


def test_an_infinity_is_null_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    """JSON has no number for it; json.dumps would write -Infinity."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    options: Any = argparse.Namespace(seed=0, watermark=None, json=True, prompts=[""], n=1)
    written = Written("a", 1, math.inf, "length")
    line = as_json(0, written, options, view_of(TextDomain(CharacterTokenizer("a"))))
    assert json.loads(line, parse_constant=refuse)["nats"] is None
    found = Translation("a", torch.zeros(1).long(), -math.inf, math.nan)
    (line,) = shown(0, "b", [found], options)
    (one,) = json.loads(line, parse_constant=refuse)["translations"]
    assert (one["log_prob"], one["score"]) == (None, None)
    print_json({"top": [[-math.inf, 1.5]]})
    assert json.loads(capsys.readouterr().out, parse_constant=refuse) == {"top": [[None, 1.5]]}


def test_a_truncation_of_the_preset_is_given_once(folder: Path) -> None:
    given = ("sample", "text.ckpt", "--preset", "openai:top_p=0.9", "--processors")
    refused = run_arlm(*given, "top_p=0.8:keep_end=true", folder=folder)
    assert "--processors: top_p is part of the preset openai:top_p=0.9; omit" in refused.error()
    # A flag goes over the option of the preset.
    flag = ("sample", "text.ckpt", "-n", 9, "--top-k", 1, "--preset", "huggingface")
    texts = run_arlm(*flag, folder=folder).out.removesuffix("\n").split("\n---\n")
    assert (len(texts), len(set(texts))) == (9, 1)


def test_a_list_is_one_value_of_a_sweep(folder: Path) -> None:
    given = ("sample", "image.ckpt", "-n", 2, "--seed", 3)
    lists = [list(range(8)), list(range(9, 17))]
    texts = ["[" + ",".join(f"[{token}]" for token in each) + "]" for each in lists]
    done = run_arlm(*given, "--sweep", f"bad_words={', '.join(texts)}", folder=folder)
    assert done.code == 0, done.err
    assert "256 tokens" in done.err  # two rows of two images of 64 pixels
