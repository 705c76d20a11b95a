"""Contrastive search is its formula, computed anew from the features of whole rows."""

from __future__ import annotations

from dataclasses import replace

import laws
import pytest
import torch
from torch import Tensor

from arlm.core import Spec
from arlm.errors import UserError
from arlm.layers.features import FeatureAutoregressor
from arlm.models.neural_ngram import NeuralNGram
from arlm.models.ngram import KneserNeyNGram
from arlm.models.rnn import GRULanguageModel, LSTMLanguageModel
from arlm.models.transformer import TransformerLanguageModel
from arlm.sampling import contrastive_search, generate
from arlm.sampling.contrastive_search import AdvancesFeatures
from arlm.sampling.processors.greedy import Greedy

LENGTH, END = 12, 8
SPEC = Spec(9, (LENGTH + 1,), pad_id=7, eos_id=END)


def networks() -> list[FeatureAutoregressor]:
    torch.manual_seed(0)
    nets = [
        TransformerLanguageModel(SPEC, 16, 2, 2),
        TransformerLanguageModel(SPEC, 16, 1, 2, positions="alibi", norm_first=False),
        LSTMLanguageModel(SPEC, 12, 2),
        GRULanguageModel(SPEC, 8, 1, embedding=5, tied=True),
    ]
    return [laws.lively(net) for net in nets]


def reference(
    net: FeatureAutoregressor, prompt: list[int], top_k: int, penalty: float
) -> tuple[list[int], list[float]]:
    """One row; for every candidate, the features of the whole row are computed."""
    row, nats = list(prompt), [0.0] * len(prompt)
    while len(row) < LENGTH:
        logits = net(torch.tensor([[*row, 0]]))[0, len(row)]
        own = logits.log_softmax(-1)
        logits[7] = -torch.inf  # padding
        p = logits.softmax(-1)
        scored = []
        for v in p.argsort(descending=True)[:top_k].tolist():
            # features[:, t + 1] are those after token t
            after = net.features(torch.tensor([[*row, v, 0]]))[0, 1:]
            *earlier, last = after
            cosines = [torch.dot(h, last) / (h.norm() * last.norm()) for h in earlier]
            scored.append(((1 - penalty) * p[v] - penalty * max(cosines, default=0.0), v))
        # Of equal ones the likeliest, which is the first.
        row.append(max(scored, key=lambda pair: float(pair[0]))[1])
        nats.append(float(own[row[-1]]))
        if row[-1] == END:
            break
    missing = LENGTH - len(row)
    return row + [7] * missing, nats + [0.0] * missing


@pytest.mark.parametrize("number", range(4))
def test_it_is_the_formula(number: int) -> None:
    net = networks()[number]
    rows: set[tuple] = set()
    for prompt in (torch.empty(3, 0).long(), torch.tensor([[1, 2], [0, 0], [5, 3]])):
        for top_k, penalty in ((4, 0.6), (3, 0.2), (8, 0.9), (4, 1.0)):
            given: dict = {"top_k": top_k, "penalty": penalty, "prompt": prompt}
            found = contrastive_search(net, 3, LENGTH, **given)
            for i in range(3):
                with torch.no_grad():
                    row, nats = reference(net, prompt[i].tolist(), top_k, penalty)
                assert found.tokens[i].tolist() == row
                assert found.log_prob[i].tolist() == pytest.approx(nats)
                rows.add(tuple(row))
    assert len(rows) > 3


def test_one_candidate_or_no_penalty_is_greedy() -> None:
    for net in networks():
        prompt = torch.tensor([[1, 2], [0, 0], [5, 3]])
        forced = torch.nn.functional.pad(prompt, (0, LENGTH - 2), value=-1)
        greedy = generate(net, range(3), processors=[Greedy()], forced=forced)
        for given in ({"top_k": 1, "penalty": 0.9}, {"top_k": 6, "penalty": 0.0}):
            found = contrastive_search(net, 3, LENGTH, prompt=prompt, **given)
            assert torch.equal(found.tokens, greedy.tokens)


def test_features_of_decoding_are_those_of_whole_rows() -> None:
    for net in networks():
        assert isinstance(net, AdvancesFeatures)
        tokens = laws.rows(net)
        _, state = net.start(len(tokens), tokens.shape[1])
        found, state = net.advance_features(tokens[:, :3], state)
        ragged = torch.arange(len(tokens)) % 3
        more, _ = net.advance_features(tokens[:, 3:5], state, ragged)
        expected: Tensor = net.features(tokens)
        assert (found - expected[:, 1:4]).abs().max() < 1e-10
        inside = torch.arange(2) < ragged[:, None]
        assert (more - expected[:, 4:6])[inside].abs().max() < 1e-10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"top_k": 0}, "top-k: 0 is out of range; choose 1 to 9"),
        ({"top_k": 10}, "top-k: 10 is out of range; choose 1 to 9"),
        ({"penalty": 1.1}, "penalty: 1.1 is out of range; choose 0 to 1"),
        ({"length": LENGTH + 1}, "length: 13 is out of range; choose 1 to 12"),
        ({"prompt": torch.zeros(1, LENGTH).long()}, "length: 12 is out of range; choose 13 to 12"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(UserError) as caught:
        contrastive_search(networks()[0], 1, **{"length": LENGTH, **arguments})
    assert str(caught.value) == message


def test_networks_without_features_are_refused() -> None:
    for net in (KneserNeyNGram(SPEC, 3), NeuralNGram(replace(SPEC, shape=(9,)), 3, 4, 8)):
        with pytest.raises(UserError, match="offers no features in decoding"):
            contrastive_search(net, 1, 5)
