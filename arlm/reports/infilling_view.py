"""InfillingView: text of a causal network that fills gaps, and its likelihood of middles with and without what follows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from arlm.core import Autoregressor, device_of
from arlm.domains import InfillingDomain
from arlm.evaluation.paired import paired_difference
from arlm.inference.fillings import Filled, FillOptions, text_with_gaps
from arlm.inference.placement import moved
from arlm.inference.span_fillings import fill_middle
from arlm.reports.text_view import TextView

if TYPE_CHECKING:
    from arlm.data.folders import Split


class InfillingView(TextView):
    """Text; its network continues it, and fills gaps in it."""

    domain: InfillingDomain
    purpose = "models text and fills a gap in it"

    def fill(
        self,
        net: Autoregressor,
        text: str,
        options: FillOptions,
        progress: Callable[[int], object] | None = None,
    ) -> Filled:
        parts = text_with_gaps(self.domain.tokenizer, text)
        return fill_middle(net, self.domain, parts, options)

    def quality(
        self,
        net: Autoregressor,
        data: Any,
        split: Split,
        beam: int,
        length_penalty: float,
        progress: Callable[[int], object] | None = None,
    ) -> dict[str, dict[str, Any]]:
        """Nats of the tokens of a middle, given what is around it and given what is before it only.

        `low` and `high` bound the difference by a bootstrap over blocks of tokens.
        """
        found: tuple[list, list] = ([], [])
        with torch.inference_mode():
            for batches in data.middles(split):
                for nats, batch in zip(found, batches, strict=True):
                    given = moved(batch, device_of(net))
                    log_prob = net.log_prob(given.tokens)[given.scored]
                    nats.append(-log_prob.double().cpu())
        around, before = (torch.cat(nats) for nats in found)
        gain, low, high = paired_difference(before, around)
        means = {"nats": float(around.mean()), "nats_left_only": float(before.mean())}
        figures = {"tokens": len(around)} | means | {"gain": gain, "low": low, "high": high}
        return {"middles": figures}
