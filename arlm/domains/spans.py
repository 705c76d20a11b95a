"""Text with missing spans as tokens: the source is the text with gaps, the target holds what is missing.

    text     Thank you for inviting me to your party last week.
    source   Thank you <X> me to your party <Y> week.
    target   <X> for inviting <Y> last <Z>

References:
    | Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer (Raffel et al., 2020), T5
    | https://arxiv.org/abs/1910.10683
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from arlm.core import Spec
from arlm.domains.gaps import begins_with_space
from arlm.domains.pair import PairDomain
from arlm.errors import UserError, require
from arlm.tokenizers import Tokenizer

NAMES = "XYZ" + string.ascii_uppercase[:-3]  # of the first sentinels


class SpanDomain(PairDomain):
    """A text with gaps and what is missing in them <-> tokens.

        tokens of the text, V | sentinels, one for each gap and a closing one | end, which is the source's padding, too

    Sentinel i stands for gap i in the source, and comes before span i in the target. No text can hold a sentinel, since
    they come after the tokenizer's tokens. A source is given as the texts between its gaps, a target as its spans.

    A unit is a byte of the missing text: nats are conditioned on what follows the gaps, too, and are no likelihood
    of the text. Those of sentinels and of the end, which say where a span ends, are included.

    Args:
        tokenizer: of the text.
        sentinels: 2 or more; a row has one gap less, or as many without `closing`.
        closing: a sentinel closes the target, as in T5's paper; otherwise it ends with its last span, as in the seqio
            library.
    """

    view = "arlm.reports.span_view.SpanView"
    unit = "missing_byte"
    joint = True

    def __init__(self, tokenizer: Tokenizer, sentinels: int = 32, closing: bool = True) -> None:
        require(sentinels >= 2, "sentinels", sentinels, "choose at least 2")
        super().__init__(tokenizer, tokenizer.vocab_size + sentinels)
        self.first_sentinel, self.sentinels, self.closing = tokenizer.vocab_size, sentinels, closing
        self.eos_id = self.pad_id
        self.vocab_size = self.eos_id + 1
        self._bytes = torch.cat([tokenizer.token_bytes, torch.zeros(sentinels + 1)])

    def covers(self, option: str, own: Any, other: Any) -> bool:
        return own >= other if option == "sentinels" else super().covers(option, own, other)

    @property
    def most_gaps(self) -> int:
        """Gaps that a row may have."""
        return self.sentinels - self.closing

    def source_spec(self, length: int) -> Spec:
        return Spec(
            *(self.vocab_size, (length,)),
            pad_id=self.pad_id,
            unit=self.unit,
            fingerprint=self.target_tokenizer.fingerprint,
        )

    def corrupted(self, tokens: Tensor, missing: Tensor) -> tuple[Tensor, Tensor]:
        """Source (S,) and target (T,) of a text (L,) whose tokens are `missing` (L,) bool; the end is included.

        Raises:
            UserError: there are more gaps than sentinels.
        """
        before = torch.cat([missing.new_zeros(1), missing[:-1]])
        opens = missing & ~before
        gaps = int(opens.sum())
        self._check_gaps(gaps)
        sentinel = self.first_sentinel + opens.cumsum(0) - 1
        source = torch.where(opens, sentinel, tokens)[~missing | opens]
        # A sentinel goes before the first token of its span.
        spans = torch.stack([sentinel, tokens], dim=1)
        target = spans[torch.stack([opens, missing], dim=1)]
        end = [self.first_sentinel + gaps] * self.closing + [self.eos_id]
        return source, torch.cat([target, target.new_tensor(end)])

    def spans(self, target: Tensor) -> dict[int, Tensor]:
        """The tokens of each span of a target (T,), by the number of its gap; of two for one gap, the first."""
        found: dict[int, Tensor] = {}
        target = self.until_end(target)
        marks = (target >= self.first_sentinel).nonzero().flatten().tolist()
        for first, end in zip(marks, [*marks, len(target)][1:], strict=True):
            found.setdefault(int(target[first]) - self.first_sentinel, target[first + 1 : end])
        return found

    def restored(self, source: Tensor, target: Tensor) -> Tensor:
        """The text (L,) of a source (S,) whose gaps are filled with the spans of a target (T,); padding is left out."""
        spans, parts = self.spans(target), []
        source = source[source != self.pad_id]
        for part in source.split(1):
            gap = int(part) - self.first_sentinel
            parts.append(part if gap < 0 else spans.get(gap, part[:0]))
        return torch.cat(parts) if parts else source

    def encode(self, native: Sequence[str]) -> Tensor:  # type: ignore[override]
        """The missing spans, in order -> tokens (T,), the end token included."""
        self._check_gaps(len(native))
        parts = []
        for gap, text in enumerate(native):
            parts += [self._sentinel(gap), self.target_tokenizer.encode(text, strict=False)]
        parts += [self._sentinel(len(native))] * self.closing
        return torch.cat([*parts, torch.tensor([self.eos_id])])

    def encode_source(self, native: Sequence[str]) -> Tensor:
        """The texts between gaps, in order, empty where a gap is at the start or the end -> tokens (S,).

        If tokens begin with the space before a word, the space before a gap belongs to what is missing.
        """
        *inner, last = native
        if self._spaced:
            inner = [text.removesuffix(" ") for text in inner]
        texts = [*inner, last]
        return self.source([self.target_tokenizer.encode(text, strict=False) for text in texts])

    def source(self, parts: Sequence[Tensor]) -> Tensor:
        """The tokens (P,) before, between and after gaps -> the source (S,)."""
        self._check_gaps(len(parts) - 1)
        marked = [piece for gap, part in enumerate(parts) for piece in (part, self._sentinel(gap))]
        return torch.cat(marked[:-1])

    def decode(self, tokens: Tensor) -> str:
        """Tokens (T,) of a source or a target -> the text, with names of the sentinels: `<X>`, `<Y>`, ..."""
        return self._written(self.until_end(tokens))

    def filled(self, source: Tensor, target: Tensor) -> str:
        """The text of a source (S,) with its gaps filled."""
        return self.target_tokenizer.decode(self.restored(source, target))

    def sentinel_name(self, gap: int) -> str:
        """How a sentinel is shown: `<X>`, `<Y>`, `<Z>`, `<A>`, ..., `<W>`, `<27>`, ..."""
        return f"<{NAMES[gap] if gap < len(NAMES) else gap + 1}>"

    def _written(self, tokens: Tensor) -> str:
        texts = []
        marks = (tokens >= self.first_sentinel).nonzero().flatten().tolist()
        for first, end in zip([-1, *marks], [*marks, len(tokens)], strict=True):
            if first >= 0:
                texts.append(self.sentinel_name(int(tokens[first]) - self.first_sentinel))
            if end > first + 1:
                texts.append(self.target_tokenizer.decode(tokens[first + 1 : end]))
        if not self.target_tokenizer.counts_words:
            return "".join(texts)
        return " ".join(text.strip(" ") for text in texts)

    @cached_property
    def _spaced(self) -> bool:
        return begins_with_space(self.target_tokenizer)

    def _sentinel(self, gap: int) -> Tensor:
        return torch.tensor([self.first_sentinel + gap])

    def _check_gaps(self, gaps: int) -> None:
        if gaps > self.most_gaps:
            raise UserError(
                f"text: it has {gaps} gaps, but there are sentinels for {self.most_gaps}; "
                "give fewer, or train with more data.sentinels"
            )
