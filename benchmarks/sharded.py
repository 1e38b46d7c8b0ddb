"""A store in parts: time a read on 1, 2 and 3 processes, beside one process of as many threads.

A million pairs of 64 + 64 float32, eight queries that every rank asks, without gradients: a read of
the 32 nearest and one of all pairs. The processes are on this machine, each with one thread, and
talk over its loopback; the other side is one `Store` with one thread for each of them. Both sides
take turns, round by round.
"""

import os
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from statistics import median
from typing import Any

import torch
import torch.distributed as dist

from memlib import ShardedStore, Store

PAIRS, WIDTH, QUERIES, ROUNDS = 1_000_000, 64, 8, 9
SIZES, CHOSEN = (1, 2, 3), {"32 nearest": 32, "all": PAIRS}


def work(rank: int, size: int, folder: str, asked: Any, answers: Any) -> None:
    """In one of `size` processes: make a part, then read whenever it is asked to."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/m", rank=rank, world_size=size)
    store = ShardedStore(WIDTH, queries="own")  # each rank makes its own pairs
    keys, values, query = drawn(PAIRS // size + (rank < PAIRS % size), rank)
    store.add(keys, values)
    answers.put(None)
    store.queries = "same"
    while (k := asked.get()) is not None:
        answers.put(seconds(lambda: store.read(query, k)))
    dist.destroy_process_group()


def drawn(pairs: int, seed: int) -> tuple[torch.Tensor, ...]:
    """Return keys and values, and queries which do not depend on the seed."""
    query = torch.randn(1, QUERIES, WIDTH, generator=torch.Generator().manual_seed(99))
    chance = torch.Generator().manual_seed(seed)
    return *torch.randn(2, 1, pairs, WIDTH, generator=chance), query


def seconds(read: Callable[[], Any]) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    with torch.no_grad():
        read()
    return time.perf_counter() - start


def measured(size: int) -> list[dict[str, Any]]:
    """Return a row for each kind of read, by so many processes and by so many threads."""
    context = get_context("spawn")
    asked, answers = [context.SimpleQueue() for _ in range(size)], context.SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        ranks = [
            context.Process(target=work, args=(rank, size, folder, asked[rank], answers))
            for rank in range(size)
        ]
        for rank in ranks:
            rank.start()
        keys, values, query = drawn(PAIRS, 0)
        store = Store(WIDTH)
        store.add(keys, values)
        torch.set_num_threads(size)

        def together(k: int) -> float:
            for queue in asked:
                queue.put(k)
            return max(answers.get() for _ in ranks)  # the last to have it

        for _ in ranks:
            answers.get()
        rows = []
        for name, k in CHOSEN.items():
            pairs = [(together(k), seconds(lambda k=k: store.read(query, k)))  # type: ignore[misc]
                     for _ in range(ROUNDS + 1)][1:]  # the first warms up  # fmt: skip
            ratios = sorted(one / other for one, other in pairs)
            times = [round(1e3 * median(side), 1) for side in zip(*pairs, strict=True)]
            rows.append(
                {"processes": size, "read": name, "parts_ms": times[0], "threads_ms": times[1]}
                | {"ratio": round(median(ratios), 2), "ratios": [round(r, 2) for r in ratios]}
            )
        for queue, rank in zip(asked, ranks, strict=True):
            queue.put(None)
            rank.join()
    return rows


def run() -> dict[str, Any]:
    """Measure all of it."""
    threads = torch.get_num_threads()
    rows = [row for size in SIZES for row in measured(size)]
    torch.set_num_threads(threads)
    return {
        "rows": rows,
        "pairs": PAIRS,
        "width": WIDTH,
        "queries": QUERIES,
        "cores": os.cpu_count(),
    }


def report(found: dict[str, Any]) -> str:
    """Return the table as text."""
    lines = [f"{'read':12}{'processes':>10}{'ms':>9}{'threads: ms':>13}{'ratio':>7}   spread"]
    for row in found["rows"]:
        spread = f"{row['ratios'][0]:.2f} to {row['ratios'][-1]:.2f}"
        lines.append(
            f"{row['read']:12}{row['processes']:10}{row['parts_ms']:9.1f}{row['threads_ms']:13.1f}"
            f"{row['ratio']:7.2f}   {spread}"
        )
    return "\n".join(lines)
