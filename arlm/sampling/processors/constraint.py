"""Constraint: only texts of a regular expression, JSON schema or grammar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from arlm.errors import UserError
from arlm.sampling.language import Language, Place, of_regex, of_schema
from arlm.sampling.processors import History, MemoryProcessor
from arlm.sampling.row_objects import RowObjects

if TYPE_CHECKING:
    from arlm.domains import Domain

BOUND = "_language"  # attribute of a bound constraint; no field, since it follows from the fields and the domain


class Memory(NamedTuple):
    """The parts of a memory, which is a plain tuple of them."""

    places: RowObjects  # a `Place` of each row
    allowed: Tensor  # (B, V) bool, of the tokenizer's tokens
    may_end: Tensor  # (B,) bool
    finished: Tensor  # (B,) bool, nothing may follow
    left: Tensor  # (B,) bool, a token that was given is outside of the language


@dataclass(frozen=True)
class Constraint(MemoryProcessor):
    r"""Keep the tokens with which the drawn text can still become one of a language, and the end where it is one.

    The language is of the text that is drawn, without the prompt. An end token is kept exactly where the text may
    end; a network without one ends a row when nothing may follow. Give one of the three fields.

    The result is not the network's distribution given that the text fits: for that, each token would be weighed
    with the probability that what follows fits, too. Here it is weighed with its own probability alone.

    - regex: `\d` is any Unicode digit, so write `[0-9]`; the whole text has to match; no look-around.
    - json_schema: properties in the order of the schema, without white space between the parts, unless the
      schema says `"x-guidance": {"whitespace_flexible": true}`; other properties are allowed unless it says
      `"additionalProperties": false`.
    - grammar: Lark's syntax; see `arlm.sampling.language`.

    A tokenizer may be able to begin a text that it cannot complete; such a row is refused when it gets there.
    `bind` has to be called before `init`: the verbs and `model.sampler` do. Needs the extra [constrained].

    Order: first, so that truncations choose among the tokens that are allowed.

    Args:
        regex: a regular expression.
        json_schema: a JSON schema that begins with {, or the path of one.
        grammar: a grammar with a rule "start:", or the path of one.
    """

    regex: str = ""
    json_schema: str = ""
    grammar: str = ""

    no_token: ClassVar[str] = (
        "the tokenizer cannot spell what has to follow, or the processors before it dropped what may; put the "
        "constraint first, or change its language"
    )

    def __post_init__(self) -> None:
        given = [name for name in ("regex", "json_schema", "grammar") if getattr(self, name)]
        if len(given) != 1:
            what = " and ".join(given) or "none"
            raise UserError(f"constraint: {what} given; give one of regex, json_schema and grammar")

    def bind(self, domain: Domain) -> Self:
        """The constraint for texts of a domain.

        Raises:
            UserError: the domain is no text, the language is wrong, or the tokenizer cannot spell it.
        """
        tokenizer = domain.text_tokenizer
        if tokenizer is None:
            kind = type(domain).__name__
            raise UserError(f"constraint: it is for texts, but {kind} has no tokenizer; omit it")
        if self.regex:
            language = Language(of_regex(self.regex), tokenizer, "regex")
        elif self.json_schema:
            text = read(self.json_schema, "json_schema", self.json_schema.lstrip()[:1] == "{")
            language = Language(of_schema(text), tokenizer, "json_schema")
        else:
            text = read(self.grammar, "grammar", ":" in self.grammar)
            language = Language(text, tokenizer, "grammar")
        bound = replace(self)
        object.__setattr__(bound, BOUND, language)
        return bound

    @property
    def language(self) -> Language:
        """The language over the tokenizer's tokens."""
        language = getattr(self, BOUND, None)
        if language is None:
            raise UserError(
                "constraint: it has no tokenizer; in Python, pass `constraint.bind(domain)` to the sampler"
            )
        return language

    def init(self, rows: int, device: torch.device) -> tuple:
        return memory_of([self.language.start] * rows, device)

    def __call__(self, logits: Tensor, history: History, memory: tuple) -> Tensor:  # type: ignore[override]
        here, end = Memory._make(memory), history.spec.eos_id
        allowed = torch.zeros_like(logits, dtype=torch.bool)
        allowed[:, : here.allowed.shape[1]] = here.allowed
        unchanged = here.left
        if end is not None:
            allowed[:, end] = here.may_end
        else:
            unchanged = unchanged | here.finished  # the sampler has ended the row
        return logits.masked_fill(~(allowed | unchanged[:, None]), -torch.inf)

    def observe(self, tokens: Tensor, logits: Tensor, memory: tuple) -> tuple:
        found: dict[tuple[int, int], Place] = {}  # rows that began alike share their place
        places = []
        for place, token in zip(Memory._make(memory).places.objects, tokens.tolist(), strict=True):
            key = id(place), token
            if key not in found:
                found[key] = self.language.after(place, token)
            places.append(found[key])
        return memory_of(places, tokens.device)

    def finished(self, memory: tuple) -> Tensor:
        return Memory._make(memory).finished


def memory_of(places: Sequence[Place], device: torch.device) -> tuple:
    """The memory of rows at these places, a plain tuple, as selected rows have it."""

    def flags(values: list[bool]) -> Tensor:
        return torch.tensor(values, device=device)

    parts = Memory(
        RowObjects(tuple(places)),
        torch.stack([place.allowed for place in places]).to(device),
        flags([place.may_end for place in places]),
        flags([place.finished for place in places]),
        flags([place.matcher is None for place in places]),
    )
    return tuple(parts)


def read(given: str, field: str, is_text: bool) -> str:
    """The text itself, or that of the file that it names."""
    if is_text:
        return given
    try:
        return Path(given).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"{field}: cannot read '{given}' ({reason}); give a file or the text itself"
        ) from None
