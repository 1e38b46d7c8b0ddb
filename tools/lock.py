"""Writes requirements.txt from an environment: `python tools/lock.py ENVIRONMENT/bin/python`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HEAD = """\
# Every package of the book, the tests and the extras that are known to work together: `make lock`.
# torch: on Linux the default build brings CUDA along; README.md says how to take the CPU build.
"""
LEFT_OUT = r"(?i)(memlib|pip|nvidia-.*|cuda-.*|triton)\b"  # us, the installer, one platform's torch


def lock(python: str) -> str:
    """The text of requirements.txt: all packages of that environment, without local versions."""
    freeze = subprocess.run(
        [python, "-m", "pip", "freeze", "--all"], check=True, capture_output=True, text=True
    ).stdout
    lines = [line.split("+")[0] for line in freeze.splitlines() if not re.match(LEFT_OUT, line)]
    return HEAD + "\n".join(sorted(lines, key=str.lower)) + "\n"


if __name__ == "__main__":
    (Path(__file__).resolve().parents[1] / "requirements.txt").write_text(lock(sys.argv[1]))
