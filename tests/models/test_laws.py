"""Every network obeys every law, and the laws catch what they are there to catch."""

import dataclasses
from collections.abc import Callable

import laws
import pytest
import torch
from torch import Tensor

from arlm.core import token_log_prob
from arlm.errors import UserError
from arlm.layers.blocks import EncoderBlock
from arlm.layers.encoder import LSTMEncoder
from arlm.layers.kv_cache import CachedState
from arlm.layers.masked_conv import MaskedConv2d
from arlm.models.lstm_seq2seq import LSTMSeq2Seq
from arlm.models.neural_ngram import NeuralNGram
from arlm.models.ngram import KneserNeyNGram
from arlm.models.pixelcnn import PixelCNN
from arlm.models.rnn import LSTMLanguageModel
from arlm.models.transformer import TransformerLanguageModel
from arlm.models.transformer_seq2seq import TransformerSeq2Seq

CASES = list(laws.cases())
APPLICABLE = [
    (c, law) for c in CASES for law in laws.LAWS if (c.kind.__name__, law) not in laws.EXEMPT
]


@pytest.mark.parametrize(("case", "law"), APPLICABLE, ids=lambda v: getattr(v, "__name__", str(v)))
def test_network_obeys(case: laws.Case, law: Callable) -> None:
    law(case.build)


@pytest.mark.parametrize(("name", "law"), laws.EXEMPT, ids=lambda v: getattr(v, "__name__", str(v)))
def test_exemption_is_needed(name: str, law: Callable) -> None:
    case = next(case for case in CASES if case.kind.__name__ == name)
    with pytest.raises((AssertionError, AttributeError, RuntimeError, UserError)):
        law(case.build)


def test_every_network_is_judged() -> None:
    judged = {case.kind for case in CASES}
    assert judged == set(laws.networks())
    assert {LSTMLanguageModel, TransformerLanguageModel, PixelCNN} <= judged


class Forgetful(LSTMLanguageModel):
    """Each step keeps less than a third of what was before: a sound network that forgets quickly."""

    def forward(self, tokens, context=None):
        x = torch.cat([self.start_vector.expand(len(tokens), 1, -1), self.embed(tokens)[:, :-1]], 1)
        memory, memories = x[:, 0], []
        for t in range(x.shape[1]):
            memory = 0.3 * memory + x[:, t]
            memories.append(memory)
        return self.head(torch.stack(memories, 1).tanh())


class Amnesic(Forgetful):
    """What lies ten tokens back is cut off: a fault."""

    def forward(self, tokens, context=None):
        logits = super().forward(tokens)
        recent = super(Forgetful, self).forward(tokens[:, -10:])
        return torch.cat([logits[:, :-1], recent[:, -1:]], 1)


def test_forgetting_is_told_from_a_fault() -> None:
    arguments = {"width": 8, "depth": 1}
    laws.law_causal_by_perturbation(laws.Case(Forgetful, arguments, "rgb").build)
    with pytest.raises(AssertionError, match=r"LOST: .* does not fade"):
        laws.law_causal_by_perturbation(laws.Case(Amnesic, arguments, "rgb").build)


# Mutants: a network with one fault, and the law that must catch it.


class LeakingMask(PixelCNN):
    """The first layer has mask B: a pixel sees itself."""

    def __init__(self, spec, **arguments):
        super().__init__(spec, **arguments)
        self.first = MaskedConv2d("B", spec.shape[2], 2 * self.width, 7, spec.shape[2])


class LeakingChannels(PixelCNN):
    """R, G and B see one another within a pixel."""

    def __init__(self, spec, **arguments):
        super().__init__(spec, **arguments)
        self.head.hidden.mask.fill_(1)
        self.head.hidden.full = False


class NarrowMask(PixelCNN):
    """Causal, but the row above is lost."""

    def __init__(self, spec, **arguments):
        super().__init__(spec, **arguments)
        for layer in (self.first, *(block.conv for block in self.blocks)):
            layer.mask[:, :, :-1] = 0


class UncausalAttention(TransformerLanguageModel):
    """Later positions leak through an unmasked mean."""

    def forward(self, tokens, context=None):
        return super().forward(tokens) + 1e-3 * self.head(self.embed(tokens).mean(1, keepdim=True))


class ShiftedTarget(LSTMLanguageModel):
    """logits[:, t] are taken to score x_{t+1}."""

    def log_prob(self, tokens, context=None):
        return token_log_prob(self(tokens), tokens.roll(-1, dims=1))


class UnshiftedInput(LSTMLanguageModel):
    """logits[:, t] read x_t itself."""

    def forward(self, tokens, context=None):
        return self.head(self._read(self.embed(tokens), None)[1])


class ForgottenStart(LSTMLanguageModel):
    """Sampling begins from nothing where training begins from the start vector."""

    def start(self, batch, length, context=None):
        zeros = torch.zeros(batch, 1, self.width).to(self.start_vector)
        _, outputs, state = self._read(zeros, None)
        return self.head(outputs)[:, 0], state


