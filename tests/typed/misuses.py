# ruff: noqa: B018, RUF059  (nothing is done with what comes out)
"""Wrong uses of what is public: mypy --strict must find each, and nothing else here."""

import torch

import memlib
from memlib import (
    NTM,
    Decoder,
    Hopfield,
    KeyValueMemory,
    KVCache,
    MemN2N,
    MemorizingAttention,
    Store,
)
from memlib.transformer import forget

x = torch.ones(2, 3, 4)


def refused() -> None:
    memlib.similarity(x, x, measure="euclid")  # wrong
    memlib.address(x, x, strength="1")  # wrong
    memlib.attend(x, x, x, mask=[True])  # wrong
    memlib.attend(x, x, x, need_weights=True).shape  # wrong
    value, weights, more = memlib.attend(x, x, x, need_weights=True)  # wrong
    memlib.interpolate(x, x)  # wrong
    memlib.read(x)  # wrong
    memlib.knn_lm(x, x, x, 3)  # wrong
    memlib.matrix_memory(x, x, x, 0.5)  # wrong
    memlib.matrix_memory(x, x, x, chunk=0.5)  # wrong
    KeyValueMemory(5, 4, when_full="drop")  # wrong
    memory = KeyValueMemory(5, 4)
    memory.read(x, x)  # wrong
    memory.read(x, memory.initial_state(2), need_weights=True).shape  # wrong
    Hopfield([1.0])  # wrong
    Hopfield()(x)  # wrong
    Hopfield()(x, x, need_weights=True).shape  # wrong
    ntm = NTM(6, 3)
    ntm(x, memory.initial_state(2))  # wrong
    ntm(x, lengths=[1, 2])  # wrong
    ntm(x).shape  # wrong
    MemN2N(9, 4, tying="all")  # wrong
    MemN2N(9, 4)(x)  # wrong
    Decoder(9)(x, 3)  # wrong
    forget(KVCache(1, 1, 4, 2), 2, "sinks")  # wrong
    KVCache(1, 1, 4, 2).keep(x)  # wrong
    Decoder(9, layer=memlib.FastWeights(64))(x).shape  # wrong
    memlib.FastWeights(6, rule="hebb")  # wrong
    memlib.FastWeights(6)(x, need_weights=True).shape  # wrong
    memlib.NeuralMemory(6)(x, x)  # wrong
    Store(4, backend="tree")  # wrong
    Store(4).read(x)  # wrong
    MemorizingAttention(6, 3, positions="learned")  # wrong
