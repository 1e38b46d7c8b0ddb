"""Every public class as a row of one table, for the tests of an object's life.

A row says how an object is made and what is asked of it; `tests/test_life.py` says what it goes
through.
"""

import copy
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

import memlib
from memlib import tasks
from memlib.fast_weights.gates import GATES
from memlib.store.indexes import BACKENDS
from memlib.transformer import forget, sinks

CONTROLLERS = {"LSTM": nn.LSTMCell, "GRU": nn.GRUCell, "RNN": nn.RNNCell, "feed-forward": nn.Linear}
SIZES = (3, 2, 5, 4)  # of a machine: inputs, outputs, slots, width
Refusals = Mapping[str, tuple[str, str]]


@dataclass(frozen=True)
class Row:
    """One public class, made in one way.

    Attributes:
        kind: the class.
        args: it is made with.
        options: it is made with too, from dtype and device; None if it takes neither.
        made: makes it instead, where it is no module.
        inputs: draws tensors for it, a batch of 2 in each.
        call: asks something of it, with these inputs, that leaves it as it is; returns tensors.
        copied: the class of its copies, where it is another one.
        refused: the stages that refuse it, with what words, and with what sentence of its own
            documentation.
    """

    kind: type
    args: tuple[Any, ...] = ()
    options: Callable[..., dict[str, Any]] | None = lambda **where: where
    made: Callable[[], Any] | None = None
    inputs: Callable[[], tuple[Tensor, ...]] = lambda: ()
    call: Callable[..., Any] = lambda it, *inputs: it(*inputs)
    copied: type | None = None
    refused: Refusals = field(default_factory=dict)

    def make(self, seed: int = 0, **where: Any) -> Any:
        torch.manual_seed(seed)
        if self.made:
            return self.made()
        return self.kind(*self.args, **(self.options(**where) if self.options else {}))

    def draw(self, dtype: torch.dtype = torch.float32, seed: int = 1) -> tuple[Tensor, ...]:
        torch.manual_seed(seed)
        return tuple(x.to(dtype) if x.is_floating_point() else x for x in self.inputs())

    def run(self, it: Any, dtype: torch.dtype = torch.float32) -> list[Tensor]:
        return flat(self.call(it, *self.draw(dtype)))

    @property
    def is_module(self) -> bool:
        return issubclass(self.kind, nn.Module)


def flat(result: Any) -> list[Tensor]:
    """All tensors in a result."""
    if isinstance(result, Tensor):
        return [result]
    parts = result if isinstance(result, tuple | list) else ()
    return [tensor for part in parts for tensor in flat(part)]


class Asked(nn.Module):
    """A module that asks of its part what a row asks."""

    def __init__(self, part: Any, call: Callable[..., Any]) -> None:
        super().__init__()
        self.part, self.call = part, call

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        return flat(self.call(self.part, *inputs))


# Modules


def _controlled(kind: str) -> Callable[..., dict[str, Any]]:
    """A machine sees three inputs and one read of width 4."""
    return lambda **where: {"controller": CONTROLLERS[kind](7, 6, **where), **where}


def _write_and_read(it: Any, keys: Tensor, query: Tensor) -> Tensor:
    return it.read(query, it.write(keys, keys, it.initial_state(len(keys))))


def _extend(it: Any, keys: Tensor, values: Tensor, query: Tensor) -> Tensor:
    keys, values, mask = it.extend(keys, values)
    read = memlib.attend(query, keys, values, mask=mask)
    it.crop(0)
    return read


def _forget(it: Any, keys: Tensor, values: Tensor, query: Tensor) -> Tensor:
    it.extend(keys, values)
    slots = forget(it, 2, sinks)
    keys, values, mask = it.extend(keys[:, :, :1], values[:, :, :1])
    read = memlib.attend(query, keys, values, mask=mask)
    it.crop(0)
    return torch.cat((read.flatten(), slots[0].flatten()))


def _twice(it: Any, x: Tensor) -> Tensor:
    """The second call goes on where the first ended."""
    y, state = it(x)
    return torch.cat((y, it(x, state)[0]), dim=1)


def _remembering(it: Any, tokens: Tensor) -> Tensor:
    """The second call reads what the first has left."""
    y, memory = it(tokens, it.segment_memory(len(tokens), 4))
    return torch.cat((y, it(tokens, memory)[0]), dim=1)


def _attend_twice(it: Any, x: Tensor) -> Tensor:
    """The second segment reads the first from the store."""
    y, memory = it(x)
    return torch.cat((y, it(x, memory)[0]))


def _draws(*sizes: tuple[int, ...]) -> Callable[[], tuple[Tensor, ...]]:
    return lambda: tuple(torch.randn(size) for size in sizes)


