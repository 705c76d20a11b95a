"""The tree of a beam search has the prefixes and rows of the search, with the network's own log-probabilities."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from pathlib import Path

import laws
import pytest
import torch
from PIL import Image

from arlm.core import Autoregressor
from arlm.domains import TextDomain
from arlm.inference.beam_tree import BeamTree, Node
from arlm.models.lstm_seq2seq import LSTMSeq2Seq
from arlm.models.rnn import LSTMLanguageModel
from arlm.models.transformer_seq2seq import TransformerSeq2Seq
from arlm.reports.beam_tree import STEPS, Search, layout, number, write_tree
from arlm.reports.text_view import TextView
from arlm.sampling import beam_search
from arlm.tokenizers import ByteTokenizer

END = 2
PAIRS = replace(laws.SPECS["pairs"], eos_id=END, vocab_size=7, shape=(9,))
SMALL = {
    LSTMSeq2Seq: {"width": 6, "embedding": 5},
    TransformerSeq2Seq: {"width": 8, "depth": 2, "heads": 2},
    LSTMLanguageModel: {"width": 8},
}
BEAM = 4


def build(kind: type[Autoregressor]) -> Autoregressor:
    """A lively network in float64, whose rows end at many lengths."""
    spec = PAIRS if kind.__name__.endswith("Seq2Seq") else replace(PAIRS, context=None)
    net = laws.lively(kind(spec, **SMALL[kind]))
    net.head.bias.data[END] += 0.5
    return net


@pytest.mark.parametrize("row", [0, 3])
@pytest.mark.parametrize("prompted", [0, 2])
@pytest.mark.parametrize("kind", list(SMALL), ids=lambda k: k.__name__)
def test_the_tree_is_the_search(kind: type[Autoregressor], prompted: int, row: int) -> None:
    net, tree = build(kind), BeamTree(row)
    context = laws.contexts(net, 6)
    prompt = torch.tensor([[1, 0]] * 6)[:, :prompted] if prompted else None
    given = {"beam": BEAM, "n_best": BEAM, "context": context, "prompt": prompt}
    beams = beam_search(net, 6, **given, length_penalty=0.7, observe=tree.observe)
    plain = beam_search(net, 6, **given, length_penalty=0.7)
    assert torch.equal(plain.tokens, beams.tokens)
    assert torch.equal(plain.score, beams.score)

    ended = [tree.nodes[i] for i in tree.finished]
    assert len(ended) >= BEAM
    for node, tokens, nats, score in zip(
        ended[:BEAM], beams.tokens[row], beams.log_prob[row], beams.score[row], strict=True
    ):
        whole = (*[1, 0][:prompted], *node.tokens)
        assert whole == tuple(tokens[: len(whole)].tolist())
        assert (tokens[len(whole) :] == END).all()
        assert (node.log_prob, node.score) == (nats.item(), score.item())

    own = None if context is None else context[row : row + 1]
    for index, node in enumerate(tree.nodes):
        whole = torch.tensor([[*[1, 0][:prompted], *node.tokens]], dtype=torch.long)
        path = [tree.nodes[i].tokens for i in tree.path(index)]
        assert path == [node.tokens[:n] for n in range(len(node.tokens) + 1)]
        if node.tokens:
            filled = torch.nn.functional.pad(whole, (0, net.spec.length - whole.shape[1]))
            nats = net.log_prob(filled, own)[0, prompted : whole.shape[1]].sum().item()
            assert node.log_prob == pytest.approx(nats, abs=1e-9)
    for length in range(1, 10 - prompted):
        kept = [n for n in tree.nodes if len(n.tokens) == length and n.score is None]
        assert len(kept) <= BEAM


def grown(seed: int) -> BeamTree:
    """A search at random, with prefixes of up to 8 tokens; some rows finish."""
    noise, tree = random.Random(seed), BeamTree()
    while len(tree.nodes) < 60:
        parent = noise.randrange(len(tree.nodes))
        before = tree.nodes[parent]
        if before.score is None and len(before.tokens) < 8:
            before.children.append(len(tree.nodes))
            score = noise.uniform(-3, -1) if noise.random() < 0.2 else None
            tree.nodes.append(Node((*before.tokens, len(tree.nodes)), -1.0, parent, score))
    return tree


@pytest.mark.parametrize("seed", range(10))
def test_no_two_nodes_and_no_two_lines_are_drawn_over_each_other(seed: int) -> None:
    tree = grown(seed)
    rows = layout(tree)
    spots = [(len(node.tokens), row) for node, row in zip(tree.nodes, rows, strict=True)]
    assert len(set(spots)) == len(spots)
    assert {rows[i] for i in tree.path(tree.finished[0])} == {0}
    # From a parent, a vertical line goes down to its children; those of a column do not overlap.
    for column in range(9):
        spans = [
            (rows[i], max(rows[child] for child in node.children))
            for i, node in enumerate(tree.nodes)
            if len(node.tokens) == column and node.children
        ]
        spans.sort()
        assert all(above <= below for above, below in spans)
        assert all(end < begin for (_, end), (begin, _) in itertools.pairwise(spans))


def test_a_long_search_is_cut_in_a_picture_and_whole_in_a_page(tmp_path: Path, capsys) -> None:
    tree = BeamTree()
    text = "<i>" + "ab$c" * 20
    for length in range(1, len(text) + 1):
        tree.nodes[-1].children.append(length)
        score = -1.0 if length == len(text) else None
        tokens = tuple(text[:length].encode())
        tree.nodes.append(Node(tokens, -0.001 * length, length - 1, score))
    view = TextView(TextDomain(ByteTokenizer()))
    search = Search("a <b> title", tree, view, start="The end")
    page = write_tree([search], tmp_path / "tree.html", "arlm sample").read_text()
    assert (
        page.count("<text") == 2 * len(text) + 2
    )  # a token and its log-probability each; the root; the score
    assert "a &lt;b&gt; title" in page
    assert "<i>" not in page
    assert not capsys.readouterr().err
    picture = Image.open(write_tree([search], tmp_path / "tree.png", "arlm sample"))
    assert f"the picture has {STEPS} of {len(text)} steps" in capsys.readouterr().err
    assert picture.width < 100 * (STEPS + 3)
    assert len(replace(search, most=STEPS).shown) == STEPS + 1  # with the root
    assert number(-1e-9) == number(0.0) == "0.00"
    assert number(-0.016) == "-0.02"
