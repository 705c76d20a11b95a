"""PrefixTransformer: attention is full over the source and causal over the row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import laws
import pytest
import state_laws
import torch

from arlm.layers.attention import causal_attention
from arlm.models import prefix_transformer
from arlm.models.prefix_transformer import PrefixTransformer

CASES = [case for case in laws.cases() if case.kind is PrefixTransformer]


def law_prefix_is_full(build: Callable) -> None:
    """Any token of a source may change every logit and the features of every token of its source."""
    net = build(laws.SPECS)
    tokens, size = laws.rows(net), net.spec.context.length
    context = laws.contexts(net)[3:4].expand(len(tokens), -1)
    assert bool((context != net.spec.context.pad_id).all())
    before, features = net(tokens, context), net.context_features(context)
    for s in range(size):
        changed = context.clone()
        changed[:, s] = (context[:, s] + 1) % net.spec.context.pad_id
        moved = (net(tokens, changed) - before).abs().amax((0, 2))
        assert bool((moved > 1e-9).all()), f"token {s} of the source does not reach every logit"
        moved = (net.context_features(changed) - features).abs().amax((0, 2))
        assert bool((moved > 1e-9).all()), f"token {s} does not reach its whole source"


def law_row_does_not_reach_the_source(build: Callable) -> None:
    """The features of a source, in a pass with a row, are those of the source alone."""
    net = build(laws.SPECS)
    tokens, context = laws.rows(net), laws.contexts(net)
    alone, seen = net.context_features(context), []
    handle = net.last_norm.register_forward_hook(lambda module, given, output: seen.append(output))
    net(tokens, context)
    handle.remove()
    real = context != net.spec.context.pad_id
    gap = (seen[0][:, : context.shape[1]] - alone)[real].abs().max()
    assert gap < 1e-12, f"the row moves the features of its source by {gap}"


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("law", [law_prefix_is_full, law_row_does_not_reach_the_source])
def test_prefix_transformer_obeys(case: laws.Case, law: Callable) -> None:
    law(case.build)


class CausalSource(PrefixTransformer):
    """The causal mask is left on over the source."""

    def _run(self, x, size, lengths):
        masks = prefix_transformer.padding_bias
        try:
            prefix_transformer.padding_bias = lambda lengths, longest: torch.zeros(
                len(lengths), longest
            ).index_fill(1, torch.arange(1, longest), -torch.inf)
            return super()._run(x, size, lengths)
        finally:
            prefix_transformer.padding_bias = masks


class VisibleRow(PrefixTransformer):
    """The source sees the first token of the row."""

    def _run(self, x, size, lengths):
        if x.shape[1] > size:
            x = torch.cat([x[:, :size] + 0.1 * x[:, size + 1, None], x[:, size:]], 1)
        return super()._run(x, size, lengths)


class Gap(PrefixTransformer):
    """In a parallel pass, positions go on behind the padding."""

    def _run(self, x, size, lengths):
        whole = torch.full_like(lengths, size)
        masks = prefix_transformer.padding_bias
        try:
            prefix_transformer.padding_bias = lambda _, longest: masks(lengths, longest)
            return super()._run(x, size, whole)
        finally:
            prefix_transformer.padding_bias = masks


class IntoTheSource(PrefixTransformer):
    """A state goes back beyond its row."""

    def start(self, batch, length, context=None):
        logits, state = super().start(batch, length, context)
        return logits, replace(state, source=state.source - 3, row_room=state.row_room + 3)


@pytest.mark.parametrize(
    ("mutant", "law"),
    [
        (CausalSource, law_prefix_is_full),
        (VisibleRow, law_row_does_not_reach_the_source),
        (Gap, laws.law_incremental_is_parallel),
        (IntoTheSource, state_laws.law_rewind),
    ],
)
def test_the_laws_catch(mutant: type[PrefixTransformer], law: Callable) -> None:
    laws.assert_caught(mutant, "joint", law)


def test_sources_with_a_vocabulary_of_their_own() -> None:
    assert {case.data for case in CASES} == {"pairs", "joint"}
    net = PrefixTransformer(laws.SPECS["pairs"], width=8, depth=1, heads=2)
    assert net.embed_source.weight is not net.embed.weight
    net = PrefixTransformer(laws.SPECS["joint"], width=8, depth=1, heads=2)
    assert net.embed_source.weight is net.embed.weight


def test_masks_of_each_row_in_bfloat16() -> None:
    """Short rows in bfloat16 have explicit weights, and masks that differ between rows there too."""
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 3, 5, 4)
    bias = torch.zeros(2, 1, 5, 5).masked_fill(torch.rand(2, 1, 5, 5) < 0.4, -torch.inf)
    bias[..., 0] = 0
    exact = causal_attention(q, k, v, bias=bias)
    half = causal_attention(*(t.bfloat16() for t in (q, k, v)), bias=bias)
    assert (half.float() - exact).abs().max() < 0.03
