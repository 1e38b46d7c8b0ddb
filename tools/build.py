"""Builds the book: stage the sources, execute what changed, make the pages.

    python tools/build.py            the whole book, into _build/html; any warning is an error
    python tools/build.py run        stage and execute only
    python tools/build.py one NAME   one page (with --out), without the rest: for writing and tests

Each notebook is executed once, in .build/src and offline; it is executed again only when it,
memlib, results/, a quiz or the lock has changed. A notebook that fails does not take the others
with it: its page is made from its stored source and says so, and the exit status is not 0.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))

import notebooks
import surroundings
from notebooks import Cost, Failure

from experiments.progress import tqdm

JUPYTER_BOOK = Path(sys.executable).with_name("jupyter-book")
SHARED = ("memlib", "results", "book/quizzes", "requirements.txt")  # what every notebook rests on
PROOF = ("results", "experiments", "benchmarks")  # what the pages of the part Proof are made from
NO_NOTEBOOKS = {"status.json", "published_claims.json"}  # in results/, for those pages alone
BANNER = """\
```{{warning}}
This page was made without results: when the book was built, the notebook stopped in the section
*{section}*.
```"""


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
        total.update(os.fsencode(f"{path.relative_to(root)}\0{len(content)}\0") + content)
    return total.hexdigest()


class Book:
    """One build: sources in `root`, scratch files in `work`, pages in `out`.

    `failures` are told at the end; with `enforce` a notebook over its budget is one of them.
    """

    def __init__(
        self, work: Path, out: Path, only: str | None = None, *, enforce: bool = False
    ) -> None:
        self.work, self.out, self.only, self.enforce = work, out, only, enforce
        self.source = work / "src"
        self.records = work / "executed.json"  # notebook -> its key and cost
        self.stamp = work / "html.key"
        self.failures: list[str] = []
        self.over: list[tuple[str, Cost]] = []
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
            (self.source / "_toc.yml").write_text(toc, encoding="utf-8")

    def notebooks(self) -> dict[str, Path]:
        """The stored notebooks that this build is about, by name: from book/ on, without suffix."""
        book = ROOT / "book"
        found = [path for path in files(book) if path.suffix == ".ipynb"]
        names = {p.relative_to(book).with_suffix("").as_posix(): p for p in found}
        return {name: p for name, p in names.items() if self.only in (None, name)}

    def execute(self) -> None:
        """Executes the notebooks whose key has changed, and records key and cost of each."""
        records = _load(self.records)
        rests = (p for name in SHARED if (ROOT / name).exists() for p in files(ROOT / name))
        shared = digest((p for p in rests if p.name not in NO_NOTEBOOKS), ROOT)
        stored = self.notebooks()
        copies = {name: self.source / path.relative_to(ROOT) for name, path in stored.items()}
        keys = {name: digest([path], ROOT) + shared for name, path in stored.items()}
        stale = [name for name in keys if records.get(name, {}).get("key") != keys[name]]
        # The longest first: it would be waited for alone at the end.
        stale.sort(key=lambda name: -records.get(name, {}).get("cpu", notebooks.seconds(name)))
        again: list[str] = []

        def done(name: str, cost: Cost, failure: Failure | None) -> None:
            if failure is not None:
                self.failures.append(failure.told(name))
                _write_banner(stored[name], copies[name], failure.section)
                return
            if faults := cost.over(name):
                if self.enforce and name not in again:  # it may have had heavy neighbors
                    again.append(name)
                    return
                self.over.append((name, cost))
                if self.enforce:
                    self.failures += [f"book/{name}.ipynb took {fault}" for fault in faults]
                    return
            _strip_times(copies[name])
            records[name] = {"key": keys[name], **asdict(cost)}
            self._record(records)

        for name in stale:
            records.pop(name, None)
            _copy(stored[name], copies[name])
        self._record(records)
        if stale:
            notebooks.execute({name: copies[name] for name in stale}, self.work, done)
        for name in list(again):
            print(f"{name} went over its budget: once more, alone", flush=True)
            _copy(stored[name], copies[name])
            notebooks.execute({name: copies[name]}, self.work, done)
        print(f"executed {len(stale)} of {len(keys)} notebooks", flush=True)

    def _record(self, records: dict[str, Any]) -> None:
        self.records.write_text(json.dumps(records, indent=1), encoding="utf-8")

    def pages(self) -> None:
        """Makes the pages from the executed copies; skips it when nothing at all has changed."""
        key = digest([self.source], self.work) + digest([ROOT / "memlib"], ROOT)
        key += digest([ROOT / name for name in ("requirements.txt", *PROOF)], ROOT)
        if self.out.exists() and self.stamp.exists() and self.stamp.read_text() == key:
            print(f"the pages are up to date: {_shown(self.out)}/index.html")
            return
        self.stamp.unlink(missing_ok=True)
        shutil.rmtree(self.work / "_build", ignore_errors=True)
        built = self._sphinx()
        shutil.rmtree(self.out, ignore_errors=True)  # the old pages, seen until now
        if not built:
            self.failures.append(
                "the pages were not made, for the warnings above\n"
                f"  all that was said: {self.work / 'logs' / 'pages.log'}"
            )
            return
        html = self.work / "_build" / "html"
        for path in self.notebooks().values():  # the download button gives what is stored
            _copy(path, html / "_sources" / path.relative_to(ROOT))
        self.out.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(html, self.out)
        self.stamp.write_text(key)
        print(f"the book is built: {_shown(self.out)}/index.html", flush=True)

    def _sphinx(self) -> bool:
        """Runs Jupyter Book; shows how far it is, and its warnings. True when all went well."""
        strict = [] if self.only else ["-n", "-W", "--keep-going"]
        command = [sys.executable, str(JUPYTER_BOOK), "build", ".", "--path-output", ".."]
        settings = surroundings.clean(self.work / "settings") | {"PYTHONPATH": str(ROOT)}
        log = self.work / "logs" / "pages.log"
        log.parent.mkdir(exist_ok=True)
        process = subprocess.Popen(
            [*command, *strict], cwd=self.source, env=settings, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace",
        )  # fmt: skip
        assert process.stdout is not None
        form = "{desc}: {n:.0f} % |{bar}| {elapsed}{postfix}"
        said = r"WARNING|ERROR|\w+Error\b|Exception"
        if self.only:  # a page alone cannot link to the others
            said = rf"^(?!.*xref_missing).*({said})"
        with log.open("w", encoding="utf-8") as file, tqdm(
            desc="pages", total=100, disable=None, bar_format=form
        ) as bar:  # fmt: skip
            for line in process.stdout:
                line = re.sub(r"\x1b\[[\d;]*m", "", line)
                file.write(line)
                if step := re.search(r"(reading|writing) \w+\.\.\. \[ *(\d+)%\] (\S+)", line):
                    bar.n = (int(step[2]) + 100 * (step[1] == "writing")) / 2
                    bar.set_postfix_str(f"{step[1]} {step[3]}", refresh=False)
                elif re.search(said, line):
                    tqdm.write(line.rstrip(), file=sys.stdout)
        return process.wait() == 0

    def table(self) -> str:
        """The notebooks over their budget, a line each; nothing where there is none."""
        if not self.over:
            return ""
        lines = [f"{'over its budget':<26}{'CPU s':>7}{'of':>5}{'wall s':>8}{'MB':>7}{'of':>6}"]
        for name, cost in self.over:
            lines.append(
                f"{name:<26}{cost.cpu:>7.0f}{notebooks.seconds(name):>5.0f}{cost.wall:>8.0f}"
                f"{cost.megabytes:>7.0f}{notebooks.MEGABYTES:>6.0f}"
            )
        return "\n".join(lines)


def _load(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists() or target.read_bytes() != source.read_bytes():
        shutil.copyfile(source, target)


def _shown(path: Path) -> Path:
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def _strip_times(path: Path) -> None:
    """Drops the times that nbclient writes into an executed notebook: two builds are to agree."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        cell["metadata"].pop("execution", None)
    text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")


