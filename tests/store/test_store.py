# ruff: noqa: E501  (a table of messages)
"""A store against a dict, its reads against attend, its files against what happens to files."""

import builtins
import copy
import os
import pickle
import re
import resource
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from contextlib import contextmanager
from unittest.mock import Mock

import hypothesis.strategies as st
import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from torch.testing import assert_close

from memlib import MEASURES, attend, similarity
from memlib.store import Store, files, nearest
from memlib.store.indexes import BACKENDS

NAN = float("nan")
DOUBLE = {"dtype": torch.float64}
FAISS = [backend for backend in BACKENDS if backend != "exact"]
every_backend = pytest.mark.parametrize("backend", BACKENDS)
every_measure = pytest.mark.parametrize("measure", MEASURES)


def draw(*shape, seed=0, dtype=torch.float64, device="cpu"):
    chance = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=chance, dtype=dtype).to(device)


def make(pairs=(6, 4), *, width=4, value_width=3, dtype=torch.float64, seed=0, **options):
    """A store whose rows hold so many pairs, and what was added."""
    store = Store(width, value_width, batch_size=len(pairs), dtype=dtype, **options)
    keys = draw(len(pairs), max(pairs), width, seed=seed, dtype=dtype)
    values = draw(len(pairs), max(pairs), value_width, seed=seed + 1, dtype=dtype)
    ids = store.add(keys, values, lengths=torch.tensor(pairs))
    return store, keys, values, ids


def contents(store):
    """What each row holds: a list of dicts from ids to keys and values."""
    rows = []
    for row in range(len(store.ids)):
        held = {int(i): slot for slot, i in enumerate(store.ids[row]) if i >= 0}
        rows.append(
            {
                i: (store.keys[row, held[i]].tolist(), store.values[row, held[i]].tolist())
                for i in sorted(held)
            }
        )
    return rows


# Reading


@every_measure
@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("strength", [2.0, "each"])
def test_with_k_equal_to_n_a_read_is_attend(measure, need_weights, strength):
    store, keys, values, _ = make((6, 6), measure=measure)
    query = draw(2, 5, 4, seed=9)
    strength = draw(2, 5, seed=3).abs() if strength == "each" else strength
    expected = attend(query, keys, values, measure=measure, strength=strength)
    for recorded in (True, False):
        with torch.set_grad_enabled(recorded):
            value = store.read(query, 6, strength=strength, need_weights=need_weights)
        assert_close(value[0] if need_weights else value, expected, rtol=0, atol=1e-12)


@every_measure
@every_backend
@pytest.mark.parametrize("deleted", [False, True])
def test_a_read_is_attend_with_top_k(measure, backend, deleted):
    store, keys, values, ids = make((40, 30), measure=measure, backend=backend)
    mask = ids.unsqueeze(1) >= 0
    if deleted:
        store.read(keys, 3)  # builds the index before
        store.delete(ids[:, 5:9])
        mask[..., 5:9] = False
    query = draw(2, 5, 4, seed=9)
    options = {"measure": measure, "strength": 1.5}
    value, found, weights = store.read(query, 7, strength=1.5, need_weights=True)
    mask = mask.expand(2, 5, 40)
    expected, where = attend(query, keys, values, mask=mask, top_k=7, need_weights=True, **options)
    assert_close(value, expected)
    assert_close(store.read(query, 7, strength=1.5), expected)
    assert_close(torch.zeros(2, 5, 40, **DOUBLE).scatter(-1, found, weights), where)
    assert (weights.diff(dim=-1) <= 0).all()  # the most similar first
    assert_close(store.address(query, 7, strength=1.5), (found, weights))


def test_the_strength_is_1_unless_said():
    store, keys, values, _ = make((6, 6))
    query = draw(2, 5, 4, seed=9)
    value, weights = attend(query, keys, values, top_k=3, need_weights=True)
    ids, found = store.address(query, 3)
    assert_close(torch.zeros_like(weights).scatter(-1, ids, found), weights)
    assert_close(store.read(query, 3), value)


@every_backend
def test_an_empty_store_reads_as_0(backend):
    store = Store(4, 3, batch_size=2, backend=backend, **DOUBLE)
    query = draw(2, 5, 4).requires_grad_()
    value, ids, weights = store.read(query, 7, need_weights=True)
    assert torch.equal(value, torch.zeros(2, 5, 3, **DOUBLE))
    assert torch.equal(ids, torch.full((2, 5, 7), -1))
    assert torch.equal(weights, torch.zeros(2, 5, 7, **DOUBLE))
    (value.sum() + weights.sum() + store.read(query, 1).sum()).backward()
    assert torch.equal(query.grad, torch.zeros_like(query))


@every_backend
def test_a_row_with_fewer_pairs_reads_those_it_has(backend):
    store, keys, values, _ = make((6, 2, 0), backend=backend)
    query = draw(3, 5, 4, seed=9)
    value, ids, weights = store.read(query, 4, need_weights=True)
    assert (ids[1, :, :2].sort().values == torch.arange(2)).all()
    assert (ids[1, :, 2:] == -1).all()
    assert (ids[2] == -1).all()
    assert not weights[1, :, 2:].any()
    assert not weights[2].any()
    assert not value[2].any()
    assert_close(value[1], attend(query[1], keys[1, :2], values[1, :2]))
    assert_close(store.read(query, 6)[1:], value[1:])


