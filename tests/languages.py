"""What a constraint keeps, for comparison with an enumeration of the language."""

from __future__ import annotations

import itertools

import torch

from arlm.core import Spec
from arlm.domains import Domain, TextDomain
from arlm.sampling.processors import History
from arlm.sampling.processors.constraint import Constraint
from arlm.tokenizers import CharacterTokenizer

LETTERS = TextDomain(CharacterTokenizer("abcd"))


def kept(constraint: Constraint, domain: Domain, tokens: list[int], end: bool = True) -> set[int]:
    """Tokens that are kept after `tokens`, with the end token as the last one."""
    size = domain.text_tokenizer.vocab_size  # type: ignore[union-attr]
    spec = Spec(size + 1, (50,), eos_id=size) if end else Spec(size, (50,))
    memory = constraint.init(1, torch.device("cpu"))
    logits = torch.zeros(1, spec.vocab_size)
    for position in range(len(tokens) + 1):
        row = torch.tensor([tokens + [0]])
        history = History(row, torch.tensor([position]), torch.tensor([0]), spec)
        out = constraint(logits, history, memory)
        if position < len(tokens):
            memory = constraint.observe(row[:, position], out, memory)
    return set((out[0] > -torch.inf).nonzero().flatten().tolist())


def words(letters: str, longest: int) -> list[str]:
    return ["".join(w) for n in range(longest + 1) for w in itertools.product(letters, repeat=n)]
