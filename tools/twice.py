"""Builds the book twice, from clean copies in two folders, and compares the pages byte for byte."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def copy(target: Path) -> None:
    """Copies what git tracks, or would: no environment, no earlier build."""
    command = ["git", "ls-files", "-coz", "--exclude-standard"]  # z: names as they are
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout
    for name in filter(None, os.fsdecode(names).split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target / name)


def build(root: Path, *arguments: str) -> Path:
    """Builds the book of a copy; returns the folder of its pages."""
    subprocess.run([sys.executable, "tools/build.py", *arguments], cwd=root, check=True)
    return root / "_build" / "html"


def differences(one: Path, two: Path) -> list[str]:
    """The pages that are not the same in both folders."""
    pages = {p.relative_to(top) for top in (one, two) for p in top.rglob("*.html")}
    return sorted(str(page) for page in pages if not _same(one / page, two / page))


def _same(one: Path, two: Path) -> bool:
    return one.exists() and two.exists() and one.read_bytes() == two.read_bytes()


def compare(folder: Path, *arguments: str) -> list[str]:
    """Builds twice below a folder; returns the pages that differ."""
    roots = folder / "one", folder / "another-place" / "two"
    for root in roots:
        copy(root)
    one, two = (build(root, *arguments) for root in roots)
    if not list(one.rglob("*.html")):
        raise RuntimeError("no page was built")
    return differences(one, two)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        found = compare(Path(temporary))
    print("\n".join(f"differs: {page}" for page in found) or "both builds are the same")
    sys.exit(bool(found))
