"""Typical uses of everything public, for mypy --strict: each says which type it expects.

`test_typed.py` runs the checker over this file, and each function too.
"""

from pathlib import Path
from typing import assert_type

import torch
from torch import Tensor, nn

import memlib
from memlib import (
    DNC,
    MEASURES,
    NTM,
    ClassicalHopfield,
    Decoder,
    DNCCell,
    DNCState,
    DurableStore,
    FastWeights,
    FeedForward,
    Gates,
    Head,
    Hopfield,
    KeyValueMemory,
    KeyValueState,
    KVCache,
    Looks,
    MemN2N,
    MemorizingAttention,
    MemoryAttention,
    NeuralMemory,
    NeuralState,
    NTMCell,
    NTMState,
    Recollection,
    SegmentMemory,
    ShardedStore,
    Store,
    attend_sharded,
    programs,
)
from memlib.transformer import accumulate, forget, heavy_hitters, looked_at, sinks, window

Pair = tuple[Tensor, Tensor]

query, keys, values = torch.ones(2, 3, 4), torch.ones(2, 5, 4), torch.ones(2, 5, 4)
mask, strength = torch.ones(5, dtype=torch.bool), nn.Parameter(torch.ones(()))
inputs, tokens = torch.ones(2, 3, 6), torch.ones(2, 3, dtype=torch.int64)
counts = torch.tensor([1, 3])


def verbs(wanted: bool = True) -> None:
    assert_type(MEASURES, tuple[str, ...])
    assert_type(memlib.similarity(query, keys, measure="cosine"), Tensor)
    weights = memlib.address(query, keys, strength=strength, mask=mask, top_k=2)
    assert_type(weights, Tensor)
    assert_type(memlib.read(weights, values), Tensor)
    assert_type(memlib.write(keys, weights, query, erase=query), Tensor)
    assert_type(memlib.attend(query, keys, values, mask=mask), Tensor)
    assert_type(memlib.attend(query, keys, values, need_weights=False), Tensor)
    assert_type(memlib.attend(query, keys, values, need_weights=True), Pair)
    assert_type(memlib.attend(query, keys, values, need_weights=wanted), Tensor | Pair)
    assert_type(memlib.default_device(), torch.device)


def key_value_memory(wanted: bool = True) -> None:
    memory = KeyValueMemory(5, 4, measure="dot", when_full="refuse")
    state = memory.write(query, query, memory.initial_state(2), lengths=counts)
    assert_type(state, KeyValueState)
    assert_type(state.filled, Tensor)
    assert_type(state.lengths, Tensor)
    assert_type(memory.read(query, state, strength=strength), Tensor)
    assert_type(memory.read(query, state, need_weights=True), Pair)
    assert_type(memory.read(query, state, top_k=2, need_weights=wanted), Tensor | Pair)
    assert_type(memory.delete(state.filled, state), KeyValueState)


def hopfield(wanted: bool = True) -> None:
    net = Hopfield(strength, steps=2)
    assert_type(net.strength, float | Tensor)
    assert_type(net(query, keys), Tensor)
    assert_type(net(query, keys, mask=mask, need_weights=True), Pair)
    assert_type(net.forward(query, keys, need_weights=False), Tensor)
    assert_type(net.forward(query, keys, need_weights=wanted), Tensor | Pair)
    assert_type(net.energy(query, keys, mask=mask), Tensor)
    classical = ClassicalHopfield(steps=1)
    assert_type(classical(query, keys), Tensor)
    assert_type(classical.connections(keys), Tensor)
    assert_type(classical.energy(query, keys), Tensor)


def location() -> None:
    weights = torch.full((2, 1, 5), 0.2)
    assert_type(memlib.interpolate(weights, weights, 0.5), Tensor)
    assert_type(memlib.interpolate(weights, weights, strength.detach()), Tensor)
    assert_type(memlib.shift(weights, torch.ones(3) / 3), Tensor)
    assert_type(memlib.sharpen(weights, strength), Tensor)
    head = Head(6, 4)
    gates = head.gates(torch.ones(2, 6))
    assert_type(gates, Gates)
    assert_type(gates.sharpening, Tensor)
    assert_type(memlib.locate(gates, keys, weights), Tensor)
    assert_type(head(torch.ones(2, 6), keys, weights), Tensor)
    trace = programs.run(programs.copy_program(torch.ones(2, 3)), torch.zeros(6, 4))
    assert_type(trace, programs.Trace)
    assert_type(programs.payload(trace), Tensor)
    assert_type(programs.Step(strength=strength), programs.Step)


