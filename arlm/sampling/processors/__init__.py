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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self, get_type_hints

import torch
import torch.nn.functional as F
from torch import Tensor

from arlm.core import Spec
from arlm.errors import UserError, require
from arlm.sampling.noise import mix, position_keys, uniform
from arlm.sampling.row_objects import RowObjects
from arlm.sampling.values import example_of, read_value, split

if TYPE_CHECKING:
    from arlm.domains import Domain


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
        if self.seeds is None:
            raise UserError("seeds: a processor draws random numbers; give seeds, or omit it")
        keys = position_keys(self.seeds, self.lengths[:, None]).squeeze(1)
        return uniform(mix(keys ^ -stream))

    def last(self, n: int) -> Tensor:
        """The last n tokens of each row, the newest at the end, (B, n) int64; -1 before the row's first."""
        if n > self.tokens.shape[1]:
            return F.pad(self.last(self.tokens.shape[1]), (n - self.tokens.shape[1], 0), value=-1)
        columns = self.lengths[:, None] - torch.arange(n, 0, -1, device=self.tokens.device)
        return self.tokens.gather(1, columns.clamp(min=0)).where(columns >= 0, -1)

    def first(self, prompt: bool, window: int = 0) -> Tensor:
        """The first column (B,) that counts: of the prompt or after it, and among the last `window` (0 for all)."""
        first = torch.zeros_like(self.lengths) if prompt else self.prompt_lengths
        return first.maximum(self.lengths - window) if window else first

    def occurring(self, prompt: bool, window: int = 0) -> tuple[Tensor, Tensor]:
        """The tokens that count as `counts` counts them, in a shape for all rows: cheaper where V is large.

        Returns: tokens (B, T), where columns that do not count repeat one that does; and which rows have such a
        token, (B, 1) bool: the tokens of the other rows are not to be changed.
        """
        columns = torch.arange(self.tokens.shape[1], device=self.tokens.device)
        length = self.lengths[:, None]
        if prompt and not window:  # as below, in fewer calls
            return self.tokens.where(columns < length, self.tokens[:, :1]), length > 0
        first = self.first(prompt, window)[:, None]
        if not len(columns):
            return self.tokens, first < length
        one = self.tokens.gather(1, first.clamp(0, len(columns) - 1))
        counted = (columns >= first) & (columns < length)
        return self.tokens.where(counted, one), first < length

    def counts(self, prompt: bool, window: int = 0) -> Tensor:
        """How often each token of the vocabulary occurs in each row, (B, V) int64.

        Args:
            prompt: whether in the prompt, too.
            window: of how many of the row's last tokens; 0 for all.
        """
        columns = torch.arange(self.tokens.shape[1], device=self.tokens.device)
        counted = columns < self.lengths[:, None]
        if window or not prompt:
            counted &= columns >= self.first(prompt, window)[:, None]
        zeros = self.tokens.new_zeros(len(self.tokens), self.spec.vocab_size)
        return zeros.scatter_add_(1, self.tokens, counted.long())


class LogitsProcessor(ABC):
    """One step between a network's logits and the draw."""

    #: what to do where it leaves no token, for the message
    no_token: ClassVar[str] = "change its values, or the processors before it"

    def bind(self, domain: Domain) -> Self:
        """The processor for rows of a domain; another one only where it depends on the domain's tokens.

        The verbs bind every processor, as `model.sampler` does; in Python, call it before `generate`.
        """
        return self

    def rule(self) -> tuple[str, float] | None:
        """What it does as one of the rules that machine code applies, with its number; None if it is none of them.

        See `arlm.programs.native_backend.RULES`.
        """
        return None

    def outcomes(self) -> Sequence[tuple[float, LogitsProcessor]]:
        """For one that draws: processors without chance, as which it acts at a position, and their probabilities."""
        return [(1.0, self)]

    @abstractmethod
    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """Args: logits (B, V); history, the tokens before. Returns: new logits (B, V)."""


class MemoryProcessor(LogitsProcessor):
    """A processor that remembers something of each row.

    A memory is a tensor whose first axis is the batch, a `RowObjects` of other objects, or a nested tuple of
    them. The sampler keeps it with the row: it is selected, joined and replaced with the row.
    """

    @abstractmethod
    def init(self, rows: int, device: torch.device) -> Any:
        """The memory of new rows; None if there is nothing to remember, and `observe` is not called."""

    @abstractmethod
    def __call__(self, logits: Tensor, history: History, memory: Any) -> Tensor:  # type: ignore[override]
        """Args: logits (B, V); history, the tokens before; memory. Returns: new logits (B, V)."""

    @abstractmethod
    def observe(self, tokens: Tensor, logits: Tensor, memory: Any) -> Any:
        """The memory after tokens (B,) followed the logits (B, V) that this processor returned."""

    def finished(self, memory: Any) -> Tensor | None:
        """Rows (B,) bool that nothing but an end may follow; None if the processor ends no row.

        Networks without an end token end these rows; those with one draw it.
        """
        return None


def apply(processor: LogitsProcessor, logits: Tensor, history: History, memory: Any) -> Tensor:
    """Logits after a processor, with or without memory."""
    if isinstance(processor, MemoryProcessor):
        return processor(logits, history, memory)
    return processor(logits, history)


