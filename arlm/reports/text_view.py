"""TextView: samples as text, and text coloured by surprise."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from arlm.core import Autoregressor
from arlm.data.text_files import read_text
from arlm.domains import TextDomain
from arlm.errors import UserError
from arlm.inference.fillings import Filled, FillOptions, fill_causal, text_with_gaps
from arlm.inference.items import Item
from arlm.reports.shown import Shown
from arlm.reports.tokens import pieces
from arlm.reports.view import View

NEEDS_IMAGES = "the checkpoint draws text, not images; omit it"


class TextView(View[TextDomain]):
    """Decoded text."""

    verbs = frozenset({"sample", "score", "attention", "next", "detect", "fill"})
    purpose = "models text"
    refusals = dict.fromkeys(("complete", "gif", "sweep"), NEEDS_IMAGES)

    def show(self, tokens: Tensor) -> Shown:
        return Shown(tokens.numel(), texts=[self.domain.decode(row) for row in tokens])

    def prompt(self, text: str, field: str) -> Tensor:
        return self._encode(text, field)

    def read(self, path: str) -> Tensor:
        return self._encode(text_of(path), path)

    def to_score(
        self, files: Sequence[str], options: dict[str, Any], net: Autoregressor
    ) -> list[Item]:
        """Each file, after the prompt, which is encoded by itself."""
        prompt = options["prompt"]
        items = super().to_score(files, options | {"prompt": ""}, net)
        if not prompt:
            return items
        prefix = self._encode(prompt, "--prompt")
        return [
            item._replace(tokens=torch.cat([prefix, item.tokens]), given=len(prefix))
            for item in items
        ]

    def pieces(self, tokens: Tensor) -> list[str]:
        return pieces(tokens, self.domain.decode)

    def fill(
        self,
        net: Autoregressor,
        text: str,
        options: FillOptions,
        progress: Callable[[int], object] | None = None,
    ) -> Filled:
        parts = text_with_gaps(self.domain.tokenizer, text)
        return fill_causal(net, parts, options, progress)

    def to_attend(self, text: str, net: Autoregressor) -> Item:
        return Item(text, self._encode(text, "TEXT"))

    def _encode(self, text: str, field: str) -> Tensor:
        try:
            return self.domain.encode(text)
        except UserError as error:
            raise UserError(f"{field}: {error}") from None


def text_of(path: str) -> str:
    """A text file, or "-" for the standard input."""
    if path != "-":
        return read_text(Path(path), "FILE")
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise UserError(
            f"FILE: the standard input is not UTF-8 at byte {error.start}; convert it to UTF-8"
        ) from None