@every_backend
def test_sizes_of_0(backend):
    store, keys, values, ids = make((6, 4), backend=backend)
    assert store.read(draw(2, 0, 4), 3, need_weights=True)[1].shape == (2, 0, 3)
    assert store.add(keys[:, :0], values[:, :0]).shape == (2, 0)
    assert store.get(ids[:, :0])[1].shape == (2, 0, 3)
    store.overwrite(ids[:, :0], keys[:, :0], values[:, :0])
    store.delete(ids[:, :0])
    assert store.lengths.tolist() == [6, 4]
    none = Store(4, 3, batch_size=0, backend=backend, **DOUBLE)
    assert none.add(keys[:0], values[:0]).shape == (0, 6)
    assert none.read(draw(0, 5, 4), 3).shape == (0, 5, 3)
    none.delete(none.ids)


@every_backend
def test_what_is_given_out_stays_when_the_store_changes(backend):
    store, keys, values, ids = make((6,), backend=backend)
    query = draw(1, 5, 4).requires_grad_()
    for k in (6, 2):
        expected = torch.autograd.grad(store.read(query, k).sum(), query)
        value = store.read(query, k)
        store.overwrite(ids[:, :1], keys[:, :1] * 2, values[:, :1])
        assert_close(torch.autograd.grad(value.sum(), query), expected)
        store.overwrite(ids[:, :1], keys[:, :1], values[:, :1])


@every_measure
@pytest.mark.parametrize("k", [3, 6])
def test_gradients_of_query_strength_and_values(measure, k):
    store, *_ = make((6, 4), measure=measure)
    query, strength = draw(2, 3, 4, seed=5), draw(2, 3, seed=6).abs()
    values = store.values

    def function(query, strength, values):
        store.values = values
        value, _, weights = store.read(query, k, strength=strength, need_weights=True)
        return value, weights, store.read(query, k, strength=strength)

    arguments = [x.detach().clone().requires_grad_() for x in (query, strength, values)]
    assert torch.autograd.gradcheck(function, arguments)


def test_values_are_trained_where_asked_also_after_growing():
    store, keys, values, _ = make((6,))
    store.values.requires_grad_()
    store.add(keys.repeat(1, 9, 1), values.repeat(1, 9, 1))
    assert store.values.shape[1] >= 60
    store.read(draw(1, 2, 4), 3).sum().backward()
    assert 3 <= (store.values.grad != 0).any(-1).sum() <= 6
    store.add(keys, values)  # in place, but no part of a graph
    assert not store.keys.requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@every_backend
def test_other_dtypes(dtype, backend):
    store, keys, values, _ = make((6, 4), backend=backend, dtype=dtype)
    query = draw(2, 5, 4, seed=9, dtype=dtype)
    value = store.read(query, 3)
    assert value.dtype == dtype
    double, *_ = make((6, 4))
    double.delete(double.ids)
    ids = double.add(keys.double(), values.double(), lengths=store.lengths)
    assert ids[0, 0] == 6
    error = {torch.float32: 1e-5, torch.float16: 2e-2, torch.bfloat16: 0.2}[dtype]
    assert_close(value.double(), double.read(query.double(), 3), rtol=error, atol=error)


def test_autocast_searches_in_the_dtype_of_the_store():
    store, keys, values, _ = make((60, 40), dtype=torch.float32)
    query = draw(2, 5, 4, seed=9, dtype=torch.float32)
    expected, where, _ = store.read(query, 9, need_weights=True)
    with torch.autocast("cpu", torch.bfloat16):
        value, ids, _ = store.read(query, 9, need_weights=True)
        store.add(keys.bfloat16(), values.bfloat16())
    assert torch.equal(ids, where)
    assert_close(value.float(), expected, rtol=0.05, atol=0.05)
    assert store.lengths.tolist() == [120, 100]


def test_under_autocast_nothing_is_stored_cut():
    whole, small = Store(2, 1, value_dtype=torch.int32), Store(2, 1, dtype=torch.float16)
    key = torch.ones(1, 1, 2)
    with torch.autocast("cpu", torch.bfloat16):
        for values in (torch.tensor([[[0.7]]]), torch.tensor([[[2**40]]])):
            with pytest.raises(TypeError, match=r"values must have dtype torch\.int32; got"):
                whole.add(key, values)
        with pytest.raises(
            TypeError, match=r"values must have dtype torch\.float16; got torch\.int"
        ):
            small.add(key, torch.tensor([[[2**40]]]))
        with pytest.raises(ValueError, match=r"must be small enough for torch\.float16"):
            small.add(key, torch.tensor([[[1e6]]]))
        small.add(key, torch.tensor([[[2.0]]]))
    assert whole.lengths.tolist() == [0]
    assert small.values.max() == 2


