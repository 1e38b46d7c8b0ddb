"""Every exercise checker is proven: the reference passes, typical mistakes fail with their hint.

The proofs of a chapter lie in `tests/exercises_<chapter>.py`:

    PROOFS = {"nearest_slot": Proof(right=solution, wrong={"part of the hint": mistake, ...})}
"""

import importlib
import importlib.util
import inspect
import pkgutil
from pathlib import Path

import pytest

from memlib.teaching import exercises

CHAPTERS = sorted(module.name for module in pkgutil.iter_modules(exercises.__path__))


def checkers(chapter):
    """Return the public checkers of a chapter, by name."""
    module = importlib.import_module(f"memlib.teaching.exercises.{chapter}")
    return {
        name: value
        for name, value in vars(module).items()
        if inspect.isfunction(value)
        and value.__module__ == module.__name__
        and not name.startswith("_")
        and hasattr(value, "__wrapped__")
    }


def proofs(chapter):
    """Return the proofs of a chapter: {exercise: (right, {hint: wrong})}."""
    path = Path(__file__).with_name(f"exercises_{chapter}.py")
    assert path.exists(), f"no proofs of the exercises in {chapter}: tests/{path.name} is missing"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.PROOFS


def all_proofs():
    return [
        pytest.param(chapter, name, id=f"{chapter}.{name}")
        for chapter in CHAPTERS
        for name in checkers(chapter)
    ]


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_checker_has_a_proof(chapter):
    assert set(checkers(chapter)) == set(proofs(chapter))
    assert checkers(chapter), f"{chapter} has no checkers"


@pytest.mark.parametrize(("chapter", "name"), all_proofs())
def test_reference_passes(chapter, name, capsys):
    right, _ = proofs(chapter)[name]
    verdict = checkers(chapter)[name](right)
    assert verdict.ok, verdict.message
    printed = capsys.readouterr().out
    assert printed == f"{verdict}\n"
    assert max(map(len, printed.splitlines())) <= 72


@pytest.mark.parametrize(("chapter", "name"), all_proofs())
def test_mistakes_get_their_hint(chapter, name):
    _, wrong = proofs(chapter)[name]
    assert len(wrong) >= 3, f"{name}: three typical mistakes at least; got {len(wrong)}"
    for hint, mistake in wrong.items():
        verdict = checkers(chapter)[name](mistake)
        assert not verdict.ok, f"{name} accepts a wrong answer ({hint})"
        assert hint in verdict.message
        assert max(map(len, str(verdict).splitlines())) <= 72


@pytest.mark.parametrize(("chapter", "name"), all_proofs())
def test_hints_differ(chapter, name):
    _, wrong = proofs(chapter)[name]
    said = [checkers(chapter)[name](mistake).message for mistake in wrong.values()]
    assert len(set(said)) == len(said), "two mistakes get the same hint"


@pytest.mark.parametrize(("chapter", "name"), all_proofs())
def test_unwritten_answers_are_named_so(chapter, name):
    def todo(*args, **kwargs):
        raise NotImplementedError

    for answer in (None, ..., todo) if callable(proofs(chapter)[name][0]) else (None, ...):
        verdict = checkers(chapter)[name](answer)
        assert not verdict.ok
        assert verdict.message.startswith("not written yet: ")


@pytest.mark.parametrize(("chapter", "name"), all_proofs())
@pytest.mark.parametrize("answer", [lambda *a, **k: 1 / 0, lambda: 3, "text", object()])
def test_nothing_a_reader_writes_raises(chapter, name, answer):
    verdict = checkers(chapter)[name](answer)
    assert not verdict.ok
    assert verdict.message
