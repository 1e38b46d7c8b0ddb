"""What records are current, and whether a run made again agrees; with records that lie."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

pytest.importorskip("experiments")  # a part of the repository, not of the package
pytest.importorskip("safetensors")
pytest.importorskip("tqdm")

from experiments import __main__ as command
from experiments import check, keys, ntm, progress, records, verify

TINY = {"slots": 8, "width": 6, "hidden": 8, "every": 40, "exam": 10, "sequences": 80}
TINY |= {"batch_size": 2, "layers": 1, "sizes": {"length": (1, 3), "bits": 3}}


# The records of the repository


def test_each_stale_record_is_named_with_its_reason(capsys):
    assert command.main(["check"]) == 0, capsys.readouterr().out
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(list(check.groups())) > 40


@pytest.fixture
def copied(tmp_path):
    """A current record, and one that is stale and named."""
    for name in ("knn_lm", "babi_live"):
        shutil.copy(records.RESULTS / f"{name}.json", tmp_path)

    def current(record):
        for run in record["runs"]:
            run.pop("verified", None)
            run["key"] = keys.today("experiments.knn_lm")

    edit(tmp_path / "knn_lm.json", current)
    edit(tmp_path / "babi_live.json", lambda record: record.update(key="0", verified={}))
    (tmp_path / "stale.json").write_text('{"babi_live": "why"}')
    return tmp_path


def checked(folder, capsys):
    status = command.main(["check", "--results", str(folder)])
    return status, capsys.readouterr().out


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda stale: stale.popitem(), "is stale, and stale.json does not say why"),
        (lambda stale: stale.update(nothing="no"), "names nothing, which is not there"),
        (lambda stale: stale.update(knn_lm="no"), "names knn_lm, which is not stale"),
        (lambda stale: stale.update(babi_live=""), "gives no reason"),
    ],
)
def test_a_list_of_the_stale_that_is_not_true_is_a_fault(change, fault, copied, capsys):
    edit(copied / "stale.json", change)
    status, out = checked(copied, capsys)
    assert status == 1
    assert fault in out


def test_a_record_of_other_code_is_stale_until_it_is_verified(copied, capsys):
    def group():
        return next(group for group in check.groups(copied) if group.file == "knn_lm")

    key = group().runs[0]["key"]
    assert group().state == "current"
    assert checked(copied, capsys)[0] == 0
    edit(copied / "knn_lm.json", lambda record: record["runs"][0].update(key=f"{key}+0"))
    assert group().state == "stale"
    assert checked(copied, capsys)[0] == 1
    stamp = {"verified": {"key": key}}
    edit(copied / "knn_lm.json", lambda record: record["runs"][2].update(stamp))
    assert group().state == "re-verified"  # one run stands for all
    assert checked(copied, capsys)[0] == 0
    edit(copied / "knn_lm.json", lambda record: record["runs"][2]["verified"].update(key="0"))
    assert group().state == "stale"  # the code has changed since


def test_what_others_published_is_no_record():
    files = {group.file for group in check.groups()}
    there = {path.stem for path in records.RESULTS.glob("*.json")}
    assert there - files == {name for name in there if name.startswith("published_")} | {
        "stale",
        "status",
    }


def test_each_group_has_a_unit_whose_commands_are_of_its_maker():
    for group in check.groups():
        unit = verify.unit_of(group, None, records.RESULTS)
        assert records.maker(unit.commands[-1]) == group.maker
        assert (unit.seconds is None) == group.file.startswith("benchmark_")
        assert verify.unit_of(group, 10**6, records.RESULTS) is None or "figures" in group.runs[0]
    (tasks,) = (group for group in check.groups() if group.file == "babi_tasks")
    unit = verify.unit_of(tasks, 2, records.RESULTS)
    assert re.search(r"--restarts 1 --seed 2 --tasks \d+$", unit.commands[0])


# Runs made again


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A record of two seeds of a model that takes a second, by the code of another day."""
    folder, threads = tmp_path_factory.mktemp("trained"), torch.get_num_threads()
    sets = [word for name, value in TINY.items() for word in ("--set", f"{name}={value!r}")]
    places = ["--results", str(folder), "--unfinished", str(folder / "unfinished")]
    ntm.main(["--model", "lstm", "--seeds", "2", *sets, *places])
    torch.set_num_threads(threads)
    edit(folder / "ntm_copy.json", lambda r: [run.update(key="0") for run in r["runs"]])
    return folder / "ntm_copy.json"


@pytest.fixture
def recorded(trained, tmp_path):
    return Path(shutil.copy(trained, tmp_path))


def verified(folder, capsys, *more):
    status = command.main(["verify", "--results", str(folder), *more])
    return status, capsys.readouterr().out


def states(folder):
    return [group.state for group in check.groups(folder)]


