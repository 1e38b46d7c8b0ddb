"""What the tests of devices run: every public function and module, small, on any device.

`cases.CASES` has the functions of tensors alone. Here the rest of the public names join them:
machines that read words, and memories that are changed in place.
"""

from collections.abc import Callable
from typing import Any

import cases
import torch
from cases import Case
from torch import Tensor, nn

import memlib
from memlib.transformer import accumulate, heavy_hitters, looked_at, sinks, window

WORDS = frozenset({"tokens", "story", "question", "lengths", "mask"})
ALONE = {  # named by no case
    "DNCState", "DurableStore", "Engine", "Looks", "NeuralState", "Recollection", "default_device",
    "attend_sharded", "programs", "ShardedStore",
}  # fmt: skip


def where(tensor: Tensor) -> dict[str, Any]:
    return {"device": tensor.device, "dtype": tensor.dtype}


def _dnc(kind: Any) -> Callable[..., nn.Module]:
    options = {"slots": 5, "width": 4, "read_heads": 2, "write_heads": 2, "mask_content": True}
    options |= {"deallocate": True, "sharpen_links": True}
    return lambda **where: kind(6, 3, controller=nn.LSTMCell(14, 3, **where), **options, **where)


def _steps(cell: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    """Two steps of a cell, from its own start."""
    state = None
    for step in x.unbind(1):
        y, state = cell(step, state)
    return (y, *state)


def _sequence(machine: nn.Module, x: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
    y, state, weights = machine(x, lengths=lengths, need_weights=True)
    return y, *state, weights


def _memn2n(**options: Any) -> Callable[..., nn.Module]:
    return lambda **where: memlib.MemN2N(9, 4, 6, 2, slots=6, **options, **where)


def _decoder(**options: Any) -> Callable[..., nn.Module]:
    return lambda **where: memlib.Decoder(9, 8, 2, 2, **options, **where)


def _decode(model: nn.Module, tokens: Tensor) -> tuple[Tensor, ...]:
    """All but two tokens at once, then one by one; the cache in place."""
    cache = model.cache(len(tokens), tokens.shape[1])
    with torch.no_grad():
        parts = [model(part, cache)[0] for part in tokens.split([tokens.shape[1] - 2, 1, 1], 1)]
    return torch.cat(parts, 1), cache[0].keys, cache[1].values, cache[1].lengths


def _window(layer: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    cache = layer.cache(len(x))  # a ring
    with torch.no_grad():
        parts = [layer(part, cache)[0] for part in x.split(1, 1)]
    return torch.cat(parts, 1), cache.keys, cache.lengths


def _cached(_: nn.Module, keys: Tensor, values: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
    cache = memlib.KVCache(
        len(keys), keys.shape[1], 6, keys.shape[-1], value_width=3, **where(keys)
    )
    cache.extend(keys, values, lengths=lengths)
    cache.reorder(torch.arange(len(keys), device=keys.device).flip(0))
    *readable, mask = cache.extend(keys, values, lengths=lengths)
    return *readable, mask, cache.lengths


def _forgotten(_: nn.Module, keys: Tensor, values: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
    cache = memlib.KVCache(
        len(keys), keys.shape[1], 6, keys.shape[-1], value_width=3, **where(keys)
    )
    cache.extend(keys, values)
    total = accumulate(cache, weights)
    scores = heavy_hitters(cache, total, recent=1) + looked_at(cache, weights, last=1, pool=1)
    slots = cache.keep(scores, 2)
    cache.keep(sinks(cache, 1) + window(cache), 2)
    return cache.keys, cache.values, cache.positions, slots


def _segments(model: nn.Module, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
    memory = model.segment_memory(len(tokens), 3)
    _, memory = model(tokens, memory)
    y, memory = model(tokens, memory, lengths=lengths)
    return y, *memory[1]


def _store(like: Tensor, **options: Any) -> memlib.Store:
    return memlib.Store(
        like.shape[-1], 3, batch_size=len(like), capacity=5, **options, **where(like)
    )


class Lent:
    """A store as an engine."""

    def __init__(self, store: memlib.Store) -> None:
        self.store, self.measure = store, store.measure

    def search(self, query: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
        ids, _ = self.store.address(query, k)
        return ids, *self.store.get(ids)


def _recall(_: nn.Module, query: Tensor, keys: Tensor, values: Tensor, strength: Tensor) -> Any:
    store = _store(keys)
    ids = store.add(keys, values)
    store.delete(ids[:, -1:])
    store.overwrite(ids[:, -2:-1], keys[:, :1], values[:, :1])
    found, weights = store.address(query, 2, strength=strength)
    value = store.read(query, 2, strength=strength)
    every = store.read(query, int(store.lengths.max()), strength=strength)
    lent = memlib.retrieve(query, Lent(store), 2, strength=strength)
    return value, every, lent, found, weights, *store.get(ids[:, :1]), store.lengths


def _language(
    _: nn.Module, logits: Tensor, query: Tensor, keys: Tensor, tokens: Tensor, gate: Tensor
) -> Tensor:
    store = memlib.Store(
        keys.shape[-1], 1, batch_size=len(keys), measure="negative_squared_distance",
        value_dtype=torch.long, **where(keys),
    )  # fmt: skip
    store.add(keys, tokens.unsqueeze(-1))
    return memlib.knn_lm(logits, query, store, 2, mix=gate)


def _memorizing(layer: nn.Module, x: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
    memory = layer.memory(len(x), 2, capacity=6)
    _, memory = layer(x, memory)
    y, memory, looks = layer(x, memory, lengths=lengths, need_weights=True)
    return y, *looks, *memory.segment, memory.store.keys


MORE = [
    Case("allocation", lambda _, gate: memlib.allocation(gate), {"gate": "B N"}, "B N"),
    Case(
        "position_encoding",
        lambda _, x: x * memlib.position_encoding(*x.shape[1:], device=x.device).to(x.dtype),
        {"x": "B T D"},
        "B T D",
    ),
    Case("DNCCell", _steps, {"x": "B H D"}, "B V", module=_dnc(memlib.DNCCell)),
    Case("DNC-lengths", _sequence, {"x": "B T D", "lengths": "B"}, "B T V", _dnc(memlib.DNC)),
    *(
        Case(
            f"MemN2N-{tying}",
            lambda net, story, question: net(story, question, need_weights=True),
            {"story": "B N T", "question": "B S"},
            "B T",
            module=_memn2n(tying=tying, relu=True),
            constant=WORDS,
        )
        for tying in ("adjacent", "layerwise", "none")
    ),
    *(
        Case(
            f"Decoder-{positions}",
            lambda net, tokens: net(tokens, need_weights=True)[0],
            {"tokens": "B D"},
            "B D 9",
            module=_decoder(positions=positions, kv_heads=1),
            constant=WORDS,
        )
        for positions in ("rotary", "learned", "none")
    ),
    Case("Decoder-cache", _decode, {"tokens": "B D"}, "B D 9", _decoder(), WORDS),
    Case(
        "Decoder-window", _decode, {"tokens": "B D"}, "B D 9", _decoder(window=3, kv_heads=1), WORDS
    ),
    Case(
        "Decoder-segments", _segments, {"tokens": "B T", "lengths": "B"}, "B T 9", _decoder(), WORDS
    ),
    Case(
        "Decoder-memory-tokens",
        lambda net, tokens, lengths: net(tokens, lengths=lengths),
        {"tokens": "B T", "lengths": "B"},
        "B T 9",
        module=_decoder(memory_tokens=2),
        constant=WORDS,
    ),
    Case(
        "MemoryAttention-ring",
        _window,
        {"x": "B N D"},
        "B N D",
        module=lambda **where: memlib.MemoryAttention(6, 3, window=3, **where),
    ),
    Case(
        "KVCache",
        _cached,
        {"keys": "B H S M", "values": "B H S V", "lengths": "B"},
        "B H D M",
        constant=frozenset({"keys", "values", "lengths"}),
    ),
    Case(
        "KVCache-keep",
        _forgotten,
        {"keys": "B H S M", "values": "B H S V", "weights": "B H S S"},
        "B H D M",
        constant=frozenset({"keys", "values", "weights"}),
    ),
    Case(
        "Store",
        _recall,
        {"query": "B L M", "keys": "B N M", "values": "B N V", "strength": "B L"},
        "B L V",
        constant=frozenset({"keys", "values"}),
    ),
    Case(
        "knn_lm",
        _language,
        {"logits": "B L 9", "query": "B L M", "keys": "B N M", "tokens": "B N", "gate": "B L"},
        "B L 9",
        constant=frozenset({"keys", "tokens"}),
    ),
    Case(
        "MemorizingAttention",
        _memorizing,
        {"x": "B T D", "lengths": "B"},
        "B T D",
        module=lambda **where: memlib.MemorizingAttention(6, 3, 1, k=3, **where),
    ),
]  # fmt: skip

EVERY = cases.CASES + MORE
