"""A browser with every outside host blocked, and a server over the built pages."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import archive
import numpy as np
import pytest
from checks import HTML
from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = [
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE localhost , EXCLUDE 127.0.0.1",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files in silence."""

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One browser a worker; without one CI fails, and elsewhere the tests are skipped aloud."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        message = f"no page was tested: none of {', '.join(NAMES)} is installed"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def rng() -> np.random.Generator:
    """Random input drawn anew each time; a failure tells the seed, and PAGES_SEED repeats it."""
    seed = int(os.environ.get("PAGES_SEED", np.random.SeedSequence().entropy % (1 << 32)))
    sys.stderr.write(f"PAGES_SEED={seed}\n")
    return np.random.default_rng(seed)


@pytest.fixture(scope="session")
def serve() -> Iterator[Callable[[Path], str]]:
    """A function that serves a folder and returns its address."""
    servers = []

    def start(folder: Path) -> str:
        handler = functools.partial(Handler, directory=str(folder))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def book(serve: Callable[[Path], str]) -> str:
    """The address of the built book."""
    return serve(HTML)


@pytest.fixture(scope="session")
def disk(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of the book as a reader has it who unpacked its archive."""
    folder = tmp_path_factory.mktemp("a böok, offline")
    with zipfile.ZipFile(archive.pack(HTML, folder)) as held:
        held.extractall(folder)
    (unpacked,) = (path for path in folder.iterdir() if path.is_dir())
    return "file://" + quote(str(unpacked))
