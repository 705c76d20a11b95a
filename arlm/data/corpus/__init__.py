"""Corpora: text files encoded once, in parallel, into memory-mapped tokens.

    files -> pieces -> blocks of 4 MiB, cut where a word ends
                         |  encoded by worker processes, a file for each block
                         v
             000000.tokens 000001.tokens ...  -> joined: tokens.bin, documents.npy, corpus.json (last)
                                                           |
                                                           v
                                              Corpus: read(starts, length), memory-mapped

A preparation that was killed resumes with the missing blocks. A prepared corpus is named by a hash of the
files' names, sizes and times and of the tokenizer, and is reused as long as these do not change.
"""

from arlm.data.corpus.blocks import Piece, replace_file, texts
from arlm.data.corpus.corpus import Corpus, in_memory
from arlm.data.corpus.preparation import prepare

__all__ = ["Corpus", "Piece", "in_memory", "prepare", "replace_file", "texts"]
