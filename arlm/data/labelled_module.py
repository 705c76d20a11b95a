"""LabelledTextModule: texts with a class or a value each."""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property

import torch

from arlm.core import Spec
from arlm.data.dataset import TokenDataset
from arlm.data.folders import Split
from arlm.data.labelled import Example, LabelledTexts
from arlm.data.module import TokenDataModule
from arlm.data.order import BatchOrder, LengthBuckets
from arlm.data.text_module import sentence_tokenizer
from arlm.domains.labelled import (
    ClassificationDomain,
    Form,
    LabelledTextDomain,
    RegressionDomain,
)
from arlm.errors import UserError, require
from arlm.tokenizers import Tokenizer


class LabelledTextModule(TokenDataModule):
    """Labelled texts: a row is one token, the label, and its context the texts. A subclass writes `read`.

    Args:
        form: "classification" (one text), "entailment" (premise and hypothesis), "similarity" (a pair without an
            order) or "choice" (a question and its choices).
        classes: names of the classes; by default those of the training split, sorted. For "choice" they are the numbers
            of the choices, "0", "1", ...
        value_range: the least and the largest label, which are numbers then and not classes: regression.
        bins: of a value's range.
        tokenizer: "bpe"; "word": words and punctuation marks, `<unk>` for rare ones; "character"; "byte"; or
            the path of a tokenizer's JSON. Vocabularies come from the training split only. A network that is
            `pretrained` brings its own.
        vocab_size: number of tokens for "bpe".
        min_count: how often a word or character must occur in the training split to get a token.
        length: largest number of tokens in a text, delimiters and <extract> included.
        truncate: leave out the end of longer texts; otherwise longer training examples are left out, and in other
            splits they are refused.
        batch_tokens: largest number of tokens in a batch, padding included.
        seed, num_workers: as for TokenDataModule.
    """

    def __init__(
        self,
        form: Form = "classification",
        classes: list[str] | None = None,
        value_range: list[float] | None = None,
        bins: int = 50,
        tokenizer: str = "word",
        vocab_size: int = 4000,
        min_count: int = 2,
        length: int = 128,
        truncate: bool = False,
        batch_tokens: int = 2048,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(1, seed, num_workers)
        require(length >= 2, "data.length", length, "choose at least 2")
        require(batch_tokens >= 1, "data.batch_tokens", batch_tokens, "choose at least 1")
        require(vocab_size >= 256, "data.vocab_size", vocab_size, "choose at least 256")
        require(min_count >= 1, "data.min_count", min_count, "choose at least 1")
        fits = value_range is None or len(value_range) == 2
        require(fits, "data.value_range", value_range, "give two numbers, such as [0, 5]")
        mend = "omit data.classes, or data.value_range"
        require(value_range is None or classes is None, "data.classes", classes, mend)
        if form == "choice" and classes is not None:
            numbers = [str(i) for i in range(len(classes))]
            mend = f"omit it, or give {numbers}, the numbers of the choices"
            require(list(classes) == numbers, "data.classes", classes, mend)
        self.form, self.classes, self.value_range, self.bins = form, classes, value_range, bins
        self.tokenizer, self.vocab_size, self.min_count = tokenizer, vocab_size, min_count
        self.length, self.truncate, self.batch_tokens = length, truncate, batch_tokens
        self._examples: dict[Split, list[Example]] = {}

    @abstractmethod
    def read(self, split: Split) -> list[Example]:
        """The examples of one split. Called once for each."""

    def examples(self, split: Split) -> list[Example]:
        """The examples of one split, read when first used; training examples that are too long are among them."""
        if split not in self._examples:
            self._examples[split] = self.read(split)
        return self._examples[split]

    @cached_property
    def domain(self) -> LabelledTextDomain:  # type: ignore[override]
        tokenizer = self._tokenizer()
        if self.value_range is not None:
            low, high = self.value_range
            return RegressionDomain(tokenizer, low, high, self.bins, self.form)
        classes = self.classes
        if classes is None and self.form == "choice":
            classes = self._choices()
        if classes is None:
            classes = sorted({example.label for example in self.examples("train")})
            if len(classes) < 2:
                raise UserError(
                    f"data.classes: all training examples have the label {classes[0]!r}; give two or more classes"
                )
        return ClassificationDomain(tokenizer, classes, self.form)

    def _choices(self) -> list[str]:
        """The numbers of the choices; labels as they are sorted would put "10" before "2"."""
        example = self.examples("train")[0]
        if len(example.texts) < 3:
            raise UserError(
                f"{example.where}: {len(example.texts)} texts; give a question and two or more choices"
            )
        return [str(i) for i in range(len(example.texts) - 1)]

    def split_key(self, texts: Sequence[str]) -> str:
        """What decides the split of an example: its texts, sorted where their order does not change the example."""
        if self.form == "similarity":
            texts = sorted(texts)
        elif self.form == "choice":
            texts = [*texts[:1], *sorted(texts[1:])]
        return "\n".join(texts)

    def _tokenizer(self) -> Tokenizer:
        def texts() -> list[str]:
            return [text for example in self.examples("train") for text in example.texts]

        return sentence_tokenizer(self.tokenizer, texts, self.vocab_size, self.min_count)

    @property
    def spec(self) -> Spec:
        own = self.domain.spec()
        context = self.domain.context_spec(self.length)
        return Spec(own.vocab_size, own.shape, context=context, unit=own.unit)

    def build(self, split: Split) -> TokenDataset:
        contexts, labels, left_out = [], [], 0
        most = self.length if self.truncate else None
        for example in self.examples(split):
            try:
                context = self.domain.encode_texts(example.texts, most)
                label = self.domain.encode(example.label)
            except UserError as error:
                raise UserError(f"{example.where}: {error}") from None
            if context.shape[1] > self.length:
                if split != "train":
                    raise UserError(
                        f"data.length: {example.where} has {context.shape[1]} tokens, more than {self.length}; raise it, "
                        "or set data.truncate true"
                    )
                left_out += 1
                continue
            contexts.append(context)
            labels.append(label)
        if left_out:
            print(
                f"note: {left_out} of {len(self.examples(split))} training examples are longer than {self.length} "
                "tokens and are left out",
                file=sys.stderr,
            )
        if not contexts:
            raise UserError(
                f"data.length: no {split} example has {self.length} tokens or fewer; raise it"
            )
        return LabelledTexts(contexts, torch.stack(labels), self.domain)

    def order(self, split: Split) -> BatchOrder:
        rows: LabelledTexts = self.dataset(split)  # type: ignore[assignment]
        given = rows.lengths, self.batch_tokens, split == "train", self.seed
        return LengthBuckets(*given, *self.processes)

    @property
    def protocol(self) -> str:
        return f"whole examples, {self.form}"

    @cached_property
    def provenance(self) -> dict[str, str]:
        def content(split: Split) -> bytes:
            return "\n".join("\t".join((*e.texts, e.label)) for e in self.examples(split)).encode()

        return self.recorded(content)
