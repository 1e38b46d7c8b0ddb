# ruff: noqa: E501  (a table of messages)
"""A cache that forgets: what stays is read as in the whole text, and rules say what stays."""

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

from memlib import Decoder, KVCache, MemoryAttention
from memlib.transformer import accumulate, forget, heavy_hitters, looked_at, sinks, window

DOUBLE = {"dtype": torch.float64}
EXACT = {"rtol": 0, "atol": 1e-12}
WIDTH, VOCAB, LAYERS = 8, 11, 2


def draw(*shape, seed=1, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def text(*shape, seed=1):
    return torch.randint(VOCAB, shape, generator=torch.Generator().manual_seed(seed))


def lively(module, seed=0):
    """A fresh model hardly tells tokens apart."""
    torch.manual_seed(seed)
    for name, parameter in module.named_parameters():
        if "norm" not in name:
            nn.init.normal_(parameter, std=0.5)
    return module


def make_model(heads=(4, 2), *, layers=LAYERS, dtype=torch.float64, **options):
    options = {"kv_heads": heads[1], "slots": 6, "length": 256, "dtype": dtype} | options
    return lively(Decoder(VOCAB, WIDTH, layers, heads[0], **options))


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.buffers(), other.buffers(), strict=True))


def held(cache):
    """The positions of each row's tokens, in the order of their slots."""
    return [[p for p in row if p >= 0] for row in cache.positions.tolist()]


# A model in one pass over the whole text, in which each token reads what it is told to read


def turned(x, position, base=10000.0):
    """Rotary angles as products of complex numbers, (H, T, M)."""
    half = x.shape[-1] // 2
    rates = base ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = position.double().unsqueeze(-1) * rates
    z = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat((z.real, z.imag), dim=-1)


def looks(layer, x, readable):
    """One layer: (T, D), (T, T) bool -> (T, D) and weights (H, T, T)."""
    tokens, position = len(x), torch.arange(len(x))
    marked = x if layer.table is None else x + layer.table[:tokens]

    def heads(linear, x):
        return linear(x).unflatten(-1, (-1, layer.head_width)).transpose(0, 1)

    query, keys = heads(layer.query, marked), heads(layer.key, marked)
    if layer.positions == "rotary":
        query, keys = turned(query, position), turned(keys, position)
    shared = layer.heads // layer.kv_heads
    keys, values = (part.repeat_interleave(shared, dim=0) for part in (keys, heads(layer.value, x)))
    scores = query @ keys.mT / math.sqrt(layer.head_width)
    weights = scores.masked_fill(~readable, -math.inf).softmax(-1)
    return layer.output((weights @ values).transpose(0, 1).flatten(1)), weights


def one_pass(model, tokens, readable):
    """(T,) and a (T, T) bool a layer -> logits (T, V) and a list of weights (H, T, T)."""
    x, weights = model.embedding[tokens], []
    for block, layer, mask in zip(model.blocks, model.attention, readable, strict=True):
        y, seen = looks(layer, block.attention_norm(x), mask)
        x = x + y
        x = x + block.feed_forward(block.feed_forward_norm(x))
        weights.append(seen)
    return model.norm(x) @ model.embedding.T, weights


def best(scores, places, n):
    """The positions of the n best, by sorting: {position: score}."""
    order = sorted(places, key=lambda p: (-scores[places.index(p)], p))
    return sorted(order[:n])


# each number is of a call, of one row: the tokens that the row gets, then how many are kept
CALLS = st.lists(
    st.tuples(st.tuples(*2 * [st.sampled_from([0, 1, 1, 2, 5])]), st.integers(0, 6)),
    min_size=1, max_size=8,
)  # fmt: skip
HEADS = st.sampled_from([(1, 1), (2, 2), (4, 2), (4, 1)])


