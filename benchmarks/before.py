"""memlib before and after a change: an older checkout beside this one, in one run.

    git worktree add --detach FOLDER COMMIT
    python -m benchmarks before --tree FOLDER

The workloads of the benchmarks attend, store, ntm and dnc, without their peers, are run by two
processes: one has the memlib of the older tree, the other this one's, and all else is the same.
They take turns, case by case and in changing order, so that what else the machine does falls on
both alike. Medians of CPU time and of the time on the clock are compared; a ratio is older/newer,
above 1 where it has become faster. Which pages of memory a process got is its luck for life, and
two of the same code may differ by half: so several pairs of processes run one after the other, and
the least median of each tree counts. ``distance`` is what `attend` by negative_squared_distance
takes relative to `attend` by dot in the same tree.
"""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import memlib
from benchmarks import attend, ntm, store
from memlib.attention.verbs import Measure
from memlib.store.indexes import Backend, faiss

HERE = Path(__file__).resolve().parents[1]
TREES = ("older", "newer")
CLOCKS = ("cpu", "wall")
MEASURES: dict[str, Measure] = {"dot": "dot", "distance": "negative_squared_distance"}
TURN = 0.02  # seconds that a turn takes at least: short calls are repeated
FEWEST = 3  # turns of each process, however long they take
PAIRS = 5  # of processes, one after the other

Workload = dict[str, Any]
Ways = dict[str, Callable[[], Tensor]]


def workloads(*, quick: bool = False, compiled: bool = False) -> list[Workload]:
    """Return what is measured: the arguments of `ways`."""
    shapes = [(1, 256)] if quick else sorted({(b, n) for b, _, n in attend.cells()})
    large, small, one = (2_000, 1_000, 4_000) if quick else (1_000_000, 20_000, 1 << 20)
    batches, steps = ([1, 2], 5) if quick else (list(ntm.BATCHES), ntm.STEPS)
    found: list[Workload] = [{"benchmark": "attend", "batch": b, "slots": n} for b, n in shapes]
    found += [{"benchmark": "distance", "slots": one}]
    found += [{"benchmark": "store", "backend": "exact", "slots": large}]
    if importlib.util.find_spec("faiss"):
        found += [{"benchmark": "store", "backend": "hnsw", "slots": small}]
    found = [workload | {"threads": 1 if quick else 2} for workload in found]
    for word in ("", " compiled") if compiled else ("",):
        for name in ("NTM", "DNC"):
            kind = {"benchmark": name.lower() + word, "machine": name, "compiled": bool(word)}
            found.append(kind | {"batches": batches, "steps": steps, "threads": 1})
    return found


# In the process of a tree


def ways(benchmark: str, threads: int, **sizes: Any) -> Ways:
    """Return what is timed, each by its name."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    makers: dict[str, Callable[..., Ways]]
    makers = {"attend": attends, "distance": distances, "store": stores}
    return makers.get(benchmark, machines)(**sizes)


def attends(batch: int, slots: int) -> Ways:
    """Return reads of the benchmark's grid."""
    keys, values = (torch.randn(batch, 1, slots, attend.WIDTH) for _ in range(2))
    queries = {n: torch.randn(batch, 1, n, attend.WIDTH) for n in attend.QUERIES}
    return {f"queries {n}": partial(memlib.attend, q, keys, values) for n, q in queries.items()}


def distances(slots: int) -> Ways:
    """Return reads of one memory by two measures."""
    keys, values = (torch.randn(1, slots, attend.WIDTH) for _ in range(2))
    queries = {n: torch.randn(1, n, attend.WIDTH) for n in (1, 64)}
    return {
        f"{name} {n}": partial(memlib.attend, query, keys, values, measure=measure)
        for n, query in queries.items()
        for name, measure in MEASURES.items()
    }


def stores(backend: Backend, slots: int) -> Ways:
    """Return reads of the k nearest, and of an exact store what is added to it."""
    if backend != "exact":
        faiss(backend).omp_set_num_threads(torch.get_num_threads())
    keys, values, query = store.draw(slots)
    new = partial(memlib.Store, store.WIDTH, measure="dot", backend=backend)
    asked, full = new(), new(capacity=slots)
    asked.add(keys, values)
    found: Ways = {f"read {n}": partial(asked.read, query[:, :n], store.K) for n in store.QUERIES}
    if backend == "exact":
        full.add(keys, values)  # from now on it forgets as much as it takes in
        for n in (1, 1_000):
            found[f"add {n}"] = partial(full.add, keys[:, :n], values[:, :n])
        found["fill"] = lambda: new().add(keys, values)
    return found