def test_a_store_goes_in_and_out_of_inference_mode():
    key, value = torch.eye(2)[None], torch.ones(1, 2, 1)
    with torch.inference_mode():
        store = Store(2, 1)
        store.add(key, value)
        copies = [store, copy.deepcopy(store), pickle.loads(pickle.dumps(store))]
    for one in copies:
        ids = one.add(key.repeat(1, 20, 1), value.repeat(1, 20, 1))
        one.overwrite(ids[:, :2], 2 * key, 2 * value)
        one.delete(ids[:, 2:4])
        assert one.lengths.tolist() == [40]
        one.values.requires_grad_()
        one.read(key, 3).sum().backward()
        assert one.values.grad.any()


def test_near_refuses_what_is_no_number_and_nothing_else():
    query = torch.full((1, 1, 512), 200.0).half()  # whose sum is more than half precision holds
    store = Store(512, 1, dtype=torch.float16)
    store.add(query, torch.ones(1, 1, 1).half())
    for distance in (0, 1.0, 1e200, 10**300):
        assert store.near(query, distance).tolist() == [[0]]
    with pytest.raises(ValueError, match="query must be finite"):
        store.near(query * NAN, 1.0)
    assert Store(2, 1, batch_size=0).near(torch.zeros(0, 3, 2), 1.0).shape == (0, 0)


@every_backend
def test_what_it_searches_by_stays(backend):
    store = Store(2, 1, measure="cosine", backend=backend)
    for name, other in (("measure", "dot"), ("backend", "flat")):
        with pytest.raises(AttributeError, match=name):
            setattr(store, name, other)
    assert (store.measure, store.backend) == ("cosine", backend)


def test_an_effort_is_looked_at_when_it_is_used():
    store = make((60, 40), backend="ivf", dtype=torch.float32)[0]
    for effort, error in ((0, ValueError), (-5, ValueError), ("x", TypeError)):
        store.effort = effort
        with pytest.raises(error, match="effort must be"):
            store.read(draw(2, 1, 4, dtype=torch.float32), 3)


def test_integer_values_are_looked_up():
    store = Store(2, 1, value_dtype=torch.long)
    ids = store.add(torch.eye(2)[None], torch.tensor([[[1 << 60], [7]]]))
    found, _ = store.address(torch.tensor([[[9.0, 0.0]]]), 1)
    assert torch.equal(found, ids[:, :1].unsqueeze(1))
    assert store.get(found)[1].item() == 1 << 60


def test_on_meta():
    store = Store(4, 3, batch_size=2, device="meta", capacity=4)
    keys, values = (draw(2, 6, m, device="meta", dtype=torch.float32) for m in (4, 3))
    ids = store.add(keys, values)
    value, found, weights = store.read(keys, 3, need_weights=True)
    assert all(x.is_meta for x in (ids, value, found, weights, store.lengths))
    assert value.shape == (2, 6, 3)
    assert found.shape == weights.shape == (2, 6, 3)
    assert store.read(keys, 4).shape == (2, 6, 3)


# Exact search


@every_measure
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("slots", "k"), [(1, 1), (63, 70), (8192 + 17, 2), (20_481, 5)])
def test_nearest_is_a_sort_of_all_scores(measure, masked, slots, k):
    keys, query = draw(2, slots, 4), draw(2, 70, 4, seed=1)
    mask = draw(2, slots, seed=2) > 1 if masked else None  # most may not be found
    scores = similarity(query, keys, measure=measure)
    scores = scores if mask is None else scores.masked_fill(~mask.unsqueeze(1), -torch.inf)
    best = scores.sort(dim=-1, descending=True)
    expected = best.indices.masked_fill(best.values == -torch.inf, -1)[..., :k]
    found = nearest.nearest(query, keys, k, measure, mask)
    assert torch.equal(found[..., :slots], expected)
    assert (found[..., slots:] == -1).all()


@pytest.mark.parametrize("block", [1, 1 << 14])
def test_nearest_whatever_is_taken_at_once(monkeypatch, block):
    keys, query = draw(2, 9_000, 4), draw(2, 5, 4, seed=1)
    expected = nearest.nearest(query, keys, 2, "dot")
    monkeypatch.setitem(nearest.BLOCK, "cpu", block)
    assert torch.equal(nearest.nearest(query, keys, 2, "dot"), expected)
    monkeypatch.setattr(nearest, "LARGE", 1e9)
    assert torch.equal(nearest.nearest(query, keys, 2, "dot"), expected)


def test_nearest_never_makes_a_score_for_each_query_and_slot():
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            result = function(*args, **kwargs or {})
            if isinstance(result, torch.Tensor) and result._base is None:
                largest = max(largest, result.numel())
            return result

    keys, query = draw(1, 200_000, 2, dtype=torch.float32), draw(1, 128, 2, dtype=torch.float32)
    with Watch():
        nearest.nearest(query, keys, 4, "dot")
    assert 0 < largest < query.shape[1] * keys.shape[1] / 10


# faiss


