"""Baselines are networks fitted to the training split, and their figures are known."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from arlm.data.dataset import Rows
from arlm.data.module import TokenDataModule
from arlm.evaluation.metric import Likelihood
from arlm.inference.baselines import baselines, independent_batches
from arlm.inference.scorer import score_split
from datamodules.digits import Digits
from datamodules.masked_text import MaskedText
from datamodules.multi30k import Multi30k
from datamodules.python_docs import PythonDocs
from datamodules.text_file import TextFile


def bits(data: TokenDataModule) -> dict[str, float]:
    """Bits per unit of the validation split under each baseline."""
    data.prepare_data()
    models = baselines(data)
    found = {name: Likelihood(data.spec.unit) for name in models}
    for batch in independent_batches(data, "val"):
        for name, net in models.items():
            found[name].update(net.log_prob(batch.tokens), batch)
    return {
        name: float(sums.compute()[f"bits_per_{data.spec.unit}"]) for name, sums in found.items()
    }


def close(figures: dict[str, float]) -> dict:
    return {name: pytest.approx(value, abs=1e-9) for name, value in figures.items()}


# The figures below were printed by the numpy implementation that these networks replace.


@pytest.mark.parametrize("batching", ["windows", "continuous"])
def test_characters_of_shakespeare(batching: str, data_dir: Path) -> None:
    options = {"tokenizer": "character", "one_held_out": True, "batching": batching}
    data = TextFile("tinyshakespeare/input.txt", **options, length=128, batch_size=8)
    expected = {"unigram": 4.82917420424695, "5-gram": 2.277942518032611}
    assert bits(data) == close({"uniform": math.log2(65), **expected})


def test_pairs_are_scored_without_their_sources(data_dir: Path) -> None:
    data = Multi30k(source="de", target="en", tokenizer="character", length=400)
    assert data.spec.context is not None
    assert bits(data) == close(
        {"uniform": 6.614709844115212, "unigram": 4.319069723335293, "5-gram": 1.6650254930029496}
    )


def test_pixels_of_digits() -> None:
    assert bits(Digits()) == close({"uniform": math.log2(17), "pixel histogram": 2.441004949960356})


def test_ngram_beats_the_unigram_on_english_and_not_by_cheating() -> None:
    data = PythonDocs()
    models = baselines(data)
    assert list(models) == ["uniform", "unigram", "5-gram"]
    test = data.corpus("test").whole()[None]
    per_token = {k: -net.log_prob(test).mean().item() / math.log(2) for k, net in models.items()}
    assert per_token["uniform"] == pytest.approx(math.log2(97))
    assert 1.7 < per_token["5-gram"] < 2.4 < 4.5 < per_token["unigram"] < 5


def test_baselines_are_fitted_in_eval_mode_and_without_a_context() -> None:
    for net in baselines(Digits()).values():
        assert not net.training
        assert torch.isfinite(net.log_prob(Digits().dataset("test").tokens.long())).all()


def test_scores_of_weighted_tokens_have_weighted_means() -> None:
    data = MaskedText(PythonDocs(length=32), bound=True)
    net = baselines(data)["two-sided trigram"]
    dataset, rows = data.dataset("val"), torch.arange(20)
    scores = score_split(net, dataset, [Rows(0, part) for part in rows.split(7)])
    metric = Likelihood("byte")
    batch = dataset[Rows(0, rows)]
    metric.update(net.log_prob(batch.tokens, batch.context), batch)
    found, expected = scores.figures("byte"), metric.compute()
    assert {k: found[k] for k in expected} == pytest.approx(expected, rel=1e-5)


def test_baselines_of_masked_text_know_how_it_was_masked() -> None:
    """Tokens that are not masked are the text's own in half of the cases: counts that know this are the better ones."""
    data = MaskedText(PythonDocs(length=32))
    assert data.kept == pytest.approx(0.5)
    assert MaskedText(PythonDocs(length=32), masked=1.0, random=0.0).kept == 0
    nets = baselines(data)
    assert list(nets) == ["unigram", "two-sided trigram"]
    batch = data.dataset("val")[Rows(0, torch.arange(100))]

    def nats(net) -> float:
        return -float(net.log_prob(batch.tokens, batch.context)[batch.scored].mean())

    trigram = nats(nets["two-sided trigram"])
    assert trigram < nats(nets["unigram"]) - 0.5
    data.masked, data.random = 0.8, 0.19  # as if nearly all of them were replaced
    assert trigram < nats(baselines(data)["two-sided trigram"])
