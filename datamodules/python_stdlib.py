"""The interpreter's own sources: about 10 MB of Python, offline.

References:
    | The Python Standard Library (Python Software Foundation), PSF licence
    | https://docs.python.org/3/library/
"""

from __future__ import annotations

import hashlib
import platform
import sysconfig
from functools import cached_property
from pathlib import Path

from arlm.data import Split, TextDataModule, read_text, split_of
from arlm.domains import TextDomain
from arlm.domains.text import byte_tokenizer
from arlm.errors import UserError

PARTS = 20  # one for validation, one for the test
SKIPPED = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}


class PythonStdlib(TextDataModule):
    """All *.py of the standard library but its tests, cut by file: 5 % for validation, 5 % for the test.

    Args:
        tokenizer: "byte", or the path of a tokenizer's JSON from tools/train_tokenizer.py.
        length, stride, batch_size, seed, num_workers: as for TextDataModule.
    """

    def __init__(
        self,
        tokenizer: str = "byte",
        length: int = 256,
        stride: int | None = None,
        batch_size: int = 16,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(length, stride, batch_size, seed, num_workers)
        self.tokenizer = tokenizer
        self.domain = TextDomain(
            byte_tokenizer()
            if tokenizer == "byte"
            else read_text(Path(tokenizer), "data.tokenizer")
        )

    @cached_property
    def files(self) -> dict[str, str]:
        """Source by relative path, in order."""
        root = Path(sysconfig.get_path("stdlib"))
        paths = sorted(
            p for p in root.rglob("*.py") if not SKIPPED & set(p.relative_to(root).parts)
        )
        texts = {str(p.relative_to(root)): p.read_bytes().decode(errors="replace") for p in paths}
        if not texts:
            raise UserError(
                f"data: no Python sources in '{root}'; use an interpreter that ships them"
            )
        return texts

    def text(self, split: Split) -> str:
        return "\n".join(
            text for name, text in self.files.items() if split_of(name, PARTS) == split
        )

    @cached_property
    def provenance(self) -> dict[str, str]:
        digest = hashlib.sha256("".join(self.files.values()).encode()).hexdigest()
        return {"name": "python_stdlib", "python": platform.python_version(), "sha256": digest}