@pytest.mark.parametrize("backend", ["hnsw", "ivf"])
def test_recall(backend):
    store = Store(16, 1, backend=backend, links=16, measure="cosine")
    centres = draw(50, 16, dtype=torch.float32)
    points = centres.repeat(80, 1) + 0.5 * draw(4000, 16, seed=1, dtype=torch.float32)
    store.add(points[None], torch.zeros(1, 4000, 1))
    query = (centres + 0.5 * draw(50, 16, seed=2, dtype=torch.float32))[None]
    best = similarity(query, points[None], measure="cosine").topk(10).indices
    recall = {}
    for effort in (1, 100):
        store.effort = effort
        found, _ = store.address(query, 10)
        recall[effort] = (found.unsqueeze(-1) == best.unsqueeze(-2)).any(-1).double().mean().item()
    assert recall[100] > 0.95
    assert recall[1] < recall[100]


@pytest.mark.parametrize("backend", FAISS)
def test_an_index_is_built_anew_when_most_of_it_is_dead(backend):
    store, keys, values, ids = make((200,), backend=backend)
    store.read(keys[:, :1], 1)
    (index,) = store._search.indexes
    assert index.index.ntotal == 200
    for _ in range(3):
        store.overwrite(ids, keys, values)
        store.read(keys[:, :1], 1)
        assert 200 <= index.index.ntotal <= 400 + 64
    store.delete(ids[:, :190])
    found, _ = store.address(keys[:, 190:], 10)
    assert set(found.flatten().tolist()) == set(range(190, 200))
    assert index.index.ntotal == 10


def test_ivf_learns_new_clusters_when_it_has_outgrown_its_own():
    store, keys, values, _ = make((9,), backend="ivf")
    store.read(keys[:, :1], 1)
    (index,) = store._search.indexes
    assert index.index.nlist == 3
    store.add(keys, values)
    store.read(keys[:, :1], 1)
    assert index.index.nlist == 3
    store.add(keys.repeat(1, 9, 1), values.repeat(1, 9, 1))
    store.read(keys[:, :1], 1)
    assert index.index.nlist == 10


def test_a_search_that_finds_too_few_is_done_again_exactly():
    store = Store(4, 1, backend="ivf", effort=1, **DOUBLE)
    keys = draw(1, 100, 4)
    store.add(keys, torch.zeros(1, 100, 1, **DOUBLE))
    found, _ = store.address(draw(1, 3, 4, seed=1), 90)  # one cluster of ten has fewer
    expected = similarity(draw(1, 3, 4, seed=1), keys).topk(90).indices
    assert torch.equal(found, expected)


