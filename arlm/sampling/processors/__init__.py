"""Logits processors: pure functions `(logits (B, V), history (B, t)) -> logits (B, V)`, such as top_k and top_p.

A processor is a frozen dataclass with `__call__`, one to a file; -inf marks a token that may not be drawn.
Processors apply in the order given: top-p after temperature differs from temperature after top-p.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from abc import ABC, abstractmethod
from typing import get_type_hints

from torch import Tensor

from arlm.errors import UserError


class LogitsProcessor(ABC):
    """One step between a network's logits and the draw."""

    @abstractmethod
    def __call__(self, logits: Tensor, history: Tensor) -> Tensor:
        """Args: logits (B, V); history (B, t), the tokens before. Returns: new logits (B, V)."""


def all_processors() -> dict[str, type[LogitsProcessor]]:
    """Every processor by its name on the command line: the class name in snake case."""
    processors = {}
    for found in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{found.name}")
        for kind in vars(module).values():
            is_class = isinstance(kind, type) and issubclass(kind, LogitsProcessor)
            if is_class and kind is not LogitsProcessor:
                name = re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()
                processors[name] = kind
    return processors


def parse_processors(text: str) -> tuple[LogitsProcessor, ...]:
    """Processors from the command line, such as "temperature=0.8,top_p=0.9" or "greedy".

    A processor has at most one field, whose value follows its name.
    """
    known = all_processors()
    processors = []
    for item in filter(None, text.replace(" ", "").split(",")):
        name, _, value = item.partition("=")
        if name not in known:
            raise UserError(
                f"--processors: unknown processor {name!r}; choose from {', '.join(known)}"
            )
        arguments = get_type_hints(known[name])
        try:
            given = [kind(value) for kind in arguments.values()]
        except ValueError:
            raise UserError(
                f"--processors: {name} needs a number, not {value!r}; write for example {name}=1"
            ) from None
        if value and not arguments:
            raise UserError(f"--processors: {name} takes no value, but got {value!r}; write {name}")
        processors.append(known[name](*given))
    return tuple(processors)
