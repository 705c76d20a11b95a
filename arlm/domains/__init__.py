"""Domains: convert text, conversations, translations, captions and images to tokens and back, and count the units of each token."""

from arlm.domains.base import Domain
from arlm.domains.caption import CaptionDomain
from arlm.domains.conversation import ConversationDomain
from arlm.domains.image import ImageDomain
from arlm.domains.pair import PairDomain
from arlm.domains.text import TextDomain
from arlm.domains.translation import TranslationDomain

__all__ = [
    "CaptionDomain",
    "ConversationDomain",
    "Domain",
    "ImageDomain",
    "PairDomain",
    "TextDomain",
    "TranslationDomain",
]
