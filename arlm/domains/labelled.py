"""Labelled texts as tokens: one or several texts are the context, and the one token of a row is their class or value.

    classification    text <extract>
    entailment        premise <delimiter> hypothesis <extract>
    similarity        first <delimiter> second <extract>       second <delimiter> first <extract>
    choice            question <delimiter> first <extract>     question <delimiter> second <extract>     ...

References:
    | Improving Language Understanding by Generative Pre-Training (Radford et al., 2018), figure 1: the input forms
    | https://cdn.openai.com/research-covers/language-unsupervised/language_understanding_paper.pdf
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from arlm.core import ContextKind, Spec
from arlm.domains.base import Domain
from arlm.errors import UserError, require
from arlm.tokenizers import Tokenizer

Form = Literal["classification", "entailment", "similarity", "choice"]
TEXTS = {
    "classification": 1,
    "entailment": 2,
    "similarity": 2,
}  # of an example; a choice has a question first


class LabelledTextDomain(Domain):
    """Texts with a label <-> tokens. A subclass sets `vocab_size` and writes `encode` and `decode` of the label.

    The texts' vocabulary is the tokenizer's, then <delimiter>, <extract> and the padding, which no text holds.

    Args:
        tokenizer: of the texts.
        form: how the texts of an example are put together.
        choices: of an example, for the form "choice".
    """

    unit = "label"

    def __init__(self, tokenizer: Tokenizer, form: Form, choices: int) -> None:
        forms = get_args(Form)
        require(form in forms, "data.form", form, f"choose {', '.join(forms)}")
        self.tokenizer, self.form, self.choices = tokenizer, form, choices
        self.delimiter_id = tokenizer.vocab_size
        self.extract_id, self.pad_id = self.delimiter_id + 1, self.delimiter_id + 2

    @property
    def texts(self) -> int:
        """Texts of an example."""
        return TEXTS.get(self.form, self.choices + 1)

    @property
    def several(self) -> int:
        """Texts that are read side by side, K; 0 where it is one text."""
        return {"similarity": 2, "choice": self.choices}.get(self.form, 0)

    def spec(self, length: int = 1) -> Spec:
        """The spec of the labels, without that of their texts; a row has one token."""
        return Spec(self.vocab_size, (1,), unit=self.unit)

    def context_spec(self, length: int) -> Spec:
        """The spec of texts of up to `length` tokens, delimiter and <extract> included."""
        kind: ContextKind = "choices" if self.form == "choice" else "sequence"
        shape = (self.several, length) if self.several else (length,)
        return Spec(
            *(self.pad_id + 1, shape),
            pad_id=self.pad_id,
            unit="byte",
            kind=kind,
            fingerprint=self.tokenizer.fingerprint,
        )

    def encode_texts(self, texts: Sequence[str], most: int | None = None) -> Tensor:
        """The texts of an example -> tokens (K, S), padded; (1, S) where it is one text.

        Args:
            texts: as many as the form has; of a choice the question, then the choices.
            most: tokens of a row; the ends of its longest texts are left out.
        """
        if len(texts) != self.texts:
            raise UserError(
                f"texts: {len(texts)} given; an example of {self.form} has {self.texts}; give all of them"
            )
        parts = [self.tokenizer.encode(text, strict=False) for text in texts]
        first, *others = parts
        if self.form == "choice":
            rows = [[first, other] for other in others]
        elif self.form == "similarity":
            rows = [parts, parts[::-1]]
        else:
            rows = [parts]
        joined = [self._joined(row if most is None else shortened(row, most)) for row in rows]
        return pad_sequence(joined, batch_first=True, padding_value=self.pad_id)

    def _joined(self, parts: Sequence[Tensor]) -> Tensor:
        """Texts (S,) each -> one row with a delimiter between them, and <extract> at the end."""
        marks = [self.delimiter_id] * (len(parts) - 1) + [self.extract_id]
        pieces = [
            torch.cat([p, p.new_tensor([mark])]) for p, mark in zip(parts, marks, strict=True)
        ]
        return torch.cat(pieces)

    def contexts(self, examples: Sequence[Tensor]) -> Tensor:
        """Examples (K, S) each -> a batch of contexts, (B, K * S), padded."""
        longest = max(example.shape[1] for example in examples)
        padded = [
            torch.nn.functional.pad(e, (0, longest - e.shape[1]), value=self.pad_id)
            for e in examples
        ]
        return torch.stack(padded).flatten(1)

    def units(self, tokens: Tensor) -> Tensor:
        return torch.ones(tokens.shape, device=tokens.device)

    @abstractmethod
    def encode(self, native: Any) -> Tensor:
        """A label -> tokens (1,)."""


class ClassificationDomain(LabelledTextDomain):
    """Texts with a class <-> tokens; a token is the number of the class.

    Args:
        tokenizer: of the texts.
        classes: their names, two or more; of the form "choice" one for each choice.
        form: how the texts of an example are put together.
    """

    view = "arlm.reports.labelled_view.ClassificationView"

    def __init__(
        self, tokenizer: Tokenizer, classes: Sequence[str], form: Form = "classification"
    ) -> None:
        super().__init__(tokenizer, form, len(classes))
        mend = "give two or more, each once"
        require(2 <= len(classes) == len(set(classes)), "data.classes", list(classes), mend)
        self.classes = list(classes)
        self.vocab_size = len(classes)

    def covers(self, option: str, own: Any, other: Any) -> bool:
        if option == "classes" and self.form != "choice":
            return set(own) >= set(other)
        return super().covers(option, own, other)

    def encode(self, native: str) -> Tensor:
        if native not in self.classes:
            shown = ", ".join(map(repr, self.classes[:10]))
            more = ", ..." if len(self.classes) > 10 else ""
            raise UserError(
                f"label: {native!r} is not one of the classes {shown}{more}; correct it"
            )
        return torch.tensor([self.classes.index(native)])

    def decode(self, tokens: Tensor) -> str:
        """The name of the class of tokens (1,)."""
        return self.classes[int(tokens[0])]


class RegressionDomain(LabelledTextDomain):
    """Texts with a value <-> tokens; a token is a bin of the values, of which there are `bins` of equal width.

    Args:
        tokenizer: of the texts.
        low, high: the range of the values.
        bins: two or more; a value is known up to the width of a bin.
        form: how the texts of an example are put together; not "choice".
    """

    view = "arlm.reports.labelled_view.RegressionView"

    def __init__(
        self,
        tokenizer: Tokenizer,
        low: float,
        high: float,
        bins: int = 50,
        form: Form = "classification",
    ) -> None:
        super().__init__(tokenizer, form, 0)
        require(
            form != "choice", "data.form", form, "choose another one, since choices have classes"
        )
        fits = math.isfinite(low) and math.isfinite(high) and low < high
        require(fits, "data.low, data.high", (low, high), "give two numbers, the lower one first")
        require(2 <= bins <= 2**16, "data.bins", bins, "choose 2 to 65536")
        self.low, self.high, self.bins = low, high, bins
        self.vocab_size = bins

    @property
    def values(self) -> Tensor:
        """The value in the middle of each bin, (V,) float64."""
        middles = (torch.arange(self.bins, dtype=torch.float64) + 0.5) / self.bins
        return self.low + (self.high - self.low) * middles

    def encode(self, native: float | str) -> Tensor:
        try:
            value = float(native)
        except ValueError:
            value = math.nan
        if not self.low <= value <= self.high:
            raise UserError(
                f"label: {native!r} is no number from {self.low:g} to {self.high:g}; correct it"
            )
        place = (value - self.low) / (self.high - self.low)
        return torch.tensor([min(self.bins - 1, int(place * self.bins))])

    def decode(self, tokens: Tensor) -> float:
        """The value in the middle of the bin of tokens (1,)."""
        return float(self.values[int(tokens[0])])


def shortened(parts: Sequence[Tensor], most: int) -> list[Tensor]:
    """Texts (S,) each that fit a row of `most` tokens with their marks: the longest of them lose their ends."""
    sizes = [len(part) for part in parts]
    room = max(0, most - len(parts))
    while sum(sizes) > room:
        longest = max(range(len(sizes)), key=sizes.__getitem__)
        others = max((s for i, s in enumerate(sizes) if i != longest), default=0)
        over = sum(sizes) - room
        sizes[longest] = max(sizes[longest] - over, min(others, sizes[longest] - 1))
    return [part[:size] for part, size in zip(parts, sizes, strict=True)]
