"""Several tasks from text to text for one network: each source begins with the prompt of its task, as in T5.

    translate German to English: Ein Hund läuft .   ->   A dog runs .
    write the date: Fri, the 3rd of March 2017      ->   2017-03-03

References:
    | Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer (Raffel et al., 2020), 3.5.2
    | https://arxiv.org/abs/1910.10683
"""

from __future__ import annotations

import math
from typing import Any

import torch

from arlm.data.dataset import generator
from arlm.data.folders import Split
from arlm.data.pairs import Sentences
from arlm.data.parallel_module import ParallelDataModule
from arlm.domains import TaskDomain
from arlm.errors import UserError, require


class TaskMixture(ParallelDataModule):
    """Pairs of several data sets, with a prompt before each source, and one tokenizer for all.

    In an epoch a task with e pairs has e_max (e / e_max)^(1 / temperature) of them, where e_max is the size of the
    largest task: its pairs come equally often, give or take one. So no pair is left out, and small tasks are
    repeated; a temperature of 1 mixes them in proportion to their sizes, an infinite one equally.

    Args:
        tasks: the data sets; their own tokenizers and batches are not used.
        prompts: what the sources of each begin with, such as "translate German to English: ".
        temperature: at least 1.
        only: a prompt; the pairs are those of its task alone, with the tokenizer of all.
        options: see ParallelDataModule: tokenizer, vocab_size, joint, length, batch_tokens, ...
    """

    kind = TaskDomain

    def __init__(
        self,
        tasks: list[ParallelDataModule],
        prompts: list[str],
        temperature: float = 2.0,
        only: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        require(len(tasks) >= 1, "data.tasks", tasks, "give at least one data set")
        if len(prompts) != len(tasks):
            raise UserError(
                f"data.prompts: {len(prompts)} prompts for {len(tasks)} tasks; give one for each"
            )
        for index, prompt in enumerate(prompts):
            named, mend = repr(prompt), "give a text that names the task"
            require(bool(prompt.strip()), "data.prompts", named, mend)
            others = [p for p in prompts[:index] if p.startswith(prompt) or prompt.startswith(p)]
            mend = f"choose one that does not begin as {others}"
            require(not others, "data.prompts", named, mend)
        require(temperature >= 1, "data.temperature", temperature, "choose at least 1")
        known = ", ".join(map(repr, prompts))
        require(only is None or only in prompts, "data.only", repr(only), f"choose one of {known}")
        self.tasks, self.prompts, self.temperature, self.only = tasks, prompts, temperature, only

    def of_tasks(self, split: Split) -> dict[str, Sentences]:
        """The pairs of each task that is used, by its prompt, with the prompt before each source."""
        used = [self.only] if self.only else self.prompts
        return {prompt: self._prompted(prompt, split) for prompt in used}

    def _prompted(self, prompt: str, split: Split) -> Sentences:
        pairs = self.tasks[self.prompts.index(prompt)].sentences(split)
        return Sentences([prompt + source for source in pairs.source], pairs.target)

    @property
    def tokenized(self) -> Sentences:
        """The training pairs of all tasks, each once."""
        every = [self._prompted(prompt, "train") for prompt in self.prompts]
        sides = zip(*every, strict=True)
        return Sentences(*([text for texts in side for text in texts] for side in sides))

    def read(self, split: Split) -> Sentences:
        pairs = self.of_tasks(split)
        most = max(len(each.source) for each in pairs.values())
        sides: tuple[list[Any], list[str]] = ([], [])
        for number, each in enumerate(pairs.values()):
            count = len(each.source)
            wanted = mixed(count, most, self.temperature) if split == "train" else count
            # Whole repetitions, and for the rest a random part of the pairs.
            order = torch.randperm(count, generator=generator(self.seed, number)).tolist()
            rows = [*range(count)] * (wanted // count) + order[: wanted % count]
            for side, texts in zip(sides, each, strict=True):
                side.extend(texts[row] for row in rows)
        return Sentences(*sides)

    @property
    def protocol(self) -> str:
        return f"whole sentences, {len(self.of_tasks('val'))} tasks"


def mixed(count: int, most: int, temperature: float) -> int:
    """How many pairs a task with `count` of them has in an epoch, where the largest task has `most`; rounded down."""
    return max(count, math.floor(most * (count / most) ** (1 / temperature) + 1e-9))
