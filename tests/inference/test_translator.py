"""A translation depends on its own source alone."""

from __future__ import annotations

import pytest
import torch

from arlm.domains import TranslationDomain
from arlm.inference.translator import Translator
from arlm.models.lstm_seq2seq import LSTMSeq2Seq
from arlm.tokenizers import CharacterTokenizer


@pytest.mark.parametrize(
    "search", [{"beam": 3, "n_best": 2}, {"beam": 1}, {"processors": (), "n_best": 2}], ids=str
)
def test_the_longest_translation_is_that_of_its_own_source(search: dict) -> None:
    """Rows that do not end by themselves, in one batch and each alone."""
    torch.manual_seed(0)
    domain = TranslationDomain(CharacterTokenizer("abcdef"))
    net = LSTMSeq2Seq(domain.spec(64), "general", width=8, embedding=6).double().eval()
    net.head.bias.data[domain.eos_id] = -1e9
    translator = Translator(net, domain, **search)
    sources = [translator.encode("abcdef" * n, "line") for n in (1, 5, 3, 8)]
    together = translator(sources)
    assert [len(each[0].tokens) for each in together] == [32, 64, 56, 64]
    for i, source in enumerate(sources):
        (alone,) = translator([source], first=i)
        assert [t.text for t in alone] == [t.text for t in together[i]]
        assert [t.score for t in alone] == pytest.approx([t.score for t in together[i]])
