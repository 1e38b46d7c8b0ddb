# ruff: noqa: E501  (a table of messages)
"""A Transformer's memory: however the past comes to a layer, it is the same function."""

import copy
import math
import re

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from torch import nn
from torch.testing import assert_close

from memlib import KVCache, MemoryAttention, SegmentMemory, attend, read
from memlib.transformer.slots import _filled

DOUBLE = {"dtype": torch.float64}
EXACT = {torch.float64: {"rtol": 0, "atol": 1e-12}, torch.float32: {"rtol": 0, "atol": 1e-5}}
WIDTH = 8


def draw(*shape, seed=1, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def make(heads=(2, 1), *, seed=0, **options):
    torch.manual_seed(seed)
    options = {"dtype": torch.float64, "length": 64} | options
    layer = MemoryAttention(WIDTH, *heads, **options)
    if layer.table is not None and not layer.table.is_meta:
        nn.init.normal_(layer.table)
    return layer


def by_loops(layer, x, window=None):
    """One row (T, D): each head of each token reads the tokens before it, one by one."""
    shared, width = layer.heads // layer.kv_heads, layer.head_width

    def head(linear, x, h, t):
        if layer.table is not None:
            x = x + layer.table[t]
        y = (linear.weight @ x)[h * width : (h + 1) * width]
        if layer.positions != "rotary":
            return y
        pairs = torch.view_as_complex(torch.stack((y[: width // 2], y[width // 2 :]), -1))
        angles = t * layer.base ** (-2 * torch.arange(width // 2, **DOUBLE) / width)
        turned = pairs * torch.polar(torch.ones_like(angles), angles)
        return torch.cat((turned.real, turned.imag))

    outputs = []
    for t in range(len(x)):
        first = 0 if window is None else max(0, t + 1 - window)
        heads = []
        for h in range(layer.heads):
            g = h // shared
            query = head(layer.query, x[t], h, t)
            keys = [head(layer.key, x[i], g, i) for i in range(first, t + 1)]
            values = [
                (layer.value.weight @ x[i])[g * width : (g + 1) * width]
                for i in range(first, t + 1)
            ]
            scores = torch.stack([query @ k for k in keys]) / width**0.5
            weights = scores.exp() / scores.exp().sum()
            heads.append(sum(w * v for w, v in zip(weights, values, strict=True)))
        outputs.append(layer.output.weight @ torch.cat(heads))
    return torch.stack(outputs)


def in_chunks(layer, x, sizes, memory, *, grad=False):
    """The same tokens, some at a time."""
    outputs = []
    with torch.set_grad_enabled(grad):
        for chunk in x.split(sizes, dim=1):
            y, memory = layer(chunk, memory)
            outputs.append(y)
    return torch.cat(outputs, dim=1), memory


# The equations


@pytest.mark.parametrize("positions", ["rotary", "learned", "none"])
@pytest.mark.parametrize(("heads", "window"), [((2, 2), None), ((4, 2), 3), ((2, 1), None)])
def test_a_layer_is_what_the_loops_say(positions, heads, window):
    layer = make(heads, positions=positions, window=window)
    x = draw(2, 6, WIDTH)
    y, memory = layer(x)
    assert memory is None
    assert_close(y, torch.stack([by_loops(layer, row, window) for row in x]), **EXACT[y.dtype])


def test_it_is_pytorchs_attention():
    layer = make((4, 2), positions="none")
    x = draw(3, 7, WIDTH)
    query, keys, values = (
        linear(x).unflatten(-1, (-1, 2)).transpose(1, 2)
        for linear in (layer.query, layer.key, layer.value)
    )
    read = F.scaled_dot_product_attention(query, keys, values, is_causal=True, enable_gqa=True)
    assert_close(layer(x)[0], layer.output(read.transpose(1, 2).flatten(2)))


def test_rotary_scores_depend_on_the_distance_alone():
    layer = make((2, 2))
    x = draw(1, 5, WIDTH)
    empty = layer.segment_memory(1, 0)
    for seen in (0, 17):
        moved = empty._replace(seen=torch.tensor([seen]))
        assert_close(layer(x, moved)[0], layer(x)[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("base", [1e4, 5e5])
def test_angles_of_far_positions(dtype, base):
    layer = MemoryAttention(128, 1, base=base, dtype=dtype)
    kind = torch.promote_types(dtype, torch.float32)
    far = [0, 1, 5000, 131_071, 10**6, 10**9]
    rates = [base ** (-i / 64) for i in range(64)]
    right = torch.tensor([[[math.cos(p * r) for r in rates], [math.sin(p * r) for r in rates]]
                          for p in far], dtype=torch.float64)  # fmt: skip
    cos, _, _, sin = layer._marks(torch.tensor([far])).chunk(4, -1)
    assert cos.dtype == kind
    assert_close(torch.stack((cos, sin), -2)[0].double(), right, rtol=0, atol=3e-7)


def test_rotary_scores_depend_on_the_distance_alone_however_far():
    layer = make((2, 2), dtype=torch.float32)
    x = draw(1, 5, WIDTH, dtype=torch.float32)
    moved = layer.segment_memory(1, 0)._replace(seen=torch.tensor([10**6]))
    assert_close(layer(x, moved)[0], layer(x)[0], rtol=0, atol=2e-6)


def test_the_weights_are_those_of_the_read():
    layer = make((4, 2), positions="none")
    x = draw(2, 5, WIDTH)
    y, _, weights = layer(x, need_weights=True)
    assert weights.shape == (2, 4, 5, 5)
    assert_close(weights.sum(-1), torch.ones(2, 4, 5, **DOUBLE))
    assert not weights.triu(1).any()
    values = layer.value(x).unflatten(-1, (2, 2)).transpose(1, 2).repeat_interleave(2, dim=1)
    assert_close(layer.output(read(weights, values).transpose(1, 2).flatten(2)), y)
    cache = layer.cache(2, 5)
    with torch.no_grad():
        _, _, first = layer(x[:, :3], cache, need_weights=True)
        _, _, second = layer(x[:, 3:4], cache, need_weights=True)
        _, _, third = layer(x[:, 4:], cache, need_weights=True)
    assert_close(first, weights[:, :, :3, :3])
    assert_close(second, weights[:, :, 3:4, :4])
    assert_close(third, weights[:, :, 4:, :5])


# However the past comes to it, it is the same function

KINDS = st.sampled_from(["rotary", "learned", "none"])
HEADS = st.sampled_from([(1, 1), (2, 2), (4, 2), (4, 1)])
SIZES = st.lists(st.integers(0, 5), min_size=1, max_size=6)
DTYPES = st.sampled_from([torch.float32, torch.float64])


@settings(max_examples=150)
@given(
    sizes=SIZES,
    heads=HEADS,
    positions=KINDS,
    window=st.none() | st.integers(1, 12),
    ring=st.booleans(),
    grad=st.booleans(),
    dtype=DTYPES,
)
def test_chunks_and_steps_through_a_cache_are_the_whole(
    sizes, heads, positions, window, ring, grad, dtype
):
    layer = make(heads, positions=positions, window=window, dtype=dtype)
    x = draw(2, sum(sizes), WIDTH, dtype=dtype)
    whole, _ = layer(x)
    cache = layer.cache(2, None if ring and window else max(1, sum(sizes)))
    parts, after = in_chunks(layer, x, sizes, cache, grad=grad)
    assert after is cache
    assert cache.lengths.tolist() == [sum(sizes)] * 2
    assert_close(parts, whole, **EXACT[dtype])


@settings(max_examples=150)
@given(
    calls=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=5),
    positions=KINDS,
    window=st.none() | st.integers(1, 6),
    ring=st.booleans(),
    grad=st.booleans(),
    spare=st.integers(0, 2),
    wider=st.integers(0, 2),
)
@example(
    calls=[(2, 2), (0, 1), (1, 1)], positions="none", window=1, ring=True, grad=False, spare=0,
    wider=1,
)  # fmt: skip
def test_padded_rows_go_on_where_each_of_them_stopped(
    calls, positions, window, ring, grad, spare, wider
):
    """Each call gives row b lengths[b] tokens; padding holds NaN, which must not be seen."""
    layer = make((4, 2), positions=positions, window=window)
    totals = [sum(call[b] for call in calls) for b in (0, 1)]
    x = draw(2, max(1, *totals), WIDTH)
    whole = [layer(x[b : b + 1, : totals[b]])[0][0] for b in (0, 1)]
    cache = layer.cache(2, max(1, *totals))
    if ring and window:  # wider than the window, too
        cache = KVCache(2, 2, window + wider, 2, ring=True, **DOUBLE)
    memories = {"cache": cache, "segment": layer.segment_memory(2, max(1, *totals))}
    for kind, memory in memories.items():
        done = [0, 0]
        for call in calls:
            tokens = max(call) + spare
            chunk = torch.full((2, tokens, WIDTH), float("nan"), **DOUBLE)
            for b in (0, 1):
                chunk[b, : call[b]] = x[b, done[b] : done[b] + call[b]]
            with torch.set_grad_enabled(grad):
                y, memory = layer(chunk, memory, lengths=torch.tensor(call))
            for b in (0, 1):
                mine = whole[b][done[b] : done[b] + call[b]]
                assert_close(y[b, : call[b]], mine, rtol=0, atol=1e-12, msg=kind)
                assert not y[b, call[b] :].any()
                done[b] += call[b]
        seen = memory.lengths if kind == "cache" else memory.seen
        assert seen.tolist() == totals


@settings(max_examples=60)
@given(sizes=SIZES, heads=HEADS, positions=KINDS, window=st.none() | st.integers(1, 12))
def test_a_segment_memory_as_long_as_the_text_is_full_context(sizes, heads, positions, window):
    layer = make(heads, positions=positions, window=window)
    x = draw(2, sum(sizes), WIDTH)
    memory = layer.segment_memory(2, sum(sizes))
    parts, after = in_chunks(layer, x, sizes, memory, grad=True)
    assert_close(parts, layer(x)[0], rtol=0, atol=1e-12)
    assert_close(after.inputs, x)
    assert not memory.inputs.any()


@pytest.mark.parametrize("slots", [1, 3, 4, 7])
def test_a_short_segment_memory_is_a_context_of_that_many_more(slots):
    """A row of segments: each reads itself and the last tokens before it."""
    layer = make((2, 2))
    x = draw(2, 12, WIDTH)
    memory = layer.segment_memory(2, slots)
    for start in range(0, 12, 4):
        y, memory = layer(x[:, start : start + 4], memory)
        first = max(0, start - slots)
        alone = make((2, 2))(x[:, first : start + 4])[0]  # distances alone matter
        assert_close(y, alone[:, start - first :], rtol=0, atol=1e-12)
        assert memory.inputs.shape == (2, slots, WIDTH)


def test_a_window_as_long_as_the_text_is_full_attention():
    x = draw(2, 9, WIDTH)
    assert_close(make(window=9)(x)[0], make()(x)[0])
    assert not torch.allclose(make(window=8)(x)[0], make()(x)[0])


def test_a_ring_wider_than_the_window_and_a_cache_without_ring_serve_it_too():
    layer = make(window=3)
    x = draw(2, 11, WIDTH)
    for cache in (KVCache(2, 1, 5, 4, ring=True, **DOUBLE), layer.cache(2, 11)):
        for sizes in ([1] * 11, [4, 1, 1, 1, 1, 1, 1, 1], [11]):
            cache.crop(0)
            parts, _ = in_chunks(layer, x, sizes, cache)
            assert_close(parts, layer(x)[0], rtol=0, atol=1e-12)


# The cache


def test_a_cache_is_what_was_written():
    cache = KVCache(2, 3, 5, 4, value_width=2, **DOUBLE)
    keys, values = draw(2, 3, 5, 4), draw(2, 3, 5, 2)
    cache.extend(keys[:, :, :2], values[:, :, :2])
    k, v, mask = cache.extend(keys[:, :, 2:3], values[:, :, 2:3])
    assert mask is None
    assert torch.equal(k, keys[:, :, :3])
    assert torch.equal(v, values[:, :, :3])
    k, v, mask = cache.extend(keys[:, :, 3:], values[:, :, 3:])
    assert torch.equal(k, keys)
    assert torch.equal(v, values)
    assert mask.tolist() == [[[[True] * 4 + [False], [True] * 5]]]
    assert torch.equal(cache.keys, keys)
    assert torch.equal(cache.values, values)


def test_what_extend_returns_is_what_attend_takes():
    cache = KVCache(2, 3, 8, 4, **DOUBLE)
    query, keys, values = (draw(2, 3, 6, 4, seed=seed) for seed in range(3))
    expected = F.scaled_dot_product_attention(query, keys, values, is_causal=True)
    for start, stop in ((0, 2), (2, 3), (3, 6)):
        k, v, mask = cache.extend(keys[:, :, start:stop], values[:, :, start:stop])
        assert_close(attend(query[:, :, start:stop], k, v, mask=mask), expected[:, :, start:stop])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("ring", [False, True])
def test_it_takes_the_bytes_it_was_given_and_no_more(dtype, ring):
    cache = KVCache(3, 2, 10, 4, value_width=6, ring=ring, dtype=dtype)
    expected = 3 * 2 * 10 * (4 + 6) * dtype.itemsize + 3 * 10 * 8 + 3 * 8
    places = [buffer.data_ptr() for buffer in cache.buffers()]
    assert cache.nbytes == expected
    for _ in range(10):
        cache.extend(draw(3, 2, 1, 4, dtype=dtype), draw(3, 2, 1, 6, dtype=dtype))
    assert cache.nbytes == expected
    assert [buffer.data_ptr() for buffer in cache.buffers()] == places
    assert layer_bytes() == 2 * 5 * WIDTH * 8 + 2 * 8


def layer_bytes():
    return make().segment_memory(2, 5).nbytes


@settings(max_examples=30)
@given(slots=st.integers(1, 6), length=st.integers(0, 20))
def test_the_slots_of_a_ring_hold_the_last_positions(slots, length):
    expected = [[-1] * slots]
    for p in range(length):
        expected[0][p % slots] = p
    assert _filled(torch.tensor([length]), slots).tolist() == expected


def test_rows_can_be_reordered_and_go_on_as_the_others():
    layer = make()
    x = draw(3, 6, WIDTH)
    rows = torch.tensor([2, 0, 2])
    for cache in (layer.cache(3, 6), make(window=3).cache(3)):
        with torch.no_grad():
            layer.window = 3 if cache.ring else None
            layer(x[:, :4], cache, lengths=torch.tensor([4, 2, 3]))
            cache.reorder(rows)
            assert cache.lengths.tolist() == [3, 4, 3]
            y, _ = layer(x[:, 4:5], cache)
        for b, row in enumerate(rows.tolist()):
            text = torch.cat((x[row, : (4, 2, 3)[row]], x[b, 4:5]))
            assert_close(y[b, 0], layer(text.unsqueeze(0))[0][0, -1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("keep", [4, torch.tensor([4, 6]), torch.tensor([2, 9])])
def test_what_was_cropped_is_as_if_never_said(keep):
    layer = make()
    x, cache = draw(2, 8, WIDTH), layer.cache(2, 8)
    with torch.no_grad():
        layer(x, cache)
        cache.crop(keep)
        kept = (torch.ones(2, dtype=torch.long) * keep).clamp(max=8)
        assert torch.equal(cache.lengths, kept)
        room = 8 - kept
        new = draw(2, 3, WIDTH, seed=5)
        y, _ = layer(new, cache, lengths=room.clamp(max=3))
    for b in range(2):
        n = min(3, int(room[b]))
        text = torch.cat((x[b, : kept[b]], new[b, :n])).unsqueeze(0)
        assert_close(y[b, :n], layer(text)[0][0, kept[b] :], rtol=0, atol=1e-12)


def test_a_ring_is_cropped_only_while_it_is_not_full():
    layer = make(window=4)
    x, cache = draw(1, 9, WIDTH), layer.cache(1)
    with torch.no_grad():
        layer(x[:, :3], cache)
        cache.crop(2)
        layer(x[:, 2:4], cache)
        with pytest.raises(ValueError, match=r"lengths must be 0 or at least 4 in row 0.*got 3"):
            cache.crop(3)
        cache.crop(0)
        layer(x[:, :2], cache)
        y, _ = layer(x[:, 2:7], cache)
        assert_close(y, layer(x[:, :7])[0][:, 2:], rtol=0, atol=1e-12)
        with pytest.raises(ValueError, match=r"lengths must be 0 or at least 7 in row 0.*got 5"):
            cache.crop(5)
        cache.crop(7)
        assert cache.lengths.tolist() == [7]
        assert_close(layer(x[:, 7:], cache)[0], layer(x)[0][:, 7:], rtol=0, atol=1e-12)
        cache.crop(0)
        assert_close(layer(x, cache)[0], layer(x)[0], rtol=0, atol=1e-12)


def test_lengths_changed_behind_its_back_are_noticed():
    layer = make()
    x, cache = draw(1, 6, WIDTH), layer.cache(1, 6)
    with torch.no_grad():
        layer(x[:, :4], cache)
        cache.lengths.fill_(2)
        assert_close(layer(x[:, 2:3], cache)[0], layer(x[:, :3])[0][:, 2:])
        other = layer.cache(1, 6)
        layer(x[:, :5], other)
        cache.load_state_dict(other.state_dict())
        assert_close(layer(x[:, 5:], cache)[0], layer(x)[0][:, 5:])


@torch.inference_mode()
def test_a_cache_made_for_inference_alone():
    layer = make()
    x, cache = draw(2, 6, WIDTH), layer.cache(2, 6)
    assert_close(in_chunks(layer, x, [3, 1, 1, 1], cache)[0], layer(x)[0])
    cache.crop(2)
    for each in (copy.deepcopy(cache), cache):  # tensors of a copy have no version
        assert_close(in_chunks(layer, x[:, 2:], [1, 3], each)[0], layer(x)[0][:, 2:])


def test_a_cache_made_for_inference_is_changed_there_alone():
    new = draw(1, 1, 1, 2)
    with torch.inference_mode():
        cache = KVCache(1, 1, 4, 2, dtype=new.dtype)
        cache.extend(new, new)
    for tokens in (new, new.expand(1, 1, 2, 2)):
        with pytest.raises(RuntimeError, match="outside InferenceMode"):
            cache.extend(tokens, tokens)
        assert cache.lengths.tolist() == [1]
        assert cache.positions.tolist() == [[0, -1, -1, -1]]
    with torch.inference_mode():
        cache.extend(new, new)
    assert cache.lengths.tolist() == [2]


# Gradients


@pytest.mark.parametrize("positions", ["rotary", "learned", "none"])
@pytest.mark.parametrize("past", ["nothing", "segment", "cache"])
def test_gradients_are_those_of_finite_differences(positions, past):
    layer = make((2, 1), positions=positions, window=5, length=10)
    x, lengths = draw(2, 4, WIDTH).requires_grad_(), torch.tensor([4, 2])
    memory = {"nothing": None, "segment": layer.segment_memory(2, 3), "cache": layer.cache(2, 9)}
    with torch.no_grad():
        _, memory = layer(draw(2, 3, WIDTH, seed=3), memory[past])

    def function(x, *parameters):
        named = dict(zip(dict(layer.named_parameters()), parameters, strict=True))
        with torch.nn.utils.stateless._reparametrize_module(layer, named):
            return layer(x, copy.deepcopy(memory), lengths=lengths)[0]

    assert torch.autograd.gradcheck(function, (x, *layer.parameters()), fast_mode=True)


@pytest.mark.parametrize("start", [3, 5])
def test_gradients_through_a_call_are_those_of_the_whole_and_none_reach_the_past(start):
    layer = make()
    x = draw(1, 6, WIDTH).requires_grad_()
    past = x[:, :start].detach()
    (expected,) = torch.autograd.grad(
        layer(torch.cat((past, x[:, start:]), 1))[0][:, start:].square().sum(), x
    )
    for memory in (layer.cache(1, 6), layer.segment_memory(1, 6)):
        _, memory = layer(x[:, :start], memory)
        y, memory = layer(x[:, start:], memory)
        (got,) = torch.autograd.grad(y.square().sum(), x)
        assert_close(got, expected)
        assert not got[:, :start].any()
        assert not any(part.requires_grad for part in memory_parts(memory))
        _, memory = layer(x[:, :0], memory, lengths=torch.tensor([0]))
        assert not any(part.requires_grad for part in memory_parts(memory))


def memory_parts(memory):
    return list(memory.buffers()) if isinstance(memory, KVCache) else list(memory)


# What a module must bear


@pytest.mark.parametrize("positions", ["rotary", "learned", "none"])
def test_runs_on_meta(positions):
    layer = make(positions=positions, window=4, device="meta", dtype=torch.float32)
    assert all(p.is_meta for p in layer.parameters())
    lengths = torch.ones(2, dtype=torch.long, device="meta")
    memories = [None, layer.cache(2, 9), layer.cache(2), layer.segment_memory(2, 3)]
    for memory in memories:
        for tokens in (5, 1):
            for given_lengths in (None, lengths):
                x = torch.ones(2, tokens, WIDTH, device="meta")
                with torch.no_grad():
                    y, after, weights = layer(x, memory, lengths=given_lengths, need_weights=True)
                assert y.shape == x.shape
                assert weights.shape[:3] == (2, 2, tokens)
                assert all(part.is_meta for part in (y, *memory_parts(after or ())))
    assert layer.cache(2, 9).reorder(lengths) is None


@pytest.mark.parametrize("past", ["nothing", "segment", "cache", "half"])
def test_autocast(past):
    layer = make(dtype=torch.float32)
    x = draw(2, 6, WIDTH, dtype=torch.float32)
    expected = layer(x)[0]
    half = KVCache(2, 1, 6, 4, dtype=torch.bfloat16)
    memories = {"segment": layer.segment_memory(2, 6), "cache": layer.cache(2, 6), "half": half}
    memory = memories.get(past)
    with torch.autocast("cpu", torch.bfloat16):
        first, memory = layer(x[:, :5], memory)
        with torch.no_grad():
            last, memory = layer(x[:, 5:] if memory else x, memory)
    got = torch.cat((first, last), 1) if memory else last
    assert_close(got.float(), expected, rtol=0.1, atol=0.1)
    first.float().sum().backward()
    assert all(p.grad.isfinite().all() for p in layer.parameters())


@pytest.mark.parametrize("positions", ["rotary", "learned", "none"])
def test_copies_and_state_dicts_give_the_same(positions):
    layer, other = (make(positions=positions, seed=seed) for seed in (0, 1))
    x, cache = draw(2, 6, WIDTH), layer.cache(2, 6)
    with torch.no_grad():
        layer(x[:, :4], cache)
        saved, copied = layer.cache(2, 6), copy.deepcopy(cache)
        saved.load_state_dict(cache.state_dict())
        expected, _ = layer(x[:, 4:], cache)
        assert not torch.equal(other(x[:, 4:])[0], expected)
        other.load_state_dict(layer.state_dict())
        assert torch.equal(other(x[:, 4:], saved)[0], expected)
        assert torch.equal(copy.deepcopy(layer)(x[:, 4:], copied)[0], expected)
    assert "kv_heads=1" in repr(layer)
    assert repr(cache) == "KVCache(2, heads=1, slots=6, width=4, value_width=4, ring=False)"


def test_reset_parameters_draws_anew():
    layer = make(positions="learned")
    before = copy.deepcopy(layer.state_dict())
    layer.reset_parameters()
    assert not any(torch.equal(before[n], p) for n, p in layer.state_dict().items())


def test_a_layer_and_its_cache_move():
    layer, cache = make(dtype=torch.float32).double(), KVCache(2, 1, 6, 4).double()
    x = draw(2, 6, WIDTH)
    assert_close(in_chunks(layer, x, [2, 1, 3], cache)[0], layer(x)[0])
    assert cache.lengths.dtype == torch.long
    assert all(part.is_meta for part in cache.to("meta").buffers())


def test_nothing_at_all():
    layer = make(window=3)
    for batch, tokens in ((0, 4), (2, 0), (0, 1), (0, 0)):
        for memory in (
            None,
            layer.cache(batch, 5),
            layer.cache(batch),
            layer.segment_memory(batch),
        ):
            for lengths in (None, torch.zeros(batch, dtype=torch.long)):
                with torch.no_grad():
                    y, _, weights = layer(
                        draw(batch, tokens, WIDTH), memory, lengths=lengths, need_weights=True
                    )
                assert y.shape == (batch, tokens, WIDTH)
                assert weights.shape[:3] == (batch, 2, tokens)
    assert layer.segment_memory(2, 0).inputs.shape == (2, 0, WIDTH)
    cache = layer.cache(0, 5)
    cache.crop(0)
    cache.reorder(torch.zeros(0, dtype=torch.long))


def test_strides_do_not_matter():
    layer = make()
    x = draw(2, 6, WIDTH)
    turned = x.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    assert not turned.is_contiguous()
    assert_close(in_chunks(layer, turned, [4, 1, 1], layer.cache(2, 6))[0], layer(x)[0])


# Compiling


@pytest.fixture
def counting():
    """A backend that counts the graphs it is given."""
    torch._dynamo.reset()
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    return graphs, backend


@pytest.mark.needs_torch("2.13")
@pytest.mark.parametrize("window", [None, 6])
@torch.no_grad()
def test_two_compilations_however_long_it_grows(counting, window):
    graphs, backend = counting
    layer = make((4, 2), window=window)
    compiled = torch.compile(layer, backend=backend, fullgraph=True)
    x, cache = draw(2, 40, WIDTH), layer.cache(2, None if window else 40)
    parts, _ = in_chunks(compiled, x, [7] + [1] * 33, cache)
    assert_close(parts, layer(x)[0], rtol=0, atol=1e-12)
    assert len(graphs) == 2
    assert cache.lengths.tolist() == [40, 40]
    if not window:  # eager goes on where compiled stopped
        cache.crop(30)
        assert_close(layer(x[:, 30:], cache)[0], parts[:, 30:], rtol=0, atol=1e-12)


@pytest.mark.needs_torch("2.13")
@torch.no_grad()
def test_a_compiled_step_of_a_full_row_writes_nothing(counting):
    _, backend = counting
    cache = KVCache(2, 1, 3, 4, **DOUBLE)
    keys = draw(2, 1, 3, 4)
    cache.extend(keys, keys, lengths=torch.tensor([3, 1]))
    compiled = torch.compile(cache.extend, backend=backend, fullgraph=True)
    new = draw(2, 1, 1, 4, seed=2)
    compiled(new, new)
    assert cache.lengths.tolist() == [3, 2]
    assert torch.equal(cache.keys[0], keys[0])
    assert torch.equal(cache.keys[1, 0, 1], new[1, 0, 0])


@pytest.mark.needs_torch("2.13")
def test_a_compiled_layer_trains_alike():
    torch._dynamo.reset()
    layer = make((4, 2))
    x, memory = draw(2, 5, WIDTH), layer.segment_memory(2, 3)
    results = []
    for module in (layer, torch.compile(layer, backend="aot_eager", fullgraph=True)):
        layer.zero_grad()
        y, after = module(x, memory, lengths=torch.tensor([5, 3]))
        y.square().sum().backward()
        results.append([y, *after, *(p.grad.clone() for p in layer.parameters())])
    assert_close(results[1], results[0])


# Refusals: each names the rule and the value, and leaves the cache as it was

NAN = float("nan")
LAYER = make((2, 1), positions="learned", length=8, dtype=torch.float32)
X = torch.ones(2, 3, WIDTH)
KV = torch.ones(2, 1, 3, 4)


def full(**options):
    """A cache of 6 slots with 3 tokens in one row and 5 in the other."""
    cache = KVCache(2, 1, 6, 4, **options)
    keys = draw(2, 1, 5, 4, dtype=cache.keys.dtype)
    cache.extend(keys, -keys, lengths=torch.tensor([3, 5]))
    return cache


# fmt: off
REFUSALS = [
    (lambda: KVCache(-1, 1, 1, 1), ValueError, "batch_size must be at least 0; got -1"),
    (lambda: KVCache(1, 0, 1, 1), ValueError, "heads must be at least 1; got 0"),
    (lambda: KVCache(1, 1, 2.0, 1), TypeError, "slots must be an integer; got float"),
    (lambda: KVCache(1, 1, 1, 1, value_width=0), ValueError, "value_width must be at least 1; got 0"),
    (lambda: KVCache(1, 1, 1, 1, dtype=torch.int8), TypeError, "dtype must have a floating-point dtype; got torch.int8"),
    (lambda: MemoryAttention(0, 1), ValueError, "width must be at least 1; got 0"),
    (lambda: MemoryAttention(8, True), TypeError, "heads must be an integer; got bool"),
    (lambda: MemoryAttention(8, 3), ValueError, "width must be a multiple of heads; got width = 8, heads = 3"),
    (lambda: MemoryAttention(8, 4, 3), ValueError, "heads must be a multiple of kv_heads; got heads = 4, kv_heads = 3"),
    (lambda: MemoryAttention(6, 2), ValueError, "head_width must be even with rotary positions; got 3"),
    (lambda: MemoryAttention(8, 2, head_width=0), ValueError, "head_width must be at least 1; got 0"),
    (lambda: MemoryAttention(8, 2, positions="alibi"), ValueError, "positions must be one of rotary, learned, none; got 'alibi'"),
    (lambda: MemoryAttention(8, 2, window=0), ValueError, "window must be at least 1; got 0"),
    (lambda: MemoryAttention(8, 2, length=0), ValueError, "length must be at least 1; got 0"),
    (lambda: MemoryAttention(8, 2, base=0.5), ValueError, "base must be finite and at least 1; got 0.5"),
    (lambda: MemoryAttention(8, 2, dtype=torch.long), TypeError, "dtype must have a floating-point dtype; got torch.int64"),
    (lambda: LAYER.cache(2), ValueError, "slots must be given for a layer without a window; got None"),
    (lambda: LAYER.cache(2, 0), ValueError, "slots must be at least 1; got 0"),
    (lambda: LAYER.segment_memory(-1), ValueError, "batch_size must be at least 0; got -1"),
    (lambda: LAYER.segment_memory(1, -1), ValueError, "slots must be at least 0; got -1"),
    (lambda: LAYER(X.numpy()), TypeError, "x must be a torch.Tensor; got ndarray"),
    (lambda: LAYER(X.long()), TypeError, "x must have a floating-point dtype; got torch.int64"),
    (lambda: LAYER(X.double()), TypeError, "x must have the dtype of the parameters, torch.float32; got torch.float64"),
    (lambda: LAYER(X[0]), ValueError, "x must have shape (B, T, D) with D = 8; got (3, 8)"),
    (lambda: LAYER(X[..., 1:]), ValueError, "x must have shape (B, T, D) with D = 8; got (2, 3, 7)"),
    (lambda: LAYER(NAN * X), ValueError, "x must be finite where it is read; got NaN at (0, 0, 0)"),
    (lambda: LAYER(X, [1]), TypeError, "memory must be a KVCache, a SegmentMemory or None; got list"),
    (lambda: LAYER(X.expand(2, 3, 8).repeat(1, 3, 1)), ValueError, "positions must be below length = 8; got 8"),
    (lambda: LAYER(X, LAYER.segment_memory(2, 2)._replace(seen=torch.tensor([1, 7]))), ValueError, "positions must be below length = 8; got 9"),
    (lambda: LAYER(X, LAYER.segment_memory(3, 2)), ValueError, "memory.inputs must have shape (B, N, D) with B = 2, D = 8; got (3, 2, 8)"),
    (lambda: LAYER(X, SegmentMemory(X.double(), torch.zeros(2).long())), TypeError, "memory.inputs must have the dtype of x, torch.float32; got torch.float64"),
    (lambda: LAYER(X, SegmentMemory(NAN * X, torch.tensor([3, 3]))), ValueError, "memory must be finite where it is read; got NaN at (0, 0, 0)"),
    (lambda: LAYER(X, SegmentMemory(X, torch.zeros(2))), TypeError, "memory.seen must have dtype int64 or int32; got torch.float32"),
    (lambda: LAYER(X, SegmentMemory(X, torch.tensor([0, -1]))), ValueError, "memory.seen must be at least 0; got -1"),
    (lambda: LAYER(X, SegmentMemory(1, 2)), TypeError, "memory.inputs must be a torch.Tensor; got int"),
    (lambda: LAYER(X, lengths=[1, 2]), TypeError, "lengths must be a torch.Tensor; got list"),
    (lambda: LAYER(X, lengths=torch.tensor([4, 0])), ValueError, "lengths must be in [0, T = 3]; got 4"),
    (lambda: LAYER(X, lengths=torch.tensor([-1, 0])), ValueError, "lengths must be in [0, T = 3]; got -1"),
    (lambda: LAYER(X, lengths=torch.tensor([1])), ValueError, "lengths must have shape (B,) with B = 2; got (1,)"),
    (lambda: LAYER(X, lengths=torch.ones(2, device="meta").long()), ValueError, "lengths must be on device cpu; got meta"),
]
CACHED = [
    (lambda c: c.extend(KV, KV), ValueError, "new tokens must fit in the free slots, 1 of 6 in row 1; got 3"),
    (lambda c: c.extend(KV, KV, lengths=torch.tensor([3, 2])), ValueError, "new tokens must fit in the free slots, 1 of 6 in row 1; got 2"),
    (lambda c: c.extend(KV.numpy(), KV), TypeError, "keys must be a torch.Tensor; got ndarray"),
    (lambda c: c.extend(KV[:1], KV), ValueError, "keys must have shape (B, G, T, M) with B = 2, G = 1, M = 4; got (1, 1, 3, 4)"),
    (lambda c: c.extend(KV, KV[:, :, :2]), ValueError, "values must have shape (B, G, T, V) with B = 2, G = 1, T = 3, V = 4; got (2, 1, 2, 4)"),
    (lambda c: c.extend(KV.repeat(1, 2, 1, 1), KV), ValueError, "keys must have shape (B, G, T, M) with B = 2, G = 1, M = 4; got (2, 2, 3, 4)"),
    (lambda c: c.extend(KV.double(), KV.double()), TypeError, "keys must have the dtype of the cache, torch.float32; got torch.float64"),
    (lambda c: c.extend(KV, KV.half()), TypeError, "values must have the dtype of the cache, torch.float32; got torch.float16"),
    (lambda c: c.extend(KV.to("meta"), KV), ValueError, "keys must be on the device of the cache, cpu; got meta"),
    (lambda c: c.extend(NAN * KV[:, :, :1], KV[:, :, :1]), ValueError, "keys must be finite where it is read; got NaN at (0, 0, 0, 0)"),
    (lambda c: c.extend(KV[:, :, :1], KV[:, :, :1] / 0), ValueError, "values must be finite where it is read; got infinity at (0, 0, 0, 0)"),
    (lambda c: c.extend(KV, KV, lengths=torch.tensor([0, 4])), ValueError, "lengths must be in [0, T = 3]; got 4"),
    (lambda c: c.crop(-1), ValueError, "lengths must be at least 0; got -1"),
    (lambda c: c.crop(1.0), TypeError, "lengths must be an integer; got float"),
    (lambda c: c.crop(torch.tensor([1, -2])), ValueError, "lengths must be at least 0; got -2"),
    (lambda c: c.crop(torch.tensor([1])), ValueError, "lengths must have shape (B,) with B = 2; got (1,)"),
    (lambda c: c.reorder([1, 0]), TypeError, "rows must be a torch.Tensor; got list"),
    (lambda c: c.reorder(torch.tensor([0, 2])), ValueError, "rows must be in [0, B - 1 = 1]; got 2"),
    (lambda c: c.reorder(torch.tensor([0])), ValueError, "rows must have shape (B,) with B = 2; got (1,)"),
    (lambda c: LAYER(X, c), ValueError, "new tokens must fit in the free slots, 1 of 6 in row 1; got 3"),
    (lambda c: LAYER(X[:1], c), ValueError, "memory.keys must have shape (B, G, N, M) with B = 1, G = 1, N = 6, M = 4; got (2, 1, 6, 4)"),
    (lambda c: make(positions="learned")(X.double(), c), TypeError, "memory.keys must have the dtype of x, torch.float64; got torch.float32"),
    (lambda c: LAYER(NAN * X[:, :1], c), ValueError, "x must be finite where it is read; got NaN at (0, 0, 0)"),
    (lambda c: LAYER(X[:, :1] / 0, c), ValueError, "x must be finite where it is read; got infinity at (0, 0, 0)"),
    (lambda c: make((2, 2), dtype=torch.float32)(X, c), ValueError, "memory.keys must have shape (B, G, N, M) with B = 2, G = 2, N = 6, M = 4; got (2, 1, 6, 4)"),
    (lambda c: make((2, 1), head_width=6, dtype=torch.float32)(X, c), ValueError, "memory.keys must have shape (B, G, N, M) with B = 2, G = 1, N = 6, M = 6; got (2, 1, 6, 4)"),
    (lambda c: make((2, 1), positions="learned", length=5, dtype=torch.float32)(X[:, :1], c), ValueError, "positions must be below length = 5; got 5"),
]
RINGS = [
    (lambda c: make(dtype=torch.float32)(X, c), ValueError, "memory must be no ring for a layer without a window; got a ring of 6 slots"),
    (lambda c: make(window=7, dtype=torch.float32)(X, c), ValueError, "memory must be a ring of at least the 7 slots of the window; got a ring of 6 slots"),
]
# fmt: on


@pytest.mark.parametrize(("call", "kind", "message"), REFUSALS, ids=[m for _, _, m in REFUSALS])
def test_bad_input_is_refused(call, kind, message):
    with pytest.raises(kind, match=re.escape(message)) as caught:
        call()
    assert type(caught.value) is kind


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize(
    ("call", "kind", "message", "ring"),
    [(*row, False) for row in CACHED] + [(*row, True) for row in RINGS],
    ids=[m for _, _, m in CACHED + RINGS],
)
def test_a_refusal_leaves_the_cache_as_it_was(call, kind, message, ring, grad):
    cache = full(ring=ring)
    before = copy.deepcopy(cache.state_dict())
    with torch.set_grad_enabled(grad), pytest.raises(kind, match=re.escape(message)):
        call(cache)
    assert all(torch.equal(before[n], buffer) for n, buffer in cache.state_dict().items())


@torch.no_grad()
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("tokens", [1, 2])
def test_numbers_too_large_to_compare_leave_the_memory_as_it_was(window, tokens):
    """Found only in the result, when a token alone already lies in its slot."""
    layer = make(window=window, dtype=torch.float32)
    x, cache = draw(2, 8, WIDTH, dtype=torch.float32), layer.cache(2, None if window else 8)
    layer(x[:, :5], cache)
    with pytest.raises(ValueError, match="overflowed"):
        layer(1e30 * x[:, :tokens], cache)
    assert cache.lengths.tolist() == [5, 5]
    for lengths in (torch.tensor([1, 0]), torch.tensor([2, 3])):
        y, _ = layer(x[:, 5:], cache, lengths=lengths)
        for b, n in enumerate(lengths.tolist()):
            start = int(cache.lengths[b]) - n
            text = torch.cat((x[b, :5], x[b, 5 : 5 + start - 5], x[b, 5 : 5 + n])).unsqueeze(0)
            assert_close(y[b, :n], layer(text)[0][0, start:], rtol=0, atol=1e-5)
