"""memlib as a builder gets it: a wheel that needs torch and numpy alone, and imports fast."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
HEAVY = {"matplotlib", "IPython", "sklearn", "faiss", "tqdm", "pandas", "jupyterquiz", "scipy"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    command += ["--no-index", "--quiet", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True)
    return next(folder.glob("memlib-*.whl"))


def test_wheel_holds_memlib_alone(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"memlib"}
    assert "memlib/py.typed" in names
    assert not [name for name in names if "__pycache__" in name]


def closure(names: list[str]) -> set[str]:
    """The distributions that these need, and those that they need in turn."""
    found: set[str] = set()
    while names:
        name = names.pop()
        if name in found:
            continue
        found.add(name)
        needs = map(Requirement, distribution(name).requires or [])
        for need in needs:
            if not need.marker or need.marker.evaluate({"extra": ""}):
                names.append(need.name)
    return found


def test_wheel_imports_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    """Only torch, numpy and what they need can be seen: not even the standard site folder."""
    site = tmp_path / "site"
    site.mkdir()
    for name in closure(["torch", "numpy"]):
        files = distribution(name).files or []
        for top in {file.parts[0] for file in files if file.parts[0] not in ("..", "__pycache__")}:
            if not (site / top).exists():
                (site / top).symlink_to(Path(str(distribution(name).locate_file(top))))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "wheel")
    paths = [str(tmp_path / "wheel"), str(site)]
    code = f"import sys; sys.path[:0] = {paths}; import memlib; print(memlib.__file__)"
    command = [sys.executable, "-I", "-S", "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
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
