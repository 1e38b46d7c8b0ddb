"""Weights that stay, move and sharpen; programs that say how, step by step."""

from memlib.addressable import programs
from memlib.addressable.gates import Gates, Head, interpolate, locate, sharpen, shift

__all__ = [
    "Gates",
    "Head",
    "interpolate",
    "locate",
    "programs",
    "sharpen",
    "shift",
]