@settings(max_examples=60)
@given(
    calls=CALLS,
    even=st.booleans(),
    side=st.sampled_from(["left", "right"]),
    positions=st.sampled_from(["rotary", "learned", "none"]),
    heads=HEADS,
    reach=st.none() | st.integers(1, 6),
    grad=st.booleans(),
    need_weights=st.booleans(),
)
@example(
    calls=[((5, 2), 3), ((1, 1), 6), ((1, 1), 2), ((2, 5), 4), ((1, 0), 0), ((1, 1), 3)],
    even=False, side="left", positions="rotary", heads=(4, 2), reach=None, grad=False,
    need_weights=True,
)  # fmt: skip
@example(
    calls=[((1, 1), 6)] * 3 + [((1, 1), 3)] * 5,
    even=True, side="left", positions="learned", heads=(4, 2), reach=4, grad=False,
    need_weights=False,
)  # fmt: skip
def test_what_stays_is_read_as_in_one_pass_over_the_text(
    calls, even, side, positions, heads, reach, grad, need_weights
):
    """Random scores, rows of different lengths: a layer reads what it held, and nothing else."""
    model = make_model(heads, positions=positions, window=reach)
    slots = 12
    cache, rows, said = model.cache(2, slots), [[], []], [[], []]
    seen, columns = [[], []], [[], []]
    may = [[[], []] for _ in model.blocks]  # for each layer and row, what each token may read
    for i, (counts, n) in enumerate(calls):
        counts = (counts[0],) * 2 if even else counts
        size = max(counts)
        ahead = torch.arange(size) if side == "right" else torch.arange(size).flip(0)
        mask = ahead < torch.tensor(counts).unsqueeze(1)
        tokens = text(2, size, seed=i)
        for layer, memory in zip(may, cache, strict=True):
            for b, places in enumerate(held(memory)):
                first = len(rows[b])
                for p in range(first, first + counts[b]):
                    layer[b].append([*places, *range(first, p + 1)])
        with torch.set_grad_enabled(grad):
            out = model(tokens, cache, mask=None if even else mask, need_weights=need_weights)
        for b in range(2):
            rows[b] += tokens[b, mask[b]].tolist()
            said[b].append(out[0][b, mask[b]])
            if need_weights:
                seen[b].append([w[b][:, mask[b]] for w in out[2]])
                columns[b].append([memory.positions[b].tolist() for memory in cache])
        for j, memory in enumerate(cache):
            scores = draw(2, slots, seed=100 * i + j).round(decimals=1)
            expected = [
                best([float(scores[b, memory.positions[b].tolist().index(p)]) for p in p_], p_, n)
                for b, p_ in enumerate(held(memory))
            ]
            memory.keep(scores, n)
            assert held(memory) == expected
            assert memory.lengths.tolist() == [len(row) for row in rows]
    for b, row in enumerate(rows):
        if not row:
            continue
        readable = torch.zeros(LAYERS, len(row), len(row), dtype=torch.bool)
        for layer, mask in zip(may, readable, strict=True):
            for p, places in enumerate(layer[b]):
                mask[p, [q for q in places if reach is None or p - q < reach]] = True
        logits, weights = one_pass(model, torch.tensor(row), readable)
        assert_close(torch.cat(said[b]), logits, **EXACT)
        p = 0
        for call, where in zip(seen[b], columns[b], strict=True):
            for got, places, whole in zip(call, where, weights, strict=True):
                whole = whole[:, p : p + got.shape[1]]
                for column in range(got.shape[2]):  # it is a slot
                    place = places[column]
                    its = whole[:, :, place] if place >= 0 else torch.zeros(1, **DOUBLE)
                    assert_close(got[:, :, column], its.expand(got.shape[:2]), **EXACT)
            p += call[0].shape[1]


# A cache, beside dictionaries