def machines(machine: str, compiled: bool, batches: Sequence[int], steps: int) -> Ways:
    """Return forward and backward of a machine over sequences of each batch."""
    model = {"NTM": memlib.NTM, "DNC": memlib.DNC}[machine](9, 8)
    if compiled:
        model.compile(dynamic=False)

    @torch.enable_grad()
    def learn(x: Tensor, y: Tensor) -> Tensor:
        loss = F.binary_cross_entropy_with_logits(model(x)[0], y)
        loss.backward()
        return loss.detach()

    drawn = {n: [torch.rand(n, steps, size).round() for size in (9, 8)] for n in batches}
    return {f"batch {n}": partial(learn, *both) for n, both in drawn.items()}


def clocked(way: Callable[[], Tensor], calls: int) -> list[float]:
    """Return the seconds of a call, in the order of `CLOCKS`."""
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(calls):
        way()
    return [(time.process_time() - cpu) / calls, (time.perf_counter() - wall) / calls]


@torch.no_grad()
def work() -> None:
    """Answer each line of stdin: a workload by its results, and a way's turn by its seconds."""
    print(json.dumps(memlib.__file__), flush=True)
    made: Ways = {}
    for line in sys.stdin:
        asked = json.loads(line)
        if isinstance(asked, dict):
            made.clear()  # makes room
            made = ways(**asked)
            answer: Any = {name: way().double().abs().mean().item() for name, way in made.items()}
        else:
            name, calls = asked
            answer = clocked(made[name], calls)
        print(json.dumps(answer), flush=True)


# In the process that compares


