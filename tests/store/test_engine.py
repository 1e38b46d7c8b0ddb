"""A read over an engine: what a store reads, wherever both find the same pairs."""

from __future__ import annotations

import sqlite3
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.testing import assert_close

from memlib import MEASURES, Engine, Store, attend, retrieve

B, L, M, V, N = 2, 3, 4, 5, 20


class Lent:
    """A store of one row, as an engine; says what it was asked."""

    def __init__(self, store: Store) -> None:
        self.store, self.measure = store, store.measure
        self.asked: list[Tensor] = []

    def search(self, query: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
        self.asked.append(query)
        ids, _ = self.store.address(query, k)
        return ids, *self.store.get(ids)


class Answer:
    """An engine that always gives the same back."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def search(self, query: Tensor, k: int) -> Any:
        return self.parts


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def store(measure: Any = "scaled_dot", dtype: torch.dtype = torch.float32) -> Store:
    made = Store(M, V, measure=measure, dtype=dtype)
    made.add(torch.randn(1, N, M, dtype=dtype), torch.randn(1, N, V, dtype=dtype))
    return made


def answer(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    ids = torch.arange(B * L * 3).view(B, L, 3)
    return [ids, torch.randn(B, L, 3, M, dtype=dtype), torch.randn(B, L, 3, V, dtype=dtype)]


@pytest.mark.parametrize("strength", [0.0, 2.0, "each"])
@pytest.mark.parametrize("k", [1, 7, N])
@pytest.mark.parametrize("measure", MEASURES)
def test_it_reads_what_the_store_reads(measure: Any, k: int, strength: Any) -> None:
    held, query = store(measure), torch.randn(B, L, M)
    strength = torch.rand(B, L) * 9 if strength == "each" else strength
    expected = held.read(query, k, strength=strength, need_weights=True)
    engine = Lent(held)
    found = retrieve(query, engine, k, strength=strength, need_weights=True)
    assert_close(found, expected)
    assert_close(retrieve(query, engine, k, strength=strength), expected[0])
    assert_close(retrieve(query, engine, k, measure=measure, strength=strength), expected[0])
    if k == N:
        keys, values, _ = held._all()
        whole = attend(query, keys, values, measure=measure, strength=strength)
        assert_close(found[0], whole)


@pytest.mark.parametrize("measure", MEASURES)
def test_gradients_reach_the_query_and_what_was_found(measure: Any) -> None:
    ids, keys, values = answer(torch.double)
    ids[0, 0, 1] = -1
    query = torch.randn(B, L, M, dtype=torch.double, requires_grad=True)

    def read(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        engine = Answer(ids, keys, values)
        return retrieve(query, engine, 3, measure=measure, strength=1.5)

    assert gradcheck(read, (query, keys.requires_grad_(), values.requires_grad_()))


def test_the_engine_is_asked_without_a_gradient() -> None:
    held, query = store(), torch.randn(B, L, M, requires_grad=True)
    engine, again = Lent(held), query.detach().clone().requires_grad_()
    retrieve(query, engine, 2).sum().backward()
    assert not engine.asked[0].requires_grad
    held.read(again, 2).sum().backward()
    assert_close(query.grad, again.grad)


def test_fewer_than_k_and_none_at_all() -> None:
    ids, keys, values = answer()
    query = torch.randn(B, L, M)
    whole, names, weights = retrieve(query, Answer(ids, keys, values), 50, need_weights=True)
    assert whole.shape == (B, L, V)
    assert names.shape == weights.shape == (B, L, 3)
    nothing = ids[..., :0], keys[..., :0, :], values[..., :0, :]
    assert_close(retrieve(query, Answer(*nothing), 2), torch.zeros(B, L, V))
    empty = torch.full_like(ids, -1)
    dirty = torch.full_like(keys, torch.nan)
    value, _, weights = retrieve(query, Answer(empty, dirty, values), 3, need_weights=True)
    assert_close((value, weights), (torch.zeros(B, L, V), torch.zeros(B, L, 3)))


def test_what_stands_beside_no_id_is_not_looked_at() -> None:
    ids, keys, values = answer()
    query = torch.randn(B, L, M)
    expected = retrieve(query, Answer(ids[..., :2], keys[..., :2, :], values[..., :2, :]), 3)
    ids[..., 2] = -7
    keys[..., 2, :], values[..., 2, :] = torch.nan, torch.inf
    value, names, _ = retrieve(query, Answer(ids, keys, values), 3, need_weights=True)
    assert_close(value, expected)
    assert names.min() == -1


def test_a_zero_batch() -> None:
    assert retrieve(torch.zeros(0, L, M), Lent(store()), 2).shape == (0, L, V)
    assert retrieve(torch.zeros(B, 0, M), Lent(store()), 2).shape == (B, 0, V)


QUERY = torch.ones(B, L, M)
REFUSED = [
    (lambda a: (a[0].float(), a[1], a[2]), TypeError, "the engine's ids must have dtype int64"),
    (lambda a: (a[0][0], a[1], a[2]), ValueError, r"the engine's ids must have shape \(B, L, K\)"),
    (lambda a: (a[0], a[1][..., :2], a[2]), ValueError, r"the engine's keys must have shape"),
    (lambda a: (a[0], a[1], a[2][:, :, :2]), ValueError, r"the engine's values must have shape"),
    (lambda a: (a[0], a[1].double(), a[2]), TypeError, "the engine's keys must have the dtype of"),
    (lambda a: (a[0], a[1], a[2].numpy()), TypeError, "the engine's values must be a torch.Ten"),
    (lambda a: (a[0] * 0 + 5, a[1], a[2]), ValueError, "must differ for each query; got 5 twice"),
    (lambda a: [torch.cat([x, x], 2) for x in a], ValueError, r"pairs must be in \[0, 3\]; got 6"),
    (lambda a: (a[0], a[1] * torch.nan, a[2]), ValueError, "keys must be finite where it is read"),
]


@pytest.mark.parametrize(("spoil", "error", "told"), REFUSED)
def test_an_answer_that_does_not_fit_is_refused(spoil: Any, error: Any, told: str) -> None:
    with pytest.raises(error, match=told):
        retrieve(QUERY, Answer(*spoil(answer())), 3)


@pytest.mark.parametrize(
    ("call", "error", "told"),
    [
        (lambda e: retrieve(QUERY[0], e, 3), ValueError, r"query must have shape \(B, L, M\)"),
        (lambda e: retrieve(QUERY.long(), e, 3), TypeError, "query must have a floating-point"),
        (lambda e: retrieve(QUERY, e, 0), ValueError, "k must be at least 1; got 0"),
        (lambda e: retrieve(QUERY, QUERY, 3), TypeError, "must have a method search; got Tensor"),
        (lambda e: retrieve(QUERY, e, 3, strength=-1.0), ValueError, "strength must be finite and"),
        (lambda e: retrieve(QUERY, e, 3, measure="near"), ValueError, "measure must be one of"),
        (
            lambda e: retrieve(QUERY, e, 3, strength=torch.ones(L, B)),
            ValueError,
            r"strength must broadcast to queries \(B, L\) \(2, 3\); got \(3, 2\)",
        ),
    ],
)
def test_a_question_that_does_not_fit_is_refused(call: Any, error: Any, told: str) -> None:
    with pytest.raises(error, match=told):
        call(Answer(*answer()))


def test_what_is_no_answer_is_refused() -> None:
    class Says(Lent):
        told: Any = None

        def search(self, query: Tensor, k: int) -> Any:
            return self.told

    asked, engine = torch.randn(B, L, M), Says(store())
    for told, got in ((None, "NoneType"), (answer()[:2], "2 things"), (answer()[0], "Tensor")):
        engine.told = told
        with pytest.raises(TypeError, match=f"must answer with ids, keys and values; got {got}"):
            retrieve(asked, engine, 2)
    with pytest.raises(TypeError, match="must have a method search; got the class Says"):
        retrieve(asked, Says, 2)  # type: ignore[arg-type]


def test_what_has_no_search_is_no_engine() -> None:
    assert isinstance(Lent(store()), Engine)
    assert not isinstance(store(), Engine)


def test_another_engine_in_a_few_lines() -> None:
    """SQLite, as the guide has faiss: the protocol asks for no class and no base."""
    rows = sqlite3.connect(":memory:")
    rows.execute("CREATE TABLE facts (id INTEGER PRIMARY KEY, key BLOB, value BLOB)")
    held = store("negative_squared_distance")
    keys, values, ids = (x[0].numpy() for x in held._all())
    told = [(int(i), k.tobytes(), v.tobytes()) for i, k, v in zip(ids, keys, values, strict=True)]
    rows.executemany("INSERT INTO facts VALUES (?, ?, ?)", told)

    class Rows:
        measure = "negative_squared_distance"

        def search(self, query: Tensor, k: int) -> tuple[Tensor, ...]:
            all_ids, all_keys, all_values = zip(*rows.execute("SELECT * FROM facts"), strict=True)
            K, U = (
                torch.from_numpy(np.stack([np.frombuffer(x, np.float32) for x in part]))
                for part in (all_keys, all_values)
            )
            best = torch.cdist(query, K).topk(k, largest=False).indices
            return torch.tensor(all_ids)[best], K[best], U[best]

    query = torch.randn(B, L, M)
    assert_close(retrieve(query, Rows(), 4), held.read(query, 4))
