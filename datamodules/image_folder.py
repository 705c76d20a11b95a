"""Any folder of images, resized and cropped to one size."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import center_crop, resize

from arlm.data.dataset import FixedRows
from arlm.data.folders import Split, data_folder, split_of
from arlm.data.labels import LabelledImageModule
from arlm.data.machine import check_memory
from arlm.domains.image import ImageDomain, check_levels, read_image
from arlm.errors import UserError, require

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"}


class ImageFolder(LabelledImageModule):
    """Images found anywhere under a folder, read into memory once.

    The shorter side is resized to `size`, and the centre is cropped. A hash of each file's path in the folder
    decides its split, so that added images leave the split of the others unchanged.

    Args:
        path: the folder; a relative one is looked up in the working folder, then in `data_dir`.
        size: height and width in pixels.
        channels: 3 for RGB, 1 for grey.
        levels: values per channel: 256, or a smaller power of two.
        labels: condition on the class, which is the top subfolder of an image; classes are numbered in
            sorted order.
        label_dropout: share of the training labels that are replaced by a null class; see LabelledImageModule.
        held_out: one image in `held_out` is for validation, and one for the test.
        data_dir: folder of data sets; by default $ARLM_DATA_DIR or the user cache.
        batch_size, seed, num_workers: as for TokenDataModule.
    """

    def __init__(
        self,
        path: str,
        size: int = 32,
        channels: int = 3,
        levels: int = 256,
        labels: bool = False,
        label_dropout: float = 0.0,
        held_out: int = 10,
        data_dir: str | None = None,
        batch_size: int = 16,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(labels, label_dropout, batch_size, seed, num_workers)
        require(size >= 1, "data.size", size, "choose at least 1")
        require(channels in (1, 3), "data.channels", channels, "choose 1 for grey or 3 for RGB")
        require(held_out >= 3, "data.held_out", held_out, "choose at least 3")
        self.path, self.size, self.channels, self.levels = path, size, channels, levels
        self.held_out, self.data_dir = held_out, data_dir
        self.domain = ImageDomain(check_levels(levels), size, size, channels)

    @cached_property
    def files(self) -> list[Path]:
        """All image files under the folder, sorted by path."""
        candidates = [Path(self.path), data_folder(self.data_dir) / self.path]
        folder = next((p for p in candidates if p.is_dir()), None)
        if folder is None:
            raise UserError(f"data.path: '{self.path}' is not a folder; give a folder of images")
        named = (p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
        files = sorted(p for p in named if not p.is_dir())
        for file in files:
            if not file.is_file():
                raise UserError(
                    f"data.path: '{file}' is a pipe, a device or a broken link; remove it from the folder"
                )
        if not files:
            raise UserError(
                f"data.path: '{self.path}' holds no images; put PNG or JPEG files there"
            )
        self.folder = folder
        return files

    @cached_property
    def classes(self) -> list[str]:
        """Names of the top subfolders, sorted."""
        parts = [path.relative_to(self.folder).parts for path in self.files]
        if any(len(p) < 2 for p in parts):
            raise UserError(
                f"data.labels: some images of '{self.path}' are in no subfolder; "
                "put each class into a folder of its own, or set labels to false"
            )
        return sorted({p[0] for p in parts})

    @property
    def number_of_classes(self) -> int:  # type: ignore[override]
        return len(self.classes)

    def build(self, split: Split) -> FixedRows:
        names = [path.relative_to(self.folder) for path in self.files]
        names_of_split = [n for n in names if split_of(n.as_posix(), self.held_out) == split]
        if not names_of_split:
            raise UserError(
                f"data.path: no image of '{self.path}' falls into the {split} split; "
                "give more images or a smaller held_out"
            )
        values = len(names_of_split) * self.size**2 * self.channels
        # An image, and its tokens, which are int64 before they are stored.
        check_memory(
            10 * values, "data.size", f"{self.size} pixels for {len(names_of_split)} images"
        )
        images = torch.stack([self._read(self.folder / name) for name in names_of_split])
        labels = None
        if self.labels:
            classes = [self.classes.index(name.parts[0]) for name in names_of_split]
            labels = self.labels_of(split, torch.tensor(classes))
        return FixedRows(self.domain.encode(images).to(torch.uint8), self.domain, labels)

    def _read(self, path: Path) -> Tensor:
        """One image, uint8 (size, size, channels)."""
        image = read_image(path, self.channels, "data.path").permute(2, 0, 1)
        if image.shape[1:] != (self.size, self.size):
            image = center_crop(resize(image, [self.size], antialias=True), [self.size, self.size])
        return image.permute(1, 2, 0)

    @cached_property
    def provenance(self) -> dict[str, str]:
        digest = hashlib.sha256()
        for path in self.files:
            digest.update(path.relative_to(self.folder).as_posix().encode() + b"\0")
            digest.update(path.read_bytes())
        protocol = f"{self.size}x{self.size}x{self.channels}, {self.levels} levels"
        protocol += ", class label given" if self.labels else ""
        return {"name": Path(self.path).name, "protocol": protocol, "sha256": digest.hexdigest()}
