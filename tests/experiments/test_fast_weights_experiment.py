"""Facts that change: the task by hand, a run that is recorded once, and the record."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from experiments import __main__, fast_weights, records


def test_the_answer_is_what_was_told_last() -> None:
    rows = fast_weights.draw(20, torch.Generator().manual_seed(3))
    assert all(x.shape == (20, fast_weights.TOKENS) for x in rows)
    for key, value, asked, last, times in zip(*(x.tolist() for x in rows), strict=True):
        told: dict[int, list[int]] = {}
        for k, v, a, wanted, count in zip(key, value, asked, last, times, strict=True):
            told.setdefault(k, []).append(v)
            assert told[a][-1] == wanted
            assert len(told[a]) == count


def test_a_run_is_recorded_and_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fast_weights, "UPDATES", 3)
    monkeypatch.setattr(fast_weights, "EXAM", 5)
    options = ["--rules", "decayed sum", "--sizes", "4", "--seeds", "1", "--rates", "0.01"]
    options += ["--results", str(tmp_path)]
    for _ in range(2):
        fast_weights.main(options)
    (run,) = json.loads((tmp_path / "fast_weights.json").read_text())["runs"]
    assert capsys.readouterr().out.count("decayed sum") == 1
    assert {run["mixer"], run["size"], run["seed"], run["rate"]} == {"decayed sum", 4, 1, 0.01}
    assert min(run[name] for name in ("accuracy", "once", "changed")) >= 0
    assert run["command"].startswith("python -m experiments fast_weights --rules 'decayed sum'")
    assert fast_weights.perform("decayed sum", 4, 1, 0.01)["accuracy"] == run["accuracy"]


def test_the_record_has_all_seeds_of_each_point() -> None:
    assert "fast_weights" in __main__.EXPERIMENTS
    runs = json.loads((records.RESULTS / "fast_weights.json").read_text())["runs"]
    points = {(run["mixer"], run["size"], run["rate"]) for run in runs}
    assert {mixer for mixer, *_ in points} == set(fast_weights.RULES)
    for point in points:
        seeds = [r["seed"] for r in runs if (r["mixer"], r["size"], r["rate"]) == point]
        assert sorted(seeds) == [0, 1, 2], point
