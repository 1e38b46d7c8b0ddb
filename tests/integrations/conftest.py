"""A PostgreSQL for all tests of a session; without its packages the tests that need it skip."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session")
def server() -> Iterator[dict[str, str]]:
    """What to set to be connected to it."""
    postgres = pytest.importorskip("postgres", reason="the source archive holds no tools")
    pytest.importorskip("psycopg", reason="needs psycopg: `make extras`")
    try:
        with postgres.server() as settings:
            yield settings
    except ImportError as error:
        pytest.skip(f"{error}: `make extras`")


@pytest.fixture
def connection(server: dict[str, str]) -> Iterator[Any]:
    """A connection whose changes are gone afterwards."""
    import psycopg

    names = {"PGHOST": "host", "PGUSER": "user", "PGDATABASE": "dbname"}
    with (
        psycopg.connect(**{names[n]: v for n, v in server.items()}) as one,
        one.transaction(force_rollback=True),
    ):
        yield one