def test_a_run_that_agrees_stands_for_its_group(recorded, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(progress, "SILENCE", 0.3)
    before = json.loads(recorded.read_text())["runs"]
    (group,) = check.groups(tmp_path)
    (tmp_path / "stale.json").write_text(json.dumps({group.title: "why", "other": "why"}))
    assert group.state == "stale"
    status = command.main(["verify", "--results", str(tmp_path), "ntm_copy", "--seed", "1"])
    out, err = capfd.readouterr()
    assert (status, states(tmp_path)) == (0, ["re-verified"])
    assert "agrees in every digit" in out
    assert re.search(r"^verify: at work for \d+ s", err, re.MULTILINE)
    assert re.search(r"^copy lstm 1: +100%", err, re.MULTILINE)  # the run's own word
    assert json.loads((tmp_path / "stale.json").read_text()) == {"other": "why"}
    first, second = json.loads(recorded.read_text())["runs"]
    stamp = second.pop("verified")
    assert [first, second] == before
    assert {"key", "date", "machine", "unit", "agreed"} == stamp.keys()
    assert stamp["unit"] == "seed=1"
    assert recorded.read_text().count("\n") == 4  # a line a run
    assert verified(tmp_path, capfd) == (0, "")  # nothing is left to do


def tampered(part, factor):
    def change(record):
        for run in record["runs"]:
            run["final"][part] *= factor
            run["seconds"] *= 3  # which does not count

    return change


def test_a_record_that_lies_is_found_out(recorded, tmp_path, capsys):
    edit(recorded, tampered("bits", 1.00001))
    before = recorded.read_text()
    status, out = verified(tmp_path, capsys)
    assert (status, states(tmp_path)) == (1, ["stale"])
    assert re.search(r"differs: final\.bits: [\d.]+, now [\d.]+", out)
    assert recorded.read_text() == before


@pytest.mark.parametrize(("factor", "status"), [(1.00001, 0), (1.5, 1)])
def test_on_another_machine_the_spread_of_the_seeds_decides(
    factor, status, recorded, tmp_path, capsys
):
    def change(record):
        tampered("bits", factor)(record)
        for run in record["runs"]:
            run["machine"]["processor"] = "another"

    edit(recorded, change)
    found, out = verified(tmp_path, capsys)
    assert found == status
    assert ("agrees within the spread of the seeds" in out) == (status == 0)
    assert states(tmp_path) == ["stale" if status else "re-verified"]


def test_a_run_of_another_code_comes_before_one_of_todays(trained):
    (group,) = check.groups(trained.parent)
    first, *_, last = sorted(group.runs, key=lambda run: run["seconds"])
    for run in group.runs:
        run["key"] = keys.today(group.maker)
    assert verify.unit_of(group, None, trained.parent).recorded == first
    last["key"] = "another"
    assert verify.unit_of(group, None, trained.parent).recorded == last


def test_without_other_seeds_there_is_no_spread(trained):
    (group,) = check.groups(trained.parent)
    for run in group.runs:
        run["machine"]["processor"] = "another"
    alone = check.Group(group.file, group.name, group.runs[:1])
    unit = verify.unit_of(alone, None, trained.parent)
    found = json.loads(json.dumps(unit.recorded))
    assert verify.compare(unit, [found]) == ("in every digit", [])
    found["final"]["bits"] += 1e-5
    assert "no spread" in verify.compare(unit, [found])[1][0]


def test_within_the_spread_the_recipe_is_the_same_and_nothing_is_missing(trained):
    (group,) = check.groups(trained.parent)
    for run in group.runs:
        run["machine"]["processor"] = "another"
    unit = verify.unit_of(group, 0, trained.parent)
    found = json.loads(json.dumps(unit.recorded))
    found["final"]["bits"] += 1e-5
    assert verify.compare(unit, [found]) == ("within the spread of the seeds", [])
    found["recipe"]["hidden"] += 1
    del found["final"]["wrong_bits"]
    one, other = verify.compare(unit, [found])[1]
    assert one == "recipe.hidden: 8, now 9"
    assert other.startswith("final.wrong_bits: none, recorded ")


def test_a_run_that_breaks_off_is_told(recorded, tmp_path, capsys):
    def change(record):
        for run in record["runs"]:
            run["command"] += " --set width=x"

    edit(recorded, change)
    status, out = verified(tmp_path, capsys)
    assert status == 1
    assert "ended with 2" in out


def test_the_plan_is_told_and_kept_to(recorded, tmp_path, capsys):
    status, out = verified(tmp_path, capsys, "--list")
    assert status == 0
    assert re.fullmatch(r" +\d+ s as recorded  ntm_copy: lstm .*\[seed=\d\]\n", out)
    edit(recorded, lambda record: [run.update(seconds=100.0) for run in record["runs"]])
    status, out = verified(tmp_path, capsys, "--budget", "50")
    assert (status, states(tmp_path)) == (0, ["stale"])
    assert "left, beyond the budget (100 s as recorded)" in out
    assert command.main(["verify", "nothing", "--results", str(tmp_path)]) == 1


# Benchmarks


@pytest.fixture
def timed():
    record = {"command": "python -m benchmarks ntm", "key": "0", **records.origin("benchmarks.ntm")}
    record["figures"] = [{"slots": 8, "ms": 10.0, "runs": 7}, {"slots": 9, "ms": 20.0, "runs": 5}]
    return verify.unit_of(check.Group("benchmark_ntm", "", [record]), None, records.RESULTS)


def repeated(*factors):
    return [[{"slots": 8, "ms": 10.0 * f, "runs": 6}, {"slots": 9, "ms": 20.0, "runs": 6}]
            for f in factors]  # fmt: skip


def test_a_benchmark_agrees_within_what_its_repeats_differ_by(timed):
    assert timed.commands == ("python -m benchmarks ntm",) * 3
    assert not verify.compare(timed, repeated(1.1, 1.2, 1.05))[1]
    assert verify.compare(timed, repeated(1.5, 1.51, 1.52))[1] == ["[0].ms: 10.0, now 15.1"]
    timed.recorded[1]["slots"] = 10
    assert verify.compare(timed, repeated(1.01, 1.0, 1.0))[1] == ["[1].slots: 10, now 9"]
    del timed.recorded[1]
    assert verify.compare(timed, repeated(1, 1, 1))[1] == ["what is measured has changed"]


def test_a_benchmark_of_another_machine_cannot_be_verified(timed):
    timed.group.runs[0]["machine"]["processor"] = "another"
    assert "recorded anew" in verify.compare(timed, repeated(1, 1, 1))[1][0]
