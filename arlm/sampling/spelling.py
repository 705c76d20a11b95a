"""Words as tokens: how fields such as `bad_words`, `logit_bias` and the breakers of `dry` take text in place of numbers.

    bad_words=["cat"]      "cat" -> (c, a, t)      " cat" -> (_cat)       both, each as the tokenizer spells it
    bad_words=[" cat"]                             " cat" -> (_cat)       only this one

Tokenizers by subwords have one token for a word at the start of a line and another one for the same word after a space.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from arlm.errors import UserError

if TYPE_CHECKING:
    from arlm.domains import Domain
    from arlm.tokenizers import Tokenizer

Tokens = tuple[int, ...]


def spelled(field: str, text: str, domain: Domain) -> Tokens:
    """The tokens of a text, as it is written; errors name `field`."""
    if not text:
        raise UserError(f"{field}: one text is empty; give at least one character")
    tokenizer = _tokenizer(field, text, domain)
    try:
        tokens = tuple(tokenizer.encode(text).tolist())
    except UserError as error:
        reason = str(error).removeprefix("text: ").partition(";")[0]
        raise UserError(
            f"{field}: the tokenizer cannot spell {text!r} ({reason}); choose another text"
        ) from None
    if not tokens:
        raise UserError(f"{field}: {text!r} has no tokens; choose another text")
    return tokens


def spellings(field: str, text: str, domain: Domain) -> list[Tokens]:
    """The tokens of a text as it is written, and of the text after a space, unless it begins with white space."""
    found = [spelled(field, text, domain)]
    if not text[0].isspace():
        try:
            spaced = spelled(field, f" {text}", domain)
        except UserError:  # the tokenizer has no space
            return found
        if spaced not in found:
            found.append(spaced)
    return found


def single_tokens(field: str, text: str, domain: Domain) -> list[int]:
    """The tokens that are a text: the text as it is written, and the text after a space."""
    forms = spellings(field, text, domain)
    if not any(len(form) == 1 for form in forms):
        raise UserError(
            f"{field}: {text!r} is {len(forms[0])} tokens, {list(forms[0])}; give a text of one token"
        )
    return [form[0] for form in forms if len(form) == 1]


def holding(field: str, text: str, domain: Domain) -> list[int]:
    """The tokens whose text has a text in it: for "\\n" also a token of two line breaks."""
    if not text:
        raise UserError(f"{field}: one text is empty; give at least one character")
    tokenizer, sought = _tokenizer(field, text, domain), text.encode()
    each = enumerate(zip(*tokenizer.spellings(), strict=True))
    found = [token for token, forms in each if any(sought in form for form in forms)]
    if not found:
        raise UserError(
            f"{field}: no token has {text!r} in it; choose a text within one token, such as one character"
        )
    return found


def check_bound(field: str, values: Iterable[object]) -> None:
    """Refuse texts, which are tokens of a domain only after `bind`."""
    for value in values:
        if isinstance(value, str):
            raise UserError(
                f"{field}: {value!r} is a text, and there is no tokenizer; in Python, pass `processor.bind(domain)` "
                "to the sampler"
            )


def _tokenizer(field: str, text: str, domain: Domain) -> Tokenizer:
    tokenizer = domain.text_tokenizer
    if tokenizer is None:
        kind = type(domain).__name__
        raise UserError(
            f"{field}: {text!r} is a text, but {kind} has no tokenizer; give numbers of tokens"
        )
    return tokenizer
