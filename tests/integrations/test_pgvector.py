"""PostgreSQL as an engine: the facts of the stores chapter, read as a store reads them."""

from __future__ import annotations

import doctest
import importlib
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from memlib import MEASURES, Engine, Store, retrieve

psycopg = pytest.importorskip("psycopg", reason="needs memlib[pgvector]: `make extras`")
module = importlib.import_module("memlib.integrations.pgvector")
PgVector = module.PgVector

N, M, V = 200, 6, 3


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def both(connection: Any, measure: Any, keys: Tensor, values: Tensor) -> tuple[Any, Store]:
    """The same pairs in a table and in a store."""
    widths = keys.shape[-1], values.shape[-1]
    table, store = PgVector(connection, "facts", *widths, measure=measure), None
    store = Store(*widths, measure=measure)
    assert_close(table.add(keys, values), store.add(keys, values))
    return table, store


def drawn(connection: Any, measure: Any = "scaled_dot") -> tuple[Any, Store]:
    return both(connection, measure, torch.randn(1, N, M), torch.randn(1, N, V))


# ---- The facts of the chapter ----


@pytest.fixture(scope="module")
def chapter() -> tuple[Tensor, Tensor, list[str], Tensor]:
    """Keys of all facts, their numbers, what each is, and the questions about capitals."""
    teaching = pytest.importorskip("memlib.teaching")
    table, tokens = teaching.word_vectors()

    def embed(texts: list[str]) -> Tensor:
        means = [table[tokens(text)].mean(dim=0) for text in texts]
        return F.normalize(torch.stack(means), dim=-1)

    facts, _ = teaching.country_facts()
    keys = embed([fact.text for fact in facts])[None]
    asked = [f"What is the capital of {f.country}?" for f in facts if f.relation == "capital"]
    numbers = torch.arange(float(len(facts))).view(1, -1, 1)
    return keys, numbers, [fact.text for fact in facts], embed(asked)[None]


def test_the_chapters_facts_are_read_as_a_store_reads_them(connection: Any, chapter: Any) -> None:
    """Exactly: the same ids, weights and reads, for every question about a capital."""
    keys, numbers, texts, questions = chapter
    table, store = both(connection, "cosine", keys, numbers / len(texts))
    assert len(table) == keys.shape[1] == len(texts)
    expected = store.read(questions, 6, strength=20.0, need_weights=True)
    found = retrieve(questions, table, 6, strength=20.0, need_weights=True)
    assert_close(found[0], expected[0], rtol=0, atol=1e-5)
    assert_close(found[2], expected[2], rtol=0, atol=1e-5)
    assert (found[1] == expected[1]).double().mean() > 0.99, "equal keys may change places"
    which = texts.index("The capital of Burkina Faso is Ouagadougou.")
    assert (found[1][0, :, 0] == which).any()


def test_hnsw_finds_more_the_more_effort_it_makes(connection: Any, chapter: Any) -> None:
    """Recall@6 over the chapter's questions; an effort as large as the table misses nothing."""
    keys, numbers, _, questions = chapter
    table, store = both(connection, "cosine", keys, numbers)
    ids, _ = store.address(questions, 6)
    table.build_index()

    def recall() -> float:
        found, _, _ = table.search(questions, 6)
        hit = (found.unsqueeze(-1) == ids.unsqueeze(-2)).any(-1)
        return float(hit.double().mean())

    shares = []
    for table.effort in (6, 20, 100, 1000):
        shares.append(recall())
    assert shares[0] < 1, "it is the index that was asked"
    assert shares[0] < shares[-1]
    assert shares[-1] > 0.99
    table.effort = None
    assert recall() > 0.99, "exact, equal keys apart"


# ---- Any pairs ----


@pytest.mark.parametrize("k", [1, 7, N, N + 5])
@pytest.mark.parametrize("measure", MEASURES)
def test_it_reads_what_the_store_reads(connection: Any, measure: Any, k: int) -> None:
    table, store = drawn(connection, measure)
    query = torch.randn(3, 4, M)
    value, ids, weights = retrieve(query, table, k, strength=2.0, need_weights=True)
    expected = store.read(query, min(k, N), strength=2.0, need_weights=True)
    assert_close(value, expected[0], rtol=1e-5, atol=1e-5)
    assert_close(weights, expected[2], rtol=1e-5, atol=1e-5)
    assert ids.shape == (3, 4, min(k, N))
    assert isinstance(table, Engine)


