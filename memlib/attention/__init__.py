"""The verbs: where to look, what comes back, what changes; `attend` streams."""

from memlib.attention.verbs import MEASURES, address, attend, read, similarity, write

__all__ = [
    "MEASURES",
    "address",
    "attend",
    "read",
    "similarity",
    "write",
]
