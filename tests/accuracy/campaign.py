"""One example after the other: called, compared with float64, and if it fails, made small."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import draws, gates, layers, machines, matrices, memories, table, truth, verbs
from .bounds import BOUNDS, GRADIENT
from .draws import DTYPES, LARGE, Tensors

ROOMS = (
    verbs,
    memories,
    gates,
    machines,
    layers,
    matrices,
)  # each enters its functions into the table
RANGE = 1e36  # a number on the way from which on a call may refuse
NARROW = 1e3  # an argument from which on the layers of a module may leave float16
COUNT = 40  # examples of each function and dtype in the fixed draw
SMALL = 80  # numbers that an example may have to be printed
COMPARED = ("query", "keys", "key", "memory")
SHARES = ("weights", "content", "previous", "shift", "usage")


@dataclass(frozen=True)
class Example:
    """One call of one function.

    Attributes:
        name: of the function.
        dtype: "float32" and so on.
        tensors: of the dtype (masks bool, tokens int64).
        options: its other arguments.
        source: how to make it again.
    """

    name: str
    dtype: str
    tensors: Tensors
    options: dict[str, Any] = field(default_factory=dict)
    source: str = ""

    @property
    def known(self) -> dict[str, Any]:
        """The options, and the dtype, by which a formula knows how far to look around."""
        return self.options | {"dtype": self.dtype}

    def __str__(self) -> str:
        numbers = sum(x.numel() for x in self.tensors.values())
        if numbers > SMALL:
            return self.source
        given = [f"{n}={x.tolist()}" for n, x in self.tensors.items()]
        given += [f"{n}={value!r}" for n, value in self.options.items()]
        return f'given("{self.name}", "{self.dtype}", {", ".join(given)}),'


def drawn(name: str, dtype: str, seed: int) -> Example:
    """The example that a seed stands for."""
    subject = table.SUBJECTS[name]
    rng = draws.random(name + dtype, seed)
    letters = set(" ".join(subject.shapes.values()).split()) or set(draws.COUNTS)
    tensors, options = subject.draw(rng, dtype, draws.sizes(rng, letters))
    tensors = draws.restride(tensors, str(rng.choice(draws.STRIDES)))
    return Example(name, dtype, tensors, options, f'drawn("{name}", "{dtype}", {seed}),')


def given(name: str, dtype: str, **arguments: Any) -> Example:
    """The example with these tensors, as nested lists, and options."""
    shapes = table.SUBJECTS[name].shapes
    tensors, options = {}, {}
    for key, value in arguments.items():
        if key in shapes and isinstance(value, list):
            x = torch.as_tensor(value)
            tensors[key] = x.to(DTYPES[dtype]) if x.is_floating_point() else x
        else:
            options[key] = value
    return Example(name, dtype, tensors, options, f"{name} {arguments}")


class Error(NamedTuple):
    """How far one number is off, as a multiple of what is allowed."""

    ratio: float
    said: str


def judge(example: Example, gradients: bool = True) -> list[Error]:
    """Call, and compare each result and gradient with float64."""
    subject, options = table.SUBJECTS[example.name], example.known
    exact = {
        n: x.detach().double().requires_grad_(n not in subject.constant)
        if x.is_floating_point()
        else x
        for n, x in example.tensors.items()
    }
    arguments = {
        n: x.detach().as_strided(x.shape, x.stride()).requires_grad_(exact[n].requires_grad)
        for n, x in example.tensors.items()
    }
    try:
        with threads(example):
            got = subject.call(arguments, example.options)
    except (ValueError, FloatingPointError) as refusal:
        return [refused(example, subject.truth(exact, options, None), refusal)]
    plain = [x.detach().double() if x.is_floating_point() else x for x in got]
    told = subject.truth(exact, options, plain)
    errors = [Error(math.inf, said) for said in told.wrong]
    for i, (found, wanted) in enumerate(zip(got, told.results, strict=False)):
        errors += compare(found, wanted, example, f"result {i}")
    if gradients and all(e.ratio <= 1 for e in errors):
        errors += slopes(example, arguments, exact, got, told)
    return errors


@contextlib.contextmanager
def threads(example: Example) -> Iterator[None]:
    """Two where a read is large enough to be split, else one."""
    before = torch.get_num_threads()
    large = any(LARGE in x.shape for x in example.tensors.values())
    torch.set_num_threads(2 if large else 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def refused(example: Example, told: truth.Truth, refusal: Exception) -> Error:
    """An error is right only where numbers are beyond the dtype, or on the way beyond float32."""
    most = torch.finfo(DTYPES[example.dtype]).max
    beyond = any((r.value.abs() >= most * 0.98).any() for r in told.results)
    narrow = BOUNDS[example.name].module and example.dtype == "float16"
    beyond = beyond or told.largest >= (NARROW if narrow else RANGE)
    if beyond and "must" in str(refusal) and "float" in str(refusal):
        return Error(0.0, "refused")
    return Error(math.inf, f"refused without need: {refusal}")


def compare(found: Tensor, wanted: truth.Expected, example: Example, what: str) -> list[Error]:
    """Hold one result against the one in float64."""
    number, bound = torch.finfo(DTYPES[example.dtype]), BOUNDS[example.name]
    if found.dtype != DTYPES[example.dtype] or found.shape != wanted.value.shape:
        return [Error(math.inf, f"{what} is {found.dtype} {tuple(found.shape)}")]
    limit = getattr(bound, example.dtype)
    reach = torch.as_tensor(wanted.reach, dtype=torch.float64)
    if bound.module:
        allowed = limit * (1 + reach)
    else:
        grown = (truth.ROUNDING * reach).expm1() + number.eps  # and rounded at the end
        allowed = grown.clamp_min(limit)
    value, got = wanted.value.detach(), found.detach().double()
    grain = wanted.grain * number.smallest_normal * number.eps + wanted.slack
    if example.dtype == "bfloat16":  # PyTorch's products of matrices flush what is denormal
        grain = grain + 2 * number.smallest_normal
    off = (got - value).abs() - grain
    ratio = off.clamp_min(0) / (wanted.size * allowed).clamp_min(1e-300)
    # what the dtype cannot hold may be infinite
    beyond = (value.abs() + wanted.size * allowed) >= number.max
    ratio = torch.where(beyond & (got.abs() >= number.max * 0.98), 0.0, ratio)
    ratio = torch.where((got == value) | (off <= 0), 0.0, ratio)
    ratio = torch.where(got.isnan(), math.inf, ratio)
    unknown = value.isnan() | (wanted.size * allowed).isnan()  # no number is right there
    ratio = torch.where(unknown, 0.0, ratio)
    errors = [worst(ratio, got, value, what)]
    if wanted.kind and got.numel():
        parts, right = (got, value) if wanted.kind == "weights" else (got.exp(), value.exp())
        spared = got.shape[-1] * number.smallest_normal
        size = 1.0 if wanted.kind == "weights" else 1 - (right * value.clamp_min(-1e9)).sum(-1)
        off_by = (parts.sum(-1) - right.sum(-1)).abs() - spared
        # float64 itself does not hold the sum of weights of scores so large
        inexact = 1e-15 * float(reach.max()) if reach.numel() else 0.0
        errors.append(
            Error(float((off_by / ((limit + inexact) * size)).max()), f"{what}: a sum is off")
        )
        below = bool((parts < 0).any())
        errors.append(Error(math.inf if below else 0.0, f"{what}: a weight below 0"))
    return errors


def worst(ratio: Tensor, got: Tensor, value: Tensor, what: str) -> Error:
    """The number that is off the most."""
    if not ratio.numel():
        return Error(0.0, what)
    at = int(ratio.nan_to_num(nan=math.inf).argmax())
    place = tuple(int(i) for i in torch.unravel_index(torch.tensor(at), ratio.shape))
    said = f"{what} at {place}: got {float(got.flatten()[at]):.9g}"
    said += f", right {float(value.flatten()[at]):.9g}"
    most = float(ratio.flatten()[at])
    return Error(math.inf if math.isnan(most) else most, said)


def slopes(
    example: Example,
    arguments: Tensors,
    exact: Tensors,
    got: Sequence[Tensor],
    told: truth.Truth,
) -> list[Error]:
    """Hold the gradients of a weighed sum of the results against those in float64."""
    both = list(zip(got, told.results, strict=False))
    which = [i for i, (x, y) in enumerate(both) if x.requires_grad and y.value.requires_grad]
    pairs = [both[i] for i in which]
    if not pairs:
        return []
    rng = torch.Generator().manual_seed(len(example.source))
    dtype = DTYPES[example.dtype]
    weighed = [
        torch.randn(x.shape, generator=rng).to(dtype).masked_fill(~x.detach().isfinite(), 0)
        for x, _ in pairs
    ]
    names = [n for n, x in arguments.items() if x.requires_grad]
    ours = torch.autograd.grad(
        [x for x, _ in pairs], [arguments[n] for n in names], weighed, allow_unused=True
    )
    right = torch.autograd.grad(
        [x.value for _, x in pairs], [exact[n] for n in names],
        [g.double() for g in weighed], allow_unused=True,
    )  # fmt: skip
    wide = [g.double() for g in weighed]
    reach = max(float(torch.as_tensor(w.reach).max()) for _, w in pairs)
    reach = max(reach, told.reach)
    parts = [(g.abs() * w.size).sum(-1) for g, (_, w) in zip(wide, pairs, strict=True)]
    loud = max(float(part.max()) if part.numel() else 0.0 for part in parts)
    if told.slopes:
        sizes = told.slopes(wide)
    else:
        floor = loud * (1 + reach)
        sizes = moved(example, {n: exact[n] for n in names}, right, wide, which, floor)
    bound = BOUNDS[example.name]
    each = 2 if bound.module else 1  # a layer rounds more than once on the way back
    limit = each * GRADIENT[example.dtype] + 10 * math.expm1(min(truth.ROUNDING * reach, 50))
    number = torch.finfo(dtype)
    errors = []
    for name, our, true in zip(names, ours, right, strict=True):
        if true is None or not true.isfinite().all():
            continue
        our = torch.zeros_like(arguments[name]) if our is None else our
        size = sizes[name].broadcast_to(true.shape)
        spared = max(100 * number.smallest_normal * number.eps, 100 * truth.TINY)
        off = (our.double() - true).abs() - spared
        ratio = off.clamp_min(0) / (limit * size).clamp_min(1e-300)
        ratio = torch.where(off <= 0, 0.0, ratio)
        # what leads to it may be beyond float32, even where a strength of 0 hides that
        narrow = bound.module and example.dtype == "float16"
        beyond = told.largest * loud >= RANGE or (narrow and told.largest >= NARROW)
        lost = 0.0 if beyond else math.inf
        ratio = torch.where(our.isfinite(), ratio, lost)
        ratio = torch.where(size.isnan() | (size >= number.max / 1e3), 0.0, ratio)  # cannot be held
        ratio = torch.where(free(example, name, arguments[name]) & our.isfinite(), 0.0, ratio)
        errors.append(worst(ratio, our.double(), true, f"gradient by {name}"))
    return errors


def free(example: Example, name: str, x: Tensor) -> Tensor:
    """Where any finite gradient will do: none is right, or float32 cannot hold what leads to it."""
    if name in COMPARED and example.options.get("measure", "cosine") == "cosine":
        return (x == 0).all(-1, keepdim=True)  # a vector of zeros has no direction
    faint = [float(example.tensors[n].abs().max()) for n in COMPARED if n in example.tensors]
    if name in COMPARED and max(faint) < 100 * truth.TINY:
        return torch.ones((), dtype=torch.bool)
    sharp = example.tensors.get("sharpening")
    if example.name == "locate" and bool((sharp < 1.5).any()):
        return torch.ones((), dtype=torch.bool)  # near γ = 1 a weight too small to hold has a slope
    if name in SHARES:
        return x.abs() < truth.TINY
    return torch.zeros((), dtype=torch.bool)


def moved(
    example: Example,
    exact: Tensors,
    right: Sequence[Tensor | None],
    weighed: Sequence[Tensor],
    which: Sequence[int],
    floor: float,
) -> Tensors:
    """What gradients are relative to where no formula says it.

    That is the largest of its tensor, and how far rounding each argument would move it.
    """
    subject = table.SUBJECTS[example.name]
    module = BOUNDS[example.name].module
    eps = 3 * torch.finfo(DTYPES[example.dtype]).eps if module else torch.finfo(torch.float32).eps
    rounding = 10 * eps / GRADIENT[example.dtype]
    rng = torch.Generator().manual_seed(1)
    step = 1e-6
    sizes = {}
    for name, x in exact.items():
        large = x.detach().abs()
        large = large.amax(-1, keepdim=True) if x.ndim and x.numel() else large
        per = torch.where(large > 1e3, large, large.clamp(1e-37, 1.0))
        sizes[name] = (rounding * floor / per).expand(x.shape)
    for _ in range(2):
        near = {
            n: x.detach().double() if x.is_floating_point() else x
            for n, x in example.tensors.items()
        }
        for name, x in exact.items():
            sign = torch.randint(0, 2, x.shape, generator=rng) * 2 - 1
            near[name] = (x.detach() * (1 + step * sign)).clamp(*span(x)).requires_grad_()
        told = subject.truth(near, example.known, None)
        results = [told.results[i].value for i in which]
        there = torch.autograd.grad(
            results, [near[n] for n in exact], list(weighed), allow_unused=True
        )
        for name, a, b in zip(exact, right, there, strict=True):
            if a is not None and b is not None and a.numel():
                size = float(a.abs().max()) + rounding * float((a - b).abs().max()) / step
                sizes[name] = sizes[name].clamp_min(size if math.isfinite(size) else math.inf)
    return sizes


def span(x: Tensor) -> tuple[float, float]:
    """What an argument of this kind may be: what lies in [0, 1] stays there."""
    inside = x.numel() and x.detach().amin() >= 0 and x.detach().amax() <= 1
    return (0.0, 1.0) if inside else (-math.inf, math.inf)


def failing(example: Example) -> Error | None:
    """The worst of what is wrong with an example; None if all is right."""
    error = max(judge(example), key=lambda e: e.ratio)
    return error if error.ratio > 1 else None


def shrink(example: Example) -> Example:
    """A smaller example that fails too; the sizes of a module stay."""
    shapes = table.SUBJECTS[example.name].shapes
    again = bool(shapes)
    while again:
        again = False
        for letter, size in table.SUBJECTS[example.name].sizes(example.tensors).items():
            half = size // 2
            for start, end in ((0, half), (half, size)) if half else ():
                smaller = cut(example, shapes, letter, start, end)
                if smaller is not None and _fails(smaller):
                    example, again = smaller, True
                    break
    return example


def cut(example: Example, shapes: dict[str, str], letter: str, start: int, end: int) -> Any:
    """The same example with a part of one size."""
    tensors = {}
    for name, x in example.tensors.items():
        letters = shapes[name].split()
        letters = letters[len(letters) - x.ndim :]
        if letter in letters:
            dim = letters.index(letter)
            x = x.narrow(dim, start, end - start) if x.shape[dim] > 1 else x
        tensors[name] = x.clone()
    if letter == "N" and "lengths" in tensors:
        tensors["lengths"] = tensors["lengths"].clamp(max=end - start)
    if letter == "U":
        tensors["tokens"] = tensors["tokens"] % (end - start)
    options = dict(example.options)
    for k in {"top_k", "k"} & options.keys():
        options[k] = min(options[k], end - start) if letter == "N" else options[k]
    size = {key: x.shape[-1] for key, x in tensors.items()}
    if "shift" in size and (size["shift"] % 2 == 0 or size["shift"] > size.get("previous", 9e9)):
        return None
    return replace(example, tensors=tensors, options=options)


def _fails(example: Example) -> bool:
    try:
        return failing(example) is not None
    except (RuntimeError, TypeError, IndexError):
        return False


def examples(name: str, dtype: str, seed: int, count: int | None = None) -> Iterator[Example]:
    """Examples without end, or as many as are wanted."""
    number = 0
    while count is None or number < count:
        yield drawn(name, dtype, seed * 1_000_000 + number)
        number += 1


def each() -> list[tuple[str, str]]:
    """Every function with every dtype of its results, room by room."""
    subjects = [s for room in ROOMS for s in table.SUBJECTS.values() if s.room == room.__name__]
    return [(s.name, dtype) for s in subjects for dtype in s.dtypes]


def count(name: str) -> int:
    """How many examples the fixed draw has of a function: in all they take about a minute."""
    return COUNT // 2 if BOUNDS[name].module else COUNT


def report(example: Example, error: Error) -> str:
    """What is wrong, and the line to paste into `found`."""
    return f"{error.said} ({error.ratio:.3g} times what is allowed)\n    {example}"
