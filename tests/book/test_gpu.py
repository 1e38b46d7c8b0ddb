"""`make gpu` without a GPU: it says what it would do; the same code runs small on the CPU."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import gpu
import pytest
import torch

import benchmarks.gpu
from benchmarks.on_device import Where

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_without_a_gpu_it_says_what_it_would_run_and_ends_well(tmp_path: Path) -> None:
    hostile = {"PYTEST_ADDOPTS": "--no-such-option", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(ROOT / "tools" / "gpu.py"), "--results", str(tmp_path)]
    done = subprocess.run(
        command, env=os.environ | hostile, cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SKIPPED: everything; there is no CUDA device here" in done.stdout
    for line in benchmarks.gpu.plan():
        assert line in done.stdout
    files = {path.name for path in (ROOT / "tests" / "gpu").glob("test_*.py")}
    assert set(re.findall(r"tests/gpu/(\w+\.py)::\w+\n", done.stdout)) == files
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_every_part_measures_on_the_cpu_too() -> None:
    kept: list[str] = []
    figures = benchmarks.gpu.run("cpu", toy=True, keep=lambda now: kept.append(json.dumps(now)))
    assert list(figures["parts"]) == list(benchmarks.gpu.PARTS)
    assert [len(json.loads(now)["parts"]) for now in kept] == [*range(1, len(figures["parts"]) + 1)]
    for name, rows in figures["parts"].items():
        assert len(rows) == len(benchmarks.gpu.PARTS[name].toys)
        for row in rows:
            assert "failed" not in row, row
            assert "skipped" not in row or name == "transformers", row
            times = [value for key, value in row.items() if key.endswith("_ms")]
            assert times or "skipped" in row
            assert all(0 < value < math.inf for value in times)
            assert row.get("apart", 0) < (1e-2 if row.get("dtype") == "bfloat16" else 1e-5)
            assert row.get("same", 1) == 1
    assert figures["ratios"]
    assert "none: a toy run on the CPU" in benchmarks.gpu.report(figures)


def test_no_cell_is_begun_when_its_time_is_up() -> None:
    figures = benchmarks.gpu.run("cpu", toy=True, seconds=0)
    rows = [row for rows in figures["parts"].values() for row in rows]
    assert {row["skipped"] for row in rows} == {"no time was left of 0 s"}
    assert figures["ratios"] == {}


def test_a_cell_that_fails_leaves_the_others_their_numbers(monkeypatch, tmp_path: Path) -> None:
    def breaks(cell: object, where: Where) -> dict[str, float]:
        raise RuntimeError("out of memory")

    parts = {"search": benchmarks.gpu.PARTS["search"]}
    broken = parts["search"]._replace(measure=breaks)
    monkeypatch.setattr(benchmarks.gpu, "PARTS", {"broken": broken} | parts)
    options = ["gpu", "--device", "cpu", "--toy", "--results", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", options)
    with pytest.raises(SystemExit, match="1"):
        benchmarks.gpu.main()
    record = json.loads((tmp_path / "benchmark_gpu.json").read_text())
    parts = record["figures"]["parts"]
    assert parts["broken"][0]["failed"] == "RuntimeError: out of memory"
    assert parts["search"][0]["memlib_ms"] > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_no_time_of_another_device_is_recorded_as_a_gpus() -> None:
    with pytest.raises(SystemExit, match="CUDA device"):
        benchmarks.gpu.run()


def test_a_half_is_ended_when_its_time_is_up() -> None:
    begin, seen = time.perf_counter(), []
    waits = ["-c", "import time; print('begun', flush=True); time.sleep(60)"]
    with pytest.raises(TimeoutError, match="ended after its 2 s"):
        seen.extend(gpu.lines(waits, 2))
    assert seen == ["begun\n"]
    assert time.perf_counter() - begin < 30


def test_a_half_that_fails_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert not gpu.follow("bench", ["-c", "raise SystemExit(3)"])
    assert gpu.follow("bench", ["-c", "print('well')"])
    said = capsys.readouterr().out
    assert "bench FAILED" in said
    assert "well" in said


def test_the_two_halves_take_less_than_eight_minutes() -> None:
    assert sum(gpu.SECONDS.values()) < 8 * 60 - 15  # two starts of Python and torch
    assert gpu.SECONDS["bench"] - gpu.SOONER >= benchmarks.gpu.SECONDS


def test_what_it_cannot_do_without_is_named(monkeypatch, capsys) -> None:
    monkeypatch.setattr(gpu, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    assert gpu.main() == 2
    assert "needs torch, numpy, pytest in this Python" in capsys.readouterr().out
