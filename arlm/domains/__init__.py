"""Domains: convert text, conversations, translations, captions and images to tokens and back, and count the units of each token."""

from arlm.domains.base import Domain
from arlm.domains.caption import CaptionDomain
from arlm.domains.conversation import ConversationDomain
from arlm.domains.image import ImageDomain
from arlm.domains.infilling import InfillingDomain
from arlm.domains.labelled import ClassificationDomain, RegressionDomain
from arlm.domains.masked import MaskedDomain
from arlm.domains.neighbour import NeighbourDomain
from arlm.domains.pair import PairDomain
from arlm.domains.spans import SpanDomain
from arlm.domains.tasks import TaskDomain
from arlm.domains.text import TextDomain
from arlm.domains.translation import TranslationDomain

__all__ = [
    "CaptionDomain",
    "ClassificationDomain",
    "ConversationDomain",
    "Domain",
    "ImageDomain",
    "InfillingDomain",
    "MaskedDomain",
    "NeighbourDomain",
    "PairDomain",
    "RegressionDomain",
    "SpanDomain",
    "TaskDomain",
    "TextDomain",
    "TranslationDomain",
]
