"""Base class of tokenizers from the `tokenizers` library."""

from __future__ import annotations

import numpy as np
import torch
from tokenizers import Tokenizer as Library
from torch import Tensor

from arlm.errors import UserError
from arlm.tokenizers.base import Tokenizer


class LibraryTokenizer(Tokenizer):
    """A tokenizer that the `tokenizers` library runs; a subclass sets `token_bytes`.

    Args:
        library: the library's object, or its JSON text.
    """

    def __init__(self, library: Library | str) -> None:
        if isinstance(library, str):
            try:
                library = Library.from_str(library)
            except BaseException as error:  # the library raises plain Exception, and panics
                if isinstance(error, (KeyboardInterrupt, SystemExit)):
                    raise
                raise UserError(
                    f"tokenizer: not a tokenizer's JSON ({error}); "
                    "make one with tools/train_tokenizer.py"
                ) from None
        self._library = library
        self.vocab_size = library.get_vocab_size()

    @property
    def definition(self) -> str:
        return self._library.to_str()

    def ids(self, text: str, strict: bool) -> Tensor:
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
        return self._library.decode(tokens.tolist(), skip_special_tokens=True)
