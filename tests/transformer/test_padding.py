# ruff: noqa: E501  (a table of messages)
"""Rows of one batch that start and stop anywhere: each is what it would be alone."""

import copy
import re

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from torch import nn
from torch.testing import assert_close

from memlib import Decoder, KVCache, MemoryAttention, SegmentMemory, attend
from memlib.store import MemorizingAttention

NAN = float("nan")
DOUBLE = {"dtype": torch.float64}
EXACT = {"rtol": 0, "atol": 1e-12}
WIDTH, VOCAB = 8, 11


def draw(*shape, seed=1, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def text(*shape, seed=1):
    return torch.randint(VOCAB, shape, generator=torch.Generator().manual_seed(seed))


def lively(module, seed=0):
    """A fresh model hardly tells tokens apart."""
    torch.manual_seed(seed)
    for name, parameter in module.named_parameters():
        if not parameter.is_meta and "norm" not in name:
            nn.init.normal_(parameter, std=0.5)
    return module


def make(heads=(4, 2), **options):
    return lively(MemoryAttention(WIDTH, *heads, **DOUBLE | {"length": 64} | options))


def make_model(**options):
    options = {"kv_heads": 1, "slots": 6, "length": 64, "dtype": torch.float64} | options
    return lively(Decoder(VOCAB, WIDTH, 2, 2, **options))


def padded(rows, side, *, fill=NAN, spare=0, seed=0):
    """Lay rows (T_b, ...) side by side, (B, T, ...), and say where their tokens are, (B, T)."""
    size = max(map(len, rows)) + spare
    mask = torch.zeros(len(rows), size, dtype=torch.bool)
    order = torch.Generator().manual_seed(seed)
    for row, here in zip(rows, mask, strict=True):
        place = torch.arange(size) if side == "right" else torch.arange(size).flip(0)
        place = torch.randperm(size, generator=order) if side == "anywhere" else place
        here[place[: len(row)]] = True
    x = torch.full((*mask.shape, *rows[0].shape[1:]), fill, dtype=rows[0].dtype)
    x[mask] = torch.cat(rows)
    return x, mask


def memories(layer, kind, batch, slots, wider=0):
    """What may lie behind a layer, or each layer of a model, empty."""
    if kind == "segment":
        return layer.segment_memory(batch, slots)
    if kind == "cache":
        return layer.cache(batch, slots)
    if kind == "ring":
        heads = layer.kv_heads, layer.window + wider, layer.head_width
        return KVCache(batch, *heads, ring=True, **DOUBLE)
    return None


# each number is of a call, of one row: the tokens that the row gets
CALLS = st.lists(
    st.tuples(*3 * [st.sampled_from([0, 1, 1, 2, 3, 5])]), min_size=1, max_size=5
)  # fmt: skip
STEPS = st.lists(st.tuples(*3 * [st.integers(0, 1)]), max_size=4)
KINDS = st.sampled_from(["rotary", "learned", "none"])
HEADS = st.sampled_from([(1, 1), (2, 2), (4, 2), (4, 1)])
SIDES = st.sampled_from(["left", "right", "anywhere"])


@settings(max_examples=60)
@given(
    calls=CALLS,
    steps=STEPS,
    side=SIDES,
    positions=KINDS,
    heads=HEADS,
    window=st.none() | st.integers(1, 6),
    kind=st.sampled_from(["nothing", "cache", "ring", "segment"]),
    wider=st.integers(0, 2),
    spare=st.integers(0, 2),
    grad=st.booleans(),
)
@example(
    calls=[(5, 2, 0), (1, 1, 1)], steps=[(1, 0, 1)], side="left", positions="rotary",
    heads=(4, 2), window=2, kind="ring", wider=0, spare=1, grad=False,
)  # fmt: skip
def test_a_row_of_a_layer_is_the_row_alone(
    calls, steps, side, positions, heads, window, kind, wider, spare, grad
):
    """Outputs, weights and gradients of every call, whatever padding holds."""
    calls, window = calls + steps, window or (3 if kind == "ring" else None)
    layer = make(heads, positions=positions, window=window)
    slots = 4 if kind == "segment" else max(1, *map(sum, zip(*calls, strict=True)))
    memory = memories(layer, kind, 3, slots, wider)
    alone = [memories(layer, kind, 1, slots, wider) for _ in range(3)]
    for i, call in enumerate(calls):
        rows = [draw(n, WIDTH, seed=10 * i + b).requires_grad_(grad) for b, n in enumerate(call)]
        x, mask = padded(rows, side, spare=spare if i < len(calls) - len(steps) else 0, seed=i)
        with torch.set_grad_enabled(grad):
            y, memory, weights = layer(x, memory, mask=mask, need_weights=True)
            expected = [
                layer(row.unsqueeze(0), past, need_weights=True)
                for row, past in zip(rows, alone, strict=True)
            ]
        alone = [after for _, after, _ in expected]
        assert not y[~mask].any()
        assert not weights.movedim(1, -1)[~mask].any()
        for b in range(3):
            assert_close(y[b, mask[b]], expected[b][0][0], **EXACT)
            mine, its = weights[b][:, mask[b]], expected[b][2][0]
            size = max(mine.shape[-1], its.shape[-1])
            assert_close(ordered(mine, size), ordered(its, size), **EXACT)
        if grad and sum(call):
            together = torch.autograd.grad(y.square().sum(), [*rows, *layer.parameters()])
            apart = sum(y.square().sum() for y, _, _ in expected)
            apart = torch.autograd.grad(apart, [*rows, *layer.parameters()])
            assert_close(together, apart, rtol=1e-10, atol=1e-10)
        same_memory(memory, alone)


def ordered(weights, size):
    """Weights by their size, since slots of no token, of weight 0, may lie between them."""
    return F.pad(weights.sort().values, (size - weights.shape[-1], 0))


def same_memory(memory, alone):
    """A memory of many rows holds what those of one row hold."""
    if memory is None:
        assert alone == [None] * len(alone)
    elif isinstance(memory, KVCache):
        for b, one in enumerate(alone):
            assert torch.equal(memory.positions[b], one.positions[0])
            assert torch.equal(memory.lengths[b], one.lengths[0])
            held = one.positions[0] >= 0
            for buffer, its in ((memory.keys, one.keys), (memory.values, one.values)):
                assert_close(buffer[b][:, held], its[0][:, held], **EXACT)
    else:
        for part, *parts in zip(memory, *alone, strict=True):
            assert_close(part, torch.cat(parts), **EXACT)


@settings(max_examples=30)
@given(
    calls=CALLS,
    side=SIDES,
    positions=KINDS,
    window=st.none() | st.integers(1, 6),
    kind=st.sampled_from(["nothing", "cache", "ring", "segment", "tokens"]),
    grad=st.booleans(),
)
def test_a_row_of_a_model_is_the_row_alone(calls, side, positions, window, kind, grad):
    window = window or (4 if kind == "ring" else None)
    model = make_model(positions=positions, window=window, memory_tokens=3 * (kind == "tokens"))
    slots = None if kind == "ring" else max(1, *map(sum, zip(*calls, strict=True)))

    def start(batch):
        if kind == "segment":
            return model.segment_memory(batch, 3)
        return model.cache(batch, slots) if kind in ("cache", "ring") else None

    memory, alone = start(3), [start(1) for _ in range(3)]
    for i, call in enumerate(calls):
        rows = [text(n, seed=10 * i + b) for b, n in enumerate(call)]
        tokens, mask = padded(rows, side, fill=-100, seed=i)
        with torch.set_grad_enabled(grad):
            logits, memory = model(tokens, memory, mask=mask)
            expected = [
                model(row.unsqueeze(0), past) for row, past in zip(rows, alone, strict=True)
            ]
        alone = [after for _, after in expected]
        assert not logits[~mask].any()
        for b in range(3):
            assert_close(logits[b, mask[b]], expected[b][0][0], **EXACT)
        if grad and sum(call):
            some, options = list(model.parameters()), {"retain_graph": True, "allow_unused": True}
            together = torch.autograd.grad(logits.square().sum(), some, **options)
            apart = sum(y.square().sum() for y, _ in expected)
            assert_close(
                together, torch.autograd.grad(apart, some, **options), rtol=1e-9, atol=1e-9
            )
    if kind == "tokens":
        assert_close(memory, torch.cat(alone), **EXACT)


@pytest.mark.parametrize("side", ["left", "right", "anywhere"])
@pytest.mark.parametrize("ring", [False, True])
def test_what_a_padded_row_of_a_cache_returns_is_what_attend_takes(side, ring):
    cache, alone = (
        KVCache(2, 3, 8, 4, ring=ring, **DOUBLE),
        KVCache(1, 3, 8, 4, ring=ring, **DOUBLE),
    )
    for i, call in enumerate([(4, 2), (1, 0), (1, 1), (2, 3)]):
        rows = [draw(n, 3, 4, seed=10 * i + b) for b, n in enumerate(call)]
        (x, mask), query = padded(rows, side, seed=i), draw(2, 3, max(call), 4, seed=i)
        x = x.transpose(1, 2)
        keys, values, readable = cache.extend(x, -x, mask=mask)
        got = attend(query, keys, values, mask=readable)
        own = rows[1].transpose(0, 1).unsqueeze(0)
        keys, values, readable = alone.extend(own, -own)
        expected = attend(query[1:, :, mask[1]], keys, values, mask=readable)
        assert_close(got[1:, :, mask[1]], expected, **EXACT)
        assert not got[1:, :, ~mask[1]].any()
    same_memory(KVCache.reorder(cache, torch.tensor([1, 1])) or cache, [alone, alone])


def test_padding_on_the_right_is_lengths():
    layer, x = make(window=4), draw(2, 5, WIDTH)
    lengths = torch.tensor([5, 2])
    mask = torch.arange(5) < lengths.unsqueeze(1)
    for memory in (None, layer.cache(2), layer.segment_memory(2, 3)):
        other = copy.deepcopy(memory)
        mine = layer(x, memory, need_weights=True, lengths=lengths)
        its = layer(x, other, need_weights=True, mask=mask)
        assert torch.equal(mine[0], its[0])
        assert torch.equal(mine[2], its[2])
        pairs = zip(parts(mine[1]), parts(its[1]), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def parts(memory):
    return list(memory.buffers()) if isinstance(memory, KVCache) else list(memory or ())


@pytest.mark.parametrize(
    "how", [{"mask": torch.ones(2, 5, dtype=torch.bool)}, {"lengths": torch.tensor([5, 5])}]
)
def test_without_padding_a_mask_costs_nothing_and_changes_no_bit(how):
    layer, model, x, tokens = make(), make_model(), draw(2, 5, WIDTH), text(2, 5)
    assert torch.equal(layer(x, **how)[0], layer(x)[0])
    assert torch.equal(model(tokens, **how)[0], model(tokens)[0])
    caches = [KVCache(2, 1, 5, 4, **DOUBLE) for _ in range(2)]
    keys = draw(2, 1, 5, 4)
    mine, its = caches[0].extend(keys, keys, **how), caches[1].extend(keys, keys)
    assert torch.equal(mine[2], its[2])
    assert mine[2].shape == (1, 1, 5, 5)


# Positions


def test_a_position_a_slot():
    cache = KVCache(2, 1, 4, 2, ring=True, **DOUBLE)
    assert cache.positions.tolist() == [[-1] * 4] * 2
    x, mask = padded([draw(3, 1, 2), draw(1, 1, 2)], "left")
    cache.extend(x.transpose(1, 2), x.transpose(1, 2), mask=mask)
    assert cache.positions.tolist() == [[0, 1, 2, -1], [0, -1, -1, -1]]
    step = draw(2, 1, 1, 2)
    for _ in range(2):
        cache.extend(step, step)
    assert cache.positions.tolist() == [[4, 1, 2, 3], [0, 1, 2, -1]]
    cache.reorder(torch.tensor([1, 1]))
    cache.crop(torch.tensor([2, 3]))
    assert cache.positions.tolist() == [[0, 1, -1, -1], [0, 1, 2, -1]]
    assert cache.lengths.tolist() == [2, 3]
    cache.crop(0)
    assert cache.positions.tolist() == [[-1] * 4] * 2


@settings(max_examples=60)
@given(calls=CALLS, slots=st.integers(1, 6), ring=st.booleans(), grad=st.booleans())
def test_positions_are_those_of_the_last_tokens(calls, slots, ring, grad):
    calls = calls if ring else [call for call in calls if max(call) == 1][:slots]
    cache = KVCache(3, 1, slots, 2, ring=ring, **DOUBLE)
    kept = [[], [], []]
    for i, call in enumerate(calls):
        rows = [draw(n, 1, 2, seed=10 * i + b) for b, n in enumerate(call)]
        x, mask = padded(rows, "anywhere", seed=i)
        x = x.transpose(1, 2).requires_grad_(grad)
        cache.extend(x, x, mask=mask)
        for row, mine in zip(kept, rows, strict=True):
            row.extend(mine)
    for b, row in enumerate(kept):
        assert int(cache.lengths[b]) == len(row)
        expected = [-1] * slots
        for p in range(len(row)):
            expected[p % slots] = p
        assert cache.positions[b].tolist() == expected
        for slot, p in enumerate(expected):
            if p >= 0:
                assert torch.equal(cache.keys[b, :, slot], row[p])


def test_a_state_from_before_positions_loads():
    layer = make(window=3)
    for cache in (layer.cache(2), layer.cache(2, 9)):
        with torch.no_grad():
            layer(draw(2, 5, WIDTH), cache, lengths=torch.tensor([5, 2]))
        old = {name: part for name, part in cache.state_dict().items() if name != "positions"}
        fresh = layer.cache(2, None if cache.ring else 9)
        fresh.load_state_dict(old, strict=True)
        assert "positions" not in old
        assert torch.equal(fresh.positions, cache.positions)
        whole = nn.ModuleList([layer.cache(2, None if cache.ring else 9)])
        whole.load_state_dict({f"0.{name}": part for name, part in old.items()}, strict=True)
        x = draw(2, 1, WIDTH, seed=2)
        with torch.no_grad():
            assert torch.equal(layer(x, whole[0])[0], layer(x, cache)[0])
    with pytest.raises(RuntimeError, match="Missing key"):
        layer.cache(2).load_state_dict({})


def test_lengths_changed_behind_its_back_are_noticed_in_every_row():
    layer, x, cache = make(), draw(2, 6, WIDTH), make().cache(2, 8)
    with torch.no_grad():
        layer(x[:, :4], cache, lengths=torch.tensor([4, 3]))
        cache.lengths.copy_(torch.tensor([4, 1]))
        y, _ = layer(x[:, 4:], cache)
        text = torch.cat((x[1, :1], x[1, 4:])).unsqueeze(0)
        assert_close(y[1], layer(text)[0][0, 1:], **EXACT)
        assert cache.positions[1].tolist() == [0, 1, 2, -1, -1, -1, -1, -1]


@torch.no_grad()
def test_after_an_error_positions_are_as_they_were():
    layer, cache = make(dtype=torch.float32), make(dtype=torch.float32).cache(2, 6)
    x = draw(2, 3, WIDTH, dtype=torch.float32)
    layer(x, cache, mask=torch.tensor([[True, True, True], [False, False, True]]))
    before = cache.positions.clone()
    for tokens in (1, 2):
        for mask in (None, torch.tensor([[True] * tokens, [False] * tokens])):
            with pytest.raises(ValueError, match="overflowed"):
                layer(1e30 * x[:, :tokens], cache, mask=mask)
            assert torch.equal(cache.positions, before)


# Generating


def alone(model, prompt, steps):
    """A row of its own: the whole text anew for each token, without any memory."""
    row = prompt.tolist()
    for _ in range(steps):
        row.append(int(model(torch.tensor([row]))[0][0, -1].argmax()))
    return row[len(prompt) :]


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("positions", ["rotary", "learned", "none"])
@pytest.mark.parametrize("window", [None, 4])
def test_prompts_of_different_lengths_go_on_together_as_each_alone(side, positions, window):
    model, steps = make_model(positions=positions, window=window), torch.tensor([5, 12, 0, 8])
    prompts = [text(n, seed=n) for n in (7, 2, 4, 1)]
    cache = model.cache(4, None if window else 7 + 12)
    tokens, mask = padded(prompts, side, fill=-1)
    logits, cache = model(tokens, cache, mask=mask)
    last = mask.long().cumsum(1).argmax(1)  # where the last token of each row is
    new, said = logits[torch.arange(4), last].argmax(-1), []
    for step in range(12):
        said.append(new)
        going = step < steps  # each row is done at its own time
        logits, cache = model(new.unsqueeze(1), cache, mask=going.unsqueeze(1))
        new = logits[:, -1].argmax(-1)
    rows = [row[:n].tolist() for row, n in zip(torch.stack(said, 1), steps, strict=True)]
    assert rows == [alone(model, p, n) for p, n in zip(prompts, steps.tolist(), strict=True)]
    assert {tuple(layer.lengths.tolist()) for layer in cache} == {(12, 14, 4, 9)}


# The layer with a store


@pytest.mark.parametrize("side", ["left", "right", "anywhere"])
@pytest.mark.parametrize("positions", ["rotary", "none"])
def test_a_row_with_a_store_is_the_row_alone(side, positions):
    layer = lively(MemorizingAttention(WIDTH, 2, 1, k=3, positions=positions, **DOUBLE))
    memory, alone = layer.memory(3, slots=2), [layer.memory(1, slots=2) for _ in range(3)]
    for i, call in enumerate([(4, 2, 0), (1, 0, 1), (1, 3, 5)]):
        rows = [draw(n, WIDTH, seed=10 * i + b) for b, n in enumerate(call)]
        x, mask = padded(rows, side, seed=i)
        y, memory, looks = layer(x, memory, mask=mask, need_weights=True)
        assert not y[~mask].any()
        for weights in (looks.near, looks.far, looks.ids + 1):
            assert not weights.movedim(1, -1)[~mask].any()
        for b, row in enumerate(rows):
            its, alone[b], look = layer(row.unsqueeze(0), alone[b], need_weights=True)
            assert_close(y[b, mask[b]], its[0], **EXACT)
            assert_close(looks.near[b][:, mask[b]].sum(-1), look.near[0].sum(-1), **EXACT)
            k = look.far.shape[-1]
            assert_close(looks.far[b][:, mask[b]][..., :k], look.far[0], **EXACT)
    same_memory(memory.segment, [one.segment for one in alone])
    assert memory.store.lengths.tolist() == [6, 5, 6]


# What modules must bear


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_integers_of_both_widths_are_alike(dtype):
    layer, model, x, tokens = make(window=4), make_model(window=4), draw(2, 4, WIDTH), text(2, 4)
    lengths = torch.tensor([4, 2])
    for module, inputs in ((layer, x), (model, tokens)):
        for start in (lambda m: None, lambda m: m.cache(2), lambda m: m.segment_memory(2, 3)):
            mine, its = (
                module(inputs, start(module), lengths=n) for n in (lengths.to(dtype), lengths)
            )
            assert torch.equal(mine[0], its[0])
    cache, other = layer.cache(2, 9), layer.cache(2, 9)
    with torch.no_grad():
        for c, n in ((cache, lengths.to(dtype)), (other, lengths)):
            layer(x, c, lengths=n)
            c.crop(n.clamp(max=3))
            c.reorder(n % 2)
            c.extend(draw(2, 2, 4, 2), draw(2, 2, 4, 2), lengths=n)
    assert all(torch.equal(a, b) for a, b in zip(parts(cache), parts(other), strict=True))
    old = SegmentMemory(draw(2, 3, WIDTH), torch.tensor([5, 1]))
    for how in ({}, {"lengths": lengths.to(dtype)}):
        mine, after = layer(x, old._replace(seen=old.seen.to(dtype)), **how)
        assert torch.equal(mine, layer(x, old, **how)[0])
        assert after.seen.dtype == torch.long
    store = MemorizingAttention(WIDTH, 2, **DOUBLE)
    _, memory = store(x, lengths=lengths.to(dtype))
    assert (
        memory.store.add(*draw(2, 4, 4, 4), lengths=lengths.to(dtype).repeat(2)).dtype == torch.long
    )
    assert memory.store.lengths.tolist() == [8, 6, 6, 4]


def test_runs_on_meta():
    mask = torch.ones(2, 5, dtype=torch.bool, device="meta")
    layer, model = make(window=4, device="meta"), make_model(window=4, device="meta")
    x, tokens = torch.ones(2, 5, WIDTH, device="meta", **DOUBLE), mask.long()
    for memory in (None, layer.cache(2, 9), layer.cache(2), layer.segment_memory(2, 3)):
        assert layer(x, memory, mask=mask)[0].is_meta
        with torch.no_grad():
            assert layer(x[:, :1], memory, mask=mask[:, :1])[0].is_meta
    assert model(tokens, model.cache(2), mask=mask)[0].is_meta


def test_rows_of_nothing():
    layer, model = make(window=3), make_model(memory_tokens=2)
    for batch, tokens in ((0, 4), (2, 0), (2, 1), (2, 3)):
        mask = torch.zeros(batch, tokens, dtype=torch.bool)
        for memory in (None, layer.cache(batch), layer.segment_memory(batch)):
            x = torch.full((batch, tokens, WIDTH), NAN, **DOUBLE)
            assert not layer(x, memory, mask=mask)[0].any()
        assert not model(mask.long() - 7, mask=mask)[0].any()


@pytest.mark.parametrize("window", [None, 3])
def test_a_copy_goes_on_as_its_original(window):
    layer = make(window=window)
    cache = layer.cache(2, None if window else 9)
    mask = torch.tensor([[True] * 4, [False, False, True, True]])
    with torch.no_grad():
        layer(draw(2, 4, WIDTH), cache, mask=mask)
        twin, loaded, x = copy.deepcopy(cache), layer.cache(2, cache.slots), draw(2, 2, WIDTH)
        loaded = copy.deepcopy(cache)
        loaded.crop(0)
        loaded.load_state_dict(cache.state_dict())
        expected = layer(x, cache, mask=mask[:, 1:3])[0]
        assert torch.equal(layer(x, twin, mask=mask[:, 1:3])[0], expected)
        assert torch.equal(layer(x, loaded, mask=mask[:, 1:3])[0], expected)


@pytest.mark.needs_torch("2.13")
@torch.no_grad()
@pytest.mark.parametrize("window", [None, 3])
def test_compiled_rows_are_the_rows(window):
    torch._dynamo.reset()
    model, slots = make_model(window=window), None if window else 10
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(model, backend=backend, fullgraph=True)
    tokens, mask = padded([text(5), text(2, seed=2)], "left", fill=0)
    caches = model.cache(2, slots), model.cache(2, slots)
    pairs = [(tokens, mask), *((text(2, 1, seed=i), mask[:, i : i + 1]) for i in range(5))]
    for i, (new, these) in enumerate(pairs):
        expected, _ = model(new, caches[0], mask=these)
        assert_close(compiled(new, caches[1], mask=these)[0], expected, **EXACT)
        assert len(graphs) <= 1 + (i > 0)
    for mine, its in zip(*caches, strict=True):
        assert torch.equal(mine.positions, its.positions)


class Step(nn.Module):
    """A layer and its cache, which `torch.export` takes as one module."""

    def __init__(self, layer, cache):
        super().__init__()
        self.layer, self.cache = layer, cache

    def forward(self, x, mask):
        return self.layer(x, self.cache, mask=mask)[0]


@pytest.mark.needs_torch("2.13")
@torch.no_grad()
def test_an_exported_step_is_the_step():
    layer = make()
    cache, mask = layer.cache(2, 9), torch.tensor([[True, True], [False, True]])
    layer(draw(2, 2, WIDTH), cache, mask=mask)
    x, twin = draw(2, 1, WIDTH, seed=2), copy.deepcopy(cache)
    step = torch.export.export(Step(layer, twin).eval(), (x, mask[:, :1])).module()
    for i in range(3):
        x, these = draw(2, 1, WIDTH, seed=i), mask[:, i % 2 :][:, :1]
        assert_close(step(x, these), layer(x, cache, mask=these)[0], **EXACT)
    assert torch.equal(step.cache.positions, cache.positions)


# Refusals

LAYER, MODEL = make((2, 1), dtype=torch.float32), make_model()
X, TOKENS = torch.ones(2, 3, WIDTH), text(2, 3)
MASK = torch.tensor([[True] * 3, [False, False, True]])
KV = torch.ones(2, 1, 3, 4)
# fmt: off
REFUSALS = [
    (lambda call: call(mask=MASK.tolist()), TypeError, "mask must be a torch.Tensor; got list"),
    (lambda call: call(mask=MASK.long()), TypeError, "mask must have dtype torch.bool (True = a token); got torch.int64"),
    (lambda call: call(mask=MASK[0]), ValueError, "mask must have shape (B, T) with B = 2, T = 3; got (3,)"),
    (lambda call: call(mask=MASK[:1]), ValueError, "mask must have shape (B, T) with B = 2, T = 3; got (1, 3)"),
    (lambda call: call(mask=MASK[:, 1:]), ValueError, "mask must have shape (B, T) with B = 2, T = 3; got (2, 2)"),
    (lambda call: call(mask=MASK.to("meta")), ValueError, "mask must be on device cpu; got meta"),
    (lambda call: call(mask=MASK, lengths=torch.tensor([3, 1])), ValueError, "padding must be told by lengths or by mask; got both"),
    (lambda call: call(lengths=torch.tensor([3.0, 1.0])), TypeError, "lengths must have dtype int64 or int32; got torch.float32"),
    (lambda call: call(lengths=torch.tensor([3, 4], dtype=torch.int32)), ValueError, "lengths must be in [0, T = 3]; got 4"),
]
# fmt: on
CALLERS = {
    "cache": lambda **how: KVCache(2, 1, 9, 4).extend(KV, KV, **how),
    "layer": lambda **how: LAYER(X, **how),
    "model": lambda **how: MODEL(TOKENS, **how),
    "store": lambda **how: MemorizingAttention(WIDTH, 2)(X, **how),
}


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize(("call", "kind", "message"), REFUSALS, ids=[m for _, _, m in REFUSALS])
def test_bad_input_is_refused(call, kind, message, caller):
    with pytest.raises(kind, match=re.escape(message)) as caught:
        call(CALLERS[caller])
    assert type(caught.value) is kind


def test_room_and_tables_count_tokens_alone():
    cache, mask = LAYER.cache(2, 4), MASK.flip(0)
    LAYER(X, cache, mask=MASK)
    LAYER(X, cache, mask=mask & MASK)  # one more a row
    before = copy.deepcopy(cache.state_dict())
    with pytest.raises(ValueError, match=re.escape("0 of 4 in row 0; got 1")):
        LAYER(X, cache, mask=mask)
    assert all(torch.equal(before[n], buffer) for n, buffer in cache.state_dict().items())
    learned = make((2, 1), positions="learned", length=2, dtype=torch.float32)
    learned(X, mask=MASK & torch.tensor([False, True, True]))
    with pytest.raises(ValueError, match="positions must be below length = 2; got 2"):
        learned(X, mask=MASK)
    wrong = TOKENS.masked_fill(~MASK, 99)
    MODEL(wrong, mask=MASK)
    with pytest.raises(ValueError, match=re.escape("tokens must be in [0, 11); got")):
        MODEL(wrong, mask=mask)
