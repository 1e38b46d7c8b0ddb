"""Files that are whole or not there: links, modes, owners and names stay as they were."""

from __future__ import annotations

import importlib.util
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from memlib._files import replacing
from memlib.store import Store

LONGEST = 255  # bytes of a name


def plainly(path: Path, text: str) -> None:
    with replacing(path) as beside:
        beside.write_text(text)


def by_a_store(path: Path, text: str) -> None:
    pytest.importorskip("safetensors")
    Store(len(text)).save(path)


def by_an_experiment(path: Path, text: str) -> None:
    pytest.importorskip("experiments")
    from experiments import files

    files.write(path, text.encode())


def by_a_checkpoint(path: Path, text: str) -> None:
    for needed in ("experiments", "safetensors"):
        pytest.importorskip(needed)
    from experiments import checkpoints

    checkpoints.save(path, {"x": torch.ones(len(text))}, {})


WRITERS = [plainly, by_a_store, by_an_experiment, by_a_checkpoint]
every_writer = pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
Write = Callable[[Path, str], None]


@pytest.fixture
def umask():
    """None but the owner's group may do as it likes."""
    before = os.umask(0o027)
    yield
    os.umask(before)


@every_writer
@pytest.mark.parametrize("relative", [False, True])
def test_a_symbolic_link_stays_one(write: Write, relative: bool, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    file, middle, link = tmp_path / "far/file", tmp_path / "far/middle", tmp_path / "link"
    middle.symlink_to("file" if relative else file)
    link.symlink_to(Path("far/middle") if relative else middle)
    for text in ("a", "bb"):  # at first the link leads nowhere yet
        write(link, text)
        assert link.is_symlink()
        assert middle.is_symlink()
        write(tmp_path / "same", text)
        assert file.stat().st_size == (tmp_path / "same").stat().st_size > 0
    assert sorted(os.listdir(tmp_path / "far")) == ["file", "middle"]
    assert sorted(os.listdir(tmp_path)) == ["far", "link", "same"]


@every_writer
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o777])
def test_a_mode_is_kept_and_a_new_file_has_that_of_the_umask(
    write: Write, mode: int, tmp_path: Path, umask: None
) -> None:
    file = tmp_path / "file"
    write(file, "a")
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    file.chmod(mode)
    write(file, "bb")
    assert stat.S_IMODE(file.stat().st_mode) == mode


def test_what_is_private_is_so_while_it_is_written(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch(0o600)
    with replacing(file) as beside:
        assert stat.S_IMODE(beside.stat().st_mode) == 0o600


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="root gives files away")
def test_an_owner_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "file"
    plainly(file, "a")
    os.chown(file, 65534, 65533)
    plainly(file, "b")
    assert (file.stat().st_uid, file.stat().st_gid) == (65534, 65533)


@every_writer
@pytest.mark.parametrize("letter", ["n", "ñ"])
def test_a_name_may_be_as_long_as_the_system_allows(
    write: Write, letter: str, tmp_path: Path
) -> None:
    name = letter * (LONGEST // len(letter.encode()))
    write(tmp_path / name, "a")
    write(tmp_path / name, "bb")
    assert os.listdir(tmp_path) == [name]
    with pytest.raises(OSError, match="name too long"):
        write(tmp_path / f"{name}{letter}", "a")
    assert os.listdir(tmp_path) == [name]


@every_writer
def test_what_is_no_file_is_left_alone(write: Write, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("folder", "pipe", "loop"):
        with pytest.raises(OSError, match=f"{name}"):
            write(tmp_path / name, "a")
    assert sorted(os.listdir(tmp_path)) == ["folder", "loop", "pipe"]
    assert (tmp_path / "loop").is_symlink()


def test_an_error_names_the_file_that_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent/file'$") as error:
        plainly(tmp_path / "absent/file", "a")
    assert error.value.filename == str(tmp_path / "absent/file")


def test_an_error_while_writing_leaves_the_file_before(tmp_path: Path) -> None:
    file = tmp_path / "file"
    plainly(file, "a")
    with pytest.raises(KeyboardInterrupt), replacing(file) as beside:
        _broken_off(beside)
    assert file.read_text() == "a"
    assert os.listdir(tmp_path) == ["file"]


def _broken_off(path: Path) -> None:
    path.write_text("b")
    raise KeyboardInterrupt


def test_the_two_writers_are_one() -> None:
    if importlib.util.find_spec("experiments") is None:
        pytest.skip("the experiments are a part of the repository")
    from experiments import files as theirs
    from memlib.store import files as ours

    assert theirs.replacing is ours.replacing is replacing
