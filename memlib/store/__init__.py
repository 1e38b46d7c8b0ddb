"""A memory larger than the model: searched, changed by ids, kept in files."""

from memlib.store.attention import attend_sharded
from memlib.store.durable import DurableStore
from memlib.store.engine import Engine, retrieve
from memlib.store.knn_lm import knn_lm
from memlib.store.memorizing import Looks, MemorizingAttention, Recollection
from memlib.store.networks import NETWORKS, read_cost
from memlib.store.sharded import ShardedStore
from memlib.store.store import Store

__all__ = [
    "NETWORKS",
    "DurableStore",
    "Engine",
    "Looks",
    "MemorizingAttention",
    "Recollection",
    "ShardedStore",
    "Store",
    "attend_sharded",
    "knn_lm",
    "read_cost",
    "retrieve",
]
