"""A matrix as memory, written while it is read: the rules of its write."""

from memlib.fast_weights.rules import fast_weights

__all__ = ["fast_weights"]
