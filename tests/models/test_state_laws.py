"""Every network obeys the laws of states, and the laws catch wrong states."""

import dataclasses
from collections.abc import Callable

import laws
import pytest
import state_laws
import torch

from arlm.layers.encoder import SourceState
from arlm.layers.kv_cache import CachedState
from arlm.models.lstm_seq2seq import LSTMSeq2Seq
from arlm.models.pixelcnn import PixelCNN
from arlm.models.rnn import LSTMLanguageModel
from arlm.models.transformer import TransformerLanguageModel
from arlm.models.transformer_seq2seq import TransformerSeq2Seq
from arlm.states import State

# Networks of masked text are not drawn token by token, and rows of one token advance by none: there is no state to keep.
CASES = [case for case in laws.cases() if case.kind.__name__ not in laws.MASKED + laws.TEXTS]


@pytest.mark.parametrize("law", state_laws.STATE_LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_states_of_network_obey(case: laws.Case, law: Callable) -> None:
    law(case.build)


def mutant(network: type, **methods: Callable) -> type:
    """A network whose states have other methods."""

    kinds: dict[type, type] = {}

    class Mutant(network):  # type: ignore[misc]
        def start(self, batch, length, context=None):
            logits, state = super().start(batch, length, context)
            kind = type(state)
            if kind not in kinds:
                kinds[kind] = dataclasses.dataclass(frozen=True)(type("Mutant", (kind,), methods))
            parts = {f.name: getattr(state, f.name) for f in dataclasses.fields(state) if f.init}
            return logits, kinds[kind](**parts)

    return Mutant


def keeps_backend(state, function):
    """The backend stays bound to the workspace of before."""
    return State.map(state, function)


def first_position_for_all(state, others):
    joined = CachedState.concatenated(state, others)
    return dataclasses.replace(joined, position=torch.full_like(joined.position, state.position[0]))


def drops_sources(state, others):
    """The other states' sources are lost."""
    joined = super(SourceState, state).concatenated(others)
    sentence = torch.cat([s.sentence.clamp(max=state.sentences - 1) for s in (state, *others)])
    return dataclasses.replace(joined, sentence=sentence, lent=[])


def never_consumed(state, net):
    """Advancing twice from one state writes to one cache."""


def views(state, entry, x, rows):
    """Slices share the memory of the state."""
    return x[rows]


def padded_at_the_front(state, entry, parts):
    """What is allocated differently is aligned at its end."""
    axis = entry.metadata.get("axis")
    size = 0 if axis is None else max(part.shape[axis] for part in parts)
    return [
        part
        if axis is None
        else torch.cat(
            [
                part.new_zeros(
                    *part.shape[:axis], size - part.shape[axis], *part.shape[axis + 1 :]
                ),
                part,
            ],
            dim=axis,
        )
        for part in parts
    ]


def zero_fill(state, entry):
    """Padding of sources is not masked."""
    return 0.0


def position_of_row_0(state, new, lengths):
    """One position for all rows."""
    same = torch.full_like(state.position, int(state.position[0]))
    return CachedState.reserve(dataclasses.replace(state, position=same), new, lengths)


def writes_ignored(state, new, lengths):
    """Tokens beyond a row's length are written over its last one."""
    slots, after = CachedState.reserve(state, new, lengths)
    rows, heads, size, _ = after.caches[0][0].shape
    first = torch.arange(rows * heads).view(rows, heads, 1) * size
    return slots._replace(targets=(first + slots.positions[:, None]).flatten(), taken=None), after


def keeps_position(state, rows, other):
    """The new rows are at the position of the old ones."""
    before = state.position.clone()
    return dataclasses.replace(CachedState.assign(state, rows, other), position=before)


def keeps_sources(state, rows, other):
    """The new rows attend to the sources of the old ones."""
    before = state.sources[:]
    return dataclasses.replace(SourceState.assign(state, rows, other), sources=before)


def stays(state, counts):
    """Nothing is taken back."""
    return state[:]


class IgnoresLengths(LSTMLanguageModel):
    """Every row takes the whole chunk."""

    def advance(self, tokens, state, lengths=None):
        return super().advance(tokens % self.spec.vocab_size, state)


MUTANTS = [
    (mutant(PixelCNN, map=keeps_backend), "grey", state_laws.law_select),
    (mutant(PixelCNN, _check_position=lambda s, others: None), "grey", state_laws.law_concatenate),
    (mutant(PixelCNN, _check_position=lambda s, others: None), "grey", state_laws.law_assign),
    (mutant(LSTMSeq2Seq, concatenated=drops_sources), "pairs", state_laws.law_concatenate),
    (mutant(TransformerLanguageModel, consume=never_consumed), "text", state_laws.law_consumed),
    (mutant(LSTMLanguageModel, consume=never_consumed), "text", state_laws.law_consumed),
    (mutant(TransformerLanguageModel, _copied=views), "text", state_laws.law_select),
    (
        mutant(TransformerLanguageModel, _padded=padded_at_the_front),
        "text",
        state_laws.law_concatenate,
    ),
    (
        mutant(TransformerLanguageModel, concatenated=first_position_for_all),
        "text",
        state_laws.law_concatenate,
    ),
    (mutant(TransformerSeq2Seq, reserve=position_of_row_0), "pairs", state_laws.law_concatenate),
    (mutant(TransformerSeq2Seq, reserve=position_of_row_0), "pairs", state_laws.law_assign),
    (mutant(TransformerLanguageModel, reserve=writes_ignored), "text", state_laws.law_ragged),
    (IgnoresLengths, "text", state_laws.law_ragged),
    (mutant(TransformerLanguageModel, assign=keeps_position), "text", state_laws.law_assign),
    (mutant(LSTMSeq2Seq, assign=keeps_sources), "pairs", state_laws.law_assign),
    (mutant(TransformerLanguageModel, rewind=stays), "text", state_laws.law_rewind),
]


@pytest.mark.parametrize("number", range(len(MUTANTS)))
def test_law_catches_mutant(number: int) -> None:
    network, data, law = MUTANTS[number]
    laws.assert_caught(network, data, law)
