"""The checks of the page's engine find what they are for, and say aloud when they do not run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import scripts

WORK = scripts.ROOT / ".build" / "js"
GOOD = "/** @param {number} a @returns {number} */\nexport function f(a) {\n  return a + 1;\n}\n"
PLANTED = {
    "format": GOOD.replace("  return", "      return"),
    "lint": GOOD.replace("a + 1", "a == 1 ? 1 : 0"),
    "type": GOOD.replace("a + 1", "`${a}`"),
    "no type": GOOD.replace("/** @param {number} a @returns {number} */\n", ""),
    "unused": GOOD + "const left = 1;\n",
}


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of modules with the settings beside it, as in the repository."""
    if wrong := scripts.installed(WORK):
        pytest.skip(f"the scripts' checks are not installed: {wrong}")
    home, folder = tmp_path / "tools/js", tmp_path / "memlib/teaching/explore/js"
    shutil.copytree(scripts.HOME, home)
    folder.mkdir(parents=True)
    monkeypatch.setattr(scripts, "HOME", home)
    return folder


def test_good_scripts_pass(modules: Path) -> None:
    (modules / "good.js").write_text(GOOD)
    assert scripts.check(WORK, modules=modules) == 0


@pytest.mark.parametrize("fault", PLANTED)
def test_a_fault_is_found(modules: Path, fault: str) -> None:
    (modules / "bad.js").write_text(PLANTED[fault])
    assert scripts.check(WORK, modules=modules) != 0


def test_the_lock_names_no_registry() -> None:
    lock = (scripts.HOME / "package-lock.json").read_text()
    assert '"resolved"' not in lock
    assert "registry" not in lock


def test_without_npm_it_says_so_and_ci_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scripts.shutil, "which", lambda name: None)
    monkeypatch.setattr("sys.argv", ["scripts.py", "--work", str(tmp_path / "none")])
    for ci, status in (("", 0), ("true", 1)):
        monkeypatch.setenv("CI", ci)
        assert scripts.main() == status
        assert "NOT CHECKED: the scripts of the explorables. npm is" in capsys.readouterr().err
