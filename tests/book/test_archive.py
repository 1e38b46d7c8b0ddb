"""`make zip`: one archive of the pages, the same for the same pages, and nothing else in it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import archive
import pytest

DATE = 1_700_000_000  # 2023-11-14 22:13:20 UTC
PAGES = ("book/intro.html", "book/a böok.html", "index.html", "_static/book.css", "_sources/a.md")
OTHERS = (".buildinfo", ".doctrees/intro.doctree", "_static/book.css.map", "_static/de.mo")


def pages(folder: Path, *names: str) -> Path:
    """A folder of such pages, each with its name as its content."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name, encoding="utf-8")
    return folder


def test_the_same_pages_give_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever, wherever and in whatever order they were made."""
    one = archive.pack(pages(tmp_path / "one", *PAGES, *OTHERS), tmp_path / "a")
    two = pages(tmp_path / "another place" / "two", *reversed(PAGES))
    for number, path in enumerate(path for path in two.rglob("*") if path.is_file()):
        os.utime(path, (number, number))
        path.chmod(0o600)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    assert archive.pack(two, tmp_path / "b").read_bytes() == one.read_bytes()
    monkeypatch.undo()
    time.tzset()
    pages(two, "book/more.html")
    assert archive.pack(two, tmp_path / "b").read_bytes() != one.read_bytes()


def test_it_holds_a_start_page_and_the_pages_in_one_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(DATE))
    made = archive.pack(pages(tmp_path / "html", *PAGES, *OTHERS), tmp_path)
    top = made.stem
    assert top == f"memory-attention-{archive.version()}"
    with zipfile.ZipFile(made) as held:
        names = [entry.filename for entry in held.infolist()]
        assert names == [f"{top}/{name}" for name in (archive.START, *sorted(PAGES))]
        assert {entry.date_time for entry in held.infolist()} == {(2023, 11, 14, 22, 13, 20)}
        assert {entry.external_attr >> 16 for entry in held.infolist()} == {0o100644}
        start = held.read(f"{top}/{archive.START}").decode()
        assert f'<a href="{archive.FIRST}">' in start
        assert [held.read(f"{top}/{name}").decode() for name in PAGES] == list(PAGES)
    assert [p.name for p in tmp_path.glob("*.part")] == []


def test_a_book_that_is_not_built_is_said(tmp_path: Path) -> None:
    command = [sys.executable, archive.__file__, "--pages", str(tmp_path), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode
    assert "run `make book` first" in done.stderr
    assert list(tmp_path.iterdir()) == []
