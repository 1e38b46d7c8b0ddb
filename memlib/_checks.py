"""Validation of arguments: the one place where memlib's public functions refuse bad input.

Shapes, dtypes and Python numbers are checked always. Values inside tensors are looked at in
eager mode only (never while compiling, while a CUDA graph is captured, on ``meta`` or under
``vmap``), and only in the result: when it holds NaN, the argument that brought it is named.
"""

import math
import sys
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def tensor(name: str, value: object) -> None:
    """Refuse anything but a floating-point tensor."""
    untraced()
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor; got {type(value).__name__}")
    if not value.is_floating_point():
        raise TypeError(f"{name} must have a floating-point dtype; got {value.dtype}")
    if value.layout != torch.strided:
        raise TypeError(f"{name} must be a dense tensor; got layout {value.layout}")


def untraced() -> None:
    """Refuse `torch.jit.trace`, which makes constants of the shapes and checks of one example."""
    if torch._C._get_tracing_state() is not None:  # the cheapest way to ask
        raise RuntimeError("torch.jit.trace would keep one example's shapes; use torch.export")


def integers(name: str, value: object) -> None:
    """Refuse anything but a tensor of int32 or int64."""
    untraced()
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor; got {type(value).__name__}")
    if value.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"{name} must have dtype int64 or int32; got {value.dtype}")


def shape(name: str, value: Tensor, rule: str, **sizes: int) -> None:
    """Refuse a shape that breaks `rule`, a pattern such as ``"(..., N, M)"``.

    Sizes given by keyword must match: ``shape("keys", keys, "(..., N, M)", M=5)``. A leading
    ``...`` stands for any number of dimensions.
    """
    names = rule.strip("()").replace(" ", "").rstrip(",").split(",")
    free = names[0] == "..."
    names = names[free:]
    fits = value.ndim >= len(names) if free else value.ndim == len(names)
    offset = value.ndim - len(names)
    if fits and all(
        value.shape[offset + i] == sizes.get(n, value.shape[offset + i])
        for i, n in enumerate(names)
    ):
        return
    given = [f"{n} = {sizes[n]}" for n in names if n in sizes]
    where = f" with {', '.join(given)}" if given else ""
    raise ValueError(f"{name} must have shape {rule}{where}; got {tuple(value.shape)}")


def rows(name: str, value: Tensor, rule: str, held: int, **sizes: int) -> None:
    """Refuse a `shape` whose B is not that of a memory; one row serves any number of rows."""
    shape(name, value, rule, **sizes if held == 1 else {"B": held} | sizes)


def together(**tensors: Tensor | None) -> None:
    """Refuse tensors on different devices."""
    named = [(n, t) for n, t in tensors.items() if t is not None]
    first_name, first = named[0]
    for name, value in named[1:]:
        if value.device != first.device:
            raise ValueError(
                f"{name} must be on the device of {first_name}, {first.device}; got {value.device}"
            )


def alike(**tensors: Tensor | None) -> None:
    """Refuse tensors of different dtype (autocast aside) or device."""
    together(**tensors)
    named = [(n, t) for n, t in tensors.items() if t is not None]
    first_name, first = named[0]
    for name, value in named[1:]:
        if value.dtype != first.dtype and not torch.is_autocast_enabled(first.device.type):
            raise TypeError(
                f"{name} must have the dtype of {first_name}, {first.dtype}; got {value.dtype}"
            )


def leading(**tensors: tuple[Tensor | None, int]) -> torch.Size:
    """Refuse leading dimensions that do not broadcast; returns their common shape.

    Each tensor comes with the number of its own trailing dimensions:
    ``leading(query=(query, 2), keys=(keys, 2))``.
    """
    shapes = {n: t.shape[: t.ndim - k] for n, (t, k) in tensors.items() if t is not None}
    try:
        return broadcast(*shapes.values())
    except RuntimeError:
        got = ", ".join(f"{n} {tuple(s)}" for n, s in shapes.items())
        names = ", ".join(shapes)
        raise ValueError(f"leading dimensions of {names} must broadcast; got {got}") from None


def broadcast(*shapes: torch.Size) -> torch.Size:
    """Return the shape that `shapes` broadcast to; quick where they are equal."""
    if all(shape == shapes[0] for shape in shapes[1:]):
        return shapes[0]
    return torch.Size(torch.broadcast_shapes(*shapes))


def mask(value: object, scores: Sequence[int], device: torch.device) -> None:
    """Refuse a mask that is not bool or does not fit scores of shape (..., L, N)."""
    if not isinstance(value, Tensor):
        raise TypeError(f"mask must be a torch.Tensor; got {type(value).__name__}")
    if value.dtype != torch.bool:
        raise TypeError(f"mask must have dtype torch.bool (True = may be read); got {value.dtype}")
    if value.device != device:
        raise ValueError(f"mask must be on the device of query, {device}; got {value.device}")
    fits("mask", value, scores, "scores of shape")


def fits(name: str, value: Tensor, to: Sequence[int], rule: str) -> None:
    """Refuse a tensor that does not broadcast, right-aligned, to a shape that stays as it is."""
    shape = value.shape
    late = to[len(to) - len(shape) :]
    if len(shape) > len(to) or any(s not in (1, t) for s, t in zip(shape, late, strict=True)):
        raise ValueError(f"{name} must broadcast to {rule} {tuple(to)}; got {tuple(shape)}")


