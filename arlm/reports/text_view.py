"""TextView: samples as text, and text coloured by surprise."""

from __future__ import annotations

import html
import math
from typing import Any

from torch import Tensor

from arlm.domains import TextDomain
from arlm.errors import UserError
from arlm.reports.view import Shown, View

SHOWN = 1000  # number of tokens that are coloured by surprise
FULL_COLOUR = 8  # bits from which the colour is full red
NEEDS_IMAGES = "the checkpoint draws text, not images; omit it"


class TextView(View[TextDomain]):
    """Decoded text."""

    verbs = frozenset({"sample"})
    purpose = "models text"
    refusals = dict.fromkeys(("complete", "gif", "sweep"), NEEDS_IMAGES)

    def show(self, tokens: Tensor) -> Shown:
        return Shown(tokens.numel(), texts=[self.domain.decode(row) for row in tokens])

    def forced(self, options: dict[str, Any], length: int) -> Tensor | None:
        """The prompt as tokens (1, P), fewer than `length`."""
        if not options["prompt"]:
            return None
        try:
            tokens = self.domain.encode(options["prompt"])
        except UserError as error:
            raise UserError(f"--prompt: {error}") from None
        if len(tokens) >= length:
            raise UserError(
                f"--prompt: {len(tokens)} tokens leave nothing to draw in a row of {length}; "
                "shorten it, or raise --length as far as the network's context allows"
            )
        return tokens[None]

    def surprise(self, tokens: Tensor, nats: Tensor) -> str:
        return coloured(tokens, nats, self.domain.decode)


def coloured(tokens: Tensor, nats: Tensor, decode: Any) -> str:
    """The first tokens (N,) as HTML; the background shows the bits of each, from nats (N,)."""
    spans = []
    for token, value in zip(tokens[:SHOWN], nats[:SHOWN].tolist(), strict=True):
        bits = value / math.log(2)
        shade = min(1.0, bits / FULL_COLOUR)
        text = html.escape(decode(token[None])) or "\n"  # the end token decodes to nothing
        spans.append(
            f'<span style="background:rgba(220,50,30,{shade:.2f})" title="{bits:.1f} bits">{text}</span>'
        )
    return f'<pre class="surprise">{"".join(spans)}</pre>'
