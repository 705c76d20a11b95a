"""Sampling rules: pure functions `(logits (B, V), history (B, t)) -> logits (B, V)`.

A rule is a frozen dataclass with `__call__`, one to a file; `-inf` is a token that may not be drawn.
Rules apply in the order given: top-p after temperature is not temperature after top-p.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from abc import ABC, abstractmethod
from typing import get_type_hints

from torch import Tensor

from arlm.errors import UserError


class Rule(ABC):
    """One step between a network's logits and the draw."""

    @abstractmethod
    def __call__(self, logits: Tensor, history: Tensor) -> Tensor:
        """Args: logits (B, V); history (B, t), the tokens so far. Returns new logits (B, V)."""


def all_rules() -> dict[str, type[Rule]]:
    """Every rule by its name on the command line: the class's name in snake case."""
    rules = {}
    for found in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{found.name}")
        for kind in vars(module).values():
            if isinstance(kind, type) and issubclass(kind, Rule) and kind is not Rule:
                rules[re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()] = kind
    return rules


def parse_rules(text: str) -> tuple[Rule, ...]:
    """Rules from the command line, such as "temperature=0.8,top_p=0.9" or "greedy"."""
    known = all_rules()
    rules = []
    for item in filter(None, text.replace(" ", "").split(",")):
        name, _, value = item.partition("=")
        if name not in known:
            raise UserError(f"--rules: unknown rule {name!r}; choose from {', '.join(known)}")
        arguments = get_type_hints(known[name])
        try:
            given = [kind(value) for kind in arguments.values()]
        except ValueError:
            raise UserError(
                f"--rules: {name} needs a number, not {value!r}; write for example {name}=1"
            ) from None
        if value and not arguments:
            raise UserError(f"--rules: {name} takes no value, but got {value!r}; write {name}")
        rules.append(known[name](*given))
    return tuple(rules)