def _strength(dtype: torch.dtype | None) -> Tensor:
    return 1 + torch.rand((), dtype=dtype)


BARE = "DistributedDataParallel is not needed when a module"
IDLE = "`DistributedDataParallel` finds nothing to do and refuses it"
IN_PLACE = "a store is changed in place, which cannot be where torch.func transforms"
NO_DEVICE = ("must support a 'device' arg", "no device, so `torch.nn.utils.skip_init` refuses it")
HOPFIELD = {
    "skip_init": ("must support a 'device' arg", "no parameters and no device"),
    "ddp": (BARE, "`torch.nn.utils.skip_init` and `DistributedDataParallel` find nothing to do"),
}
LSTM = {"vmap": ("Batching rule not implemented", "`torch.func.vmap` has no rule for an LSTM")}
ADDS = (IN_PLACE, "in place: `torch.func.vmap` and `torch.export` refuse it")

MODULES = {
    "Hopfield": Row(
        memlib.Hopfield, (2.0,), None, inputs=_draws((2, 3, 4), (2, 5, 4)),
        refused={"skip_init": NO_DEVICE, "ddp": (BARE, IDLE)},
    ),
    "Hopfield learned": Row(
        memlib.Hopfield, (), lambda dtype=None, **_: {"strength": nn.Parameter(_strength(dtype))},
        inputs=_draws((2, 3, 4), (2, 5, 4)), refused={"skip_init": NO_DEVICE},
    ),
    "Hopfield with a buffer": Row(
        memlib.Hopfield, (), lambda dtype=None, **_: {"strength": _strength(dtype)},
        inputs=_draws((2, 3, 4), (2, 5, 4)),
        refused={"skip_init": NO_DEVICE, "ddp": (BARE, IDLE)},
    ),
    "ClassicalHopfield": Row(
        memlib.ClassicalHopfield, (2,), None,
        inputs=lambda: (torch.randn(2, 3, 4).sign(), torch.randn(2, 5, 4).sign()),
        refused=HOPFIELD,
    ),
    "KeyValueMemory": Row(
        memlib.KeyValueMemory, (5, 4), inputs=_draws((2, 3, 4), (2, 2, 4)), call=_write_and_read,
        refused={"ddp": (BARE, IDLE)},
    ),
    "Head": Row(
        memlib.Head, (6, 4, 2), inputs=_draws((2, 6), (2, 5, 4), (2, 2, 5)),
        call=lambda it, x, memory, scores: it(x, memory, scores.softmax(-1)),
    ),
    "MemN2N": Row(
        memlib.MemN2N, (9, 4, 6, 2),
        inputs=lambda: (torch.randint(1, 9, (2, 3, 4)), torch.randint(1, 9, (2, 4))),
    ),
    "MemN2N layerwise": Row(
        memlib.MemN2N, (9, 4, 6, 2), lambda **where: {"tying": "layerwise", **where},
        inputs=lambda: (torch.randint(1, 9, (2, 3, 4)), torch.randint(1, 9, (2, 4))),
    ),
    **{
        f"{kind.__name__} {controller}": Row(
            kind, SIZES, _controlled(controller), inputs=_draws(size),
            refused=LSTM if controller == "LSTM" else {},
        )
        for controller in CONTROLLERS
        for size, kinds in {
            (2, 3): (memlib.NTMCell, memlib.DNCCell), (2, 3, 3): (memlib.NTM, memlib.DNC)
        }.items()
        for kind in kinds
    },
    "NTM random": Row(
        memlib.NTM, SIZES, lambda **where: {"initial_memory": "random", "walk": 4.0, **where},
        inputs=_draws((2, 3, 3)), refused=LSTM,
    ),
    "MemoryAttention": Row(memlib.MemoryAttention, (6, 3, 1), inputs=_draws((2, 3, 6))),
    "MemoryAttention learned": Row(
        memlib.MemoryAttention, (6, 3, 1),
        lambda **where: {"positions": "learned", "length": 3, **where},
        inputs=_draws((2, 3, 6)),
    ),
    **{
        f"FastWeights {rule}": Row(
            memlib.FastWeights, (6, 2), lambda rule=rule, **where: {"rule": rule, **where},
            inputs=_draws((2, 3, 6)), call=_twice,
        )
        for rule in GATES
    },
    **{
        f"NeuralMemory {name}": Row(
            memlib.NeuralMemory, (6, 2),
            lambda hidden=hidden, **where: {"hidden": hidden, "chunk": 2, **where},
            inputs=_draws((2, 3, 6)), call=_twice,
        )
        for name, hidden in (("linear", 0), ("of two layers", 5))
    },
    "FeedForward": Row(memlib.FeedForward, (6, 5), inputs=_draws((2, 3, 6))),
    "Decoder": Row(memlib.Decoder, (9, 8, 2, 2), inputs=lambda: (torch.randint(9, (2, 4)),)),
    "Decoder with tokens": Row(
        memlib.Decoder, (9, 8, 2, 2), lambda **where: {"memory_tokens": 2, **where},
        inputs=lambda: (torch.randint(9, (2, 4)),),
    ),
    **{
        f"Decoder of {kind.__name__}": Row(
            memlib.Decoder, (9, 8, 2, 2),
            lambda kind=kind, **where: {"layer": (kind, None), **where},
            inputs=lambda: (torch.randint(9, (2, 4)),), call=_remembering,
        )
        for kind in (memlib.FastWeights, memlib.NeuralMemory)
    },
    "KVCache": Row(
        memlib.KVCache, (2, 1, 8, 4), inputs=_draws(*[(2, 1, 3, 4)] * 3), call=_extend,
        refused={
            "ddp": (BARE, IDLE),
            "vmap": ("vmap: inplace arithmetic", "`torch.func.vmap` refuses that"),
        },
    ),
    "KVCache that forgets": Row(
        memlib.KVCache, (2, 1, 8, 4), inputs=_draws(*[(2, 1, 3, 4)] * 3), call=_forget,
        refused={
            "ddp": (BARE, IDLE),
            "vmap": ("vmap: inplace arithmetic", "`torch.func.vmap` refuses that"),
        },
    ),
    "MemorizingAttention": Row(
        memlib.MemorizingAttention, (6, 3, 1), lambda **where: {"k": 2, **where},
        inputs=_draws((2, 3, 6)), call=_attend_twice, refused={"vmap": ADDS, "export": ADDS},
    ),
}  # fmt: skip


