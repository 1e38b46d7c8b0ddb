"""A pytest plugin beside nbmake: tells which cell runs, and what the kernel cost in the end.

It writes both to the file that `NOTEBOOK_STATE` names; tools/notebooks.py reads it.
"""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Generator
from pathlib import Path
from typing import Any

import nbmake.nb_run
import pytest
from nbclient import NotebookClient

STATE = Path(os.environ["NOTEBOOK_STATE"])


def tell(**state: float) -> None:
    """Puts the state in the place of the one before."""
    beside = STATE.with_suffix(".partial")
    beside.write_text(json.dumps(state))
    beside.replace(STATE)


class Client(NotebookClient):
    """Nbclient, with a word before each cell; what a cell prints is one piece, however it came."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, coalesce_streams=True, **options)
        self.on_cell_start = lambda cell, cell_index: tell(cell=cell_index)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Runs one notebook; the CPU seconds are those of the kernel and of all that it started."""
    nbmake.nb_run.NotebookClient = Client
    try:
        return (yield)
    finally:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        cell = json.loads(STATE.read_text())["cell"] if STATE.exists() else 0
        tell(cell=cell, cpu=used.ru_utime + used.ru_stime)
