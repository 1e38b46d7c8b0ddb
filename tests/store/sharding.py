"""What each of three processes does, and tells, for the tests of sharded stores.

The processes are started once. Every case runs in groups of one, two and three of them; what a
case compares with is one process's `memlib.Store` and `memlib.attend`, which each makes itself.
"""

import os
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.testing import assert_close

from memlib import MEASURES, ShardedStore, Store, attend, attend_sharded
from memlib.store import read_cost, shards

SIZES = (1, 2, 3)
Case = Callable[[Any, int, int, Path], None]
CASES: dict[str, Case] = {}
OUTPUT = {torch.float64: 1e-12, torch.float32: 1e-6}  # times the size of values
GRADIENT = {torch.float64: 1e-10, torch.float32: 1e-5}


def case(run: Case) -> Case:
    CASES[run.__name__] = run
    return run


def meet(rank: int, folder: str, seconds: int) -> None:
    """Join the three processes, which wait so long for one another."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=3,
        timeout=timedelta(seconds=seconds),
    )  # fmt: skip


def start(rank: int, folder: str, answers: Any) -> None:
    """In one of three processes: run every case in every group."""
    meet(rank, folder, seconds=60)
    groups = {size: dist.new_group(list(range(size))) for size in SIZES}
    told: dict[tuple[str, int], str | None] = {}
    for (name, run), (size, group) in product(CASES.items(), groups.items()):
        if rank < size:
            told[name, size] = _tell(run, group, rank, size, Path(folder, f"{name}-{size}"))
            if told[name, size] and size > 1:  # the others wait for it no longer
                answers.put(told)
                os._exit(1)
    answers.put(told)
    dist.barrier()
    dist.destroy_process_group()


def _tell(run: Case, *args: Any) -> str | None:
    try:
        run(*args)
    except Exception:
        return traceback.format_exc()
    return None


def die(rank: int, folder: str, answers: Any) -> None:
    """In one of three processes, of which the last is killed while it reads."""
    meet(rank, folder, seconds=3)
    store, keys, _values = filled(None)
    store.save(Path(folder, "saved"))
    store.read(keys[:, :2], 3)
    if rank == 2:
        store.shard._search = lambda *_: os.kill(os.getpid(), 9)  # type: ignore[method-assign, assignment]
    began = time.monotonic()
    try:
        store.read(keys[:, :2], 3)
        told = "no error"
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
    left = Path(folder, f"left-{rank}")
    store.shard.save(left)
    answers.put((rank, told, time.monotonic() - began, len(Store.open(left).ids[0])))
    os._exit(0)  # there is no group any more to leave


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    chance = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=chance, dtype=dtype)


def filled(
    group: Any, pairs: int = 20, rows: int = 1, queries: str = "same", **options: Any
) -> tuple[ShardedStore, Tensor, Tensor]:
    """A sharded store of pairs that came in two calls."""
    options = {"dtype": torch.float64, "batch_size": rows} | options
    store = ShardedStore(4, 3, group=group, queries=queries, **options)  # type: ignore[arg-type]
    keys, values = (draw(rows, pairs, m, seed=m, dtype=options["dtype"]) for m in (4, 3))
    for part in (slice(0, pairs // 3), slice(pairs // 3, pairs)):
        store.add(keys[:, part], values[:, part])
    return store, keys, values


def single(keys: Tensor, values: Tensor, **options: Any) -> Store:
    store = Store(4, 3, batch_size=len(keys), dtype=keys.dtype, **options)
    store.add(keys, values)
    return store


def size_of(x: Tensor) -> float:
    return max(1.0, x.abs().max().item() if x.numel() else 0.0)


def off(found: Tensor, expected: Tensor) -> float:
    """The largest difference beside the largest number, or 1."""
    gap = (found.double() - expected).abs()
    return (gap.max().item() if gap.numel() else 0.0) / size_of(expected)


def close(found: Tensor, expected: Tensor, error: float) -> None:
    assert_close(found, expected, rtol=0, atol=error * size_of(expected))


def raises(kind: type[Exception], words: str, call: Callable[[], object]) -> None:
    try:
        call()
    except kind as error:
        assert words in str(error), str(error)  # noqa: PT017
        return
    raise AssertionError(f"{kind.__name__} must be raised")


# Attention over parts


@case
def attention_is_that_of_one_process(group: Any, rank: int, size: int, _: Path) -> None:
    for n in (1, 30, 30_000):  # from 8,192 slots a part on by PyTorch's own kernel
        cuts = {1: [0, n], 2: [0, n // 4, n], 3: [0, n // 4, n // 4, n]}[size]
        part = slice(cuts[rank], cuts[rank + 1])  # uneven, and one of three is empty
        for dtype in OUTPUT:
            for measure in MEASURES:
                for masked in (False, True):
                    for need in (False, True)[: 1 if n > 30 else 2]:
                        _same_attention(group, n, part, dtype, measure, masked, need)


def _same_attention(
    group: Any, n: int, part: slice, dtype: torch.dtype, measure: Any, masked: bool, need: bool
) -> None:
    query, keys, values = draw(2, 3, 4) / 2, draw(1, n, 4, seed=1), draw(1, n, 3, seed=2)
    strength, mask = 2 * draw(2, 3, seed=3).abs(), draw(2, 3, n, seed=4) > 0 if masked else None
    pull = draw(2, 3, 3, seed=5)
    exact = [x.to(dtype).double().requires_grad_() for x in (query, keys, values, strength)]
    like = [x.detach().to(dtype).requires_grad_() for x in exact]
    (expected, *grads), (alone, *theirs) = (
        _one_process(*x, pull, measure, mask, part) for x in (exact, like)
    )  # the truth for these numbers, and how far from it one process is
    given = [x.detach().to(dtype) for x in exact]
    given[1:3] = (x[:, part].clone() for x in given[1:3])
    given = [x.requires_grad_() for x in given]
    mask = mask if mask is None else mask[..., part]
    options: dict[str, Any] = {"measure": measure, "strength": given[3], "mask": mask}
    found = attend_sharded(*given[:3], group=group, need_weights=need, **options)
    value, weights = found if need else (found, None)
    if weights is not None:
        assert weights.shape == (2, 3, part.stop - part.start)
    close(value.double(), expected, max(OUTPUT[dtype], 2 * off(alone, expected)))
    found = torch.autograd.grad((value * pull.to(dtype)).sum(), given)
    for one, other, single in zip(found, grads, theirs, strict=True):
        close(one.double(), other, max(GRADIENT[dtype], 2 * off(single, other)))


def _one_process(
    query: Tensor, keys: Tensor, values: Tensor, strength: Tensor, pull: Tensor, measure: Any,
    mask: Tensor | None, part: slice,
) -> list[Tensor]:  # fmt: skip
    """What it reads, and the gradients: of the keys and values those of a part."""
    value = attend(query, keys, values, measure=measure, strength=strength, mask=mask)
    found = (value * pull.to(value)).sum()
    of_query, *of_slots, of_strength = torch.autograd.grad(found, (query, keys, values, strength))
    return [value, of_query, *(x[:, part] for x in of_slots), of_strength]


@case
def attention_with_weights_has_second_derivatives(
    group: Any, rank: int, size: int, _: Path
) -> None:
    cuts = [0, 2, 3, 7][: size + 1] if size == 3 else [0, 3, 7] if size == 2 else [0, 7]
    part = slice(cuts[rank], cuts[rank + 1])
    query, keys, values = draw(3, 4), draw(7, 4, seed=1), draw(7, 3, seed=2)

    def second(read: Callable[..., Any], *given: Tensor) -> list[Tensor]:
        given = tuple(x.detach().clone().requires_grad_() for x in given)
        value, _weights = read(*given)
        first = torch.autograd.grad(value.square().sum(), given, create_graph=True)
        return [value, *torch.autograd.grad(first[0].square().sum(), given)]

    everywhere = second(lambda *x: attend(*x, need_weights=True), query, keys, values)
    here = second(
        lambda *x: attend_sharded(*x, group=group, need_weights=True),
        query, keys[part], values[part],
    )  # fmt: skip
    for found, expected in zip(here, everywhere, strict=True):
        close(found, expected[part] if len(expected) == 7 else expected, 1e-12)


@case
def attention_without_weights_refuses_them(group: Any, rank: int, size: int, _: Path) -> None:
    if size == 1:  # where it is `attend`
        return
    query = draw(3, 4).requires_grad_()
    value = attend_sharded(query, draw(20, 4), draw(20, 3), group=group)
    (first,) = torch.autograd.grad(value.square().sum(), query, create_graph=True)
    raises(RuntimeError, "differentiated once", lambda: torch.autograd.grad(first.sum(), query))


@case
def a_query_with_nothing_to_read_gets_0(group: Any, rank: int, size: int, _: Path) -> None:
    query, strength = draw(3, 4).requires_grad_(), draw(3, seed=1).abs().requires_grad_()
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[1] = False  # on every rank
    keys = draw(5, 4)
    keys[2], mask[:, 2] = float("nan"), False
    for need in (False, True):
        found = attend_sharded(
            query, keys, draw(5, 3), group=group, mask=mask, strength=strength, need_weights=need
        )
        value = found[0] if isinstance(found, tuple) else found
        assert not value[1].any()
        grads = torch.autograd.grad(value.sum(), (query, strength))
        assert all(x.isfinite().all() and not x[1].any() for x in grads)


# A store in parts


@case
def a_read_is_that_of_one_store(group: Any, rank: int, size: int, _: Path) -> None:
    for rows, measure in ((1, "scaled_dot"), (2, "cosine"), (1, "negative_squared_distance")):
        for dtype in OUTPUT:
            store, keys, values = filled(group, rows=rows, measure=measure, dtype=dtype)
            exact = single(keys.double(), values.double(), measure=measure)
            for strength in (1.5, draw(2, 3, seed=6).abs().to(dtype)):
                for k in (1, 7, 20):
                    _same_read(store, exact, k, strength, dtype)


def _same_read(
    store: ShardedStore, exact: Store, k: int, strength: Any, dtype: torch.dtype
) -> None:
    given = [draw(2, 3, 4, seed=8, dtype=dtype).requires_grad_()]
    if isinstance(strength, Tensor):
        given.append(strength.clone().requires_grad_())
    same = [x.detach().double().requires_grad_() for x in given]
    pull, steep = draw(2, 3, 3, seed=5), draw(2, 3, k, seed=7)
    answers = []
    for holder, asked in ((exact, same), (store, given)):
        query, number = asked[0], asked[1] if len(asked) > 1 else strength
        plain = holder.read(query, k, strength=number)
        value, ids, weights = holder.read(query, k, strength=number, need_weights=True)
        assert torch.equal(holder.address(query, k, strength=number)[0], ids)
        cost = ((plain + value) * pull).sum() + (weights * steep).sum()
        grads = torch.autograd.grad(cost, asked)
        answers.append((plain.double(), value.double(), weights.double(), ids, *grads))
    expected, found = answers
    for one, other in zip(found[:3], expected[:3], strict=True):
        close(one, other, 4 * OUTPUT[dtype])
    assert torch.equal(found[3], expected[3])
    for one, other in zip(found[4:], expected[4:], strict=True):
        close(one.double(), other, GRADIENT[dtype])


@case
def values_are_trained_where_they_are(group: Any, rank: int, size: int, _: Path) -> None:
    store, keys, values = filled(group)
    exact = single(keys, values)
    query = draw(1, 2, 4, seed=3)
    for k in (3, 20):
        grads = []
        for holder in (exact, store.shard):
            holder.values = holder.values.detach().requires_grad_()
        for read in (exact.read, store.read):
            read(query, k).square().sum().backward()
        for holder in (exact, store.shard):
            held = holder.ids[0] >= 0
            grads.append({int(i): holder.values.grad[0][held][n] for n, i in
                          enumerate(holder.ids[0][held])})  # fmt: skip
        for i, grad in grads[1].items():
            close(grad, grads[0][i], 1e-12)


@case
def it_is_changed_as_one_store_is(group: Any, rank: int, size: int, _: Path) -> None:
    chance = torch.Generator().manual_seed(1)
    for rows in (1, 2):
        store = ShardedStore(4, 3, batch_size=rows, group=group, dtype=torch.float64)
        exact = Store(4, 3, batch_size=rows, dtype=torch.float64)
        for step in range(25):
            verb = ("add", "add", "overwrite", "delete")[
                int(torch.randint(4, (), generator=chance))
            ]
            some = int(torch.randint(0, 5, (), generator=chance))
            keys, values = draw(rows, some, 4, seed=step), draw(rows, some, 3, seed=step + 99)
            if verb == "add":
                lengths = torch.randint(0, some + 1, (rows,), generator=chance)
                ids = exact.add(keys, values, lengths=lengths)
                assert torch.equal(store.add(keys, values, lengths=lengths), ids)
            else:
                ids = torch.stack([_some_ids(row, some, chance) for row in exact.ids])
                for holder in (exact, store):
                    if verb == "delete":
                        holder.delete(ids)
                    else:
                        holder.overwrite(ids, keys, values)
            assert torch.equal(store.lengths, exact.lengths)
            every = exact.near(draw(rows, 1, 4), 99.0)
            assert torch.equal(store.near(draw(rows, 1, 4), 99.0), every)
            close(store.get(every)[0], exact.get(every)[0], 0)
            close(store.get(every)[1], exact.get(every)[1], 0)
            query = draw(rows, 2, 4, seed=step)
            assert torch.equal(store.near(query, 1.5), exact.near(query, 1.5))
            most = int(exact.lengths.max())
            for k in {1, max(1, most // 2), max(1, most)}:
                close(store.read(query, k), exact.read(query, k), 1e-12)
        counts = store._held.sum(1) if size > 1 else store.lengths
        assert counts.max() - counts.min() <= 12 * rows


def _some_ids(row: Tensor, some: int, chance: torch.Generator) -> Tensor:
    """Ids that are held, as many as there are; then -1."""
    held = row[row >= 0]
    held = held[torch.randperm(len(held), generator=chance)][:some]
    return torch.nn.functional.pad(held, (0, some - len(held)), value=-1)


@case
def other_backends_and_dtypes(group: Any, rank: int, size: int, _: Path) -> None:
    for options in ({"backend": "flat"}, {"dtype": torch.bfloat16}, {"dtype": torch.float16}):
        store, keys, values = filled(group, **options)
        exact = single(keys.double(), values.double())
        query = draw(1, 2, 4, seed=3, dtype=keys.dtype)
        for k in (3, 20):
            found = store.read(query, k)
            assert found.dtype == keys.dtype
            error = 1e-12 if keys.dtype == torch.float64 else 2e-2
            close(found.double(), exact.read(query.double(), k), error)
    whole = ShardedStore(2, 1, value_dtype=torch.long, group=group)
    ids = whole.add(torch.eye(2)[None], torch.tensor([[[1 << 60], [7]]]))
    found, _weights = whole.address(torch.tensor([[[9.0, 0.0]]]), 1)
    assert torch.equal(found, ids[:, :1].unsqueeze(1))
    assert whole.get(found[:, 0])[1].item() == 1 << 60
    raises(TypeError, "floating-point", lambda: whole.read(torch.ones(1, 1, 2), 1))


@case
def of_keys_alike_the_lowest_ids_come_first(group: Any, rank: int, size: int, _: Path) -> None:
    store = ShardedStore(2, 1, group=group)
    for n in range(6):  # each call to the rank that holds fewest
        store.add(torch.ones(1, 1, 2), torch.full((1, 1, 1), float(n)))
    ids, weights = store.address(torch.ones(1, 1, 2), 6)
    if size > 1:
        assert ids.tolist() == [[[0, 1, 2, 3, 4, 5]]]
        assert store.address(torch.ones(1, 1, 2), size)[0].tolist() == [[[*range(size)]]]
    close(weights, torch.full((1, 1, 6), 1 / 6), 1e-6)


@case
def an_empty_store_reads_as_0(group: Any, rank: int, size: int, _: Path) -> None:
    store = ShardedStore(4, 3, group=group, dtype=torch.float64)
    query = draw(1, 5, 4).requires_grad_()
    value, ids, weights = store.read(query, 7, need_weights=True)
    assert not value.any()
    assert not weights.any()
    assert (ids == -1).all()
    (value.sum() + weights.sum() + store.read(query, 1).sum()).backward()
    assert torch.equal(query.grad, torch.zeros_like(query))
    narrow = ShardedStore(4, 3, group=group)
    narrow.add(draw(1, 12, 4).float(), draw(1, 12, 3).float())
    for k in (1, 2, 3):  # also where half of an id would be a number
        assert narrow.read(draw(1, 0, 4).float(), k).shape == (1, 0, 3)
        assert narrow.address(draw(1, 0, 4).float(), k)[0].shape == (1, 0, k)
    assert store.read(draw(1, 0, 4), 3).shape == (1, 0, 3)
    assert store.add(draw(1, 0, 4), draw(1, 0, 3)).shape == (1, 0)


@case
def a_full_shard_forgets_its_first(group: Any, rank: int, size: int, _: Path) -> None:
    store = ShardedStore(4, 3, group=group, capacity=4, dtype=torch.float64)
    for n in range(8 * size):
        store.add(draw(1, 1, 4, seed=n), draw(1, 1, 3, seed=n))
    assert store.lengths.tolist() == [4 * size]
    held = store.near(draw(1, 1, 4), 99.0)
    assert held.tolist() == [[*range(4 * size, 8 * size)]]


# Queries of each rank's own


@case
def each_rank_may_ask_and_tell_its_own(group: Any, rank: int, size: int, _: Path) -> None:
    keys, values = draw(1, 12, 4), draw(1, 12, 3, seed=1)
    exact = single(keys, values)
    counts = [[12], [9, 3], [7, 0, 5]][size - 1]
    first = sum(counts[:rank])
    mine = slice(first, first + counts[rank])
    store = ShardedStore(4, 3, group=group, queries="own", dtype=torch.float64)
    ids = store.add(keys[:, mine], values[:, mine])
    assert ids.tolist() == [[*range(mine.start, mine.stop)]]
    assert store.shard.lengths.tolist() == [counts[rank]]
    every = [draw(2, n, 4, seed=n) for n in (3, 0, 1)][:size]
    strengths = [x[..., 0].abs() for x in every]
    for k in (2, 12):
        theirs = [x.clone().requires_grad_() for x in (*every, *strengths)]
        reads = [
            exact.read(q, k, strength=s) for q, s in zip(theirs[:size], theirs[size:], strict=True)
        ]
        cost = sum((r.square() * (n + 1)).sum() for n, r in enumerate(reads))  # differs by rank
        assert isinstance(cost, Tensor)
        grads = torch.autograd.grad(cost, theirs)
        query, strength = (x[rank].clone().requires_grad_() for x in (every, strengths))
        for need in (False, True):
            found = store.read(query, k, strength=strength, need_weights=need)
            value = found[0] if isinstance(found, tuple) else found
            close(value, reads[rank], 1e-12)
            got = torch.autograd.grad((value.square() * (rank + 1)).sum(), (query, strength))
            close(got[0], grads[rank], 1e-12)
            close(got[1], grads[size + rank], 1e-12)
        assert torch.equal(store.address(query, k)[0], exact.address(query, k)[0])
    assert torch.equal(store.near(every[rank], 1.5), exact.near(every[rank], 1.5))
    asked = torch.tensor([[11, 0, -1][: rank + 1]])
    close(store.get(asked)[0], exact.get(asked)[0], 0)
    store.overwrite(asked[:, rank:], *(2 * x[:, asked[0, rank:]] for x in (keys, values)))
    if rank == 0:
        close(store.shard.keys[0, 0], 2 * keys[0, 11 if size == 1 else 0], 0) if size == 2 else None
    store.delete(torch.tensor([[5 + rank]]))
    assert store.lengths.tolist() == [12 - size]


# What goes wrong


@case
def a_call_that_one_rank_refuses_changes_nothing(group: Any, rank: int, size: int, _: Path) -> None:
    if size == 1:
        return
    store, keys, values = filled(group)
    own = ShardedStore(4, 3, group=group, queries="own", dtype=torch.float64)
    bad = keys.clone()
    bad[0, 1, 1] = float("nan")
    words = "keys must be finite" if rank == 0 else "rank 0 refused"
    before = store.shard.keys.clone()
    raises(ValueError, words, lambda: store.add(bad if rank == 0 else keys, values))
    raises(ValueError, words, lambda: own.add(bad if rank == 0 else keys, values))
    assert own.lengths.tolist() == [0]
    differ = "gave something else than rank 0"
    raises(ValueError, differ, lambda: store.add(keys * (rank + 1), values))
    raises(ValueError, differ, lambda: store.read(keys, 3 + rank))
    raises(ValueError, differ, lambda: store.read(keys.clone().requires_grad_(rank == 0), 3))
    raises(ValueError, "called another", lambda: store.delete(torch.tensor([[1]])) if rank
           else store.near(keys, 1.0))  # fmt: skip
    raises(ValueError, "called another", lambda: store.read(keys, 3) if rank
           else store.add(keys, values))  # fmt: skip
    raises(ValueError, "called another", lambda: store.get(torch.tensor([[1]])) if rank
           else store.read(keys, 3))  # fmt: skip
    raises(ValueError, "k must be at most the 20 pairs", lambda: store.read(keys, 21))
    raises(ValueError, "got 77 in row 0", lambda: store.delete(torch.tensor([[3, 77]])))
    twice = torch.tensor([[3, 3]])
    raises(ValueError, "got 3 twice", lambda: store.overwrite(twice, keys[:, :2], values[:, :2]))
    raises(ValueError, "query must be finite", lambda: store.read(bad, 3))
    raises(ValueError, "query must be finite", lambda: store.read(bad, 20))
    raises(ValueError, "shards must be alike", lambda: ShardedStore(4 + rank, 3, group=group))
    raises(
        ValueError, "queries must be one of", lambda: ShardedStore(4, group=group, queries="all")
    )  # type: ignore[arg-type]
    raises(ValueError, "gave something else", lambda: attend_sharded(
        keys[0] * (rank + 1), keys[0], values[0], group=group))  # fmt: skip
    raises(ValueError, "gave something else", lambda: attend_sharded(
        keys[0], keys[0], values[0, :, : 2 + (rank > 0)], group=group))  # fmt: skip
    raises(ValueError, "gave something else", lambda: attend_sharded(
        keys[0], keys[0], values.expand(1 + rank, -1, -1), group=group))  # fmt: skip
    assert torch.equal(store.shard.keys, before)
    close(store.read(keys, 3), single(keys, values).read(keys, 3), 1e-12)


@case
def a_rank_that_cannot_write_is_told_of(group: Any, rank: int, size: int, place: Path) -> None:
    if size == 1:
        return
    store, keys, _values = filled(group)
    with tempfile.NamedTemporaryFile() as file:
        folder = Path(file.name) if rank == 1 else place
        kind: Any = OSError if rank == 1 else ValueError
        words = "" if rank == 1 else "rank 1 refused"
        raises(kind, words, lambda: store.save(folder))
    store.save(place)
    assert len(ShardedStore.open(place, group=group).near(keys, 99.0)[0]) == 20


@case
def a_rank_that_fails_while_it_writes(group: Any, rank: int, size: int, place: Path) -> None:
    if size == 1:
        return
    keys, values = (draw(1, 30, m, seed=m) for m in (4, 3))
    for queries in ("same", "own"):
        options: Any = {"width": 4, "value_width": 3, "durable": True, "dtype": torch.float64}
        store = ShardedStore.open(place / queries, group=group, queries=queries, **options)  # type: ignore[arg-type]
        store.add(keys[:, :6], values[:, :6])
        full: Any = mock.patch("memlib.store.log.write", side_effect=OSError("disk full"))
        kind: Any = OSError if rank == 1 else ValueError
        words = "disk full" if rank == 1 else "rank 1 refused"
        first = store.near(keys, 99.0)
        first = first if queries == "same" else first[:, rank :: 2 * size]
        for verb in (
            partial(store.add, keys[:, 6:12], values[:, 6:12]),
            partial(store.delete, first),
        ):
            with full if rank == 1 else nullcontext():
                raises(kind, words, verb)  # and it is done on the others
            counts = store._ranks.stack(store.shard.lengths)
            assert torch.equal(store.lengths, counts.sum(0))
            held = store.near(keys, 99.0)
            assert held.shape[1] == counts.sum()
            given = store.get(held)
            new = store.add(keys[:, 12:17], values[:, 12:17])
            every = torch.cat([*store._ranks.stack(new)], 1)
            assert every.min() > held.max()
            assert torch.equal(store.near(keys, 99.0), torch.cat([held, every.unique()[None]], 1))
            for found, expected in zip(store.get(held), given, strict=True):
                close(found, expected, 0)
            close(store.get(new)[0], keys[:, 12:17], 0)
            close(store.get(new)[1], values[:, 12:17], 0)
        del store.shard
        dist.barrier(group)


# Files


@case
def any_number_of_ranks_opens_what_was_saved(group: Any, rank: int, size: int, place: Path) -> None:
    for rows in (1, 2):
        keys, values = (draw(rows, 20, m, seed=m) for m in (4, 3))
        store, _, _ = filled(group, rows=rows)
        store.delete(store.near(keys[:, :3], 0.0))
        store.save(place)
        store.save(place)
        files = shards.listed(place)
        dist.barrier(group)
        assert len(files) >= 1
        left = store.near(keys, 99.0)
        again = ShardedStore.open(place, group=group)
        assert torch.equal(again.near(keys, 99.0), left)
        close(again.read(keys, 9), store.read(keys, 9), 1e-12)
        alone = dist.new_group([0], use_local_synchronization=True) if rank == 0 else None
        if alone is not None:  # a save of many ranks on one
            one = ShardedStore.open(place, group=alone)
            assert torch.equal(one.near(keys, 99.0), left)
            close(one.read(keys, 9), single(keys, values).read(keys, 9), 1e9)
            assert one.add(keys[:, :1], values[:, :1]).tolist() == [[20]] * rows
            parts = [Store.open(place / file, width=4) for file in shards.listed(place)]
            held = torch.cat([part.ids for part in parts], 1).sort().values
            assert torch.equal(held[held >= 0].view(rows, -1), left)
        dist.barrier(group)


@case
def what_is_half_saved_is_not_opened(group: Any, rank: int, size: int, place: Path) -> None:
    if size == 1:
        return
    store, keys, values = filled(group)
    local = place / str(rank)  # as if each machine had a disk of its own
    store.save(local)
    store.delete(torch.tensor([[0]]))
    if rank == 0:  # the others were killed before
        store.shard.save(local / shards.name(2, rank, size))
    dist.barrier(group)
    again = ShardedStore.open(local, group=group)
    assert again.lengths.tolist() == [20]
    close(again.read(keys, 7), single(keys, values).read(keys, 7), 1e-12)
    if rank == 1:
        (local / shards.name(1, rank, size)).unlink()
    dist.barrier(group)
    raises(ValueError, "must hold a whole save", lambda: ShardedStore.open(local, group=group))


@case
def durable_shards(group: Any, rank: int, size: int, place: Path) -> None:
    keys, values = (draw(1, 20, m, seed=m) for m in (4, 3))
    options: Any = {"width": 4, "value_width": 3, "durable": True, "dtype": torch.float64}
    store = ShardedStore.open(place, group=group, **options)
    for part in (slice(0, 9), slice(9, 20)):
        store.add(keys[:, part], values[:, part])
    store.delete(torch.tensor([[4, 9]]))
    read = store.read(keys, 7)
    del store.shard
    again = ShardedStore.open(place, group=group, durable=True)
    assert again.lengths.tolist() == [18]
    close(again.read(keys, 7), read, 1e-12)
    assert again.add(keys[:, :1], values[:, :1]).tolist() == [[20]]
    del again.shard
    dist.barrier(group)
    if rank == 0 and size > 1:
        fewer = dist.new_group([0], use_local_synchronization=True)
        raises(ValueError, f"must be opened by {size} ranks", lambda: ShardedStore.open(
            place, group=fewer, durable=True))  # fmt: skip
    dist.barrier(group)


# What is sent


@case
def a_read_costs_what_was_worked_out(group: Any, rank: int, size: int, _: Path) -> None:
    store, keys, _values = filled(group, dtype=torch.float32)
    sent = {"messages": 0.0, "bytes sent": 0.0}

    def counted(rounds: int, collective: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def call(part: Tensor) -> Tensor:  # by a ring
            sent["messages"] += rounds * (size - 1)
            share = (size - 1) / (1 if rounds == 1 else size)
            sent["bytes sent"] += rounds * share * part.numel() * part.element_size()
            return collective(part)

        return call

    ranks: Any = store._ranks
    ranks.stack, ranks.sum = counted(1, ranks.stack), counted(2, ranks.sum)
    for k in (4, None):
        sent |= dict.fromkeys(sent, 0.0)
        store.read(keys[:, :5], k or 20)
        cost = read_cost(20, 4, 3, size, queries=5, k=k)
        assert {name: cost[name] for name in sent} == pytest.approx(sent)
