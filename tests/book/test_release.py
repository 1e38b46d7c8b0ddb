"""`make release`: what is built is what a stranger installs; one that is not right is found."""

from __future__ import annotations

import re
import subprocess
import zipfile
from pathlib import Path

import archive
import pytest
import release
import setup_cell


def changed(wheel: Path, folder: Path, name: str, old: str, new: str) -> Path:
    """The wheel with a fault in one of its files."""
    folder.mkdir()
    with zipfile.ZipFile(wheel) as right, zipfile.ZipFile(folder / wheel.name, "w") as wrong:
        for entry in right.infolist():
            content = right.read(entry)
            if entry.filename.endswith(name):
                assert old.encode() in content
                content = content.replace(old.encode(), new.encode())
            wrong.writestr(entry, content)
    return folder / wheel.name


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_wheel_and_archive_install_from_an_index_and_readmes_example_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = release.build(tmp_path / "dist")
    assert {path.name for path in files} == {path.name for path in (tmp_path / "dist").iterdir()}
    release.prove(files, tmp_path, tests=())
    assert capsys.readouterr().out.count(" s\n") == 3
    wrong = ("METADATA", "weights.argmax() == 1", "weights.argmax() == 2")
    files[0] = changed(files[0], tmp_path / "wrong", *wrong)
    with pytest.raises(subprocess.CalledProcessError):
        release.prove(files, tmp_path / "wrong", tests=())
    assert "AssertionError" in capsys.readouterr().out


def test_the_changelog_has_a_part_for_this_version_alone_at_the_top() -> None:
    text = (setup_cell.ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    parts = re.findall(r"^## \[([\d.]+)\]", text, re.M)
    assert parts[0] == archive.version()
    assert parts == sorted(set(parts), key=lambda v: [int(n) for n in v.split(".")], reverse=True)
