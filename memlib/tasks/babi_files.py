"""Where the bAbI files come from: a path, ``MEMLIB_DATA``, the user's cache, or a download.

Only ``find_babi(download=True)`` uses the network, and it does not trust what comes: the files
are checked before they are moved into the cache, the whole set at once.
"""

import gzip
import hashlib
import os
import re
import shutil
import tarfile
import tempfile
import urllib.request
import zlib
from collections.abc import Iterable, Iterator
from functools import partial
from http.client import HTTPException
from importlib import resources
from pathlib import Path, PurePosixPath
from urllib.error import HTTPError

from memlib import _checks as checks
from memlib.tasks.babi import BabiError, read_babi

# The authors' archive as their organisation keeps it today, at a revision that cannot change.
URL = (
    "https://huggingface.co/datasets/facebook/babi_qa/resolve/"
    "dc80d34a44d86281fe820e05eb8c4c62057c3075/data/tasks_1-20_v1-2.tar.gz"
)
TOP = "tasks_1-20_v1-2"  # the folder in it
SETS = ("en", "en-10k", "en-valid", "en-valid-10k", "hn", "hn-10k", "shuffled", "shuffled-10k")
SPLITS = ("train", "valid", "test")
FILE = re.compile(rf"qa\d+_(?:[\w-]+_)?(?:{'|'.join(SPLITS)})\.txt")
TIMEOUT = 30.0  # seconds without a byte
CORRUPT = (  # all that a broken archive raises; BabiError is a ValueError
    ValueError, FileNotFoundError, EOFError, zlib.error, gzip.BadGzipFile, tarfile.TarError
)  # fmt: skip


def find_babi(
    path: str | Path | None = None, *, subset: str | None = None, download: bool = False
) -> Path:
    """Find the folder of one set of the bAbI tasks: 20 tasks, ``qaN_*_train.txt`` and the like.

    Without a path it is looked for where the environment variable ``MEMLIB_DATA`` says, then in
    the user's cache (``$XDG_CACHE_HOME`` or ``~/.cache``, in ``memlib/babi``). A folder that is
    looked in may hold the files, or the set's folder, or the archive as it unpacks.

    Args:
        path: the one folder to look in; nothing else is tried.
        subset: en, en-10k, en-valid, en-valid-10k, hn, hn-10k, shuffled or shuffled-10k. None is
            en, or, where a folder holds the files itself, whatever it holds.
        download: whether to download the archive (16 MB) into the cache where nothing is found
            and no path is given. A download that was interrupted goes on where it stopped.

    Returns:
        A folder for `babi_file`.

    Raises:
        BabiError: the archive is not what it should be; it has been removed.
        ConnectionError: the download failed; what has come is kept.
        FileNotFoundError: nothing found; names where.
        ValueError: an unknown set.

    Source:
        Weston et al. 2015, the archive of version 1.2. The files of en are known by their
        SHA-256; those of other sets must be read without an error.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from memlib.tasks import find_babi
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     path = Path(parent, "en", "qa1_single-supporting-fact_train.txt")
        ...     path.parent.mkdir()
        ...     path.touch()
        ...     find_babi(parent).name
        'en'
    """
    if subset is not None:
        checks.choice("subset", subset, SETS)
    places = _places() if path is None else {"path": Path(path).expanduser()}
    for place in places.values():
        if place and (found := _find(place, subset)):
            return found
    if download and path is None:
        return _download(subset or "en")
    looked = "; ".join(f"{name}, {place or 'not set'}" for name, place in places.items())
    wanted = f"subset={subset!r}, " if subset else ""
    raise FileNotFoundError(
        f"no bAbI files of the set {subset or 'en'}; looked in: {looked}. "
        f"find_babi({wanted}download=True) downloads them; or unpack {URL} and give its folder, "
        "as path or in MEMLIB_DATA"
    )


def babi_file(folder: str | Path, task: int, split: str) -> Path:
    """Return the file of one task, ``qaN_*_SPLIT.txt``.

    Args:
        folder: from `find_babi`.
        task: number in [1, 20].
        split: train or test; sets such as en-valid have valid too.

    Returns:
        A path for `read_babi`.

    Raises:
        BabiError: more than one such file.
        FileNotFoundError: no such file.
        TypeError: task no integer.
        ValueError: no such task or split.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from memlib.tasks import babi_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, "qa7_counting_test.txt").touch()
        ...     babi_file(folder, 7, "test").name
        'qa7_counting_test.txt'
    """
    task = checks.integer("task", task, 1, 20)
    checks.choice("split", split, SPLITS)
    found = [file for file in _files(Path(folder)) if _is(file, task, split)]
    if not found:
        raise FileNotFoundError(f"{folder} must hold qa{task}_*_{split}.txt; got none")
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise BabiError(f"{folder} must hold one qa{task}_*_{split}.txt; got {names}")
    return found[0]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("qa*.txt") if FILE.fullmatch(path.name))


