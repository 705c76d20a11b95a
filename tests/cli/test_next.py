"""`arlm next`: the distribution of the next token is that of the sampler, stage by stage."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import pytest
import torch
from conftest import run_arlm
from PIL import Image

from arlm import checkpoints
from arlm.core import Autoregressor, log_softmax
from arlm.inference.next_token import described, likeliest, next_token, table
from arlm.models.transformer import TransformerLanguageModel
from arlm.reports.next_token import picture
from arlm.sampling import generate
from arlm.sampling.processors import parse_processors
from datamodules.digits import Digits
from datamodules.python_docs import PythonDocs

MASKED = f"top_k=3,logit_bias={{{','.join(f'{token}:-inf' for token in range(97))}}}"
PROCESSORS = "temperature=0.8,top_k=20,top_p=0.7"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder, data = tmp_path_factory.mktemp("next"), PythonDocs(length=16)
    net = TransformerLanguageModel(data.spec, width=8, heads=2, depth=1)
    with torch.no_grad():
        for weight in net.parameters():
            weight += 0.3 * torch.randn_like(weight)
    checkpoints.save(folder / "text.ckpt", net, data)
    return folder


def loaded(folder: Path) -> Autoregressor:
    return checkpoints.load(folder / "text.ckpt").net.double()


@pytest.mark.parametrize("size", [0, 3, 40])
def test_the_stages_are_what_the_sampler_draws_from(folder: Path, size: int) -> None:
    """Also after a prompt that is longer than the window."""
    net, prompt = loaded(folder), torch.arange(size) % 50
    processors = parse_processors(PROCESSORS)
    stages = next_token(net, prompt, processors)
    forced = prompt[None] if size else None
    drawn = generate(
        *(net, [0], size + 1),
        forced=forced,
        processors=processors,
        processed=True,
        top=net.spec.vocab_size,
    )
    assert drawn.top is not None
    ids, before, after = (part[0, size] for part in drawn.top)
    assert (stages[0].log_prob[ids] - before).abs().max() < 1e-10
    assert torch.allclose(stages[-1].log_prob[ids].exp(), after.exp(), atol=1e-10)
    if 0 < size < 16:
        expected = log_softmax(net(torch.cat([prompt, prompt[:1]])[None]))[0, size].detach()
        assert (stages[0].log_prob - expected).abs().max() < 1e-10


def test_stages_have_words_where_the_processors_have_them(folder: Path) -> None:
    chain = 'bad_words=["e"],logit_bias={"t":2}'
    given = ("next", "text.ckpt", "--prompt", "The ", "--processors", chain, "--top", 2)
    done = run_arlm(*given, "--json", folder=folder)
    names = [json.loads(line)["stage"] for line in done.out.splitlines()]
    assert names == ["network", 'bad_words=["e"]', 'logit_bias={"t":2.0}']
    assert 'bad_words=["e"]' in run_arlm(*given, folder=folder).out


def test_what_is_kept_the_tail_and_the_entropy(folder: Path) -> None:
    net = loaded(folder)
    network, warm, most, nucleus = next_token(net, torch.arange(3), parse_processors(PROCESSORS))
    assert [network.name, warm.name, most.name] == ["network", "temperature=0.8", "top_k=20"]
    assert (network.kept, warm.kept, most.kept) == (len(network.log_prob),) * 2 + (20,)
    assert (network.tail, warm.tail) == (0, 0)
    p = warm.log_prob.exp().sort(descending=True).values
    assert math.isclose(most.tail, float(p[20:].sum()), abs_tol=1e-12)
    within = p[:20] / p[:20].sum()
    size = int((within.cumsum(0) < 0.7).sum()) + 1
    assert nucleus.kept == size
    assert math.isclose(nucleus.tail, float(within[size:].sum()), abs_tol=1e-12)
    q = within[:size] / within[:size].sum()
    assert math.isclose(nucleus.bits, -float((q * q.log2()).sum()), abs_tol=1e-10)


def test_table_and_json_on_the_command_line(folder: Path) -> None:
    given = ("next", "text.ckpt", "--prompt", "The ", "--top-p", "0.5", "--top", "4")
    shown = run_arlm(*given, folder=folder)
    assert shown.code == 0, shown.err
    lines = shown.out.splitlines()
    assert lines[0].split() == ["rank", "token", "network", "top_p=0.5"]
    assert [line.split()[0] for line in lines[1:5]] == ["1", "2", "3", "4"]
    assert [line.split()[0] for line in lines[5:]] == ["kept", "tail", "entropy"]
    records = [
        json.loads(line) for line in run_arlm(*given, "--json", folder=folder).out.splitlines()
    ]
    assert [record["stage"] for record in records] == ["network", "top_p=0.5"]
    first = records[0]["tokens"]
    assert [one["probability"] for one in first] == sorted(
        (one["probability"] for one in first), reverse=True
    )
    assert lines[5].split()[1:] == [str(record["kept"]) for record in records]
    assert 0 < records[1]["tail"] <= 0.5


def test_a_picture_has_a_panel_for_each_stage(folder: Path) -> None:
    done = run_arlm(*("next", "text.ckpt", "--top-k", 3, "--out", "next.png"), folder=folder)
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == "next.png"
    stages = next_token(loaded(folder), torch.arange(3), parse_processors("top_k=3"))
    sizes = [
        Image.open(io.BytesIO(picture(stages[:count], [1, 2], ["a", "$_"]))).size
        for count in (1, 2)
    ]
    assert sizes == [(400, 174), (700, 174)]


def test_processors_are_described_as_they_are_written() -> None:
    for text in (
        "greedy",
        "top_p=0.9",
        "frequency_penalty=0.5:prompt=true",
        "mirostat=3.0:rate=0.2",
    ):
        (processor,) = parse_processors(text)
        assert described(processor) == text


def test_ties_are_in_the_order_of_the_vocabulary(folder: Path) -> None:
    (stage,) = next_token(loaded(folder), torch.arange(3))
    even = stage._replace(log_prob=torch.zeros(300).double())
    assert likeliest(even, 9) == list(range(9))
    assert "\n" in table([even], [0], ["a"])


def test_bad_input_is_one_line(folder: Path) -> None:
    digits = Digits()
    if not (folder / "image.ckpt").exists():
        from arlm.models.pixelcnn import PixelCNN

        checkpoints.save(folder / "image.ckpt", PixelCNN(digits.spec, width=4, depth=1), digits)
    for arguments, message in [
        (("text.ckpt", "--top", 0), "--top: 0 is out of range; choose at least 1"),
        (("text.ckpt", "--out", "x.gif"), "--out: 'x.gif' does not end in .png"),
        (("text.ckpt", "--top-p", 2), "top_p: 2.0 is out of range"),
        (("image.ckpt",), "which `arlm next` does not do"),
        (("text.ckpt", "--processors", MASKED), "logit_bias: it masks all tokens that were left"),
    ]:
        assert message in run_arlm("next", *arguments, folder=folder).error()


def test_a_constraint_and_the_seed_are_those_of_sample(folder: Path) -> None:
    pytest.importorskip("llguidance", reason="needs llguidance, of the extra [constrained]")
    only = ("next", "text.ckpt", "--regex", "[xy]", "--json")
    last = json.loads(run_arlm(*only, folder=folder).out.splitlines()[-1])
    assert last["kept"] == 2
    for seed in range(6):  # XTC removes tokens for some seeds
        given = ("--processors", "xtc=0.5:threshold=0.001,greedy", "--seed", seed, "--json")
        first = ("next", "text.ckpt", "--prompt", "The ", "--top", 97)
        stages = run_arlm(*first, *given, folder=folder)
        listed = json.loads(stages.out.splitlines()[-1])["tokens"]
        token = max(listed, key=lambda one: one["probability"])["text"]
        one = ("sample", "text.ckpt", "--prompt", "The ", "--max-new-tokens", 1)
        assert json.loads(run_arlm(*one, *given, folder=folder).out)["text"] == "The " + token


def test_sequences_are_the_likeliest_continuations(folder: Path) -> None:
    """Their probabilities are products of next-token probabilities, stage by stage, in both distributions."""
    given = ("next", "text.ckpt", "--prompt", "The ", "--top-k", 3, "--sequences", 2, "--top", 5)
    records = run_arlm(*given, "--json", folder=folder).out.splitlines()
    found = json.loads(records[-1])["sequences"]
    assert len(records) == 3
    assert len(found) == 5
    assert [one["log_prob"] for one in found] == sorted(
        (x["log_prob"] for x in found), reverse=True
    )
    net, prompt = loaded(folder), PythonDocs(length=16).domain.encode("The ")
    chain, whole = parse_processors("top_k=3"), {}
    network, first = next_token(net, prompt, chain)
    for a in range(net.spec.vocab_size):
        before, after = next_token(net, torch.cat([prompt, torch.tensor([a])]), chain)
        for b in range(net.spec.vocab_size):
            p, q = network.log_prob[a] + before.log_prob[b], first.log_prob[a] + after.log_prob[b]
            whole[a, b] = float(p), float(q)
    best = sorted(whole, key=lambda row: max(whole[row]), reverse=True)[:5]
    assert {tuple(one["tokens"]) for one in found} == set(best)
    for one in found:
        p, q = whole[tuple(one["tokens"])]
        assert one["log_prob"] == pytest.approx(p, abs=1e-4)
        assert math.exp(one["processed_log_prob"]) == pytest.approx(math.exp(q), abs=1e-5)
    shown = run_arlm(*given, "--out", "rows.png", folder=folder).out
    lines = shown.split("\n\n")[1].splitlines()
    assert lines[0].split() == ["text", "log", "p", "log", "q", "network", "drawn"]
    assert [line.split()[1] for line in lines[1:6]] == [f"{x['log_prob']:.2f}" for x in found]
    rest = 1 - sum(math.exp(one["log_prob"]) for one in found)
    assert lines[6].startswith("others, unlikely ones too  ")
    assert float(lines[6].split()[-4]) == pytest.approx(100 * rest, abs=0.01)
    assert lines[7] == "rows.png"
    assert Image.open(folder / "rows.png").size[0] > 500


def test_sequences_out_of_range_are_refused_before_anything_is_printed(folder: Path) -> None:
    for arguments, message in [
        (("--sequences", 0), "--sequences: 0 is out of range; choose at least 1"),
        (
            ("--prompt", "The ", "--sequences", 13),
            "--sequences: 13 tokens after 4 of the prompt do not fit",
        ),
        (("--processors", "xtc=0.5,mirostat=2", "--sequences", 2), "xtc: it draws random numbers"),
    ]:
        done = run_arlm("next", "text.ckpt", *arguments, folder=folder)
        assert message in done.error()
        assert not done.out


@pytest.mark.parametrize("out", [(), ("--out", "x.png")])
def test_a_flat_network_has_no_likely_continuation(folder: Path, out: tuple[str, ...]) -> None:
    data = PythonDocs(length=16)
    net = TransformerLanguageModel(data.spec, width=8, heads=2, depth=1)
    for weight in net.parameters():
        torch.nn.init.zeros_(weight)
    checkpoints.save(folder / "flat.ckpt", net, data)
    flat = ("next", "flat.ckpt", "--prompt", "the", *out)
    done = run_arlm(*flat, "--sequences", 6, folder=folder)
    message = "--sequences: no continuation of 6 tokens has more than 0.01 %; choose fewer"
    assert message in done.error()
    assert not done.out
    assert run_arlm(*flat, "--sequences", 2, folder=folder).code == 0  # 1 of 97 * 97


def test_completions_on_the_command_line(folder: Path) -> None:
    given = ("next", "text.ckpt", "--completions", "--prompt", "The fun", "--top", 3)
    shown = run_arlm(*given, folder=folder)
    assert shown.code == 0, shown.err
    lines = shown.out.splitlines()
    assert lines[0].split() == ["rank", "completion", "probability"]
    record = json.loads(run_arlm(*given, "--json", folder=folder).out)
    assert len(lines) == 2 + len(record["completions"])
    for line, one in zip(lines[1:], record["completions"], strict=False):
        assert f"{100 * one['probability']:.2f} %" in line
        assert one["text"] == "The fun" + one["added"]
    assert f"{max(0, record['count'] - 3)} others" in lines[-1]
    for wrong, message in [
        (("--completions",), "--completions: there is nothing to complete; give --prompt"),
        (("--completions", "--prompt", "a", "--out", "x.png"), "--out: a picture shows the next"),
        (("--completions", "--prompt", "a", "--sequences", 2), "--sequences: they begin after"),
    ]:
        assert message in run_arlm("next", "text.ckpt", *wrong, folder=folder).error()
