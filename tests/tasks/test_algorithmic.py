# ruff: noqa: E501  (a table of messages)
"""The tasks against their definition, told by loops over one row at a time."""

import math
import re

import pytest
import torch
from torch import Generator

from memlib import tasks
from memlib.tasks import TASKS, Batch, bits_per_sequence, optimal_bits, wrong_bits

SEEDS = range(3)


def seeded(seed=0):
    return Generator().manual_seed(seed)


def rows(batch):
    """Each row alone: inputs, targets and mask, cut at its length."""
    for x, y, counts, length in zip(*batch, strict=True):
        yield x[:length].tolist(), y[:length].tolist(), counts[:length].tolist()


def told(lines, inputs, outputs):
    """A row from lines (input or None, target or None): what is None is 0 or does not count."""
    x = [line[0] or [0.0] * inputs for line in lines]
    y = [line[1] or [0.0] * outputs for line in lines]
    return x, y, [line[1] is not None for line in lines]


@pytest.mark.parametrize("seed", SEEDS)
def test_copy(seed):
    for x, y, counts in rows(tasks.copy(20, length=(1, 6), bits=4, generator=seeded(seed))):
        length = [step[4] for step in x].index(1)  # the delimiter
        shown = [step[:4] for step in x[:length]]
        lines = [([*v, 0.0], None) for v in shown] + [([0.0] * 4 + [1.0], None)]
        lines += [(None, v) for v in shown]
        assert (x, y, counts) == told(lines, 5, 4)


@pytest.mark.parametrize("seed", SEEDS)
def test_repeat_copy(seed):
    batch = tasks.repeat_copy(20, length=(1, 4), repeats=(1, 5), bits=3, generator=seeded(seed))
    for x, y, counts in rows(batch):
        length = [step[3] for step in x].index(1)
        times = round(x[length][4] * math.sqrt(8.25) + 5.5)  # 1 to 10 have mean 5.5, variance 8.25
        shown = [step[:3] for step in x[:length]]
        lines = [([*v, 0.0, 0.0], None) for v in shown]
        lines += [([0.0] * 3 + [1.0, x[length][4]], None)]
        lines += [(None, [*v, 0.0]) for _ in range(times) for v in shown]
        lines += [(None, [0.0] * 3 + [1.0])]
        assert 1 <= times <= 5
        assert (x, y, counts) == told(lines, 5, 4)


def test_the_number_of_repeats_is_scaled_to_mean_0_and_variance_1():
    shown = {n: tasks.repeat_copy(1, length=1, repeats=n).inputs[0, 1, 9] for n in range(1, 11)}
    every = torch.stack(list(shown.values()))
    assert every.mean().abs() < 1e-6
    assert math.isclose(every.var(correction=0), 1, rel_tol=1e-5)


@pytest.mark.parametrize("seed", SEEDS)
def test_associative_recall(seed):
    batch = tasks.associative_recall(
        20, items=(2, 5), item_length=2, bits=4, generator=seeded(seed)
    )
    for x, y, counts in rows(batch):
        start = [step[5] for step in x].index(1)  # the first query delimiter
        items = [[step[:4] for step in x[i + 1 : i + 3]] for i in range(0, start, 3)]
        asked = [step[:4] for step in x[start + 1 : start + 3]]
        lines = [
            line
            for item in items
            for line in [([0.0] * 4 + [1.0, 0.0], None), *(([*v, 0.0, 0.0], None) for v in item)]
        ]
        query = ([0.0] * 5 + [1.0], None)
        lines += [query, *(([*v, 0.0, 0.0], None) for v in asked), query]
        answers = [y[-2:] == item for item in items[1:]]
        assert any(a and items[i] == asked for i, a in enumerate(answers))  # the one after asked
        lines += [(None, v) for v in y[-2:]]
        assert (x, y, counts) == told(lines, 6, 4)


def test_every_item_but_the_last_is_asked_for_equally_often():
    batch = tasks.associative_recall(3000, items=4, bits=16, generator=seeded())
    shown = batch.inputs[:, :16, :16].unflatten(1, (4, 4))[:, :, 1:]  # (B, K, l, bits)
    asked = (shown == batch.inputs[:, 17:20, None, :16].transpose(1, 2)).all(-1).all(-1)
    assert (asked.float().mean(0) - torch.tensor([1, 1, 1, 0]) / 3).abs().max() < 0.03