def test_an_index_recovers_from_an_interrupted_update(monkeypatch):
    store, keys, values, _ = make((50,), backend="hnsw", dtype=torch.float32)
    store.read(keys, 1)
    (index,) = store._search.indexes
    store.add(keys + 9, values)
    with monkeypatch.context() as patch:
        patch.setattr(index, "restore", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            store.address(keys + 9, 5)
    assert (index.index.ntotal, len(index.slot)) == (100, 50)
    expected = similarity(keys + 9, torch.cat((keys, keys + 9), 1)).topk(5).indices
    assert torch.equal(store.address(keys + 9, 5)[0], expected)
    assert index.index.ntotal == 100


@every_backend
def test_a_copy_is_a_store_of_its_own(backend):
    for built in (False, True):
        store, keys, values, ids = make((30, 20), backend=backend)
        query = draw(2, 5, 4, seed=9)
        if built:
            store.read(query, 3)
            store.overwrite(ids[:, :1], keys[:, 1:2], values[:, 1:2])
        other = copy.deepcopy(store)
        expected = store.read(query, 3)
        store.delete(store.ids)
        assert_close(other.read(query, 3), expected)
        assert contents(store) == [{}, {}]


def test_a_missing_library_is_named(monkeypatch, tmp_path):
    hnsw, *_ = make((6,), backend="hnsw")
    exact, *_ = make((6,))
    for store, name in ((hnsw, "hnsw"), (exact, "exact")):
        store.save(tmp_path / name)
    found = builtins.__import__

    def hide(*hidden):
        def find(name, *rest):
            if name.partition(".")[0] in hidden:
                raise ImportError(name)
            return found(name, *rest)

        monkeypatch.setattr(builtins, "__import__", find)

    faiss = re.escape("the hnsw backend needs faiss: pip install 'memlib[store]'")
    hide("faiss")
    with pytest.raises(ImportError, match=faiss):
        Store(4, backend="hnsw")
    with pytest.raises(ImportError, match=faiss):
        Store.open(tmp_path / "hnsw")
    assert contents(Store.open(tmp_path / "hnsw", backend="exact")) == contents(exact)
    hide("safetensors")
    files = re.escape("files of a store need safetensors: pip install 'memlib[store]'")
    with pytest.raises(ImportError, match=files):
        exact.save(tmp_path / "other")
    with pytest.raises(ImportError, match=files):
        Store.open(tmp_path / "exact")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["exact", "hnsw"]


# Any sequence of changes


class AgainstDicts(RuleBasedStateMachine):
    """Each row of a store is a dict that forgets its first items."""

    @initialize(
        backend=st.sampled_from(BACKENDS),
        rows=st.integers(1, 3),
        capacity=st.none() | st.integers(1, 40),
        measure=st.sampled_from(MEASURES),
        seed=st.integers(0, 99),
    )
    def start(self, backend, rows, capacity, measure, seed):
        options = {"backend": backend, "capacity": capacity, "measure": measure}
        self.store = Store(2, 1, batch_size=rows, **options, **DOUBLE)
        self.rows, self.next = [{} for _ in range(rows)], [0] * rows
        self.chance, self.count = np.random.default_rng(seed), 0

    def fresh(self, pairs):
        """Pairs never seen before, (B, T, 2) and (B, T, 1)."""
        rows = len(self.rows)
        self.count += 1
        keys = torch.from_numpy(self.chance.normal(size=(rows, pairs, 2)))
        values = torch.arange(rows * pairs, dtype=torch.float64).view(rows, pairs, 1)
        return keys, values + 1000 * self.count

    def some(self, share, most=60):
        """Ids that are held, a share of them in a random order, as (B, T) with -1 here and there."""
        asked = []
        for row in self.rows:
            held = self.chance.permutation([*row, -1, -1])
            asked.append(held[: min(most, round(share * len(held)))].astype(int).tolist())
        width = max(map(len, asked))
        return torch.tensor([row + [-1] * (width - len(row)) for row in asked], dtype=torch.long)

    @rule(pairs=st.integers(0, 50), partial=st.booleans())
    def add(self, pairs, partial):
        keys, values = self.fresh(pairs)
        lengths = [int(self.chance.integers(pairs + 1)) if partial else pairs for _ in self.rows]
        ids = self.store.add(keys, values, lengths=torch.tensor(lengths) if partial else None)
        for b, row in enumerate(self.rows):
            given = range(self.next[b], self.next[b] + lengths[b])
            assert ids[b].tolist() == [*given] + [-1] * (pairs - lengths[b])
            row.update(
                (i, (keys[b, t].tolist(), values[b, t].tolist())) for t, i in enumerate(given)
            )
            self.next[b] += lengths[b]
            while self.store.capacity and len(row) > self.store.capacity:
                del row[next(iter(row))]

    @rule(share=st.floats(0, 1))
    def delete(self, share):
        ids = self.some(share)
        self.store.delete(torch.cat((ids, ids), dim=1))
        for b, row in enumerate(self.rows):
            for i in ids[b].tolist():
                row.pop(i, None)

    @rule(share=st.floats(0, 1))
    def overwrite(self, share):
        ids = self.some(share, 9)
        keys, values = self.fresh(ids.shape[1])
        self.store.overwrite(ids, keys, values)
        for b, row in enumerate(self.rows):
            for t, i in enumerate(ids[b].tolist()):
                row |= {} if i < 0 else {i: (keys[b, t].tolist(), values[b, t].tolist())}

    @rule(share=st.floats(0, 1))
    def get(self, share):
        ids = self.some(share, 9)
        keys, values = self.store.get(ids)
        for b, row in enumerate(self.rows):
            for t, i in enumerate(ids[b].tolist()):
                pair = row.get(i, ([0.0, 0.0], [0.0]))
                assert (keys[b, t].tolist(), values[b, t].tolist()) == pair

    @rule(missing=st.integers(0, 200))
    def refuse(self, missing):
        known = missing in self.rows[-1]
        ids = torch.full((len(self.rows), 2), -1)
        ids[-1, 1] = missing
        for change in (
            self.store.delete,
            self.store.get,
            lambda i: self.store.overwrite(i, *self.fresh(2)),
        ):
            if not known:
                with pytest.raises(
                    ValueError, match=f"ids must be held in their row; got {missing} in row"
                ):
                    change(ids)

    @rule(backend=st.none() | st.sampled_from(BACKENDS))
    def save_and_open(self, backend):
        with tempfile.TemporaryDirectory() as folder:
            self.store.save(f"{folder}/store")
            again = Store.open(f"{folder}/store", width=2, backend=backend)
        for name in ("capacity", "measure", "effort", "links"):
            assert getattr(again, name) == getattr(self.store, name)
        assert again.backend == (backend or self.store.backend)
        self.store = again

    @rule(share=st.floats(0, 1))
    def read(self, share):
        most = max(map(len, self.rows))
        query = torch.from_numpy(self.chance.normal(size=(len(self.rows), 2, 2)))
        k = max(1, round(share * most))
        value, ids, weights = self.store.read(query, k, need_weights=True)
        for b, row in enumerate(self.rows):
            assert ((ids[b] >= 0).sum(dim=-1) == min(k, len(row))).all()  # never fewer
            for t in range(2):
                found = [i for i in ids[b, t].tolist() if i >= 0]
                assert len({*found}) == len(found)
                if not found:
                    assert not value[b, t].any()
                    continue
                keys, values = (torch.tensor([row[i][n] for i in found], **DOUBLE) for n in (0, 1))
                options = {"measure": self.store.measure, "need_weights": True}
                expected, where = attend(query[b, t : t + 1], keys, values, **options)
                assert_close(value[b, t : t + 1], expected)
                assert_close(weights[b, t, : len(found)], where[0])
        if self.store.backend in ("exact", "flat") or k == most:
            best = self.store.read(query, max(1, most), need_weights=True)[1][..., :k]
            assert torch.equal(ids.sort().values, best.sort().values)

    @invariant()
    def same(self):
        assert [list(row.items()) for row in contents(self.store)] == [
            list(row.items()) for row in self.rows
        ]
        assert self.store.lengths.tolist() == [len(row) for row in self.rows]
        empty = self.store.ids < 0
        assert not self.store.keys[empty].any()
        assert not self.store.values[empty].any()
        assert self.store.ids.shape[1] <= (self.store.capacity or 2 * self.store._used + 16)


AgainstDicts.TestCase.settings = settings(max_examples=40, stateful_step_count=15)
TestAgainstDicts = AgainstDicts.TestCase


def test_where_published_memories_lose_data():
    """Sixteen keys in chunks of four, each found until it is the oldest of too many."""
    for capacity in (8, 10, 12):
        store = Store(4, 1, batch_size=2, capacity=capacity)
        keys = draw(2, 16, 4, dtype=torch.float32)
        for start in range(0, 16, 4):
            store.add(keys[:, start : start + 4], keys[:, start : start + 4, :1])
        found, _ = store.address(10 * keys, 1)
        best = similarity(keys[:, -capacity:], keys[:, -capacity:]).argmax(-1) + 16 - capacity
        assert torch.equal(found[:, -capacity:, 0], best)
        assert store.lengths.tolist() == [capacity, capacity]


# Files


def test_a_file_is_read_by_any_program_and_by_the_same_umask(tmp_path):
    store, keys, values, _ = make((6, 4))
    (tmp_path / "other").touch()
    store.save(tmp_path / "store")
    tensors = safetensors.torch.load_file(tmp_path / "store")
    assert torch.equal(tensors["keys"][0], keys[0])
    assert torch.equal(tensors["values"][0], values[0])
    assert (tmp_path / "store").stat().st_mode == (tmp_path / "other").stat().st_mode
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "store"]


