"""Files that are never half written, and never written by two at once."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from memlib._files import replacing


def write(path: Path, data: bytes) -> None:
    """Replace a file whole: a reader, or a crash at any moment, finds the old one or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as beside:
        beside.write_bytes(data)


@contextmanager
def lock(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock on a folder, or on a file made for it.

    The system takes it back when the process ends, however it ends.

    Raises:
        BlockingIOError: another process holds it, and `wait` is False.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDONLY | (0 if path.is_dir() else os.O_CREAT))
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(f"another process holds {path.name}") from None
        yield
    finally:
        os.close(descriptor)
