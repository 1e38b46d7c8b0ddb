"""Runs the tests that need other people's packages, on the wheel of memlib (`make extras`).

    --out FOLDER   where .venv is, and .build (the repository's folder, if not said)
    -- OPTION ...  handed to pip

An environment of its own holds the wheel, built now, and what requirements-ci.txt lists; the rest
it borrows from .venv. What skips there fails: in .venv alone these tests skip, here they must run.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import environment
import lock
import pytest

TESTS = (
    "tests/integrations",
    "tests/guide",
    "tests/fast_weights/test_public.py",
    "tests/transformer/test_forgetting.py::test_window_beside_transformers",
)
INSIDE = "MEMLIB_EXTRAS"  # set, to this environment's folder, where the tests run
Report = Generator[None, Any, Any]


def prepare(place: Path, options: list[str]) -> str:
    """The Python of the environment at `place`: made where it is not that of this lock."""
    listed = lock.ROOT / "requirements-ci.txt"
    site = sysconfig.get_path("purelib")
    wanted = hashlib.sha256(f"{site} {sys.version} {listed.read_text('utf-8')}".encode())
    note = place / "made.txt"
    if not note.exists() or note.read_text(encoding="utf-8") != wanted.hexdigest():
        shutil.rmtree(place, ignore_errors=True)
        python = lock.borrow(place, site)
        _pip(python, *options, "--requirement", str(listed))
        note.write_text(wanted.hexdigest(), encoding="utf-8")
    return lock.python(place)


def install(python: str) -> None:
    """Builds the wheel with the packages of this Python and installs it there, whatever was."""
    with tempfile.TemporaryDirectory() as folder:
        build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
        build += ["--no-index", "--quiet", "--wheel-dir", folder, str(lock.ROOT)]
        subprocess.run(build, check=True, env=environment.calm())
        (wheel,) = Path(folder).glob("*.whl")
        _pip(python, "--no-index", "--force-reinstall", str(wheel))


class Strict:
    """What pytest is told inside: a test or a module that skips has failed."""

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self) -> Report:
        """Judges the report of a module."""
        return judged((yield))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Report:
        """Judges the report of a test."""
        return judged((yield))


def judged(report: Any) -> Any:
    """The report, as a failure where it is of a skip."""
    if report.skipped and not hasattr(report, "wasxfail"):
        report.outcome, why = "failed", report.longrepr
        report.longrepr = f"nothing may skip under `make extras`: {why}"
    return report


def inside(tests: list[str]) -> int:
    """Runs the tests in the environment, where memlib is the wheel's and not the repository's."""
    import memlib

    home = Path(os.environ[INSIDE]).resolve()
    if home not in Path(memlib.__file__).resolve().parents:
        raise SystemExit(f"memlib must be that of the wheel; got {memlib.__file__}")
    options = ["-o", "pythonpath=tools tests"]  # the repository's own folder comes last
    sys.path.append(str(lock.ROOT))  # for what tests share
    return int(pytest.main([*options, *tests], plugins=[Strict()]))


def _pip(python: str, *arguments: str) -> None:
    command = [python, "-m", "pip", "install", "--no-deps", "--quiet", "--no-input", *arguments]
    subprocess.run(command, check=True, env=environment.calm())


def main() -> None:
    """Parses the command line, prepares the environment and runs the tests."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=lock.ROOT)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("pip", nargs="*", help="options handed to pip, after --")
    asked = parser.parse_args()
    if asked.inside:
        raise SystemExit(inside(list(TESTS)))
    place = asked.out.resolve() / ".build" / "extras"
    python = prepare(place, asked.pip)
    install(python)
    calm = environment.calm() | {INSIDE: str(place), "OMP_NUM_THREADS": "1"}
    command = [python, __file__, "--inside"]
    raise SystemExit(subprocess.run(command, env=calm, cwd=lock.ROOT).returncode)


if __name__ == "__main__":
    main()