def _write_banner(stored: Path, copy: Path, section: str) -> None:
    """Puts the stored notebook in the place of the one that failed, with a word below its title."""
    notebook = json.loads(stored.read_text(encoding="utf-8"))
    text = BANNER.format(section=section.replace("*", ""))
    banner = {"cell_type": "markdown", "id": "build-banner", "metadata": {}, "source": text}
    notebook["cells"].insert(1, banner)
    copy.write_text(json.dumps(notebook, ensure_ascii=False), encoding="utf-8")


def enforced() -> bool:
    """Whether the budgets were asked for by name."""
    asked = os.environ.get("BUDGETS", "")
    if asked not in ("", "enforce"):
        raise SystemExit(f"BUDGETS must be enforce, or nothing; got {asked!r}")
    return asked == "enforce"


def main() -> int:
    """Parses the command line and builds, one build at a time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=["all", "run", "one"], nargs="?", default="all")
    parser.add_argument("name", nargs="?", help="with `one`: a page of book/, without suffix")
    parser.add_argument("--work", type=Path, default=ROOT / ".build")
    parser.add_argument("--out", type=Path, default=ROOT / "_build" / "html")
    options = parser.parse_args()
    book = Book(
        options.work.resolve(), options.out.resolve(), options.name, enforce=enforced()
    )  # fmt: skip
    with (book.work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another build is at work: waiting for it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        book.stage()
        book.execute()
        if options.step != "run":
            book.pages()
    print("\n".join(filter(None, [book.table(), *book.failures])), flush=True)
    return 1 if book.failures else 0


if __name__ == "__main__":
    if not sys.flags.utf8_mode:  # a locale without UTF-8: paths and pages have other letters too
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.argv])
    sys.exit(main())
