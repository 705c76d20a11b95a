"""The Python language reference from `pydoc_data.topics`: English text without any download.

The text changes with every release of Python, so figures from two releases cannot be compared; each run
records the version and a checksum. The alphabet is fixed, so checkpoints stay usable.

References:
    | The Python Language Reference (Python Software Foundation), PSF licence
    | https://docs.python.org/3/reference/
"""

from __future__ import annotations

import hashlib
import platform
from functools import cached_property
from pydoc_data.topics import topics
from typing import Any

from arlm.data.corpus import Corpus, in_memory
from arlm.data.folders import Split, split_of
from arlm.data.text_module import TextDataModule
from arlm.domains import TextDomain
from arlm.tokenizers import CharacterTokenizer

ALPHABET = "\n" + "".join(map(chr, range(32, 127)))  # printable ASCII
PARTS = 10  # one for validation, one for the test
QUOTED = 40  # characters from which a paragraph in two documents counts as a quotation


class PythonDocs(TextDataModule):
    """About 80 documents, split by document: one in ten for validation, one in ten for the test.

    The tokens are the 95 printable ASCII characters, newline, and one for all other characters. Documents
    quote one another, so long paragraphs of held-out documents are removed from training, and those of the
    test from validation.

    Args:
        length: as for TextDataModule.
        options: see TextDataModule: batching, stride, streams, overlap, separate_documents, ...
    """

    def __init__(
        self,
        length: int = 128,
        **options: Any,
    ) -> None:
        super().__init__(length, **options)
        self.domain = TextDomain(CharacterTokenizer(ALPHABET, unknown=True))

    def read(self, split: Split) -> Corpus:
        kept: dict[str, list[str]] = {}
        quoted: set[str] = set()  # paragraphs of the splits before
        for held in ("test", "val", "train"):
            names = [name for name in sorted(topics) if split_of(name, PARTS) == held]
            documents = [topics[name].split("\n\n") for name in names]
            kept[held] = ["\n\n".join(p for p in d if p.strip() not in quoted) for d in documents]
            quoted |= {p.strip() for d in documents for p in d if len(p.strip()) >= QUOTED}
        *texts, last = kept[split]
        return in_memory([*(text + "\n\n" for text in texts), last], self.domain.tokenizer)

    @cached_property
    def provenance(self) -> dict[str, str]:
        text = "".join(name + topics[name] for name in sorted(topics))
        digest = hashlib.sha256(text.encode()).hexdigest()
        return {
            "name": "python_docs",
            "python": platform.python_version(),
            "sha256": digest,
            "protocol": self.protocol,
        }
