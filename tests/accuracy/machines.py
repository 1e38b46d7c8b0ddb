"""Modules: heads, recurrent machines one step at a time, and layers.

Their layers round at each step in the dtype of the parameters. How much a result may be off is
therefore told by how far it moves when each argument and parameter is rounded once more.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import memlib
from tests.reference import dnc, memn2n, ntm

from . import draws, truth
from .draws import Random, Tensors
from .table import Options, subject
from .truth import Expected, Truth

GAINS = (0.1, 1.0, 1.0, 3.0, 10.0)  # up to gates that saturate


def conditioned(
    run: Callable[[Tensors], Sequence[Tensor]], t: Tensors, o: Options
) -> list[Expected]:
    """The results of a formula, with how far a rounding of its arguments moves them."""
    values = run(t)
    rng = torch.Generator().manual_seed(0)
    far = [0.0] * len(values)
    step = 2 * torch.finfo(draws.DTYPES[o["dtype"]]).eps  # a jump within reach counts, too
    with torch.no_grad():
        for _ in range(3 if o["dtype"] == "float32" else 6):
            near = {n: _moved(x, rng, step) if x.is_floating_point() else x for n, x in t.items()}
            for i, (a, b) in enumerate(zip(values, run(near), strict=True)):
                far[i] = max(far[i], float((a - b).abs().max()) if a.numel() else 0.0)
    result = []
    for value, moved in zip(values, far, strict=True):
        size = max(float(value.detach().abs().max()) if value.numel() else 0.0, 1e-30)
        each = torch.full_like(value.detach(), size)
        result.append(Expected(value, each, reach=moved / step / size))
    return result


def _moved(x: Tensor, rng: torch.Generator, step: float) -> Tensor:
    sign = torch.randint(0, 2, x.shape, generator=rng) * 2 - 1
    moved = x.detach() * (1 + step * sign)
    inside = x.numel() and float(x.detach().min()) >= 0 and float(x.detach().max()) <= 1
    return moved.clamp(0, 1) if inside else moved


def told(
    run: Callable[[Tensors], Sequence[Tensor]],
    t: Tensors,
    o: Options,
    scores: Sequence[float] = (),
) -> Truth:
    """The truth about a module; `run` adds its largest scores to `scores`."""
    results = conditioned(run, t, o)
    numbers = [x for x in t.values() if x.dtype != torch.bool]
    each = [float(x.detach().abs().max()) for x in numbers if x.numel()]
    return Truth(results, max(each), reach=max([0.0, *scores]))


def parameters(rng: Random, net: nn.Module, dtype: str, gain: float) -> Tensors:
    """Parameters for a module, named p.NAME, on the scale of linear layers."""
    return {
        f"p.{name}": draws.fit(
            rng.standard_normal(x.shape) * gain / math.sqrt(max(1, x.shape[-1])), dtype
        )
        for name, x in net.named_parameters()
    }


def own(t: Tensors) -> Tensors:
    return {n[2:]: x for n, x in t.items() if n.startswith("p.")}


def run_module(net: nn.Module, t: Tensors, *arguments: Any, **options: Any) -> Any:
    return torch.func.functional_call(net, own(t), arguments, options)


def dtype_of(t: Tensors) -> torch.dtype:
    return next(iter(own(t).values())).dtype


HEAD = {"x": "B D", "memory": "B N M", "previous": "B H N"}


@subject("Head.forward", {})
class _Head:
    @staticmethod
    def draw(rng: Random, dtype: str, size: dict[str, int]) -> tuple[Tensors, Options]:
        size["M"], size["N"] = min(size["M"], 64), max(3, min(size["N"], 100))
        shape = {n: tuple(size[s] for s in letters.split()) for n, letters in HEAD.items()}
        layout, scale = str(rng.choice(draws.LAYOUTS)), draws.power(rng, dtype, 30)
        t = {"x": draws.fit(rng.standard_normal(shape["x"]), dtype)}
        t |= draws.points(rng, {"memory": shape["memory"]}, dtype, layout, scale)
        t["previous"] = draws.shares(rng, shape["previous"], dtype)
        make = {"input_size": size["D"], "width": size["M"], "heads": size["H"]}
        t |= parameters(rng, memlib.Head(**make), dtype, float(rng.choice(GAINS)))
        return t, {"make": make}

    @staticmethod
    def call(t: Tensors, o: Options) -> Sequence[Tensor]:
        net = memlib.Head(**o["make"], dtype=dtype_of(t))
        return (run_module(net, t, t["x"], t["memory"], t["previous"]),)

    @staticmethod
    def truth(t: Tensors, o: Options, got: Any) -> Truth:
        def run(t: Tensors) -> list[Tensor]:
            raw = t["x"] @ t["p.linear.weight"].mT + t["p.linear.bias"]
            raw = raw.unflatten(-1, (o["make"]["heads"], -1))
            width = o["make"]["width"]
            key, rest = raw[..., :width].tanh(), raw[..., width:]
            moves, gate = rest[..., :-3].softmax(-1), rest[..., -3].sigmoid()
            strength, power = F.softplus(rest[..., -2]), 1 + F.softplus(rest[..., -1])
            found = truth.look(key, t["memory"], "cosine", strength).weights
            gate = gate.unsqueeze(-1)
            moved = truth.shift(gate * found + (1 - gate) * t["previous"], moves)
            return [truth.sharpen(moved, power)[0]]

        return told(run, t, o)


CONTROLLERS = ("lstm", "gru", "feed-forward")


def controller(kind: str, seen: int, size: int, dtype: torch.dtype | None = None) -> nn.Module:
    if kind == "feed-forward":
        return nn.Sequential(nn.Linear(seen, size, dtype=dtype), nn.Tanh())
    return {"lstm": nn.LSTMCell, "gru": nn.GRUCell}[kind](seen, size, dtype=dtype)


def cell(kind: Any, o: Options, dtype: torch.dtype | None = None) -> nn.Module:
    make = o["make"]
    seen = make["input_size"] + make["read_heads"] * make["width"]
    return kind(**make, controller=controller(o["controller"], seen, o["size"], dtype), dtype=dtype)


def machine(rng: Random, dtype: str, kind: Any, **more: Any) -> tuple[Tensors, Options]:
    """A cell, its parameters, an input and a state."""
    make = {"input_size": int(rng.integers(1, 6)), "output_size": int(rng.integers(1, 4))}
    make |= {"slots": int(rng.integers(3, 8)), "width": int(rng.choice((1, 3, 8)))}
    make |= {"read_heads": int(rng.integers(1, 3)), "write_heads": int(rng.integers(1, 3))} | more
    o: Options = {"make": make, "controller": str(rng.choice(CONTROLLERS)), "size": 5}
    batch, heads = int(rng.integers(1, 3)), make["read_heads"] + make["write_heads"]
    net = cell(kind, o)
    t = parameters(rng, net, dtype, float(rng.choice(GAINS)))
    t = {n: x for n, x in t.items() if not n.startswith("p.initial_")}
    layout, scale = str(rng.choice(draws.LAYOUTS[:-5])), draws.power(rng, dtype, 10)
    slots, width = make["slots"], make["width"]
    t["x"] = draws.fit(rng.standard_normal((batch, make["input_size"])), dtype)
    t |= draws.points(rng, {"memory": (batch, slots, width)}, dtype, layout, scale)
    t["reads"] = draws.fit(rng.standard_normal((batch, make["read_heads"], width)), dtype)
    t["weights"] = draws.shares(rng, (batch, heads, slots), dtype)
    hidden = 0 if o["controller"] == "feed-forward" else o["size"]
    t["hidden"] = draws.fit(np_tanh(rng, (batch, hidden)), dtype)
    t["cell"] = draws.fit(np_tanh(rng, (batch, hidden * (o["controller"] == "lstm"))), dtype)
    return t, o


def np_tanh(rng: Random, shape: tuple[int, ...]) -> Any:
    return 2 * rng.random(shape) - 1


@subject("NTMCell.forward", {})
class _NTM:
    @staticmethod
    def draw(rng: Random, dtype: str, size: dict[str, int]) -> tuple[Tensors, Options]:
        return machine(rng, dtype, memlib.NTMCell)

    @staticmethod
    def call(t: Tensors, o: Options) -> Sequence[Tensor]:
        state = memlib.NTMState(*(t[n] for n in memlib.NTMState._fields))
        y, after = run_module(cell(memlib.NTMCell, o, dtype_of(t)), t, t["x"], state)
        return y, *after[:3]

    @staticmethod
    def truth(t: Tensors, o: Options, got: Any) -> Truth:
        make = o["make"]

        def run(t: Tensors) -> list[Tensor]:
            state = [t[n] for n in memlib.NTMState._fields]
            logits, after = ntm(
                o["controller"], own(t), t["x"].unsqueeze(1), state,
                reads=make["read_heads"], writes=make["write_heads"], shifts=3,
            )  # fmt: skip
            return [logits[:, 0], *after[:3]]

        return told(run, t, o)


@subject("DNCCell.forward", {})
class _DNC:
    @staticmethod
    def draw(rng: Random, dtype: str, size: dict[str, int]) -> tuple[Tensors, Options]:
        names = ("mask_content", "deallocate", "sharpen_links")
        t, o = machine(rng, dtype, memlib.DNCCell, **{n: bool(rng.random() < 0.5) for n in names})
        batch, slots = t["memory"].shape[:2]
        writes = o["make"]["write_heads"]
        t["usage"] = draws.gates(rng, (batch, slots), dtype)
        links = draws.shares(rng, (batch, writes, slots, slots), "float64") / slots
        off = 1 - torch.eye(slots, dtype=torch.float64)
        t["links"] = draws.fit(links * off, dtype)
        t["precedence"] = draws.shares(rng, (batch, writes, slots), dtype)
        return t, o

    @staticmethod
    def call(t: Tensors, o: Options) -> Sequence[Tensor]:
        state = memlib.DNCState(*(t[n] for n in memlib.DNCState._fields))
        y, after = run_module(cell(memlib.DNCCell, o, dtype_of(t)), t, t["x"], state)
        return y, *after[:6]

    @staticmethod
    def truth(t: Tensors, o: Options, got: Any) -> Truth:
        options = {n for n in ("mask_content", "deallocate", "sharpen_links") if o["make"][n]}

        def run(t: Tensors) -> list[Tensor]:
            state = [t[n] for n in memlib.DNCState._fields]
            x = t["x"].unsqueeze(1)
            logits, after = dnc(o["controller"], own(t), x, state, options)
            return [logits[:, 0], *after[:6]]

        return told(run, t, o)


@subject("MemN2N.forward", {})
class _MemN2N:
    @staticmethod
    def draw(rng: Random, dtype: str, size: dict[str, int]) -> tuple[Tensors, Options]:
        make: Options = {"vocab_size": 9, "answers": 4, "width": int(rng.choice((1, 5, 20)))}
        make |= {"hops": int(rng.integers(1, 4)), "slots": int(rng.choice((1, 4, 8)))}
        make |= {"tying": str(rng.choice(("adjacent", "layerwise", "none")))}
        make |= {"encoding": str(rng.choice(("position", "bag")))}
        for name in ("temporal", "relu", "empty", "linear"):
            make[name] = bool(rng.random() < 0.5)
        t = parameters(rng, memlib.MemN2N(**make), dtype, float(rng.choice(GAINS)))
        for name in t:
            if name.startswith("p.embeddings"):
                t[name][0] = 0
        t["story"] = torch.from_numpy(rng.integers(0, 9, size=(2, 6, 4)))
        t["story"] *= torch.from_numpy(rng.integers(0, 2, size=(2, 6, 1)))
        t["question"] = torch.from_numpy(rng.integers(1, 9, size=(2, 3)))
        return t, {"make": make}

    @staticmethod
    def call(t: Tensors, o: Options) -> Sequence[Tensor]:
        net = memlib.MemN2N(**o["make"], dtype=dtype_of(t))
        got: tuple[Tensor, ...] = run_module(net, t, t["story"], t["question"], need_weights=True)
        return got

    @staticmethod
    def truth(t: Tensors, o: Options, got: Any) -> Truth:
        make = {n: x for n, x in o["make"].items() if n not in ("encoding", "width")}
        make["position"] = o["make"]["encoding"] == "position"

        def run(t: Tensors) -> list[Tensor]:
            p = {n: x.detach().numpy() for n, x in own(t).items()}
            tables = [p[f"embeddings.{i}"] for i in range(sum("embeddings" in n for n in p))]
            rows = [
                memn2n(
                    tables, story.tolist(), question.tolist(), **make,
                    answer=p.get("answer"), between=p.get("between"),
                )
                for story, question in zip(t["story"], t["question"], strict=True)
            ]  # fmt: skip
            return [torch.from_numpy(_stack(part)) for part in zip(*rows, strict=True)]

        return told(run, t, o)


def _stack(rows: Sequence[Any]) -> Any:
    import numpy as np

    return np.stack(rows)


@subject("position_encoding", {}, dtypes=("float32",))
class _Positions:
    @staticmethod
    def draw(rng: Random, dtype: str, size: dict[str, int]) -> tuple[Tensors, Options]:
        long, short = int(rng.choice((1, 7, 1000, 4096))), int(rng.choice((1, 2, 7, 64)))
        words, width = (long, short) if rng.random() < 0.5 else (short, long)
        return {}, {"words": words, "width": width}

    @staticmethod
    def call(t: Tensors, o: Options) -> Sequence[Tensor]:
        return (memlib.position_encoding(**o),)

    @staticmethod
    def truth(t: Tensors, o: Options, got: Any) -> Truth:
        p, q = (
            (torch.arange(1, n + 1, dtype=torch.float64) - (n + 1) / 2) / n
            for n in (o["words"], o["width"])
        )
        value = 1 + 4 * p.unsqueeze(-1) * q
        return Truth([Expected(value, torch.ones_like(value))], 1.0)