class Worker:
    """A process that runs this file with the memlib of a tree."""

    def __init__(self, tree: Path, place: Path) -> None:
        self.tree = tree
        place.mkdir()
        (place / "memlib").symlink_to(tree / "memlib")
        (place / "benchmarks").symlink_to(HERE / "benchmarks")
        path = os.pathsep.join([str(place), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.before"],
            cwd=place,
            env=os.environ | {"PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, what: Any) -> None:
        """Send a line."""
        assert self.process.stdin
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()

    def hear(self) -> Any:
        """Wait for an answer."""
        assert self.process.stdout
        if line := self.process.stdout.readline():
            return json.loads(line)
        raise RuntimeError(f"the worker of {self.tree} has ended; its last words are above")

    def turn(self, way: str, calls: int) -> list[float]:
        """Return the seconds of a call."""
        self.tell([way, calls])
        return list(self.hear())


@contextmanager
def workers(older: Path) -> Iterator[dict[str, Worker]]:
    """Hold a worker for each tree."""
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        found = {}
        for name, tree in zip(TREES, (older.resolve(), HERE), strict=True):
            folder = Path(place).resolve() / name
            found[name] = Worker(tree, folder)
            stack.enter_context(found[name].process)
            if not Path(taken := found[name].hear()).is_relative_to(folder):
                raise RuntimeError(f"a worker must have the memlib of {tree}; got {taken}")
        yield found


def compare(pair: dict[str, Worker], workload: Workload, budget: float) -> list[dict[str, Any]]:
    """Let both trees take turns for about `budget` seconds; return a row for each way."""
    for worker in pair.values():
        worker.tell(workload)
    results = {tree: worker.hear() for tree, worker in pair.items()}
    names = list(results["older"])
    calls = {}
    for name in names:  # as many for both
        shortest = min(pair["older"].turn(name, 1)[1] for _ in range(3))
        calls[name] = max(1, round(TURN / shortest))
    seconds: dict[tuple[str, str], list[list[float]]] = {(n, t): [] for n in names for t in TREES}
    begin, turns = time.perf_counter(), 0
    while turns < FEWEST or time.perf_counter() - begin < budget:
        for name in names:
            for tree in TREES if turns % 2 else TREES[::-1]:
                seconds[name, tree].append(pair[tree].turn(name, calls[name]))
        turns += 1
    rows = []
    for name in names:
        row = workload | {"way": name, "turns": turns, "calls": calls[name]}
        before, after = (results[tree][name] for tree in TREES)
        row["apart"] = abs(after - before) / (abs(before) or 1.0)
        for i, clock in enumerate(CLOCKS):
            for tree in TREES:
                middle = median(turn[i] for turn in seconds[name, tree])
                row[f"{tree}_{clock}_ms"] = round(1e3 * middle, 5)
        rows.append(row)
    return rows


def least(same: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return a row for one way of the rows that several pairs made of it."""
    row = same[0] | {"turns": sum(one["turns"] for one in same)}
    for clock in CLOCKS:
        names = [f"{tree}_{clock}_ms" for tree in TREES]
        row |= {name: min(one[name] for one in same) for name in names}
        row[clock] = round(row[names[0]] / row[names[1]], 4)
    return row


def commit(tree: Path) -> str:
    """Return the commit of a checkout, and whether its memlib has changed since."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(tree), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    try:
        prefix, found = git("rev-parse", "--show-prefix", "HEAD").split("\n")[:2]
        changed = git("status", "--porcelain", "--", "memlib")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    if prefix:  # a folder within another checkout
        return "unknown"
    return f"{found}, changed" if changed else found


def run(
    tree: Path | None, *, quick: bool = False, compiled: bool = False, budget: float = 22.0
) -> dict[str, Any]:
    """Compare with an older tree, for about `budget` seconds each workload.

    Args:
        tree: a checkout.
        quick: over small sizes, to see that it runs.
        compiled: the steps of NTM and DNC compiled as well, which takes minutes.
        budget: seconds of all pairs together; a hundredth of it for each where `quick`.

    Raises:
        SystemExit: the tree holds no memlib.
    """
    if tree is None or not (tree / "memlib" / "__init__.py").is_file():
        raise SystemExit(
            f"before needs --tree FOLDER, a checkout that holds memlib; got {tree}. "
            "To make one: git worktree add --detach FOLDER COMMIT"
        )
    load, pairs = round(os.getloadavg()[0], 1), 2 if quick else PAIRS
    found: list[list[dict[str, Any]]] = [[] for _ in range(pairs)]
    for rows in found:
        with workers(tree) as pair:
            for workload in workloads(quick=quick, compiled=compiled):
                rows += compare(pair, workload, budget / (100 if quick else pairs))
    rows = [least(same) for same in zip(*found, strict=True)]
    return {
        "commits": dict(zip(TREES, map(commit, (tree, HERE)), strict=True)),
        "load": load,  # of the machine, before; 0 at rest
        "rows": rows,
        "ratios": ratios(rows),
        "distance": relative(rows),
    }


def ratios(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return the geometric mean of older/newer over each benchmark, by each clock.

    Of attend once more over what its own summary takes: calls whose cost is that of reading.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["benchmark"] != "distance":  # beside dot, see `relative`
            found.setdefault(row["benchmark"], []).append(row)
            if row["benchmark"] == "attend" and row["older_wall_ms"] > 1e3 * attend.WORTH_COMPARING:
                found.setdefault("attend from 1 ms", []).append(row)
    return {
        name: {clock: round(geometric_mean(row[clock] for row in of), 3) for clock in CLOCKS}
        for name, of in found.items()
    }


def relative(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return how long attend by distance takes relative to attend by dot, in each tree."""
    times = [f"{tree}_{clock}" for clock in CLOCKS for tree in TREES]
    of = {row["way"]: row for row in rows if row["benchmark"] == "distance"}
    found = []
    for n in (1, 64) if of else ():
        distance, dot = of[f"distance {n}"], of[f"dot {n}"]
        by = {time: round(distance[f"{time}_ms"] / dot[f"{time}_ms"], 3) for time in times}
        found.append({"queries": n} | by)
    return found


def report(figures: dict[str, Any]) -> str:
    """Return the table, in milliseconds, and the ratios."""
    lines = [f"{tree}: {found}" for tree, found in figures["commits"].items()]
    names = [f"{tree}_{clock}_ms" for clock in CLOCKS for tree in TREES] + list(CLOCKS)
    lines += ["", f"{'workload':44}" + "".join(f"{name:>14}" for name in (*names, "apart"))]
    for row in figures["rows"]:
        sizes = (row.get(name, "") for name in ("backend", "batch", "slots", "way"))
        what = " ".join(str(word) for word in (row["benchmark"], *sizes) if word)
        numbers = "".join(f"{row[name]:>14.3f}" for name in names)
        lines.append(f"{what:44}{numbers}{row['apart']:>14.1e}")
    lines += ["", "times faster than before, geometric mean:"]
    for name, means in figures["ratios"].items():
        lines.append(f"{name:20}" + ", ".join(f"{means[clock]} by {clock}" for clock in CLOCKS))
    for row in figures["distance"]:
        lines += ["", f"attend by distance/by dot, queries {row['queries']}:"]
        lines += [f"    {name}: {value}" for name, value in row.items() if name != "queries"]
    return "\n".join(lines)


if __name__ == "__main__":
    work()
