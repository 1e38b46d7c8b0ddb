"""A memory that knows what is free and what came after what."""

from memlib.dnc.bookkeeping import DNCState, allocation
from memlib.dnc.cell import DNC, DNCCell

__all__ = [
    "DNC",
    "DNCCell",
    "DNCState",
    "allocation",
]
