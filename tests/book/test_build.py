"""The build in other people's hands: busy machines, strange settings, cells that fail."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import sys
import termios
import textwrap
import time
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import build
import environment
import guard
import lock
import lowest
import notebooks
import psutil
import pytest
import setup_cell
import surroundings
import twice
from notebooks import Cost

from experiments import progress

ROOT = setup_cell.ROOT
pytestmark = pytest.mark.timeout(600)
ODD = "a böok, with spaces"
SETTING = "WHAT_THE_PERSON_MEANT"


def notebook(*cells: str) -> str:
    """A notebook of these cells; one that begins with # or a letter and a space is text."""
    code = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    text = {"cell_type": "markdown", "metadata": {}}
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return json.dumps(
        {
            "cells": [
                {**(text if c.startswith("#") else code), "id": f"cell-{i}", "source": c}
                for i, c in enumerate(cells)
            ],
            "metadata": {"kernelspec": kernel},
            "nbformat": 4,
            "nbformat_minor": 5,
        },
        ensure_ascii=False,
    )


class Tree:
    """A small repository with the real tools, and a book of a few pages."""

    def __init__(self, root: Path, pages: dict[str, str]) -> None:
        self.root = root
        shutil.copytree(ROOT / "tools", root / "tools", ignore=shutil.ignore_patterns("__pyc*"))
        for name in ("_config.yml", "requirements.txt"):
            shutil.copy(ROOT / name, root)
        for name in ("experiments/__init__.py", "experiments/progress.py"):
            (root / name).parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, root / name)
        for name in ("_ext", "_static"):
            shutil.copytree(ROOT / "book" / name, root / "book" / name)
        (root / "memlib").mkdir()
        for path in (ROOT / "book").glob("*.bib"):
            shutil.copy(path, root / "book")
        for name, source in pages.items():
            self.write(name, source)
        first, *others = (Path(name).stem for name in pages)
        toc = [f"format: jb-book\nroot: book/{first}\n", "chapters:\n" if others else ""]
        toc += [f"  - file: book/{name}\n" for name in others]
        (root / "_toc.yml").write_text("".join(toc))

    def write(self, name: str, source: str) -> None:
        path = self.root / "book" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(source, encoding="utf-8")

    def build(
        self, *arguments: str, before: tuple[str, ...] = (), **settings: str | None
    ) -> subprocess.CompletedProcess[str]:
        """Runs tools/build.py with settings of the person; None takes one away."""
        mine = {k: v for k, v in os.environ.items() if k not in ("BUDGETS", notebooks.MINUTES)}
        mine |= {k: v for k, v in settings.items() if v is not None}
        for name in (k for k, v in settings.items() if v is None):
            mine.pop(name, None)
        command = [*before, sys.executable, str(self.root / "tools" / "build.py"), *arguments]
        return subprocess.run(
            command, env=mine, cwd=self.root.parent, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, encoding="utf-8", errors="replace",
        )  # fmt: skip

    def page(self, name: str) -> str:
        return (self.root / "_build/html/book" / f"{name}.html").read_text(encoding="utf-8")


@pytest.fixture
def tree(tmp_path: Path) -> Callable[..., Tree]:
    """Makes a tree in a folder whose name has a letter and spaces that old tools stumble over."""
    return lambda **pages: Tree(
        tmp_path / ODD,
        {f"{k}.ipynb" if v.startswith("{") else f"{k}.md": v for k, v in pages.items()},
    )


# ---- A cell that fails, hangs or ends its kernel ----

BROKEN = notebook(
    "# Two", "# Text\n\n## A section\n\n$$a = b$$ (eq-two)", "1 / 0", "print('later')"
)
LINKS = "# Three\n\n[To two](two.ipynb), and to [its section](two.ipynb#a-section).\n"


