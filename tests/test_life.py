"""The life of an object: every public class goes through every stage, or says that it does not.

A cell of the table that is refused is so by one sentence, and the class says it too.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import io
import multiprocessing
import pickle
import warnings
from pathlib import Path
from typing import Any

import life
import pytest
import torch
import workers
from life import ROWS, Asked, Row, flat
from torch import Tensor, nn
from torch.func import functional_call

import memlib
from memlib.store import ShardedStore, Store
from memlib.tasks import BabiError

PUBLIC = (
    "memlib",
    "memlib.store",
    "memlib.tasks",
    "memlib.transformer",
    "memlib.fast_weights",
    "memlib.dnc",
)


def test_every_public_class_has_a_row() -> None:
    classes = {
        part
        for module in map(importlib.import_module, PUBLIC)
        for name in module.__all__
        if inspect.isclass(part := getattr(module, name)) and not issubclass(part, Exception)
        if not getattr(part, "_is_protocol", False)  # of which there are no objects
    }
    assert classes == {row.kind for row in ROWS.values()}


def test_every_refusal_is_of_a_stage() -> None:
    assert {stage for row in ROWS.values() for stage in row.refused} <= {*HERE, *ELSEWHERE}


def test_every_controller_is_in_the_table() -> None:
    for kind in ("NTMCell", "NTM", "DNCCell", "DNC"):
        assert {name for name in ROWS if name.split()[0] == kind} >= {
            f"{kind} {controller}" for controller in life.CONTROLLERS
        }


# Stages


def same(row: Row, twin: Any, it: Any) -> None:
    """It answers as the other does, to the bit."""
    for one, other in zip(row.run(twin), row.run(it), strict=True):
        assert torch.equal(one, other)


def close(found: list[Tensor], expected: list[Tensor], **within: float) -> None:
    assert found
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other.to(one.dtype), **within)


def spoil(it: Any) -> None:
    """Change all its numbers, in place."""
    if isinstance(it, ShardedStore):
        it = it.shard
    if isinstance(it, Store):
        it.delete(it.ids)
        return
    if isinstance(it, nn.Module):
        numbers = [*it.parameters(), *it.buffers()]
    else:
        numbers = flat(it)
        for part in it if isinstance(it, tuple) else ():
            if isinstance(part, Store):
                spoil(part)
    with torch.no_grad():
        for x in numbers:
            x.fill_(torch.nan if x.is_floating_point() else 1 if x.dtype == torch.bool else -9999)


def _deepcopy(row: Row) -> None:
    it = row.make()
    _is_another(row, it, copy.deepcopy(it))


def _pickle(row: Row) -> None:
    it = row.make()
    _is_another(row, it, pickle.loads(pickle.dumps(it)))


def _is_another(row: Row, it: Any, twin: Any) -> None:
    assert type(twin) is (row.copied or row.kind)
    same(row, twin, it)
    expected = [x.clone() for x in row.run(it)]
    spoil(it)
    close(row.run(twin), expected, rtol=0, atol=0)


def _copy(row: Row) -> None:
    it = row.make()
    twin = copy.copy(it)
    same(row, twin, it)
    if isinstance(it, Store | ShardedStore):
        _is_another(row, it, twin)
    elif row.is_module:
        for one, other in zip(_numbers(twin), _numbers(it), strict=True):
            assert one is other, "a shallow copy of a module shares its parameters and buffers"


def _numbers(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _file(row: Row) -> None:
    it, buffer = row.make(), io.BytesIO()
    torch.save(it.state_dict() if row.is_module else it, buffer)
    buffer.seek(0)
    found = torch.load(buffer, weights_only=True)
    if row.is_module:
        twin = row.make(seed=1)
        twin.load_state_dict(found, strict=True)
        found = twin
    same(row, found, it)


def _state_dict(row: Row) -> None:
    it, twin = row.make(), row.make(seed=1)
    twin.load_state_dict(it.state_dict(), strict=True)
    same(row, twin, it)


def _meta(row: Row) -> None:
    it = row.make()
    for absent in (row.make(device="meta"), row.make().to("meta")):
        twin = absent.to_empty(device="cpu")
        spoil(twin)
        twin.load_state_dict(it.state_dict(), strict=True)
        same(row, twin, it)


def _skip_init(row: Row) -> None:
    options = row.options(device="meta") if row.options else {}
    it = nn.utils.skip_init(row.kind, *row.args, **options | {"device": "cpu"})
    spoil(it)
    if not any(x.numel() for x in _numbers(it)):
        same(row, it, row.make())
        return
    torch.manual_seed(5)
    it.reset_parameters()
    twin = row.make(seed=1)
    for x, new in zip(it.buffers(), twin.buffers(), strict=True):
        assert x.is_floating_point() or torch.equal(x, new), "what is not drawn is as in a new one"
    assert all(x.isfinite().all() for x in _numbers(it))
    assert all(x.isfinite().all() for x in row.run(it))
    torch.manual_seed(5)
    twin.reset_parameters()
    same(row, twin, it)


def _to(row: Row) -> None:
    expected = row.run(row.make())
    it = row.make().to(torch.float64)
    assert {x.dtype for x in _numbers(it) if x.is_floating_point()} <= {torch.float64}
    wide = row.run(it, torch.float64)
    assert {x.dtype for x in wide if x.is_floating_point()} == {torch.float64}
    close(wide, expected, rtol=1e-4, atol=1e-5)
    made = row.make(seed=1, dtype=torch.float64)
    made.load_state_dict(it.state_dict(), strict=True)
    close(row.run(made, torch.float64), wide, rtol=0, atol=0)
    close(row.run(it.to(torch.float32)), expected, rtol=0, atol=0)
    half = row.run(it.to(torch.bfloat16), torch.bfloat16)
    assert {x.dtype for x in half if x.is_floating_point()} == {torch.bfloat16}
    assert all(x.isfinite().all() for x in half)


def _compile(row: Row) -> None:
    torch._dynamo.reset()
    it = row.make()
    expected = row.run(it)
    it.compile(backend="eager")
    for twin in (it, copy.deepcopy(it), pickle.loads(pickle.dumps(it))):
        close(row.run(twin), expected)
    spoil(it)
    close(row.run(twin), expected)


def _export(row: Row) -> None:
    it, inputs = row.make(), row.draw()
    asked = Asked(it, row.call)
    if _is_of_tensors(it):  # it goes in too
        asked, inputs = Asked(None, lambda _, it, *inputs: row.call(it, *inputs)), (it, *inputs)
    if not flat(inputs):
        assert _has_no_numbers(it)
        return
    expected = asked(*inputs)
    close(torch.export.export(asked, inputs).module()(*inputs), expected)
    close(asked(*inputs), expected)  # what was exported is as it was


def _vmap(row: Row) -> None:
    """Each row alone, all at once, is as all together."""
    it, inputs = row.make(), row.draw()
    expected = row.run(it)

    def alone(part: Any, *inputs: Tensor) -> list[Tensor]:
        whole = it if part is None else type(it)(*(x.unsqueeze(0) for x in part))
        return flat(row.call(whole, *(x.unsqueeze(0) for x in inputs)))

    mapped = _is_of_tensors(it)
    if not mapped and not inputs:
        assert _has_no_numbers(it)
    elif row.kind in SHARED:
        assert set(map(len, flat(it))) != {2}, "what is shared by all rows is not mapped"
    elif isinstance(it, Store | ShardedStore | memlib.Recollection | memlib.KVCache):
        # one memory for all: the inputs are mapped as a whole
        many = [x.unsqueeze(0).repeat(3, *[1] * x.ndim) for x in inputs]
        found = torch.vmap(lambda *inputs: flat(row.call(it, *inputs)))(*many)
        close([x[2] for x in found], expected)
    else:
        found = torch.vmap(alone, in_dims=(0 if mapped else None, *[0] * len(inputs)))(
            it if mapped else None, *inputs
        )
        close([x.squeeze(1) for x in found], expected, rtol=1e-4, atol=1e-5)


SHARED = (memlib.tasks.Stories, memlib.tasks.RaggedBatch)  # their tensors are not row by row


def _is_of_tensors(it: Any) -> bool:
    return isinstance(it, tuple) and all(isinstance(part, Tensor) for part in it)


def _has_no_numbers(it: Any) -> bool:
    parts = it if isinstance(it, tuple) else vars(it).values()
    return not any(isinstance(part, Tensor) for part in parts)


def _autocast(row: Row) -> None:
    it = row.make()
    expected = row.run(it)
    with torch.autocast("cpu", torch.bfloat16):
        found = row.run(it)
    assert all(x.isfinite().all() for x in found)
    close([x.float() for x in found], [x.float() for x in expected], rtol=0.1, atol=0.1)


def _functional_call(row: Row) -> None:
    it, other = Asked(row.make(), row.call), Asked(row.make(seed=1), row.call)
    given = dict(it.named_parameters()) | dict(it.named_buffers())
    before = copy.deepcopy(other.state_dict())
    close(functional_call(other, given, row.draw()), row.run(it.part), rtol=0, atol=0)
    assert all(torch.equal(before[name], x) for name, x in other.state_dict().items())


# Stages in other processes tell of all rows at once: None, or what went wrong


def _sent(method: str) -> dict[str, str | None]:
    """A worker is asked what it is asked here; and so is a machine that compiles its step."""
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this system")
    context = multiprocessing.get_context(method)
    objects = {name: row.make() for name, row in ROWS.items()}
    objects |= {"NTM GRU compiled": workers.compiled()}
    answers = context.SimpleQueue()
    worker = context.Process(target=workers.work, args=(objects, answers))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads and fork
        worker.start()
    found = answers.get()
    worker.join()
    assert worker.exitcode == 0
    return {name: _differs(name, told) for name, told in found.items()}


def _differs(name: str, told: Any) -> str | None:
    row = ROWS[name.removesuffix(" compiled")]
    return None if told == [x.tolist() for x in row.run(row.make())] else str(told)


def _trained_together(folder: Path) -> dict[str, str | None]:
    """Two processes train every module by DDP."""
    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    both = [
        context.Process(target=workers.train_together, args=(rank, str(folder), answers))
        for rank in (0, 1)
    ]
    for process in both:
        process.start()
    one, other = (answers.get() for _ in both)
    for process in both:
        process.join()
        assert process.exitcode == 0
    return {name: one[name] or other[name] for name in one}


HERE = {
    "deepcopy": _deepcopy,
    "copy": _copy,
    "pickle": _pickle,
    "file": _file,
    "state_dict": _state_dict,
    "meta": _meta,
    "skip_init": _skip_init,
    "to": _to,
    "compile": _compile,
    "export": _export,
    "vmap": _vmap,
    "autocast": _autocast,
    "functional_call": _functional_call,
}
ELSEWHERE = {
    "spawn": lambda _: _sent("spawn"),
    "fork": lambda _: _sent("fork"),
    "ddp": _trained_together,
}
OF_MODULES = {"state_dict", "meta", "skip_init", "to", "compile", "functional_call", "ddp"}
LATER = {"compile": "2.13", "export": "2.13"}  # versions of torch
COSINES = {  # whose vmap needs a rule for the bits of a number, which an older torch has not
    "DNC", "DNCCell", "DNCState", "Decoder", "FastWeights", "Gates", "Head", "MemorizingAttention",
    "NTM", "NTMCell", "NTMState", "NeuralMemory", "NeuralState", "Recollection", "Store",
}  # fmt: skip


def _cells() -> list[Any]:
    cells = []
    for name, row in ROWS.items():
        for stage in HERE if row.is_module else HERE.keys() - OF_MODULES:
            later = stage in LATER or (stage == "vmap" and row.kind.__name__ in COSINES)
            marks = [pytest.mark.needs_torch(LATER.get(stage, "2.13"))] if later else []
            if (name, stage) == ("MemorizingAttention", "compile"):
                marks.append(pytest.mark.slow)
            cells.append(pytest.param(name, stage, id=f"{name}-{stage}", marks=marks))
    return sorted(cells, key=lambda cell: cell.id)


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")  # of some rules
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # dynamo looks at all
@pytest.mark.parametrize(("name", "stage"), _cells())
def test_a_cell_of_the_table(name: str, stage: str) -> None:
    row = ROWS[name]
    if row.kind is Store and "exact" not in name:
        pytest.importorskip("faiss")
    if stage not in row.refused:
        HERE[stage](row)
        return
    with pytest.raises((RuntimeError, TypeError, ValueError, pickle.UnpicklingError)) as refusal:
        HERE[stage](row)
    _is_told(row, stage, str(refusal.value))


def _is_told(row: Row, stage: str, refusal: str) -> None:
    """It is refused with the words that are expected, and documented."""
    words, sentence = row.refused[stage]
    assert words in refusal
    assert sentence in " ".join((inspect.getdoc(row.kind) or "").split())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
@pytest.mark.parametrize("stage", ELSEWHERE)
def test_a_column_of_the_table(stage: str, tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    told = ELSEWHERE[stage](tmp_path)
    assert told.keys() >= {n for n, r in ROWS.items() if r.is_module or stage not in OF_MODULES}
    for name, outcome in told.items():
        if name in ROWS and stage in ROWS[name].refused:
            _is_told(ROWS[name], stage, outcome or "")
        else:
            assert outcome is None, f"{name}: {outcome}"


def test_a_compiled_machine_is_compiled_in_every_copy() -> None:
    it = workers.compiled()
    step = type(it.cell)._step
    for twin in (copy.copy(it), copy.deepcopy(it), pickle.loads(pickle.dumps(it))):
        assert twin._take is not step
        assert twin._compiled == ((), {"backend": "eager"})
    assert memlib.NTM(3, 2)._take is memlib.NTMCell._step


def test_an_error_goes_from_a_worker_to_its_parent() -> None:
    assert str(pickle.loads(pickle.dumps(BabiError("line 3")))) == "line 3"
