"""Every page in headless Chromium, and a domain of one's own under every verb.

In CI a missing Chromium is a failure; elsewhere these tests are skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import run_arlm
from tones import SAMPLES

FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
SHORT = [
    *("--trainer.max_epochs", "-1", "--trainer.check_val_every_n_epoch", "null"),
    *("--trainer.max_steps", "4", "--trainer.val_check_interval", "2", "--samples.n", "2"),
]
TONES = ["--data", "tones.Scales", "--data.length", "12"]
# Pages by the run that makes them: a text, a translator, captions, images, and the domain of tones.py.
PAGES = {
    "text-comparison.html": "compare runs/text lstm=runs/lstm,runs/lstm1 --out text-comparison.html",
    "text-score.html": "score runs/text a.txt --prompt The --html text-score.html",
    "text-attention.html": "attention runs/text The_statement --html text-attention.html",
    "dates-comparison.html": "compare runs/dates --out dates-comparison.html",
    "dates-score.html": "score runs/dates pairs.tsv --html dates-score.html",
    "dates-attention.html": "attention runs/dates 12_MAY_1944 --html dates-attention.html",
    "dates-tree.html": "translate runs/dates dates.txt --tree dates-tree.html",
    "text-tree.html": "sample runs/text --beam 4 --max-new-tokens 70 --tree text-tree.html",
    "captions-comparison.html": "compare runs/captions --out captions-comparison.html",
    "captions-score.html": "score runs/captions captions.tsv --html captions-score.html",
    "captions-attention.html": "attention runs/captions canvas.png --html captions-attention.html",
    "digits-score.html": "score runs/digits digit.png digit.png --html digits-score.html",
    "digits-comparison.html": "compare runs/digits --out digits-comparison.html",
    "tones-comparison.html": "compare runs/tones --trust tones --out tones-comparison.html",
    "tones-score.html": "score runs/tones a.tones --trust tones --html tones-score.html",
    "runs/text/version_0/index.html": "",
    "runs/dates/version_0/index.html": "",
    "runs/captions/version_0/index.html": "",
    "runs/digits/version_0/index.html": "",
    "runs/tones/version_0/index.html": "",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short runs of five domains, and what their verbs read."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "a.txt").write_text("The statement, with marks and\n<b>marks</b> & more. " * 12)
    (folder / "a.tones").write_text("CDEFGABcCDEF\n")
    (folder / "pairs.tsv").write_text("12 MAY 1944\t1944-05-12\n1 June 2001\t2001-06-01\n")
    (folder / "dates.txt").write_text("12 MAY 1944\n1 June 2001\n")
    fits = {
        "text": ["docs_transformer", "--model.net.depth", "2"],
        "lstm": ["docs_lstm"],
        "lstm1": ["docs_lstm", "--seed_everything", "1"],
        "dates": ["dates_attention"],
        "captions": ["digits_captions", "--data.count", "200"],
        "digits": ["digits_pixelcnn"],
        "tones": ["docs_transformer", *TONES],
    }
    for name, (config, *more) in fits.items():
        given = ["--config", config, *more, *SHORT, "--run-name", name]
        done = run_arlm("fit", *given, folder=folder)
        assert done.code == 0, f"{name}\n{done.err}"
    from PIL import Image

    Image.effect_noise((8, 8), 60).save(folder / "digit.png")
    Image.effect_noise((18, 18), 60).save(folder / "canvas.png")
    (folder / "captions.tsv").write_text(f"{folder / 'canvas.png'}\ta bold two above a thin one\n")
    return folder


@pytest.fixture(scope="module")
def made(folder: Path) -> Path:
    """All pages."""
    for command in filter(None, PAGES.values()):
        words = [
            word.replace("_", " ") if word[0].isupper() or word[0] == "1" else word
            for word in command.split()
        ]
        done = run_arlm(*words, folder=folder)
        assert done.code == 0, f"{command}\n{done.err}"
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        if os.environ.get("ARLM_NEEDS_CHROMIUM"):
            pytest.fail("Chromium is missing; .ci/run installs it")
        pytest.skip("needs Chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=path, args=FLAGS.split())
        yield opened
        opened.close()


WIDER = """() => [...document.querySelectorAll("body *")].filter(element => {
  let box = element.parentElement;
  for (; box && !["auto", "scroll"].includes(getComputedStyle(box).overflowX); box = box.parentElement);
  return !box && element.getBoundingClientRect().right > innerWidth + 1;
}).map(element => element.outerHTML.slice(0, 100))"""


@pytest.mark.parametrize("name", PAGES)
def test_a_page_in_chromium(made: Path, browser: Any, name: str) -> None:
    """No message on the console, no request, nothing wider than a telephone, light and dark."""
    colours = {}
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme, viewport={"width": 390, "height": 800})
        seen: list[str] = []
        page.on("console", lambda message, seen=seen: seen.append(f"console: {message.text}"))
        page.on("pageerror", lambda error, seen=seen: seen.append(f"error: {error}"))
        page.on("request", lambda request, seen=seen: seen.append(request.url))
        url = (made / name).as_uri()
        page.goto(url)
        assert [line for line in seen if not line.startswith("data:")] == [url]
        assert page.evaluate(WIDER) == []
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        style = "(name) => getComputedStyle(document.body)[name]"
        colours[scheme] = page.evaluate(style, "color"), page.evaluate(style, "backgroundColor")
        assert page.inner_text("footer").count("arlm ") >= 1
        for image in page.query_selector_all("img"):
            assert image.evaluate("image => image.naturalWidth > 0")
        if folder_of_shots := os.environ.get("ARLM_SCREENSHOTS"):
            shot = f"{name.replace('/', '-').removesuffix('.html')}-{scheme}.png"
            page.screenshot(path=str(Path(folder_of_shots) / shot), full_page=True)
        page.close()
    assert colours["light"] != colours["dark"]


def test_the_note_of_a_token_by_mouse_and_by_keyboard(made: Path, browser: Any) -> None:
    page = browser.new_page()
    page.goto((made / "text-score.html").as_uri())
    first, second = (page.locator(".tokens b").nth(i) for i in range(2))
    second.hover()
    assert page.inner_text("#note") == second.get_attribute("title")
    assert "likeliest: " in page.inner_text("#note")
    first.focus()
    assert page.inner_text("#note") == first.get_attribute("title")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#note") == second.get_attribute("title")
    page.keyboard.press("Escape")
    assert not page.inner_text("#note")
    assert page.locator("script").count() == 1, "marks of the text are escaped"
    page.close()


def test_the_weight_under_the_pointer(made: Path, browser: Any) -> None:
    page = browser.new_page()
    page.goto((made / "text-attention.html").as_uri())
    assert page.locator(".heads button").count() == 2 * 4
    page.locator(".heads button").nth(5).click()
    assert page.inner_text("#name") == "blocks.1.attention, head 2"
    big = page.locator("#big")
    box = big.bounding_box()
    # The first token reads nothing that follows, and the start alone.
    big.hover(position={"x": box["width"] - 2, "y": 2})
    assert page.inner_text("#weight") == "T reads n with weight 0.00"
    big.hover(position={"x": 2, "y": 2})
    assert page.inner_text("#weight") == "T reads <start> with weight 1.00"
    page.close()


def test_a_domain_of_ones_own_under_every_verb(folder: Path) -> None:
    trust = ["--trust", "tones"]
    drawn = run_arlm("sample", "runs/tones", *trust, "-n", 3, folder=folder)
    assert drawn.code == 0, drawn.err
    assert drawn.out == "melodies.wav\n"
    with wave.open(str(folder / "melodies.wav")) as file:
        assert file.getnframes() == 3 * 12 * SAMPLES
    scored = run_arlm("score", "runs/tones", *trust, "a.tones", "--tokens", folder=folder)
    assert scored.code == 0, scored.err
    lines = [json.loads(line) for line in scored.out.splitlines()]
    assert "".join(line["text"] for line in lines) == "CDEFGABcCDEF"
    assert all(len(line["top"]) == 5 for line in lines)
    whole = run_arlm("score", "runs/tones", *trust, "a.tones", "--json", folder=folder)
    figures = json.loads(whole.out)
    assert figures["nats"] == pytest.approx(sum(line["nats"] for line in lines))
    assert figures["tones"] == 12
    assert "bits_per_tone" in figures
    written = folder / "runs" / "tones" / "version_0" / "samples"
    assert {path.suffix for path in written.iterdir()} == {".wav"}
    refused = run_arlm("attention", "runs/tones", *trust, "CDE", folder=folder)
    assert "plays melodies, which `arlm attention` does not do" in refused.error()
    (folder / "wrong.tones").write_text("CDX")
    wrong = run_arlm("score", "runs/tones", *trust, "wrong.tones", folder=folder)
    assert "'X' is no tone" in wrong.error()


def test_scores_from_the_command_line(folder: Path) -> None:
    text = "The statement is long. " * 40
    (folder / "b.txt").write_text(text)
    whole = json.loads(run_arlm("score", "runs/text", "b.txt", "--json", folder=folder).out)
    assert whole["bytes"] == whole["tokens"] == len(text)
    given = ["--prompt", text[:500]]
    (folder / "rest.txt").write_text(text[500:])
    rest = json.loads(
        run_arlm("score", "runs/text", "rest.txt", *given, "--json", folder=folder).out
    )
    lines = run_arlm("score", "runs/text", "b.txt", "--tokens", "--top", 0, folder=folder).out
    nats = [json.loads(line)["nats"] for line in lines.splitlines()]
    assert sum(nats) == pytest.approx(whole["nats"])
    assert sum(nats[500:]) == pytest.approx(rest["nats"])
    pairs = run_arlm("score", "runs/dates", "pairs.tsv", "--json", folder=folder)
    assert [json.loads(line)["file"] for line in pairs.out.splitlines()] == [
        *("pairs.tsv:1", "pairs.tsv:2", "total"),
    ]
    (folder / "s.txt").write_text("12 MAY 1944\n1 June 2001\n")
    (folder / "t.txt").write_text("1944-05-12\n2001-06-01\n")
    two = run_arlm("score", "runs/dates", "s.txt", "t.txt", "--json", folder=folder)
    assert [json.loads(line)["nats"] for line in two.out.splitlines()] == [
        json.loads(line)["nats"] for line in pairs.out.splitlines()
    ]
    for arguments, message in (
        (["runs/dates", "s.txt"], "line 1 of 's.txt' is not SOURCE, tab, TARGET"),
        (["runs/dates", "s.txt", "t.txt", "a.txt"], "FILE: 3 files given"),
        (["runs/dates", "s.txt", "t.txt", "--prompt", "x"], "--prompt: the checkpoint translates"),
        (["runs/text", "none.txt"], "FILE: cannot read 'none.txt'"),
    ):
        assert message in run_arlm("score", *arguments, folder=folder).error()
    attention = run_arlm("attention", "runs/lstm", "The", folder=folder)
    assert "LSTMLanguageModel was trained without attention" in attention.error()
    longest = run_arlm("attention", "runs/text", "x" * 200, folder=folder)
    assert "TEXT: it has 200 tokens; attention is shown of 1 to 128 of them" in longest.error()
