"""Instructions with exact answers, made without any download: SORT, REV, UPPER and COUNT of digits and letters.

    user: SORT 4a1        assistant: 14a
    user: REV IT          assistant: a41        IT is the answer before
    user: COUNT xyz       assistant: 3

An instruction is a task and the alphabet of the text that it is about, also where that is the answer before. Every task
and every alphabet occurs in training; some combinations occur in the test split only, which has no others, such as REV
of digits alone, where training has REV of letters, and of both together.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from typing import Any

from arlm.data.conversation_module import ConversationDataModule
from arlm.data.folders import Split
from arlm.domains.conversation import Conversation, Message
from arlm.errors import require

TASKS: dict[str, Callable[[str], str]] = {
    "SORT": lambda text: "".join(sorted(text)),
    "REV": lambda text: text[::-1],
    "UPPER": str.upper,
    "COUNT": lambda text: str(len(text)),
}
ALPHABETS = {
    "digits": string.digits,
    "letters": "abcdef",
    "mixed": "0123456789abcdef",
}
HELD_OUT = {("SORT", "letters"), ("REV", "digits"), ("UPPER", "letters"), ("COUNT", "digits")}
LARGEST = 40  # characters of a text


def alphabet_of(text: str) -> str:
    """The alphabet of the characters that a text has, upper or lower case."""
    return "digits" if text.isdigit() else "letters" if text.isalpha() else "mixed"


class Instructions(ConversationDataModule):
    """Conversations of one or several instructions; the test has combinations that do not occur in training.

    Args:
        conversations: of the training split; validation and test have 500 each.
        turns: most instructions in a conversation. From the second one on, a third of them is about the answer before.
        shortest, longest: characters of a text, at least 2, so that one can have both digits and letters.
        length: as for ConversationDataModule.
        options: see ConversationDataModule: templates, batch_tokens, ...; the tokens are characters.
    """

    def __init__(
        self,
        conversations: int = 20000,
        turns: int = 2,
        shortest: int = 2,
        longest: int = 5,
        length: int = 64,
        tokenizer: str = "character",
        **options: Any,
    ) -> None:
        super().__init__(tokenizer, length=length, **options)
        require(conversations >= 1, "data.conversations", conversations, "choose at least 1")
        require(turns >= 1, "data.turns", turns, "choose at least 1")
        require(shortest >= 2, "data.shortest", shortest, "choose at least 2")
        fits = shortest <= longest <= LARGEST
        require(fits, "data.longest", longest, f"choose data.shortest, {shortest}, to {LARGEST}")
        self.count, self.turns, self.shortest, self.longest = (
            conversations,
            turns,
            shortest,
            longest,
        )

    def read(self, split: Split) -> list[Conversation]:
        rng = random.Random(f"instructions {split}")
        every = [(task, alphabet) for task in TASKS for alphabet in ALPHABETS]
        chosen = [one for one in every if (one in HELD_OUT) == (split == "test")]
        return [
            self._conversation(rng, chosen) for _ in range(self.count if split == "train" else 500)
        ]

    def _conversation(self, rng: random.Random, chosen: list[tuple[str, str]]) -> Conversation:
        said: list[Message] = []
        for turn in range(rng.randint(1, self.turns)):
            if turn and rng.random() < 1 / 3:
                named, text = "IT", said[-1].content
                alphabet = alphabet_of(text)
                task = rng.choice([task for task, other in chosen if other == alphabet])
            else:
                task, alphabet = rng.choice(chosen)
                named = text = self._text(rng, alphabet)
            said += [Message("user", f"{task} {named}"), Message("assistant", TASKS[task](text))]
        return said

    def _text(self, rng: random.Random, alphabet: str) -> str:
        """A text whose characters are of this alphabet; a mixed one has both digits and letters."""
        size = rng.randint(self.shortest, self.longest)
        text = ""
        while not text or alphabet_of(text) != alphabet:
            text = "".join(rng.choices(ALPHABETS[alphabet], k=size))
        return text