def choose(rows: Tensor, a: Any, b: Any) -> Any:
    """Memories: `a` in the rows (B,) where it is true, else `b`."""
    if isinstance(a, tuple):
        return tuple(choose(rows, x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, RowObjects):
        return a.where(rows, b)
    return torch.where(rows.view(-1, *[1] * (a.ndim - 1)), a, b)


def masked_tokens(logits: Tensor, tokens: Tensor, masked: Tensor) -> Tensor:
    """Logits (B, V) with -inf at those of the tokens (B, n) where masked (B, n) is true; a token may occur twice."""
    rows, columns = masked.nonzero(as_tuple=True)
    if not len(rows):
        return logits
    return logits.index_put((rows, tokens[rows, columns]), logits.new_full((), -torch.inf))


def entropy(nats: Tensor, probability: Tensor) -> Tensor:
    """Entropy in nats (B, 1) of log-probabilities (B, V) and probabilities (B, V)."""
    return -(probability * nats.clamp(min=-1000)).sum(-1, keepdim=True)  # 0 where p is 0


def rule_of(processor: LogitsProcessor) -> tuple[str, float] | None:
    """Its `rule`, unless a subclass has changed what it does since the rule was written."""
    kind = type(processor)
    written, called = (
        next(i for i, each in enumerate(kind.__mro__) if name in vars(each))
        for name in ("rule", "__call__")
    )
    return processor.rule() if written <= called else None


def check_tokens(field: str, tokens: Iterable[int], spec: Spec) -> None:
    """Refuse tokens that are not in the vocabulary."""
    last = spec.vocab_size - 1
    for token in tokens:
        require(0 <= token <= last, field, f"token {token}", f"choose 0 to {last}")


def end_token(field: str, spec: Spec) -> int:
    """The end token, which the data must have."""
    if spec.eos_id is None:
        raise UserError(f"{field}: rows of this network have no end token; omit it")
    return spec.eos_id


def drawable(logits: Tensor, tokens: Tensor) -> Tensor:
    """Whether tokens (B,) that were drawn from logits (B, V) were not masked, (B,) bool."""
    last = logits.shape[1] - 1  # `draw` gives V where there are no probabilities
    left = logits.gather(1, tokens.clamp(max=last)[:, None]).squeeze(1) > -torch.inf
    return left & (tokens <= last)


def name_of(kind: type[LogitsProcessor]) -> str:
    """The name of a processor on the command line: the class name in snake case."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


def all_processors() -> dict[str, type[LogitsProcessor]]:
    """Every processor by its name on the command line."""
    processors = {}
    for found in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{found.name}")
        for kind in vars(module).values():
            own = isinstance(kind, type) and kind.__module__ == module.__name__
            if own and issubclass(kind, LogitsProcessor):
                processors[name_of(kind)] = kind
    return processors


def parse_processors(
    text: str,
    find: Callable[[str], type[LogitsProcessor]] | None = None,
    known: Mapping[str, type] | None = None,
    option: str = "--processors",
) -> tuple[Any, ...]:
    """Processors from the command line: "temperature=0.8,frequency_penalty=0.5:prompt=true" or "greedy".

    The value after a name is that of its first field; other fields follow as `:field=value`. Lists are written
    [1,2], lists of lists [[1,2],[3]], and numbers of tokens {7:-2.5,9:-inf}. The field `keep_end=true` of any
    processor puts it into a `KeepEnd`.

    Args:
        text: the processors, in order.
        find: imports the class at a path such as "mymodule.MyProcessor"; without it, paths are refused.
        known: classes by name, by default all processors.
        option: that has the text, for errors.
    """
    from arlm.sampling.processors.keep_end import KeepEnd  # late: it imports this module

    own = known is None
    known = dict(all_processors() if known is None else known)
    processors = []
    for item in filter(None, map(str.strip, split(option, text, ","))):
        first, *others = split(option, item, ":")
        name, _, value = map(str.strip, first.partition("="))
        if find and "." in name and name not in known:
            known[name] = find(name)
        if name not in known:
            mend = ", or give the class path of one of yours" if own else ""
            what = option.removeprefix("--").removesuffix("s")
            raise UserError(
                f"{option}: unknown {what} {name!r}; choose from {', '.join(known)}{mend}"
            )
        if known[name] is KeepEnd:
            raise UserError(f"{option}: keep_end is a field; write top_p=0.9:keep_end=true")
        if not dataclasses.is_dataclass(known[name]):
            raise UserError(f"{option}: {name} is no dataclass; write @dataclass(frozen=True)")
        fields = dataclasses.fields(known[name])  # type: ignore[arg-type]
        types = {**get_type_hints(known[name]), "keep_end": bool}
        if value and not fields:
            raise UserError(f"{option}: {name} takes no value, but got {value!r}; write {name}")
        given = {fields[0].name: value} if value else {}
        for other in others:
            field, _, value = map(str.strip, other.partition("="))
            if field not in {"keep_end", *(f.name for f in fields)}:
                names = ", ".join(f.name for f in fields) or "none"
                raise UserError(f"{option}: {name} has no field {field!r}; its fields: {names}")
            if field in given:
                raise UserError(f"{option}: {name} got {field} twice; give one value")
            given[field] = value
        arguments = {
            field: read_value(f"{option}: {name}", field, value, types[field])
            for field, value in given.items()
        }
        for each in fields:
            if each.default is dataclasses.MISSING and each.name not in given:
                example = example_of(types[each.name])
                raise UserError(
                    f"{option}: {name} needs {example[0]}; write for example {name}={example[1]}"
                )
        keep_end = arguments.pop("keep_end", False)
        processor = known[name](**arguments)
        processors.append(KeepEnd(processor) if keep_end else processor)
    return tuple(processors)
