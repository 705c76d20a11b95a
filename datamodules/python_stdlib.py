"""Sources of the Python standard library: about 10 MB, without any download.

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
from typing import Any

from arlm.data.corpus import Corpus, in_memory
from arlm.data.folders import Split, split_of
from arlm.data.text_module import TextDataModule, make_tokenizer
from arlm.domains import TextDomain
from arlm.errors import UserError

PARTS = 20  # one for validation, one for the test
SKIPPED = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}


class PythonStdlib(TextDataModule):
    """All Python files of the standard library except tests, split by file: 5 % validation, 5 % test.

    Args:
        tokenizer: "byte", or the path of a tokenizer's JSON from tools/train_tokenizer.py.
        length: as for TextDataModule.
        options: see TextDataModule: batching, stride, streams, overlap, separate_documents, ...
    """

    def __init__(
        self,
        tokenizer: str = "byte",
        length: int = 256,
        **options: Any,
    ) -> None:
        super().__init__(length, **options)
        self.domain = TextDomain(make_tokenizer(tokenizer))

    @cached_property
    def files(self) -> dict[str, str]:
        """Source texts by relative path, sorted."""
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

    def read(self, split: Split) -> Corpus:
        *texts, last = (t for name, t in self.files.items() if split_of(name, PARTS) == split)
        return in_memory([*(text + "\n" for text in texts), last], self.domain.tokenizer)

    @cached_property
    def provenance(self) -> dict[str, str]:
        digest = hashlib.sha256("".join(self.files.values()).encode()).hexdigest()
        return {
            "name": "python_stdlib",
            "python": platform.python_version(),
            "sha256": digest,
            "protocol": self.protocol,
        }
