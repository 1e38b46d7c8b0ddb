# ruff: noqa: E501  (a table of messages)
"""The tasks on tokens against their definition, told by loops over one row at a time."""

import re

import pytest
import torch
from torch import Generator

from memlib import tasks
from memlib.tasks import Tokens

SEEDS = range(3)
TASKS = [tasks.mqar, tasks.induction, tasks.selective_copy]


def seeded(seed=0):
    return Generator().manual_seed(seed)


def rows(batch):
    return zip(*(x.tolist() for x in batch), strict=True)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("noise", [True, False])
@pytest.mark.parametrize(("pairs", "length", "vocab_size"), [(3, 20, 24), (4, 16, 17), (1, 4, 9)])
def test_mqar(seed, noise, pairs, length, vocab_size):
    sizes = {"pairs": pairs, "length": length, "vocab_size": vocab_size}
    batch = tasks.mqar(20, **sizes, noise=noise, generator=seeded(seed))
    for x, y, counts in rows(batch):
        shown = {x[2 * i]: x[2 * i + 1] for i in range(pairs)}
        assert len(shown) == len({*shown.values()}) == pairs
        assert all(1 <= key < vocab_size // 2 <= value < vocab_size for key, value in shown.items())
        asked = [t for t in range(length) if counts[t]]
        assert sorted(x[t] for t in asked) == sorted(shown)  # each key once
        assert all(t >= 2 * pairs and t % 2 == 0 for t in asked)
        for t in range(length):
            assert y[t] == (shown[x[t]] if t in asked else 0)
            if t >= 2 * pairs and t not in asked:
                assert 0 <= x[t] < vocab_size
                assert noise or x[t] == 0


@pytest.mark.parametrize("power", [0.01, 1.0])
def test_mqar_asks_at_distances_by_the_power_law(power):
    batch = tasks.mqar(20000, pairs=1, length=12, vocab_size=13, power=power, generator=seeded())
    share = batch.mask[:, 2::2].double().mean(dim=0)  # at g = 0 … 4
    weights = torch.tensor([(g + 1) ** (power - 1) for g in range(5)], dtype=torch.float64)
    assert (share - weights / weights.sum()).abs().max() < 0.02


@pytest.mark.parametrize("seed", SEEDS)
def test_induction(seed):
    batch = tasks.induction(30, length=20, period=(3, 6), vocab_size=9, generator=seeded(seed))
    periods = set()
    for x, y, counts in rows(batch):
        period = counts.index(True)
        periods.add(period)
        assert len({*x[:period]}) == period
        for t in range(20):
            assert x[t] == x[t % period]
            assert counts[t] == (t >= period)
            assert y[t] == x[(t + 1) % period]
            if counts[t]:  # what followed the last time
                last = max(i for i in range(t) if x[i] == x[t])
                assert last + 1 == t - period + 1
                assert y[t] == x[last + 1]
    assert periods == {3, 4, 5, 6}


@pytest.mark.parametrize("seed", SEEDS)
def test_selective_copy(seed):
    batch = tasks.selective_copy(30, length=12, items=5, vocab_size=7, generator=seeded(seed))
    for x, y, counts in rows(batch):
        said = [token for token in x[:12] if token]
        assert len(said) == 5
        assert all(2 <= token < 7 for token in said)
        assert x[12:] == [1] * 5
        assert y == [0] * 12 + said
        assert counts == [False] * 12 + [True] * 5


def test_every_place_and_every_token_is_as_likely():
    batch = tasks.selective_copy(20000, length=5, items=2, vocab_size=5, generator=seeded())
    assert ((batch.inputs[:, :5] > 0).double().mean(0) - 0.4).abs().max() < 0.015
    shares = batch.targets[:, 5:].flatten().bincount(minlength=5) / 40000
    assert (shares - torch.tensor([0, 0, 1, 1, 1]) / 3).abs().max() < 0.015
    blocks = tasks.induction(20000, length=4, period=3, vocab_size=4, generator=seeded()).inputs
    assert all(
        ((blocks[:, t] == v).double().mean() - 0.25).abs() < 0.015
        for t in range(3)
        for v in range(4)
    )


@pytest.mark.parametrize("task", TASKS)
def test_a_seed_gives_one_batch_and_another_gives_another(task):
    first, again, other = (task(3, generator=seeded(seed)) for seed in (0, 0, 1))
    assert isinstance(first, Tokens)
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first.inputs, other.inputs)
    assert first.inputs.shape == first.targets.shape == first.mask.shape
    assert [x.dtype for x in first] == [torch.int64, torch.int64, torch.bool]
    assert all(x.is_contiguous() for x in first)
    assert all(x.is_meta for x in task(2, device="meta"))


@pytest.mark.parametrize("task", TASKS)
def test_an_empty_batch(task):
    full, empty = task(1), task(0)
    assert [x.shape for x in empty] == [(0, full.inputs.shape[1])] * 3


# fmt: off
REFUSALS = [
    (lambda: tasks.mqar(-1), ValueError, "batch_size must be at least 0; got -1"),
    (lambda: tasks.mqar(2, pairs=0), ValueError, "pairs must be at least 1; got 0"),
    (lambda: tasks.mqar(2, length=14, pairs=4), ValueError, "length must be at least 16; got 14"),
    (lambda: tasks.mqar(2, length=17), ValueError, "length must be even; got 17"),
    (lambda: tasks.mqar(2, length=64, vocab_size=64), ValueError, "vocab_size must be at least 65; got 64"),
    (lambda: tasks.mqar(2, power="1"), TypeError, "power must be a number; got str"),
    (lambda: tasks.mqar(2, power=-1), ValueError, "power must be finite and at least 0; got -1"),
    (lambda: tasks.induction(2.0), TypeError, "batch_size must be an integer; got float"),
    (lambda: tasks.induction(2, length=1), ValueError, "length must be at least 2; got 1"),
    (lambda: tasks.induction(2, length=8, period=8), ValueError, "period must be in [1, 7]; got 8"),
    (lambda: tasks.induction(2, vocab_size=4), ValueError, "period must be in [1, 4]; got 8"),
    (lambda: tasks.induction(2, period=(5, 3)), ValueError, "period must be an integer or (lowest, highest); got (5, 3)"),
    (lambda: tasks.induction(2, period=(1, 2, 3)), TypeError, "period must be an integer; got tuple"),
    (lambda: tasks.selective_copy(2, items=0), ValueError, "items must be at least 1; got 0"),
    (lambda: tasks.selective_copy(2, length=4, items=5), ValueError, "length must be at least 5; got 4"),
    (lambda: tasks.selective_copy(2, vocab_size=2), ValueError, "vocab_size must be at least 3; got 2"),
]
# fmt: on


@pytest.mark.parametrize(("call", "kind", "message"), REFUSALS, ids=[m for _, _, m in REFUSALS])
def test_bad_input_is_refused(call, kind, message):
    with pytest.raises(kind, match=re.escape(message)):
        call()
