"""A matrix as memory, written while it is read; and a small network, learned while it is read."""

from memlib.fast_weights.layer import FastWeights
from memlib.fast_weights.learned import NeuralMemory
from memlib.fast_weights.learning import NeuralState
from memlib.fast_weights.rules import matrix_memory

__all__ = ["FastWeights", "NeuralMemory", "NeuralState", "matrix_memory"]
