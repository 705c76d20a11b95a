"""ConversationDataModule: instructions and conversations, of which the answers are learnt."""

from __future__ import annotations

import json
import sys
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property

import torch

from arlm.core import Spec
from arlm.data.conversations import Conversations
from arlm.data.folders import Split
from arlm.data.module import TokenDataModule
from arlm.data.order import BatchOrder, LengthBuckets
from arlm.data.text_module import sentence_tokenizer
from arlm.domains import ConversationDomain
from arlm.domains.conversation import (
    ASSISTANT,
    SYSTEM,
    USER,
    Conversation,
    check_templates,
    texts_of,
)
from arlm.errors import UserError, require
from arlm.tokenizers import Tokenizer


class ConversationDataModule(TokenDataModule):
    """Conversations, of which the assistant's messages are scored, with their ends. A subclass writes `read`.

    Args:
        tokenizer: "bpe"; "word": words and punctuation marks, `<unk>` for rare ones; "character"; "byte"; or
            the path of a tokenizer's JSON. Vocabularies come from the training split only. A network that is
            trained further (`pretrained`) brings its own tokenizer.
        vocab_size: number of tokens for "bpe".
        min_count: how often a word or character must occur in the training split to get a token.
        system_template, user_template, assistant_template: how a message is written; see `ConversationDomain`.
        length: largest number of tokens in a conversation. Longer ones of the training split are left out; in other
            splits they are refused.
        batch_tokens: largest number of tokens in a batch, padding included.
        bleu: whether `arlm evaluate` reports BLEU and chrF of the answers, beside exact matches.
        seed, num_workers: as for TokenDataModule.
    """

    def __init__(
        self,
        tokenizer: str = "byte",
        vocab_size: int = 2000,
        min_count: int = 1,
        system_template: str = SYSTEM,
        user_template: str = USER,
        assistant_template: str = ASSISTANT,
        length: int = 256,
        batch_tokens: int = 2048,
        bleu: bool = False,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(1, seed, num_workers)
        require(length >= 2, "data.length", length, "choose at least 2")
        require(batch_tokens >= 1, "data.batch_tokens", batch_tokens, "choose at least 1")
        require(vocab_size >= 256, "data.vocab_size", vocab_size, "choose at least 256")
        require(min_count >= 1, "data.min_count", min_count, "choose at least 1")
        self.tokenizer, self.vocab_size, self.min_count = tokenizer, vocab_size, min_count
        self.templates = (system_template, user_template, assistant_template)
        check_templates(*self.templates)
        self.length, self.batch_tokens, self.bleu = length, batch_tokens, bleu
        self._conversations: dict[Split, Sequence[Conversation]] = {}

    @abstractmethod
    def read(self, split: Split) -> Sequence[Conversation]:
        """The conversations of one split, each of which ends with an answer. Called once for each."""

    def conversations(self, split: Split) -> Sequence[Conversation]:
        """One split, read when first used."""
        if split not in self._conversations:
            self._conversations[split] = self.read(split)
        return self._conversations[split]

    @cached_property
    def domain(self) -> ConversationDomain:  # type: ignore[override]
        return ConversationDomain(self._tokenizer(), *self.templates)

    def _tokenizer(self) -> Tokenizer:
        def texts() -> list[str]:
            """Every message, and what the templates write around them."""
            said = [message.content for one in self.conversations("train") for message in one]
            written = texts_of(self.templates)
            return [*said, *(text for text in written for _ in range(self.min_count))]

        return sentence_tokenizer(self.tokenizer, texts, self.vocab_size, self.min_count)

    @property
    def spec(self) -> Spec:
        return self.domain.spec(self.length)

    def build(self, split: Split) -> Conversations:
        rows = []
        for number, conversation in enumerate(self.conversations(split), start=1):
            try:
                rows.append(self.domain.render(conversation))
            except UserError as error:
                where = f"conversation {number} of the {split} split"
                raise UserError(f"data: {where}: {error}") from None
        long = [i for i, row in enumerate(rows) if len(row.tokens) > self.length]
        if long and (split != "train" or len(long) == len(rows)):
            i = long[0]
            raise UserError(
                f"data.length: conversation {i + 1} of the {split} split has {len(rows[i].tokens)} tokens, more than "
                f"{self.length}; raise it, so that none is left out"
            )
        if long:
            print(
                f"note: {len(long)} of {len(rows)} training conversations are longer than {self.length} tokens and "
                "are left out",
                file=sys.stderr,
            )
            rows = [row for row in rows if len(row.tokens) <= self.length]
        return Conversations(rows, self.domain)

    def order(self, split: Split) -> BatchOrder:
        rows: Conversations = self.dataset(split)  # type: ignore[assignment]
        lengths = torch.stack([rows.lengths, rows.lengths], dim=1)
        given = lengths, self.batch_tokens, split == "train", self.seed
        return LengthBuckets(*given, *self.processes)

    def words(self, split: Split) -> int:
        """Words of the answers, separated by white space; 0 if tokens are characters or bytes."""
        if not self.domain.tokenizer.counts_words:
            return 0
        answers = [m for one in self.conversations(split) for m in one if m.role == "assistant"]
        return sum(len(message.content.split()) for message in answers)

    @property
    def protocol(self) -> str:
        return "answers, each after the conversation before it"

    @cached_property
    def provenance(self) -> dict[str, str]:
        def content(split: Split) -> bytes:
            return json.dumps([list(map(list, one)) for one in self.conversations(split)]).encode()

        return self.recorded(content)
