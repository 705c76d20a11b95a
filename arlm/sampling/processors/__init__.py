"""Logits processors: pure functions from the logits of the next token to new logits, such as top_k and top_p.

A processor is a frozen dataclass with `__call__`, one to a file; -inf marks a token that may not be drawn.
Processors apply in the order given: top-p after temperature differs from temperature after top-p. One that
remembers something of each row, as mirostat does, is a `MemoryProcessor`.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

import torch
from torch import Tensor

from arlm.core import Spec
from arlm.errors import UserError
from arlm.sampling.noise import mix, position_keys, uniform


@dataclass(frozen=True)
class History:
    """The tokens before the next one, for a batch of rows at positions of their own."""

    tokens: Tensor  # (B, T) int64; from `lengths` on they are no part of the row
    lengths: Tensor  # (B,) int64, tokens of each row
    prompt_lengths: Tensor  # (B,) int64, how many of them were given as its prompt
    spec: Spec
    seeds: Tensor | None = None  # (B,) int64, of the rows; for processors that draw

    def uniform(self, stream: int) -> Tensor:
        """A uniform number in [0, 1) for the next position of each row, (B,) float64.

        Args:
            stream: 1 or more; each processor that draws has its own, and none has that of the draw of the token.
        """
        assert self.seeds is not None
        keys = position_keys(self.seeds, self.lengths[:, None]).squeeze(1)
        return uniform(mix(keys ^ -stream))

    def counts(self, prompt: bool) -> Tensor:
        """How often each token of the vocabulary occurs in each row, (B, V) int64; in its prompt, too, or not."""
        columns = torch.arange(self.tokens.shape[1], device=self.tokens.device)
        counted = columns < self.lengths[:, None]
        if not prompt:
            counted &= columns >= self.prompt_lengths[:, None]
        zeros = self.tokens.new_zeros(len(self.tokens), self.spec.vocab_size)
        return zeros.scatter_add_(1, self.tokens, counted.long())


class LogitsProcessor(ABC):
    """One step between a network's logits and the draw."""

    @abstractmethod
    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Args: logits (B, V); history, the tokens before. Returns: new logits (B, V)."""


class MemoryProcessor(LogitsProcessor):
    """A processor that remembers something of each row.

    A memory is a tensor whose first axis is the batch, or a nested tuple of them. The sampler keeps it with the
    row: it is selected, joined and replaced with the row.
    """

    @abstractmethod
    def init(self, rows: int, device: torch.device) -> Any:
        """The memory of new rows."""

    @abstractmethod
    def __call__(self, logits: Tensor, history: History, memory: Any) -> Tensor:  # type: ignore[override]
        """Args: logits (B, V); history, the tokens before; memory. Returns: new logits (B, V)."""

    @abstractmethod
    def observe(self, tokens: Tensor, logits: Tensor, memory: Any) -> Any:
        """The memory after tokens (B,) followed the logits (B, V) that this processor returned."""


def apply(processor: LogitsProcessor, logits: Tensor, history: History, memory: Any) -> Tensor:
    """Logits after a processor, with or without memory."""
    if isinstance(processor, MemoryProcessor):
        return processor(logits, history, memory)
    return processor(logits, history)


def choose(rows: Tensor, a: Any, b: Any) -> Any:
    """Nested tuples of tensors: `a` in the rows (B,) where it is true, else `b`."""
    if isinstance(a, tuple):
        return tuple(choose(rows, x, y) for x, y in zip(a, b, strict=True))
    return torch.where(rows.view(-1, *[1] * (a.ndim - 1)), a, b)


def all_processors() -> dict[str, type[LogitsProcessor]]:
    """Every processor by its name on the command line: the class name in snake case."""
    processors = {}
    for found in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{found.name}")
        for kind in vars(module).values():
            own = isinstance(kind, type) and kind.__module__ == module.__name__
            if own and issubclass(kind, LogitsProcessor):
                name = re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()
                processors[name] = kind
    return processors


def parse_processors(
    text: str,
    find: Callable[[str], type[LogitsProcessor]] | None = None,
    known: Mapping[str, type] | None = None,
    option: str = "--processors",
) -> tuple[Any, ...]:
    """Processors from the command line: "temperature=0.8,frequency_penalty=0.5:prompt=true" or "greedy".

    The value after a name is that of its first field; other fields follow as `:field=value`.

    Args:
        text: the processors, in order.
        find: imports the class at a path such as "mymodule.MyProcessor"; without it, paths are refused.
        known: classes by name, by default all processors.
        option: that has the text, for errors.
    """
    own = known is None
    known = dict(all_processors() if known is None else known)
    processors = []
    for item in filter(None, text.replace(" ", "").split(",")):
        first, *others = item.split(":")
        name, _, value = first.partition("=")
        if find and "." in name and name not in known:
            known[name] = find(name)
        if name not in known:
            mend = ", or give the class path of one of yours" if own else ""
            what = option.removeprefix("--").removesuffix("s")
            raise UserError(
                f"{option}: unknown {what} {name!r}; choose from {', '.join(known)}{mend}"
            )
        if not dataclasses.is_dataclass(known[name]):
            raise UserError(f"{option}: {name} is no dataclass; write @dataclass(frozen=True)")
        fields = dataclasses.fields(known[name])  # type: ignore[arg-type]
        if value and not fields:
            raise UserError(f"{option}: {name} takes no value, but got {value!r}; write {name}")
        given = {fields[0].name: value} if value else {}
        for other in others:
            field, _, value = other.partition("=")
            if field not in {f.name for f in fields}:
                names = ", ".join(f.name for f in fields) or "none"
                raise UserError(f"{option}: {name} has no field {field!r}; its fields: {names}")
            if field in given:
                raise UserError(f"{option}: {name} got {field} twice; give one value")
            given[field] = value
        types = get_type_hints(known[name])
        arguments = {
            field: _read(name, field, value, types[field], option) for field, value in given.items()
        }
        for each in fields:
            if each.default is dataclasses.MISSING and each.name not in given:
                raise UserError(f"{option}: {name} needs a number; write for example {name}=1")
        processors.append(known[name](**arguments))
    return tuple(processors)


def _read(name: str, field: str, value: str, kind: type, option: str) -> Any:
    """The value of a field on the command line, as its type."""
    if kind is bool:
        if value not in ("true", "false"):
            raise UserError(f"{option}: {name}:{field} is {value!r}; write true or false")
        return value == "true"
    try:
        return kind(value)
    except (TypeError, ValueError):  # a TypeError for a field that is no number
        raise UserError(
            f"{option}: {name} needs a number for {field}, not {value!r}; "
            f"write for example {name}:{field}=1"
        ) from None
