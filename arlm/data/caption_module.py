"""CaptionDataModule: pictures of one size with captions."""

from __future__ import annotations

from functools import cached_property

import torch

from arlm.data.folders import Split
from arlm.data.pair_module import PairDataModule
from arlm.domains import CaptionDomain
from arlm.domains.image import check_levels
from arlm.tokenizers import WordTokenizer


class CaptionDataModule(PairDataModule):
    """Pictures as source and captions as target. A subclass writes `read`.

    `read` returns `Sentences(pictures, captions)`: uint8 (H, W, C) each, and as many lines of text. A token of a
    caption is a word; the vocabulary comes from the captions of the training split.

    Args:
        height, width, channels: size of the pictures.
        levels: steps of brightness that are kept, a power of two.
        patch: side in pixels of the patches that are the tokens of a picture; 1 for single pixels.
        length: largest number of words in a caption, and one for its end.
        batch_size, seed, num_workers: as for TokenDataModule.
    """

    def __init__(
        self,
        height: int,
        width: int,
        channels: int = 1,
        levels: int = 4,
        patch: int = 1,
        length: int = 32,
        batch_size: int = 64,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(length, batch_size, seed, num_workers)
        self.height, self.width, self.channels = height, width, channels
        self.levels, self.patch = check_levels(levels), patch

    @cached_property
    def domain(self) -> CaptionDomain:  # type: ignore[override]
        words = {word for caption in self.sentences("train").target for word in caption.split()}
        size = self.height, self.width, self.channels
        return CaptionDomain(WordTokenizer(sorted(words)), self.levels, *size, self.patch)

    @property
    def protocol(self) -> str:
        return "whole captions, picture given"

    def content(self, split: Split) -> bytes:
        source, target = self.sentences(split)
        return torch.stack(list(source)).numpy().tobytes() + "\n".join(target).encode()