def test_gradients_reach_the_query(connection: Any) -> None:
    table, store = drawn(connection)
    query = torch.randn(2, 3, M, requires_grad=True)
    again = query.detach().clone().requires_grad_()
    retrieve(query, table, 5).square().sum().backward()
    store.read(again, 5).square().sum().backward()
    assert_close(query.grad, again.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_dtypes_are_kept_in_float32(connection: Any, dtype: torch.dtype) -> None:
    table = PgVector(connection, "facts", M, V)
    keys, values = torch.randn(1, 9, M).to(dtype), torch.randn(1, 9, V).to(dtype)
    table.add(keys, values)
    _, found, read = table.search(keys, 9)
    assert found.dtype == read.dtype == dtype
    assert found.shape == (1, 9, 9, M)
    assert retrieve(keys, table, 3).dtype == dtype


def test_pairs_that_change(connection: Any) -> None:
    table, store = drawn(connection)
    ids, keys, values = torch.tensor([[3, -1, 9]]), torch.randn(1, 3, M), torch.randn(1, 3, V)
    for one in (table, store):
        one.overwrite(ids, keys, values)
        one.delete(torch.tensor([[0, 5, -1, 5]]))
    new = torch.randn(1, 2, M), torch.randn(1, 2, V)
    assert_close(table.add(*new), store.add(*new))
    query = torch.randn(1, 6, M)
    assert_close(retrieve(query, table, len(table)), store.read(query, len(table)))
    assert len(table) == N
    table.build_index()
    table.effort = 40
    table.overwrite(ids[:, :1], query[:, :1] * 50, values[:, :1])
    assert table.search(query[:, :1], 1)[0].item() == 3, "the index follows"


def test_an_approximate_search_goes_on_until_it_has_k(connection: Any) -> None:
    table, _ = drawn(connection)
    table.build_index()
    table.effort = 10
    ids, _, _ = table.search(torch.randn(2, 2, M), 60)
    assert ids.shape == (2, 2, 60)
    assert (ids >= 0).all()


def test_an_empty_table_and_an_empty_question(connection: Any) -> None:
    table = PgVector(connection, "facts", M, V)
    query = torch.randn(2, 3, M)
    assert_close(retrieve(query, table, 4), torch.zeros(2, 3, V))
    assert table.add(torch.zeros(1, 0, M), torch.zeros(1, 0, V)).shape == (1, 0)
    table.delete(torch.tensor([[-1]]))
    table.overwrite(torch.tensor([[-1]]), torch.ones(1, 1, M), torch.ones(1, 1, V))
    drawn(connection)
    assert retrieve(torch.zeros(2, 0, M), table, 4).shape == (2, 0, V)


def test_a_name_is_quoted_and_never_part_of_the_statement(connection: Any) -> None:
    name = 'a"; DROP TABLE x; -- Größe'
    table = PgVector(connection, name, M, V)
    table.add(torch.randn(1, 4, M), torch.randn(1, 4, V))
    table.build_index()
    assert len(PgVector(connection, name, M, V)) == 4


def test_a_batch_is_one_statement(connection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sets how it is searched, one searches; in the caller's transaction nothing stays set."""
    table, _ = drawn(connection)
    ran: list[str] = []
    execute = connection.execute

    def heard(statement: Any, *rest: Any, **options: Any) -> Any:
        ran.append(statement.as_string(connection).split()[1])
        return execute(statement, *rest, **options)

    monkeypatch.setattr(connection, "execute", heard)
    table.effort = 77
    table.search(torch.randn(4, 5, M), 3)
    assert ran == ["set_config(%s,", "q.n"]
    monkeypatch.undo()
    assert connection.execute("SHOW hnsw.ef_search").fetchone() == ("40",)
    assert connection.execute("SHOW enable_seqscan").fetchone() == ("on",)


def test_settings_do_not_stay(server: dict[str, str]) -> None:
    where = {"host": server["PGHOST"], "user": server["PGUSER"], "dbname": server["PGDATABASE"]}
    with psycopg.connect(**where, autocommit=True) as one:
        table = PgVector(one, "kept", M, V, effort=77)
        try:
            table.add(torch.randn(1, 4, M), torch.randn(1, 4, V))
            with psycopg.connect(**where) as other:
                assert len(PgVector(other, "kept", M, V)) == 4, "each call is committed"
            table.search(torch.randn(1, 1, M), 2)
            assert one.execute("SHOW hnsw.ef_search").fetchone() == ("40",)
            assert one.execute("SHOW enable_seqscan").fetchone() == ("on",)
        finally:
            one.execute("DROP TABLE kept")


# ---- What is refused ----


def test_what_raises_leaves_nothing_behind(connection: Any) -> None:
    table, store = drawn(connection)
    ids, keys, values = torch.tensor([[1, N]]), torch.randn(1, 2, M), torch.randn(1, 2, V)
    with pytest.raises(ValueError, match="ids must be held, and none twice; 1 of 2 are"):
        table.overwrite(ids, keys, values)
    with pytest.raises(ValueError, match="ids must be held, and none twice; 1 of 2 are"):
        table.overwrite(torch.tensor([[1, 1]]), keys, values)
    with pytest.raises(ValueError, match="ids must be held"):
        table.delete(ids)
    query = torch.randn(1, 4, M)
    assert_close(retrieve(query, table, N), store.read(query, N))


def test_an_error_of_the_server_comes_through_with_a_note(connection: Any) -> None:
    table = PgVector(connection, "wide", 3000, 1)
    with pytest.raises(psycopg.Error, match="cannot have more than 2000 dimensions") as caught:
        table.build_index()
    assert caught.value.__notes__ == ["memlib asked PostgreSQL to index the table 'wide'"]
    connection.execute("DROP TABLE wide")
    with pytest.raises(psycopg.errors.UndefinedTable) as caught:
        table.search(torch.randn(1, 1, 3000), 1)
    assert caught.value.__notes__ == ["memlib asked PostgreSQL to search the table 'wide'"]


def pairs(**other: Tensor) -> tuple[Tensor, Tensor]:
    given = {"keys": torch.ones(1, 2, M), "values": torch.ones(1, 2, V)} | other
    return given["keys"], given["values"]


@pytest.mark.parametrize(
    ("call", "error", "told"),
    [
        (lambda t: t.add(*pairs(keys=torch.ones(1, 2, 9))), ValueError, "keys must have shape"),
        (lambda t: t.add(*pairs(keys=torch.ones(2, 2, M))), ValueError, "keys must have shape"),
        (lambda t: t.add(*pairs(values=torch.ones(1, 3, V))), ValueError, "values must have sha"),
        (lambda t: t.add(*pairs(values=torch.ones(1, 2, V).long())), TypeError, "floating-point"),
        (lambda t: t.add(*pairs(keys=torch.ones(1, 2, M) / 0)), ValueError, "keys must be finite"),
        (lambda t: t.add(*pairs(keys=torch.zeros(1, 2, M))), ValueError, "must have a direction"),
        (lambda t: t.search(torch.zeros(1, 2, M), 1), ValueError, "query must have a direction"),
        (lambda t: t.search(torch.ones(2, M), 1), ValueError, r"query must have shape \(B, L, M"),
        (lambda t: t.search(torch.ones(1, 2, M), 0), ValueError, "k must be at least 1; got 0"),
        (lambda t: t.delete(torch.ones(1, 2)), TypeError, "ids must have dtype int64"),
        (lambda t: t.build_index(links=1), ValueError, "links must be at least 2; got 1"),
        (lambda t: PgVector(t.connection, "facts", M, 2), ValueError, r"of widths \(6, 2\); got"),
        (lambda t: PgVector(t.connection, "facts", M, 0), ValueError, "value_width must be at l"),
        (lambda t: PgVector(None, "facts", M), TypeError, "connection must be a psycopg.Connec"),
        (lambda t: PgVector(t.connection, "x", M, measure="l2"), ValueError, "measure must be on"),
    ],
)
def test_bad_input_is_refused(connection: Any, call: Any, error: Any, told: str) -> None:
    with pytest.raises(error, match=told):
        call(PgVector(connection, "facts", M, V, measure="cosine"))


def test_an_effort_out_of_range_is_refused(connection: Any) -> None:
    table = PgVector(connection, "facts", M, V)
    table.effort = 1001
    with pytest.raises(ValueError, match=r"effort must be in \[1, 1000\]; got 1001"):
        table.search(torch.ones(1, 1, M), 1)


def test_its_example(connection: Any) -> None:
    result = doctest.testmod(
        module, extraglobs={"connection": connection}, optionflags=doctest.NORMALIZE_WHITESPACE
    )
    assert result.attempted > 5
    assert result.failed == 0
