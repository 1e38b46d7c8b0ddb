"""A store in parts is one store: gradients, ids, files and errors; on one, two and three ranks."""

import multiprocessing
import os
import re
import socket
import subprocess
import sys
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch

from memlib import ShardedStore, Store
from memlib.store import NETWORKS, read_cost, shards
from tests.store import sharding


def started(work, folder):
    """Three processes that work; what they tell."""
    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    ranks = [context.Process(target=work, args=(rank, str(folder), answers)) for rank in range(3)]
    for rank in ranks:
        rank.start()
    return ranks, answers


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    ranks, answers = started(sharding.start, tmp_path_factory.mktemp("ranks"))
    every = [answers.get() for _ in ranks]
    for rank in ranks:
        rank.join()
        assert rank.exitcode == 0, "\n".join(filter(None, chain(*map(dict.values, every))))
    return every


@pytest.mark.slow
@pytest.mark.parametrize("size", sharding.SIZES)
@pytest.mark.parametrize("name", sharding.CASES)
def test_of_ranks(told, name, size):
    answers = [told[name, size] for told in told if (name, size) in told]
    assert len(answers) == size
    assert not any(answers), "\n".join(filter(None, answers))


@pytest.mark.slow
def test_a_rank_that_is_killed_ends_the_others(tmp_path):
    ranks, answers = started(sharding.die, tmp_path)
    told = sorted(answers.get() for _ in range(2))
    for rank in ranks:
        rank.join()
    assert [rank.exitcode for rank in ranks] == [0, 0, -9]
    assert [rank for rank, *_ in told] == [0, 1]
    for _, error, seconds, pairs in told:
        assert error.startswith("ConnectionError: every rank must answer within the timeout")
        assert seconds < 10  # of a timeout of 3
        assert pairs >= 6  # the survivors still have theirs
    left = Store.open(tmp_path / "saved" / shards.name(1, 2, 3))
    assert left.lengths.tolist() == [6]
    assert ShardedStore.open(tmp_path / "saved").lengths.tolist() == [20]


@pytest.mark.parametrize("seed", range(20))
def test_new_pairs_go_to_those_that_hold_fewest(seed):
    chance = np.random.default_rng(seed)
    held, new = chance.integers(0, 9, (5, 3)), chance.integers(0, 30, 3)
    given = shards.shares(held, new, chance.integers(0, 99, 3))
    assert (given >= 0).all()
    assert (given.sum(0) == new).all()
    after = held + given
    for row in range(3):  # who got one is at most one above any other
        got = after[:, row][given[:, row] > 0]
        assert not len(got) or got.max() <= after[:, row].min() + 1


def test_with_one_rank_it_is_its_shard(tmp_path):
    store = ShardedStore(4, 3, batch_size=2)
    keys, values = sharding.draw(2, 9, 4).float(), sharding.draw(2, 9, 3).float()
    exact = Store(4, 3, batch_size=2)
    assert torch.equal(store.add(keys, values), exact.add(keys, values))
    assert torch.equal(store.read(keys, 4), exact.read(keys, 4))
    store.save(tmp_path)
    again = ShardedStore.open(tmp_path)
    assert torch.equal(again.read(keys, 9), exact.read(keys, 9))
    assert os.listdir(tmp_path) == ["save-1.0-of-1.safetensors"]


def test_the_cost_is_by_hand_that_of_four_ranks():
    cost = read_cost(10, 2, 3, 4, queries=5, k=7, network=(1e6, 1e-3))
    assert cost["bytes held"] == 3 * (4 * (2 + 3) + 8)  # three of ten pairs, and their ids
    assert cost["messages"] == 3 + 3 + 2 * 3  # two rounds to tell, one to add up
    assert cost["bytes sent"] == 3 * (48 + 5 * 7 * 12) + 2 * 3 / 4 * 5 * 3 * 4
    assert cost["seconds"] == pytest.approx(12e-3 + cost["bytes sent"] / 1e6)
    assert read_cost(10, 2, 3, 1)["seconds"] == 0
    for network in NETWORKS.values():  # what is sent does not depend on the number of pairs
        few, many = (read_cost(n, 64, 64, 8, k=32, network=network) for n in (10**6, 10**9))
        assert few["seconds"] == many["seconds"]
    for name, network in NETWORKS.items():
        assert read_cost(10, 2, 3, 4, network=name) == read_cost(10, 2, 3, 4, network=network)
    with pytest.raises(ValueError, match="ranks must be at least 1; got 0"):
        read_cost(10, 2, 3, 0)
    with pytest.raises(ValueError, match=r"network must be one of Ethernet .*; got 'NVLink'"):
        read_cost(10, 2, 3, 4, network="NVLink")
    with pytest.raises(TypeError, match=r"network must be a name or \(.*; got 3"):
        read_cost(10, 2, 3, 4, network=3)
    with pytest.raises(ValueError, match=r"network\[0\] must be finite and at least 1; got 0"):
        read_cost(10, 2, 3, 4, network=(0, 1e-6))


@pytest.mark.slow
def test_the_script_of_the_guide_prints_the_same_under_torchrun(tmp_path):
    page = Path(__file__).parents[2] / "book" / "systems.md"
    if not page.exists():
        pytest.skip("the source archive holds no book")
    found = re.search(
        r"```python\n(import os.*?RANK.*?)```\s*```text\n(.*?)```", page.read_text(), re.S
    )
    script = tmp_path / "store.py"
    script.write_text(found[1])
    where = {"PYTHONPATH": os.pathsep.join(sys.path), "GLOO_SOCKET_IFNAME": "lo"}
    run = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    run += ["--master-addr", "127.0.0.1", "--master-port", str(_free()), str(script)]
    for command in ([sys.executable, str(script)], run):
        said = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=120,
            env=os.environ | where,
        )  # fmt: skip
        assert said.returncode == 0, said.stderr
        assert said.stdout == found[2]


def _free() -> int:
    """A port that nobody uses."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_a_folder_without_a_save(tmp_path: Path):
    with pytest.raises(ValueError, match="must hold a whole save; got 0 files"):
        ShardedStore.open(tmp_path)
