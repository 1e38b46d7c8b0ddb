"""Where these tests run: in .venv what they need may be missing; `make extras` brings it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import memlib


def test_memlib_is_that_of_the_wheel_where_extras_are_there() -> None:
    home = os.environ.get("MEMLIB_EXTRAS")
    if home is None:
        pytest.skip("only under `make extras`")
    assert Path(home).resolve() in Path(memlib.__file__).resolve().parents
