"""The command line as its users see it: runs that work, and one-line errors for bad input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch
from conftest import ROOT, Result, run_arlm
from PIL import Image

from arlm.__main__ import entry
from arlm.domains import ImageDomain

DIGITS = ["--config", str(ROOT / "configs/images/digits_pixelcnn.yaml")]
TINY = ["--model.net.width", "4", "--model.net.depth", "1", "--trainer.accelerator", "cpu"]


@pytest.fixture
def arlm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """Run the command line in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return run_arlm


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two short runs: digits and text."""
    folder = tmp_path_factory.mktemp("runs")
    text = folder / "fox.txt"
    text.write_text("the quick brown fox jumps over the lazy dog. " * 80)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    short = ["--trainer.max_steps", "6", "--trainer.val_check_interval", "3"]
    for arguments in (
        [
            *(*DIGITS, *TINY, *short, "--trainer.check_val_every_n_epoch", "null"),
            *("--run-name", "digits_pixelcnn"),
        ],
        [
            "--config",
            str(ROOT / "configs/text/docs_transformer.yaml"),
            *("--data", "datamodules.text_file.TextFile", "--data.path", str(text)),
            *("--data.tokenizer", "character", "--data.length", "32", "--data.batch_size", "4"),
            *("--model.net.width", "8", "--model.net.depth", "1", "--model.net.heads", "2"),
            *("--trainer.logger.name", "fox", "--trainer.accelerator", "cpu"),
            *short,
        ],
    ):
        command = [sys.executable, "-m", "arlm", "fit", *arguments]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        assert "val/bits_per" in done.stderr  # progress, in lines, since no terminal looks on
    return folder / "runs"


def test_a_run_leaves_all_that_is_needed(runs: Path) -> None:
    folder = runs / "digits_pixelcnn" / "version_0"
    assert (folder / "checkpoints" / "best.ckpt").exists()
    assert (folder / "checkpoints" / "last.ckpt").exists()
    assert "class_path: arlm.models.pixelcnn.PixelCNN" in (folder / "config.yaml").read_text()
    assert json.loads((folder / "data.json").read_text())["name"] == "digits"
    assert "val/bits_per_dim" in (folder / "metrics.csv").read_text()
    assert len(list((folder / "samples").glob("*.png"))) == 2
    assert list((runs / "fox" / "version_0" / "samples").glob("*.txt"))
    contents = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert "digits" in contents["arlm"]["config"]


def test_a_configuration_with_references_runs_and_names_its_run(arlm) -> None:
    trainer = 'trainer: {max_steps: 2, val_check_interval: "${.max_steps}"}'
    Path("mine.yaml").write_text(f"{trainer}\nsamples: {{n: 0}}\n")
    done = arlm("fit", "--config", "mine.yaml", *DIGITS, "--trainer.max_epochs", 1)
    assert done.code == 0, done.err
    assert (
        "val_check_interval: 2"
        in next(Path("runs/mine-digits_pixelcnn").rglob("config.yaml")).read_text()
    )


def test_sample_draws_a_grid(arlm, runs: Path) -> None:
    result = arlm("sample", runs / "digits_pixelcnn", "-n", 6, "--out", "grid.jpg")
    assert result.code == 0, result.err
    assert result.out.strip() == "grid.jpg"
    assert Image.open("grid.jpg").size[0] > 3 * 64
    assert Image.open("grid.jpg").format == "JPEG"
    for name in ("first.png", "again.png"):
        assert arlm("sample", runs / "digits_pixelcnn", "-n", 6, "--out", name).code == 0
    first = Path("first.png").read_bytes()
    assert Path("again.png").read_bytes() == first
    arlm("sample", runs / "digits_pixelcnn", "-n", 6, "--seed", 1, "--out", "other.png")
    assert Path("other.png").read_bytes() != first


@pytest.fixture(scope="module")
def picture(runs: Path) -> Path:
    """A digit of the right size, and files that are not."""
    folder = runs.parent / "pictures"
    folder.mkdir()
    Image.effect_noise((8, 8), 60).save(folder / "digit.png")
    Image.new("L", (9, 8)).save(folder / "wide.png")
    Image.new("RGBA", (8, 8)).save(folder / "alpha.png")
    Image.new("I;16", (8, 8)).save(folder / "deep.png")
    (folder / "text.png").write_text("no image")
    return folder


def test_sample_completes_an_image(arlm, runs: Path, picture: Path) -> None:
    given = ["--complete", picture / "digit.png", "-n", 3]
    result = arlm(
        "sample", runs / "digits_pixelcnn", *given, "--keep", "left:0.5", "--gif", "a.gif"
    )
    assert result.code == 0, result.err
    assert result.out.split() == ["samples.png", "a.gif"]
    # Seven rows begin with four given pixels that come after drawn ones.
    assert (
        "note: 28 of the 32 given tokens come after drawn ones in the order of the tokens"
        in result.err
    )
    source = ImageDomain(17, 8, 8).decode(ImageDomain(17, 8, 8).read(picture / "digit.png", "x"))
    with Image.open("a.gif") as animation:
        assert animation.n_frames > 20
        first = animation.convert("L")
    samples, zoom, gap = Image.open("samples.png"), 8, 4
    for row in range(1, 7):
        for column in range(1, 7):
            x, y = column * zoom + zoom // 2, row * zoom + zoom // 2
            at = gap - 3 + x, gap - 3 + y
            # The first image is the original; the second begins with its left half, which has a border.
            assert samples.getpixel(at) == (source[row, column, 0],) * 3
            second = samples.getpixel((at[0] + 8 * zoom + 1, at[1]))
            assert column > 2 or second == (source[row, column, 0],) * 3
            # The animation begins with what is given, and grey elsewhere.
            shown = first.getpixel((gap + x, gap + y))
            assert shown == (source[row, column, 0] if column < 4 else 128)
    assert samples.getpixel((2, 20))[0] > samples.getpixel((2, 20))[1] + 50
    fixed = arlm("sample", runs / "digits_pixelcnn", *given, "--decoding", "fixed_point")
    assert "passes for 64 positions" in fixed.err
    assert "note" not in fixed.err
    again = Path("samples.png").read_bytes()
    arlm("sample", runs / "digits_pixelcnn", *given)
    assert Path("samples.png").read_bytes() == again


def test_sample_sweeps_a_processor(arlm, runs: Path) -> None:
    result = arlm("sample", runs / "digits_pixelcnn", "--sweep", "temperature=0.5,1", "-n", 3)
    assert result.code == 0, result.err
    width, height = Image.open("samples.png").size
    assert height < 160 < width
    assert "384 tokens" in result.err


def test_score_draws_where_an_image_surprises(arlm, runs: Path, picture: Path) -> None:
    digit = str(picture / "digit.png")
    result = arlm("score", runs / "digits_pixelcnn", digit, digit, "--json", "--out", "heat.png")
    assert result.code == 0, result.err
    figures, again, total = map(json.loads, result.out.splitlines())
    assert figures == again
    assert (figures["file"], total["file"]) == (digit, "total")
    assert total["nats"] == pytest.approx(2 * figures["nats"])
    assert figures["bits_per_dim"] == pytest.approx(figures["nats"] / 0.6931472 / 64)
    assert Image.open("heat.png").mode == "RGB"
    assert "bits/dim" in arlm("score", runs / "digits_pixelcnn", digit).out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "sample digits_pixelcnn --complete wide.png",
            "'wide.png' is 9x8 pixels; give an image of",
        ),
        ("sample digits_pixelcnn --complete alpha.png", "has an alpha channel"),
        ("sample digits_pixelcnn --complete deep.png", "more than 8 bits a channel"),
        ("sample digits_pixelcnn --complete text.png", "is not an image"),
        ("sample digits_pixelcnn --complete nope.png", "cannot read 'nope.png'"),
        ("sample digits_pixelcnn --complete digit.png --keep up:0.5", "--keep: 'up:0.5'"),
        ("sample digits_pixelcnn --complete digit.png --keep top:2", "--keep: 'top:2'"),
        ("sample digits_pixelcnn --stream", "--stream: True given, but images are not text"),
        ("sample digits_pixelcnn --stop x", "images are not text"),
        ("sample fox --stop=", "--stop: its value is empty"),
        ("sample fox --stream --beam 20", "--stream: it draws token by token; omit --beam"),
        ("sample fox --stop x --decoding fixed_point", "--stop: it draws token by token"),
        ("sample fox --stream --out x.txt", "--stream: it prints the texts; omit --out and --json"),
        ("sample digits_pixelcnn --label 3", "--label: 3 given, but the checkpoint has no classes"),
        ("sample digits_pixelcnn --sweep temperature", "--sweep: 'temperature' has no values"),
        ("sample digits_pixelcnn --sweep heat=1,2", "--processors: unknown processor 'heat'"),
        ("sample digits_pixelcnn --sweep top_k=1,2 --gif a.gif", "--gif: it shows one set"),
        ("sample digits_pixelcnn --gif /proc/a.gif", "--gif: cannot write '/proc/a.gif'"),
        (
            "sample fox --complete digit.png",
            "--complete: 'digit.png' given, but the checkpoint draws text",
        ),
        ("score digits_pixelcnn wide.png", "image: 'wide.png' is 9x8 pixels"),
        ("score fox digit.png", "FILE: 'digit.png' is not UTF-8 text"),
        ("score fox text.png --out x.png", "--out: the checkpoint models text; give --html"),
        ("score digits_pixelcnn digit.png --prompt x", "--prompt: the checkpoint draws images"),
        ("score fox text.png --tokens --json", "--json: it prints each file, and --tokens each"),
        ("score digits_pixelcnn digit.png --label 1", "--label: 1 given"),
        ("score digits_pixelcnn digit.png --html x.png", "--html: 'x.png' does not end in .html"),
        ("attention fox the --out x.jpg", "--out: 'x.jpg' does not end in .png; write for example"),
        ("attention fox the --html x", "--html: 'x' does not end in .html, .htm; write"),
        ("compare fox --out x.txt", "--out: 'x.txt' does not end in .html"),
    ],
)
def test_bad_pictures_and_options_have_one_line_errors(
    arlm, runs: Path, picture: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, message: str
) -> None:
    verb, run, *rest = arguments.split()
    monkeypatch.chdir(picture)
    assert message in arlm(verb, runs / run, *rest).error()


def test_sample_searches_for_the_likeliest_text(arlm, runs: Path) -> None:
    given = ["sample", runs / "fox", "--prompt", "the fox", "--max-new-tokens", 5]
    greedy = arlm(*given, "--greedy").out
    assert arlm(*given, "--beam", 1).out == greedy
    assert arlm(*given, "--processors", "greedy").out == greedy
    several = arlm(*given, "-n", 3, "--beam", 8).out.removesuffix("\n").split("\n---\n")
    assert len(set(several)) == 3
    assert all(len(text) == 12 and text.startswith("the fox") for text in several)
    shown = arlm(*given, "-n", 3, "--beam", 8, "--tree", "tree.html")
    assert shown.out.removesuffix("\n").split("\n---\n") == several
    assert shown.err.endswith("tokens/s\ntree.html\n")  # drawn after the time has been taken
    assert "<h2>the fox</h2>" in Path("tree.html").read_text()


def test_sample_streams_what_it_draws(arlm, runs: Path) -> None:
    given = ["sample", runs / "fox", "-n", 2, "--prompt", "the fox", "--max-new-tokens", 23]
    plain = arlm(*given)
    streamed = arlm(*given, "--stream")
    assert streamed.code == 0
    assert streamed.out == plain.out
    penalised = arlm(
        *given, "--stream", "--processors", "frequency_penalty=2:prompt=true,mirostat=1"
    )
    assert penalised.code == 0
    assert penalised.out != plain.out
    first = plain.out.split("\n---\n")[0]
    assert len(first) == 30
    stop = first[10:13]  # beyond the prompt
    stopped = arlm(*given, "--stop", stop)
    assert stopped.out == arlm(*given, "--stop", stop, "--stream").out
    assert stopped.out.split("\n---\n")[0] == first[: first.index(stop, len("the fox"))]
    assert arlm(*given, "--stop", stop, "--out", "x.txt").out.strip() == "x.txt"
    assert Path("x.txt").read_text() == stopped.out


def test_shorthands_are_processors_in_a_fixed_order(arlm, runs: Path) -> None:
    given = ["sample", runs / "fox", "-n", 4, "--max-new-tokens", 20]
    chosen = ["--top-p", 0.6, "--top-k", 5, "--temperature", 2]
    penalty = "frequency_penalty=0.5"
    order = f"{penalty},temperature=2,top_k=5,top_p=0.6"
    assert (
        arlm(*given, *chosen, "--processors", penalty).out
        == arlm(*given, "--processors", order).out
        != arlm(*given, "--processors", f"top_p=0.6,top_k=5,temperature=2,{penalty}").out
    )
    assert arlm(*given, "--seed", 3).out != arlm(*given).out


def test_texts_longer_than_the_window(arlm, runs: Path) -> None:
    given = ["sample", runs / "fox", "-n", 2, "--max-new-tokens"]
    short, long = arlm(*given, 32), arlm(*given, 100)
    assert "window" not in short.err
    assert (
        "note: 100 tokens are more than the network's window of 32; it slides, and every 16 tokens "
        "the last 16 are read again" in long.err
    )
    both = zip(short.out[:-1].split("\n---\n"), long.out[:-1].split("\n---\n"), strict=True)
    for few, many in both:
        assert len(many) == 100
        assert many.startswith(few)
    assert arlm(*given, 100, "--stream").out == long.out
    # A prompt may be longer than the window too.
    prompt = long.out[:50]
    after = arlm("sample", runs / "fox", "--prompt", prompt, "--max-new-tokens", 9)
    assert after.code == 0, after.err
    assert len(after.out) == 50 + 9 + 1


def test_texts_as_json_and_prompts_from_a_file(arlm, runs: Path) -> None:
    Path("prompts.txt").write_text("the fox\nthe lazy dog\n")
    given = ["sample", runs / "fox", "--prompt-file", "prompts.txt", "-n", 2]
    found = arlm(*given, "--json", "--max-new-tokens", 6)
    rows = [json.loads(line) for line in found.out.splitlines()]
    assert [row["index"] for row in rows] == [0, 1, 2, 3]
    starts = ["the fox"] * 2 + ["the lazy dog"] * 2
    for row, start in zip(rows, starts, strict=True):
        assert row["text"].startswith(start)
        assert len(row["text"]) == len(start) + 6
        assert row["tokens"] == 6
        alone = score_of(arlm, runs / "fox", row["text"], start)
        assert row["nats"] == pytest.approx(alone, abs=1e-3)
    plain = arlm(*given, "--max-new-tokens", 6)
    assert plain.out == "\n---\n".join(row["text"] for row in rows) + "\n"


def score_of(arlm, run: Path, text: str, prompt: str) -> float:
    """Nats of a text after a prompt, by `arlm score`."""
    Path("scored.txt").write_text(text.removeprefix(prompt))
    found = arlm("score", run, "scored.txt", "--prompt", prompt, "--json")
    assert found.code == 0, found.err
    return json.loads(found.out)["nats"]


def test_sample_continues_a_prompt(arlm, runs: Path) -> None:
    result = arlm("sample", runs / "fox", "-n", 2, "--prompt", "the fox", "--top-k", 3)
    assert result.code == 0, result.err
    assert result.out.count("the fox") == 2
    assert "tokens/s" in result.err
    greedy = arlm("sample", runs / "fox", "-n", 2, "--greedy").out.removesuffix("\n")
    assert len(set(greedy.split("\n---\n"))) == 1
    assert arlm("sample", runs / "fox", "--out", "x.txt").out.strip() == "x.txt"
    assert Path("x.txt").read_text() == arlm("sample", runs / "fox").out


def test_evaluate_prints_baselines_beside_the_network(arlm, runs: Path) -> None:
    result = arlm("evaluate", runs / "digits_pixelcnn", "--baselines", "--json")
    assert result.code == 0, result.err
    record = json.loads(result.out)
    assert record["tokens"] == record["dims"] == 180 * 64
    assert list(record["models"]) == ["PixelCNN", "uniform", "pixel histogram"]
    assert record["models"]["uniform"]["bits_per_dim"] == pytest.approx(4.0875, abs=1e-4)
    table = arlm("evaluate", runs / "fox", "--split", "val", "--baselines").out
    assert "180 tokens, 180 bytes" in table
    assert "5-gram" in table


def test_test_and_predict_agree_with_evaluate_and_sample(arlm, runs: Path) -> None:
    ckpt = runs / "digits_pixelcnn" / "version_0" / "checkpoints" / "best.ckpt"
    result = arlm("test", *DIGITS, *TINY, "--ckpt_path", ckpt)
    assert result.code == 0, result.err
    evaluated = json.loads(arlm("evaluate", ckpt, "--json").out)
    bits = evaluated["models"]["PixelCNN"]["bits_per_dim"]
    assert f"{bits:.5f}"[:6] in result.out
    greedy = ["--model.sampler", ROOT / "configs/sampler/greedy.yaml"]
    result = arlm("predict", *DIGITS, *TINY, "--ckpt_path", ckpt, *greedy)
    assert result.code == 0, result.err
    assert "samples:" in result.out
    assert arlm("validate", *DIGITS, *TINY, "--ckpt_path", ckpt).code == 0
    assert not list(Path("runs").rglob("config.yaml"))  # written in fit only


def test_options_on_the_command_line_win_over_the_checkpoint(arlm, runs: Path) -> None:
    ckpt = runs / "digits_pixelcnn" / "version_0" / "checkpoints" / "last.ckpt"
    result = arlm(
        "fit", *DIGITS, *TINY, "--ckpt_path", ckpt, "--trainer.max_steps", 8, "--samples.n", 0,
        "--trainer.check_val_every_n_epoch", "null", "--trainer.val_check_interval", 4,
    )  # fmt: skip
    assert result.code == 0, result.err
    assert "step 8/8" in result.err
    assert not list(Path("runs").rglob("*.png"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fti"], "verb: 'fti' is not known; did you mean 'fit'?"),
        (["fit"], "model.net, data: missing; name a configuration"),
        (["fit", *DIGITS, "--trainer.max_epoch", 3], "--trainer.max_epoch: unknown option; did you"),
        (["fit", *DIGITS, "--data.bach_size", 3], "data.bach_size: unknown option; did you mean"),
        (["fit", *DIGITS, "--model.net.widht", 3], "model.net.widht: unknown option; did you mean"),
        (["fit", *DIGITS, "--trainer.max_epochs", "abc"], "trainer.max_epochs: 'abc' does not fit"),
        (["fit", *DIGITS, "--data.batch_size", "x"], "data.batch_size: 'x' does not fit; give an int"),
        (["fit", *DIGITS, "--model.net.width", "x"], "model.net.width: 'x' does not fit; give an int"),
        (["fit", *DIGITS, "--trainer.precision", "12"], "trainer.precision: '12' does not fit"),
        (["fit", *DIGITS, "--trainer.accelerator", "x"], "trainer: You selected an invalid"),
        (
            ["fit", *DIGITS, "--trainer.val_check_interval", 999],
            "trainer: `val_check_interval` (999) must be less than or equal",
        ),
        (["fit", "--config", "nope.yaml"], "nope.yaml' does not exist; check the path"),
        (["fit", *DIGITS, "--data", "nope.yaml"], "data: 'nope.yaml' is neither a file nor a class"),
        (["fit", *DIGITS, "--model.net", "Nope"], "model.net: 'Nope' is neither a file nor a class"),
        (["fit", *DIGITS, "--trainer.devices", "${x}"], "configuration: Interpolation key 'x'"),
        (["fit", *DIGITS, "--data.batch_size", 5000], "data.batch_size: 5000 is larger than the"),
        (["fit", *DIGITS, "--data.batch_size", 0], "data.batch_size: 0 is out of range; choose"),
        (["fit", *DIGITS, "--model.net.width", -3], "model.net.width: -3 is out of range; choose"),
        (["fit", *DIGITS, "--samples.n", -1], "samples.n: -1 is out of range"),
        (["fit", *DIGITS, "--trainer.max_epochs", -1], "trainer.max_steps: the schedule needs"),
        (["fit", *DIGITS, "--ckpt_path", "nope.ckpt"], "'nope.ckpt' does not exist"),
        (["fit", *DIGITS, "--trainer.logger.save_dir", "/proc/x"], "file: '/proc/x': No such file"),
        (
            ["fit", *DIGITS, "--data", "datamodules.python_docs.PythonDocs"],
            "model.net: PixelCNN needs an image of shape (H, W, C), not (128,); choose",
        ),
        (["sample", "nope.ckpt"], "'nope.ckpt' does not exist; give a .ckpt file"),
        (["sample"], "run: missing; see `arlm sample --help`"),
        (["sample", "x", "-n", 0], "-n: 0 is out of range; choose at least 1"),
        (["sample", "x", "-n", "many"], "-n: 'many' does not fit; give an integer"),
        (["sample", "x", "--sed", 3], "--sed: unknown option; did you mean '--seed'?"),
        (["sample", "x", "--processors", "temperature=-1"], "temperature: -1.0 is out of range; choose"),
        (["sample", "x", "--processors", "nucleus=1"], "--processors: unknown processor 'nucleus'; choose from"),
        (["evaluate", "x", "--split", "dev"], "--split: 'dev' is not known; choose"),
    ],
    ids=lambda value: None if isinstance(value, str) else " ".join(map(str, value[-2:])),
)  # fmt: skip
def test_bad_input_is_one_line(arlm, arguments: list, message: str) -> None:
    assert message in arlm(*arguments).error()


@pytest.mark.parametrize(
    ("run", "arguments", "message"),
    [
        (
            "fox",
            ["--beam", 2, "--max-new-tokens", 33],
            "--beam: rows of 33 tokens exceed the window",
        ),
        ("fox", ["--prompt", "a", "--prompt-file", "x"], "--prompt-file: it holds the prompts"),
        ("fox", ["--prompt-file", "nope"], "--prompt-file: cannot read 'nope'"),
        (
            "fox",
            ["--greedy", "--top-p", "0.5"],
            "--greedy: it always takes the likeliest token; omit --top-p",
        ),
        ("fox", ["--top-k", 3, "--processors", "top_k=4"], "--top-k: it is in --processors too"),
        ("fox", ["--temperature", -1], "temperature: -1.0 is out of range"),
        ("fox", ["--prompt", "ß"], "--prompt: text: character 'ß' is unknown to the tokenizer"),
        ("fox", ["--beam", 3, "-n", 16], "--beam: 3 is out of range; choose at least -n, 16"),
        (
            "fox",
            ["--beam", 20, "--decoding", "fixed_point"],
            "--beam: it searches and draws nothing",
        ),
        ("fox", ["--tree", "x.png"], "--tree: it shows a search; give --beam"),
        ("fox", ["--beam", 2, "--tree", "x.svg"], "--tree: 'x.svg' does not end in .png, .html"),
        (
            "digits_pixelcnn",
            ["--beam", 20],
            "--beam: 20 given, but beam search does not apply to images",
        ),
        (
            "fox",
            ["--out", "nowhere/y.txt"],
            "--out: the folder 'nowhere' of 'y.txt' does not exist",
        ),
        ("fox", ["--out", "/proc/y.txt"], "--out: cannot write '/proc/y.txt'"),
        ("digits_pixelcnn", ["--out", "x.gif"], "--out: 'x.gif' does not end in .png, .jpg"),
        ("digits_pixelcnn", ["--gif", "x.png"], "--gif: 'x.png' does not end in .gif"),
        ("digits_pixelcnn", ["--out", "/proc/x.png"], "--out: cannot write '/proc/x.png'"),
        ("digits_pixelcnn", ["--prompt", "x"], "--prompt: 'x' given, but the checkpoint draws"),
        (
            "digits_pixelcnn",
            ["--max-new-tokens", 3],
            "--max-new-tokens: 3 given, but images have a fixed size",
        ),
    ],
)
def test_bad_requests_of_a_checkpoint_are_one_line(
    arlm, runs: Path, run: str, arguments: list, message: str
) -> None:
    assert message in arlm("sample", runs / run, *arguments).error()


def test_bad_checkpoints_are_one_line(arlm, runs: Path) -> None:
    good = runs / "digits_pixelcnn" / "version_0" / "checkpoints" / "best.ckpt"
    Path("truncated.ckpt").write_bytes(good.read_bytes()[:-2000])
    torch.save({"state_dict": {}}, "foreign.ckpt")
    for verb in (["sample"], ["evaluate"], ["fit", *DIGITS, *TINY, "--ckpt_path"]):
        assert "truncated or no checkpoint" in arlm(*verb, "truncated.ckpt").error()
        assert "was not written by arlm" in arlm(*verb, "foreign.ckpt").error()
    result = arlm("test", *DIGITS, "--ckpt_path", good)
    assert "model.net: the checkpoint holds" in result.error()


def test_resuming_reads_no_damaged_state_of_the_optimizer(arlm, runs: Path) -> None:
    good = runs / "digits_pixelcnn" / "version_0" / "checkpoints" / "last.ckpt"
    moments = torch.load(good, weights_only=True)["optimizer_states"][0]["state"][0]["exp_avg"]
    content = bytearray(good.read_bytes())
    content[content.index(moments.numpy().tobytes()) + 2] ^= 64
    Path("damaged.ckpt").write_bytes(content)
    assert arlm("sample", "damaged.ckpt", "-n", 1, "--out", "x.png").code == 0  # needs weights only
    error = arlm("fit", *DIGITS, *TINY, "--ckpt_path", "damaged.ckpt").error()
    assert "checkpoint: 'damaged.ckpt' is damaged (its member archive/data/" in error


def test_text_that_is_too_short_is_one_line(arlm) -> None:
    docs = [
        "--config",
        ROOT / "configs/text/docs_lstm.yaml",
        "--data",
        "datamodules.text_file.TextFile",
    ]
    for text in ("", "a"):
        Path("t.txt").write_text(text)
        error = arlm("fit", *docs, "--data.path", "t.txt").error()
        assert f"data.path: 't.txt' has {len(text)} bytes; give a text of at least 2" in error
    Path("t.txt").write_text("abc")
    assert "a split has no text; give more" in arlm("fit", *docs, "--data.path", "t.txt").error()
    Path("t.txt").write_text("abc" * 10)
    assert "has 27 tokens" in arlm("fit", *docs, "--data.path", "t.txt").error()


def test_bad_texts_and_batching_have_one_line_errors(arlm, runs: Path) -> None:
    docs = ["--config", ROOT / "configs/text/docs_transformer.yaml"]
    file = ["--data", "datamodules.text_file.TextFile", "--data.path", "t.txt"]
    splits = ["--data", "datamodules.text_splits.TextSplits", "--data.train", "t.txt"]
    splits += ["--data.val", "t.txt", "--data.test", "t.txt"]
    error = arlm("fit", *docs, "--data.batching", "continuous", "--trainer.max_steps", 1).error()
    assert "data.batching: TransformerLanguageModel cannot carry its state" in error
    Path("t.txt").write_bytes(b"text " * 500 + b"\0" + b"text " * 500)
    assert "'t.txt' is binary (a zero at byte 2500)" in arlm("fit", *docs, *file).error()
    assert "'t.txt' is binary" in arlm("fit", *docs, *splits).error()
    Path("t.txt").write_bytes("häuser ".encode() * 99 + "häuser".encode("latin-1") * 99)
    assert "is not UTF-8 text (byte 793)" in arlm("fit", *docs, *file).error()
    Path("t.txt").write_text(" \n" * 500)
    assert "holds no words" in arlm("fit", *docs, *splits).error()
    Path("t.txt").write_text("x" * 6_000_000)  # a line without an end
    assert "has a word of over 1048576 bytes" in arlm("fit", *docs, *splits).error()
    cache = Path(os.environ["XDG_CACHE_HOME"])
    assert not list(cache.rglob("corpus.json"))
    fox = runs / "fox" / "version_0" / "checkpoints" / "best.ckpt"
    Path("t.txt").write_text("the quick brown fox " * 400)
    config = torch.load(fox, weights_only=True)["arlm"]["config"]
    Path("fox.yaml").write_text(config)
    other = [*file, "--data.tokenizer", "byte", "--data.one_held_out", "false"]
    error = arlm("fit", "--config", "fox.yaml", *other, "--ckpt_path", fox).error()
    assert "ckpt_path: the checkpoint knows" in error
    assert "the data has 256 of " in error
    learned = [
        *file,
        "--model.net.positions",
        "learned",
        "--trainer.max_steps",
        2,
        "--samples.n",
        0,
    ]
    assert arlm("fit", *docs, *learned, "--trainer.logger.name", "short").code == 0
    path = next(Path("runs/short").rglob("last.ckpt"))
    longer = [*learned, "--data.length", 160, "--ckpt_path", path]
    error = arlm("fit", *docs, *longer).error()
    assert "ckpt_path: net.position_vectors is (128, 128) in the checkpoint and (160, 128)" in error


def test_the_console_script_is_the_same() -> None:
    (script,) = [e for e in entry_points(group="console_scripts") if e.name == "arlm"]
    assert script.load() is entry


def test_help_is_quick_and_light() -> None:
    code = "import sys; import arlm.__main__ as m; sys.argv[1:] = {}; m.main(); assert 'torch' not in sys.modules"
    for arguments in (["--help"], ["--version"]):
        done = subprocess.run(
            [sys.executable, "-c", code.format(arguments)], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    code = (
        "import sys\nimport arlm.cli.sample as s\n"
        "try: s.main(['--help'])\nexcept SystemExit: assert 'torch' not in sys.modules"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True).returncode == 0
    )


def test_sample_does_not_import_lightning() -> None:
    code = (
        "import sys, arlm.checkpoints, arlm.sampling, arlm.reports.images, arlm.models.pixelcnn\n"
        "heavy = {'pytorch_lightning', 'torchmetrics', 'torchvision', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_sigterm_saves_and_exits_143(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "arlm", "fit", *DIGITS, *TINY, "--trainer.max_epochs", "10000"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    for line in process.stderr:
        if b"step" in line and b"train/" in line:
            break
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert list(tmp_path.rglob("*.ckpt"))
    assert not list(tmp_path.rglob("*.tmp*"))


def test_a_class_conditional_network_draws_a_column_for_each_class(
    arlm, runs: Path, photographs: Path
) -> None:
    result = arlm(
        "fit",
        *DIGITS,
        *TINY,
        *("--data", "datamodules.image_folder.ImageFolder", "--data.path", photographs),
        *("--data.size", 8, "--data.channels", 1, "--data.levels", 4, "--data.labels", "true"),
        *("--data.batch_size", 8, "--trainer.max_epochs", 1, "--trainer.logger.name", "classes"),
        *("--trainer.check_val_every_n_epoch", 1),
    )
    assert result.code == 0, result.err
    assert arlm("evaluate", "runs/classes", "--baselines").code == 0
    both = arlm("sample", "runs/classes", "-n", 6, "--out", "both.png")
    assert both.code == 0, both.err
    width, height = Image.open("both.png").size
    assert height > 1.3 * width  # two classes, three rows
    assert arlm("sample", "runs/classes", "--label", 1, "--out", "one.png").code == 0
    error = arlm("sample", "runs/classes", "--label", 2).error()
    assert "--label: 2" in error
    picture = photographs / "dog" / "00.png"
    assert "--label: the network needs a class" in arlm("score", "runs/classes", picture).error()


def test_a_data_file_chooses_its_own_rows(arlm, runs: Path) -> None:
    path = Path("other.txt")
    path.write_text("the lazy dog jumps over the quick brown fox. " * 60)
    module = (
        "class_path: datamodules.text_file.TextFile\ninit_args: {path: %s, tokenizer: character%s}"
    )

    def evaluated(more: str) -> dict:
        Path("data.yaml").write_text(module % (path, more))
        done = arlm("evaluate", runs / "fox", "--data", "data.yaml", "--json")
        assert done.code == 0, done.err
        return json.loads(done.out)

    own = json.loads(arlm("evaluate", runs / "fox", "--json").out)
    assert evaluated("")["data"]["protocol"] == own["data"]["protocol"]
    assert evaluated(", stride: 3")["data"]["protocol"] == "windows of 32, stride 3"
    assert evaluated(", length: 8")["data"]["protocol"] == "windows of 8, stride 4"
    chosen = evaluated(", length: 8, stride: 2")
    assert chosen["data"]["protocol"] == "windows of 8, stride 2"
    # Tokens are characters, so figures per word say nothing.
    assert set(chosen["models"]["TransformerLanguageModel"]) == {"nll", "ppl", "bits_per_byte"}
    Path("data.yaml").write_text(module % (path, ", length: 64"))
    refused = arlm("evaluate", runs / "fox", "--data", "data.yaml").error()
    assert "data.length: rows of 64 tokens do not fit" in refused
    assert "takes at most 32; choose a smaller data.length" in refused
