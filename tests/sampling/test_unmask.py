"""unmask draws from the mixture over orders, exactly; the bound of masked rows is the mean over orders."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from arlm.core import Autoregressor, Spec, log_softmax
from arlm.data.dataset import Rows
from arlm.errors import UserError
from arlm.evaluation.weights import scored_weights
from arlm.models.bert import BERT
from arlm.models.bilstm import BiLSTM
from arlm.sampling import row_seeds, unmask
from arlm.tokenizers import CharacterTokenizer
from datamodules.masked_text import MaskedText
from datamodules.text_file import TextFile

V, T, MASK = 3, 3, 3
SPEC = Spec(V, (T,), context=Spec(V + 2, (T,), pad_id=V + 1))
ROWS = torch.tensor(list(itertools.product(range(V), repeat=T)))
ORDERS = list(itertools.permutations(range(T)))
EVERYTHING = torch.full((1, T), MASK)


def lively(kind: type[Autoregressor] = BERT) -> Autoregressor:
    torch.manual_seed(1)
    options = {"width": 8, "depth": 1} | (
        {"heads": 2, "positions": "learned"} if kind is BERT else {}
    )
    net = kind(SPEC, **options).double().eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=1.2)
    return net


def of_order(net: Autoregressor, order: tuple[int, ...]) -> Tensor:
    """log p of every row when its tokens are predicted in an order, from `forward` alone: (V ** T,)."""
    context, total = EVERYTHING.repeat(len(ROWS), 1), torch.zeros(len(ROWS), dtype=torch.double)
    for t in order:
        with torch.no_grad():
            log_prob = log_softmax(net(ROWS, context))[:, t]
        total += log_prob.gather(1, ROWS[:, t : t + 1])[:, 0]
        context[:, t] = ROWS[:, t]
    return total


def mixture(net: Autoregressor) -> Tensor:
    """Probabilities (V ** T,) of all rows, averaged over orders."""
    return torch.stack([of_order(net, order) for order in ORDERS]).exp().mean(0)


@pytest.mark.parametrize("kind", [BERT, BiLSTM])
def test_scored_in_every_order_it_is_the_mixture(kind: type[Autoregressor]) -> None:
    net = lively(kind)
    found = torch.zeros(len(ROWS), dtype=torch.double)
    for order in ORDERS:
        rank = torch.tensor(order).argsort().expand(len(ROWS), -1)
        context = EVERYTHING.repeat(len(ROWS), 1)
        scored = unmask(net, context, MASK, range(len(ROWS)), rank, forced=ROWS)
        assert torch.equal(scored.tokens, ROWS)
        assert torch.equal(scored.passes, rank)
        assert (scored.log_prob.sum(1) - of_order(net, order)).abs().max() < 1e-12
        found += scored.log_prob.sum(1).exp() / len(ORDERS)
    assert (found - mixture(net)).abs().max() < 1e-12
    assert float(found.sum()) == pytest.approx(1, abs=1e-12)


def test_draws_in_random_order_have_the_distribution_of_the_mixture() -> None:
    net, n = lively(), 20_000
    drawn = unmask(net, EVERYTHING.repeat(n, 1), MASK, row_seeds(1, n))
    codes = (drawn.tokens * V ** torch.arange(T - 1, -1, -1)).sum(1)
    found, p = codes.bincount(minlength=len(ROWS)) / n, mixture(net)
    assert float(((found - p) / (p * (1 - p) / n).sqrt()).abs().max()) < 4
    orders = (drawn.passes * 10 ** torch.arange(T - 1, -1, -1)).sum(1).unique(return_counts=True)[1]
    assert len(orders) == len(ORDERS)
    assert (orders / n - 1 / 6).abs().max() < 4 * math.sqrt(5 / 36 / n)
    # In one pass, tokens are drawn independently of one another: another distribution.
    at_once = unmask(net, EVERYTHING.repeat(n, 1), MASK, row_seeds(1, n), per_pass=T)
    assert int(at_once.passes.max()) == 0
    with torch.no_grad():
        marginals = log_softmax(net(EVERYTHING, EVERYTHING))[0]
    p = marginals.gather(1, ROWS.T).sum(0).exp()
    codes = (at_once.tokens * V ** torch.arange(T - 1, -1, -1)).sum(1)
    found = codes.bincount(minlength=len(ROWS)) / n
    assert float(((found - p) / (p * (1 - p) / n).sqrt()).abs().max()) < 4
    assert float((p - mixture(net)).abs().sum()) > 0.1


def test_a_row_depends_neither_on_its_batch_nor_on_what_is_given_elsewhere() -> None:
    net = lively()
    context = torch.tensor([[MASK, 1, MASK], [MASK, MASK, MASK], [0, 1, 2], [2, MASK, MASK]])
    together = unmask(net, context, MASK, [5, 6, 7, 8])
    for i in range(4):
        alone = unmask(net, context[i : i + 1], MASK, [5 + i])
        assert all(
            torch.equal(a[0], b[i]) or (a[0] - b[i]).abs().max() < 1e-12
            for a, b in zip(alone, together, strict=True)
        )
    given = context != MASK
    assert torch.equal(together.tokens[given], context[given])
    assert (together.passes[given] == -1).all()
    assert (together.log_prob[given] == 0).all()
    assert (together.tokens < V).all()


def test_the_surest_token_is_filled_first() -> None:
    net = lively()
    drawn = unmask(net, EVERYTHING.repeat(50, 1), MASK, range(50), "confident")
    with torch.no_grad():
        first = int(log_softmax(net(EVERYTHING, EVERYTHING))[0].amax(1).argmax())
    assert (drawn.passes[:, first] == 0).all()
    for row, passes in zip(drawn.tokens, drawn.passes, strict=True):
        context = torch.where(passes == 0, row, MASK)
        with torch.no_grad():
            sure = log_softmax(net(context[None], context[None]))[0].amax(1)
        sure[passes == 0] = -math.inf
        assert int(passes[sure.argmax()]) == 1


def test_other_masks_stay_and_several_go_in_a_pass() -> None:
    net = lively()
    gaps = torch.tensor([[False, True, True]])
    drawn = unmask(net, EVERYTHING, MASK, [3], gaps=gaps)
    assert int(drawn.tokens[0, 0]) == MASK
    assert sorted(drawn.passes[0].tolist()) == [-1, 0, 1]
    assert sorted(unmask(net, EVERYTHING, MASK, [3], per_pass=2).passes[0].tolist()) == [0, 0, 1]
    with pytest.raises(UserError, match="per_pass: 0"):
        unmask(net, EVERYTHING, MASK, [3], per_pass=0)
    with pytest.raises(UserError, match="order: first"):
        unmask(net, EVERYTHING, MASK, [3], "first")  # type: ignore[arg-type]


def test_the_bound_is_the_mean_over_orders_and_above_the_nats_of_the_mixture() -> None:
    """Over all sets of masked tokens, T/t times the nats of the masked ones is the mean over orders of the nats."""
    net = lively()
    mean_over_orders = -torch.stack([of_order(net, order) for order in ORDERS]).mean(0)
    bound = torch.zeros(len(ROWS), dtype=torch.double)
    for t in range(1, T + 1):
        sets = list(itertools.combinations(range(T), t))
        for chosen in sets:
            context = ROWS.clone()
            context[:, list(chosen)] = MASK
            with torch.no_grad():
                nats = -net.log_prob(ROWS, context)[:, list(chosen)].sum(1)
            bound += T / t * nats / len(sets) / T
    assert (bound - mean_over_orders).abs().max() < 1e-12
    exact = -mixture(net).log()
    assert (bound >= exact).all()
    assert float((bound - exact).min()) > 1e-4


def test_masked_rows_of_the_data_estimate_the_bound(tmp_path) -> None:
    """The weighted nats of rows of the data module have the bound as their expectation."""
    (tmp_path / "text").write_text("".join("abc"[i * i % 7 % 3] for i in range(400)))
    data = MaskedText(TextFile(str(tmp_path / "text"), "character", length=T, stride=T), bound=True)
    data.domain = data.domain_of(CharacterTokenizer("abc"))
    assert (data.domain.mask_id, data.domain.pad_id) == (MASK, V + 1)
    net, dataset = lively(), data.dataset("train")
    of_row: dict[tuple, list[float]] = {}
    for epoch in range(60):
        batch = dataset[Rows(epoch, torch.arange(len(dataset)))]
        with torch.no_grad():
            nats = -net.log_prob(batch.tokens, batch.context) * scored_weights(batch)
        for row, value in zip(batch.tokens.tolist(), nats.sum(1).tolist(), strict=True):
            of_row.setdefault(tuple(row), []).append(value)
    expected = -torch.stack([of_order(net, order) for order in ORDERS]).mean(0)
    assert max(map(len, of_row.values())) > 500
    for row, values in of_row.items():
        if len(values) < 500:
            continue
        found = torch.tensor(values, dtype=torch.double)
        code = sum(token * V**i for i, token in enumerate(reversed(row)))
        error = float(found.std()) / math.sqrt(len(found))
        assert abs(float(found.mean() - expected[code])) < 4 * error
