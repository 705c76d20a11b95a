"""Text as a stream of tokens, prepared once."""

from arlm.corpus.blocks import Piece, replace_file, texts
from arlm.corpus.preparation import prepare
from arlm.corpus.stream import TokenStream, in_memory

__all__ = ["Piece", "TokenStream", "in_memory", "prepare", "replace_file", "texts"]
