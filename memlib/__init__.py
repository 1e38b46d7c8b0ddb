"""Memory attention: attention over an external memory, in three verbs.

``address`` decides where to look, ``read`` brings back the weighted sum of what lies there,
``write`` changes it; ``attend`` is one address and one read. Modules are the chapters of the
book, in reading order; each imports only from those before it.
"""

from memlib import programs
from memlib._device import default_device
from memlib.addressable import Gates, Head, interpolate, locate, sharpen, shift
from memlib.attention import MEASURES, address, attend, read, similarity, write
from memlib.content import ClassicalHopfield, Hopfield
from memlib.dnc import DNC, DNCCell, DNCState, allocation
from memlib.fast_weights import FastWeights, NeuralMemory, NeuralState, matrix_memory
from memlib.key_value import KeyValueMemory, KeyValueState
from memlib.memn2n import MemN2N, position_encoding
from memlib.ntm import NTM, NTMCell, NTMState
from memlib.store import (
    DurableStore,
    Engine,
    Looks,
    MemorizingAttention,
    Recollection,
    ShardedStore,
    Store,
    attend_sharded,
    knn_lm,
    retrieve,
)
from memlib.transformer import Decoder, FeedForward, KVCache, MemoryAttention, SegmentMemory

__version__ = "0.2.0"

__all__ = [
    "MEASURES",
    "ClassicalHopfield",
    "DNC",
    "DNCCell",
    "DNCState",
    "Decoder",
    "DurableStore",
    "Engine",
    "FastWeights",
    "FeedForward",
    "Gates",
    "Head",
    "Hopfield",
    "KVCache",
    "KeyValueMemory",
    "KeyValueState",
    "Looks",
    "MemN2N",
    "MemorizingAttention",
    "MemoryAttention",
    "NTM",
    "NTMCell",
    "NTMState",
    "NeuralMemory",
    "NeuralState",
    "Recollection",
    "SegmentMemory",
    "ShardedStore",
    "Store",
    "address",
    "allocation",
    "attend",
    "attend_sharded",
    "default_device",
    "matrix_memory",
    "interpolate",
    "knn_lm",
    "locate",
    "position_encoding",
    "programs",
    "read",
    "retrieve",
    "sharpen",
    "shift",
    "similarity",
    "write",
]
