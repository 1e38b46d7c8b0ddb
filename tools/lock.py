"""Writes requirements.txt: the newest versions that pyproject.toml allows (`make lock`)."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEAD = """\
# Every package of the book, the tests and the extras that are known to work together: `make lock`.
# torch: on Linux the default build brings CUDA along; README.md says how to take the CPU build.
"""
LEFT_OUT = r"(?i)(memlib|pip|nvidia-.*|cuda-.*|triton)\b"  # us, the installer, one platform's torch
PACKAGES = ("hatchling", "editables", ".[book,experiments,lab,store,test]")


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


def lock(python: str) -> str:
    """The text of requirements.txt: all packages of that environment, without local versions."""
    freeze = subprocess.run(
        [python, "-m", "pip", "freeze", "--all"], check=True, capture_output=True, text=True
    ).stdout
    lines = [line.split("+")[0] for line in freeze.splitlines() if not re.match(LEFT_OUT, line)]
    return HEAD + "\n".join(sorted(lines, key=str.lower)) + "\n"


def renew(options: list[str]) -> None:
    """Writes what an environment of the newest versions holds."""
    with environment(options) as folder:
        (ROOT / "requirements.txt").write_text(lock(python(folder)), encoding="utf-8")


if __name__ == "__main__":
    renew(sys.argv[1:])
