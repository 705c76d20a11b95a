"""Domains: what a token is. Text and images to tokens and back, and what each token is worth."""

from arlm.domains.base import Domain
from arlm.domains.image import ImageDomain
from arlm.domains.text import TextDomain

__all__ = ["Domain", "ImageDomain", "TextDomain"]
