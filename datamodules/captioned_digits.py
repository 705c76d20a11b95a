"""Two handwritten digits on a canvas, and a caption made by rule; generated, without any download.

A caption says of each digit whether it is bold or thin, and where the first one is: "a bold seven left of a thin
three". The bold digit comes first; of two alike, the left or the upper one. So a caption follows from its canvas.

    . . . . . . . . . .     training    1,437 images of digits, and the captions that are not held out
    . . 7 7 . . . . . .     validation  180 other images, and one caption in 8, which training never holds
    . . . 7 . 3 3 . . .     test        180 other images, and one caption in 8, which training never holds
    . . 7 . . 3 3 . . .
    . . . . . . . . . .     Each word, and each digit with each weight and at each side, occurs in training.
"""

from __future__ import annotations

import random
from itertools import product

import torch
from sklearn.datasets import load_digits
from torch import Tensor

from arlm.data.caption_module import CaptionDataModule
from arlm.data.dataset import generator
from arlm.data.folders import Split, split_of
from arlm.data.pairs import Sentences
from arlm.errors import require

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
BOLD, THIN = "bold", "thin"
SIDE, DIGIT = 18, 8  # pixels of a canvas and of a digit
ALONG = (0, 1), (9, 10)  # where the first and the second digit may begin along their axis
ACROSS = (3, 4, 5, 6, 7)  # where either may begin across it
HELD_OUT = 8  # one caption in HELD_OUT is for the test, and one for validation
BESIDE = {("x", True): "left of", ("x", False): "right of"}
RELATIONS = BESIDE | {("y", True): "above", ("y", False): "below"}  # by axis, and whether before
EVALUATED = 1000  # canvases of validation and test


def caption(weights: tuple[str, str], digits: tuple[int, int], axis: str) -> str:
    """The caption of two digits in the order of the axis, "x" (left first) or "y" (upper first)."""
    before = weights[0] == BOLD or weights[1] == THIN
    first, second = (0, 1) if before else (1, 0)
    names = [f"a {weights[i]} {NAMES[digits[i]]}" for i in (first, second)]
    return f"{names[0]} {RELATIONS[axis, before]} {names[1]}"


def inked(images: Tensor, weight: str) -> Tensor:
    """Digits (N, 8, 8) with ink from 0 to 16 -> uint8: full edges make them bold, and none make them thin."""
    ink = 2 * images if weight == BOLD else (images - 5) * 16 / 11
    return (ink.clamp(0, 16) * 255 / 16).round().to(torch.uint8)


class CaptionedDigits(CaptionDataModule):
    """Canvases of 18x18 pixels with two digits of scikit-learn, and their captions.

    Args:
        count: number of training pairs; validation and test have 1,000 each.
        levels, patch, batch_size, seed, num_workers: as for CaptionDataModule; the seed does not change the data.
    """

    def __init__(
        self,
        count: int = 60000,
        levels: int = 4,
        patch: int = 2,
        batch_size: int = 64,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        size = SIDE, SIDE, 1
        super().__init__(*size, levels, patch, 12, batch_size, seed, num_workers)
        require(count >= 1, "data.count", count, "choose at least 1")
        self.count = count

    def read(self, split: Split) -> Sentences:
        digits = load_digits()
        order = torch.randperm(len(digits.target), generator=generator(8))  # as for Digits
        test, val, train = order.split([180, 180, len(order) - 360])
        rows = {"train": train, "val": val, "test": test}[split]
        images = torch.from_numpy(digits.images)[rows]
        ink = {weight: inked(images, weight) for weight in (BOLD, THIN)}
        of_class = [(digits.target[rows] == c).nonzero()[0].tolist() for c in range(len(NAMES))]
        kinds = [
            (weights, classes, axis)
            for weights in product((BOLD, THIN), (BOLD, THIN))
            for classes in product(range(10), range(10))
            for axis in "xy"
            if split_of(caption(weights, classes, axis), HELD_OUT) == split
        ]
        noise = random.Random(f"captioned digits {split}")
        count = self.count if split == "train" else EVALUATED
        canvases, captions = torch.zeros(count, SIDE, SIDE, 1, dtype=torch.uint8), []
        for canvas in canvases[..., 0]:
            weights, classes, axis = noise.choice(kinds)
            captions.append(caption(weights, classes, axis))
            for weight, digit, (x, y) in zip(weights, classes, positions(noise, axis), strict=True):
                canvas[y : y + DIGIT, x : x + DIGIT] = ink[weight][noise.choice(of_class[digit])]
        return Sentences(list(canvases), captions)


def positions(noise: random.Random, axis: str) -> list[tuple[int, int]]:
    """Upper left corners (x, y) of two digits, the first one before the second on the axis."""
    drawn = [(noise.choice(along), noise.choice(ACROSS)) for along in ALONG]
    return drawn if axis == "x" else [(x, y) for y, x in drawn]
