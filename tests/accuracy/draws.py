"""Hostile numbers: what is drawn for each tensor of a call, from a seed alone."""

import math
import zlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

Random = np.random.Generator
Tensors = dict[str, Tensor]

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
SCALES = {  # powers of ten, down to the denormals and up to the largest
    "float16": (-7, -5, -3, -1, 0, 0, 0, 1, 2, 4),
    "bfloat16": (-40, -30, -20, -5, -1, 0, 0, 0, 1, 3, 10, 18, 30, 38),
    "float32": (-44, -40, -30, -20, -5, -1, 0, 0, 0, 0, 1, 3, 10, 18, 30, 38),
}
WIDTHS = (1, 2, 3, 4, 8, 16, 64, 257, 1024, 4096)
COUNTS = {
    "B": (1, 2), "L": (1, 2, 9, 40), "N": (1, 2, 5, 17, 100, 1000), "M": WIDTHS, "V": (1, 3, 16),
    "H": (1, 2, 3), "S": (1, 3), "D": (1, 5, 64), "T": (1, 3), "U": (2, 7, 30),
}  # fmt: skip
LARGE = 8200  # slots, so many that a read may be split between two threads
MOST = 400_000  # numbers in the largest tensor of the reference
LAYOUTS = (
    "plain", "plain", "offset", "offset", "duplicates", "offset duplicates", "clusters", "far",
    "zeros", "equal", "uneven", "signs",
)  # fmt: skip
STRIDES = ("as made", "as made", "strided", "transposed", "expanded")


def random(name: str, seed: int) -> Random:
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def sizes(rng: Random, letters: set[str]) -> dict[str, int]:
    """A size for each letter, as many numbers as the reference can take."""
    size = {s: int(rng.choice(COUNTS[s])) for s in sorted(letters & COUNTS.keys())}
    if rng.random() < 0.05 and {"L", "N", "M"} <= letters:  # enough slots to be split
        size |= {"B": 1, "L": int(rng.choice((1, 3))), "N": LARGE, "M": int(rng.choice((2, 8)))}
    while math.prod(size.get(s, 1) for s in "BHLNM") > MOST:
        largest = max("BHLNM", key=lambda s: size.get(s, 1))
        size[largest] = max(1, size[largest] // 3)
    if "S" in size and size["S"] > size.get("N", size["S"]):
        size["S"] = 1
    return size


def power(rng: Random, dtype: str, below: int | None = None) -> float:
    """A scale, as far as the dtype goes."""
    powers = [p for p in SCALES[dtype] if below is None or abs(p) <= below]
    return float(10.0 ** rng.choice(powers))


def points(
    rng: Random, shapes: dict[str, tuple[int, ...]], dtype: str, layout: str, scale: float
) -> dict[str, Tensor]:
    """Tensors (..., M) of one space: what is compared with what."""
    width = next(iter(shapes.values()))[-1]
    unit = rng.standard_normal(width)
    towards = np.where(unit < 0, -1.0, 1.0)
    far = 10.0 ** rng.choice((2, 4))
    few = rng.standard_normal((3, width))
    result = {}
    for i, (name, shape) in enumerate(shapes.items()):
        x = rng.standard_normal(shape)
        if "duplicates" in layout:
            x = few[rng.integers(3, size=shape[:-1])] + 1e-3 * x
        if "offset" in layout:
            x = x + far * towards
        if layout == "clusters":
            x = x + 1e4 * towards * rng.choice((-1, 1), size=(*shape[:-1], 1))
        if layout == "far" and i == 0:
            x = x + 1e4 * towards
        if layout == "zeros":
            x = x * rng.choice((0, 1), size=(*shape[:-1], 1))
        if layout == "equal":
            x = np.broadcast_to(few[0], shape)
        if layout == "uneven":
            x = x * 10.0 ** rng.uniform(-3, 3, size=(*shape[:-1], 1))
        if layout == "signs":
            x = towards * np.where(x < 0, -1.0, 1.0)
        result[name] = fit(x * scale, dtype)
    return result


def fit(x: Any, dtype: str) -> Tensor:
    """As a tensor of the dtype, what is too large at its largest."""
    kind = DTYPES.get(dtype, torch.float64)
    most = torch.finfo(kind).max
    x = x.double() if isinstance(x, Tensor) else torch.from_numpy(np.array(x, dtype=float))
    return x.clamp(-most, most).to(kind)


def values(rng: Random, shape: tuple[int, ...], dtype: str) -> Tensor:
    """Numbers of one scale, some of them 0."""
    below = {"float16": 3}.get(dtype, 30)
    x = rng.standard_normal(shape) * power(rng, dtype, below) * rng.choice((1, 1, 0), size=shape)
    return fit(x, dtype)


def shares(rng: Random, shape: tuple[int, ...], dtype: str) -> Tensor:
    """Weightings (..., N) that sum to 1: even, sharp, sparse, or one place alone."""
    kind = rng.integers(4)
    logits = rng.standard_normal(shape) * (0.0, 1.0, 30.0, 1e3)[kind]
    w = np.exp(logits - logits.max(-1, keepdims=True))
    return fit(w / w.sum(-1, keepdims=True), dtype)


def gates(rng: Random, shape: tuple[int, ...], dtype: str) -> Tensor:
    """Numbers in [0, 1], many at an end or next to it."""
    near = 10.0 ** rng.uniform(-8, 0, size=shape)
    return fit(rng.choice((0.0, 1.0), size=shape) * (1 - 2 * near) + near, dtype).clamp(0, 1)


def mask(rng: Random, shape: tuple[int, ...]) -> Tensor | None:
    """None, or which slots (..., L, N) or (N,) may be read: few, one, all but one, none."""
    kind = rng.choice(("no", "no", "some", "one", "but one", "none", "slots"))
    if kind == "no":
        return None
    may = rng.random(shape) < 0.5
    place = rng.integers(shape[-1], size=(*shape[:-1], 1)) == np.arange(shape[-1])
    may = {"one": place, "but one": ~place}.get(kind, may)
    if kind == "none":
        may = may & (rng.random((*shape[:-1], 1)) < 0.5)
    return torch.from_numpy(np.array(may[(0,) * (len(shape) - 1)] if kind == "slots" else may))


def restride(tensors: Tensors, how: str) -> Tensors:
    """The same numbers, differently laid out in memory."""
    if how == "strided":
        return {n: torch.stack((x, x), -1)[..., 0] for n, x in tensors.items()}
    if how == "transposed":
        return {n: x.mT.contiguous().mT if x.ndim > 1 else x for n, x in tensors.items()}
    if how == "expanded":
        return {n: x[:1].expand_as(x) if x.ndim > 2 else x for n, x in tensors.items()}
    return tensors
