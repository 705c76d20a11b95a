"""Tokenizers: text to token ids and back, one class a file, each with `token_bytes`."""

from arlm.tokenizers.base import Tokenizer
from arlm.tokenizers.bpe import BPETokenizer
from arlm.tokenizers.byte import ByteTokenizer
from arlm.tokenizers.character import CharacterTokenizer
from arlm.tokenizers.sentence import SentenceTokenizer
from arlm.tokenizers.word import WordTokenizer

__all__ = [
    "BPETokenizer",
    "ByteTokenizer",
    "CharacterTokenizer",
    "SentenceTokenizer",
    "Tokenizer",
    "WordTokenizer",
]
