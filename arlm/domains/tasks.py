"""Tasks from text to text: the source begins with the name of the task, the target is the answer."""

from __future__ import annotations

from arlm.domains.translation import TranslationDomain


class TaskDomain(TranslationDomain):
    """A text that begins with a prompt, such as "translate German to English: ", and its answer <-> tokens.

    Args:
        source: tokenizer of the source.
        target: tokenizer of the target; None if both sides share one tokenizer, and so one vocabulary.
        lowercase: convert both sides to lower case before they are encoded.

    References:
        | Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer (Raffel et al., 2020), T5
        | https://arxiv.org/abs/1910.10683
    """

    view = "arlm.reports.task_view.TaskView"