class Slow:
    """What a cache should hold: of each row {position: number}, and how many it has seen."""

    def __init__(self, batch, slots, ring):
        self.rows, self.seen = [{} for _ in range(batch)], [0] * batch
        self.slots, self.ring = slots, ring

    def extend(self, row, numbers):
        """Return for each new number the set of those that it may read."""
        known, first = dict(self.rows[row]), self.seen[row]
        known |= {first + i: number for i, number in enumerate(numbers)}
        self.seen[row] += len(numbers)
        places = sorted(known)
        self.rows[row] = {p: known[p] for p in (places[-self.slots :] if self.ring else places)}
        reach = self.slots if self.ring else math.inf
        queries = range(first, self.seen[row])
        return [{known[p] for p in places if p <= q and q - p < reach} for q in queries]

    def keep(self, row, scores, n):
        places = sorted(self.rows[row])
        order = sorted(places, key=lambda p: (-scores[p], p))[:n]
        self.rows[row] = {p: self.rows[row][p] for p in sorted(order)}

    def crop(self, row, length):
        self.seen[row] = min(self.seen[row], length)
        self.rows[row] = {p: x for p, x in self.rows[row].items() if p < length}


DEEDS = st.lists(
    st.one_of(
        st.tuples(st.just("extend"), st.tuples(*3 * [st.sampled_from([0, 1, 1, 2, 4])])),
        st.tuples(st.just("step"), st.none()),
        st.tuples(st.just("keep"), st.integers(0, 7)),
        st.tuples(st.just("crop"), st.integers(0, 8)),
        st.tuples(st.just("reorder"), st.tuples(*3 * [st.integers(0, 2)])),
        st.tuples(st.sampled_from(["copy", "load"]), st.none()),
    ),
    max_size=14,
)


@settings(max_examples=150)
@given(deeds=DEEDS, slots=st.integers(2, 7), ring=st.booleans(), grad=st.booleans())
@example(
    deeds=[("step", None)] * 6 + [("keep", 2)] + [("step", None)] * 6, slots=5, ring=True,
    grad=False,
)  # fmt: skip
def test_a_cache_holds_what_dictionaries_hold(deeds, slots, ring, grad):
    """Each token is its own number, so that it tells who it is wherever it lies."""
    cache, slow, number = KVCache(3, 1, slots, 1, ring=ring, **DOUBLE), Slow(3, slots, ring), 0
    for i, (deed, what) in enumerate(deeds):
        if deed in ("extend", "step"):
            counts = list(what or (1, 1, 1))
            if not ring:
                room = [slots - len(row) for row in slow.rows]
                counts = [min(c, r) for c, r in zip(counts, room, strict=True)]
            mask = torch.arange(max(counts)) < torch.tensor(counts).unsqueeze(1)
            x = torch.arange(mask.numel(), **DOUBLE).view(mask.shape) + number
            number += mask.numel()
            x = x[:, None, :, None].requires_grad_(grad)
            keys, values, readable = cache.extend(x, -x, mask=None if mask.all() else mask)
            assert torch.equal(keys, -values)
            shape = (3, 1, mask.shape[1], keys.shape[2])
            readable = torch.ones(shape) if readable is None else readable.expand(shape)
            for b in range(3):
                expected = slow.extend(b, x[b, 0, mask[b], 0].tolist())
                got = [set(keys[b, 0, look.bool(), 0].tolist()) for look in readable[b, 0, mask[b]]]
                assert got == expected
        elif deed == "keep":
            scores = draw(3, slots, seed=i).round(decimals=0)
            before = cache.keys.clone()
            for b, places in enumerate(cache.positions.tolist()):
                of = {p: float(scores[b, s]) for s, p in enumerate(places) if p >= 0}
                slow.keep(b, of, what)
            stay = cache.keep(scores, what)
            assert stay.shape == (3, min(what, slots))
            moved = before[:, 0, :, 0].gather(1, stay)
            assert torch.equal(cache.keys[:, 0, : stay.shape[1], 0], moved)
        elif deed == "crop":
            if ring and any(seen >= slots and what < seen for seen in slow.seen):
                what = 0
            cache.crop(what)
            for b in range(3):
                slow.crop(b, what)
        elif deed == "reorder":
            cache.reorder(torch.tensor(what))
            slow.rows = [dict(slow.rows[b]) for b in what]
            slow.seen = [slow.seen[b] for b in what]
        elif deed == "copy":
            cache = copy.deepcopy(cache)
        else:
            fresh = KVCache(3, 1, slots, 1, ring=ring, **DOUBLE)
            fresh.load_state_dict(cache.state_dict())
            cache = fresh
        assert cache.lengths.tolist() == slow.seen
        for b, row in enumerate(slow.rows):
            filled = cache.positions[b] >= 0
            numbers = cache.keys[b, 0, filled, 0].tolist()
            got = dict(zip(cache.positions[b, filled].tolist(), numbers, strict=True))
            assert got == row


