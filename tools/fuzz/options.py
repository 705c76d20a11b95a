"""Command lines of every verb, with options and values that are unlikely."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import Any
from unittest.mock import patch

from hypothesis import strategies as st

from arlm.__main__ import main
from arlm.errors import UserError
from arlm.sampling.presets import PRESETS
from arlm.sampling.processors import all_processors
from tools.fuzz.strategies import numbers, texts

values = numbers | texts
names = st.sampled_from((*all_processors(), "greedy", "x"))
tokens = st.sampled_from(
    (
        "[0,15]",
        "[[1,2],[3]]",
        "{7:-2.5,9:-inf}",
        "[16]",
        "[-1]",
        "{99:1}",
        "[",
        "]",
        "[]",
        "{}",
        "[[]]",
    )
)
fields = st.sampled_from(
    (
        "",
        ":prompt=true",
        ":rate=0.5",
        ":prompt=1",
        ":x=1",
        ":",
        ":window=3",
        ":keep_end=true",
        ":breakers=[0]",
    )
)
processor = st.tuples(names, st.sampled_from(("=", "")), values | tokens, fields).map("".join)
processors = st.lists(processor, max_size=3).map(",".join)
preset_options = (
    "",
    ":top_k=3",
    ":min_p=",
    ":repeat_penalty=",
    ":frequency=",
    ":mirostat=2",
    ":x=1",
    ":",
)
presets = st.tuples(
    st.sampled_from((*PRESETS, "x", "")), st.sampled_from(preset_options), numbers
).map("".join)
outputs = st.sampled_from(
    ("", "x.txt", "x.png", "x.html", "x.gif", ".", "/dev/full", "no/x.png", "/proc/x.png")
)

DRAWING: dict[str, st.SearchStrategy | None] = {
    "--temperature": numbers,
    "--top-k": numbers,
    "--top-p": numbers,
    "--greedy": None,
    "--processors": processors,
    "--preset": presets,
    "--seed": numbers,
}
PLACING: dict[str, st.SearchStrategy | None] = {
    "--device": st.sampled_from(("cpu", "auto", "cuda:9", "", "x")),
    "--precision": st.sampled_from(("32", "16", "bf16", "64", "8")),
    "--trust": texts,
}
SEARCHING: dict[str, st.SearchStrategy | None] = {"--beam": numbers, "--length-penalty": numbers}
VERBS: dict[str, tuple[Sequence[str], dict[str, st.SearchStrategy | None]]] = {
    "sample": (
        ("rnn.ckpt", "gpt.ckpt", "image.ckpt", "label.ckpt", "pair.ckpt"),
        DRAWING
        | PLACING
        | {
            "-n": numbers,
            "--out": outputs,
            "--label": numbers,
            "--guidance": numbers,
            "--decoding": st.sampled_from(("steps", "fixed_point", "x")),
            "--prompt": texts,
            "--prompt-file": st.sampled_from(("note.txt", "dates.txt", "", ".", "image.png")),
            "--max-new-tokens": numbers,
            "--stop": texts,
            "--stream": None,
            "--json": None,
            "--beam": numbers,
            "--tree": outputs,
            "--complete": st.sampled_from(("image.png", "note.txt", "", ".", "fox.txt")),
            "--keep": st.tuples(st.sampled_from(("top:", "left:", "x:", "")), numbers).map("".join),
            "--sweep": processors,
            "--gif": outputs,
        },
    ),
    "score": (
        ("rnn.ckpt note.txt", "gpt.ckpt note.txt.gz", "image.ckpt image.png", "pair.ckpt pairs.txt",
         "label.ckpt image.png", "rnn.ckpt .", "pair.ckpt dates.txt dates.txt", "image.ckpt -"),
        PLACING | {"--prompt": texts, "--label": numbers, "--json": None, "--tokens": None, "--top": numbers,
                   "--html": outputs, "--out": outputs},
    ),
    "translate": (
        ("pair.ckpt dates.txt", "pair.ckpt note.txt", "pair.ckpt image.png", "pair.ckpt", "rnn.ckpt note.txt"),
        DRAWING | SEARCHING | PLACING | {"--n-best": numbers, "--batch-size": numbers, "--json": None,
         "--reference": st.sampled_from(("dates.txt", "fox.txt", "", ".")), "--out": outputs,
         "--attention": outputs, "--tree": outputs},
    ),
    "attention": (
        ("gpt.ckpt abc", "pair.ckpt 3_May_2001", "rnn.ckpt abc", "image.ckpt image.png"),
        PLACING | {"--label": numbers, "--html": outputs, "--out": outputs},
    ),
    "evaluate": (
        ("rnn.ckpt", "pair.ckpt"),
        PLACING | SEARCHING | {"--data": st.sampled_from(("data.yaml", "config.yaml", "dates", "", "x")),
         "--split": st.sampled_from(("val", "test", "x")), "--json": None},
    ),
    "show": (("rnn.ckpt", "note.txt", ".", "x"), {"--json": None}),
    "runs": ((".", "x", "note.txt"), {"--json": None}),
    "configs": (("", "docs_lstm", "x"), {}),
}  # fmt: skip
# `fit` is parsed and not run: a run of a random length could take for ever.
FITTED: dict[str, st.SearchStrategy | None] = dict.fromkeys(
    ("--model.optimizer.lr", "--model.optimizer.betas", "--model.net", "--model.net.width", "--data",
     "--data.batch_size", "--data.seed", "--trainer.max_steps", "--trainer.devices", "--trainer.precision",
     "--trainer.accumulate_grad_batches", "--trainer.log_every_n_steps", "--samples.n", "--seed_everything",
     "--run-name", "--checkpoint.monitor", "--x", "--trainer.logger"),
    values,
)  # fmt: skip


@st.composite
def _commands(draw: Any) -> list[str]:
    """A verb, what it is about, and up to four options."""
    verb = draw(st.sampled_from((*VERBS, "sample", "score", "translate", "fit")))
    if verb == "fit":
        words, known = ["fit", "--config", "config.yaml", "--print_config"], FITTED
    else:
        subjects, known = VERBS[verb]
        words = [verb, *draw(st.sampled_from(subjects)).split()]
    for name in draw(st.lists(st.sampled_from(sorted(known)), max_size=4)) if known else ():
        strategy = known[name]
        words.append(name)
        if strategy is not None:
            words.append(draw(strategy))
    if verb == "sample" and "--max-new-tokens" not in words and draw(st.integers(0, 9)):
        words += ["--max-new-tokens", "4"] if words[1] in ("rnn.ckpt", "gpt.ckpt") else ["-n", "2"]
    return words


commands = _commands()


def run(words: Sequence[str]) -> int:
    """Run a command line in this process.

    Raises:
        UserError: it was refused, as it should be, in one line.
        AssertionError: it printed something else than one line, or its exit code is unknown.
    """
    out, err = io.StringIO(), io.StringIO()
    argv = patch.object(sys, "argv", ["arlm", *words])
    stdin = patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"3 May 2001\n")))
    with argv, stdin, redirect_stdout(out), redirect_stderr(err):
        try:
            code = main()
        except SystemExit as stop:  # --print_config, --help
            code = int(stop.code or 0)
    errors = [line for line in err.getvalue().splitlines() if line.startswith("arlm: error: ")]
    if code == 2 and len(errors) == 1 and "Traceback" not in err.getvalue():
        raise UserError(errors[0].removeprefix("arlm: error: "))
    if code != 0:
        raise AssertionError(f"exit code {code}: {err.getvalue()[-500:]}")
    return code