@pytest.mark.slow
def test_a_failing_cell_leaves_a_whole_book(tree: Callable[..., Tree]) -> None:
    book = tree(one=notebook("# One", "print('one ' + 'ran')"), two=BROKEN, three=LINKS)
    done = book.build()
    assert done.returncode == 1
    said = done.stdout[done.stdout.index("book/two.ipynb failed") :].strip().splitlines()
    assert len(said) <= 5
    assert "section: A section (cell cell-2)" in said[1]
    assert "ZeroDivisionError: division by zero" in said[2]
    assert Path(said[3].split(": ", 1)[1]).exists()
    assert "Traceback" not in done.stdout
    assert "one ran" in book.page("one"), "the others are executed"
    assert "made without results" in book.page("two")
    assert [n for n in ("one", "three") if "made without results" in book.page(n)] == []
    assert 'href="two.html#a-section"' in book.page("three")
    assert "later" in book.page("two"), "the page is that of the stored notebook"
    book.write("two.ipynb", notebook("# Two", "## A section", "print('all is ' + 'well')"))
    done = book.build()
    assert done.returncode == 0, done.stdout
    assert "executed 1 of 2 notebooks" in done.stdout
    assert "made without results" not in book.page("two")
    assert "all is well" in book.page("two")


@pytest.mark.slow
def test_notebooks_of_one_stem_in_two_folders_are_two(tree: Callable[..., Tree]) -> None:
    book = tree(one=notebook("# One", "print('the first ' + 'one')"))
    book.write("more/one.ipynb", notebook("# Another", "print('the second ' + 'one')"))
    toc = "format: jb-book\nroot: book/one\nchapters:\n  - file: book/more/one\n"
    (book.root / "_toc.yml").write_text(toc)
    done = book.build()
    assert done.returncode == 0, done.stdout
    assert "executed 2 of 2 notebooks" in done.stdout
    assert "the first one" in book.page("one")
    assert "the second one" in book.page("more/one")
    assert "executed 0 of 2 notebooks" in book.build().stdout


@pytest.mark.slow
def test_a_warning_still_ends_the_build(tree: Callable[..., Tree]) -> None:
    book = tree(one="# One\n\n[nowhere](two.md)\n")
    done = book.build()
    assert done.returncode == 1
    assert "WARNING" in done.stdout
    assert "the pages were not made" in done.stdout
    assert not (book.root / "_build/html").exists()


@pytest.mark.slow
def test_the_download_is_the_stored_notebook(tree: Callable[..., Tree]) -> None:
    book = tree(one=notebook("# One", "print('one')"))
    assert book.build().returncode == 0
    stored, given = (book.root / p / "book/one.ipynb" for p in ("", "_build/html/_sources"))
    assert stored.read_bytes() == given.read_bytes()