# Nothing dropped, nothing changed


@torch.no_grad()
@pytest.mark.parametrize("positions", ["rotary", "learned", "none"])
@pytest.mark.parametrize(("reach", "ring"), [(None, False), (6, False), (6, True)])
def test_where_nothing_is_dropped_no_bit_changes(positions, reach, ring):
    model = make_model(positions=positions, window=reach)
    slots = None if ring else 24
    mine, its = model.cache(2, slots), model.cache(2, slots)
    mask = torch.tensor([[True] * 5, [False] * 3 + [True] * 2])
    calls = [(text(2, 5), mask), *((text(2, 1, seed=i), None) for i in range(9))]
    calls += [(text(2, 4), None), (text(2, 1), mask[:, :1])]
    for tokens, these in calls:
        n = 99 if ring else int((its[0].positions >= 0).sum(1).max())
        for cache in mine:
            before = copy.deepcopy(cache)
            stay = cache.keep(draw(2, cache.slots), n)
            assert same(cache, before)
            assert torch.equal(stay, torch.arange(min(n, cache.slots)).expand(2, -1))
        rows = torch.tensor([1, 0])
        for cache in (*mine, *its):
            cache.reorder(rows)
        y, _ = model(tokens, mine, mask=these)
        assert torch.equal(y, model(tokens, its, mask=these)[0])
        assert all(same(a, b) for a, b in zip(mine, its, strict=True))


@torch.no_grad()
@pytest.mark.parametrize("positions", ["rotary", "learned", "none"])
@pytest.mark.parametrize("layers", [1, 3])
def test_the_window_rule_is_the_ring_is_the_layer_with_a_window(positions, layers):
    """With a token a call, in any number of layers: a ring of N slots overwrites before it reads.

    So the cache that forgets keeps N - 1 tokens and reads the N-th with them.
    """
    size, tokens = 5, text(2, 20)
    options = {"layers": layers, "positions": positions}
    model, narrow = make_model(**options), make_model(window=size, **options)
    whole, _ = narrow(tokens)
    ring, cache, said = narrow.cache(2), model.cache(2, size), []
    for new in tokens.split(1, dim=1):
        forget(cache, size - 1, window)
        said.append(model(new, cache)[0])
        assert_close(said[-1], narrow(new, ring)[0], **EXACT)
        for mine, its in zip(cache, ring, strict=True):
            assert held(mine) == [sorted(row) for row in held(its)]
    assert_close(torch.cat(said, dim=1), whole, **EXACT)


@torch.no_grad()
def test_several_tokens_at_once_read_what_was_held_and_each_other():
    """Which a window does not allow: that is what a rule and a window differ in."""
    model, narrow = make_model(layers=1), make_model(layers=1, window=5)
    tokens, cache = text(1, 12), model.cache(1, 10)
    first, _ = model(tokens[:, :6], cache)
    forget(cache, 4, window)
    rest, _ = model(tokens[:, 6:], cache)
    readable = torch.ones(12, 12, dtype=torch.bool).tril()
    readable[6:, :2] = False
    assert_close(torch.cat((first, rest), 1)[0], one_pass(model, tokens[0], [readable])[0], **EXACT)
    assert not torch.allclose(rest, narrow(tokens)[0][:, 6:])


