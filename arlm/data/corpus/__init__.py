"""Text as a stream of tokens, prepared once."""

from arlm.data.corpus.blocks import Piece, replace_file, texts
from arlm.data.corpus.preparation import prepare
from arlm.data.corpus.stream import TokenStream, in_memory

__all__ = ["Piece", "TokenStream", "in_memory", "prepare", "replace_file", "texts"]