def test_what_is_deleted_is_in_no_file(tmp_path):
    store, keys, _, ids = make((6, 4))
    secret = keys[0, 2].numpy().tobytes()
    store.save(tmp_path / "store")
    assert secret in (tmp_path / "store").read_bytes()
    store.delete(ids[:, 2:3])
    store.save(tmp_path / "store")
    assert secret not in (tmp_path / "store").read_bytes()


@every_backend
def test_an_opened_store_is_independent_of_its_file(backend, tmp_path):
    store, keys, values, ids = make((40, 30), backend=backend)
    query = draw(2, 5, 4, seed=9)
    expected = store.read(query, 7)
    store.save(str(tmp_path / "store"))
    data = (tmp_path / "store").read_bytes()
    again = Store.open(str(tmp_path / "store"))
    built = [index.index is not None for index in again._search.indexes]
    assert built == [True] * len(built)  # nothing to wait for
    assert_close(again.read(query, 7), expected)
    again.overwrite(ids[:, :1], keys[:, :1] + 1, values[:, :1])
    assert (tmp_path / "store").read_bytes() == data
    (tmp_path / "store").write_bytes(bytes(len(data)))
    assert_close(store.read(query, 7), expected)
    assert torch.equal(again.keys[:, 1:], store.keys[:, 1:])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes_and_empty_stores_survive(dtype, tmp_path):
    for store in (
        Store(3, 1, batch_size=2, capacity=5, dtype=dtype, value_dtype=torch.int32),
        Store(3, 1, batch_size=0, dtype=dtype),
        make((5, 1), dtype=dtype, capacity=2)[0],
    ):
        store.save(tmp_path / "store")
        again = Store.open(tmp_path / "store")
        assert repr(again) == repr(store)
        assert (again.keys.dtype, again.values.dtype) == (store.keys.dtype, store.values.dtype)
        assert contents(again) == contents(store)
        batch, _, width = store.keys.shape
        keys = draw(batch, 4, width, dtype=dtype)
        values = torch.ones(batch, 4, store.value_width, dtype=store.values.dtype)
        assert torch.equal(again.add(keys, values), store.add(keys, values))
        assert contents(again) == contents(store)


def damaged(data):
    """Copies with something wrong, and what it is."""
    size = 8 + int.from_bytes(data[:8], "little")
    for place in (*range(0, size, 3), *range(size, len(data), 41), len(data) - 1):
        yield data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :]
    for length in (0, 5, 100, size, len(data) - 1):
        yield data[:length]
    yield data + b"x"
    yield bytes(len(data))


def test_a_damaged_file_is_refused_with_what_is_wrong(tmp_path):
    store, *_ = make((6, 4), backend="hnsw")
    store.read(draw(2, 1, 4), 1)
    path = tmp_path / "store"
    store.save(path)
    data = path.read_bytes()
    for bad in damaged(data):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match=r"store (must|is damaged)"):
            Store.open(path)
    path.write_bytes(data)
    assert contents(Store.open(path)) == contents(store)