class CacheOffByOne(TransformerLanguageModel):
    """Keys of a new token go one slot too low, over those of the token before."""

    def advance(self, tokens, state, lengths=None):
        state = dataclasses.replace(state, position=state.position - 1)
        return super().advance(tokens, state, lengths)


class StaleCache(PixelCNN):
    """The newest pixel does not enter the image."""

    def _write(self, values, state, position):
        pass


class StuckState(TransformerLanguageModel):
    """Reordering a state leaves its caches where they were."""

    @dataclasses.dataclass(frozen=True)
    class Stuck(CachedState):
        def _copied(self, entry, x, rows):
            rows = torch.arange(len(rows)) if entry.name == "caches" else rows
            return super()._copied(entry, x, rows)

    def start(self, batch, length, context=None):
        logits, state = super().start(batch, length, context)
        parts = state.caches, state.position, state.filled, state.room
        return logits, self.Stuck(*parts, net=state.net)


class IgnoredImageRow(PixelCNN):
    """The head does not look at the first row of the image."""

    def forward(self, tokens, context=None):
        logits = super().forward(tokens).clone()
        logits[:, : self.spec.shape[1]] = self.head.out.bias[: self.spec.vocab_size]
        return logits


class IgnoredBatchRow(LSTMLanguageModel):
    """The head scores every row but the first."""

    def forward(self, tokens, context=None):
        logits = super().forward(tokens)
        return torch.cat([logits[:1] * 0, logits[1:]])


class MixedBatch(LSTMLanguageModel):
    """Rows are normalised by one another."""

    def forward(self, tokens, context=None):
        logits = super().forward(tokens)
        return logits - logits.mean(0)


class Unnormalised(LSTMLanguageModel):
    """Log-probabilities are logits."""

    def log_prob(self, tokens, context=None):
        return self(tokens).gather(-1, tokens[..., None])[..., 0]


class UnusedParameter(LSTMLanguageModel):
    """A parameter that nothing reads."""

    def __init__(self, spec, **arguments):
        super().__init__(spec, **arguments)
        self.spare = torch.nn.Parameter(torch.zeros(3))


class GrowingKeys(TransformerLanguageModel):
    """A cache that enters the state dict on use."""

    def start(self, batch, length, context=None):
        self.register_buffer("cache", torch.zeros(batch))
        return super().start(batch, length, context)


class DescribedByAttribute(TransformerLanguageModel):
    """An argument is described by an attribute, which has changed since."""

    @property
    def construction(self):
        made = super().construction
        return dataclasses.replace(made, arguments=made.arguments | {"positions": "learned"})


class NoisyEval(LSTMLanguageModel):
    """Dropout that stays on."""

    def forward(self, tokens, context=None):
        return super().forward(tokens) * (1 + 0.1 * torch.rand(()))


class SeesPadding(LSTMSeq2Seq):
    """Attention falls on the source's padding."""

    def _encode(self, context):
        state = super()._encode(context)
        sources = dataclasses.replace(state.sources, bias=torch.zeros_like(state.sources.bias))
        return dataclasses.replace(state, sources=sources)


class UnpackedEncoder(LSTMSeq2Seq):
    """The way back begins at the padding."""

    def _encode(self, context):
        self.encoder.forward = lambda x, lengths: LSTMEncoder.forward(
            self.encoder, x, torch.full_like(lengths, x.shape[1])
        )
        return super()._encode(context)


class EncodesPadding(TransformerSeq2Seq):
    """The source's tokens attend to its padding."""

    def _encode(self, context):
        for block in self.encoder:
            block.forward = lambda x, bias, block=block: EncoderBlock.forward(
                block, x, torch.zeros_like(bias)
            )
        return super()._encode(context)


class ReadsAgain(TransformerSeq2Seq):
    """The source is encoded again at every step."""

    def advance(self, tokens, state, lengths=None):
        self._encode(torch.zeros(len(tokens), 1, dtype=torch.long))
        return super().advance(tokens, state, lengths)


class Deaf(LSTMSeq2Seq):
    """The source does not matter."""

    def _encode(self, context):
        return super()._encode(torch.zeros_like(context))


class SeesAhead(LSTMSeq2Seq):
    """The token itself is fed, not the one before."""

    def _inputs(self, tokens):
        return self.embed(tokens)


class ForgetsWhatWasFed(LSTMSeq2Seq):
    """Input feeding that is lost between steps."""

    def advance(self, tokens, state, lengths=None):
        state = dataclasses.replace(state, fed=torch.zeros_like(state.fed))
        return super().advance(tokens, state, lengths)


class CountsItself(KneserNeyNGram):
    """The history of a token ends with the token itself."""

    def _histories(self, line):
        return super()._histories(torch.cat([line[:, 1:], line[:, -1:]], dim=1))


class ForgetsHistory(KneserNeyNGram):
    """Every chunk begins without a history."""

    def advance(self, tokens, state, lengths=None):
        return super().advance(tokens, state.map(lambda x: torch.full_like(x, -1)), lengths)