@torch.no_grad()
def test_a_row_that_has_seen_a_thousand_tokens_takes_as_many_as_it_has_slots_free():
    cache, step = KVCache(1, 1, 96, 2), torch.randn(1, 1, 8, 2)
    for _ in range(125):
        cache.keep(window(cache), 64)
        cache.extend(step, step)
    cache.keep(window(cache), 64)
    assert (cache.lengths.tolist(), held(cache)[0]) == ([1000], list(range(936, 1000)))
    for _ in range(4):
        cache.extend(step, step)
    assert held(cache)[0] == list(range(936, 1032))
    with pytest.raises(ValueError, match=re.escape("0 of 96 in row 0; got 1")):
        cache.extend(step[:, :, :1], step[:, :, :1])


@torch.no_grad()
def test_decoding_stays_on_its_fast_path():
    """A step after `keep` gets the slots themselves, without a copy and without a mask."""
    cache, step = KVCache(2, 1, 12, 2), torch.randn(2, 1, 1, 2)
    for i in range(30):
        cache.keep(sinks(cache, 1), 8 if i % 4 == 0 else 99)
        held_ = int((cache.positions[0] >= 0).sum())
        keys, _, mask = cache.extend(step, step)
        assert mask is None
        assert keys.data_ptr() == cache.keys.data_ptr()
        assert keys.shape[2] == held_ + 1
        cache.reorder(torch.tensor([1, 0]))  # beams that go on in step
    assert cache.lengths.tolist() == [30, 30]


# Rules


@pytest.mark.parametrize("lengths", [(9, 9), (9, 3), (0, 1)])
@pytest.mark.parametrize("first", [0, 2, 4])
def test_window_and_sinks_are_slices(lengths, first):
    for n in range(8):
        for rule, few in ((window, 0), (lambda cache: sinks(cache, first), min(first, n))):
            cache, x = KVCache(2, 1, 10, 2), torch.randn(2, 1, 9, 2)
            cache.extend(x, x, lengths=torch.tensor(lengths))
            cache.keep(rule(cache), n)
            for row, length in zip(held(cache), lengths, strict=True):
                places = list(range(length))
                rest = n - few
                expected = places
                if length > n:
                    expected = places[:few] + (places[-rest:] if rest else [])
                assert row == expected


def streaming(past, start, recent):
    """Which tokens StreamingLLM's cache keeps: the first and the last, if there are more."""
    return past if len(past) <= start + recent else past[:start] + past[-recent:]


def test_sinks_token_by_token_are_those_of_streaming_llm():
    cache, step, past = KVCache(1, 1, 12, 2), torch.randn(1, 1, 1, 2), []
    for position in range(40):
        past = streaming(past, 4, 7)
        cache.keep(sinks(cache), 11)
        assert held(cache) == [past]
        cache.extend(step, step)
        past = [*past, position]


@torch.no_grad()
@pytest.mark.parametrize("size", [(1, 1), (1, 3), (4, 1)])
def test_heavy_hitters_are_those_with_the_most_weight_in_all(size):
    """H2O's greedy choice after every call, its sums kept by position in dictionaries."""
    first, chunk = size
    model, tokens, n, recent = make_model(layers=2), text(2, 21), 6, 2
    cache, totals = model.cache(2, n + max(size)), [None] * 2
    sums = [[{}, {}] for _ in range(2)]
    for new in (tokens[:, :first], *tokens[:, first:].split(chunk, dim=1)):
        _, cache, weights = model(new, cache, need_weights=True)
        totals = [accumulate(*its) for its in zip(cache, weights, totals, strict=True)]
        for mine, memory, w in zip(sums, cache, weights, strict=True):
            for b, row in enumerate(mine):
                for slot, p in enumerate(memory.positions[b, : w.shape[-1]].tolist()):
                    if p >= 0:
                        row[p] = row.get(p, 0.0) + float(w[b, :, :, slot].sum())
        stay = forget(cache, n, heavy_hitters, totals, [recent] * 2)
        totals = [total.gather(1, slots) for total, slots in zip(totals, stay, strict=True)]
        for mine, memory, total in zip(sums, cache, totals, strict=True):
            for b, row in enumerate(mine):
                newest = sorted(row)[-recent:]
                older = sorted((p for p in row if p not in newest), key=lambda p: -row[p])
                left = set(newest) | set(older[: max(0, n - len(newest))])
                mine[b] = {p: row[p] for p in sorted(left)}
                assert held(memory)[b] == sorted(left)
                expected = torch.tensor(list(mine[b].values()), **DOUBLE)
                assert_close(total[b, : len(expected)], expected, **EXACT)
    assert all(memory.lengths.tolist() == [21, 21] for memory in cache)