@pytest.mark.parametrize("seed", SEEDS)
def test_priority_sort(seed):
    batch = tasks.priority_sort(20, items=6, kept=4, bits=3, generator=seeded(seed))
    assert batch.inputs[:, :6, 3].abs().max() <= 1
    for x, y, counts in rows(batch):
        shown = sorted(x[:6], key=lambda step: -step[3])[:4]
        lines = [(step, None) for step in x[:6]] + [([0.0] * 4 + [1.0], None)]
        lines += [(None, step[:3]) for step in shown]
        assert all(step[4] == 0 for step in x[:6])
        assert (x, y, counts) == told(lines, 5, 3)


def test_ngrams_show_the_bit_before_and_count_every_step():
    batch = tasks.ngrams(5, length=30, generator=seeded())
    assert (batch.inputs[:, 0] == 0).all()
    assert torch.equal(batch.inputs[:, 1:], 2 * batch.targets[:, :-1] - 1)
    assert batch.mask.all()


def test_ngrams_draw_by_context_from_the_arcsine_law():
    order, length = 3, 4000
    targets = tasks.ngrams(60, length=length, order=order, generator=seeded()).targets[..., 0]
    shares = []
    for row in targets.int().tolist():
        after = {}
        for t in range(order - 1, length):
            after.setdefault(tuple(row[t - 2 : t]), []).append(row[t])
        halves = [(sum(s[::2]) / len(s[::2]), sum(s[1::2]) / len(s[1::2]))
                  for s in after.values() if len(s) > 500]  # fmt: skip
        assert all(abs(a - b) < 0.15 for a, b in halves)  # one chance a context, for the whole row
        shares += [(a + b) / 2 for a, b in halves]
    # Beta(1/2, 1/2) has variance 1/8 and puts a third of its mass outside sin²(π/12) to its mirror
    shares = torch.tensor(shares)
    outside = (shares < math.sin(math.pi / 12) ** 2) | (shares > 1 - math.sin(math.pi / 12) ** 2)
    assert abs(outside.float().mean() - 1 / 3) < 0.15


def test_the_first_bits_of_ngrams_are_fair():
    first = tasks.ngrams(4000, length=5, generator=seeded()).targets
    assert (first.mean(0) - 0.5).abs().max() < 0.03


def test_optimal_bits_are_those_of_the_loop():
    targets = tasks.ngrams(4, length=60, order=3, generator=seeded(), dtype=torch.float64).targets
    for row, cost in zip(targets[..., 0].int().tolist(), optimal_bits(targets, 3), strict=True):
        counts, bits = {}, 2.0
        for t in range(2, 60):
            seen = counts.setdefault(tuple(row[t - 2 : t]), [0, 0])
            bits -= math.log2((seen[row[t]] + 0.5) / (sum(seen) + 1))
            seen[row[t]] += 1
        assert math.isclose(bits, cost.item(), rel_tol=1e-12)


def test_the_bayes_optimum_of_200_bits():
    targets = tasks.ngrams(2000, generator=seeded()).targets
    cost = optimal_bits(targets)
    error = cost.std() / len(cost) ** 0.5
    assert abs(cost.mean() - 132.95) < 4 * error + 0.05  # measured over 8,000 sequences


def test_no_estimator_of_these_beats_the_optimum():
    batch = tasks.ngrams(300, generator=seeded())
    best = optimal_bits(batch.targets).mean()
    for pseudo in (0.25, 1.0, 2.0):
        counts = torch.full((300, 32, 2), pseudo)
        context, cost = torch.zeros(300, dtype=torch.long), torch.full((300,), 5.0)
        for t, bit in enumerate(batch.targets[..., 0].long().unbind(1)):
            if t >= 5:
                seen = counts[range(300), context]
                cost -= (seen[range(300), bit] / seen.sum(-1)).log2()
                counts[range(300), context, bit] += 1
            context = (2 * context + bit) % 32
        assert cost.mean() > best


# --- what holds for each of them


@pytest.fixture(params=TASKS.values(), ids=TASKS)
def task(request):
    return request.param


def test_sizes_are_those_of_the_table(task):
    batch = task.generate(7, generator=seeded())
    assert isinstance(batch, Batch)
    steps = int(batch.lengths.max())
    assert batch.inputs.shape == (7, steps, task.input_size)
    assert batch.targets.shape == (7, steps, task.output_size)
    assert (batch.mask.shape, batch.mask.dtype) == ((7, steps), torch.bool)
    assert (batch.lengths.shape, batch.lengths.dtype) == ((7,), torch.long)


def test_what_does_not_count_is_zero(task):
    batch = task.generate(20, generator=seeded())
    assert (batch.targets[~batch.mask] == 0).all()
    late = torch.arange(batch.inputs.shape[1]) >= batch.lengths[:, None]
    assert (batch.inputs[late] == 0).all()
    assert not batch.mask[late].any()
    assert ((batch.targets == 0) | (batch.targets == 1)).all()