def test_a_file_of_another_kind_version_or_width_is_refused(monkeypatch, tmp_path):
    store, *_ = make((6, 4))
    store.save(tmp_path / "store")
    with pytest.raises(ValueError, match=r"width of store must be 5; got 4"):
        Store.open(tmp_path / "store", width=5)
    monkeypatch.setattr(files, "VERSION", 2)
    with pytest.raises(ValueError, match=r"store must be of version 2; got version 1"):
        Store.open(tmp_path / "store")
    safetensors.torch.save_file({"keys": store.keys}, tmp_path / "other")
    with pytest.raises(ValueError, match=r"other must hold a memlib.Store; got None"):
        Store.open(tmp_path / "other")
    with pytest.raises(FileNotFoundError, match="absent"):
        Store.open(tmp_path / "absent")
    with pytest.raises(IsADirectoryError):
        Store.open(tmp_path)


@contextmanager
def read_only(folder):
    """Nobody may write here; not even root, who acts as another user."""
    folder.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)


@contextmanager
def full_disk(size):
    """No file may become larger."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_save_that_fails_loses_nothing(tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    folder.mkdir()
    store, keys, values, ids = make((6, 4))
    store.save(folder / "store")
    before = contents(store)
    store.overwrite(ids[:, :1], keys[:, 1:2], values[:, 1:2])
    after = contents(store)
    # the folders above tmp_path are root's alone
    monkeypatch.chdir(folder)
    with read_only(folder), pytest.raises(PermissionError, match="'store'"):
        store.save("store")
    with full_disk(500), pytest.raises(OSError, match=r"store could not be written: .*too large"):
        store.save("store")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", Mock(side_effect=OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space left"):
            store.save("store")
    with pytest.raises(FileNotFoundError, match="absent"):
        store.save("absent/store")
    assert [path.name for path in folder.iterdir()] == ["store"]
    assert contents(store) == after
    assert contents(Store.open("store")) == before
    store.save("store")
    assert contents(Store.open("store")) == after


SAVING = """
import os, signal, sys
import torch
from memlib.store import Store

path, moment = sys.argv[1:]
die = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
store = Store(64, 1, capacity=2000)
round = 0
while True:
    round += 1
    full = torch.full((1, 2000, 64), float(round))
    store.add(full, full[..., :1])
    if moment != "any" and round == 2:
        setattr(os, moment, die)
    store.save(path)
    print(round, flush=True)