def machines(wanted: bool = True) -> None:
    ntm, x = NTM(6, 3, 5, 4), inputs
    logits, state = ntm(x)
    assert_type(logits, Tensor)
    assert_type(state, NTMState)
    assert_type(state.detach(), NTMState)
    assert_type(ntm.initial_state(2), NTMState)
    assert_type(ntm(x, state, lengths=counts, need_weights=True), tuple[Tensor, NTMState, Tensor])
    assert_type(
        ntm.forward(x, need_weights=wanted, checkpoint_every=2),
        tuple[Tensor, NTMState] | tuple[Tensor, NTMState, Tensor],
    )
    assert_type(NTMCell(6, 3, 5, 4)(x[:, 0]), tuple[Tensor, NTMState])
    dnc = DNC(6, 3, 5, 4, read_heads=2)
    assert_type(dnc(x), tuple[Tensor, DNCState])
    assert_type(dnc(x, need_weights=True), tuple[Tensor, DNCState, Tensor])
    assert_type(DNCCell(6, 3, 5, 4)(x[:, 0]), tuple[Tensor, DNCState])
    assert_type(memlib.allocation(torch.ones(5) / 2), Tensor)


def matrices() -> None:
    x = torch.ones(2, 1, 3, 4)
    reads, state = memlib.matrix_memory(x, x, x, erase=0.5, decay=x / 2)
    assert_type(reads, Tensor)
    more = memlib.matrix_memory(
        x, x, x, state, write=strength, mask=counts.bool()[:, None].expand(2, 3)
    )
    assert_type(more, Pair)


def stories(wanted: bool = True) -> None:
    model = MemN2N(9, 4)
    story, question = torch.ones(2, 3, 4, dtype=torch.int64), tokens
    assert_type(model(story, question), Tensor)
    assert_type(model(story, question, need_weights=True), Pair)
    assert_type(model.forward(story, question, need_weights=wanted), Tensor | Pair)
    assert_type(memlib.position_encoding(3, 4), Tensor)


def transformer(wanted: bool = True) -> None:
    layer = MemoryAttention(6, 3, window=2)
    assert_type(layer(inputs), tuple[Tensor, None])
    assert_type(layer(inputs, layer.cache(2)), tuple[Tensor, KVCache])
    assert_type(layer(inputs, layer.segment_memory(2)), tuple[Tensor, SegmentMemory])
    assert_type(layer(inputs, None, need_weights=True), tuple[Tensor, None, Tensor])
    assert_type(
        layer.forward(inputs, layer.cache(2), need_weights=wanted),
        tuple[Tensor, KVCache] | tuple[Tensor, KVCache, Tensor],
    )
    cache = KVCache(2, 1, slots=8, width=4)
    cache.extend(*torch.ones(2, 2, 1, 3, 4))
    assert_type(cache.nbytes, int)
    assert_type(cache.keep(torch.zeros(2, 8), 2), Tensor)
    model = Decoder(9, 8)
    logits, _ = model(tokens)
    assert_type(logits, Tensor)
    assert_type(model(tokens, model.cache(2, 8)), tuple[Tensor, tuple[KVCache, ...]])
    assert_type(
        model.forward(tokens, model.segment_memory(2), need_weights=True),
        tuple[Tensor, tuple[SegmentMemory, ...], list[Tensor]],
    )
    assert_type(forget(model.cache(2, 8), 4, sinks), list[Tensor])
    total = accumulate(cache, torch.ones(2, 1, 1, 2))
    for scores in (window(cache), heavy_hitters(cache, total, recent=1)):
        assert_type(scores, Tensor)
    assert_type(looked_at(cache, torch.ones(2, 1, 1, 2), last=1, pool=3), Tensor)
    assert_type(Decoder(9, 8, memory_tokens=2).memory_tokens(2), Tensor)
    assert_type(FeedForward(6, 5)(inputs), Tensor)


