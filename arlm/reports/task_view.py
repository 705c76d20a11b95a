"""TaskView: answers of a network with several tasks, and figures for each task."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from arlm.core import Autoregressor
from arlm.evaluation.proportion import proportion
from arlm.inference.translator import Translator
from arlm.reports.translation_view import TranslationView

if TYPE_CHECKING:
    from arlm.data.folders import Split


class TaskView(TranslationView):
    """Answers with their sources and references."""

    purpose = "answers texts that begin with the prompt of a task"
    heading = "Answers to the same texts"
    output = "answer"

    def quality(
        self,
        net: Autoregressor,
        data: Any,
        split: Split,
        beam: int,
        length_penalty: float,
        progress: Callable[[int], object] | None = None,
    ) -> dict[str, dict[str, Any]]:
        """BLEU, chrF and exact matches of each task; `low` and `high` bound the share of exact matches."""
        from arlm.evaluation.bleu import score_translations  # sacrebleu takes a while to import

        translator = Translator(net, self.domain, beam=beam, length_penalty=length_penalty)
        figures = {}
        for prompt, pairs in data.of_tasks(split).items():
            found = [best.text for _, best in translator.lines(pairs.source, "data", progress)]
            scores = score_translations(found, pairs.target).figures
            right = sum(ours == theirs for ours, theirs in zip(found, pairs.target, strict=True))
            _, low, high = proportion(right, len(found))
            between = {"low": 100 * low, "high": 100 * high}
            figures[f"{prompt.strip()} {len(found)} texts, beam {beam}"] = scores | between
        return figures

    def items(self, data: Any, split: Split) -> int:
        return sum(len(pairs.source) for pairs in data.of_tasks(split).values())
