"""Domains: what a token is. Text, translations and images to tokens and back, and what each is worth."""

from arlm.domains.base import Domain
from arlm.domains.image import ImageDomain
from arlm.domains.text import TextDomain
from arlm.domains.translation import TranslationDomain

__all__ = ["Domain", "ImageDomain", "TextDomain", "TranslationDomain"]
