"""Proves the lowest versions that pyproject.toml allows (`make lowest`).

    python tools/lowest.py -- OPTION ...   options for pip, such as the index of a build of torch
    python tools/lowest.py --list          only prints the versions, as constraints for pip

In an environment of these versions, gone afterwards, the fast tests, the doctests and some
notebooks run. Needs a Python that the lowest torch knows, such as 3.11, and nothing else.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import lock

NOTEBOOKS = ("content", "store")  # they import most of what the chapters import
TESTS = ("-m", "not slow", "--ignore=tests/pages", "-n", "2")


def requirements(project: dict[str, Any]) -> list[str]:
    """Every range that pyproject.toml declares; not the extras that name other extras."""
    extras = project["project"]["optional-dependencies"].values()
    lines = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    lines += [line for extra in extras for line in extra]
    return [line for line in lines if not line.startswith(f"{project['project']['name']}[")]


def lowest(root: Path = lock.ROOT) -> list[str]:
    """The lower bound of each range, as ``name==version``; each package once.

    Raises:
        ValueError: a range has no lower bound, or two ranges of a package have different ones.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    bounds: dict[str, str] = {}
    for line in requirements(project):
        parts = re.fullmatch(r"([\w.-]+)(?:\[\w+\])?(?:>=|==)([\w.]+)(,<[\w.]+)?", line)
        if parts is None:
            raise ValueError(f"a range must be name>=version or name==version; got {line!r}")
        if bounds.setdefault(parts[1], parts[2]) != parts[2]:
            raise ValueError(f"{parts[1]} must have one lower bound; got {line!r} beside another")
    return sorted(f"{name}=={version}" for name, version in bounds.items())


def prove(options: list[str]) -> None:
    """Runs tests and notebooks with the lowest versions.

    Raises:
        subprocess.CalledProcessError: they cannot be installed, or something fails with them.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as constraints:
        constraints.write("\n".join(lowest()) + "\n")
        constraints.flush()
        with lock.environment([*options, "--constraint", constraints.name]) as folder:
            python, work = lock.python(folder), str(folder / "build")
            steps = [["-m", "pytest", *TESTS]]
            steps += [["tools/build.py", "run", name, "--work", work] for name in NOTEBOOKS]
            for step in steps:
                subprocess.run([python, *step], check=True, cwd=lock.ROOT)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true", help="print the versions, and no more")
    parser.add_argument("pip", nargs="*", help="options handed to pip, after --")
    asked = parser.parse_args()
    if asked.list:
        print("\n".join(lowest()))
    else:
        prove(asked.pip)
