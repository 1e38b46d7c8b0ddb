"""Numpy's numbers go wherever Python's do, int32 wherever int64 does; nothing else changes."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

import memlib
from memlib import _checks as checks
from memlib import programs, tasks, transformer

x = torch.linspace(-1, 1, 24).view(2, 3, 4)
w = torch.full((2, 3), 1 / 3)


def store():
    made = memlib.Store(4, batch_size=2)
    made.add(x, x)
    return made


def texts():
    made = memlib.Store(4, 1, value_dtype=torch.int64)
    made.add(x[:1], torch.tensor([[[0], [2], [1]]]))
    return made


def memory():
    made = memlib.KeyValueMemory(3, 4)
    return made, made.write(x, x, made.initial_state(2))


def after_a_program(**options):
    def program():
        yield programs.Step(key=x[0, 1], **options)

    return programs.run(program(), x[0])


def cache():
    made = memlib.KVCache(2, 1, 8, 4)
    made.extend(x[:, None], x[:, None])
    return made


def cropped(lengths):
    made = cache()
    made.crop(lengths)
    return made.lengths


def kept(rule, **options):
    def forgetting(n, **numbers):
        made = cache()
        transformer.forget(made, n, lambda its: rule(its, **options, **numbers))
        return made.positions

    return forgetting


def drawn(task, **options):
    return lambda **numbers: task(**options, **numbers, generator=torch.Generator().manual_seed(0))


# each with the numbers that it takes, by name
CALLS = {
    "address": (lambda **n: memlib.address(x, x, **n), {"strength": 2.5, "top_k": 2}),
    "attend": (lambda **n: memlib.attend(x, x, x, **n), {"strength": 2.5, "top_k": 2}),
    "attend-streamed": (lambda **n: memlib.attend(x, x, x, **n), {"strength": 3}),
    "interpolate": (lambda **n: memlib.interpolate(w, w.flip(0), **n), {"gate": 0.25}),
    "sharpen": (lambda **n: memlib.sharpen(w, **n), {"sharpening": 2.5}),
    "programs.Step": (after_a_program, {"move": 1, "strength": 2.5, "sharpening": 1.5}),
    "programs.linked_list_program": (
        lambda **n: programs.run(programs.linked_list_program(x[0, 0, :2], **n), x[0]),
        {"length": 2},
    ),
    "KeyValueMemory.initial_state": (memory()[0].initial_state, {"batch_size": 2}),
    "KeyValueMemory.read": (
        lambda **n: memory()[0].read(x, memory()[1], **n), {"strength": 2.5, "top_k": 2}
    ),
    "NTM.initial_state": (memlib.NTM(3, 2).initial_state, {"batch_size": 2}),
    "NTM": (lambda **n: memlib.NTM(4, 2, 5, 3)(x, **n)[0] * 0, {"checkpoint_every": 2}),
    "position_encoding": (memlib.position_encoding, {"words": 3, "width": 4}),
    "Store.address": (lambda **n: store().address(x, **n), {"k": 2, "strength": 2.5}),
    "Store.read": (lambda **n: store().read(x, **n), {"k": 3, "strength": 2.5}),
    "knn_lm": (
        lambda **n: memlib.knn_lm(x, x, texts(), **n), {"k": 2, "mix": 0.5, "strength": 2.5}
    ),
    "KVCache.crop": (cropped, {"lengths": 2}),
    "sinks": (kept(transformer.sinks), {"n": 2, "first": 1}),
    "heavy_hitters": (
        kept(transformer.heavy_hitters, total=torch.eye(8)[:2]), {"n": 2, "recent": 1}
    ),
    "looked_at": (
        kept(transformer.looked_at, weights=w[:, None, None]), {"n": 2, "last": 1, "pool": 3}
    ),
    "Decoder.memory_tokens": (
        lambda **n: memlib.Decoder(5, 8, memory_tokens=2).memory_tokens(**n) * 0, {"batch_size": 2}
    ),
    "FastWeights.initial_state": (memlib.FastWeights(8, 2).initial_state, {"batch_size": 2}),
    "NeuralMemory.initial_state": (
        lambda **n: memlib.NeuralMemory(8, 2).initial_state(**n).second, {"batch_size": 2}
    ),
    "MemoryAttention.segment_memory": (
        memlib.MemoryAttention(8, 2).segment_memory, {"batch_size": 2, "slots": 3}
    ),
    "copy": (drawn(tasks.copy), {"batch_size": 2, "length": 3, "bits": 4}),
    "copy-range": (
        lambda low, high: drawn(tasks.copy)(batch_size=2, length=(low, high)), {"low": 2, "high": 5}
    ),
    "mqar": (drawn(tasks.mqar), {"batch_size": 2, "pairs": 2, "length": 12, "vocab_size": 40}),
    "ngrams": (drawn(tasks.ngrams), {"batch_size": 2, "length": 9, "order": 2}),
    "priority_sort": (drawn(tasks.priority_sort), {"batch_size": 2, "items": 4, "kept": 3}),
    "induction": (
        drawn(tasks.induction), {"batch_size": 2, "length": 9, "vocab_size": 7, "period": 3}
    ),
    "selective_copy": (
        drawn(tasks.selective_copy), {"batch_size": 2, "items": 2, "length": 9, "vocab_size": 7}
    ),
    "babi_stories": (drawn(tasks.babi_stories), {"task": 1, "count": 2}),
}  # fmt: skip

# of everything that keeps its numbers
KEPT = {
    "KeyValueMemory": (memlib.KeyValueMemory, {"slots": 3, "width": 4, "value_width": 2}),
    "Hopfield": (memlib.Hopfield, {"strength": 2.5, "steps": 2, "tolerance": 0.5}),
    "ClassicalHopfield": (memlib.ClassicalHopfield, {"steps": 2}),
    "Head": (memlib.Head, {"input_size": 3, "width": 4, "heads": 2, "shifts": 3}),
    "NTM": (
        memlib.NTM,
        {"input_size": 3, "output_size": 2, "slots": 5, "width": 4, "read_heads": 2,
         "write_heads": 1, "shifts": 3, "walk": 0.5},
    ),
    "NTMCell": (memlib.NTMCell, {"input_size": 3, "output_size": 2, "slots": 5, "width": 4}),
    "DNC": (
        memlib.DNC,
        {"input_size": 3, "output_size": 2, "slots": 5, "width": 4, "read_heads": 2,
         "write_heads": 1},
    ),
    "DNCCell": (memlib.DNCCell, {"input_size": 3, "output_size": 2, "slots": 5, "width": 4}),
    "MemN2N": (
        memlib.MemN2N,
        {"vocab_size": 9, "answers": 4, "width": 6, "hops": 2, "slots": 5, "noise": 0.5},
    ),
    "KVCache": (
        memlib.KVCache, {"batch_size": 2, "heads": 1, "slots": 8, "width": 4, "value_width": 3}
    ),
    "MemoryAttention": (
        memlib.MemoryAttention,
        {"width": 8, "heads": 2, "kv_heads": 1, "head_width": 4, "window": 3, "base": 100.0},
    ),
    "MemoryAttention-divided": (memlib.MemoryAttention, {"width": 8, "heads": 2}),
    "FastWeights": (
        memlib.FastWeights,
        {"width": 8, "heads": 2, "key_width": 5, "value_width": 3, "chunk": 4},
    ),
    "FastWeights-divided": (memlib.FastWeights, {"width": 8, "heads": 2}),
    "NeuralMemory": (
        memlib.NeuralMemory,
        {"width": 8, "heads": 2, "hidden": 5, "key_width": 4, "value_width": 3, "rate": 0.5,
         "chunk": 4},
    ),
    "FeedForward": (memlib.FeedForward, {"width": 8, "slots": 5}),
    "Decoder": (
        memlib.Decoder,
        {"vocab_size": 9, "width": 8, "layers": 2, "heads": 2, "kv_heads": 1, "window": 3,
         "length": 9, "slots": 5, "memory_tokens": 2},
    ),
    "Store": (
        memlib.Store,
        {"width": 4, "value_width": 2, "batch_size": 2, "capacity": 5, "effort": 7, "links": 8},
    ),
    "MemorizingAttention": (
        memlib.MemorizingAttention,
        {"width": 8, "heads": 2, "kv_heads": 1, "k": 3, "head_width": 4, "window": 3,
         "strength": 2.5},
    ),
}  # fmt: skip

KINDS = [(np.int64, np.float64), (np.int32, np.float32), (np.uint8, np.float16)]
every_kind = pytest.mark.parametrize(("integer", "real"), KINDS, ids=lambda kind: kind.__name__)


def numpys(numbers, integer, real):
    """The same numbers, of which every float here is exact in half precision."""
    return {n: integer(v) if isinstance(v, int) else real(v) for n, v in numbers.items()}


def found(thing, seen=None):
    """Every numpy number that `thing` keeps, at any depth."""
    seen = set() if seen is None else seen
    if id(thing) in seen or isinstance(thing, torch.Tensor | np.ndarray | str | type):
        return []
    seen.add(id(thing))
    if isinstance(thing, np.generic):
        return [thing]
    if isinstance(thing, dict):
        inside = [*thing, *thing.values()]
    elif isinstance(thing, list | tuple | set):
        inside = [*thing]
    else:
        inside = [vars(thing)] if hasattr(thing, "__dict__") else []
    return [number for part in inside for number in found(part, seen)]


@pytest.mark.parametrize("name", CALLS)
@every_kind
def test_functions_take_numpys_numbers(name, integer, real):
    call, numbers = CALLS[name]
    torch.manual_seed(0)
    expected = call(**numbers)
    torch.manual_seed(0)
    result = call(**numpys(numbers, integer, real))
    assert found(result) == []
    if name == "babi_stories":
        assert result == expected
    else:
        assert_close(result, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", KEPT)
@every_kind
def test_what_keeps_numbers_keeps_pythons(name, integer, real):
    make, numbers = KEPT[name]
    torch.manual_seed(0)
    plain = make(**numbers)
    torch.manual_seed(0)
    made = make(**numpys(numbers, integer, real))
    assert found(made) == []
    assert repr(made) == repr(plain)
    if isinstance(plain, nn.Module):
        assert_close(made.state_dict(), plain.state_dict(), rtol=0, atol=0)
    kept = {n: v for n, v in vars(made).items() if isinstance(v, int | float)}
    assert json.dumps(kept) == json.dumps({n: vars(plain)[n] for n in kept})


def test_a_question_keeps_its_task_as_pythons_number(tmp_path):
    path = tmp_path / "qa.txt"
    path.write_text("1 Mary went home.\n2 Where is Mary?\thome\t1\n", encoding="utf-8")
    (question,) = tasks.read_babi(path, task=np.int64(3))
    assert type(question.task) is int
    assert question == tasks.read_babi(path, task=3)[0]


def test_a_kept_number_of_numpys_would_be_found():
    made = memlib.Hopfield()
    made.steps = np.int64(3)
    assert found([{"a": (made,)}]) == [3]


@pytest.mark.parametrize(
    "value", [np.bool_(True), np.array(2), np.array([2]), torch.tensor(2), "2"]
)
def test_nothing_else_is_a_number(value):
    for check in (checks.number, checks.integer):
        with pytest.raises(TypeError, match=r"x must be an? (number|integer); got "):
            check("x", value, 0)


def test_a_numpy_number_keeps_to_the_rules_of_numbers():
    for value in (np.float32("nan"), np.float64("inf"), np.float16(-1)):
        with pytest.raises(ValueError, match="x must be finite and at least 0; got"):
            checks.number("x", value, 0)
    with pytest.raises(TypeError, match="x must be an integer; got float"):
        checks.integer("x", np.float64(2), 0)
    with pytest.raises(ValueError, match="x must be at least 3; got 2"):
        checks.integer("x", np.int8(2), 3)


# Integer tensors of either size


def written(dtype):
    made = memlib.KeyValueMemory(3, 4)
    return made.write(x, x, made.initial_state(2), lengths=torch.tensor([1, 2]).to(dtype))


def changed(dtype):
    made = store()
    ids = torch.tensor([[0, -1], [2, 1]]).to(dtype)
    made.overwrite(ids, 2 * x[:, :2], x[:, :2])
    got = made.get(ids)
    made.delete(ids[:, :1])
    return (*got, made.ids, made.keys, made.values, made.get(ids[:, 1:])[0])


def story(dtype):
    torch.manual_seed(0)
    model = memlib.MemN2N(9, 4, slots=3, noise=0.5)
    words = torch.arange(24).view(2, 3, 4) % 9
    return model(words.to(dtype), words[:, 0].to(dtype), need_weights=True)


def remembered(dtype):
    made = memlib.Store(4, 1, value_dtype=dtype)
    made.add(x[:1], torch.tensor([[[0], [2], [1]]]).to(dtype))
    return memlib.knn_lm(x, x, made, 2)


def predicted(dtype):
    torch.manual_seed(0)
    return memlib.Decoder(9, 8)(torch.tensor([[1, 2, 8]]).to(dtype))[0]


INTEGERS = {f.__name__: f for f in (written, changed, story, remembered, predicted)}


@pytest.mark.parametrize("name", INTEGERS)
def test_int32_and_int64_are_alike(name):
    call = INTEGERS[name]
    assert_close(call(torch.int32), call(torch.int64), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.int16, torch.uint8, torch.bool, torch.float32])
@pytest.mark.parametrize("name", INTEGERS)
def test_other_dtypes_are_refused(name, dtype):
    with pytest.raises(TypeError, match=f"must .*; got {dtype}"):
        INTEGERS[name](dtype)
