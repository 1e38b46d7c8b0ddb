"""Memories for the models of the `transformers` package: ``pip install "memlib[transformers]"``."""

from memlib.integrations.transformers.cache import MemoryCache
from memlib.integrations.transformers.knn import KNNMemory
from memlib.integrations.transformers.memorizing import MemorizingMemory

__all__ = ["KNNMemory", "MemorizingMemory", "MemoryCache"]
