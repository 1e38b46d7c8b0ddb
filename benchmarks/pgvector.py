"""PostgreSQL with pgvector as an engine: recall and time of its searches, beside an exact store.

Keys, values and queries come from N(0, I), without clusters: the hardest case for a graph. The k
nearest by the dot product are read for all queries at once: by `memlib.Store`, by the table without
its index, and over its graph at each effort (``hnsw.ef_search``). Recall is the share of the exact
k that is found. All ways run in turn, and medians of the time on the clock are compared. The server
is started for this, on the same machine, with settings that a real one would not have: nothing is
synced.

Needs what `make extras` installs: ``.build/extras/bin/python -m benchmarks pgvector``.
"""

import sys
import time
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.ntm import timed
from benchmarks.store import ROOT, WIDTH, K
from memlib.store import Store, retrieve

PAIRS, QUERIES, BUDGET = 10_000, 8, 20.0  # seconds for all ways
EFFORTS = (None, 40, 100, 200, 400, 1000)


def recall(ids: Tensor, exact: Tensor) -> float:
    """Return the share of the exact ids, (B, L, k), that is among those found."""
    return float((exact.unsqueeze(-1) == ids.unsqueeze(-2)).any(-1).double().mean())


def run(pairs: int = PAIRS) -> dict[str, Any]:
    """Measure all ways."""
    import psycopg

    sys.path.append(str(ROOT / "tools"))
    import postgres

    from memlib.integrations.pgvector import PgVector

    chance = torch.Generator().manual_seed(0)
    keys, values, query = (
        torch.randn(1, count, WIDTH, generator=chance) for count in (pairs, pairs, QUERIES)
    )
    store = Store(WIDTH, measure="dot")
    store.add(keys, values)
    exact, _ = store.address(query, K)
    with postgres.server() as settings:
        where = {"host": settings["PGHOST"], "user": "postgres", "dbname": "postgres"}
        with psycopg.connect(**where, autocommit=True) as connection:
            table = PgVector(connection, "facts", WIDTH, measure="dot")
            start = time.perf_counter()
            table.add(keys, values)
            added = time.perf_counter()
            table.build_index(links=16, effort=64)
            built = time.perf_counter()
            connection.execute("ANALYZE facts")

            def read(effort: int | None) -> Tensor:
                table.effort = effort
                return retrieve(query, table, K, need_weights=True)[1]

            ways = {str(effort): partial(read, effort) for effort in EFFORTS}
            own = {"store": lambda: store.read(query, K)}
            times = timed(own | ways, BUDGET, clock=time.perf_counter)
            rows = [{"way": "memlib.Store", "recall": 1.0, "ms": times["store_ms"]}]
            for effort in EFFORTS:
                name = f"pgvector, {'exact' if effort is None else f'HNSW at {effort}'}"
                found = round(recall(read(effort), exact), 4)
                rows.append({"way": name, "recall": found, "ms": times[f"{effort}_ms"]})
            asked = "SELECT current_setting('server_version'), extversion FROM pg_extension"
            server, extension = connection.execute(f"{asked} WHERE extname = 'vector'").fetchone()
    told = {"pairs": pairs, "width": WIDTH, "queries": QUERIES, "k": K}
    told |= {"seconds to add": round(added - start, 2), "seconds to build": round(built - added, 2)}
    return told | {"rows": rows, "server": server, "pgvector": extension}


def report(found: dict[str, Any]) -> str:
    """Return the table as text."""
    lines = [f"{'search':24}{'recall':>8}{'ms':>10}"]
    lines += [f"{row['way']:24}{row['recall']:8.3f}{row['ms']:10.2f}" for row in found["rows"]]
    more = {name: value for name, value in found.items() if name != "rows"}
    return "\n".join([*lines, "", *(f"{name:20}{value!s:>10}" for name, value in more.items())])
