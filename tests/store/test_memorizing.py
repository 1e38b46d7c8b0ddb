# ruff: noqa: E501  (a table of messages)
"""A layer and a language model with a store, against plain loops and against each other."""

import copy
import math
import re

import pytest
import torch
from torch.testing import assert_close

from memlib import read
from memlib.store import MemorizingAttention, Recollection, Store, knn_lm

NAN = float("nan")
DOUBLE = {"dtype": torch.float64}
WIDTH = 8


def draw(*shape, seed=1, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def make(heads=(2, 1), *, seed=0, **options):
    torch.manual_seed(seed)
    layer = MemorizingAttention(WIDTH, *heads, **{"k": 3, "dtype": torch.float64} | options)
    torch.nn.init.normal_(layer.gate)
    return layer


def by_loops(layer, segments, slots, measure):
    """One row, a list of (T, D): each head of each token reads the text at hand and its k nearest."""
    local = layer.local
    shared, width = local.heads // local.kv_heads, local.head_width

    def head(linear, x, h):
        return (linear.weight @ x)[h * width : (h + 1) * width]

    def turn(y, t):
        if local.positions != "rotary":
            return y
        pairs = torch.view_as_complex(torch.stack((y[: width // 2], y[width // 2 :]), -1))
        angles = t * local.base ** (-2 * torch.arange(width // 2, **DOUBLE) / width)
        turned = pairs * torch.polar(torch.ones_like(angles), angles)
        return torch.cat((turned.real, turned.imag))

    def similar(query, key):
        if measure == "cosine":
            return query @ key / query.norm() / key.norm()
        return query @ key / math.sqrt(width)

    remembered, seen, outputs = [[] for _ in range(local.kv_heads)], [], []
    for x in segments:
        start = len(seen)
        seen += list(x)
        for t in range(start, len(seen)):
            first = max(0, start - slots, 0 if local.window is None else t + 1 - local.window)
            heads = []
            for h in range(local.heads):
                g, query = h // shared, head(local.query, seen[t], h)
                keys = [turn(head(local.key, seen[i], g), i) for i in range(first, t + 1)]
                values = [head(local.value, seen[i], g) for i in range(first, t + 1)]
                scores = torch.stack([turn(query, t) @ key / math.sqrt(width) for key in keys])
                near = scores.softmax(0) @ torch.stack(values)
                if remembered[g]:
                    scores = torch.stack([similar(query, key.detach()) for key, _ in remembered[g]])
                    scores, best = scores.topk(min(layer.k, len(scores)))
                    found = torch.stack([remembered[g][i][1].detach() for i in best.tolist()])
                    gate = layer.gate[h].sigmoid()
                    near = gate * ((layer.strength * scores).softmax(0) @ found) + (1 - gate) * near
                heads.append(near)
            outputs.append(local.output.weight @ torch.cat(heads))
        for g in range(local.kv_heads):
            remembered[g] += [(head(local.key, i, g), head(local.value, i, g)) for i in x]
    return torch.stack(outputs)


@pytest.mark.parametrize("heads", [(1, 1), (4, 2)])
@pytest.mark.parametrize("positions", ["rotary", "none"])
@pytest.mark.parametrize(("slots", "window"), [(0, None), (3, None), (4, 3)])
@pytest.mark.parametrize("measure", ["scaled_dot", "cosine"])
def test_parity_with_plain_loops_and_gradients(heads, positions, slots, window, measure):
    layer = make(heads, positions=positions, window=window, strength=2.0)
    memory = layer.memory(2, slots, measure=measure)
    segments = [draw(2, t, WIDTH, seed=t).requires_grad_() for t in (4, 1, 5, 3)]
    outputs = []
    for x in segments:
        y, memory = layer(x, memory)
        outputs.append(y)
    together = torch.cat(outputs, dim=1)
    expected = [by_loops(layer, [x[row] for x in segments], slots, measure) for row in (0, 1)]
    assert_close(together, torch.stack(expected))
    given = [*segments[-1:], *layer.parameters()]
    last = together[:, -3:].square().sum()
    expected = torch.stack(expected)[:, -3:].square().sum()
    # the segment before is read without gradient, which the loops do not say
    if not slots:
        assert_close(torch.autograd.grad(last, given), torch.autograd.grad(expected, given))
    assert memory.store.lengths.tolist() == [13] * 2 * layer.local.kv_heads


def test_with_an_empty_store_it_is_memory_attention():
    layer = make((4, 2))
    x = draw(2, 6, WIDTH)
    assert_close(layer(x)[0], layer.local(x)[0])
    y, memory = layer(x[:, :4], layer.memory(2, slots=4))
    expected, segment = layer.local(x[:, :4], layer.local.segment_memory(2, 4))
    assert_close(y, expected)
    assert_close(memory.segment, segment)


def test_with_an_open_gate_and_all_pairs_it_is_attention_to_all_before():
    """Without positions, the store of the past is the cache of the past."""
    layer = make((2, 2), k=6, positions="none")
    torch.nn.init.constant_(layer.gate, 99.0)
    x = draw(2, 7, WIDTH)
    _, memory = layer(x[:, :6])
    y, _ = layer(x[:, 6:], memory)
    local, cache = layer.local, layer.local.cache(2, 9)
    with torch.no_grad():
        _, cache = local(x[:, :6], cache)
        query = local.query(x[:, 6:]).unflatten(-1, (2, -1)).transpose(1, 2)
        scores = query @ cache.keys[:, :, :6].mT / 2
        expected = scores.softmax(-1) @ cache.values[:, :, :6]
    assert_close(y, local.output(expected.transpose(1, 2).flatten(2)))


def test_lengths_are_those_of_single_runs_and_padding_is_never_stored():
    layer = make((2, 1))
    lengths = torch.tensor([[4, 2, 0], [1, 3, 5]])
    segments = [draw(3, 5, WIDTH, seed=s) for s in (3, 4)]
    memory = layer.memory(3, slots=2)
    for x, most in zip(segments, lengths, strict=True):
        x = torch.where(torch.arange(5)[:, None] < most[:, None, None], x, NAN)
        y, memory = layer(x, memory, lengths=most)
        assert not y[torch.arange(5) >= most[:, None]].any()
    for row in range(3):
        alone = layer.memory(1, slots=2)
        for x, most in zip(segments, lengths[:, row].tolist(), strict=True):
            expected, alone = layer(x[row : row + 1, :most], alone)
        assert_close(y[row : row + 1, : lengths[1, row]], expected)
        assert_close(memory.segment.inputs[row : row + 1], alone.segment.inputs)
    assert memory.store.lengths.tolist() == lengths.sum(0).tolist()


def test_where_it_looked():
    layer = make((4, 2))
    memory = layer.memory(2, slots=3)
    x = draw(2, 5, WIDTH)
    _, memory, looks = layer(x, memory, need_weights=True)
    assert not looks.far.any()
    assert (looks.ids == -1).all()
    _, after, looks = layer(x, memory, need_weights=True)
    assert looks.near.shape == (2, 4, 5, 8)
    assert looks.ids.shape == looks.far.shape == (2, 4, 5, 3)
    assert_close(looks.far.sum(-1), torch.ones(2, 4, 5, **DOUBLE))
    assert looks.ids.min() >= 0
    assert looks.ids.max() < 5
    # the same tokens again, so that each head of keys has the same
    query = layer.local.query(x).unflatten(-1, (4, -1)).transpose(1, 2)
    keys = layer.local.key(x).unflatten(-1, (2, -1)).transpose(1, 2).repeat_interleave(2, 1)
    assert torch.equal(looks.ids, (query @ keys.mT).topk(3).indices)
    assert after.store is memory.store


def test_capacity_and_backends_belong_to_the_store():
    layer = make((2, 2))
    plain, graph = layer.memory(2, capacity=12), layer.memory(2, capacity=12, backend="hnsw")
    with torch.no_grad():
        for seed in range(4):
            x = draw(2, 5, WIDTH, seed=seed)
            y, plain = layer(x, plain)
            again, graph = layer(x, graph)
            assert_close(y, again)
    assert plain.store.lengths.tolist() == [12] * 4


def test_gradients():
    layer = make((2, 1))
    _, memory = layer(draw(2, 5, WIDTH))
    x = draw(2, 3, WIDTH, seed=2).requires_grad_()
    parameters = list(layer.parameters())

    def function(x, *_):
        return layer(x, copy.deepcopy(memory))[0]

    assert torch.autograd.gradcheck(function, (x, *parameters))


def test_training_opens_the_gate_for_what_only_the_store_knows():
    """Half of each token is asked for by its other half, which came with it a segment before."""
    torch.manual_seed(0)
    layer = MemorizingAttention(16, 1, k=16, positions="none")
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.01)
    losses = []
    for _ in range(300):
        past = torch.randn(8, 16, 16)
        with torch.no_grad():
            _, memory = layer(past)
        question, answer = past * (torch.arange(16) < 8), past[..., 8:]
        y, _ = layer(question, memory)
        loss = (y[..., 8:] - answer).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) / 10 < 0.7  # 1 is what can be had without the store
    assert layer.gate.sigmoid() > 0.8


def test_sizes_of_0_and_meta_and_autocast():
    layer = make((2, 1))
    y, memory = layer(draw(2, 0, WIDTH), layer.memory(2, slots=2))
    assert y.shape == (2, 0, WIDTH)
    assert memory.store.lengths.tolist() == [0, 0]
    y, memory, _ = layer(draw(0, 3, WIDTH), need_weights=True)
    assert y.shape == (0, 3, WIDTH)
    layer = make((2, 1), device="meta")
    x = torch.empty(2, 5, WIDTH, device="meta", **DOUBLE)
    y, memory = layer(x)
    y, memory = layer(x, memory)
    assert y.is_meta
    assert y.shape == x.shape
    layer = make((2, 1), dtype=torch.float32)
    x = draw(2, 5, WIDTH, dtype=torch.float32)
    expected, _ = layer(x, layer(x)[1])
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = layer(x, layer(x)[1])
    assert_close(y.float(), expected, rtol=0.1, atol=0.1)


def test_it_is_a_module_like_others():
    layer, other = make((2, 1)), make((2, 1), seed=1)
    x = draw(2, 5, WIDTH)
    other.load_state_dict(layer.state_dict())
    assert_close(other(x)[0], layer(x)[0])
    assert_close(copy.deepcopy(layer)(x)[0], layer(x)[0])
    torch.manual_seed(0)
    layer.reset_parameters()
    fresh = make((2, 1), seed=0)
    assert_close(layer.local.state_dict(), fresh.local.state_dict())
    assert layer.gate.tolist() == [0.0, 0.0]
    assert "k=3, strength=1.0" in repr(layer)


# The language model


def tokens_and_keys(batch=2, pairs=20, vocab=7, **options):
    store = Store(3, 1, batch_size=batch, value_dtype=torch.long, **DOUBLE, **options)
    keys = draw(batch, pairs, 3)
    tokens = torch.randint(vocab, (batch, pairs, 1), generator=torch.Generator().manual_seed(0))
    store.add(keys, tokens)
    return store, keys, tokens.squeeze(-1)


@pytest.mark.parametrize("mix", [0.1, "each"])
def test_knn_lm_is_the_equation(mix):
    store, keys, tokens = tokens_and_keys(measure="negative_squared_distance")
    query, logits = draw(2, 4, 3, seed=2), draw(2, 4, 7, seed=3)
    share = draw(2, 4, seed=4).sigmoid() if mix == "each" else torch.full((2, 4), mix, **DOUBLE)
    result = knn_lm(logits, query, store, 5, mix=share if mix == "each" else mix, strength=0.7)
    for b in range(2):
        for q in range(4):
            distance = (keys[b] - query[b, q]).square().sum(-1)
            near = distance.argsort()[:5].tolist()
            total = sum(math.exp(-0.7 * distance[i]) for i in near)
            p = [
                sum(math.exp(-0.7 * distance[i]) for i in near if tokens[b, i] == v) / total
                for v in range(7)
            ]
            expected = share[b, q] * torch.tensor(p, **DOUBLE) + (1 - share[b, q]) * logits[
                b, q
            ].softmax(0)
            assert_close(result[b, q].exp(), expected)


def test_knn_lm_is_a_read_of_one_hot_tokens():
    store, *_ = tokens_and_keys()
    query, logits = draw(2, 4, 3, seed=2), draw(2, 4, 7, seed=3)
    ids, weights = store.address(query, 5)
    one_hot = torch.nn.functional.one_hot(store.get(ids)[1].squeeze(-1), 7).double()
    remembered = read(weights.unsqueeze(2), one_hot).squeeze(2)
    assert_close(knn_lm(logits, query, store, 5, mix=1.0).exp(), remembered)
    assert_close(knn_lm(logits, query, store, 5, mix=0.0), logits.log_softmax(-1))


def test_knn_lm_of_an_empty_row_is_the_language_model():
    store, *_ = tokens_and_keys()
    store.delete(torch.tensor([[-1] * 20, [*range(20)]]))
    query, logits = draw(2, 4, 3, seed=2), draw(2, 4, 7, seed=3)
    result = knn_lm(logits, query, store, 5, mix=0.9)
    assert_close(result[1], logits[1].log_softmax(-1))
    assert_close(result.logsumexp(-1), torch.zeros(2, 4, **DOUBLE))
    assert (result[0] - logits[0].log_softmax(-1)).abs().max() > 0.1


def test_knn_lm_gradients_and_extremes():
    store, *_ = tokens_and_keys()
    query, logits = draw(2, 4, 3, seed=2).requires_grad_(), draw(2, 4, 7, seed=3).requires_grad_()
    mix, strength = draw(2, 4, seed=4).sigmoid().detach(), draw(2, 4, seed=5).abs()
    arguments = (logits, query, mix.requires_grad_(), strength.requires_grad_())

    def function(logits, query, mix, strength):
        return knn_lm(logits, query, store, 5, mix=mix, strength=strength)

    assert torch.autograd.gradcheck(function, arguments)
    far = (1e4 * logits.detach()).requires_grad_()
    result = knn_lm(far, query, store, 5)
    assert result.isfinite().all()
    result.sum().backward()
    assert far.grad.isfinite().all()
    assert query.grad.isfinite().all()


# Refusals

layer = make((2, 1), dtype=torch.float32)
x = draw(2, 5, WIDTH, dtype=torch.float32)
memory = layer(x)[1]
store, *_ = tokens_and_keys()
query, logits = draw(2, 4, 3, seed=2), draw(2, 4, 7, seed=3)


def with_store(*args, **options):
    return lambda: layer(x, memory._replace(store=Store(*args, **options)))


# fmt: off
REFUSALS = [
    (lambda: make(k=0), ValueError, "k must be at least 1; got 0"),
    (lambda: make(positions="learned"), ValueError, "positions must be one of rotary, none; got 'learned'"),
    (lambda: make(strength=-1.0), ValueError, "strength must be finite and at least 0; got -1.0"),
    (lambda: layer.memory(2, capacity=0), ValueError, "capacity must be at least 1; got 0"),
    (lambda: layer(x[0]), ValueError, "x must have shape (B, T, D) with D = 8; got (5, 8)"),
    (lambda: layer(x.double()), TypeError, "x must have the dtype of the parameters, torch.float32; got torch.float64"),
    (lambda: layer(x * NAN, memory), ValueError, "x must be finite where it is read; got NaN at (0, 0, 0)"),
    (lambda: layer(x, lengths=torch.tensor([6, 1])), ValueError, "lengths must be in [0, T = 5]; got 6"),
    (lambda: layer(x, memory.store), TypeError, "memory must be a Recollection or None; got Store"),
    (lambda: layer(x, Recollection(memory.segment, None)), TypeError, "memory.store must be a Store; got NoneType"),
    (lambda: layer(x, Recollection(None, memory.store)), TypeError, "memory.segment must be a SegmentMemory; got NoneType"),
    (lambda: layer(x[:1], memory), ValueError, "memory.inputs must have shape (B, N, D) with B = 1, D = 8; got (2, 0, 8)"),
    (with_store(4), ValueError, "memory.store.keys must have shape (B·G, N, M) with B·G = 2, M = 4; got (1, 1, 4)"),
    (with_store(4, 3, batch_size=2), ValueError, "memory.store.values must have shape (B·G, N, M) with B·G = 2, M = 4; got (2, 1, 3)"),
    (with_store(4, batch_size=2, **DOUBLE), TypeError, "memory.store.keys must have the dtype of x, torch.float32; got torch.float64"),
    (lambda: knn_lm(logits, query, None, 1), TypeError, "store must be a Store; got NoneType"),
    (lambda: knn_lm(logits, query, Store(3, 1, batch_size=2, **DOUBLE), 1), TypeError, "values of the store must have dtype int64 or int32; got torch.float64"),
    (lambda: knn_lm(logits, query, Store(3, 2, batch_size=2, value_dtype=torch.long, **DOUBLE), 1), ValueError, "values of the store must have shape (B, N, 1) with 1 = 1; got (2, 1, 2)"),
    (lambda: knn_lm(logits, query, store, 21), ValueError, "k must be at most the 20 pairs of the fullest row; got 21"),
    (lambda: knn_lm(logits[:, :3], query, store, 1), ValueError, "logits must have shape (B, L, V) with B = 2, L = 4; got (2, 3, 7)"),
    (lambda: knn_lm(logits.long(), query, store, 1), TypeError, "logits must have a floating-point dtype; got torch.int64"),
    (lambda: knn_lm(logits.float(), query, store, 1), TypeError, "logits must have the dtype of query, torch.float64; got torch.float32"),
    (lambda: knn_lm(logits, query, store, 1, mix=1.5), ValueError, "mix must be finite and in [0, 1]; got 1.5"),
    (lambda: knn_lm(logits, query, store, 1, mix=torch.full((2, 4), -0.5, **DOUBLE)), ValueError, "mix must be in [0, 1]; got -0.5"),
    (lambda: knn_lm(logits[..., :5], query, store, 20), ValueError, "values of the store must be tokens in [0, V = 5); got"),
    (lambda: knn_lm(logits * NAN, query, store, 1), ValueError, "logits must be finite where it is read; got NaN at (0, 0, 0)"),
]
# fmt: on


@pytest.mark.parametrize(("call", "error", "message"), REFUSALS, ids=[r[2] for r in REFUSALS])
def test_bad_input_is_refused_and_changes_nothing(call, error, message):
    held = memory.store.keys.clone(), memory.store.ids.clone()
    with pytest.raises(error, match=re.escape(message)):
        call()
    assert torch.equal(memory.store.keys, held[0])
    assert torch.equal(memory.store.ids, held[1])


def test_overflow_in_what_would_be_stored_changes_nothing():
    layer = make((2, 1), dtype=torch.float16)
    memory = layer(draw(1, 3, WIDTH).half())[1]
    with torch.no_grad():
        layer.local.value.weight.mul_(6e4)
        layer.local.output.weight.zero_()
    with pytest.raises(ValueError, match="must be"):
        layer(draw(1, 3, WIDTH).half() * 10, memory)
    assert memory.store.lengths.tolist() == [3]
