"""The wheel, and environments of links: some distributions of this one, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import venv
import zipfile
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LIBRARY = [Requirement(line).name for line in PROJECT["dependencies"]]
IMPORTED = [Requirement(line).name for line in PROJECT["optional-dependencies"]["notebooks"]]
TOOLS = [Requirement(line).name for line in PROJECT["optional-dependencies"]["test"]]
TOOLS += ["editables", "hatchling", "pip"]  # they build memlib offline


def closure(names: list[str]) -> set[str]:
    """The distributions that these need, and those that they need in turn."""
    found: set[str] = set()
    names = list(names)
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


def make(folder: Path, names: list[str], wheel: Path | None = None) -> Path:
    """The python of a new environment that holds these, what they need, and a wheel."""
    venv.create(folder, symlinks=True, with_pip=False)
    site = packages(folder)
    for name in closure(names):
        files = distribution(name).files or []
        for top in {file.parts[0] for file in files if file.parts[0] not in ("..", "__pycache__")}:
            if not (site / top).exists():
                (site / top).symlink_to(Path(str(distribution(name).locate_file(top))))
    if wheel:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
    return folder / "bin" / "python"


def packages(folder: Path) -> Path:
    """Where an environment keeps its packages."""
    return next(folder.glob("lib/python*/site-packages"))


def build(source: Path, folder: Path) -> Path:
    """The wheel of a source folder or of an archive of it, built offline."""
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    command += ["--no-index", "--quiet", "--wheel-dir", str(folder), str(source)]
    subprocess.run(command, check=True)
    return next(folder.glob("memlib-*.whl"))