def number(name: str, value: object, low: float, high: float = math.inf) -> float:
    """Refuse anything but a finite number in [low, high]; returns Python's own of it."""
    value = _plain(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number; got {type(value).__name__}")
    if not (low <= value <= high and abs(value) <= sys.float_info.max):
        rule = f" and at least {low:g}" if high == math.inf else f" and in [{low:g}, {high:g}]"
        raise ValueError(f"{name} must be finite{rule * (low > -math.inf)}; got {value}")
    return value


def integer(name: str, value: object, low: int, high: float = math.inf) -> int:
    """Refuse anything but an integer in [low, high]; returns Python's own of it."""
    value = _plain(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer; got {type(value).__name__}")
    if not low <= value <= high:
        rule = f"at least {low}" if high == math.inf else f"in [{low}, {high}]"
        raise ValueError(f"{name} must be {rule}; got {value}")
    return value


def power_of_two(name: str, value: object) -> int:
    """Refuse anything but 1, 2, 4 and so on; returns Python's own number."""
    value = integer(name, value, 1)
    if value & (value - 1):
        raise ValueError(f"{name} must be a power of two; got {value}")
    return value


def _plain(value: object) -> object:
    """Return Python's own number of numpy's, which is stored and shown in its place."""
    if isinstance(value, np.integer):
        return int(value)
    return float(value) if isinstance(value, np.floating) else value


def choice(name: str, value: object, allowed: Sequence[str]) -> None:
    """Refuse anything but one of the `allowed` words."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {value!r}")


def one_each(
    name: str, value: object, rows: Sequence[int], like: Tensor, low: float, high: float = math.inf
) -> float | Tensor:
    """Refuse a gate that is neither a number in [low, high] nor a tensor of them, one a row.

    Returns it, a number as Python's own.
    """
    if not isinstance(value, Tensor):
        return number(name, value, low, high)
    tensor(name, value)
    alike(**{"its memory": like, name: value})
    fits(name, value, rows, "shape")
    within(name, value, low, high)
    return value


def within(name: str, value: Tensor, low: float, high: float = math.inf) -> None:
    """Refuse an eager tensor with a value outside [low, high]; NaN is left to `finite`."""
    outside = (value < low) | (value > high)
    if anywhere(outside):
        rule = f"at least {low:g}" if high == math.inf else f"in [{low:g}, {high:g}]"
        raise ValueError(f"{name} must be {rule}; got {value[outside][0]:g}")


def differ(name: str, ids: Tensor, where: str) -> None:
    """Check that ids (..., K) differ among the last K; those below 0 are none."""
    order = ids.sort(dim=-1).values
    twice = (order[..., 1:] == order[..., :-1]) & (order[..., 1:] >= 0)
    if anywhere(twice):
        raise ValueError(f"{name} must differ {where}; got {int(order[..., 1:][twice][0])} twice")


def has_nan(value: Tensor) -> bool:
    """Whether an eager tensor holds NaN; False where values may not be looked at."""
    # the difference of two infinities is NaN, too
    return math.isnan(_total(value)) and anywhere(value.isnan())


def anywhere(condition: Tensor) -> bool:
    """Whether an eager condition holds anywhere; False where values may not be looked at."""
    if unseen(condition):
        return False
    try:
        return bool(condition.any() if condition.ndim else condition)
    except RuntimeError:  # vmap forbids looking at values
        return False


def unseen(value: Tensor) -> bool:
    """Whether values may not be looked at: while compiling or captured, and on meta."""
    return torch.compiler.is_compiling() or value.is_meta or captured(value)


def captured(value: Tensor) -> bool:
    """Whether a CUDA graph is being captured, during which the host may not wait for values."""
    return value.is_cuda and torch.cuda.is_current_stream_capturing()


def finite(result: Tensor, **inputs: Tensor | float | None) -> None:
    """Refuse a result that holds NaN, or infinity from finite inputs; names what brought it."""
    if math.isfinite(_total(result)):
        return
    nan = anywhere(result.isnan())
    if not nan and not anywhere(result.isinf()):  # the sum alone overflowed
        return
    for bad, test in (("NaN", torch.isnan), ("infinity", torch.isinf)):
        for name, value in inputs.items():
            found = test(value).nonzero().tolist() if isinstance(value, Tensor) else []
            if found and nan:
                index = tuple(found[0])
                raise ValueError(f"{name} must be finite where it is read; got {bad} at {index}")
            if found:  # and so is what came of it
                return
    raise ValueError(
        f"{', '.join(inputs)} must be small enough for {result.dtype}; "
        f"the result overflowed to {'NaN' if nan else 'infinity'}"
    )


def _total(value: Tensor) -> float:
    """Return the sum of an eager tensor, the cheapest pass that NaN and infinity both show in."""
    if unseen(value):
        return 0.0
    kind = torch.float32 if value.dtype in (torch.float16, torch.bfloat16) else None
    try:
        return value.sum(dtype=kind).item()
    except RuntimeError:  # vmap forbids looking at values
        return 0.0


def largest(value: Tensor) -> float:
    """Return the size of the largest number; 0 where there is none, or none may be looked at."""
    if unseen(value) or not value.numel():
        return 0.0
    try:
        low, high = value.detach().aminmax()
        return max(-low.item(), high.item())
    except RuntimeError:  # a tensor without values
        return 0.0
