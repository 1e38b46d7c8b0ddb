"""What an option is when nobody gives it: stored in `saved/defaults.txt`, a line a signature."""

import ast
import inspect
import uuid
from pathlib import Path

import pytest
import torch
from devices import Lent
from torch import nn
from torch.testing import assert_close

import memlib
from memlib import programs, tasks

STORED = Path(__file__).parent / "saved" / "defaults.txt"
LINES = STORED.read_text(encoding="utf-8").splitlines()


def public():
    """Yield every public function, class and method with its name."""
    for module in (memlib, programs, tasks):
        here = [
            n for n, t in vars(module).items() if getattr(t, "__module__", "") == module.__name__
        ]
        for name in getattr(module, "__all__", here):
            thing = getattr(module, name)
            full = name if module is memlib else f"{module.__name__.rpartition('.')[2]}.{name}"
            if inspect.isclass(thing) or inspect.isfunction(thing):
                yield full, thing
            for base in reversed(thing.__mro__) if inspect.isclass(thing) else ():
                methods = {n: getattr(f, "__func__", f) for n, f in vars(base).items()}
                for method, function in methods.items() if "memlib" in base.__module__ else ():
                    if inspect.isfunction(function):
                        yield f"{full}.{method}", function


def defaults():
    """The lines that should be stored."""
    for name, function in public():
        if name.rpartition(".")[2].startswith("_"):
            continue
        try:
            parameters = inspect.signature(function).parameters.values()
        except ValueError:  # an exception's
            continue
        given = [f"{p.name}={p.default!r}" for p in parameters if p.default is not p.empty]
        if given:
            yield f"{name}({', '.join(given)})"


def test_no_default_changes_unnoticed():
    now = [*defaults()]
    assert now == LINES, "\n".join({*now} ^ {*LINES})


def test_a_changed_default_is_noticed(monkeypatch):
    monkeypatch.setitem(inspect.unwrap(memlib.Store.address).__kwdefaults__, "strength", 2.0)
    assert [*defaults()] != LINES


x = torch.linspace(-1, 1, 24).view(2, 3, 4)
words = torch.tensor([[1, 2, 3], [4, 5, 1]])
questions = tasks.babi_stories(1, 2)
vocabulary = tasks.Vocabulary.of(questions)


def store(**options):
    made = memlib.Store(4, batch_size=2, **options)
    made.add(x, x)
    return made


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def durable():
    made = memlib.Store.open(uuid.uuid4().hex, durable=True, width=4, batch_size=2)
    made.add(x, x)
    return made


def sharded():
    made = memlib.ShardedStore(4, batch_size=2)
    made.add(x, x)
    return made


def sharded_again(**options):
    sharded().save("shards")
    return memlib.ShardedStore.open("shards", **options).read(x, 2)


def texts():
    made = memlib.Store(4, 1, batch_size=2, value_dtype=torch.long)
    made.add(x, words.unsqueeze(-1) % 4)
    return made


def memory():
    made = memlib.KeyValueMemory(5, 4)
    return made, made.write(x, x, made.initial_state(2))


def extended(**options):
    cache = memlib.KVCache(2, 1, 8, 4)
    return cache.extend(x[:, None], x[:, None], **options)[:2]


def remembering(**options):
    layer = memlib.MemorizingAttention(4, 2)
    return layer(x, **options)[0]


def memorized(**options):
    made = memlib.MemorizingAttention(4, 2).memory(**options)
    return made.segment.inputs, made.store.keys


REQUIRED = {
    "DNC": (3, 2),
    "DNCCell": (3, 2),
    "Decoder": (9,),
    "FeedForward": (8, 3),
    "Head": (3, 4),
    "FastWeights": (8,),
    "KVCache": (2, 1, 8, 4),
    "KeyValueMemory": (5, 4),
    "MemN2N": (9, 4),
    "MemorizingAttention": (8, 2),
    "MemoryAttention": (8, 2),
    "NTM": (3, 2),
    "NTMCell": (3, 2),
    "NeuralMemory": (8,),
    "ShardedStore": (4,),
    "Store": (4,),
    "tasks.Question": ((), (), ()),
}

