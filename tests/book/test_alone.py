"""A notebook taken alone: an empty folder, the wheel, and what the chapters import.

One notebook here; all of them where the variable NIGHTLY is set.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import guard
import pytest
import setup_cell
import sites

BOOK = setup_cell.ROOT / "book"
NOTEBOOKS = [path.relative_to(BOOK).with_suffix("").as_posix() for path in setup_cell.stored()]
CHEAP = "models"  # it reads records and shows a quiz
SECONDS = 600  # a notebook takes one or two minutes; the machine may be busy


def run(command: Sequence[str | Path], folder: Path, **settings: str) -> tuple[int, str]:
    """Runs a command in a folder, in none of this process's settings of Python and Jupyter."""
    leaks = ("PYTHON", "JUPYTER", "IPYTHON", "MEMLIB", "MPL", "COLAB", "BINDER")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(leaks)}
    kept |= {"HOME": str(folder), "OMP_NUM_THREADS": "1", **settings}
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=kept, capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


def execute(name: str, python: Path, folder: Path) -> tuple[int, str]:
    """Executes a stored notebook in an empty folder, offline, with the kernel of an environment."""
    kernel = folder / "jupyter" / "kernels" / "alone"
    kernel.mkdir(parents=True)
    argv = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": argv, "display_name": "alone", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(spec))
    empty = folder / "empty"
    empty.mkdir()
    shutil.copy(BOOK / f"{name}.ipynb", empty)
    tool = Path(sys.executable).with_name("jupyter-execute")
    command = [*guard.without_network(), tool, "--kernel_name=alone", "--output=done", name]
    code, said = run(command, empty, JUPYTER_PATH=str(folder / "jupyter"))
    return code, said + "".join(path.read_text() for path in empty.glob("done*"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and what the chapters import, and nothing else."""
    folder = tmp_path_factory.mktemp("environment")
    return sites.make(folder, [*sites.LIBRARY, *sites.IMPORTED], wheel)


@pytest.mark.slow
@pytest.mark.timeout(SECONDS)
@pytest.mark.parametrize("name", NOTEBOOKS if os.environ.get("NIGHTLY") else [CHEAP])
def test_it_runs_to_its_end(name: str, python: Path, tmp_path: Path) -> None:
    code, said = execute(name, python, tmp_path)
    assert code == 0, said[-3000:]
    assert ("ml-quiz" in said) == ("teaching.quiz" in said)


@pytest.mark.slow
def test_without_the_files_in_the_package_it_would_stop(wheel: Path, tmp_path: Path) -> None:
    python = sites.make(tmp_path / "bare", [*sites.LIBRARY, *sites.IMPORTED], wheel)
    shutil.rmtree(sites.packages(tmp_path / "bare") / "memlib" / "teaching" / "data")
    code, said = execute("test_your_understanding", python, tmp_path)
    assert code
    assert "FileNotFoundError" in said


# ---- The set-up cell: what it says, where it can go on and where it cannot ----

ADDRESS = "https://github.com/an-owner/a-book"
HOSTED = {"COLAB_RELEASE_TAG": "release"}
QUIZ = "\nteaching.quiz('models')"
PIP = """\
import os, pathlib, sys
print("pip asked for", *sys.argv[1:])
pathlib.Path(__file__).parents[1].joinpath("memlib").symlink_to(os.environ["LIBRARY"])
"""


def cell(address: str = "") -> str:
    return setup_cell.source().replace(
        f'repository = "{setup_cell.repository()}"', f'repository = "{address}"'
    )


def last(said: str) -> str:
    return said.strip().splitlines()[-1]


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """An environment with what the chapters import, but no memlib."""
    return sites.make(tmp_path / "env", [*sites.LIBRARY, *sites.IMPORTED])


def test_no_memlib_and_no_address(bare: Path, tmp_path: Path) -> None:
    """Nothing of the name memlib is asked of a package index: nobody has published it."""
    for settings in ({}, HOSTED):
        code, said = run([bare, "-c", cell()], tmp_path, **settings)
        assert code
        assert last(said).startswith("ImportError: memlib is not installed")
        assert "`pip install '.[notebooks]'` in the book's folder" in last(said)
        assert "./memlib-" in last(said)
        assert ".whl[notebooks]'" in last(said)
    assert "pip install memlib" not in cell()
    assert "pip install 'memlib" not in cell()


def test_no_memlib_on_a_machine_of_ones_own(bare: Path, tmp_path: Path) -> None:
    """Where the book has an address it is named, but nothing is installed unasked."""
    code, said = run([bare, "-c", cell(ADDRESS)], tmp_path)
    assert code
    assert f"run `pip install 'memlib[notebooks] @ git+{ADDRESS}'`" in last(said)


@pytest.mark.slow
def test_on_colab_it_installs_from_the_address_once(
    bare: Path, wheel: Path, tmp_path: Path
) -> None:
    """And a session started again finds library and quizzes, with nothing but the cell."""
    library = sites.packages(sites.make(tmp_path / "with", [], wheel).parents[1]) / "memlib"
    pip = sites.packages(tmp_path / "env") / "pip"
    pip.mkdir()
    (pip / "__main__.py").write_text(PIP)
    for session in ("first", "again"):
        folder = tmp_path / session
        folder.mkdir()
        command = [bare, "-c", cell(ADDRESS) + QUIZ]
        code, said = run(command, folder, LIBRARY=str(library), **HOSTED)
        assert code == 0, said
        asked = f"pip asked for install --quiet memlib[notebooks] @ git+{ADDRESS}" in said
        assert asked == (session == "first"), said


def test_memlib_without_what_the_chapters_import(wheel: Path, tmp_path: Path) -> None:
    """After `pip install .` alone."""
    python = sites.make(tmp_path / "env", sites.LIBRARY, wheel)
    code, said = run([python, "-c", cell()], tmp_path)
    assert code
    assert last(said).startswith("ImportError: memlib is installed, but not all that the chapters")
    assert all(f"'{name}" in last(said) for name in sites.IMPORTED)
    assert "'memlib" not in last(said)


def test_with_all_of_it_the_cell_says_nothing(python: Path, tmp_path: Path) -> None:
    assert run([python, "-c", cell()], tmp_path) == (0, "")
