"""Masked text as tokens: the context is the text with some of its tokens masked or replaced."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from arlm.core import Spec
from arlm.domains.base import Domain
from arlm.domains.gaps import MASK, around_gaps
from arlm.errors import require
from arlm.tokenizers import Tokenizer

LABELS = ("[in order]", "[not in order]")  # of a pair of segments


class MaskedDomain(Domain):
    """A text and its masked form <-> tokens.

        row       label*  text ... separator* text ...     tokens of the text, V; with pairs 2 labels and a separator
        context   [MASK]  text [MASK] text ...             the same tokens; then the mask, and padding at the end

    No text can hold the tokens that are added. Text has the same numbers in row and context.

    Without `bound`, a unit is a masked token, so no figure of a masked network is called bits per byte: its nats are
    conditioned on what follows, too, and are no likelihood of the text. With `bound`, figures are those of the
    order-agnostic bound of the likelihood, per byte, and have its name.

    Args:
        tokenizer: of the text.
        pairs: whether a row is a label and two segments.
        bound: whether rows are masked and weighted so that nats bound those of the text.

    References:
        | BERT (Devlin et al., 2019) | https://arxiv.org/abs/1810.04805
        | Autoregressive Diffusion Models (Hoogeboom et al., 2022), order-agnostic bound
        | https://arxiv.org/abs/2110.02037
    """

    view = "arlm.reports.masked_view.MaskedView"

    def __init__(self, tokenizer: Tokenizer, pairs: bool = False, bound: bool = False) -> None:
        require(not (pairs and bound), "data.bound", bound, "omit it with pairs of segments")
        self.tokenizer, self.pairs, self.bound = tokenizer, pairs, bound
        self.unit = "byte_bound" if bound else "masked_token"
        size = tokenizer.vocab_size
        self.labels = (size, size + 1)  # of segments in order, and of others
        self.separator = size + 2
        self.vocab_size = size + (3 if pairs else 0)
        self.mask_id, self.pad_id = self.vocab_size, self.vocab_size + 1
        bytes_of = tokenizer.token_bytes if bound else torch.ones(size)
        self._units = torch.cat([bytes_of, torch.ones(self.vocab_size - size)])

    @property
    def text_tokenizer(self) -> Tokenizer:
        return self.tokenizer

    @property
    def ordinary(self) -> Tensor:
        """The tokens (N,) that text consists of: those that represent bytes."""
        return self.tokenizer.token_bytes.nonzero().flatten()

    def spec(self, length: int) -> Spec:
        """The spec of rows of `length` tokens, label and separator included."""
        own = Spec(
            *(self.vocab_size, (length,)),
            unit=self.unit,
            fingerprint=self.tokenizer.fingerprint,
        )
        context = replace(own, vocab_size=self.pad_id + 1, pad_id=self.pad_id)
        return replace(own, context=context)

    def encode(self, native: str) -> Tensor:
        """str -> tokens (T,) of a context, with the mask where the text has [MASK]; with pairs, after a masked label."""
        parts = around_gaps(self.tokenizer, native)
        mask = parts[0].new_tensor([self.mask_id])
        pieces = [piece for part in parts for piece in (mask, part)]
        return torch.cat(pieces if self.pairs else pieces[1:])

    def decode(self, tokens: Tensor) -> str:
        """Tokens (T,) of a row or of a context -> str; padding is left out."""
        named = {self.mask_id: MASK, self.pad_id: ""}
        if self.pairs:
            named |= {self.labels[0]: "", self.labels[1]: "", self.separator: "\n[SEP]\n"}
        pieces, run = [], 0
        for i, token in enumerate([*tokens.tolist(), self.pad_id]):
            if token >= self.tokenizer.vocab_size:
                pieces += [self.tokenizer.decode(tokens[run:i]), named[token]]
                run = i + 1
        return "".join(pieces)

    def units(self, tokens: Tensor) -> Tensor:
        return self._units.to(tokens.device)[tokens]
