"""Corpora: text files encoded once, in parallel, into a file of tokens.

    files -> pieces -> blocks of 4 MiB, cut where a word ends
                         |  encoded by worker processes, a file for each block
                         v
             000000.tokens 000001.tokens ...  -> joined: tokens.bin, its index, corpus.json (last)
                                                           |
                                                           v
                                              Corpus: read(starts, length), verified as it is read

A preparation that was killed resumes with the missing blocks; after a full disk it leaves none. A prepared corpus is
named by a hash of the text, of where documents start, and of the tokenizer. The text is hashed again only if a file
has changed (`origin`).
"""

from arlm.data.corpus.blocks import Piece, texts
from arlm.data.corpus.corpus import Corpus, in_memory
from arlm.data.corpus.origin import remembered
from arlm.data.corpus.preparation import prepare

__all__ = ["Corpus", "Piece", "in_memory", "prepare", "remembered", "texts"]
