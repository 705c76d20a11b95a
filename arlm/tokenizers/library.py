"""Base class of tokenizers from the `tokenizers` library."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from tokenizers import Tokenizer as Library
from torch import Tensor

from arlm.errors import UserError
from arlm.tokenizers.base import Tokenizer
from arlm.tokenizers.untrusted import is_panic, refusals


class LibraryTokenizer(Tokenizer):
    """A tokenizer that the `tokenizers` library runs; a subclass sets `token_bytes`.

    Args:
        library: the library's object, or its JSON text after `arlm.tokenizers.untrusted.parsed`.
    """

    def __init__(self, library: Library | str) -> None:
        if isinstance(library, str):
            text = library
            with refusals():
                library = Library.from_str(text)
        # They would cut a text, or add to it.
        library.no_truncation()
        library.no_padding()
        self._library = library
        self.vocab_size = library.get_vocab_size()
        if self.vocab_size < 1:
            raise UserError("tokenizer: its vocabulary is empty; make one from more text")

    @property
    def definition(self) -> str:
        return self._library.to_str()

    def ids(self, text: str, strict: bool) -> Tensor:
        with refused_text():
            ids = self._library.encode(text, add_special_tokens=False).ids
        if strict and self._unknown() in ids:
            raise UserError(
                f"text: {text[:40]!r} holds words that the tokenizer does not know; choose other words"
            )
        return torch.from_numpy(np.array(ids, dtype=np.int64))

    def _unknown(self) -> int | None:
        """The token for unknown words, if the tokenizer has one."""
        text = getattr(self._library.model, "unk_token", None)
        return None if text is None else self._library.token_to_id(text)

    def decode(self, tokens: Tensor) -> str:
        with refused_text():
            return self._library.decode(tokens.tolist(), skip_special_tokens=True)


@contextmanager
def refused_text() -> Iterator[None]:
    """Turn the plain `Exception` and the panics of the library into a UserError."""
    try:
        yield
    except BaseException as error:
        if type(error) is not Exception and not is_panic(error):
            raise
        raise UserError(
            f"text: the tokenizer failed on it ({error}); use another tokenizer"
        ) from None
