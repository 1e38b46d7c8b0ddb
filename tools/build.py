"""Builds the book: stage the sources, execute what changed, make the pages.

    python tools/build.py            the whole book, into _build/html; any warning is an error
    python tools/build.py run        stage and execute only
    python tools/build.py one NAME   one page (with --out), without the rest: for writing and tests

Each notebook is executed once, in .build/src, offline and within the limits of limits.py; it is
executed again only when it, memlib, results/, a quiz or the lock has changed.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import guard

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ROOT / "tools"
JUPYTER_BOOK = Path(sys.executable).with_name("jupyter-book")
SHARED = ("memlib", "results", "book/quizzes", "requirements.txt")  # what every notebook rests on


def files(path: Path) -> list[Path]:
    """All files of a folder (or the file itself), in a fixed order, without Python's caches."""
    found = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    skip = {"__pycache__", ".ipynb_checkpoints"}
    return [p for p in found if not skip & set(p.parts)]


def digest(paths: Iterable[Path], root: Path) -> str:
    """A hash of names and contents."""
    total = hashlib.sha256(sys.version.encode())
    for path in (file for folder in paths for file in files(folder)):
        content = path.read_bytes()
        total.update(f"{path.relative_to(root)}\0{len(content)}\0".encode() + content)
    return total.hexdigest()


class Book:
    """One build: sources in `root`, scratch files in `work`, pages in `out`."""

    def __init__(self, work: Path, out: Path, only: str | None = None) -> None:
        self.work, self.out, self.only = work, out, only
        self.source = work / "src"
        self.records = work / "executed.json"  # notebook -> its key and cost
        self.stamp = work / "html.key"
        work.mkdir(parents=True, exist_ok=True)

    def stage(self) -> None:
        """Mirrors configuration, contents and book/ into the work folder, but no notebook yet."""
        wanted = {Path("_config.yml"), Path("_toc.yml")}
        wanted |= {p.relative_to(ROOT) for p in files(ROOT / "book")}
        for path in files(self.source) if self.source.exists() else []:
            if path.relative_to(self.source) not in wanted:
                path.unlink()
        for name in sorted(wanted):
            if name.suffix != ".ipynb":
                _copy(ROOT / name, self.source / name)
        if self.only:
            toc = f"format: jb-book\nroot: book/{self.only}\n"
            (self.source / "_toc.yml").write_text(toc)

    def execute(self) -> None:
        """Executes the notebooks whose key has changed, and records key and cost of each."""
        records = json.loads(self.records.read_text()) if self.records.exists() else {}
        shared = digest([ROOT / name for name in SHARED if (ROOT / name).exists()], ROOT)
        notebooks = [p for p in files(ROOT / "book") if p.suffix == ".ipynb"]
        notebooks = [p for p in notebooks if self.only in (None, p.stem)]
        keys = {p: digest([p], ROOT) + shared for p in notebooks}
        stale = [p for p in notebooks if records.get(p.stem, {}).get("key") != keys[p]]
        copies = {p: self.source / p.relative_to(ROOT) for p in stale}
        for path, copy in copies.items():
            records.pop(path.stem, None)
            _copy(path, copy)
        self.records.write_text(json.dumps(records, indent=1))
        code = self._nbmake(list(copies.values())) if stale else 0
        for path, copy in copies.items():
            cost = copy.with_suffix(".cost.json")
            if cost.exists():  # it ran to its end, within the limits
                records[path.stem] = {"key": keys[path], **json.loads(cost.read_text())}
                cost.unlink()
                _strip_times(copy)
        self.records.write_text(json.dumps(records, indent=1))
        if code:
            sys.exit(code)
        print(f"executed {len(stale)} of {len(notebooks)} notebooks", flush=True)

    def _nbmake(self, notebooks: list[Path]) -> int:
        settings = {
            "OMP_NUM_THREADS": "1",
            "PYTHONHASHSEED": "0",
            "IPYTHONDIR": str(self.work / "ipython"),  # no start-up files of the user
            "PYTHONPATH": os.pathsep.join(map(str, (TOOLS / "offline", TOOLS, ROOT))),
        }
        command = [
            *guard.without_network(),
            *(sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", str(ROOT)),
            *("-q", "-p", "limits", "-p", "no:cacheprovider", "-n", "2", "--dist", "worksteal"),
            *("--nbmake", "--overwrite", "--nbmake-timeout", "120"),
            *map(str, notebooks),
        ]
        return subprocess.run(command, cwd=ROOT, env=os.environ | settings).returncode

    def pages(self) -> None:
        """Makes the pages from the executed copies; skips it when nothing at all has changed."""
        key = digest([self.source], self.work) + digest([ROOT / "memlib"], ROOT)
        key += digest([ROOT / "requirements.txt"], ROOT)
        if self.out.exists() and self.stamp.exists() and self.stamp.read_text() == key:
            print(f"the pages are up to date: {_shown(self.out)}/index.html")
            return
        self.stamp.unlink(missing_ok=True)
        shutil.rmtree(self.work / "_build", ignore_errors=True)
        strict = [] if self.only else ["-n", "-W", "--keep-going"]
        command = [str(JUPYTER_BOOK), "build", ".", "--path-output", ".."]
        settings = {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}
        done = subprocess.run([*command, *strict], cwd=self.source, env=os.environ | settings)
        shutil.rmtree(self.out, ignore_errors=True)  # the old pages, seen until now
        if done.returncode:
            sys.exit(done.returncode)
        self.out.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(self.work / "_build" / "html", self.out)
        self.stamp.write_text(key)
        print(f"the book is built: {_shown(self.out)}/index.html")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists() or target.read_bytes() != source.read_bytes():
        shutil.copyfile(source, target)


def _shown(path: Path) -> Path:
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def _strip_times(path: Path) -> None:
    """Drops the times that nbclient writes into an executed notebook: two builds are to agree."""
    notebook = json.loads(path.read_text())
    for cell in notebook["cells"]:
        cell["metadata"].pop("execution", None)
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


def main() -> None:
    """Parses the command line and builds, one build at a time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=["all", "run", "one"], nargs="?", default="all")
    parser.add_argument("name", nargs="?", help="with `one`: a page of book/, without suffix")
    parser.add_argument("--work", type=Path, default=ROOT / ".build")
    parser.add_argument("--out", type=Path, default=ROOT / "_build" / "html")
    options = parser.parse_args()
    book = Book(options.work.resolve(), options.out.resolve(), options.name)
    with (book.work / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        book.stage()
        book.execute()
        if options.step != "run":
            book.pages()


if __name__ == "__main__":
    main()