def test_a_seed_gives_one_batch(task):
    one, same, other = (task.generate(5, generator=seeded(s)) for s in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not torch.equal(one.targets, other.targets)


def test_a_generator_leaves_the_common_one_alone(task):
    before = torch.get_rng_state()
    task.generate(5, generator=seeded())
    assert torch.equal(torch.get_rng_state(), before)


def test_chance_is_what_a_guess_pays(task):
    batch = task.generate(4000 if task.name != "ngrams" else 50, generator=seeded())
    guess = torch.zeros_like(batch.targets)
    paid = bits_per_sequence(guess, batch.targets, batch.mask)
    assert abs(paid.mean() - task.chance) < 0.02 * task.chance
    half = wrong_bits(torch.randn_like(guess), batch.targets, batch.mask)
    assert abs(half.mean() - task.chance / 2) < 0.04 * task.chance


def test_dtype_and_device(task):
    batch = task.generate(2, generator=seeded(), dtype=torch.float64, device="cpu")
    assert batch.inputs.dtype == batch.targets.dtype == torch.float64
    away = task.generate(2, device="meta")
    assert {x.device.type for x in away} == {"meta"}


def test_an_empty_batch(task):
    batch = task.generate(0)
    assert all(len(x) == 0 for x in batch)
    assert batch.inputs.shape[-1] == task.input_size


def test_wrong_bits_and_bits_look_only_where_the_mask_says():
    batch = tasks.copy(6, generator=seeded())
    right = 20 * (2 * batch.targets - 1)
    noise = torch.where(batch.mask.unsqueeze(-1), right, torch.randn_like(right) * 100)
    assert (wrong_bits(noise, batch.targets, batch.mask) == 0).all()
    assert (bits_per_sequence(noise, batch.targets, batch.mask) < 1e-4).all()
    one = noise.clone()
    step = int(batch.mask[2].nonzero()[0])
    one[2, step, 3] *= -1
    assert wrong_bits(one, batch.targets, batch.mask).tolist() == [0, 0, 1, 0, 0, 0]


LOGITS, MASK = torch.zeros(2, 3, 4), torch.ones(2, 3, dtype=torch.bool)
# fmt: off
REFUSALS = [
    (lambda: tasks.copy(-1), ValueError, "batch_size must be at least 0; got -1"),
    (lambda: tasks.copy(2.0), TypeError, "batch_size must be an integer; got float"),
    (lambda: tasks.copy(2, length=0), ValueError, "length must be at least 1; got 0"),
    (lambda: tasks.copy(2, length=(5, 3)), ValueError, "length must be an integer or (lowest, highest); got (5, 3)"),
    (lambda: tasks.copy(2, length=(1, 2, 3)), TypeError, "length must be an integer; got tuple"),
    (lambda: tasks.copy(2, bits=0), ValueError, "bits must be at least 1; got 0"),
    (lambda: tasks.repeat_copy(2, repeats=0), ValueError, "repeats must be at least 1; got 0"),
    (lambda: tasks.associative_recall(2, items=1), ValueError, "items must be at least 2; got 1"),
    (lambda: tasks.associative_recall(2, item_length=0), ValueError, "item_length must be at least 1; got 0"),
    (lambda: tasks.priority_sort(2, items=4, kept=5), ValueError, "kept must be in [1, 4]; got 5"),
    (lambda: tasks.ngrams(2, length=0), ValueError, "length must be at least 1; got 0"),
    (lambda: tasks.ngrams(2, order=0), ValueError, "order must be in [1, 20]; got 0"),
    (lambda: optimal_bits(torch.ones(2, 3)), ValueError, "targets must have shape (B, T, 1); got (2, 3)"),
    (lambda: optimal_bits([1.0]), TypeError, "targets must be a torch.Tensor; got list"),
    (lambda: wrong_bits(LOGITS, LOGITS[:, :2], MASK), ValueError, "targets must have the shape of logits, (2, 3, 4); got (2, 2, 4)"),
    (lambda: wrong_bits(LOGITS, LOGITS, MASK.int()), TypeError, "mask must be a bool tensor (True = counts); got torch.int32"),
    (lambda: bits_per_sequence(LOGITS, LOGITS, MASK[:1]), ValueError, "mask must have shape (B, T) with B = 2, T = 3; got (1, 3)"),
    (lambda: bits_per_sequence(LOGITS.int(), LOGITS, MASK), TypeError, "logits must have a floating-point dtype; got torch.int32"),
]
# fmt: on


@pytest.mark.parametrize(("call", "kind", "message"), REFUSALS, ids=[m for _, _, m in REFUSALS])
def test_bad_input_is_refused(call, kind, message):
    with pytest.raises(kind, match=re.escape(message)):
        call()
