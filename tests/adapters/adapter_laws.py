"""Laws of networks made of networks, in float64; each takes a builder `build(spec, nets, weights, ...)`."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from unittest.mock import patch

import laws
import torch
from torch import Tensor

from arlm.core import Autoregressor, Spec, log_softmax
from arlm.models.neural_ngram import NeuralNGram
from arlm.models.pixelcnn import PixelCNN
from arlm.models.rnn import LSTMLanguageModel
from arlm.models.transformer import TransformerLanguageModel
from arlm.sampling import generate

TEXT = Spec(3, (6,))
DIGIT = Spec(5, (2, 3, 1), context=Spec(4, (1,), kind="label", null_id=3))
PARTS = (
    partial(LSTMLanguageModel, width=6, depth=1),
    partial(NeuralNGram, order=3, embedding=4, width=6),
    partial(TransformerLanguageModel, width=8, depth=1, heads=2),
)
GUIDANCE: dict = {"contexts": ["given", "null"], "indices": [0, 0]}


class Certain(Autoregressor):
    """Gives the token 1 probability 0, and the token 2 at every even position; the others are equal."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.embed = torch.nn.Embedding(spec.vocab_size, 1)

    def forward(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        logits = self.embed(tokens).new_zeros(*tokens.shape, self.spec.vocab_size)
        logits[..., 1] = -math.inf
        logits[:, ::2, 2] = -math.inf
        return logits


def kept(net: Autoregressor) -> Callable[[Spec], Autoregressor]:
    """A factory of a network that exists already."""
    return lambda spec: net


def parts() -> list[Autoregressor]:
    return [laws.lively(make(TEXT)) for make in PARTS]


def pixels() -> Autoregressor:
    return laws.lively(PixelCNN(DIGIT, width=8, depth=1, head_width=8))


def law_weights(build: Callable) -> None:
    """The logits are the weighted sum of log-probabilities, term by term."""
    nets, weights = parts(), [0.5, 1.25, -0.3]
    both = build(TEXT, [kept(net) for net in nets], weights)
    tokens = laws.rows(both)
    expected = sum(w * log_softmax(net(tokens)) for w, net in zip(weights, nets, strict=True))
    assert (both(tokens) - expected).abs().max() < 1e-12


def law_guidance(build: Callable) -> None:
    """log p_u + s (log p_c - log p_u), for s below, at and above 1, and by decoding too."""
    net = pixels()
    tokens, context = laws.rows(net), torch.arange(6)[:, None] % 3
    null = torch.full_like(context, 3)
    for scale in (0.0, 0.5, 1.0, 2.5):
        both = build(DIGIT, [kept(net)], [scale, 1 - scale], **GUIDANCE)
        plain, given = log_softmax(net(tokens, null)), log_softmax(net(tokens, context))
        expected = log_softmax(plain + scale * (given - plain))
        assert (log_softmax(both(tokens, context)) - expected).abs().max() < 1e-10
        with torch.no_grad():
            logits, state = both.start(6, 6, context)
            found = [logits]
            for t in range(5):
                logits, state = both.advance(tokens[:, t : t + 1], state)
                found.append(logits[:, 0])
        assert (log_softmax(torch.stack(found, 1)) - expected).abs().max() < 1e-10


def law_first_alone(build: Callable) -> None:
    """Weights (1, 0, 0) give the first network's logits and samples exactly."""
    nets = parts()
    first = build(TEXT, [kept(net) for net in nets], [1.0, 0.0, 0.0])
    tokens = laws.rows(first)
    assert torch.equal(first(tokens), nets[0](tokens))
    found, expected = generate(first, range(9)), generate(nets[0], range(9))
    assert torch.equal(found.tokens, expected.tokens)
    assert torch.equal(found.log_prob, expected.log_prob)
    net = pixels()
    guided = build(DIGIT, [kept(net)], [1.0, 0.0], **GUIDANCE)
    context = torch.arange(9)[:, None] % 3
    expected = generate(net, range(9), context=context)
    assert torch.equal(generate(guided, range(9), context=context).tokens, expected.tokens)


def law_impossible_tokens(build: Callable) -> None:
    """-inf under a positive weight stays, under weight 0 is nothing, under a negative one is finite."""
    some, net = laws.lively(PARTS[0](TEXT)), Certain(TEXT).double()
    tokens = laws.rows(net)
    impossible = net(tokens) == -math.inf
    for weights in ([0.5, 0.5], [0.5, 1e-300], [-0.5, 1.5], [0.0, 1.0]):
        logits = build(TEXT, [kept(some), kept(net)], weights)(tokens)
        assert torch.equal(logits == -math.inf, impossible)
        assert not logits.isnan().any()
    for weights in ([1.0, 0.0], [0.5, 0.0]):
        logits = build(TEXT, [kept(some), kept(net)], weights)(tokens)
        expected = log_softmax(weights[0] * log_softmax(some(tokens)))
        assert (log_softmax(logits) - expected).abs().max() < 1e-12
    logits = build(TEXT, [kept(some), kept(net)], [1.5, -0.5])(tokens)
    assert logits.isfinite().all()
    others = log_softmax(logits.masked_fill(impossible, -math.inf))
    expected = log_softmax((1.5 * some(tokens)).masked_fill(impossible, -math.inf))
    assert (others - expected).exp().sub(1).abs().nan_to_num().max() < 1e-10


def law_runs_once(build: Callable) -> None:
    """One network with equal contexts is run once, with two contexts twice, of weight 0 never."""
    net, idle = pixels(), pixels()
    context = torch.arange(6)[:, None] % 3
    contexts = ["given", "null", "given", "given"]
    both = build(DIGIT, [kept(net), kept(idle)], [0.5, -0.5, 1.0, 0.0], contexts, [0, 0, 0, 1])
    tokens = laws.rows(both)
    for given, runs in ((context, 2), (None, 1)):
        for run in (
            lambda c: both(tokens, c),
            lambda c: both.advance(tokens[:, :4], both.start(6, 6, c)[1]),
        ):
            with ExitStack() as stack:
                calls = [
                    stack.enter_context(patch.object(part, name, wraps=getattr(part, name)))
                    for part in (net, idle)
                    for name in ("forward", "start")
                ]
                with torch.no_grad():
                    run(given)
            counts = [call.call_count for call in calls]
            assert counts[0] + counts[1] == runs
            assert counts[2] + counts[3] == 0


LAWS = [law_weights, law_guidance, law_first_alone, law_impossible_tokens, law_runs_once]
