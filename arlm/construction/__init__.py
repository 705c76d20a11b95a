"""How objects were constructed, for checkpoints that describe themselves."""

from arlm.construction.capture import FACTORY, Captured, Construction, Unplain

__all__ = ["FACTORY", "Captured", "Construction", "Unplain"]