class UnnormalisedFeatures(TransformerLanguageModel):
    """The features are those before the last norm."""

    def features(self, tokens, context=None):
        norm, self.last_norm = self.last_norm, torch.nn.Identity()
        found = super().features(tokens, context)
        self.last_norm = norm
        return found

    def forward(self, tokens, context=None):
        return self.head(super().features(tokens, context))


class FeaturesOfTheTokenItself(LSTMLanguageModel):
    """The features read x_t, and the head is moved back by one."""

    def features(self, tokens, context=None):
        return self._read(self.embed(tokens), None)[1]

    def logits(self, features):
        return self.head(features.roll(1, 1))


class WithoutDirectMap(NeuralNGram):
    """The linear map lacks the direct connections."""

    def linear_map(self):
        weight, bias = super().linear_map()
        kept = torch.arange(weight.shape[1]) < self.head.in_features
        return weight * kept, bias


class WithoutBias(TransformerSeq2Seq):
    """The linear map has no bias."""

    def linear_map(self):
        return self.head.weight, None


class DetachedMap(LSTMLanguageModel):
    """Blocks do not train the head."""

    def linear_map(self):
        return tuple(part.detach() * 1.0 for part in super().linear_map())


class ShiftedBlocks(LSTMSeq2Seq):
    """Blocks score each token with the features of the one before."""

    def features_log_prob(self, features, tokens, smoothing=0.0):
        return super().features_log_prob(features.roll(1, 1), tokens, smoothing)


class ChunksForget(NeuralNGram):
    """In blocks, a chunk begins without the tokens before it."""

    def score_chunk(self, tokens, chunk_state=None, context=None):
        if self.scores_in_blocks(tokens):
            chunk_state = None
        return super().score_chunk(tokens, chunk_state, context)


MUTANTS = [
    (CountsItself, "text", laws.law_causal_by_perturbation),
    (CountsItself, "text", laws.law_normalised),
    (ForgetsHistory, "text", laws.law_incremental_is_parallel),
    (LeakingMask, "grey", laws.law_causal_by_perturbation),
    (LeakingMask, "grey", laws.law_causal_by_gradient),
    (LeakingChannels, "rgb", laws.law_causal_by_perturbation),
    (NarrowMask, "grey", laws.law_causal_by_gradient),
    (UncausalAttention, "text", laws.law_causal_by_perturbation),
    (UncausalAttention, "text", laws.law_causal_by_gradient),
    (ShiftedTarget, "text", laws.law_normalised),
    (UnshiftedInput, "text", laws.law_causal_by_gradient),
    (ForgottenStart, "text", laws.law_incremental_is_parallel),
    (CacheOffByOne, "text", laws.law_incremental_is_parallel),
    (StaleCache, "grey", laws.law_incremental_is_parallel),
    (StuckState, "text", laws.law_incremental_is_parallel),
    (IgnoredImageRow, "grey", laws.law_causal_by_perturbation),
    (IgnoredBatchRow, "text", laws.law_batch_invariant),
    (MixedBatch, "text", laws.law_batch_invariant),
    (Unnormalised, "text", laws.law_normalised),
    (UnusedParameter, "text", laws.law_stable),
    (GrowingKeys, "text", laws.law_stable),
    (DescribedByAttribute, "text", laws.law_stable),
    (NoisyEval, "text", laws.law_deterministic),
    (SeesPadding, "pairs", laws.law_source),
    (UnpackedEncoder, "pairs", laws.law_source),
    (EncodesPadding, "pairs", laws.law_source),
    (ReadsAgain, "pairs", laws.law_source),
    (Deaf, "pairs", laws.law_conditional),
    (SeesAhead, "pairs", laws.law_causal_by_gradient),
    (ForgetsWhatWasFed, "pairs", laws.law_incremental_is_parallel),
    (UnnormalisedFeatures, "text", laws.law_features),
    (FeaturesOfTheTokenItself, "text", laws.law_features),
    (WithoutDirectMap, "text", laws.law_features),
    (WithoutBias, "pairs", laws.law_features),
    (DetachedMap, "text", laws.law_blocks),
    (ShiftedBlocks, "pairs", laws.law_blocks),
    (ChunksForget, "text", laws.law_blocks),
]


@pytest.mark.parametrize(
    ("mutant", "data", "law"), MUTANTS, ids=lambda v: getattr(v, "__name__", str(v))
)
def test_law_catches(mutant: type, data: str, law: Callable) -> None:
    laws.assert_caught(mutant, data, law)


def test_logits_in_half_precision_are_normalised_in_float32() -> None:
    logits = torch.tensor([[40.0, -40.0]], dtype=torch.bfloat16)
    log_prob: Tensor = token_log_prob(logits, torch.tensor([1]))
    assert log_prob.dtype == torch.float32
    assert log_prob.item() == pytest.approx(-80.0)
