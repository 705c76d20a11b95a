"""Attention weights are those of the forward pass: causal rows that sum to 1, and weights @ values is the output."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from einops import rearrange

from arlm.adapters import ContextAsPrefix
from arlm.core import Autoregressor, Spec
from arlm.inference.attention import attention_of_layers
from arlm.inference.items import Item
from arlm.layers.attention import CausalSelfAttention, MultiHeadAttention, causal_mask
from arlm.models.lstm_seq2seq import LSTMSeq2Seq
from arlm.models.pixelsnail import Block, PixelSNAIL, strictly_causal_attention
from arlm.models.prefix_transformer import PrefixTransformer
from arlm.models.rnn import LSTMLanguageModel
from arlm.models.transformer import TransformerLanguageModel
from arlm.models.transformer_seq2seq import TransformerSeq2Seq
from arlm.reports.attention_page import labels_of
from arlm.reports.view import View

TEXT = Spec(11, (6,))
PAIRS = Spec(11, (6,), eos_id=10, context=Spec(9, (6,), pad_id=8))
TRANSFORMERS = {
    "rotary": {},
    "alibi": {"positions": "alibi"},
    "grouped": {"kv_heads": 2},
    "window": {"sliding_window": 3},
    "learned": {"positions": "learned"},
}


def row(length: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randint(8, (length,), generator=torch.Generator().manual_seed(seed))


def net_of(kind: type, spec: Spec, **arguments: Any) -> Autoregressor:
    torch.manual_seed(0)
    net = kind(spec, **arguments).double().eval()
    for (
        parameter
    ) in net.parameters():  # larger than at the start of training, so that weights differ
        torch.nn.init.normal_(parameter, std=0.7)
    return net


class Numbers(View):
    """Tokens by their numbers."""

    def __init__(self) -> None:
        super().__init__(None)

    def show(self, tokens):
        raise NotImplementedError


@pytest.mark.parametrize("name", TRANSFORMERS)
@torch.inference_mode()
def test_weights_of_a_language_model(name: str) -> None:
    net = net_of(TransformerLanguageModel, TEXT, width=16, depth=2, heads=4, **TRANSFORMERS[name])
    inputs: list[Any] = []
    for block in net.blocks:
        block.attention.register_forward_hook(lambda *call: inputs.append(call))
    found = attention_of_layers(net, row())
    assert [one.layer for one in found] == ["blocks.0.attention", "blocks.1.attention"]
    for one, (layer, given, output) in zip(found, inputs, strict=True):
        assert one.kind == "self-attention"
        weights = one.weights
        assert weights.shape == (4, 6, 6)
        assert torch.allclose(weights.sum(-1), torch.ones(4, 6).double(), rtol=0, atol=1e-12)
        assert float(weights.triu(1).abs().max()) == 0
        if name == "window":
            assert float(weights.tril(-3).abs().max()) == 0
        _, _, values = layer._project(*given[:2])
        values = values.repeat_interleave(4 // layer.kv_heads, dim=1)
        mixed = rearrange(weights[None] @ values, "b h t d -> b t (h d)")
        assert torch.allclose(layer.out(mixed), output, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["transformer", "general", "additive", "feeding"])
@torch.inference_mode()
def test_weights_of_a_translator(kind: str) -> None:
    if kind == "transformer":
        net = net_of(TransformerSeq2Seq, PAIRS, width=16, depth=2, heads=2)
    else:
        score = "general" if kind == "feeding" else kind
        given = {"width": 8, "embedding": 6, "feeding": kind == "feeding"}
        net = net_of(LSTMSeq2Seq, PAIRS, attention=score, **given)
    found = attention_of_layers(net, row(5), row(4, seed=1))
    shapes = {"of the source": (4, 4), "to the source": (5, 4), "self-attention": (5, 5)}
    for one in found:
        assert one.weights.shape[1:] == shapes[one.kind]
        sums = one.weights.sum(-1)
        assert torch.allclose(sums, torch.ones_like(sums), rtol=0, atol=1e-12)
    kinds = [one.kind for one in found]
    if kind == "transformer":
        assert kinds == ["of the source"] * 2 + ["self-attention", "to the source"] * 2
        weights = net.attention_weights(row(5)[None], row(4, seed=1)[None])
        assert torch.equal(found[3].weights.mean(0), weights[0])
    else:
        assert kinds == ["to the source"]
        weights = net.attention_weights(row(5)[None], row(4, seed=1)[None])
        assert torch.allclose(found[0].weights[0], weights[0], rtol=0, atol=1e-12)


@torch.inference_mode()
def test_weights_of_a_row_that_begins_with_its_source() -> None:
    joint = replace(PAIRS, vocab_size=9, eos_id=8, joint=True)
    tokens, source = row(5), row(4, seed=1)
    for kind, arguments, sizes in (
        (PrefixTransformer, {"width": 16, "depth": 2, "heads": 2}, 9),
        (ContextAsPrefix, {"base": partial(TransformerLanguageModel, width=16, heads=2)}, 10),
    ):
        net = net_of(kind, joint, **arguments)
        found = attention_of_layers(net, tokens, source)
        assert found
        item = Item("", tokens, context=source)
        labels = labels_of(item, Numbers(), found)
        for one in found:
            assert one.weights.shape[1:] == (sizes, sizes)
            asks, reads = labels[one.queries_of][0], labels[one.keys_of][1]
            assert len(asks) == len(reads) == sizes
            assert asks[-5:] == [f"{token} " for token in tokens.tolist()]
            at = reads.index("<start>" if kind is PrefixTransformer else "<sep>")
            assert reads[at - 4 : at] == [str(token) for token in source.tolist()]
            # The first token of the row reads its source and the start or the separator.
            assert float(one.weights[:, -5, at + 1 :].abs().max()) == 0
            assert float(one.weights[:, -5, : at + 1].min()) > 0
            full = float(one.weights[:, 0, 1:4].min()) > 0  # of the first source token
            assert full == (kind is PrefixTransformer)


@torch.inference_mode()
def test_weights_of_pixels() -> None:
    net = net_of(
        PixelSNAIL,
        Spec(4, (3, 4, 1)),
        **{"width": 8, "depth": 1, "key_width": 4, "value_width": 6, "mixtures": 0},
    )
    (one,) = attention_of_layers(net, row(12) % 4)
    assert one.weights.shape == (1, 12, 12)
    assert float(one.weights.triu().abs().max()) == 0
    expected = torch.ones(12).double()
    expected[0] = 0
    assert torch.allclose(one.weights[0].sum(-1), expected, rtol=0, atol=1e-12)
    (block,) = net.blocks
    assert isinstance(block, Block)
    x, image = torch.randn(1, 8, 3, 4).double(), torch.randn(1, 1, 3, 4).double()
    _, query, memory = block._query_memory(x, image, None)
    keys, values = memory.split(block.sizes, dim=-1)
    read = strictly_causal_attention(query, keys, values)
    assert torch.allclose(block.weights(x, image, None)[:, 0] @ values, read, rtol=0, atol=1e-12)


@torch.inference_mode()
def test_cross_attention_ignores_padding_and_equals_forward() -> None:
    torch.manual_seed(0)
    layer = MultiHeadAttention(8, 2).double()
    x, memory = torch.randn(1, 3, 8).double(), torch.randn(1, 5, 8).double()
    bias = torch.tensor([[0, 0, 0, -torch.inf, -torch.inf]])
    keys = layer.keys(memory)
    output, weights = layer(x, keys, bias)
    assert torch.equal(layer.weights(x, keys, bias), weights)
    assert float(weights[..., 3:].abs().max()) == 0
    mixed = rearrange(weights @ keys[1], "b h t d -> b t (h d)")
    assert torch.allclose(layer.out(mixed), output, rtol=0, atol=1e-12)


@torch.inference_mode()
def test_a_mask_is_part_of_the_weights() -> None:
    layer = CausalSelfAttention(8, 2).double()
    positions = torch.arange(4)
    weights = layer.weights(
        torch.randn(1, 4, 8).double(), None, causal_mask(positions, positions, None, 1)
    )
    assert torch.equal(weights[0, 0], torch.eye(4).double())


@torch.inference_mode()
def test_no_attention_no_maps() -> None:
    assert attention_of_layers(net_of(LSTMLanguageModel, TEXT, width=8), row()) == []


@pytest.mark.parametrize("size", [2, 6])
@torch.inference_mode()
def test_the_pass_of_a_prompt_is_not_shown(size: int) -> None:
    net = net_of(TransformerLanguageModel, TEXT, width=16, depth=3, heads=4, prompt_vectors=size)
    inputs: list[Any] = []
    for block in net.blocks:
        block.attention.register_forward_hook(lambda *call: inputs.append(call))
    found = attention_of_layers(net, row())
    assert len(found) == 3
    for one, (layer, given, _) in zip(found, inputs[-3:], strict=True):  # the row's are the last
        assert torch.equal(one.weights, layer.weights(*given)[0])
        assert one.weights.shape == (4, 6, 6)
        assert float(one.weights.sum(-1).max()) < 1
