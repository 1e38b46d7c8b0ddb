"""Checkers that say what is wrong with an answer: one module a chapter, one function an exercise.

In a notebook: `from memlib.teaching import exercises as ex`, then `ex.key_value.nearest_slot(f)`.
The machinery here: `check` judges a function on fixed cases, `compare` judges a value; both look
for known mistakes first. `@exercise` turns a function that returns their verdict into a checker,
which prints the verdict and raises nothing, whatever the reader's code does.
"""

import functools
import importlib
import inspect
import pkgutil
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Verdict", "check", "compare", "exercise"]

UNWRITTEN = "not written yet: "
COLUMNS = 72  # that a page and a notebook show without scrolling


@dataclass(frozen=True)
class Verdict:
    """What a checker says.

    Attributes:
        ok: Whether the answer is right.
        message: What is right, or what is wrong and a hint.
    """

    ok: bool
    message: str

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        lines = f"{'✓' if self.ok else '✗'} {self.message}".splitlines()
        return "\n".join(textwrap.fill(line, COLUMNS, subsequent_indent="  ") for line in lines)

    __repr__ = __str__

    def _ipython_display_(self) -> None:
        """Show nothing: the checker has printed the verdict already."""


def __getattr__(name: str) -> Any:
    """Import a chapter's checkers when they are first asked for: `exercises.key_value`."""
    if name in {module.name for module in pkgutil.iter_modules(__path__)}:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def exercise(checker: Callable[..., Verdict]) -> Callable[..., Verdict]:
    """Make a checker: print the verdict and return it; turn every exception into a verdict."""

    @functools.wraps(checker)
    def checked(*answer: Any, **options: Any) -> Verdict:
        try:
            verdict = checker(*answer, **options)
        except NotImplementedError as error:
            verdict = Verdict(False, UNWRITTEN + (str(error) or "replace the `raise` by your code"))
        except Exception as error:
            verdict = Verdict(False, f"your answer could not be checked: {_named(error)}")
        print(verdict)
        return verdict

    return checked


def check(
    answer: Any,
    reference: Callable[..., Any],
    cases: Sequence[Sequence[Any]],
    *,
    mistakes: Mapping[str, Callable[..., Any]] | None = None,
    praise: str = "right on every case.",
    atol: float = 1e-5,
    rtol: float = 1e-4,
) -> Verdict:
    """Judge a reader's function: it must agree with the reference on every case.

    Args:
        answer: The reader's function.
        reference: The right function.
        cases: Tuples of arguments; each call gets copies of the tensors and arrays.
        mistakes: Functions that err in a known way, by what to tell whoever errs so. A mistake is
            named when it agrees with the answer on every case.
        praise: The message when all is right.
        atol: Absolute tolerance.
        rtol: Relative tolerance.
    """
    if answer is None or answer is ...:
        return Verdict(False, UNWRITTEN + "write the function, then check it")
    if not callable(answer):
        return Verdict(False, f"a function was expected; got {_describe(answer)}")
    names = list(inspect.signature(reference).parameters)
    results = []
    for case in cases:
        given = [_copy(argument) for argument in case]
        where = f"with {_call(names, case)}"
        try:
            results.append(answer(*given))
        except NotImplementedError as error:
            return Verdict(False, UNWRITTEN + (str(error) or "replace the `raise` by your code"))
        except Exception as error:
            return Verdict(False, f"{where}, your function raised {_named(error)}")
        if results[-1] is None or results[-1] is ...:
            return Verdict(False, UNWRITTEN + f"{where}, it returned {results[-1]} (no `return`?)")
        for name, before, after in zip(names, case, given, strict=False):
            if not _close(after, before, 0, 0):
                return Verdict(False, f"{where}, your function changed its input {name}: copy it")
    wanted = [reference(*[_copy(argument) for argument in case]) for case in cases]
    wrong = [i for i in range(len(cases)) if not _close(results[i], wanted[i], atol, rtol)]
    if not wrong:
        return Verdict(True, praise)
    for hint, mistake in (mistakes or {}).items():
        if all(
            _close(result, _attempt(mistake, case), atol, rtol)
            for result, case in zip(results, cases, strict=True)
        ):
            return Verdict(False, hint)
    first = wrong[0]
    return Verdict(
        False, f"with {_call(names, cases[first])}, {_difference(results[first], wanted[first])}"
    )