def test_a_notebook_that_hangs_is_stopped(
    book: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """However slowly it starts: patience ends once the cell that hangs is reached."""
    mark = tmp_path / "mark"
    monkeypatch.setattr(notebooks, "patience", lambda: 0.0 if mark.exists() else 3600.0)
    source = f"import time; open({str(mark)!r}, 'w').close(); time.sleep(500)"
    one = book(False, one=notebook("# One", "print(1)", "## Slow", source))
    (told,) = one.failures
    assert "section: Slow (cell cell-3)" in told
    assert "it hangs: stopped after 0 minutes; NOTEBOOK_MINUTES=" in told
    place = str(tmp_path / ODD)
    assert [p for p in psutil.process_iter(["cmdline"]) if place in str(p.info["cmdline"])] == []


def test_minutes_must_be_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(notebooks.MINUTES, "0.5")
    assert notebooks.patience() == 30
    monkeypatch.delenv(notebooks.MINUTES)
    assert notebooks.patience() == 20 * 60
    monkeypatch.setenv(notebooks.MINUTES, "long")
    with pytest.raises(SystemExit, match="NOTEBOOK_MINUTES must be a number of minutes; got 'lo"):
        notebooks.patience()


def test_a_kernel_that_dies_is_told(tree: Callable[..., Tree]) -> None:
    book = tree(one=notebook("# One", "## Deadly", "import os; os._exit(3)"))
    done = book.build("run")
    assert done.returncode == 1
    assert "section: Deadly (cell cell-2)" in done.stdout
    assert "Kernel died" in done.stdout


def test_what_a_cell_prints_is_one_piece_however_it_comes(tree: Callable[..., Tree]) -> None:
    source = "import time\nprint('a', end='', flush=True)\ntime.sleep(0.5)\nprint('\\nb')"
    book = tree(one=notebook("# One", source))
    assert book.build("run").returncode == 0
    (path,) = (book.root / ".build").rglob("one.ipynb")
    *_, cell = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert ["".join(piece["text"]) for piece in cell["outputs"]] == ["a\nb\n"]


@pytest.mark.slow
def test_the_network_is_off(tree: Callable[..., Tree]) -> None:
    source = "import socket; socket.create_connection(('203.0.113.1', 80), 2)"
    done = tree(one=notebook("# One", source)).build("run")
    assert done.returncode == 1
    assert "network off" in done.stdout


def test_the_guard_blocks_the_outside_alone() -> None:
    for host in (("203.0.113.1", 80), ("example.org", 443)):
        with pytest.raises(ConnectionError, match="network off"):
            guard.check(host)
    guard.check(("127.0.0.1", 80))
    guard.check("/a/local/socket")


# ---- Budgets ----

BURN = "import time\nwhile time.process_time() < {}: pass"


@pytest.fixture
def book(tree: Callable[..., Tree], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Builds in this process, where budgets can be set."""

    def make(enforce: bool, **pages: str) -> build.Book:
        made = tree(**pages)
        monkeypatch.setattr(build, "ROOT", made.root)
        one = build.Book(made.root / ".build", made.root / "_build/html", enforce=enforce)
        one.stage()
        one.execute()
        return one

    return make


@pytest.mark.slow
def test_a_budget_is_told_to_a_person_and_judged_in_ci(
    book: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(notebooks, "ANY_SECONDS", 3.0)
    slow = notebook("# One", BURN.format(5))
    one = book(False, one=slow)
    assert one.failures == []
    title, row = one.table().splitlines()
    assert re.fullmatch(r"one +\d+ +3 +\d+ +\d+ +2000", row)
    assert title.split() == ["over", "its", "budget", "CPU", "s", "of", "wall", "s", "MB", "of"]
    assert "once more" not in capsys.readouterr().out
    shutil.rmtree(tmp_path / ODD)
    one = book(True, one=slow)
    assert "one went over its budget: once more, alone" in capsys.readouterr().out
    assert re.fullmatch(r"book/one.ipynb took \d+ s of CPU; the budget is 3 s", one.failures[0])
    assert json.loads(one.records.read_text()) == {}, "no green stamp"


@pytest.mark.slow
def test_what_keeps_its_budget_alone_passes(
    book: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(notebooks, "ANY_SECONDS", 4.0)
    mark = tmp_path / "mark"
    source = f"import os, time\nif not os.path.exists({str(mark)!r}):\n"
    source += f"    open({str(mark)!r}, 'w').close()\n"
    one = book(True, one=notebook("# One", source + textwrap.indent(BURN.format(6), "    ")))
    assert one.failures == []
    assert "one" in json.loads(one.records.read_text())


def test_memory_has_a_budget_too() -> None:
    assert Cost(1, 1, notebooks.MEGABYTES + 1).over("one") == ["2001 MB; the budget is 2000 MB"]
    assert Cost(64, 999, 1).over("ntm") == []
    assert Cost(64, 1, 1).over("store") == ["64 s of CPU; the budget is 45 s"]


@pytest.mark.slow
def test_cost_is_that_of_the_whole_tree_and_no_sleep_is_in_it(
    book: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    child = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BURN.format(4)!r}])"
    rest = "import time\nlarge = b'x' * 400_000_000\ntime.sleep(1)"
    idle = "import time; time.sleep(8)"
    one = book(False, one=notebook("# One", child, rest), two=notebook("# Two", idle))
    records = json.loads(one.records.read_text())
    assert records["one"]["cpu"] > 4
    assert records["one"]["megabytes"] > 400
    assert records["two"]["cpu"] < 5
    assert records["two"]["wall"] > 8


def test_as_many_kernels_as_cores_and_memory_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    def memory(megabytes: float) -> None:
        free = SimpleNamespace(available=1e6 * megabytes)
        monkeypatch.setattr(psutil, "virtual_memory", lambda: free)

    run: Any = SimpleNamespace(megabytes=500.0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    memory(10_000)
    assert notebooks.room([run])
    assert not notebooks.room([run, run])
    memory(5_000)  # 1,500 of them are promised to the one that runs
    assert not notebooks.room([run])
    memory(100)
    assert notebooks.room([]), "one always runs"
    memory(10_000)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert not notebooks.room([run])


def test_budgets_are_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BUDGETS", raising=False)
    monkeypatch.setenv("CI", "true")
    assert not build.enforced()
    monkeypatch.setenv("BUDGETS", "enforce")
    assert build.enforced()
    monkeypatch.setenv("BUDGETS", "yes")
    with pytest.raises(SystemExit, match="BUDGETS must be enforce, or nothing; got 'yes'"):
        build.enforced()
    assert "BUDGETS=enforce" in (ROOT / ".ci/run").read_text()
    for name in ("book", "tests", "weekly"):
        assert "BUDGETS: enforce" in (ROOT / f".github/workflows/{name}.yml").read_text()


# ---- What is said meanwhile ----


@pytest.mark.slow
def test_every_step_says_what_it_does(tree: Callable[..., Tree]) -> None:
    done = tree(one=notebook("# One", "print(1)")).build()
    assert re.search(r"^notebooks: 0 of 1 done", done.stdout, re.M)
    assert re.search(r"^one: done, \d+ s of CPU, \d+ s, \d+ MB$", done.stdout, re.M)
    assert re.search(r"^pages: 100 %.*one", done.stdout, re.M)
    assert "\r" not in done.stdout
    assert "\x1b" not in done.stdout


def test_lines_where_no_terminal_looks_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "SILENCE", 0.05)
    with (
        progress.never_silent("ntm"),
        progress.tqdm(desc="a run", total=4, disable=None) as bar,
    ):
        for _ in range(4):
            bar.update()
            time.sleep(0.06)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 4
    assert lines[0].startswith("a run:   0%")
    assert lines[-1].startswith("a run: 100%")
    assert not [line for line in lines if "at work" in line], "the bar says more"


def test_a_word_where_no_bar_is_drawn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "SILENCE", 0.05)
    with progress.never_silent("ntm"), progress.tqdm(total=4, disable=True):
        time.sleep(1.0)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 2
    assert all(re.fullmatch(r"ntm: at work for \d+ s", line) for line in lines)


def test_a_bar_on_a_terminal() -> None:
    source = (
        "from experiments.progress import tqdm\n"
        "with tqdm(total=2, disable=None) as bar:\n    bar.update(2)\n"
    )
    screen, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    subprocess.run([sys.executable, "-c", source], stderr=terminal, cwd=ROOT, check=True)
    seen = b""
    while select.select([screen], [], [], 0.2)[0]:
        seen += os.read(screen, 1000)
    os.close(terminal)
    os.close(screen)
    assert b"\r" in seen
    assert b"2/2" in seen


# ---- Nothing of the person's machine ----

KERNEL = {"argv": ["false"], "display_name": "Foreign", "language": "python"}
NOTHING_LEAKS = f"""\
import importlib.util, os, sys
assert sys.executable == {sys.executable!r}, sys.executable
assert "leaked" not in globals(), "a start-up file"
assert importlib.util.find_spec("leaked_module") is None, "PYTHONPATH"
import matplotlib
assert matplotlib.rcParams["lines.linewidth"] == 1.5, "a matplotlibrc"
assert "inline" in os.environ["MPLBACKEND"], "MPLBACKEND"
assert open("one.ipynb").read().count("ö") > 0
assert os.path.expanduser("~") != "~"
assert os.environ["{SETTING}"] == "kept"
print("clean")"""


def plant(folder: Path) -> dict[str, dict[str, str | None]]:
    """Leaks, by the place they come from: what the person's settings are then."""
    home = folder / "home"

    def write(path: Path, text: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def kernel(data: Path) -> str:
        write(data / "kernels/python3/kernel.json", json.dumps(KERNEL))
        return str(data)

    kernel(home / ".local/share/jupyter")
    write(home / ".ipython/profile_default/startup/00.py", "leaked = 1")
    write(home / ".config/matplotlib/matplotlibrc", "lines.linewidth: 7")
    write(folder / "path/leaked_module.py", "")
    write(folder / "jupyter/jupyter_config.py", "raise SystemExit(1)")
    start = write(folder / "start.py", "leaked = 1")
    here = str(home)
    return {
        "JUPYTER_PATH": {"JUPYTER_PATH": kernel(folder / "jupyter-path")},
        "JUPYTER_DATA_DIR": {
            "JUPYTER_DATA_DIR": kernel(folder / "data"),
            "JUPYTER_PREFER_ENV_PATH": "0",
        },
        "kernel at home": {"HOME": here, "JUPYTER_PREFER_ENV_PATH": "0"},
        "home": {"HOME": here},
        "JUPYTER_CONFIG_DIR": {"JUPYTER_CONFIG_DIR": str(folder / "jupyter")},
        "PYTEST_ADDOPTS": {"PYTEST_ADDOPTS": "--collect-only"},
        "PYTHONPATH": {"PYTHONPATH": str(folder / "path")},
        "PYTHONSTARTUP": {"PYTHONSTARTUP": str(start)},
        "MPLBACKEND": {"MPLBACKEND": "svg"},
        "C": {"LC_ALL": "C", "PYTHONUTF8": "0"},
        "no home": {"HOME": None},
    }


PLACES = (
    *("JUPYTER_PATH", "JUPYTER_DATA_DIR", "kernel at home", "home", "JUPYTER_CONFIG_DIR"),
    *("PYTEST_ADDOPTS", "PYTHONPATH", "PYTHONSTARTUP", "MPLBACKEND", "C", "no home"),
)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["all", *PLACES])
def test_nothing_leaks(tree: Callable[..., Tree], tmp_path: Path, place: str) -> None:
    leaks = plant(tmp_path)
    assert tuple(leaks) == PLACES
    chosen = leaks.values() if place == "all" else [leaks[place]]
    settings = {name: value for leak in chosen for name, value in leak.items()}
    book = tree(one=notebook("# Öne", NOTHING_LEAKS))
    done = book.build("run", **settings, **{SETTING: "kept"})
    assert done.returncode == 0, done.stdout
    staged = json.loads((book.root / ".build/src/book/one.ipynb").read_text(encoding="utf-8"))
    (output,) = staged["cells"][1]["outputs"]
    assert output["text"] == ["clean\n"]


@pytest.mark.parametrize("place", ["JUPYTER_PATH", "home", "PYTEST_ADDOPTS", "PYTHONSTARTUP"])
def test_each_leak_is_one(tree: Callable[..., Tree], tmp_path: Path, place: str) -> None:
    """The control: without `surroundings` the same settings reach the notebook."""
    book = tree(one=notebook("# Öne", NOTHING_LEAKS))
    clean = "import os\n\ndef clean(scratch):\n    return dict(os.environ)\n"
    (book.root / "tools/surroundings.py").write_text(clean)
    settings = plant(tmp_path)[place]
    done = book.build("run", **settings, **{SETTING: "kept"})
    staged = json.loads((book.root / ".build/src/book/one.ipynb").read_text(encoding="utf-8"))
    assert done.returncode or not staged["cells"][1]["outputs"]


ALONE = ("unshare", "--user", "--map-user=54321", "--map-group=54321")
NO_ENTRY = subprocess.run([*ALONE, "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not NO_ENTRY, reason="no user namespace can be made here")
def test_a_user_without_an_entry_and_a_checkout_that_is_read_only(
    tree: Callable[..., Tree], tmp_path: Path
) -> None:
    book = tree(one=notebook("# Öne", NOTHING_LEAKS))
    out = tmp_path / "ausgäbe hier"
    out.mkdir()
    subprocess.run(["chmod", "-R", "a-w", str(book.root)], check=True)
    try:
        probe = [*ALONE, "touch", str(book.root / "probe")]
        assert subprocess.run(probe, capture_output=True).returncode, "it is not read-only"
        folders = ("--work", str(out / ".build"), "--out", str(out / "html"))
        nobody = dict.fromkeys(("HOME", "USER", "LOGNAME", "LNAME", "USERNAME"))
        done = book.build(*folders, before=ALONE, **nobody, **{SETTING: "kept"})
        assert done.returncode == 0, done.stdout
        assert (out / "html/book/one.html").exists()
    finally:
        subprocess.run(["chmod", "-R", "u+w", str(book.root)], check=True)


# ---- The environment ----


@pytest.fixture
def made(tmp_path: Path) -> environment.Environment:
    """An environment that stands, as its note says; its Python is a link to this one."""
    root = tmp_path / ODD
    (root / ".venv/bin").mkdir(parents=True)
    for name in environment.LOCKED:
        (root / name).write_text("a lock")
    one = environment.Environment(root / ".venv", root)
    one.python.symlink_to(sys.executable)
    one.note.write_text(json.dumps(one.wanted()))
    return one


def test_an_environment_that_stands_is_kept(made: environment.Environment) -> None:
    assert made.broken() == ""
    assert not made.stale()
    made.renew()  # says nothing and does nothing
    assert made.note.exists()


def test_one_that_moved_is_made_anew(made: environment.Environment, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    made.root.rename(moved)
    one = environment.Environment(moved / ".venv", moved)
    assert one.broken() == f"it was made at {made.place}"
    assert one.stale()


def test_one_without_its_python_is_made_anew(made: environment.Environment) -> None:
    made.python.unlink()
    made.python.symlink_to("/nowhere/python")
    assert made.broken() == "its Python is gone"


def test_one_whose_python_does_not_start_is_made_anew(made: environment.Environment) -> None:
    made.python.unlink()
    made.python.write_text("#!/bin/sh\nexit 1\n")
    made.python.chmod(0o755)
    assert made.broken().startswith("its Python does not start")


def test_a_new_lock_or_option_or_place_of_the_sources_is_installed(
    made: environment.Environment, tmp_path: Path
) -> None:
    assert environment.Environment(made.place, made.root, ("--pre",)).stale()
    (made.root / "requirements.txt").write_text("another lock")
    assert made.stale()
    assert made.broken() == "", "but it is not made anew"
    made.note.unlink()
    assert made.stale()
    assert made.broken() == "", "an environment of somebody else is not thrown away"
    assert environment.Environment(tmp_path / "none", made.root).broken() == ""


def test_options_reach_pip_and_settings_that_lead_it_astray_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A Python that writes down how it is called stands in for the environment's own."""
    root = tmp_path / ODD
    (root / ".venv/bin").mkdir(parents=True)
    for name in environment.LOCKED:
        (root / name).write_text("one==1\ntwo==2\n")
    one = environment.Environment(root / ".venv", root, ("--extra-index-url", "an index"))
    one.python.write_text(
        f'#!/bin/sh\nenv >> "{root}/env"\nfor a; do echo "$a"; done >> "{root}/calls"\n'
    )
    one.python.chmod(0o755)
    for name in ("PIP_USER", "PYTHONHOME", "PIP_TARGET", "PYTHONPATH"):
        monkeypatch.setenv(name, "to nowhere")
    one.renew()
    calls = (root / "calls").read_text()
    assert "--extra-index-url\nan index\n--requirement\n" in calls
    assert f"--editable\n{root}\n" in calls
    assert "to nowhere" not in (root / "env").read_text()
    assert not one.stale()
    said = capsys.readouterr().out.splitlines()
    assert [line.split(" in ")[0] for line in said] == ["set up packages", "set up memlib itself"]


def test_a_failing_installation_says_why_and_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / ".venv/bin").mkdir(parents=True)
    for name in environment.LOCKED:
        (tmp_path / name).write_text("")
    one = environment.Environment(tmp_path / ".venv", tmp_path)
    one.python.write_text('#!/bin/sh\n[ "$1" = -c ] && exit 0\necho no room; exit 1\n')
    one.python.chmod(0o755)
    with pytest.raises(SystemExit, match=r"could not set up packages.*\nno room"):
        one.renew()
    assert one.stale()


def test_make_starts_a_python_whose_packages_lie_at_odd_places(tmp_path: Path) -> None:
    """Python up to 3.12 reads such a path in the letters of the locale, and ends if it can't."""
    venv.create(tmp_path / ODD / ".venv", symlinks=True, with_pip=False)
    (site,) = (tmp_path / ODD / ".venv").glob("lib/python*/site-packages")
    (site / "odd.pth").write_text(str(tmp_path / ODD), encoding="utf-8")
    settings = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONHOME": "/nowhere"}
    probe = "probe: ; @$(RUN) -c 'import sys; print(sys.path[-1])'"
    command = ["make", "--no-print-directory", "--eval", probe, "probe", f"OUT={tmp_path / ODD}"]
    done = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, encoding="utf-8")
    assert done.stdout.strip() == str(tmp_path / ODD), done.stderr


def test_how_far_the_installation_is() -> None:
    said = ["Collecting a", "  Downloading a", "Requirement already satisfied: b", "noise"]
    assert environment.progress(said, "packages", 5) == "packages: 2 of 5 found"
    said.append("Installing collected packages: a")
    assert environment.progress(said, "packages", 5) == "packages: installing 5 of them"
    assert environment.progress([], "memlib itself", 0) == "memlib itself"


@pytest.fixture
def installing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that were run, none of them in earnest; one that has "stops" in it fails."""
    monkeypatch.setattr(lock.tempfile, "tempdir", str(tmp_path))
    calls = []

    def run(command: list[str], **_: Any) -> Any:
        calls.append(command)
        assert len(list(tmp_path.glob("memlib-*"))) == 1
        if "--constraint" in command:
            constraints = Path(command[command.index("--constraint") + 1]).read_text()
            assert constraints.splitlines() == lowest.lowest()
        if "stops" in command:
            raise KeyboardInterrupt
        return SimpleNamespace(stdout="")

    monkeypatch.setattr(subprocess, "run", run)
    return calls


def test_the_lock_leaves_nothing_behind(installing: list[list[str]], tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        lock.renew(["stops"])
    assert lock.PACKAGES[-1] in installing[-1]
    assert list(tmp_path.iterdir()) == []


def test_the_lowest_versions_are_installed_and_run_and_leave_nothing_behind(
    installing: list[list[str]], tmp_path: Path
) -> None:
    lowest.prove(["an option"])
    made, install, *runs = installing
    assert made[:3] == [sys.executable, "-m", "venv"]
    assert {"an option", "--constraint", *lock.PACKAGES} <= set(install)
    assert runs[0][1:3] == ["-m", "pytest"]
    assert [run[1:4] for run in runs[1:]] == [
        ["tools/build.py", "run", name] for name in lowest.NOTEBOOKS
    ]
    assert {run[0] for run in (install, *runs)} == {f"{made[-1]}/bin/python"}
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyboardInterrupt):
        lowest.prove(["stops"])
    assert list(tmp_path.iterdir()) == []


# ---- Two builds ----


def test_key_of_a_notebook_changes_with_what_it_rests_on(tmp_path: Path) -> None:
    (tmp_path / "memlib").mkdir()
    (tmp_path / "memlib/a.py").write_text("1")
    one = build.digest([tmp_path / "memlib"], tmp_path)
    assert build.digest([tmp_path / "memlib"], tmp_path) == one
    (tmp_path / "memlib/a.py").write_text("2")
    assert build.digest([tmp_path / "memlib"], tmp_path) != one
    assert {"memlib", "results", "book/quizzes", "requirements.txt"} == set(build.SHARED)


def test_two_builds_give_the_same_page(tmp_path: Path) -> None:
    """One cheap chapter here; `make twice` compares the whole book."""
    assert twice.compare(tmp_path, "one", "intro") == []


def test_comparison_catches_a_difference(tmp_path: Path) -> None:
    for name, text in (("one", "a"), ("two", "b")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "page.html").write_text(text)
    (tmp_path / "two" / "more.html").write_text("")
    found = twice.differences(tmp_path / "one", tmp_path / "two")
    assert found == ["more.html", "page.html"]


def test_copies_hold_every_name_also_from_a_worktree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*words: str, at: str) -> None:
        me = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "core.hooksPath=")
        subprocess.run(["git", *me, *words], cwd=tmp_path / at, check=True, capture_output=True)

    (tmp_path / "main").mkdir()
    git("init", at="main")
    names = {"größe.md", "with space.md", "plain.md"}
    for name in names:
        (tmp_path / "main" / name).write_text(name)
    git("add", ".", at="main")
    git("commit", "-m", "one", at="main")
    git("worktree", "add", "-b", "two", "../ein bäum", at="main")
    monkeypatch.setattr(twice, "ROOT", tmp_path / "ein bäum")
    twice.copy(tmp_path / "copy")
    assert {path.name for path in (tmp_path / "copy").iterdir()} == names


def test_the_surroundings_give_a_home_to_whoever_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(surroundings.getpass, "getuser", lambda: {}["nobody"])
    found = surroundings.clean(tmp_path)
    assert Path(found["HOME"]).is_dir()
    assert found["USER"] == "reader"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert surroundings.clean(tmp_path / "more")["HOME"] == str(tmp_path), "a home is kept"
