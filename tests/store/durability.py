"""What a durable store is put through: writers that are killed, and damage to its files."""

import json
import os
import subprocess
import sys
import time
from unittest import mock

import numpy as np
import pytest
import torch

from memlib import DurableStore
from memlib.store import log


def contents(store):
    """What each row holds: a dict from ids to keys and values."""
    rows = []
    for ids, keys, values in zip(store.ids, store.keys, store.values, strict=True):
        held = sorted((int(i), slot) for slot, i in enumerate(ids) if i >= 0)
        rows.append({i: (keys[slot].tolist(), values[slot].tolist()) for i, slot in held})
    return rows


def opened(path, **options):
    return DurableStore.open(path, durable=True, **options)


# A process imports what it needs once, and forks a writer for each line that it reads. A writer
# says in a file what it is about to do, and when that was acknowledged.
SERVER = """
import os, sys
import torch
from memlib import Store
from memlib.store import log

def write(folder, seed, words):
    said = os.open(words, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    def say(*parts): os.write(said, (" ".join(map(str, parts)) + "\\n").encode())
    store = Store.open(folder, durable=True, width=3, value_width=2)
    chance = torch.Generator().manual_seed(seed)
    def draw(*size): return torch.randn(size, generator=chance)
    def one(most): return int(torch.randint(most, (), generator=chance))
    held = sorted(store.ids[store.ids >= 0].tolist())
    while True:
        kind, count = one(4), 1 + one(8)
        if not one(12):
            store.reclaim()
        if kind < 2 or len(held) < 8:
            keys, values = draw(1, count, 3), draw(1, count, 2)
            say("try", "put", keys.tolist(), values.tolist())
            held += store.add(keys, values)[0].tolist()
        else:
            some = torch.randperm(len(held), generator=chance)[:count].tolist()
            ids = torch.tensor([[held[i] for i in some]])
            if kind == 2:
                keys, values = draw(1, ids.shape[1], 3), draw(1, ids.shape[1], 2)
                say("try", "put", keys.tolist(), values.tolist(), ids[0].tolist())
                store.overwrite(ids, keys, values)
            else:
                say("try", "drop", ids[0].tolist())
                store.delete(ids)
                held = [i for i in held if i not in ids[0].tolist()]
        say("done")

for line in sys.stdin:
    seed, folder, words = line.rstrip().split("|")
    if not (child := os.fork()):
        write(folder, int(seed), words)
    print(child, flush=True)
    os.waitpid(child, 0)
    print("gone", flush=True)
"""


class Writers:
    """A server of writers, each to be killed."""

    def __enter__(self):
        env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", SERVER]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=env)
        return self

    def __exit__(self, *error):
        self.process.communicate()

    def kill_one(self, folder, seed):
        """Let a writer work on a store, kill it at some moment, and return what it said."""
        words, chance = folder.with_name(f"{folder.name}.{seed}"), np.random.default_rng(seed)
        print(seed, folder, words, sep="|", file=self.process.stdin, flush=True)
        child = int(self.process.stdout.readline())
        enough, end = int(chance.integers(1, 60)), time.monotonic() + 60
        while time.monotonic() < end and (
            not words.exists() or words.read_bytes().count(b"\n") < enough
        ):
            time.sleep(0.0005)
        time.sleep(float(chance.random()) * 0.003)
        os.kill(child, 9)
        assert self.process.stdout.readline() == "gone\n"
        return words.read_text().splitlines()


def told(lines, truth):
    """What a store holds by what its writer said: with, and without, what it was about to do."""
    truth = dict(truth)
    following = truth.pop("next", 0)
    tried = None
    for line in lines:
        if line == "done":
            truth, following = carried_out(truth, following, *tried)
            tried = None
        else:
            _, kind, rest = line.split(" ", 2)
            tried = kind, json.loads("[" + rest.replace("] [", "], [") + "]")
    before = truth | {"next": following}
    if tried is None:
        return [before]
    after, following = carried_out(truth, following, *tried)
    return [before, after | {"next": following}]


def carried_out(truth, following, kind, parts):
    truth = dict(truth)
    if kind == "drop":
        for i in parts[0]:
            del truth[i]
        return truth, following
    keys, values = parts[0][0], parts[1][0]
    ids = parts[2] if len(parts) > 2 else range(following, following + len(keys))
    truth |= {i: (k, v) for i, k, v in zip(ids, keys, values, strict=True)}
    return truth, max(following, *(i + 1 for i in ids))


def found(path):
    store = opened(path)
    assert not (store.verify() >= 0).any()
    held = {
        i: tuple(torch.tensor(x).tolist() for x in pair) for i, pair in contents(store)[0].items()
    }
    held["next"] = int(store._next[0])
    store.close()
    return held


def rounded(truth):
    return {
        i: x if i == "next" else tuple(torch.tensor(part).tolist() for part in x)
        for i, x in truth.items()
    }


def small_pieces():
    """Let a checksum stand for few pairs, so that one damage leaves most of them whole."""
    return mock.patch.object(log, "CHUNK", 256)


def lived(path, chance):
    """Make a store that has seen changes, and return what it holds."""
    store = opened(path, width=3, value_width=2)
    for count in (60, 1, 1, 1, 30):
        ids = store.add(*(torch.randn(1, count, n, generator=chance) for n in (3, 2)))
        store.overwrite(ids[:, :1], torch.ones(1, 1, 3), torch.zeros(1, 1, 2))
    store.delete(ids[:, 3:9])
    truth = contents(store)[0]
    store.close()
    return truth


def damage(path, chance):
    """Change some bytes of one file at random, or cut it short, or remove a copy of it."""
    files = [p for p in sorted(path.iterdir()) if p.name != "writer" and p.stat().st_size]
    file = files[chance.integers(len(files))]
    data = bytearray(file.read_bytes())
    at = int(chance.integers(len(data)))
    kind = chance.integers(4)
    if kind == 0:  # a bit
        data[at] ^= 1 << int(chance.integers(8))
    elif kind == 1:  # a piece
        size = int(chance.integers(1, 600))
        data[at : at + size] = chance.bytes(len(data[at : at + size]))
    elif kind == 2:  # zeros
        data[at : at + 512] = bytes(len(data[at : at + 512]))
    else:
        del data[at:]
    file.write_bytes(data)
    return file.name, int(kind), at


def is_harmless_or_found(path, truth):
    """Whether all that a damaged store gives is right, and all that it does not give is named."""
    store = opened(path)  # what it is, and what was done, stands there twice
    bad = set(store.verify().flatten().tolist()) - {-1}
    if bad:
        with pytest.raises(ValueError, match="is damaged"):
            store.read(torch.zeros(1, 1, 3), k=1)
        store.delete(store.verify())
        store.read(torch.zeros(1, 1, 3), k=1)
    there = contents(store)[0]
    store.close()
    right = all(pair == truth.get(i) for i, pair in there.items())
    return right and set(there) | bad == set(truth)
