"""What a type checker tells a builder: right uses have their types, wrong ones are found."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typed import uses

import memlib

ROOT = Path(__file__).parents[1]
FOLDER = Path(__file__).parent / "typed"


@pytest.fixture(scope="module")
def complaints():
    """The lines that mypy complains about, by file."""
    pytest.importorskip("mypy")
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(FOLDER)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert not run.stderr, run.stderr
    found = re.findall(r"(\w+\.py):(\d+): error: (.*)", run.stdout)
    assert run.stdout == "" or found, run.stdout
    return {
        name: {int(line): said for file, line, said in found if file == name}
        for name in ("uses.py", "misuses.py")
    }


@pytest.mark.slow
def test_right_uses_have_their_types(complaints):
    assert complaints["uses.py"] == {}


@pytest.mark.slow
def test_wrong_uses_are_found_and_nothing_else(complaints):
    text = (FOLDER / "misuses.py").read_text(encoding="utf-8")
    wrong = {n for n, line in enumerate(text.splitlines(), 1) if line.endswith("# wrong")}
    assert set(complaints["misuses.py"]) == wrong


USES = [f for f in vars(uses).values() if getattr(f, "__module__", "") == uses.__name__]


@pytest.mark.parametrize("function", USES, ids=lambda function: function.__name__)
@pytest.mark.parametrize("wanted", [True, False])
def test_right_uses_work(function, wanted, tmp_path):
    options = {"wanted": wanted, "path": tmp_path / "store"}
    with torch.no_grad():
        function(**{n: options[n] for n in inspect.signature(function).parameters})


def test_everything_public_is_used():
    text = (FOLDER / "uses.py").read_text(encoding="utf-8").partition("def verbs")[2]
    assert [name for name in memlib.__all__ if not re.search(rf"\b{name}\b", text)] == []
