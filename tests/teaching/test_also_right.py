"""Checkers judge answers, not ways: a second right answer to each exercise passes, too.

They lie in `ALSO_RIGHT` of `tests/teaching/exercises_<chapter>.py`, where there is one.
"""

import importlib
import importlib.util
from pathlib import Path

import pytest

FILES = sorted(Path(__file__).parent.glob("exercises_*.py"))


def loaded(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def second_answers():
    for path in FILES:
        chapter = path.stem.removeprefix("exercises_")
        for name, answer in getattr(loaded(path), "ALSO_RIGHT", {}).items():
            yield pytest.param(chapter, name, answer, id=f"{chapter}.{name}")


@pytest.mark.parametrize(("chapter", "name", "answer"), [*second_answers()])
def test_another_right_answer_passes(chapter, name, answer):
    module = importlib.import_module(f"memlib.teaching.exercises.{chapter}")
    verdict = getattr(module, name)(answer)
    assert verdict.ok, verdict.message


@pytest.mark.parametrize(
    "chapter", ["content", "key_value", "addressable", "dnc", "models", "store"]
)
def test_every_exercise_has_one(chapter):
    module = loaded(Path(__file__).with_name(f"exercises_{chapter}.py"))
    assert set(module.ALSO_RIGHT) == set(module.PROOFS)
