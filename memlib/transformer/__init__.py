"""The text as memory: what is kept of it, the layers that read it, a decoder of them."""

from memlib.transformer.cache import KVCache
from memlib.transformer.decoder import Decoder
from memlib.transformer.feed_forward import FeedForward
from memlib.transformer.forgetting import (
    accumulate,
    forget,
    heavy_hitters,
    looked_at,
    sinks,
    window,
)
from memlib.transformer.layers import MemoryAttention
from memlib.transformer.segments import SegmentMemory

__all__ = [
    "Decoder",
    "FeedForward",
    "KVCache",
    "MemoryAttention",
    "SegmentMemory",
    "accumulate",
    "forget",
    "heavy_hitters",
    "looked_at",
    "sinks",
    "window",
]
