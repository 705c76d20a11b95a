"""Checkpoints of networks that are not trained, for tests of options."""

from __future__ import annotations

from pathlib import Path

import torch

from arlm import checkpoints
from arlm.models.pixelcnn import PixelCNN
from arlm.models.transformer import TransformerLanguageModel
from datamodules.digits import Digits
from datamodules.text_file import TextFile


def write_text_and_image(folder: Path, text: str) -> None:
    """Write text.ckpt, a network of the characters of a text, with the text as mine.txt, and image.ckpt, one of digits."""
    torch.manual_seed(0)
    (folder / "mine.txt").write_text(text)
    data = TextFile(str(folder / "mine.txt"), length=16, tokenizer="character")
    data.setup("fit")
    net = TransformerLanguageModel(data.spec, width=8, heads=2, depth=1)
    checkpoints.save(folder / "text.ckpt", net, data)
    digits = Digits()
    checkpoints.save(folder / "image.ckpt", PixelCNN(digits.spec, width=4, depth=1), digits)
