"""Addressing by location, and the allocation of free slots."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

import memlib

from . import draws, truth
from .draws import Random, Tensors
from .table import Options, subject
from .truth import Expected, Truth

GATES = {
    "content": "B H N", "previous": "B H N", "weights": "B H N", "gate": "B H", "shift": "B H S",
    "sharpening": "B H", "memory": "B N M", "key": "B H M", "strength": "B H", "usage": "B N",
}  # fmt: skip


def shape(size: dict[str, int], name: str) -> tuple[int, ...]:
    return tuple(size[s] for s in GATES[name].split())


def powers(rng: Random, shape: tuple[int, ...], dtype: str) -> Tensor:
    """Sharpenings, from 1 to 1000."""
    return draws.fit(1 + rng.choice((0, 0, 1, 1)) * 10.0 ** rng.uniform(-6, 3, size=shape), dtype)


def weighting(value: Tensor, reach: Tensor | float = 0.0) -> Expected:
    return Expected(value, value.detach().clamp_min(truth.FAINT), reach)


@subject("interpolate", GATES)
class _Interpolate:
    @staticmethod
    def draw(rng: Random, dtype: str, size: dict[str, int]) -> tuple[Tensors, Options]:
        t = {n: draws.shares(rng, shape(size, n), dtype) for n in ("content", "previous")}
        if rng.random() < 0.7:
            return t | {"gate": draws.gates(rng, shape(size, "gate"), dtype)}, {}
        return t, {"gate": float(rng.choice((0.0, 1e-7, 0.3, 1 - 1e-7, 1.0)))}

    @staticmethod
    def call(t: Tensors, o: Options) -> Sequence[Tensor]:
        return (memlib.interpolate(t["content"], t["previous"], t.get("gate", o.get("gate"))),)

    @staticmethod
    def truth(t: Tensors, o: Options, got: Any) -> Truth:
        g = torch.as_tensor(t.get("gate", o.get("gate")), dtype=torch.float64)
        g = g.unsqueeze(-1) if g.ndim else g
        return Truth([weighting(g * t["content"] + (1 - g) * t["previous"])], 1.0)


@subject("shift", GATES)
class _Shift:
    @staticmethod
    def draw(rng: Random, dtype: str, size: dict[str, int]) -> tuple[Tensors, Options]:
        return {n: draws.shares(rng, shape(size, n), dtype) for n in ("weights", "shift")}, {}

    @staticmethod
    def call(t: Tensors, o: Options) -> Sequence[Tensor]:
        return (memlib.shift(t["weights"], t["shift"]),)

    @staticmethod
    def truth(t: Tensors, o: Options, got: Any) -> Truth:
        return Truth([weighting(truth.shift(t["weights"], t["shift"]))], 1.0)


@subject("sharpen", GATES)
class _Sharpen:
    @staticmethod
    def draw(rng: Random, dtype: str, size: dict[str, int]) -> tuple[Tensors, Options]:
        scale = float(rng.choice((1.0, 1.0, 1e-3, 3.0)))
        w = draws.shares(rng, shape(size, "weights"), dtype) * scale
        return {"weights": w, "sharpening": powers(rng, shape(size, "sharpening"), dtype)}, {}

    @staticmethod
    def call(t: Tensors, o: Options) -> Sequence[Tensor]:
        return (memlib.sharpen(t["weights"], t["sharpening"]),)

    @staticmethod
    def truth(t: Tensors, o: Options, got: Any) -> Truth:
        sharp, reach = truth.sharpen(t["weights"], t["sharpening"])
        return Truth([weighting(sharp, reach)], 1.0)


@subject("locate", GATES)
class _Locate:
    @staticmethod
    def draw(rng: Random, dtype: str, size: dict[str, int]) -> tuple[Tensors, Options]:
        layout = str(rng.choice(draws.LAYOUTS))
        scale = draws.power(rng, dtype)
        places = {n: shape(size, n) for n in ("key", "memory")}
        t = draws.points(rng, places, dtype, layout, scale)
        t |= {n: draws.shares(rng, shape(size, n), dtype) for n in ("shift", "previous")}
        beta = 10.0 ** rng.uniform(-2, 3, size=shape(size, "strength"))
        t["strength"] = draws.fit(beta * rng.choice((0, 1)), dtype)
        t["gate"] = draws.gates(rng, shape(size, "gate"), dtype)
        t["sharpening"] = powers(rng, shape(size, "sharpening"), dtype)
        return t, {}

    @staticmethod
    def call(t: Tensors, o: Options) -> Sequence[Tensor]:
        told = memlib.Gates(*(t[n] for n in memlib.Gates._fields))
        return (memlib.locate(told, t["memory"], t["previous"]),)

    @staticmethod
    def truth(t: Tensors, o: Options, got: Any) -> Truth:
        found = truth.look(t["key"], t["memory"], "cosine", t["strength"])
        g = t["gate"].unsqueeze(-1)
        moved = truth.shift(g * found.weights + (1 - g) * t["previous"], t["shift"])
        sharp, reach = truth.sharpen(moved, t["sharpening"])
        reach = reach + t["sharpening"].detach().unsqueeze(-1) * found.reach
        return Truth([weighting(sharp, reach)], 1.0)


@subject("allocation", GATES)
class _Allocation:
    @staticmethod
    def draw(rng: Random, dtype: str, size: dict[str, int]) -> tuple[Tensors, Options]:
        usage = draws.gates(rng, shape(size, "usage"), dtype)
        if rng.random() < 0.5:
            usage = draws.fit(rng.uniform(0.3, 1, size=shape(size, "usage")), dtype)
        return {"usage": usage}, {}

    @staticmethod
    def call(t: Tensors, o: Options) -> Sequence[Tensor]:
        return (memlib.allocation(t["usage"]),)

    @staticmethod
    def truth(t: Tensors, o: Options, got: Any) -> Truth:
        free, logs = truth.allocation(t["usage"])
        return Truth([weighting(free, logs)], 1.0)
