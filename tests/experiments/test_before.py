"""What an older tree is measured beside: the record's shape, and which tree is which."""

import json
import math
import os
import shutil
import subprocess
import sys

import pytest

pytest.importorskip("benchmarks")  # a part of the repository, not of the package

from benchmarks import before, store
from experiments import keys

SLOW = 0.002  # seconds
SLOWER = f"""

import time

def attend(*inputs, _attend=attend, **options):
    time.sleep({SLOW})
    return _attend(*inputs, **options)
"""


def ended(*words):
    command = [sys.executable, "-m", "benchmarks", *words]
    environment = os.environ | {"PYTHONPATH": str(keys.ROOT)}
    return subprocess.run(command, cwd=keys.ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_a_tree_beside_itself(tmp_path):
    words = ("before", "--tree", str(keys.ROOT), "--quick", "--results", str(tmp_path))
    done = ended(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    text = (tmp_path / "benchmark_before.json").read_text()
    assert str(keys.ROOT) not in text
    record = json.loads(text)
    assert record["command"] == "python -m benchmarks before --tree FOLDER"
    assert record["key"] == keys.today("benchmarks.before")
    figures = record["figures"]
    assert figures["commits"] == dict.fromkeys(before.TREES, before.commit(keys.ROOT))

    asked = before.workloads(quick=True)
    assert {w["benchmark"] for w in asked} == {"attend", "distance", "store", "ntm", "dnc"}
    for workload in asked:
        rows = [row for row in figures["rows"] if workload.items() <= row.items()]
        assert len(rows) == len({row["way"] for row in rows}) >= 2
    for row in figures["rows"]:
        assert row["turns"] >= 2 * before.FEWEST  # of two pairs of processes
        assert row["apart"] < 1e-5
        for clock in before.CLOCKS:
            older, newer = (row[f"{tree}_{clock}_ms"] for tree in before.TREES)
            assert math.isclose(row[clock], older / newer, rel_tol=1e-2)
            assert 0 < newer < 1e4
    for name in ("attend", "store", "ntm", "dnc"):  # the same code: only the machine's noise
        assert 1 / 3 < figures["ratios"][name]["cpu"] < 3
    assert [row["queries"] for row in figures["distance"]] == [1, 64]
    assert all(row[f"{tree}_cpu"] > 0 for row in figures["distance"] for tree in before.TREES)
    assert before.report(figures) in done.stdout


@pytest.mark.slow
def test_a_tree_that_sleeps_is_told_slower_by_the_clock_on_the_wall(tmp_path, monkeypatch):
    shutil.copytree(keys.ROOT / "memlib", tmp_path / "memlib")
    with (tmp_path / "memlib" / "__init__.py").open("a") as file:
        file.write(SLOWER)
    few = [w for w in before.workloads(quick=True) if w["benchmark"] in ("attend", "ntm")]
    monkeypatch.setattr(before, "workloads", lambda **options: few)
    figures = before.run(tmp_path, quick=True)
    for row in figures["rows"]:
        if row["benchmark"] == "attend":
            assert row["older_wall_ms"] > 1e3 * SLOW > row["older_cpu_ms"]
            assert row["wall"] > row["cpu"]
        assert row["apart"] == 0
    assert figures["ratios"]["attend"]["wall"] > 2 * figures["ratios"]["ntm"]["wall"]
    assert figures["commits"]["older"] == "unknown"  # it is no checkout
    assert figures["distance"] == []


def test_of_several_pairs_the_least_counts_for_each_tree():
    names = [f"{tree}_{clock}_ms" for tree in before.TREES for clock in before.CLOCKS]
    lucky, unlucky = dict.fromkeys(names, 2.0), dict.fromkeys(names, 8.0)
    same = [{"way": "fill", "turns": 3} | lucky, {"way": "fill", "turns": 4} | unlucky]
    same[1]["newer_cpu_ms"] = 1.0
    expected = same[0] | {"turns": 7, "newer_cpu_ms": 1.0, "cpu": 2.0, "wall": 1.0}
    assert before.least(same) == expected


@pytest.mark.parametrize("words", [(), ("--tree", "book")])
def test_a_folder_without_memlib_is_refused(words):
    done = ended("before", *words)
    assert done.returncode == 1
    assert f"a checkout that holds memlib; got {words[-1] if words else None}" in done.stderr


def test_its_options_are_not_those_of_others():
    done = ended("import_time", "--quick")
    assert done.returncode == 2
    assert "options of before" in done.stderr


def test_a_commit_is_told_with_what_has_changed_since(tmp_path):
    def git(*words):
        me = ("-c", "user.name=me", "-c", "user.email=me@example.org")
        subprocess.run(["git", *me, *words], cwd=tmp_path, check=True, capture_output=True)

    (tmp_path / "memlib").mkdir()
    path = tmp_path / "memlib" / "__init__.py"
    path.touch()
    assert before.commit(tmp_path) == "unknown"
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    found = before.commit(tmp_path)
    assert len(found) == 40
    (tmp_path / "elsewhere").touch()
    assert before.commit(tmp_path) == found
    assert before.commit(path.parent) == "unknown"  # a folder in a checkout is none
    path.write_text("1\n")
    assert before.commit(tmp_path) == f"{found}, changed"


def test_the_benchmark_of_stores_asks_the_questions_of_the_chapter():
    keys, values, query = store.facts()
    assert keys.shape[1] == values.shape[1] > 1_000
    assert query.shape == (1, max(store.QUERIES), keys.shape[-1])
