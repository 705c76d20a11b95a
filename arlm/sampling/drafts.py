"""Drafts of speculative decoding: cheap guesses of the next tokens of each row.

    tokens of a row       a b c d             `Rows` holds them, and draws with the noise and processors of the sample
    draft proposes                e f g       3 tokens; -1 where it has no proposal

Any proposal is right: a bad one costs time and changes no sample; see `arlm.sampling.speculative`.

References:
    | Coupling without Communication and Drafter-Invariant Speculative Decoding (Daliri et al., 2024), a draft that
    | draws with the noise of the target | https://arxiv.org/abs/2408.07978
    | Prompt Lookup Decoding (Saxena, 2023) | https://github.com/apoorvumang/prompt-lookup-decoding
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from arlm.core import Autoregressor, Spec
from arlm.errors import UserError, require
from arlm.sampling.draft_rows import Rows
from arlm.sampling.inference_context import inference_context
from arlm.sampling.sliding import kept
from arlm.states import State


class Draft(ABC):
    """What proposes tokens; it may remember rows from call to call, to be faster."""

    def check(self, net: Autoregressor) -> None:  # noqa: B027  (most need none)
        """Raise a UserError if the draft cannot propose tokens for a network."""

    @abstractmethod
    def propose(self, rows: Rows, count: int) -> Tensor:
        """Propose the next tokens of each row.

        Args:
            rows: a copy, which may be continued; those that are not live need no proposals.
            count: most tokens to propose, at least 1.

        Returns: (B, n) int64, n at most `count`, -1 from where on a row has no proposal.
        """


class NetworkDraft(Draft):
    """A network that draws with the noise and the processors of the sample: a small one, or an n-gram model.

    The closer its distribution is to that of the target, the more of its tokens are equal. It may have a shorter
    window than the target: where that is full, its last half is read again.

    Args:
        net: a network of the same tokens as the target.
        context: (B, S) int64, of each row, or None.
    """

    def __init__(self, net: Autoregressor, context: Tensor | None = None) -> None:
        self.net, self.context = net, context
        self._state: State | None = None
        self._rewinds = False
        # What the state has read: `_position` tokens of each row from `_first` on, those of `_tokens`.
        self._tokens = self._first = self._position = torch.empty(0)

    def check(self, net: Autoregressor) -> None:
        own, target = self.net.spec, net.spec
        if (own.vocab_size, own.fingerprint) != (target.vocab_size, target.fingerprint):
            raise UserError(
                f"draft: it has other tokens than the network ({_tokens(own)}, not {_tokens(target)}); "
                "take a draft that was trained with the network's tokenizer"
            )
        if self.context is not None or own.context is None:
            return
        if own.context.kind != "label":
            raise UserError(
                "draft: it translates, and nothing is given to it; take a language model"
            )
        if own.context.null_id is None:
            raise UserError(
                "draft: its rows have classes, and none is given to it; take a run without labels, or one that was "
                "trained with data.label_dropout, or choose ngram or lookup"
            )

    def propose(self, rows: Rows, count: int) -> Tensor:
        window = self.net.max_length
        if window is not None:
            count = min(count, window - kept(window))
        with inference_context(self.net):
            logits, state = self._read(rows, count)
            if not self._rewinds:
                self._state = state[:]  # without the tokens that are proposed now
            proposed = []
            for i in range(count):
                proposed.append(rows.draw(logits))
                if i + 1 == count or not bool(rows.live.any()):
                    break
                taken = None if bool(rows.live.all()) else rows.live.long()
                chunk, state = self.net.advance(proposed[-1][:, None], state, taken)
                logits = chunk[:, 0]
                if self._rewinds:
                    self._position = self._position + rows.live.long()
            if self._rewinds:
                self._state, self._tokens = state, rows.tokens
        return torch.stack(proposed, dim=1)

    def _read(self, rows: Rows, count: int) -> tuple[Tensor, State]:
        """Logits (B, V) of the next token of each live row, and the state that has read all before it."""
        wanted = rows.lengths - self._first if self._fits(rows, count) else None
        if wanted is not None:
            assert self._state is not None
            columns = torch.arange(rows.tokens.shape[1], device=wanted.device)
            inside = columns < (self._first + self._position).minimum(rows.lengths)[:, None]
            same = (self._tokens == rows.tokens) & inside | (columns < self._first[:, None])
            there = same.long().cumprod(1).sum(1) - self._first
            # The last token of a live row is always read, for the logits after it.
            there = there.minimum(wanted - rows.live.long()).minimum(self._position)
            over = self._position - there
            if bool((over > 0).any()):
                self._state = self._state.rewind(over) if self._rewinds else None
            self._position = there
        if wanted is None or self._state is None:
            self._start(rows)
            wanted = rows.lengths - self._first
        missing = (wanted - self._position).where(rows.live, 0)
        most = int(missing.max())
        columns = (self._first + self._position)[:, None] + torch.arange(most, device=wanted.device)
        chunk = rows.tokens.gather(1, columns.clamp(max=rows.tokens.shape[1] - 1))
        even = bool((missing == most).all())
        assert self._state is not None
        logits, state = self.net.advance(chunk, self._state, None if even else missing)
        self._position, self._tokens = self._position + missing, rows.tokens.clone()
        last = (missing - 1).clamp(min=0)
        return logits[torch.arange(len(logits), device=last.device), last], state

    def _fits(self, rows: Rows, count: int) -> bool:
        """Whether the state is of these rows and has room for `count` more tokens."""
        if self._state is None or self._tokens.shape != rows.tokens.shape:
            return False
        window, wanted = self.net.max_length, rows.lengths - self._first
        if bool((wanted < rows.live.long()).any()):  # other rows, which are shorter
            return False
        return window is None or int(wanted[rows.live].max()) + count <= window

    def _start(self, rows: Rows) -> None:
        """A state that has read nothing, for rows from their start or from the last half of a window on."""
        window, (batch, length) = self.net.max_length, rows.tokens.shape
        self._first = torch.zeros_like(rows.lengths)
        if window is not None and length > window:
            self._first = (rows.lengths - kept(window)).clamp(min=0)
        room = length if window is None else min(length, window)
        _, state = self.net.start(batch, room, self.context)
        self._position = torch.zeros_like(rows.lengths)
        try:
            state = state.rewind(self._position)
            self._rewinds = True
        except UserError:
            self._rewinds = False
        self._state = state


@dataclass
class PromptLookup(Draft):
    """What followed the last occurrence of the row's longest end that has occurred before.

    Good where texts repeat themselves: summaries, corrections, code. A row proposes nothing where not even its
    last token has occurred before.

    Args:
        longest: most tokens of the end that is searched for.
    """

    longest: int = 3

    def __post_init__(self) -> None:
        require(self.longest >= 1, "draft.longest", self.longest, "choose at least 1")

    def propose(self, rows: Rows, count: int) -> Tensor:
        tokens, lengths = rows.tokens, rows.lengths
        columns = torch.arange(tokens.shape[1], device=tokens.device)
        match = torch.zeros_like(
            tokens
        )  # (B, T), tokens up to this one that are those of the row's end
        equal = columns < lengths[:, None] - 1
        for back in range(self.longest):
            last = tokens.gather(1, (lengths[:, None] - 1 - back).clamp(min=0))
            before = tokens.roll(back, 1)
            equal = equal & (before == last) & (columns >= back)
            match = match + equal.long()
        # The longest match, and of equal ones the last.
        best = (match * len(columns) + columns).argmax(1)
        period = (lengths - 1 - best)[:, None].clamp(min=1)
        # Beyond the row's end, the proposal itself is continued.
        source = lengths[:, None] - period + torch.arange(count, device=tokens.device) % period
        proposed = tokens.gather(1, source.clamp(0, len(columns) - 1))
        found = match.gather(1, best[:, None]) > 0
        return proposed.masked_fill(~found, -1)


def _tokens(spec: Spec) -> str:
    """Vocabulary and fingerprint, for messages."""
    tokenizer = f" of tokenizer {spec.fingerprint[:16]}" if spec.fingerprint else ""
    return f"{spec.vocab_size}{tokenizer}"
