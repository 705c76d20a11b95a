"""The picture of decoding rules: its panels, and what their captions say."""

from __future__ import annotations

import io
from unittest.mock import patch

import pytest
import torch
from bigram_table import END, bigram
from PIL import Image

from arlm.inference.next_token import next_token
from arlm.reports import decoding_rules
from arlm.reports.decoding_rules import Rule, caption, side_by_side
from arlm.sampling.enumeration import enumerate_rows
from arlm.sampling.processors import parse_processors


def rule(chain: str, least: float = 0.0) -> Rule:
    net, processors = bigram(2), parse_processors(chain)
    stages = next_token(net, torch.zeros(0).long(), processors)
    rows = enumerate_rows(net, processors=processors, least=least)
    return Rule(chain, stages[0].log_prob, stages[-1].log_prob, rows)


def test_captions() -> None:
    """Greedy draws a, then b: 1/2 times 0.7 under the network; a row of q is cut after two tokens always."""
    assert caption(rule("greedy").rows) == (
        "a drawn row: 0.00 nats under q, 1.05 under p; not ended: q 1.000, p 0.855"
    )
    assert caption(rule("greedy", 0.2).rows) == "a drawn row: 0.00 nats under q, 1.05 under p"
    plain = caption(rule("", 0.2).rows)
    assert plain == "enumerated: p 0.620, q 0.620"  # a b and b a


def test_bars_are_p_and_q_of_each_rule() -> None:
    rules = [rule("greedy"), rule("top_k=2", 0.2)]
    rows = rules[0].rows
    drawn = []

    def kept(panel, p, q, colours) -> None:
        drawn.append((p.tolist(), q.tolist()))

    with patch.object(decoding_rules, "_bars", kept):
        side_by_side(rules, [0, END], ["a", "."], rows.tokens[:3], ["ab", "ba", "bb"])
    assert [tuple(row) for row in rows.tokens[:3].tolist()] == [(0, 1), (1, 0), (1, 1)]
    flat = [number for pair in drawn for numbers in pair for number in numbers]
    greedy = [0.5, 0.05, 1, 0, 0.35, 0.27, 0.135, 1, 0, 0]
    top = [10 / 19, 0, 7 / 9, 2 / 3]
    two = [0.5, 0.05, top[0], 0, 0.35, 0.27, 0, top[0] * top[2], 9 / 19 * top[3], 0]
    assert flat == pytest.approx(greedy + two)  # bb is not enumerated for the second


def test_the_picture_grows_with_rules_and_rows() -> None:
    rules = [rule("greedy"), rule("top_k=2")]
    names, rows = ["a", "$_", "abc"], rules[0].rows.tokens
    sizes = [
        Image.open(
            io.BytesIO(side_by_side(rules[:n], [0, 1], ["a", "b"], rows[:m], names[:m]))
        ).size
        for n, m in ((1, 2), (2, 2), (1, 3))
    ]
    assert sizes == [(496, 185), (496, 320), (520, 209)]