def compare(
    answer: Any,
    expected: Any,
    *,
    mistakes: Mapping[str, Any] | None = None,
    praise: str = "right.",
    atol: float = 1e-5,
    rtol: float = 1e-4,
) -> Verdict:
    """Judge a value (number, text, array, tensor or tuple of them) as `check` judges a function.

    Args:
        answer: The reader's value.
        expected: The right value.
        mistakes: Wrong values, by what to tell whoever gets them.
        praise: The message when it is right.
        atol: Absolute tolerance.
        rtol: Relative tolerance.
    """
    if answer is None or answer is ...:
        return Verdict(False, UNWRITTEN + f"your answer is {answer}")
    if _close(answer, expected, atol, rtol):
        return Verdict(True, praise)
    for hint, value in (mistakes or {}).items():
        if _close(answer, value, atol, rtol):
            return Verdict(False, hint)
    return Verdict(False, _difference(answer, expected))


def _difference(answer: Any, expected: Any) -> str:
    """Say how an answer differs from what was expected: kind, shape, type or value."""
    if isinstance(expected, tuple | list):
        if not isinstance(answer, tuple | list) or len(answer) != len(expected):
            return f"{len(expected)} results were expected; got {_describe(answer)}"
        pairs = list(zip(answer, expected, strict=True))
        place = next(i for i, (a, b) in enumerate(pairs) if not _close(a, b, 1e-5, 1e-4))
        return f"result {place + 1} of {len(pairs)}: {_difference(*pairs[place])}"
    got, want = _array(answer), _array(expected)
    if got is None or want is None or got.dtype.kind in "OUS" or want.dtype.kind in "OUS":
        if type(answer) is type(expected):
            return f"{answer!r} is not right"
        return f"{_describe(expected)} was expected; got {_describe(answer)}"
    if got.shape != want.shape:
        return f"the shape must be {want.shape}; got {got.shape}"
    if (want.dtype.kind == "b") != (got.dtype.kind == "b"):
        return f"the dtype must be {want.dtype}; got {got.dtype}"
    if not np.isfinite(got).all() and np.isfinite(want).all():
        return "the result holds NaN or infinity"
    off = np.abs(got.astype(float) - want.astype(float))
    if off.ndim == 0:
        return f"{got:.6g} is not right"
    worst = tuple(int(i) for i in np.unravel_index(np.nanargmax(off), off.shape))
    return f"the value at {list(worst)} must be {want[worst]:.4g}; got {got[worst]:.4g}"


def _close(answer: Any, expected: Any, atol: float, rtol: float) -> bool:
    """Return whether two values are of one shape and kind and as good as equal; never raise."""
    if isinstance(expected, tuple | list) and isinstance(answer, tuple | list):
        return len(answer) == len(expected) and all(
            _close(a, b, atol, rtol) for a, b in zip(answer, expected, strict=True)
        )
    got, want = _array(answer), _array(expected)
    try:
        if got is None or want is None or got.dtype.kind in "OUS" or want.dtype.kind in "OUS":
            return answer is expected or bool(answer == expected)
        if got.shape != want.shape or (got.dtype.kind == "b") != (want.dtype.kind == "b"):
            return False
        return bool(np.allclose(got, want, atol=atol, rtol=rtol, equal_nan=True))
    except Exception:
        return False


def _array(value: Any) -> Any:
    """Return a number, array or tensor as an array; None for what is none of these."""
    try:
        if hasattr(value, "detach"):
            value = value.detach().cpu()
            value = value.double().numpy() if value.is_floating_point() else value.numpy()
        return np.asarray(value)
    except Exception:
        return None


def _attempt(mistake: Callable[..., Any], case: Sequence[Any]) -> Any:
    try:
        return mistake(*[_copy(argument) for argument in case])
    except Exception:
        return None


def _copy(value: Any) -> Any:
    if hasattr(value, "clone"):
        return value.clone()
    return value.copy() if hasattr(value, "copy") else value


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _call(names: Sequence[str], case: Sequence[Any]) -> str:
    pairs = zip(names, case, strict=False)
    return ", ".join(f"{name} {_describe(argument)}" for name, argument in pairs) or "no arguments"


def _describe(value: Any) -> str:
    """Return a short name of a value: its shape, or itself if it is small."""
    if hasattr(value, "shape"):
        return f"of shape {tuple(value.shape)}"
    if isinstance(value, bool | int | float | str):
        return repr(value)
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"
