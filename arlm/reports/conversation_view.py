"""ConversationView: answers of a network beside those of the data, and the share that is exact."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from arlm.core import Autoregressor
from arlm.data.conversations import conversations_in
from arlm.domains import ConversationDomain
from arlm.domains.conversation import Message
from arlm.errors import UserError
from arlm.evaluation.proportion import proportion
from arlm.inference.answers import answers, banned, turns_of
from arlm.inference.items import Item
from arlm.reports.shown import Drawn, Shown
from arlm.reports.text_view import NEEDS_IMAGES
from arlm.reports.tokens import pieces
from arlm.reports.view import View
from arlm.sampling import Sampler
from arlm.sampling.processors.greedy import Greedy

if TYPE_CHECKING:
    from arlm.data.folders import Split


class ConversationView(View[ConversationDomain]):
    """Conversations; a prompt is what a user says."""

    verbs = frozenset({"chat", "sample", "score", "next", "attention"})
    purpose = "answers"
    refusals = dict.fromkeys(("complete", "gif", "sweep"), NEEDS_IMAGES)
    heading = "Answers to the same messages"

    def show(self, tokens: Tensor) -> Shown:
        return Shown(tokens.numel(), texts=[self.domain.decode(row) for row in tokens])

    def prompt(self, text: str, field: str) -> Tensor:
        """The tokens (P,) of a user's message, up to where the answer begins."""
        if not text.strip():
            raise UserError(f"{field}: the checkpoint {self.purpose}; give what a user says")
        try:
            return self.domain.prompt([Message("user", text)], strict=True)
        except UserError as error:
            raise UserError(f"{field}: {error}") from None

    def to_attend(self, text: str, net: Autoregressor) -> Item:
        return Item(text, self.prompt(text, "TEXT"))

    def to_score(
        self, files: Sequence[str], options: dict[str, Any], net: Autoregressor
    ) -> list[Item]:
        """Each answer of the conversations in each file (JSON lines), after what is before it."""
        for name in ("prompt", "label"):
            if options[name] not in (None, ""):
                raise UserError(f"--{name}: the checkpoint {self.purpose}; give conversations only")
        items = []
        for path in files:
            for number, conversation in enumerate(conversations_in(path), start=1):
                rendered = self.domain.render(conversation)
                for turn, (first, end) in enumerate(self.domain.answers(rendered), start=1):
                    name = f"{path}:{number}, answer {turn}"
                    items.append(Item(name, rendered.tokens[:end], given=first))
        return items

    def pieces(self, tokens: Tensor) -> list[str]:
        return pieces(tokens, self.domain.decode)

    def draw(
        self,
        net: Autoregressor,
        data: Any,
        split: Split,
        n: int,
        seed: int = 0,
        length: int | None = None,
        sampler: Sampler = Sampler(),  # noqa: B008  (frozen)
        beam: int = 5,
    ) -> Drawn:
        """Answers to the first `n` messages of a split, each after the conversation before it."""
        conversations = data.conversations(split)[:n]
        turns = list(turns_of(conversations, self.domain))[:n]
        processors = (*banned(self.domain), *sampler.processors)
        found = answers(net, self.domain, [turn.prompt for turn in turns], processors, seed)
        texts = [
            f"{turn.text}\n= {turn.answer}\n> {answer}"
            for turn, answer in zip(turns, found.texts, strict=True)
        ]
        count = sum(found.tokens)
        return Drawn(count, lambda: Shown(count, texts=texts))

    def quality(
        self,
        net: Autoregressor,
        data: Any,
        split: Split,
        beam: int,
        length_penalty: float,
        progress: Callable[[int], object] | None = None,
    ) -> dict[str, dict[str, Any]]:
        """Exact matches of a split's answers in per cent, with an interval; BLEU and chrF where the data asks for it."""
        turns = list(turns_of(data.conversations(split), self.domain))
        processors = (*banned(self.domain), Greedy())
        prompts = [turn.prompt for turn in turns]
        found = answers(net, self.domain, prompts, processors, progress=progress).texts
        references = [turn.answer for turn in turns]
        right = sum(a == b for a, b in zip(found, references, strict=True))
        share, low, high = (100 * number for number in proportion(right, len(turns)))
        figures: dict[str, Any] = {
            "exact": share,
            "exact_low": low,
            "exact_high": high,
            "answers": len(turns),
        }
        if data.bleu:
            from arlm.evaluation.bleu import score_translations  # sacrebleu takes a while to import

            figures = score_translations(found, references)._asdict() | figures
        return {"answers, greedy": figures}

    def items(self, data: Any, split: Split) -> int:
        said = (message for one in data.conversations(split) for message in one)
        return sum(message.role == "assistant" for message in said)