def snap(weights, last, pool, n):
    """SnapKV's choice for one head, as its authors compute it: (T, T) weights -> positions."""
    tokens = len(weights)
    sums = weights[-last:, : tokens - last].sum(0)
    means = F.avg_pool1d(sums[None, None], pool, stride=1, padding=pool // 2)[0, 0]
    chosen = means.topk(n - last).indices.sort().values
    return [*chosen.tolist(), *range(tokens - last, tokens)]


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(("last", "pool"), [(1, 1), (3, 5), (4, 3)])
def test_looked_at_is_what_snap_kv_chooses(side, last, pool):
    """In each row as in the row alone; for several heads, whose sums count together."""
    model, n, lengths = make_model(layers=2), 9, (20, 13)
    ahead = torch.arange(20) if side == "right" else torch.arange(20).flip(0)
    mask, tokens = ahead < torch.tensor(lengths).unsqueeze(1), text(2, 20)
    _, cache, weights = model(tokens, model.cache(2, 24), mask=mask, need_weights=True)
    forget(cache, n, lambda cache, w: looked_at(cache, w, last, pool), weights)
    for b, length in enumerate(lengths):
        readable = torch.ones(2, length, length, dtype=torch.bool).tril()
        _, whole = one_pass(model, tokens[b, mask[b]], readable)
        for memory, w in zip(cache, whole, strict=True):
            assert held(memory)[b] == snap(w.sum(0), last, pool, n)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_small_weights_add_up_in_half_precision(dtype):
    """In bfloat16 the sum would stop at 4, since 4 + 1 / 64 is 4."""
    cache, weights, total = KVCache(1, 1, 2, 2), torch.full((1, 1, 1, 2), 1 / 64, dtype=dtype), None
    for _ in range(640):
        total = accumulate(cache, weights, total)
    assert torch.equal(total, torch.full((1, 2), 10.0))
    assert looked_at(cache, weights.expand(1, 1, 640, 2), 640, 1)[0, 0] == 10


def test_rules_of_your_own_and_a_single_cache():
    cache, x = KVCache(1, 1, 8, 2), torch.randn(1, 1, 6, 2)
    cache.extend(x, x)
    (stay,) = forget(cache, 2, lambda cache: -window(cache))
    assert stay.tolist() == held(cache) == [[0, 1]]


def test_infinite_scores_and_ties():
    inf = math.inf
    cache, x = KVCache(1, 1, 8, 2), torch.randn(1, 1, 6, 2)
    cache.extend(x, x)
    scores = torch.tensor([[-inf, 1, 1, inf, -inf, 1, math.nan, inf]])  # two free slots
    for n, places in ((5, [0, 1, 2, 3, 5]), (3, [1, 2, 3]), (1, [3])):
        twin = copy.deepcopy(cache)
        twin.keep(scores, n)
        assert held(twin) == [places]


# Beside the caches of the transformers package


@torch.no_grad()
@pytest.mark.parametrize("kind", ["DynamicSlidingWindowLayer", "StaticSlidingWindowLayer"])
def test_window_beside_transformers(kind):
    caches = pytest.importorskip("transformers.cache_utils")
    size, x = 5, draw(2, 14, 2, 3, 4)  # keys and values, T, B, G, M
    options = {"sliding_window": size}
    if kind.startswith("Static"):
        options["max_cache_len"] = 32
    peer, cache = getattr(caches, kind)(**options), KVCache(2, 3, size, 4, **DOUBLE)
    for t in range(14):
        cache.keep(window(cache), size - 1)
        new = x[:, t].unsqueeze(3)  # (2, B, G, 1, M)
        keys, values, _ = cache.extend(*new)
        theirs = peer.update(*new)
        count = min(t + 1, size)
        for mine, its in zip((keys, values), theirs, strict=True):
            assert torch.equal(mine, its[:, :, :count])


# What modules must bear


@pytest.mark.needs_torch("2.13")
@torch.no_grad()
@pytest.mark.parametrize("inside", [False, True])
def test_compiled_decoding_takes_two_compilations_with_keeps_in_between(inside):
    torch._dynamo.reset()
    model, graphs = make_model(), []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    def step(tokens, cache):
        logits, _ = model(tokens, cache)
        if inside:
            forget(cache, 7, sinks)
        return logits

    compiled = torch.compile(step, backend=backend, fullgraph=True)
    mine, its = model.cache(2, 12), model.cache(2, 12)
    for i, tokens in enumerate((text(2, 5), *text(2, 12, seed=2).split(1, dim=1))):
        assert_close(compiled(tokens, mine), step(tokens, its), **EXACT)
        assert len(graphs) <= 1 + (i > 0)
        if not inside and i % 3 == 0:
            for cache in (mine, its):
                forget(cache, 6, sinks)
        assert [held(cache) for cache in mine] == [held(cache) for cache in its]


@torch.no_grad()
def test_a_copy_of_what_was_kept_goes_on_as_its_original():
    model = make_model()
    caches = model.cache(2, 12)
    model(text(2, 9), caches, lengths=torch.tensor([9, 4]))
    forget(caches, 5, sinks)
    twins = copy.deepcopy(caches)
    loaded = model.cache(2, 12)
    for fresh, cache in zip(loaded, caches, strict=True):
        fresh.load_state_dict(cache.state_dict())
    for tokens in (text(2, 1), text(2, 3), text(2, 1, seed=4)):
        expected = model(tokens, caches)[0]
        assert torch.equal(model(tokens, twins)[0], expected)
        assert torch.equal(model(tokens, loaded)[0], expected)


@torch.no_grad()
def test_runs_on_meta():
    model = Decoder(VOCAB, WIDTH, 2, 2, device="meta")
    cache, totals = model.cache(2, 12), None
    tokens = torch.zeros(2, 5, dtype=torch.long, device="meta")
    _, cache, weights = model(tokens, cache, need_weights=True)
    for memory, w in zip(cache, weights, strict=True):
        totals = accumulate(memory, w)
        for scores in (
            window(memory), sinks(memory), heavy_hitters(memory, totals), looked_at(memory, w),
        ):  # fmt: skip
            assert scores.is_meta
            assert memory.keep(scores, 4).is_meta


@pytest.mark.parametrize("batch", [0, 2])
def test_rows_of_nothing(batch):
    cache = KVCache(batch, 1, 6, 2)
    for n in (0, 3, 9):
        assert cache.keep(sinks(cache), n).shape == (batch, min(n, 6))
    x = torch.randn(batch, 1, 4, 2)
    cache.extend(x, x)
    cache.keep(window(cache), 0)
    assert cache.lengths.tolist() == [4] * batch
    cache.extend(x, x)  # at the positions that follow
    assert held(cache) == [[4, 5, 6, 7]] * batch


# Refusals

GOOD = torch.zeros(2, 6)
W = torch.full((2, 3, 2, 2), 0.5)


def filled(ring=False):
    cache = KVCache(2, 1, 6, 2, ring=ring)
    x = draw(2, 1, 5, 2, dtype=torch.float32)
    cache.extend(x, x, lengths=torch.tensor([5, 3]))
    return cache


# fmt: off
REFUSALS = [
    (lambda c: c.keep(GOOD.tolist(), 2), TypeError, "scores must be a torch.Tensor; got list"),
    (lambda c: c.keep(GOOD.long(), 2), TypeError, "scores must have a floating-point dtype; got torch.int64"),
    (lambda c: c.keep(GOOD[:1], 2), ValueError, "scores must have shape (B, N) with B = 2, N = 6; got (1, 6)"),
    (lambda c: c.keep(GOOD[:, 1:], 2), ValueError, "scores must have shape (B, N) with B = 2, N = 6; got (2, 5)"),
    (lambda c: c.keep(GOOD.to("meta"), 2), ValueError, "scores must be on the device of the cache, cpu; got meta"),
    (lambda c: c.keep(GOOD.index_fill(1, torch.tensor(2), math.nan), 2), ValueError, "scores must be numbers; got NaN at (0, 2)"),
    (lambda c: c.keep(GOOD, -1), ValueError, "n must be at least 0; got -1"),
    (lambda c: c.keep(GOOD, 2.0), TypeError, "n must be an integer; got float"),
    (lambda c: window(c.positions), TypeError, "cache must be a KVCache; got Tensor"),
    (lambda c: sinks(c, -1), ValueError, "first must be at least 0; got -1"),
    (lambda c: sinks(c, 1.0), TypeError, "first must be an integer; got float"),
    (lambda c: accumulate(c, W[0]), ValueError, "weights must have shape (B, H, T, N) with B = 2; got (3, 2, 2)"),
    (lambda c: accumulate(c, W.long()), TypeError, "weights must have a floating-point dtype; got torch.int64"),
    (lambda c: accumulate(c, torch.ones(2, 3, 2, 7)), ValueError, "weights must have a column a slot, at most 6; got 7"),
    (lambda c: accumulate(c, W, GOOD.double()), TypeError, "total must have the dtype of the sum, torch.float32; got torch.float64"),
    (lambda c: accumulate(c, W, GOOD[:1]), ValueError, "total must have shape (B, N) with B = 2; got (1, 6)"),
    (lambda c: accumulate(c, W, torch.zeros(2, 7)), ValueError, "total must have at most N = 6 slots; got 7"),
    (lambda c: heavy_hitters(c, GOOD[:, 1:]), ValueError, "total must have shape (B, N) with B = 2, N = 6; got (2, 5)"),
    (lambda c: heavy_hitters(c, GOOD, -1), ValueError, "recent must be at least 0; got -1"),
    (lambda c: looked_at(c, W, 0), ValueError, "last must be at least 1; got 0"),
    (lambda c: looked_at(c, W, pool=4), ValueError, "pool must be odd; got 4"),
    (lambda c: forget(c, 2, window, []), ValueError, "details must be 1, one a layer; got 0"),
    (lambda c: forget([c, None], 2, window), TypeError, "cache must be a KVCache; got NoneType"),
    (lambda c: forget([c, c], 2, lambda c, x: x, [GOOD, GOOD[0]]), ValueError, "scores must have shape"),
]
# fmt: on


@pytest.mark.parametrize(("call", "kind", "message"), REFUSALS, ids=[m for _, _, m in REFUSALS])
def test_bad_input_is_refused_and_nothing_changes(call, kind, message):
    cache = filled()
    before = copy.deepcopy(cache)
    with pytest.raises(kind, match=re.escape(message)) as caught:
        call(cache)
    assert type(caught.value) is kind
    assert same(cache, before)


@torch.no_grad()
def test_a_ring_that_gets_several_tokens_gives_no_weight_a_slot():
    layer = lively(MemoryAttention(WIDTH, 2, window=4, **DOUBLE))
    cache = layer.cache(1)
    for tokens, refused in ((3, False), (1, False), (2, True), (1, False)):
        _, _, weights = layer(draw(1, tokens, WIDTH), cache, need_weights=True)
        if refused:
            with pytest.raises(ValueError, match="weights must have a column a slot"):
                accumulate(cache, weights)
        else:
            total = accumulate(cache, weights)
            assert_close(total.sum(), torch.tensor(2.0 * tokens, **DOUBLE), **EXACT)
            assert torch.equal(total > 0, cache.positions >= 0)
