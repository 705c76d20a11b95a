"""SpanView: texts with gaps, what a network puts there, and its likelihood of the tokens that are missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from arlm.core import Autoregressor, Batch, device_of, log_softmax
from arlm.data.dataset import Rows
from arlm.domains import SpanDomain
from arlm.domains.gaps import MASK
from arlm.errors import UserError
from arlm.evaluation.paired import paired_difference
from arlm.inference.fillings import Filled, FillOptions, text_with_gaps
from arlm.inference.placement import moved
from arlm.inference.span_fillings import fill_spans
from arlm.inference.translator import Translator
from arlm.reports.pair_view import PairView
from arlm.reports.shown import Drawn, Shown
from arlm.sampling import Sampler

if TYPE_CHECKING:
    from arlm.data.folders import Split


class SpanView(PairView[SpanDomain]):
    """Texts with gaps. People write a gap as [MASK]; the spans that fill several gaps have [MASK] between them."""

    verbs = frozenset({"fill", "score", "attention"})
    purpose = "fills gaps in texts"
    heading = "The same gaps, filled"
    output = "filling"
    line = f"text with {MASK} in it"

    def source_of(self, text: str, name: str) -> list[str]:
        texts = text.split(MASK)
        if len(texts) < 2:
            raise UserError(f"{name}: {text!r} has no gap; write {MASK} where text is missing")
        return texts

    def target_of(self, text: str) -> list[str]:
        return text.split(MASK)

    def context_pieces(self, context: Tensor) -> list[str]:
        return [self.domain.decode(token[None]) for token in context]

    def pieces(self, tokens: Tensor) -> list[str]:
        return ["<end>\n" if t == self.domain.eos_id else self._piece(t) for t in tokens]

    def _piece(self, token: Tensor) -> str:
        if token < self.domain.first_sentinel:
            return self.domain.target_tokenizer.decode(token[None])
        return self.domain.decode(token[None])

    def fill(
        self,
        net: Autoregressor,
        text: str,
        options: FillOptions,
        progress: Callable[[int], object] | None = None,
    ) -> Filled:
        parts = text_with_gaps(self.domain.target_tokenizer, text)
        return fill_spans(net, self.domain, parts, options)

    def draw(
        self,
        net: Autoregressor,
        data: Any,
        split: Split,
        n: int,
        seed: int = 0,
        length: int | None = None,
        sampler: Sampler = Sampler(),  # noqa: B008  (frozen)
        beam: int = 5,
    ) -> Drawn:
        """The gaps of the split's first `n` windows, filled by beam search."""
        rows = data.dataset(split)
        batch = rows[Rows(0, torch.arange(min(n, len(rows))))]
        sources = [source[source != self.domain.pad_id] for source in batch.context]
        found = [best for best, *_ in Translator(net, self.domain, beam=beam)(sources)]
        texts = [
            f"{self.domain.decode(source)}\n= {self.domain.decode(target)}\n> {best.text}"
            for source, target, best in zip(sources, batch.tokens, found, strict=True)
        ]
        return Drawn(sum(len(f.tokens) for f in found), lambda: Shown(len(texts), texts=texts))

    def quality(
        self,
        net: Autoregressor,
        data: Any,
        split: Split,
        beam: int,
        length_penalty: float,
        progress: Callable[[int], object] | None = None,
    ) -> dict[str, dict[str, Any]]:
        """Nats and accuracy of the missing tokens, each given its source and the target before it.

        Sentinels and the end, which say where spans end, are left out, so that a network which is told the gaps can be
        compared. `low` and `high` bound the mean of the nats, by a bootstrap over blocks of tokens.
        """
        return self._missing(net, data, split, progress)

    def baseline_quality(
        self, net: Autoregressor, data: Any, split: Split
    ) -> dict[str, dict[str, Any]]:
        return self._missing(net, data, split)

    def _missing(
        self,
        net: Autoregressor,
        data: Any,
        split: Split,
        progress: Callable[[int], object] | None = None,
    ) -> dict[str, dict[str, Any]]:
        nats, right = [], []
        with torch.inference_mode():
            for batch in data.loader(split):
                found = moved(batch, device_of(net))
                missing = found.scored & (found.tokens < self.domain.first_sentinel)
                nats_of, right_of = scored_tokens(net, found)
                nats.append(nats_of[missing].cpu())
                right.append(right_of[missing].cpu())
                if progress:
                    progress(len(found.tokens))
        every = torch.cat(nats)
        mean, low, high = paired_difference(every, torch.zeros_like(every))
        accuracy = 100 * float(torch.cat(right).double().mean())
        figures = {"tokens": len(every), "nats": mean, "low": low, "high": high}
        return {"missing tokens": figures | {"accuracy": accuracy}}

    def items(self, data: Any, split: Split) -> int:
        return len(data.dataset(split))


def scored_tokens(net: Autoregressor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Nats (B, T) float64 of each token, and whether it is the likeliest one (B, T)."""
    logits = net(batch.tokens, None if net.spec.context is None else batch.context)
    nats = -log_softmax(logits).gather(-1, batch.tokens[..., None])[..., 0]
    return nats.double(), logits.argmax(-1) == batch.tokens