def fast_weights(wanted: bool = True) -> None:
    layer = FastWeights(6, 3, rule="delta")
    assert_type(layer(inputs), Pair)
    assert_type(layer(inputs, layer.initial_state(2), lengths=counts), Pair)
    assert_type(layer(inputs, need_weights=True), tuple[Tensor, Tensor, Tensor])
    assert_type(layer.forward(inputs, need_weights=wanted), Pair | tuple[Tensor, Tensor, Tensor])
    learned = NeuralMemory(6, 3, hidden=0)
    state = learned.initial_state(2)
    assert_type(state, NeuralState)
    assert_type(state.detach(), NeuralState)
    assert_type(learned(inputs, state), tuple[Tensor, NeuralState])
    assert_type(learned(inputs, need_weights=True), tuple[Tensor, NeuralState, Tensor])
    assert_type(
        learned.forward(inputs, need_weights=wanted),
        tuple[Tensor, NeuralState] | tuple[Tensor, NeuralState, Tensor],
    )
    assert_type(learned.loss(inputs, state), Tensor)
    model = Decoder(9, 8, layer=(FastWeights, None))
    assert_type(model(tokens)[0], Tensor)


def stores(wanted: bool = True) -> None:
    store = Store(4, batch_size=2, value_width=4)
    ids = store.add(keys, values)
    assert_type(ids, Tensor)
    assert_type(store.address(query, 2), Pair)
    assert_type(store.read(query, 2, strength=strength), Tensor)
    assert_type(store.read(query, 2, need_weights=True), tuple[Tensor, Tensor, Tensor])
    assert_type(store.read(query, 2, need_weights=wanted), Tensor | tuple[Tensor, Tensor, Tensor])
    assert_type(store.get(ids), Pair)
    assert_type(store.lengths, Tensor)
    store.overwrite(ids, keys, values)
    store.delete(ids[:, :1])
    texts = Store(4, 1, value_dtype=torch.int64)
    texts.add(torch.ones(1, 2, 4), torch.ones(1, 2, 1, dtype=torch.int64))
    assert_type(memlib.knn_lm(torch.ones(2, 3, 9), query, texts, 2, mix=strength), Tensor)


class Lent:
    def search(self, query: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
        ids, _ = Store(4).address(query, k)
        return ids, *Store(4).get(ids)


def engines(wanted: bool = True) -> None:
    engine: memlib.Engine = Lent()
    assert_type(memlib.retrieve(query, engine, 2, strength=strength), Tensor)
    read = memlib.retrieve(query, engine, 2, measure="cosine", need_weights=True)
    assert_type(read, tuple[Tensor, Tensor, Tensor])
    either = memlib.retrieve(query, engine, 2, need_weights=wanted)
    assert_type(either, Tensor | tuple[Tensor, Tensor, Tensor])


def files(path: Path) -> None:
    Store(4).save(path)
    assert_type(Store.open(path, width=4), Store)
    durable = Store.open(path.with_name("folder"), durable=True, width=4)
    if isinstance(durable, DurableStore):
        durable.add(keys[:1], keys[:1])
        assert_type(durable.versions(3), list[tuple[float, Tensor, Tensor]])
        assert_type(durable.near(query[:1], 0.1), Tensor)


def in_parts(path: Path, wanted: bool = True) -> None:
    store = ShardedStore(4, batch_size=2, queries="own")
    assert_type(store.add(keys, values), Tensor)
    assert_type(store.read(query, 2, strength=strength), Tensor)
    assert_type(store.read(query, 2, need_weights=True), tuple[Tensor, Tensor, Tensor])
    assert_type(store.read(query, 2, need_weights=wanted), Tensor | tuple[Tensor, Tensor, Tensor])
    assert_type(store.address(query, 2), Pair)
    store.save(path)
    assert_type(ShardedStore.open(path), ShardedStore)
    assert_type(attend_sharded(query, keys, values), Tensor)
    assert_type(attend_sharded(query, keys, values, need_weights=True), Pair)


def memorizing(wanted: bool = True) -> None:
    layer = MemorizingAttention(6, 3, strength=strength)
    memory = layer.memory(2, capacity=9)
    assert_type(memory, Recollection)
    assert_type(layer(inputs, memory), tuple[Tensor, Recollection])
    assert_type(layer(inputs, memory, need_weights=True), tuple[Tensor, Recollection, Looks])
    assert_type(
        layer.forward(inputs, memory, need_weights=wanted),
        tuple[Tensor, Recollection] | tuple[Tensor, Recollection, Looks],
    )
