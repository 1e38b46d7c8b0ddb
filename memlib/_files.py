"""Files that are never half written, and what may be read of them without trust.

A reader, or a crash at any moment, finds the old file or the new one. The new one takes the place
of the old one alone: where a symbolic link leads to it, the link stays, and so do its mode and, as
far as the system lets us, its owner.
"""

import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import torch

T = TypeVar("T")


def plain(kind: type[T]) -> type[T]:
    """Let `torch.load` open what `torch.save` wrote of a class that holds but tensors and words."""
    torch.serialization.add_safe_globals([kind])
    return kind


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a file to be written; when the block ends without an error, it is the one at `path`.

    Raises:
        OSError: it cannot be written; what was at `path` is as it was.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from memlib._files import replacing
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "number")
        ...     with replacing(path) as beside:
        ...         _ = beside.write_text("42")
        ...         path.exists()
        ...     path.read_text()
        False
        '42'
    """
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    # a name of its own length: the one at `path` may be as long as the system allows
    beside = target.with_name(f".{uuid.uuid4().hex[:16]}.partial")
    try:
        old = _status(target)
        created = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        os.close(os.open(beside, created, 0o600 if old else 0o666))  # a new one as the umask says
        mode = (old or beside.stat()).st_mode
        yield beside
        if old and hasattr(os, "chown"):
            with suppress(PermissionError):  # only root gives files away
                os.chown(beside, old.st_uid, old.st_gid)
        beside.chmod(stat.S_IMODE(mode))  # whatever wrote it may have made a file of its own
        with beside.open("rb+") as file:
            os.fsync(file.fileno())  # the data reaches the disk before the name does
        os.replace(beside, target)
    except OSError as error:
        if error.filename == str(beside):  # which the caller does not know
            error.filename = str(path)
        raise
    finally:
        with suppress(OSError):  # it may be gone, or never have been
            beside.unlink()


def _status(target: Path) -> os.stat_result | None:
    """Return the status of the file to be replaced, if there is one."""
    try:
        status = target.stat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"{target.name} must be a file, or not be there; got something else")
    return status
