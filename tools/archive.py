"""Puts the built pages into one archive that is read offline (`make zip`).

    python tools/archive.py [--pages FOLDER] [--out FOLDER]

Unpacked, it is one folder; START.html in it opens the book in any browser, without a network.
The same pages give the same bytes: names are sorted, and every file has one date, that of the
commit (or SOURCE_DATE_EPOCH, or 1980 where there is neither), and one mode.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import time
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
START = "START.html"
FIRST = "book/intro.html"
EARLIEST = 315_532_800  # the first second that a zip knows, that of 1980
# The theme's own templates, and the sources of what it and its scripts are made from.
SOURCES = ("webpack-macros.html", "sbt-webpack-macros.html", ".map", ".mo", ".po")
PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="0; url={first}">
<title>Memory Attention {version}</title>
<link rel="icon" href="_static/favicon.svg">
<style>
:root {{ color-scheme: light dark; font: 1.1rem system-ui; }}
body {{ margin: 3rem; }}
</style>
</head>
<body>
<main>
<h1>Memory Attention {version}</h1>
<p><a href="{first}">Read the book</a>. All of it is in this folder: nothing is asked of the
network.</p>
</main>
</body>
</html>
"""


def version() -> str:
    """The version of the book and its library."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"])


def when() -> int:
    """Seconds since 1970 that the files are dated with."""
    asked = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not asked:
        command = ["git", "log", "-1", "--format=%ct"]
        asked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    return max(EARLIEST, int(asked or 0))


def held(pages: Path) -> list[Path]:
    """The files of the book: what its pages show, load and give to be downloaded."""
    names = (path.relative_to(pages) for path in pages.rglob("*") if path.is_file())
    shown = (n for n in names if not any(part.startswith(".") for part in n.parts))
    return sorted(name for name in shown if not name.name.endswith(SOURCES))


def pack(pages: Path, folder: Path) -> Path:
    """Writes the archive of the pages into a folder; returns its path.

    Raises:
        FileNotFoundError: the book is not built there.
    """
    if not (pages / FIRST).is_file():
        raise FileNotFoundError(f"{pages / FIRST} is not there: run `make book` first")
    name, date = f"memory-attention-{version()}", time.gmtime(when())[:6]
    start = PAGE.format(first=FIRST, version=version()).encode()
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f"{name}.zip.part"
    with zipfile.ZipFile(unfinished, "w") as archive:
        for path in (Path(START), *held(pages)):
            entry = zipfile.ZipInfo(f"{name}/{path.as_posix()}", date)
            entry.create_system, entry.external_attr = 3, 0o100644 << 16  # a file of Unix
            content = start if path == Path(START) else (pages / path).read_bytes()
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED, 9)
    return unfinished.replace(folder / f"{name}.zip")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pages", type=Path, default=ROOT / "_build" / "html")
    parser.add_argument("--out", type=Path, default=ROOT / "_build")
    given = parser.parse_args()
    made = pack(given.pages.resolve(), given.out.resolve())
    print(f"{made} ({made.stat().st_size / 1e6:.1f} MB): unpack it and open {START}")
