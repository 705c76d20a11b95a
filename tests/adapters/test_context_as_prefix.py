"""ContextAsPrefix scores what its base gives the target in rows of source, separator and target."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

import laws
import pytest
import state_laws
import torch

from arlm import checkpoints
from arlm.adapters import ContextAsPrefix, pretrained
from arlm.core import Spec, log_softmax
from arlm.data.dataset import Rows
from arlm.errors import UserError
from arlm.models.rnn import LSTMLanguageModel
from arlm.models.transformer import TransformerLanguageModel
from arlm.sampling import beam_search
from datamodules.span_text import SpanText
from datamodules.text_file import TextFile

JOINT = laws.SPECS["joint"]
BASE = partial(TransformerLanguageModel, width=8, depth=1, heads=2)


def test_the_target_is_scored_behind_its_source_and_the_separator() -> None:
    net = laws.lively(ContextAsPrefix(JOINT, BASE))
    tokens, context = laws.rows(net), laws.contexts(net)
    logits = net(tokens, context)
    for row, source, ours in zip(tokens, context, logits, strict=True):
        real = source[source != JOINT.context.pad_id]
        whole = torch.cat([real, torch.tensor([net.separator]), row])
        theirs = net.base(whole[None])[0, len(real) + 1 :, : JOINT.vocab_size]
        assert (ours - theirs).abs().max() < 1e-12
    assert logits.shape[-1] == JOINT.vocab_size  # the separator has no probability
    assert net.base.spec.vocab_size == JOINT.vocab_size + 1


class Unpacked(ContextAsPrefix):
    """Logits are read where those of the longest source are."""

    def _before_target(self, context):
        return super()._before_target(context).max().expand(len(context))


class OneEarly(ContextAsPrefix):
    """The separator's own logits score the first token."""

    def forward(self, tokens, context=None):
        shifted = super().forward(torch.cat([tokens, tokens[:, :1]], 1), context)
        return shifted[:, 1:]


class IgnoredSource(ContextAsPrefix):
    """The base reads the first source in every row."""

    def _packed(self, tokens, context, before):
        return super()._packed(tokens, context[:1].expand_as(context), before)


@pytest.mark.parametrize(
    ("mutant", "law"),
    [
        (Unpacked, laws.law_batch_invariant),
        (OneEarly, laws.law_causal_by_perturbation),
        (IgnoredSource, laws.law_conditional),
    ],
)
def test_the_laws_catch(mutant: type[ContextAsPrefix], law: Callable) -> None:
    laws.assert_caught(mutant, "joint", law)


def test_going_back_stops_at_the_separator() -> None:
    net = laws.lively(ContextAsPrefix(JOINT, BASE))
    tokens, context = laws.rows(net), laws.contexts(net)
    _, state = net.start(len(tokens), 5, context)
    _, state = net.advance(tokens[:, :2], state)
    with pytest.raises(UserError, match="cannot be rewound"):
        state.rewind(torch.full((len(tokens),), 3))

    class IntoTheSource(ContextAsPrefix):
        def start(self, batch, length, context=None):
            logits, state = super().start(batch, length, context)
            return logits, dataclasses.replace(state, position=state.position + 9, room=99)

    with pytest.raises(AssertionError, match=r"rewinding by \[4"):
        state_laws.law_rewind(laws.Case(IntoTheSource, {"base": BASE}, "joint").build)


def test_a_beam_is_that_of_the_enumerated_targets() -> None:
    spec = dataclasses.replace(JOINT, shape=(3,), eos_id=3)
    net = laws.lively(ContextAsPrefix(spec, partial(LSTMLanguageModel, width=8, depth=1)))
    context = laws.contexts(net, 3)
    found = beam_search(net, 3, 3, beam=64, n_best=1, length_penalty=0.0, context=context)
    for row, source in enumerate(context):
        whole = torch.cartesian_prod(*[torch.arange(4)] * 3)
        nats = net.log_prob(whole, source.expand(len(whole), -1)).detach()
        ended = ((whole == 3).cumsum(1) - (whole == 3).long()) > 0
        best = nats.masked_fill(ended, 0).sum(1).max()
        assert abs(float(found.log_prob[row, 0] - best)) < 1e-5


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (laws.SPECS["pairs"], "a vocabulary each; set data.joint true"),
        (laws.SPECS["text"], "the data has no source sentences"),
    ],
)
def test_other_data_is_refused(spec: Spec, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ContextAsPrefix(spec, BASE)


def test_a_long_source_is_refused() -> None:
    net = ContextAsPrefix(JOINT, BASE)
    with pytest.raises(UserError, match="a source of 5 tokens does not fit the network"):
        net(torch.zeros(1, 2).long(), torch.zeros(1, 5).long())


def test_only_the_targets_logits_are_computed() -> None:
    """The head, the largest product of a network with many tokens, is applied to T positions of S + 1 + T."""
    net = ContextAsPrefix(JOINT, BASE)
    seen: list[int] = []
    net.base.head.register_forward_hook(lambda module, given, output: seen.append(output.shape[1]))
    tokens, context = laws.rows(net), laws.contexts(net)
    net.log_prob(tokens, context)
    net.start(len(tokens), 5, context)
    assert seen[0] == 5
    assert seen[-1] == 1
    assert log_softmax(net(tokens, context)).shape == (6, 5, 4)


def test_a_trained_language_model_becomes_a_network_of_pairs(tmp_path: Path) -> None:
    """Its tokens are those of the text; the sentinels, the end and the separator are new rows."""
    (tmp_path / "mine.txt").write_text("the cat sat on the mat. " * 20)
    text = TextFile(str(tmp_path / "mine.txt"), length=16, tokenizer="character")
    base = TransformerLanguageModel(text.spec, width=8, depth=1, heads=2, positions="learned")
    checkpoints.save(tmp_path / "base.ckpt", base, text)
    pairs = SpanText(text, noise=0.3)
    net = ContextAsPrefix(pairs.spec, pretrained(str(tmp_path / "base.ckpt")))
    size = text.spec.vocab_size
    assert net.base.spec.vocab_size == pairs.spec.vocab_size + 1 > size
    assert torch.equal(net.base.embed.weight[:size], base.embed.weight)
    batch = pairs.dataset("val")[Rows(0, torch.arange(len(pairs.dataset("val"))))]
    assert bool(net.log_prob(batch.tokens, batch.context).isfinite().all())
    checkpoints.save(tmp_path / "pairs.ckpt", net, pairs)  # enough by itself
    (tmp_path / "base.ckpt").unlink()
    loaded = checkpoints.load(tmp_path / "pairs.ckpt").net
    gap = loaded(batch.tokens, batch.context) - net.eval()(batch.tokens, batch.context)
    assert float(gap.abs().max()) == 0