# States, batches and stores


@cache
def _made(kind: Any, *args: Any, **options: Any) -> Any:
    """A module that is the same whenever it is asked for."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return kind(*args, **options)


def _machine(kind: Any) -> Any:
    return _made(kind, *SIZES, controller=_made(nn.GRUCell, 7, 6))


def _state(kind: Any) -> Any:
    return _machine(kind)(torch.randn(2, 3, 3))[1].detach()


def _written() -> Any:
    memory = memlib.KeyValueMemory(5, 4)
    return memory.write(torch.randn(2, 3, 4), torch.randn(2, 3, 4), memory.initial_state(2))


def _segment() -> Any:
    layer = _made(memlib.MemoryAttention, 6, 3, 1)
    return layer(torch.randn(2, 3, 6), layer.segment_memory(2, 3))[1]


def _neural() -> Any:
    return _made(memlib.NeuralMemory, 6, 2, hidden=5, chunk=2)


def _memorizing() -> Any:
    return _made(memlib.MemorizingAttention, 6, 3, 1, k=2)


def _gates() -> Any:
    return memlib.Gates(*(x.detach() for x in memlib.Head(6, 4, 2).gates(torch.randn(2, 6))))


def _looks() -> Any:
    with torch.no_grad():
        return _memorizing()(torch.randn(2, 3, 6), need_weights=True)[2]


def _store(backend: str, filled: bool) -> Any:
    store = memlib.Store(4, 2, batch_size=2, backend=backend)  # type: ignore[arg-type]
    if filled:
        ids = store.add(torch.randn(2, 20, 4), torch.randn(2, 20, 2))
        store.address(torch.ones(2, 1, 4), 3)  # now there is an index
        store.delete(ids[:, 3:5])
    return store


def _durable() -> Any:
    folder = tempfile.mkdtemp()
    store = memlib.Store.open(folder, durable=True, width=4, value_width=2, batch_size=2)
    store.add(torch.randn(2, 20, 4), torch.randn(2, 20, 2))
    weakref.finalize(store, shutil.rmtree, folder)
    return store


def _sharded() -> Any:
    store = memlib.ShardedStore(4, 2, batch_size=2)  # of one rank; tests/store has more
    store.add(torch.randn(2, 20, 4), torch.randn(2, 20, 2))
    return store


def _recall(it: Any, x: Tensor) -> Tensor:
    memory = it if torch.compiler.is_compiling() else copy.deepcopy(it)  # which would be traced too
    return _memorizing()(x, memory)[0]


TOLD = (("mary", "went", "home"), ("she", "slept"))
STORY = tasks.Question(TOLD, ("where", "is", "mary"), "home", (0,), 1)
TRACED = (IN_PLACE, "`torch.func.vmap` and `torch.export` refuse a call that adds to it")
STORED = ("Unsupported global: GLOBAL memlib.store", "with ``weights_only`` refuses")
SEARCH = ("backend reads numbers, which are not there", "a search by faiss and a change in place")
NAMED = ("Unsupported global: GLOBAL memlib.tasks", "It is kept by its name")


def _value(
    kind: type,
    made: Callable[[], Any],
    *sizes: tuple[int, ...],
    call: Callable[..., Any] = lambda it: it,
    refused: Refusals | None = None,
) -> Row:
    return Row(kind, made=made, inputs=_draws(*sizes), call=call, refused=refused or {})


VALUES = {
    "NTMState": _value(
        memlib.NTMState,
        lambda: _state(memlib.NTM),
        (2, 3, 3),
        call=lambda it, x: _machine(memlib.NTM)(x, it)[0],
    ),
    "DNCState": _value(
        memlib.DNCState,
        lambda: _state(memlib.DNC),
        (2, 3, 3),
        call=lambda it, x: _machine(memlib.DNC)(x, it)[0],
    ),
    "KeyValueState": _value(
        memlib.KeyValueState,
        _written,
        (2, 1, 4),
        call=lambda it, q: memlib.KeyValueMemory(5, 4).read(q, it),
    ),
    "SegmentMemory": _value(
        memlib.SegmentMemory,
        _segment,
        (2, 2, 6),
        call=lambda it, x: _made(memlib.MemoryAttention, 6, 3, 1)(x, it)[0],
    ),
    "NeuralState": _value(
        memlib.NeuralState,
        lambda: _neural()(torch.randn(2, 3, 6))[1].detach(),
        (2, 2, 6),
        call=lambda it, x: _neural()(x, it)[0],
    ),
    "Gates": _value(
        memlib.Gates,
        _gates,
        (2, 5, 4),
        (2, 2, 5),
        call=lambda it, memory, scores: memlib.locate(it, memory, scores.softmax(-1)),
    ),
    "Looks": _value(memlib.Looks, _looks),
    "Recollection": _value(
        memlib.Recollection,
        lambda: _memorizing()(torch.randn(2, 3, 6))[1],
        (2, 2, 6),
        call=_recall,
        refused={"file": STORED, "vmap": TRACED, "export": TRACED},
    ),
    **{
        f"Store {backend}": _value(
            memlib.Store,
            lambda backend=backend: _store(backend, filled=True),
            (2, 3, 4),
            call=lambda it, query: it.read(query, 3),
            refused={"file": STORED}
            | ({} if backend == "exact" else dict.fromkeys(("vmap", "export"), SEARCH)),
        )
        for backend in BACKENDS
    },
    **{
        f"Store {backend} empty": _value(
            memlib.Store,
            lambda backend=backend: _store(backend, filled=False),
            (2, 3, 4),
            call=lambda it, query: it.read(query, 3),
            refused={"file": STORED},
        )
        for backend in BACKENDS
    },
    "DurableStore": Row(
        memlib.DurableStore,
        made=_durable,
        inputs=_draws((2, 3, 4)),
        call=lambda it, query: it.read(query, 3),
        copied=memlib.Store,
        refused={"file": STORED},
    ),
    "ShardedStore": Row(
        memlib.ShardedStore,
        made=_sharded,
        inputs=_draws((2, 3, 4)),
        call=lambda it, query: it.read(query, 3),
        copied=memlib.Store,
        refused={"file": STORED},
    ),
    "Batch": _value(tasks.Batch, lambda: tasks.copy(2, length=(1, 3))),
    "Tokens": _value(tasks.Tokens, lambda: tasks.induction(2)),
    "Question": _value(
        tasks.Question,
        lambda: STORY,
        call=lambda it: tasks.Vocabulary.of([it]).encode([it]).padded(),
    ),
    "Vocabulary": _value(
        tasks.Vocabulary,
        lambda: tasks.Vocabulary.of([STORY]),
        call=lambda it: it.encode([STORY]).padded(),
    ),
    "Stories": _value(tasks.Stories, lambda: tasks.Vocabulary.of([STORY]).encode([STORY, STORY])),
    "QuestionBatch": _value(
        tasks.QuestionBatch, lambda: tasks.Vocabulary.of([STORY]).encode([STORY] * 2).padded()
    ),
    "RaggedBatch": _value(
        tasks.RaggedBatch, lambda: tasks.Vocabulary.of([STORY]).encode([STORY] * 2).ragged()
    ),
    "Task": _value(
        tasks.Task,
        lambda: tasks.TASKS["copy"],
        call=lambda it: it.generate(2, generator=torch.Generator().manual_seed(0)),
        refused={"file": NAMED},
    ),
}

ROWS: dict[str, Row] = MODULES | VALUES
