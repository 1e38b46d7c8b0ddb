"""What machines with a memory share: one step, and a run over sequences."""

from memlib.recurrent.cell import Cell, InitialMemory, State
from memlib.recurrent.sequence import Machine

__all__ = [
    "Cell",
    "InitialMemory",
    "Machine",
    "State",
]