"""


def kill_while_saving(path, moment, delay=0.0):
    """Save 1, 2, 3, ... until killed; return the last that was surely saved."""
    code = textwrap.dedent(SAVING)
    command = [sys.executable, "-c", code, str(path), moment]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    with process:
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL) if moment == "any" else process.wait(60)
        said = process.stdout.read().split()
    assert process.returncode == -signal.SIGKILL
    return int(said[-1]) if said else 1


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_store_killed_just_before_it_is_renamed_is_the_old_one(moment, tmp_path):
    assert kill_while_saving(tmp_path / "store", moment) == 1
    assert Store.open(tmp_path / "store").keys.unique().tolist() == [1.0]


@pytest.mark.slow
def test_a_store_killed_at_any_moment_is_whole(tmp_path):
    for delay in (0.0, 0.02):
        last = kill_while_saving(tmp_path / "store", "any", delay)
        (held,) = Store.open(tmp_path / "store").keys.unique().tolist()
        assert held in (last, last + 1)


# Refusals

store, keys, values, ids = make((6, 4), dtype=torch.float32)
tokens = Store(4, 1, value_dtype=torch.long)
query = draw(2, 5, 4, dtype=torch.float32)
bad = keys.clone()
bad[1, 2, 3] = NAN
length = torch.tensor([7, 0])

# fmt: off
REFUSALS = [
    (lambda: Store(0), ValueError, "width must be at least 1; got 0"),
    (lambda: Store(4.0), TypeError, "width must be an integer; got float"),
    (lambda: Store(4, 0), ValueError, "value_width must be at least 1; got 0"),
    (lambda: Store(4, batch_size=-1), ValueError, "batch_size must be at least 0; got -1"),
    (lambda: Store(4, capacity=0), ValueError, "capacity must be at least 1; got 0"),
    (lambda: Store(4, measure="l2"), ValueError, "measure must be one of dot, scaled_dot, cosine, negative_squared_distance; got 'l2'"),
    (lambda: Store(4, backend="gpu"), ValueError, "backend must be one of exact, flat, hnsw, ivf; got 'gpu'"),
    (lambda: Store(4, effort=0), ValueError, "effort must be at least 1; got 0"),
    (lambda: Store(4, links=1), ValueError, "links must be at least 2; got 1"),
    (lambda: Store(4, dtype=torch.long), TypeError, "dtype must have a floating-point dtype; got torch.int64"),
    (lambda: Store(4, value_dtype=torch.bool), TypeError, "value_dtype must have a floating-point dtype; got torch.bool"),
    (lambda: store.add(keys.numpy(), values), TypeError, "keys must be a torch.Tensor; got ndarray"),
    (lambda: store.add(keys[0], values), ValueError, "keys must have shape (B, T, M) with B = 2, M = 4; got (6, 4)"),
    (lambda: store.add(keys[:1], values), ValueError, "keys must have shape (B, T, M) with B = 2, M = 4; got (1, 6, 4)"),
    (lambda: store.add(keys[0, 0], values), ValueError, "keys must have shape (B, T, M) with B = 2, M = 4; got (4,)"),
    (lambda: store.add(keys[..., :3], values), ValueError, "keys must have shape (B, T, M) with B = 2, M = 4; got (2, 6, 3)"),
    (lambda: store.add(keys, values[..., :1]), ValueError, "values must have shape (B, T, V) with B = 2, T = 6, V = 3; got (2, 6, 1)"),
    (lambda: store.add(keys, values[:, :5]), ValueError, "values must have shape (B, T, V) with B = 2, T = 6, V = 3; got (2, 5, 3)"),
    (lambda: store.add(keys.double(), values), TypeError, "keys must have the dtype of the store's keys, torch.float32; got torch.float64"),
    (lambda: store.add(keys, values.long()), TypeError, "values must have the dtype of the store's values, torch.float32; got torch.int64"),
    (lambda: store.add(keys, values.bool()), TypeError, "values must have a floating-point dtype; got torch.bool"),
    (lambda: store.add(keys, None), TypeError, "values must be a torch.Tensor; got NoneType"),
    (lambda: store.add(keys.to("meta"), values), ValueError, "keys must be on the device of the store's keys, cpu; got meta"),
    (lambda: store.add(bad, values), ValueError, "keys must be finite where it is read; got NaN at (1, 2, 3)"),
    (lambda: store.add(keys, values / 0), ValueError, "values must be finite where it is read; got infinity at (0, 0, 0)"),
    (lambda: store.add(keys, values, lengths=length), ValueError, "lengths must be in [0, T = 6]; got 7"),
    (lambda: store.add(keys, values, lengths=[6, 6]), TypeError, "lengths must be a torch.Tensor; got list"),
    (lambda: store.overwrite(ids, bad, values), ValueError, "keys must be finite where it is read; got NaN at (1, 2, 3)"),
    (lambda: store.overwrite(ids[:, :5], keys, values), ValueError, "ids must have shape (B, T) with B = 2, T = 6; got (2, 5)"),
    (lambda: store.overwrite(ids[:, [0, 1, 0]], keys[:, :3], values[:, :3]), ValueError, "ids must differ within a row; got 0 twice"),
    (lambda: store.overwrite(ids + 1, keys, values), ValueError, "ids must be held in their row; got 6 in row 0"),
    (lambda: store.delete(ids + 1), ValueError, "ids must be held in their row; got 6 in row 0"),
    (lambda: store.delete(ids.short()), TypeError, "ids must have dtype int64 or int32; got torch.int16"),
    (lambda: store.delete(ids - 2), ValueError, "ids must be held in their row; got -2 in row 0"),
    (lambda: store.delete(ids[0]), ValueError, "ids must have shape (B, T) with B = 2; got (6,)"),
    (lambda: store.delete(ids[:1]), ValueError, "ids must have shape (B, T) with B = 2; got (1, 6)"),
    (lambda: store.delete([3]), TypeError, "ids must be a torch.Tensor; got list"),
    (lambda: store.get(ids.float()), TypeError, "ids must have dtype int64 or int32; got torch.float32"),
    (lambda: store.get(ids[:1]), ValueError, "ids must have shape (B, T) with B = 2; got (1, 6)"),
    (lambda: store.read(query[..., :3], 1), ValueError, "query must have shape (B, L, M) with B = 2, M = 4; got (2, 5, 3)"),
    (lambda: store.read(query.double(), 1), TypeError, "query must have the dtype of the store, torch.float32; got torch.float64"),
    (lambda: store.read(query, 7), ValueError, "k must be at most the 6 pairs of the fullest row; got 7"),
    (lambda: store.read(query, 0), ValueError, "k must be at least 1; got 0"),
    (lambda: store.read(query, 1.0), TypeError, "k must be an integer; got float"),
    (lambda: store.read(query, 1, strength=-1.0), ValueError, "strength must be finite and at least 0; got -1.0"),
    (lambda: store.read(query, 1, strength=torch.ones(3)), ValueError, "strength must broadcast to shape (2, 5); got (3,)"),
    (lambda: store.read(query * NAN, 2), ValueError, "query must be finite where it is read; got NaN at (0, 0, 0)"),
    (lambda: store.read(query * NAN, 6), ValueError, "query must be finite where it is read; got NaN at (0, 0, 0)"),
    (lambda: store.address(query * NAN, 2), ValueError, "query must be finite where it is read; got NaN at (0, 0, 0)"),
    (lambda: tokens.read(query[:1], 1), TypeError, "values must have a floating-point dtype; got torch.int64"),
    (lambda: tokens.add(keys[:1], values[:1, :, :1]), TypeError, "values must have the dtype of the store's values, torch.int64; got torch.float32"),
]
# fmt: on


@pytest.mark.parametrize(("call", "error", "message"), REFUSALS, ids=[r[2] for r in REFUSALS])
def test_bad_input_is_refused_and_changes_nothing(call, error, message):
    before = contents(store), store._next.tolist(), store.ids.shape
    with pytest.raises(error, match=re.escape(message)):
        call()
    assert (contents(store), store._next.tolist(), store.ids.shape) == before


def test_its_size_in_bytes():
    full, *_ = make((6, 4), capacity=6)
    assert full.nbytes == 2 * 6 * (4 * 8 + 3 * 8 + 8)
