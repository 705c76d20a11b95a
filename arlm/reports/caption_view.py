"""CaptionView: pictures with captions, the attention of each word over its picture, exact matches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from arlm.core import Autoregressor
from arlm.data.text_files import named_lines
from arlm.domains import CaptionDomain
from arlm.inference.items import ItemScores
from arlm.inference.translator import Source, Translation
from arlm.reports.attention_map import attention_of
from arlm.reports.caption_map import attention_strips, captioned, words_of
from arlm.reports.images import encoded
from arlm.reports.page import fragment
from arlm.reports.pair_view import MAPS, PairView
from arlm.reports.shown import Shown, data_url
from arlm.reports.text_view import text_of

SHOWN = 180  # pixels to which a small picture is enlarged on a page


class CaptionView(PairView[CaptionDomain]):
    """Pictures with their captions."""

    purpose = "writes captions of pictures"
    heading = "Captions of the same pictures"
    output = "caption"
    line = "path of a picture"

    @property
    def context_columns(self) -> int:
        return self.domain.columns

    def sources(self, files: Sequence[str]) -> Iterator[Source]:
        """Each picture; the standard input has the path of one in each line."""
        for file in files:
            for path in (line for _, line in named_lines("-")) if file == "-" else [file]:
                yield Source(f"'{path}'", path, self.source_of(path, "FILE"))

    def source_of(self, text: str, name: str) -> Tensor:
        return self.domain.read_source(Path(text.strip()), name)

    def attention_map(
        self, net: Autoregressor, translated: Sequence[tuple[Tensor, Translation]]
    ) -> bytes | None:
        """For each word of each caption, its picture with the attention of the word as a heat map."""
        rows = []
        for source, caption in translated:
            weights = attention_of(net, source, caption.tokens)
            if weights is None:
                return None
            maps = weights.view(-1, self.domain.rows, self.domain.columns).numpy()
            words = words_of(self.pieces(self.domain.until_end(caption.tokens)))
            shown = [(word, np.mean(maps[tokens], axis=0)) for word, tokens in words]
            rows.append((self.domain.decode_source(source), shown))
        return attention_strips(rows)

    def compared(
        self,
        net: Autoregressor,
        tokens: int,
        sources: Sequence[Any],
        references: Sequence[str],
        found: Sequence[tuple[Tensor, Translation]],
    ) -> Shown:
        captions = [best.text for _, best in found]
        texts = [
            f"= {reference}\n> {caption}"
            for reference, caption in zip(references, captions, strict=True)
        ]
        pictures = [self.domain.decode_source(source) for source, _ in found]
        shown = {"captions": captioned(pictures, references, captions)}
        attention = self.attention_map(net, found[:MAPS])
        if attention is not None:
            shown["attention"] = attention
        return Shown(tokens, texts=texts, pictures=shown)

    def aligned(self, source: str, target: str) -> tuple[Sequence[str], Sequence[str]]:
        """A picture, and the text file with its caption."""
        return [source], [text_of(target)]

    def surprise(self, scored: ItemScores, most: int | None = None) -> str:
        """A picture above its caption, which is coloured by surprise."""
        coloured = super().surprise(scored, most)
        context = scored.item.context
        if context is None:
            return coloured
        native = self.domain.decode_source(context)
        zoom = max(1, SHOWN // max(native.shape))
        picture = encoded(native.repeat_interleave(zoom, 0).repeat_interleave(zoom, 1))
        shown = fragment("shown.html", texts=[], sounds=[], pictures={"picture": data_url(picture)})
        return shown + coloured