def _is(file: Path, task: int, split: str) -> bool:
    return file.name.startswith(f"qa{task}_") and file.name.endswith(f"_{split}.txt")


def _places() -> dict[str, Path | None]:
    """Return where to look without a path, in order."""
    told = os.environ.get("MEMLIB_DATA")
    return {"MEMLIB_DATA": Path(told).expanduser() if told else None, "the cache": _cache()}


def _cache() -> Path:
    told = Path(os.environ.get("XDG_CACHE_HOME", ""))  # to be ignored unless absolute, by its rules
    return (told if told.is_absolute() else Path.home() / ".cache") / "memlib" / "babi"


def _find(place: Path, subset: str | None) -> Path | None:
    """Return the folder of a set in a place, or none."""
    name = place.resolve().name
    itself = [place] if subset in (None, name) or name not in SETS else []
    inside = subset or "en"
    return next((f for f in (*itself, place / inside, place / TOP / inside) if _files(f)), None)


def _download(subset: str) -> Path:
    """Bring a set into the cache, whole or not at all."""
    cache = _cache()
    cache.mkdir(parents=True, exist_ok=True)
    archive = cache / URL.rpartition("/")[2]
    if not archive.exists():  # it is kept, for the other sets
        _fetch(archive)
    with tempfile.TemporaryDirectory(prefix=".", dir=cache) as beside:
        folder = Path(beside, subset)
        try:
            _unpack(archive, folder)
            _check(folder)
        except CORRUPT as error:
            archive.unlink(missing_ok=True)
            raise BabiError(f"{archive.name} was corrupt and is removed: {error}") from error
        try:
            folder.rename(cache / subset)
        except OSError:
            if not _files(cache / subset):  # else another process was first
                raise
    return cache / subset


def _fetch(archive: Path) -> None:
    """Download the archive; what an interruption leaves is gone on with the next time."""
    begun = archive.with_name(archive.name + ".partial")
    done = begun.stat().st_size if begun.exists() else 0
    request = urllib.request.Request(URL, headers={"Range": f"bytes={done}-"} if done else {})
    total = None
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            if not response.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
                done = 0  # the server begins anew
            if length := response.headers.get("Content-Length"):
                total = done + int(length)
            with begun.open("ab" if done else "wb") as file:
                for piece in _shown(iter(partial(response.read, 1 << 16), b""), done, total):
                    file.write(piece)
    except (OSError, HTTPException) as error:
        whole = isinstance(error, HTTPError) and error.code == 416  # nothing is left to send
        if not whole:
            raise ConnectionError(f"{URL} cannot be downloaded: {error}") from error
    if total is not None and (size := begun.stat().st_size) < total:
        raise ConnectionError(f"{URL} broke off after {size} of {total} bytes; ask again to go on")
    begun.replace(archive)


def _shown(pieces: Iterable[bytes], done: int, total: int | None) -> Iterator[bytes]:
    """Pass the pieces on, under a progress bar where tqdm is installed and a terminal looks on."""
    try:
        from tqdm import tqdm
    except ImportError:
        yield from pieces
        return
    units = {"unit": "B", "unit_scale": True}
    with tqdm(desc="bAbI", total=total, initial=done, disable=None, **units) as bar:
        for piece in pieces:
            yield piece
            bar.update(len(piece))


def _unpack(archive: Path, folder: Path) -> None:
    """Write the files of the set that the folder is named after; nothing is written elsewhere."""
    with gzip.open(archive) as stream:
        while stream.read(1 << 20):  # up to the checksum at its end, which tarfile does not reach
            pass
    folder.mkdir()
    with tarfile.open(archive) as members:
        for member in members:
            path = PurePosixPath(member.name)
            if path.is_absolute() or ".." in path.parts:
                raise BabiError(f"a path must stay in its folder; got {member.name!r}")
            if path.parts[-2:-1] != (folder.name,) or not FILE.fullmatch(path.name):
                continue
            source = members.extractfile(member) if member.isfile() else None
            if source is None:
                raise BabiError(f"{member.name} must be a plain file")
            with source, (folder / path.name).open("wb") as file:
                shutil.copyfileobj(source, file)
                file.flush()
                os.fsync(file.fileno())  # the data reaches the disk before the folder's name does


def _check(folder: Path) -> None:
    """Refuse a set that is not complete, or not what it should be."""
    for task in range(1, 21):
        for split in ("train", "test"):
            babi_file(folder, task, split)
    known = _sums() if folder.name == "en" else None
    for file in _files(folder):
        if known is None:
            read_babi(file)
        elif (got := hashlib.sha256(file.read_bytes()).hexdigest()) != known.get(file.name):
            raise BabiError(f"{file.name} must have its known SHA-256; got {got}")


def _sums() -> dict[str, str]:
    """Return the SHA-256 of each file of en."""
    text = (resources.files("memlib.tasks") / "babi_en.sha256").read_text()
    return {name: digest for digest, name in map(str.split, text.splitlines())}
