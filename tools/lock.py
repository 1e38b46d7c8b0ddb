"""Writes requirements.txt: the newest versions that pyproject.toml allows (`make lock`)."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEAD = """\
# Every package of the book, the tests and the extras that are known to work together: `make lock`.
# torch: on Linux the default build brings CUDA along; README.md says how to take the CPU build.
"""
LEFT_OUT = r"(?i)(memlib|pip|nvidia-.*|cuda-.*|triton)\b"  # us, the installer, one platform's torch
EXTRAS = ".[book,experiments,lab,store,test]"


def lock(python: str) -> str:
    """The text of requirements.txt: all packages of that environment, without local versions."""
    freeze = subprocess.run(
        [python, "-m", "pip", "freeze", "--all"], check=True, capture_output=True, text=True
    ).stdout
    lines = [line.split("+")[0] for line in freeze.splitlines() if not re.match(LEFT_OUT, line)]
    return HEAD + "\n".join(sorted(lines, key=str.lower)) + "\n"


def renew(options: list[str]) -> None:
    """Installs everything into an environment that is gone afterwards, however it ends."""
    with tempfile.TemporaryDirectory(prefix="lock-") as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = f"{folder}/bin/python"
        command = [python, "-m", "pip", "install", *options, "hatchling", "editables", EXTRAS]
        subprocess.run(command, check=True, cwd=ROOT)
        (ROOT / "requirements.txt").write_text(lock(python), encoding="utf-8")


if __name__ == "__main__":
    renew(sys.argv[1:])
