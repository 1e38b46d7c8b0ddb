"""Tries a release, up to an index on this machine (`make release`).

Builds wheel and source archive into dist/ and serves them as an index does. From there pip installs
this version into an environment that holds torch, numpy and what they need, borrowed from this one.
There memlib is imported and README's example runs, as the index would show it; tests of the source
archive run from the archive that pip fetched.
"""

from __future__ import annotations

import functools
import hashlib
import http.server
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))

import archive
from environment import calm

from tests import sites

TESTS = ("tests/test_saved.py", "tests/test_checks.py", "tests/test_key_value.py")
# README stands in the wheel's metadata; its example is the first that is Python.
EXAMPLE = """
import re, sys
from importlib.metadata import metadata
import memlib
assert memlib.__file__.startswith(sys.prefix), memlib.__file__
assert memlib.__version__ == metadata("memlib")["Version"] == sys.argv[1], memlib.__version__
exec(re.search("```python\\n(.*?)```", str(metadata("memlib").get_payload()), re.S)[1])
"""


def build(folder: Path, root: Path = ROOT) -> list[Path]:
    """Builds wheel and source archive of this version into a folder, in the place of older ones."""
    shutil.rmtree(folder, ignore_errors=True)
    _run([sys.executable, "-m", "hatchling", "build", "-d", str(folder)], root)
    wanted = [f"memlib-{archive.version()}-py3-none-any.whl", f"memlib-{archive.version()}.tar.gz"]
    if (made := sorted(path.name for path in folder.iterdir())) != wanted:
        raise SystemExit(f"a release must be {' and '.join(wanted)}; got {made}")
    return [folder / name for name in wanted]


def index(files: Sequence[Path], folder: Path) -> Path:
    """Lays out a package index of these files: PEP 503."""
    place = folder / "simple" / "memlib"
    place.mkdir(parents=True)
    lines = []
    for path in files:
        shutil.copy(path, place)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        lines.append(f'<a href="{path.name}#sha256={digest}">{path.name}</a>')
    (place / "index.html").write_text("<!DOCTYPE html>\n" + "\n".join(lines))
    return folder


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files in silence."""

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of an index, while it is served on this machine alone."""
    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/simple/"
        server.shutdown()


def prove(files: Sequence[Path], folder: Path, tests: Sequence[str] = TESTS) -> None:
    """Installs from an index of these files, and runs what a stranger would.

    Raises:
        subprocess.CalledProcessError: a step failed; what it said was printed.
    """
    version = archive.version()
    with served(index(files, folder / "index")) as address:
        options = ["--isolated", "--no-cache-dir", "--disable-pip-version-check", "--quiet"]
        options += ["--index-url", address]
        python = sites.make(folder / "empty", [*sites.LIBRARY, "pip"])
        pip = [str(python), "-m", "pip"]
        _run([*pip, "install", *options, f"memlib=={version}"], folder)
        _run([str(python), "-I", "-c", EXAMPLE, version], folder)
        if not tests:
            return
        source = ["--no-binary", "memlib", "--no-deps", "--no-build-isolation"]
        tools = sites.make(folder / "tools", [*sites.LIBRARY, *sites.IMPORTED, *sites.TOOLS])
        fetch = [str(tools), "-m", "pip", "download", *options, *source, f"memlib=={version}"]
        _run([*fetch, "--dest", str(folder)], folder)
    shutil.unpack_archive(folder / files[-1].name, folder, filter="data")
    _run([str(tools), "-m", "pytest", "-q", "-m", "not slow", *tests], folder / f"memlib-{version}")


def _run(command: Sequence[str], folder: Path) -> None:
    began, env = time.monotonic(), calm() | {"NO_PROXY": "127.0.0.1"}
    done = subprocess.run(
        command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    what = " ".join(Path(word).name for word in command[1:4] if len(word) < 99)
    print(f"{what}: {time.monotonic() - began:.0f} s", flush=True)
    if done.returncode:
        print(done.stdout)
        raise subprocess.CalledProcessError(done.returncode, command)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="memlib-") as scratch:
        prove(build(ROOT / "dist"), Path(scratch))
    print(f"dist/ holds memlib {archive.version()}, as it was installed")
