"""A regular expression, JSON schema or grammar, as the sets of tokens that may follow a text.

The library llguidance matches bytes. A token is allowed if some text of the language begins with the text so far and
the bytes of the token, however the rest is divided into tokens. It reads

    regex        the syntax of Rust's `regex` without look-around: the whole text matches, a dot is not a newline
    JSON schema  a large part of Draft 2020-12; what it does not know is refused
    grammar      context-free, in Lark's syntax; terminals take the longest match, as in Lark's basic lexer

References:
    | llguidance | https://github.com/guidance-ai/llguidance
    | Efficient Guided Generation for Large Language Models (Willard, Louf, 2023) | https://arxiv.org/abs/2307.09702
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from arlm.errors import UserError

if TYPE_CHECKING:
    from arlm.tokenizers import Tokenizer

# Without it only one division of a forced text into tokens would be allowed.
ALL_DIVISIONS = '\n%llguidance {"no_forcing": true}\n'


class Place(NamedTuple):
    """A place in a text; it is not changed, so that rows can share it."""

    matcher: Any  # of llguidance, after the text so far; None after a text outside of the language
    spelled: Tensor  # (V,) int64, the spelling of each token at this place
    allowed: Tensor  # (V,) bool
    may_end: bool  # whether the text so far is in the language

    @property
    def finished(self) -> bool:
        """Whether nothing may follow."""
        return self.may_end and not bool(self.allowed.any())


class Language:
    """A set of texts, over the tokens of a tokenizer.

    Args:
        grammar: in llguidance's form of Lark's syntax.
        tokenizer: spells the texts.
        field: the name of the grammar, for messages.

    Raises:
        UserError: the grammar is wrong, the tokenizer cannot spell the first character of any text, or the only
            text is the empty one.
    """

    def __init__(self, grammar: str, tokenizer: Tokenizer, field: str) -> None:
        guidance = import_llguidance()
        self.field = field
        first, later = tokenizer.spellings()
        # No UTF-8 contains the byte 255, with which llguidance marks special tokens.
        usable = sorted({s for s in (*first, *later) if s and b"\xff" not in s})
        numbers = {spelling: i for i, spelling in enumerate(usable)}
        self.end = len(usable)  # number of the end, and of spellings that are never allowed

        def table(spellings: list[bytes]) -> Tensor:
            return torch.tensor([numbers.get(spelling, self.end) for spelling in spellings])

        self.first, self.later = table(first), table(later)
        library = guidance.LLTokenizer(guidance.TokenizerWrapper(_Vocabulary(usable)))
        matcher = guidance.LLMatcher(library, grammar + ALL_DIVISIONS, log_level=0)
        if matcher.is_error():
            raise UserError(f"{field}: {_reason(matcher.get_error())}; correct it")
        self.start = self._place(matcher, self.first)
        if not bool(self.start.allowed.any()):
            if self.start.may_end:
                raise UserError(f"{field}: only the empty text fits it; give one of longer texts")
            raise UserError(
                f"{field}: no token of the tokenizer begins a text that fits it; change the language, or use a "
                "network of bytes"
            )

    def after(self, place: Place, token: int) -> Place:
        """The place after one more token.

        After a token that was not allowed, which only the caller can have given, every token is.
        """
        if place.matcher is None or place.finished or token >= len(place.spelled):
            return place
        if not bool(place.allowed[token]):
            return Place(None, self.later, torch.ones_like(place.allowed), True)
        matcher = place.matcher.deep_copy()
        matcher.consume_token(int(place.spelled[token]))
        return self._place(matcher, self.later)

    def _place(self, matcher: Any, spelled: Tensor) -> Place:
        may_end = matcher.is_accepting()
        packed = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
        allowed = np.unpackbits(packed, count=self.end + 1, bitorder="little").astype(bool)
        allowed[self.end] = False
        # "NoExtension" says that nothing may follow.
        if matcher.is_error() and not matcher.get_error().startswith("NoExtension"):
            raise UserError(f"{self.field}: {_reason(matcher.get_error())}; simplify it")
        return Place(matcher, spelled, torch.from_numpy(allowed)[spelled], may_end)


class _Vocabulary:
    """What llguidance's `TokenizerWrapper` asks for: the spellings, and an end token after them."""

    bos_token_id = None

    def __init__(self, spellings: list[bytes]) -> None:
        self.tokens = [*spellings, b"\xff<end>"]
        self.eos_token_id = len(spellings)
        self.special_token_ids = [self.eos_token_id]

    def __call__(self, text: Any) -> list[int]:
        return []  # only forced texts would be divided into tokens


def of_regex(pattern: str) -> str:
    """The grammar of a regular expression."""
    slashes = len(pattern) - len(pattern.rstrip("\\"))
    if slashes % 2:
        raise UserError(f"regex: {pattern!r} ends in a single backslash; write two, or none")
    grammar = import_llguidance().LLMatcher.grammar_from_regex(pattern)
    return json.loads(grammar)["grammars"][0]["lark_grammar"]


def of_schema(text: str) -> str:
    """The grammar of a JSON schema; no white space between the parts, unless its "x-guidance" says otherwise."""
    try:
        schema = json.loads(text)
    except ValueError as error:
        raise UserError(f"json_schema: it is no JSON ({error}); correct it") from None
    if not isinstance(schema, dict):
        raise UserError(
            f'json_schema: {text[:40]!r} is no object; write for example {{"type": "integer"}}'
        )
    options = schema.get("x-guidance", {})
    if isinstance(options, dict):
        schema["x-guidance"] = {"whitespace_flexible": False} | options
    return f"start: %json {json.dumps(schema)}"


def import_llguidance() -> Any:
    """The library that matches, an extra."""
    try:
        import llguidance  # late: most samples are drawn without
    except ModuleNotFoundError:
        raise UserError(
            "constraint: it needs llguidance, of arlm's extra [constrained]; `pip install llguidance`"
        ) from None
    return llguidance


def _reason(message: str) -> str:
    """llguidance's message without the excerpt of the grammar and the state of its parser."""
    text = re.split(r"\n<state>|\n +\d+ \| ", message)[0]
    return " ".join(text.split())
