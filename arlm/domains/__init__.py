"""Domains: convert text, translations and images to tokens and back, and count the units of each token."""

from arlm.domains.base import Domain
from arlm.domains.image import ImageDomain
from arlm.domains.text import TextDomain
from arlm.domains.translation import TranslationDomain

__all__ = ["Domain", "ImageDomain", "TextDomain", "TranslationDomain"]
