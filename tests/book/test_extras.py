"""`make extras`: what only CI needs is locked apart, and there nothing may skip."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import environment
import extras
import lock
import pytest
from packaging.requirements import Requirement
from sites import PROJECT, ROOT


def names(listed: str) -> set[str]:
    """The packages that a list locks."""
    lines = (ROOT / listed).read_text(encoding="utf-8").splitlines()
    return {line.split("==")[0] for line in lines if not line.startswith("#")}


def test_what_only_ci_needs_is_locked_apart() -> None:
    """Within the ranges of its extras, and in the form of a lock: see `test_book.LOCK`."""
    book, ci = names("requirements.txt"), names("requirements-ci.txt")
    wanted = {Requirement(line).name for extra in ("pgvector", "transformers")
              for line in PROJECT["optional-dependencies"][extra]}  # fmt: skip
    assert {*wanted, *lock.CI[1:]} <= ci - book, "and nothing that `make book` installs"
    assert "requirements-ci.txt" not in environment.LOCKED


def test_ci_runs_them_between_the_tests_and_the_pages() -> None:
    ran = re.findall(r"^make (\w+)", (ROOT / ".ci/run").read_text(encoding="utf-8"), re.M)
    assert ran == ["test", "extras", "pages"]


FINE = """
    import pytest

    def test_one(): pass

    @pytest.mark.xfail
    def test_known(): assert False
"""


@pytest.mark.slow
def test_what_skips_fails(tmp_path: Path) -> None:
    """A test that skips, and a module; what is known to fail may do so."""
    skips = "import pytest\ndef test_skips(): pytest.skip('no server')"
    missing = "import pytest\npytest.importorskip('no_such_package')"
    for name, source in (("fine", FINE), ("skips", skips), ("missing", missing)):
        (tmp_path / f"test_{name}.py").write_text(textwrap.dedent(source))
    code = "import extras, pytest, sys; sys.exit(pytest.main(['-q'], plugins=[extras.Strict()]))"
    code = f"import sys; sys.path.append({str(ROOT / 'tools')!r}); {code}"
    options = {"cwd": tmp_path, "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, "-c", code], **options)
    assert done.returncode == 2, "a module that skips is an error"
    assert "no_such_package" in done.stdout
    (tmp_path / "test_missing.py").unlink()
    done = subprocess.run([sys.executable, "-c", code], **options)
    assert done.returncode == 1
    assert "1 failed, 1 passed, 1 xfailed" in done.stdout
    assert "nothing may skip under `make extras`" in done.stdout
    assert "no server" in done.stdout


def test_another_memlib_than_that_of_the_wheel_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "tools/extras.py"), "--inside"]
    settings = environment.calm() | {extras.INSIDE: str(tmp_path)}
    done = subprocess.run(command, env=settings, capture_output=True, text=True)
    assert done.returncode == 1
    assert "memlib must be that of the wheel; got" in done.stderr
