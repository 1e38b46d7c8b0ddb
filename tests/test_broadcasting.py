"""Masks and numbers of a query broadcast as in torch; one memory serves many queries uncopied."""

import itertools

import pytest
import torch
from torch.testing import assert_close

import memlib
from memlib import Gates, Hopfield, KeyValueMemory, KeyValueState, Store
from memlib.attention import streaming
from memlib.store import MemorizingAttention

LEADS = [(), (3,), (2, 3), (2, 1), (2, 3, 2)]  # before queries and slots
L, N, M = 4, 5, 3


def smaller(shape):
    """Every shape that broadcasts to `shape` without making it larger."""
    for sizes in {*itertools.product(*[{1, size} for size in shape])}:
        for start in range(len(shape) + 1):
            if all(size == 1 for size in sizes[:start]):
                yield sizes[start:]


def draw(*shape, seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=random, dtype=torch.float64).requires_grad_()


def drawn_mask(shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.6


def outcome(call, inputs):
    """The results, and the gradients of a sum that tells the results apart."""
    results = call()
    results = results if isinstance(results, tuple) else (results,)
    loss = sum((r * torch.arange(r.numel()).view(r.shape).cos()).sum() for r in results)
    return results, torch.autograd.grad(loss, inputs, retain_graph=True)


# How masks and strengths meet keys: each takes query, keys, values and options.
READS = {
    "address": lambda q, k, v, **o: memlib.address(q, k, **o),
    "address-top_k": lambda q, k, v, **o: memlib.address(q, k, top_k=2, **o),
    "address-cosine": lambda q, k, v, **o: memlib.address(q, k, measure="cosine", **o),
    "attend": memlib.attend,
    "attend-wide": lambda q, k, v, **o: memlib.attend(q, k, torch.cat((v, v), -1), **o),
    "attend-top_k": lambda q, k, v, **o: memlib.attend(q, k, v, top_k=2, **o),
    "attend-weights": lambda q, k, v, **o: memlib.attend(q, k, v, need_weights=True, **o),
    "attend-distance": lambda q, k, v, **o: memlib.attend(
        q, k, v, measure="negative_squared_distance", **o
    ),
    "Hopfield": lambda q, k, v, mask=None, strength=1.0: Hopfield(strength, steps=2)(
        q, k, mask=mask
    ),
    "Hopfield.energy": lambda q, k, v, mask=None, strength=1.0: Hopfield(strength).energy(
        q, k, mask=mask
    ),
}
every_read = pytest.mark.parametrize("name", READS)


def used(name):
    return slice(0, 3 if name.startswith("attend") else 2)  # what gradients reach


@every_read
@pytest.mark.parametrize("lead", LEADS, ids=str)
def test_a_mask_equals_the_same_mask_expanded(name, lead):
    qkv = draw(*lead, L, M), draw(*lead, N, M, seed=1), draw(*lead, N, M, seed=2)
    scores = (*lead, L, N)
    for shape in smaller(scores):
        mask = drawn_mask(shape)
        small, full = (
            outcome(lambda m=m: READS[name](*qkv, mask=m), qkv[used(name)])
            for m in (mask, mask.expand(scores))
        )
        assert_close(small, full, msg=lambda m, s=shape: f"mask of shape {s}: {m}")


@every_read
@pytest.mark.parametrize("lead", LEADS, ids=str)
def test_a_strength_equals_the_same_strength_expanded(name, lead):
    qkv = draw(*lead, L, M), draw(*lead, N, M, seed=1), draw(*lead, N, M, seed=2)
    for shape in smaller((*lead, L)):
        strength = (draw(*shape, seed=3).detach().exp() + 0.1).requires_grad_()
        small, full = (
            outcome(lambda s=s: READS[name](*qkv, strength=s), (*qkv[used(name)], strength))
            for s in (strength, strength.expand(*lead, L))
        )
        assert_close(small, full, msg=lambda m, s=shape: f"strength of shape {s}: {m}")


@every_read
def test_a_scalar_tensor_is_the_number(name):
    qkv = draw(2, L, M), draw(2, N, M, seed=1), draw(2, N, M, seed=2)
    tensor = torch.tensor(1.7, dtype=torch.float64)
    results = [outcome(lambda s=s: READS[name](*qkv, strength=s), qkv[:2]) for s in (tensor, 1.7)]
    assert_close(*results)


@every_read
@pytest.mark.parametrize("lead", [(), (2,), (2, 3)], ids=str)
def test_nothing_may_make_the_result_larger(name, lead):
    qkv = draw(*lead, L, M), draw(*lead, N, M), draw(*lead, N, M)
    for shape in ((1, *lead, L, N), (L + 1, N), (L, N - 1), (2,), *([(9, 1, 1)] if lead else [])):
        with pytest.raises(
            ValueError, match=f"mask must broadcast to scores of shape.*{N}\\); got"
        ):
            READS[name](*qkv, mask=torch.ones(shape, dtype=torch.bool))
    for shape in ((1, *lead, L), (L + 1,), (0,)):
        with pytest.raises(ValueError, match=f"strength must broadcast to shape .*{L}.*; got"):
            READS[name](*qkv, strength=torch.ones(shape, dtype=torch.float64))


@pytest.mark.parametrize("keys_lead", [(), (3,), (2, 1), (2, 3)], ids=str)
@pytest.mark.parametrize("options", [{}, {"need_weights": True}, {"top_k": 2}], ids=str)
def test_nan_that_no_query_may_read_stays_hidden(keys_lead, options):
    """In every shape of mask, whatever leading dimensions the keys have."""
    query = draw(2, 3, L, M)
    for shape in smaller((2, 3, L, N)):
        if not shape or shape[-1] != N:
            continue
        mask = drawn_mask(shape, seed=1)
        mask[..., -1] = False
        bad, good = (draw(*keys_lead, N, M, seed=1).detach() for _ in range(2))
        bad[..., -1, :] = torch.nan
        results = [
            outcome(lambda k=k: memlib.attend(query, k, k, mask=mask, **options), (query,))  # noqa: B023
            for k in (bad, good)
        ]
        assert_close(*results)


def test_nan_that_some_queries_may_read_stays_hidden_from_the_others():
    query, keys = draw(2, 3, L, M), draw(2, 3, N, M, seed=1).detach()
    bad = keys.clone()
    bad[:, 1, 0] = torch.nan  # of the middle head
    mask = torch.ones(3, L, N, dtype=torch.bool)
    mask[1, :2, 0] = mask[1, 2:, 0] = False
    mask[0, :, 0] = True
    assert_close(
        memlib.attend(query, bad, bad, mask=mask), memlib.attend(query, keys, keys, mask=mask)
    )
    mask = torch.ones(L, N, dtype=torch.bool)
    mask[:, 0] = False
    mask[1, 0] = True  # one query meets it
    with pytest.raises(ValueError, match="must be finite where it is read"):
        memlib.attend(query, bad, bad, mask=mask)
    only = torch.arange(L) != 1
    expected = memlib.attend(query, keys, keys, mask=mask)[..., only, :]
    one_by_one = memlib.attention.verbs._attend_one_by_one
    given = (query, bad, bad, "scaled_dot", torch.ones((), dtype=torch.float64), mask, None, False)
    assert_close(one_by_one(*given)[0][..., only, :], expected)


def test_a_small_mask_stays_small_while_streaming(monkeypatch):
    seen = []
    real = torch.nn.functional.scaled_dot_product_attention

    def spy(query, keys, values, mask, **options):
        seen.append(mask)
        return real(query, keys, values, mask, **options)

    monkeypatch.setattr(streaming.F, "scaled_dot_product_attention", spy)
    for lead in ((), (3,), (2, 3), (2, 3, 2)):
        x, slots = torch.randn(*lead, L, M), torch.randn(*lead, N, M)
        for shape in smaller((*lead, L, N)):
            memlib.attend(x, slots, slots, mask=torch.ones(shape, dtype=torch.bool))
            held = seen.pop().numel()  # of which SDPA makes floats, views or not
            several = shape[:-3].count(1) < len(shape[:-3])  # two of its dimensions become one
            assert held <= torch.Size(shape).numel() * (6 if several else 1), (lead, shape)


def weighting(*lead):
    return draw(*lead, N).detach().softmax(-1).requires_grad_()


# How numbers of a weighting meet weights (..., N)
GATED = {
    "interpolate": (lambda w, g: memlib.interpolate(w, w.flip(-1), g.sigmoid()), ()),
    "sharpen": (lambda w, g: memlib.sharpen(w, 1 + g.exp()), ()),
    "shift": (lambda w, g: memlib.shift(w, g.softmax(-1)), (3,)),
}


@pytest.mark.parametrize("name", GATED)
@pytest.mark.parametrize("lead", LEADS, ids=str)
def test_gates_broadcast(name, lead):
    call, own = GATED[name]
    weights = weighting(*lead)
    for shape in smaller(lead):
        gate = draw(*shape, *own, seed=1)
        small, full = (
            outcome(lambda g=g: call(weights, g), (weights, gate))
            for g in (gate, gate.expand((*lead, *own)))
        )
        assert_close(small, full)
    for shape in ((1, *lead), (7,) * max(1, len(lead))):
        with pytest.raises(ValueError, match=r"must broadcast to .*; got"):
            call(weights, draw(*shape, *own))


RANGES = {
    "strength": torch.exp,
    "gate": torch.sigmoid,
    "sharpening": lambda raw: 1 + raw.exp(),
    "shift": lambda raw: raw.softmax(-1),
}


@pytest.mark.parametrize("name", RANGES)
def test_gates_of_locate_broadcast(name):
    memory, before, key = draw(2, N, M), weighting(2, 3), draw(2, 3, M, seed=1)
    one = torch.ones(2, 3, dtype=torch.float64)
    gates = Gates(key, one, one / 2, torch.ones(2, 3, 3, dtype=torch.float64) / 3, one)
    own = (3,) if name == "shift" else ()

    def call(raw):
        return memlib.locate(gates._replace(**{name: RANGES[name](raw)}), memory, before)

    for shape in smaller((2, 3)):
        raw = draw(*shape, *own, seed=2)
        small, full = (
            outcome(lambda r=r: call(r), (memory, before, raw))
            for r in (raw, raw.expand(2, 3, *own))
        )
        assert_close(small, full)
    with pytest.raises(ValueError, match=f"{name} must broadcast to"):
        call(draw(1, 2, 3, *own))


# One memory for many queries

B = 3


def store_of_one_row(measure="scaled_dot", backend="exact", value_dtype=None, width=M):
    store = Store(M, width, measure=measure, backend=backend, dtype=torch.float64,
                  value_dtype=value_dtype)  # fmt: skip
    values = torch.arange(N).view(1, N, 1) if value_dtype else draw(1, N, width, seed=2).detach()
    store.add(draw(1, N, M, seed=1).detach(), values)
    store.delete(store.ids[:, :1])
    return store


def repeated(store):
    """A store with the same pairs in each of B rows."""
    many = Store(M, store.value_width, batch_size=B, measure=store.measure, dtype=torch.float64,
                 value_dtype=store.values.dtype)  # fmt: skip
    many.add(*(x[:, :N].expand(B, -1, -1) for x in (store.keys, store.values)))
    many.delete(many.ids[:, :1])
    return many


STRENGTHS = [2.0, (), (L,), (B, 1), (1, L), (B, L)]


def strength_of(shape):
    return shape if isinstance(shape, float) else draw(*shape).detach().exp().requires_grad_()


@pytest.mark.parametrize("measure", memlib.MEASURES)
@pytest.mark.parametrize("strength", STRENGTHS, ids=str)
@pytest.mark.parametrize("k", [2, N - 1])
def test_a_store_of_one_row_serves_a_batch(measure, strength, k):
    one, query, strength = store_of_one_row(measure), draw(B, L, M), strength_of(strength)
    many = repeated(one)
    learned = (query, strength) if isinstance(strength, torch.Tensor) else (query,)
    for options in ({}, {"need_weights": True}):
        results = [s.read(query, k, strength=strength, **options) for s in (one, many)]
        values = [r[0] if options else r for r in results]
        assert_close(*values)
        assert_close(*(torch.autograd.grad(v.cos().sum(), learned) for v in values))
        if options:
            assert torch.equal(results[0][1], results[1][1])
            assert_close(results[0][2], results[1][2])
    ids, weights = one.address(query, k, strength=strength)
    assert ids.shape == weights.shape == (B, L, k)
    held = one.get(ids)
    assert_close(held, many.get(ids))
    assert_close((weights.unsqueeze(-1) * held[1]).sum(2), results[0][0])


@pytest.mark.parametrize("backend", ["flat", "hnsw", "ivf"])
def test_every_backend_of_one_row_serves_a_batch(backend):
    pytest.importorskip("faiss")
    one, query = store_of_one_row(backend=backend), draw(B, L, M).detach()
    expected = store_of_one_row().read(query, 2, need_weights=True)
    assert_close(one.read(query, 2, need_weights=True), expected)


def test_ids_of_a_batch_change_the_one_row():
    store = store_of_one_row()
    ids, _ = store.address(draw(B, L, M), 1)
    store.delete(ids)
    assert not set(store.ids.flatten().tolist()) & set(ids.flatten().tolist())
    with pytest.raises(ValueError, match=r"ids must have shape \(B, T\) with B = 1, T = 1"):
        store.overwrite(ids[:, :1, 0], *torch.ones(2, 1, 1, M, dtype=torch.float64))


@pytest.mark.parametrize("mix", [0.3, (), (L,), (B, 1)], ids=str)
def test_knn_lm_takes_one_store_for_a_batch(mix):
    one = store_of_one_row(value_dtype=torch.int64, width=1)
    query, logits = draw(B, L, M), draw(B, L, N, seed=4)
    mix = mix if isinstance(mix, float) else draw(*mix).detach().sigmoid().requires_grad_()
    learned = (query, logits, *([mix] if isinstance(mix, torch.Tensor) else []))
    results = [
        outcome(lambda s=s: memlib.knn_lm(logits, query, s, 2, mix=mix), learned)
        for s in (one, repeated(one))
    ]
    assert_close(*results)
    full = mix.expand(B, L) if isinstance(mix, torch.Tensor) else mix
    assert_close(memlib.knn_lm(logits, query, one, 2, mix=full), results[0][0][0])


@pytest.mark.parametrize("measure", memlib.MEASURES)
@pytest.mark.parametrize("strength", STRENGTHS, ids=str)
@pytest.mark.parametrize("options", [{}, {"need_weights": True}, {"top_k": 2}], ids=str)
def test_a_state_of_one_row_serves_a_batch(measure, strength, options):
    memory = KeyValueMemory(N, M, measure=measure, dtype=torch.float64)
    keys, values = draw(1, N - 1, M, seed=1), draw(1, N - 1, M, seed=2)
    one = memory.write(keys, values, memory.initial_state())
    many = KeyValueState(*(x.expand(B, *x.shape[1:]) for x in one))
    query, strength = draw(B, L, M), strength_of(strength)
    learned = (query, keys, values, *([strength] if isinstance(strength, torch.Tensor) else []))
    results = [
        outcome(lambda s=s: memory.read(query, s, strength=strength, **options), learned)
        for s in (one, many)
    ]
    assert_close(*results)


def test_only_one_row_serves_others():
    memory = KeyValueMemory(N, M)
    store = Store(M, batch_size=2)
    for rows in (1, 3):
        with pytest.raises(ValueError, match=r"query must have shape \(B, L, M\) with B = 2"):
            memory.read(torch.ones(rows, L, M), memory.initial_state(2))
        with pytest.raises(ValueError, match=r"query must have shape \(B, L, M\) with B = 2"):
            store.read(torch.ones(rows, L, M), 1)
    assert memory.read(torch.ones(0, L, M), memory.initial_state()).shape == (0, L, M)
    assert store_of_one_row().read(torch.ones(0, L, M).double(), 2).shape == (0, L, M)


class Largest(torch.utils._python_dispatch.TorchDispatchMode):
    """Notes the most numbers that an operation made anew."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        known = {a.untyped_storage().data_ptr() for a in args if isinstance(a, torch.Tensor)}
        for made in result if isinstance(result, tuple | list) else (result,):
            if isinstance(made, torch.Tensor) and made.untyped_storage().data_ptr() not in known:
                self.numbers = max(self.numbers, made.untyped_storage().nbytes() // 4)
        return result


@pytest.mark.parametrize("kind", ["state", "state-weights", "store", "store-all"])
def test_one_row_is_not_copied_for_each_of_many(kind):
    rows, slots, width = 50, 300, 40
    keys, query = torch.randn(1, slots, width), torch.randn(rows, 1, width)
    if kind.startswith("state"):
        memory = KeyValueMemory(slots, width)
        state = memory.write(keys, keys, memory.initial_state())
        call = lambda: memory.read(query, state, need_weights="weights" in kind)  # noqa: E731
    else:
        store = Store(width)
        store.add(keys, keys)
        call = lambda: store.read(query, slots if "all" in kind else 3)  # noqa: E731
    with torch.no_grad(), Largest() as largest:
        call()
    assert largest.numbers < 3 * slots * width


def test_the_gradient_of_one_row_is_not_made_for_each_of_many():
    rows, slots, width = 50, 300, 40
    keys, query = torch.randn(1, slots, width, requires_grad=True), torch.randn(rows, 1, width)
    memory = KeyValueMemory(slots, width)
    state = memory.write(keys, keys, memory.initial_state())
    for options in ({}, {"need_weights": True}):
        with Largest() as largest:
            result = memory.read(query, state, **options)
            value = result[0] if options else result
            torch.autograd.grad(value.sum(), keys, retain_graph=True)
        assert largest.numbers < 3 * slots * width, options


# A strength of each head of a layer


@pytest.mark.parametrize("shape", [(), (4, 1), (5,), (2, 1, 1)], ids=str)
def test_a_strength_of_a_memorizing_layer_broadcasts(shape):
    torch.manual_seed(0)
    strength = torch.rand(shape) + 0.5
    results = []
    for given in (strength, strength.expand(2, 4, 5).clone()):
        torch.manual_seed(1)
        layer = MemorizingAttention(8, 4, 2, k=3, strength=given)
        memory = layer.memory(2)
        for x in torch.randn(2, 2, 5, 8):
            y, memory = layer(x, memory)
        results.append(y)
    assert_close(*results)
    layer = MemorizingAttention(8, 4, 2, strength=torch.ones(3))
    with pytest.raises(
        ValueError, match=r"strength must broadcast to shape \(2, 4, 5\); got \(3,\)"
    ):
        layer(torch.randn(2, 5, 8))