# a call of each other signature with what it must be given
CALLS = {
    "DNC.forward": lambda **o: memlib.DNC(4, 2)(x, **o),
    "DNC.initial_state": lambda **o: memlib.DNC(4, 2).initial_state(**o),
    "DNCCell.initial_state": lambda **o: memlib.DNCCell(4, 2).initial_state(**o),
    "DNCCell.forward": lambda **o: memlib.DNCCell(4, 2)(x[0], **o),
    "Decoder.cache": lambda **o: memlib.Decoder(9, 8, window=4).cache(**o)[0].keys,
    "Decoder.segment_memory": lambda **o: memlib.Decoder(9, 8).segment_memory(**o)[0],
    "Decoder.memory_tokens": lambda **o: memlib.Decoder(9, 8, memory_tokens=2).memory_tokens(**o),
    "Decoder.forward": lambda **o: memlib.Decoder(9, 8)(words, **o)[0],
    "FastWeights.initial_state": lambda **o: memlib.FastWeights(4, 2).initial_state(**o),
    "FastWeights.forward": lambda **o: memlib.FastWeights(4, 2)(x, **o),
    "Hopfield.forward": lambda **o: memlib.Hopfield()(x, x, **o),
    "Hopfield.energy": lambda **o: memlib.Hopfield().energy(x, x, **o),
    "KVCache.extend": extended,
    "KeyValueMemory.initial_state": lambda **o: memory()[0].initial_state(**o),
    "KeyValueMemory.write": lambda **o: memory()[0].write(x, x, memory()[1], **o),
    "KeyValueMemory.read": lambda **o: memory()[0].read(x, memory()[1], **o),
    "MemN2N.forward": lambda **o: memlib.MemN2N(9, 4)(words.unsqueeze(1), words, **o),
    "MemorizingAttention.memory": memorized,
    "MemorizingAttention.forward": remembering,
    "MemoryAttention.cache": lambda **o: memlib.MemoryAttention(4, 2, window=3).cache(**o).keys,
    "MemoryAttention.segment_memory": lambda **o: memlib.MemoryAttention(4, 2).segment_memory(**o),
    "MemoryAttention.forward": lambda **o: memlib.MemoryAttention(4, 2)(x, **o)[0],
    "NTM.forward": lambda **o: memlib.NTM(4, 2)(x, **o),
    "NTM.initial_state": lambda **o: memlib.NTM(4, 2).initial_state(**o),
    "NTMCell.initial_state": lambda **o: memlib.NTMCell(4, 2).initial_state(**o),
    "NTMCell.forward": lambda **o: memlib.NTMCell(4, 2)(x[0], **o),
    "NeuralMemory.initial_state": lambda **o: memlib.NeuralMemory(4, 2).initial_state(**o),
    "NeuralMemory.forward": lambda **o: memlib.NeuralMemory(4, 2)(x, **o),
    "NeuralMemory.loss": lambda **o: memlib.NeuralMemory(4, 2).loss(x, **o),
    "Store.add": lambda **o: store().add(x, x, **o),
    "Store.address": lambda **o: store().address(x, 2, **o),
    "Store.read": lambda **o: store().read(x, 2, **o),
    "ShardedStore.add": lambda **o: sharded().add(x, x, **o),
    "ShardedStore.address": lambda **o: sharded().address(x, 2, **o),
    "ShardedStore.open": sharded_again,
    "ShardedStore.read": lambda **o: sharded().read(x, 2, **o),
    "attend_sharded": lambda **o: memlib.attend_sharded(x, x, x, **o),
    "DurableStore.add": lambda **o: durable().add(x, x, **o),
    "DurableStore.address": lambda **o: durable().address(x, 2, **o),
    "DurableStore.read": lambda **o: durable().read(x, 2, **o),
    "DurableStore.versions": lambda **o: durable().versions(0, **o)[0][2],
    "address": lambda **o: memlib.address(x, x, **o),
    "attend": lambda **o: memlib.attend(x, x, x, **o),
    "matrix_memory": lambda **o: memlib.matrix_memory(x[:, None], x[:, None], x[:, None], **o)[0],
    "retrieve": lambda **o: memlib.retrieve(x, Lent(store()), 2, **o),
    "knn_lm": lambda **o: memlib.knn_lm(x, x, texts(), 2, **o),
    "position_encoding": lambda **o: memlib.position_encoding(3, 4, **o),
    "similarity": lambda **o: memlib.similarity(x, x, **o),
    "write": lambda **o: memlib.write(x, x[..., :3], x, **o),
    "ClassicalHopfield": lambda **o: memlib.ClassicalHopfield(**o)(x.sign(), x.sign()),
    "Hopfield": lambda **o: memlib.Hopfield(**o)(x, x),
    "tasks.Stories.padded": lambda **o: vocabulary.encode(questions).padded(**o),
    "tasks.Stories.ragged": lambda **o: vocabulary.encode(questions).ragged(**o),
    "tasks.Vocabulary.encode": lambda **o: vocabulary.encode(questions, **o),
    "tasks.associative_recall": lambda **o: tasks.associative_recall(2, **o),
    "tasks.copy": lambda **o: tasks.copy(2, **o),
    "tasks.induction": lambda **o: tasks.induction(2, **o),
    "tasks.mqar": lambda **o: tasks.mqar(2, **o),
    "tasks.ngrams": lambda **o: tasks.ngrams(2, **o),
    "tasks.optimal_bits": lambda **o: tasks.optimal_bits(tasks.ngrams(2).targets, **o),
    "tasks.priority_sort": lambda **o: tasks.priority_sort(2, **o),
    "tasks.repeat_copy": lambda **o: tasks.repeat_copy(2, **o),
    "tasks.selective_copy": lambda **o: tasks.selective_copy(2, **o),
}


def parsed(line):
    """The name of a line, and its options."""
    call = ast.parse(line).body[0].value
    return ast.unparse(call.func), {k.arg: ast.literal_eval(k.value) for k in call.keywords}


def outcome(call):
    torch.manual_seed(0)
    result = call()
    return result.state_dict() if isinstance(result, nn.Module) else result


@pytest.mark.parametrize("line", [s for s in LINES if parsed(s)[0] in REQUIRED | CALLS])
def test_what_is_left_out_is_as_the_default_given(line):
    name, options = parsed(line)
    if name in REQUIRED:
        kind, given = dict(public())[name], REQUIRED[name]
        left_out, said = kind(*given), kind(*given, **options)
        assert repr(left_out) == repr(said)
        call = lambda **o: kind(*given, **o)  # noqa: E731
        if not isinstance(left_out, nn.Module):
            return
    else:
        call = CALLS[name]
    expected, result = outcome(call), outcome(lambda: call(**options))
    assert_close(result, expected, rtol=0, atol=0)


def test_nearly_every_line_has_a_call():
    """What is left has no more than None, files or words to give."""
    left = {parsed(s)[0] for s in LINES} - {*REQUIRED, *CALLS}
    assert left == {
        "Store.open", "DurableStore.open", "programs.Step", "tasks.Task", "tasks.babi_stories",
        "tasks.find_babi", "tasks.read_babi",
    }  # fmt: skip
