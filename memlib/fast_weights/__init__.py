"""A matrix as memory, written while it is read: the rules of its write, a layer that has them."""

from memlib.fast_weights.layer import FastWeights
from memlib.fast_weights.rules import fast_weights

__all__ = ["FastWeights", "fast_weights"]
