"""memlib as a builder gets it: a wheel that needs torch and numpy alone, and imports fast."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import sites

HEAVY = {"matplotlib", "IPython", "sklearn", "faiss", "tqdm", "pandas", "jupyterquiz", "scipy"}
LARGEST = 5_000_000  # bytes of the wheel


def names(wheel: Path) -> list[str]:
    return zipfile.ZipFile(wheel).namelist()


def test_wheel_holds_memlib_alone(wheel: Path) -> None:
    assert {name.split("/")[0].partition("-")[0] for name in names(wheel)} == {"memlib"}
    assert "memlib/py.typed" in names(wheel)
    assert not [name for name in names(wheel) if "__pycache__" in name]
    assert of_tests(names(wheel)) == []


def of_tests(names: list[str]) -> list[str]:
    """Those names that are of tests."""
    return [name for name in names if re.search(r"(^|/)(conftest|tests?|test_\w+)(\.py|/)", name)]


def test_a_test_in_the_wheel_would_be_found() -> None:
    bad = [
        "memlib/tests/cases.py",
        "memlib/test_ntm.py",
        "tests/reference.py",
        "memlib/conftest.py",
    ]
    assert of_tests([*bad, "memlib/attention.py", "memlib/test_your_understanding.json"]) == bad


def test_wheel_brings_the_quizzes_and_the_records_and_stays_small(wheel: Path) -> None:
    for folder in ("results", "book/quizzes"):
        stored = {f"{Path(folder).name}/{path.name}" for path in (sites.ROOT / folder).iterdir()}
        assert {f"memlib/teaching/data/{name}" for name in stored} <= set(names(wheel))
    assert wheel.stat().st_size < LARGEST


def test_wheel_brings_what_the_page_runs(wheel: Path) -> None:
    explore = sites.ROOT / "memlib/teaching/explore"
    stored = [*explore.rglob("*.js"), *explore.rglob("*.css")]
    assert {p.relative_to(sites.ROOT).as_posix() for p in stored} <= set(names(wheel))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source archive, built from this folder."""
    folder = tmp_path_factory.mktemp("archive")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(folder)]
    subprocess.run(command, check=True, cwd=sites.ROOT, capture_output=True)
    return next(folder.glob("*.tar.gz"))


def test_the_source_archive_builds_the_same_wheel(
    archive: Path, wheel: Path, tmp_path: Path
) -> None:
    assert sites.build(archive, tmp_path).read_bytes() == wheel.read_bytes()


def run_tests(python: Path, folder: Path, *options: str) -> tuple[int, str]:
    """Runs pytest in a folder that sees nothing but itself and the environment of `python`."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PYTEST", "COV"))}
    command = [str(python), "-m", "pytest", "-q", "--color=no", *options]
    run = subprocess.run(command, cwd=folder, env=kept, capture_output=True, text=True)
    return run.returncode, run.stdout + run.stderr


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_tests_of_the_source_archive_run_from_it(archive: Path, tmp_path: Path) -> None:
    with tarfile.open(archive) as held:
        held.extractall(tmp_path, filter="data")
    folder = next(tmp_path.glob("memlib-*"))
    python = sites.make(tmp_path / "env", [*sites.LIBRARY, *sites.IMPORTED, *sites.TOOLS])
    code, said = run_tests(python, folder, "--collect-only")
    assert code == 0, said[-3000:]
    assert all(f"/test_{name}.py::" in said for name in ("ntm", "store", "teaching", "package"))
    names = ("test_saved.py", "test_checks.py", "key_value.py")
    cheap = [str(path) for name in names for path in folder.rglob(name)]
    code, said = run_tests(python, folder, "-m", "not slow", *cheap)
    assert code == 0, said[-3000:]
    (folder / "tests" / "reference.py").unlink()
    code, said = run_tests(python, folder, "--collect-only")
    assert code, "an archive without what its tests import would not be found"
    assert "No module named 'reference'" in said


def test_an_editable_install_copies_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel:editable"]
    subprocess.run([*command, "-d", str(tmp_path)], check=True, cwd=sites.ROOT, capture_output=True)
    held = names(next(tmp_path.glob("*.whl")))
    assert [name for name in held if name.startswith("memlib/")] == []


def test_wheel_imports_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    """Only torch, numpy and what they need can be seen."""
    python = sites.make(tmp_path, sites.LIBRARY, wheel)
    code = "import memlib; print(memlib.__file__)"
    run = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(str(tmp_path))


def test_import_brings_nothing_heavy() -> None:
    """How long it takes is measured by ``python -m benchmarks import_time``."""
    code = (
        "import torch, numpy, sys; before = set(sys.modules); import memlib;"
        "print(*sorted({m.partition('.')[0] for m in set(sys.modules) - before}))"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    modules = set(run.stdout.split())
    assert "memlib" in modules
    assert not modules & HEAVY
