"""Continuations after a prompt that is read once have the log-probabilities of whole rows."""

from __future__ import annotations

from unittest.mock import patch

import laws
import pytest
import torch

from arlm.core import Autoregressor, Spec
from arlm.errors import UserError
from arlm.inference.continuations import continuations
from arlm.models.ngram import KneserNeyNGram
from arlm.models.pixelcnn import PixelCNN
from arlm.models.rnn import GRULanguageModel, LSTMLanguageModel
from arlm.models.transformer import TransformerLanguageModel
from arlm.models.transformer_seq2seq import TransformerSeq2Seq

V, LENGTH = 9, 20
SPEC = Spec(V, (LENGTH,))
PAIRS = Spec(V, (LENGTH,), eos_id=8, context=Spec(7, (6,), pad_id=6))
NETWORKS = {
    "rotary": lambda: TransformerLanguageModel(SPEC, width=16, depth=2, heads=2),
    "alibi": lambda: TransformerLanguageModel(SPEC, 16, 1, 2, positions="alibi"),
    "lstm": lambda: LSTMLanguageModel(SPEC, width=16, depth=2),
    "gru": lambda: GRULanguageModel(SPEC, width=16, depth=1),
    "ngram": lambda: KneserNeyNGram(SPEC, order=3),
    "translator": lambda: TransformerSeq2Seq(PAIRS, width=16, depth=1, heads=2),
}


def network(name: str) -> Autoregressor:
    torch.manual_seed(0)
    return laws.lively(NETWORKS[name]())


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("together", [2**24, 1, 30 * V])
def test_continuations_have_the_log_probabilities_of_whole_rows(name: str, together: int) -> None:
    net = network(name)
    context = None if net.spec.context is None else torch.tensor([1, 2, 3])
    given = None if context is None else context[None]
    for size in (0, 1, 8):
        prompt = torch.arange(size) % 7
        candidates = [torch.randint(8, (n,)) for n in (3, 1, LENGTH - 8, 5, 3)]
        with patch("arlm.inference.continuations.TOGETHER", together):
            found = continuations(net, prompt, candidates, context)
        for nats, candidate in zip(found, candidates, strict=True):
            whole = torch.cat([prompt, candidate])[None]
            expected = net.log_prob(whole, given)[0, size:]
            assert nats.shape == candidate.shape
            assert (nats - expected).abs().max() < 1e-11


def test_the_prompt_is_read_once() -> None:
    net = network("lstm")
    with patch.object(net, "advance", wraps=net.advance) as advance:
        continuations(net, torch.arange(8), [torch.tensor([token]) for token in range(V)])
    assert [call.args[0].shape for call in advance.call_args_list] == [(1, 8)]
    nats = continuations(net, torch.arange(8), [torch.tensor([token]) for token in range(V)])
    assert abs(float(torch.cat(nats).exp().sum()) - 1) < 1e-12


def test_what_does_not_fit_is_refused() -> None:
    net = network("rotary")
    with pytest.raises(UserError, match="candidates: none, or an empty one"):
        continuations(net, torch.arange(3), [])
    with pytest.raises(UserError, match="candidates: none, or an empty one"):
        continuations(net, torch.arange(3), [torch.arange(0)])
    with pytest.raises(UserError, match=r"15 tokens of the prompt and 6 more do not fit .* 20"):
        continuations(net, torch.zeros(15).long(), [torch.arange(6)])
    images = PixelCNN(Spec(3, (2, 2, 1)), width=8, depth=1, head_width=8)
    with pytest.raises(UserError, match="images"):
        continuations(images, torch.zeros(1).long(), [torch.zeros(1).long()])
