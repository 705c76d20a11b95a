"""Best of n: the distribution of the best row is known where all rows are enumerated."""

from __future__ import annotations

import itertools
import math

import laws
import pytest
import torch

from arlm.core import Spec
from arlm.errors import UserError
from arlm.models.rnn import LSTMLanguageModel
from arlm.sampling import Gumbel, best_of, generate, row_seeds

SPEC = Spec(3, (3,))
ROWS = torch.tensor(list(itertools.product(range(3), repeat=3)))


def network() -> LSTMLanguageModel:
    torch.manual_seed(0)
    return laws.lively(LSTMLanguageModel(SPEC, 6, 1))


def code(rows: torch.Tensor) -> torch.Tensor:
    return (rows * torch.tensor([9, 3, 1])).sum(1)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("scored", ["likelihood", "sum"])
def test_the_best_has_the_distribution_of_a_maximum(n: int, scored: str) -> None:
    """P(best scores at most s) = P(one scores at most s)^n; 4,000 rows, chi-square at 1e-6."""
    net, count = network(), 4000
    with torch.no_grad():
        nats = net.log_prob(ROWS).sum(1)
    score = nats if scored == "likelihood" else ROWS.sum(1).double()
    scorer = None if scored == "likelihood" else (lambda row: row.sum())
    found = best_of(net, n, 5, count, scorer=scorer)
    p, values = nats.exp(), score.unique()
    below = torch.stack([p[score <= v].sum() for v in values]) ** n
    expected = count * below.diff(prepend=below.new_zeros(1))
    drawn = score[code(found.tokens)]
    seen = torch.stack([(drawn == v).sum() for v in values]).double()
    kept = expected > 5
    merged = [torch.cat([x[kept], x[~kept].sum()[None]]) for x in (seen, expected)]
    if merged[1][-1] <= 5:
        merged = [torch.cat([x[:-2], x[-2:].sum()[None]]) for x in merged]
    statistic = ((merged[0] - merged[1]) ** 2 / merged[1]).sum()
    freedom = len(merged[0]) - 1
    # Wilson and Hilferty's approximation of the chi-square quantile at 1 - 1e-6
    quantile = freedom * (1 - 2 / (9 * freedom) + 4.7534 * math.sqrt(2 / (9 * freedom))) ** 3
    assert statistic < quantile


def test_it_is_the_best_of_the_samples_of_generate() -> None:
    net = network()
    forced, given = torch.tensor([[0], [2]]), {"noise": Gumbel()}
    found = best_of(net, 4, 7, 2, 3, forced=forced, lengths=[3, 2], **given)
    drawn = generate(
        *(net, row_seeds(7, 8), 3),
        forced=forced.repeat_interleave(4, 0),
        lengths=[3] * 4 + [2] * 4,
        **given,
    )
    nats = drawn.log_prob.sum(1).view(2, 4)
    assert torch.equal(found.scores, nats)
    for i in range(2):
        best = int(nats[i].argmax())
        assert found.chosen[i] == best
        assert torch.equal(found.tokens[i], drawn.tokens[4 * i + best])
        assert torch.equal(found.log_prob[i], drawn.log_prob[4 * i + best])


def test_scorers_see_tokens_or_native_objects() -> None:
    net = network()
    text = best_of(
        net,
        5,
        rows=3,
        decode=lambda row: "".join("abc"[i] for i in row),
        scorer=lambda s: s.count("b"),
    )
    tokens = best_of(net, 5, rows=3, scorer=lambda row: (row == 1).sum())
    assert torch.equal(text.tokens, tokens.tokens)
    assert torch.equal(text.scores.max(1).values, (text.tokens == 1).sum(1).double())


def test_bad_arguments() -> None:
    with pytest.raises(UserError, match=r"^n: 0"):
        best_of(network(), 0)
    with pytest.raises(UserError, match=r"^rows: 0"):
        best_of(network(), 2, rows=0)


@pytest.mark.parametrize("spec", [Spec(4, (6,), eos_id=2), Spec(4, (6,), pad_id=3, eos_id=2)])
def test_scorers_see_a_row_up_to_its_end_and_no_filler(spec: Spec) -> None:
    """What follows the end of a row is no part of it: neither its tokens nor their decoded text count."""
    torch.manual_seed(0)
    net, seen = laws.lively(LSTMLanguageModel(spec, 6, 1)), []

    def score(row: torch.Tensor) -> float:
        seen.append(row.tolist())
        return -len(row)  # a row with its filler is never the shortest

    found = best_of(net, 8, rows=4, scorer=score)
    drawn = generate(net, row_seeds(0, 32))
    for row, tokens, length in zip(seen, drawn.tokens, drawn.lengths.tolist(), strict=True):
        assert row == tokens[:length].tolist()
    assert {len(row) for row in seen} > {6}, "some end early"
    assert torch.equal(found.scores.view(-1), -drawn.lengths.double())
    texts = best_of(net, 8, rows=4, decode=lambda row: "x" * len(row), scorer=len)
    assert torch.equal(texts.scores.view(-1), drawn.lengths.double())
