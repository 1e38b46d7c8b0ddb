"""A store in a folder, put through what ends processes and harms files.

``kills``: a process of its own adds, overwrites and deletes pairs and says what it is about to do
and what was acknowledged; it is killed at a random moment, and another goes on with the same
files. Each time the store must hold exactly what was acknowledged, and of the call under way
nothing or all. (`kill -9` leaves the pages of the system as they are: whether they reach the disk
is a matter of `fdatasync`, which no kill can test; so the files are damaged, too.)

``damages``: bits, pieces, zeros or the end of one file of a store are changed at random. Each must
be harmless, or found when the pairs are read, or by `verify`, with what was lost named; and what
the store gives must be right.
"""

import argparse
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments import command_line, records
from experiments.progress import tqdm
from tests.store import durability


def kills(count: int, seed: int) -> dict[str, Any]:
    """Kill so many writers; return how many calls they had acknowledged, and what was wrong."""
    truth: dict[object, object] = {}
    acknowledged = wrong = 0
    with tempfile.TemporaryDirectory() as name, durability.Writers() as writers:
        folder = Path(name, "store")
        for n in tqdm(range(count), "kills", disable=None):
            said = writers.kill_one(folder, seed * 1_000_000 + n)
            may_be = [durability.rounded(x) for x in durability.told(said, truth)]
            truth = durability.found(folder)
            wrong += truth not in may_be
            acknowledged += said.count("done")
    return {"count": count, "acknowledged": acknowledged, "wrong": wrong}


def damages(count: int, seed: int) -> dict[str, Any]:
    """Damage a store so many times; return how often each file was hit, and what was wrong."""
    hit: Counter[str] = Counter()
    wrong = []
    with tempfile.TemporaryDirectory() as name, durability.small_pieces():
        folder = Path(name, "store")
        truth = durability.lived(folder, torch.Generator().manual_seed(seed))
        for n in tqdm(range(count), "damages", disable=None):
            beside = folder.with_name(f"damaged{n}")
            shutil.copytree(folder, beside)
            what = durability.damage(beside, np.random.default_rng([seed, n]))
            hit[what[0]] += 1
            if not durability.is_harmless_or_found(beside, truth):
                wrong.append(what)
            shutil.rmtree(beside)
    return {"count": count, "files": dict(sorted(hit.items())), "wrong": wrong}


def main(arguments: list[str]) -> int:
    """Run both and record them."""
    parser = argparse.ArgumentParser(prog="python -m experiments durability", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--damages", type=int, default=1000)
    command_line.add_results(parser)
    command_line.add_running(parser)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    start = time.perf_counter()
    command = "python -m experiments durability"
    command += f" --seed {options.seed} --kills {options.kills} --damages {options.damages}"
    record = {"experiment": "durability", "seed": options.seed, "command": command}
    found = {"kills": kills(options.kills, options.seed)}
    found |= {"damages": damages(options.damages, options.seed)}
    record |= found | {"seconds": round(time.perf_counter() - start)}
    record |= records.origin(records.maker(command))
    records.merge(options.results / "durability.json", record, ("experiment", "seed"))
    print(*found.values(), sep="\n")
    return int(any(part["wrong"] for part in found.values()))
