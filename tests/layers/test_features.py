"""Blocks of logits, and blocks of layers that are computed again: the gradients are those without them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from arlm.core import Autoregressor, Batch, Spec, token_log_prob
from arlm.errors import UserError
from arlm.layers.features import FeatureAutoregressor
from arlm.layers.head import log_prob_in_blocks
from arlm.models.neural_ngram import NeuralNGram
from arlm.models.rnn import LSTMLanguageModel
from arlm.models.transformer import TransformerLanguageModel
from arlm.models.transformer_seq2seq import TransformerSeq2Seq
from arlm.training.objectives import Likelihood

TEXT = Spec(11, (6,))
PAIRS = Spec(11, (6,), pad_id=10, eos_id=10, context=Spec(7, (5,), pad_id=6))


def batch(spec: Spec, chunk: bool = False) -> Batch:
    """Three rows of which a part is scored; of pairs, sources of several lengths."""
    noise = torch.Generator().manual_seed(1)
    tokens = torch.randint(spec.vocab_size, (3, spec.length), generator=noise)
    scored = torch.rand(tokens.shape, generator=noise) < 0.7
    context = None
    if spec.context is not None:
        context = torch.randint(6, (3, 5), generator=noise)
        context[1, 3:] = 6
    starts = torch.tensor([True, False, True]) if chunk else None
    return Batch(tokens, scored, scored.double(), context, starts)


def gradients(net: Autoregressor, objective: Likelihood, rows: list[Batch]) -> list[Tensor]:
    """Loss of each batch, and gradients of their sum, in training with the same dropout."""
    torch.manual_seed(3)
    objective.prepare(net.train())
    sums = [objective.loss(net, each).sum for each in rows]
    return [*sums, *torch.autograd.grad(sum(sums), [*net.parameters()])]  # type: ignore[arg-type]


def assert_equal(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert float((one - other).abs().max().detach() / other.abs().max().detach()) < 1e-12


LSTM = {"width": 6, "dropout": 0.3, "activation_penalty": 0.5, "slowness_penalty": 0.4}
BLOCKS = {"width": 8, "depth": 2, "heads": 2, "dropout": 0.3}


@pytest.mark.parametrize(
    ("kind", "arguments", "spec", "smoothing", "chunks"),
    [
        (LSTMLanguageModel, LSTM | {"tied": True}, TEXT, 0.0, False),
        (LSTMLanguageModel, LSTM, TEXT, 0.0, True),
        (NeuralNGram, {"order": 3, "embedding": 4, "width": 6}, TEXT, 0.0, True),
        (NeuralNGram, {"order": 3, "embedding": 4, "width": 6, "dropout": 0.3}, TEXT, 0.2, False),
        (TransformerLanguageModel, BLOCKS | {"tied": True}, TEXT, 0.1, False),
        (TransformerSeq2Seq, BLOCKS, PAIRS, 0.1, False),
    ],
)
def test_losses_and_gradients_of_blocks_are_those_of_all_logits(
    kind: Any, arguments: dict, spec: Spec, smoothing: float, chunks: bool
) -> None:
    torch.manual_seed(0)
    net: FeatureAutoregressor = kind(spec, **arguments).double()
    rows = [batch(spec, chunks)] * 2
    expected = gradients(net, Likelihood(smoothing), rows)
    net.max_logits = 5 * spec.vocab_size  # blocks of 5 tokens; 18 are no multiple
    assert net.scores_in_blocks(rows[0].tokens)
    assert_equal(gradients(net, Likelihood(smoothing), rows), expected)


class LargestTensor(TorchDispatchMode):
    """Keeps the number of elements of the largest tensor that an operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for each in found if isinstance(found, tuple | list) else [found]:
            self.size = max(self.size, each.numel() if isinstance(each, Tensor) else 0)
        return found


def test_blocks_never_hold_all_logits() -> None:
    net = TransformerLanguageModel(Spec(600, (64,)), width=8, depth=1, heads=2, max_logits=4800)
    tokens = torch.randint(600, (2, 64))
    with LargestTensor() as largest:
        net.score(tokens).log_prob.sum().backward()
    assert largest.size == 4800 == net.embed.weight.numel()  # a block of 8 tokens
    net.max_logits = 2**24
    with LargestTensor() as largest:
        net.score(tokens).log_prob.sum().backward()
    assert largest.size == tokens.numel() * 600


def test_blocks_under_autocast_are_those_of_the_plain_form() -> None:
    torch.manual_seed(0)
    x, tokens = torch.randn(4, 16, 32, requires_grad=True), torch.randint(200, (4, 16))
    head, slope = nn.Linear(32, 200), torch.randn(4, 16)
    with torch.autocast("cpu", torch.bfloat16):
        plain = token_log_prob(head(x), tokens)
        ours = log_prob_in_blocks(x, head.weight, head.bias, tokens, 10, 0.0)
    assert ours.dtype == torch.float32
    assert torch.allclose(ours, plain, rtol=1e-6)
    wanted = (x, head.weight, head.bias)
    exact = torch.autograd.grad(token_log_prob(head(x), tokens), wanted, slope)
    for value in (ours, plain):
        for one, other in zip(torch.autograd.grad(value, wanted, slope), exact, strict=True):
            assert one.dtype == torch.float32
            assert float((one - other).norm() / other.norm()) < 1e-2  # bfloat16 keeps 8 bits


def test_a_forward_of_its_own_is_what_scores() -> None:
    class Doubled(LSTMLanguageModel):
        def forward(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
            return 2 * super().forward(tokens, context)

    net, tokens = Doubled(TEXT, width=4, max_logits=1), torch.zeros(2, 6, dtype=torch.long)
    expected = net(tokens).log_softmax(-1)[..., 0]
    assert torch.equal(net.log_prob(tokens), expected)


def test_a_block_holds_at_least_one_logit() -> None:
    with pytest.raises(
        UserError, match=r"model.net.max_logits: 0 is out of range; choose at least 1"
    ):
        TransformerLanguageModel(TEXT, 8, 1, 2, max_logits=0)


@pytest.mark.parametrize(
    ("kind", "spec"), [(TransformerLanguageModel, TEXT), (TransformerSeq2Seq, PAIRS)]
)
def test_activation_checkpointing_changes_memory_only(kind: Any, spec: Spec) -> None:
    torch.manual_seed(0)
    net = kind(spec, **BLOCKS).double()
    rows, calls = [batch(spec)], []
    for block in net.modules():
        if type(block).__name__.endswith("Block"):
            block.register_forward_pre_hook(lambda *_: calls.append(1))
    expected = gradients(net, Likelihood(), rows)
    blocks = len(calls)
    net.activation_checkpointing = True
    assert_equal(gradients(net, Likelihood(), rows), expected)
    assert len(calls) == 3 * blocks  # each block ran again in the backward pass
    net.eval()
    with torch.no_grad():
        net.score(rows[0].tokens, rows[0].context)
    assert len(calls) == 4 * blocks
