"""The DNC experiment at tiny sizes: rounds, what is recorded of them, and gates that are shut."""

import json
import shlex

import pytest
import torch
from torch import Generator

pytest.importorskip("experiments")  # a part of the repository, not of the package
pytest.importorskip("safetensors")
pytest.importorskip("tqdm")

from experiments import __main__ as command
from experiments import checkpoints, dnc, ntm, records, training
from memlib import DNC, NTM, tasks

TINY = {"slots": 5, "width": 6, "hidden": 8, "every": 32, "exam": 16, "sequences": 64}
TINY |= {"batch_size": 8, "compiled": False}
SIZES = {
    "copy": {"length": (1, 3), "bits": 3},
    "associative-recall": {"items": (2, 3), "item_length": 1, "bits": 3},
}
SIZES |= {f"{task}-rounds": sizes | {"rounds": (1, 3)} for task, sizes in SIZES.items()}


def a_run(task, model="dnc", **changes):
    return dnc.Run(task, model, changes=TINY | {"sizes": SIZES[task]} | changes)


def words(folder, task, *more):
    """The command line of a run that takes a second."""
    told = TINY | {"sizes": SIZES[task]}
    changes = [word for name, value in told.items() for word in ("--set", f"{name}={value!r}")]
    places = ["--results", f"{folder}/results", "--unfinished", f"{folder}/unfinished"]
    return ["dnc", "--task", task, *changes, *places, *more]


def recorded(folder, task):
    """The runs of a record, the time they took aside."""
    runs = json.loads((folder / "results" / f"dnc_{task.replace('-', '_')}.json").read_text())
    for run in runs["runs"]:
        for point in (run, *run["curve"]):
            for name in ("seconds", "solved_seconds"):
                point.pop(name, None)
    return runs["runs"]


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(dnc, "SLOTS", (4, 5))
    for task, sizes in dnc.LONG.items():
        monkeypatch.setitem(dnc.LONG, task, sizes | {"rounds": 4})


# Tasks in rounds


def test_rounds_are_tasks_one_after_the_other():
    chance = Generator().manual_seed(0)
    batch = a_run("copy-rounds").generate(
        7, generator=chance, length=(2, 4), bits=3, rounds=3, device="cpu"
    )
    delimiters = batch.inputs[..., 3]
    assert torch.equal(delimiters.sum(1), torch.full((7,), 3.0))
    assert torch.equal(batch.lengths, torch.full((7,), batch.inputs.shape[1]))
    start = 0
    for t in delimiters[0].nonzero()[:, 0].tolist():  # the same steps in every row
        length = t - start
        assert 2 <= length <= 4
        assert delimiters[:, t].all()
        answer = slice(t + 1, t + 1 + length)
        assert torch.equal(batch.targets[:, answer], batch.inputs[:, start:t, :3])
        assert batch.mask[:, answer].all()
        assert not batch.mask[:, start : t + 1].any()
        start = t + 1 + length
    assert start == batch.inputs.shape[1]


def test_the_number_of_rounds_and_the_sizes_are_drawn_for_each_batch():
    chance, seen = Generator().manual_seed(0), set()
    for _ in range(60):
        batch = a_run("associative-recall-rounds").generate(
            2, generator=chance, items=(2, 3), item_length=1, bits=3, rounds=(1, 2), device="cpu"
        )
        seen.add((int(batch.mask[0].sum()), batch.inputs.shape[1]))
    assert {rounds for rounds, _ in seen} == {1, 2}
    assert {steps for _, steps in seen} == {8, 10, 16, 18, 20}


def test_one_round_is_the_task():
    for task, sizes in (("copy", {"length": 4}), ("associative-recall", {"items": 3})):
        ours = a_run(task).generate(5, generator=Generator().manual_seed(1), device="cpu", **sizes)
        chance = Generator().manual_seed(1)
        for _ in range(2):  # the number of rounds and the size are drawn, too
            torch.randint(1, 2, (), generator=chance)
        theirs = tasks.TASKS[task].generate(5, generator=chance, **sizes)
        assert all(map(torch.equal, ours, theirs))


# What a machine is changed in


@pytest.fixture
def machine():
    model = ntm.make_model(a_run("copy-rounds"))
    with torch.no_grad():
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return model.eval()


@torch.no_grad()
def told(machine, inputs):
    """What the controller tells the heads at each step."""
    state, said = None, []
    for x in inputs.unbind(1):
        _, state = machine.cell(x, state)
        said.append(machine.cell._told(machine.cell.interface(state.hidden)))
    return said


@torch.no_grad()
def test_a_shut_gate_is_0_whatever_comes_and_the_others_are_as_they_were(machine):
    inputs = torch.randn(3, 4, 4)
    shut = {name: told(dnc.shut(machine, places), inputs) for name, places in dnc.GATES.items()}
    before = told(machine, inputs)
    for name, said in shut.items():
        assert all((step.free == 0).all() for step in said) == (name == "nothing freed")
        assert all((step.allocation == 0).all() for step in said) == (name == "no allocation")
        assert all((step.write > 0).all() for step in said)
        content = all((step.modes == torch.tensor([0.0, 1.0, 0.0])).all() for step in said)
        assert content == (name == "no links")
        assert torch.equal(said[0].key, before[0].key)
    assert all(map(torch.equal, shut["as trained"][-1], before[-1]))


@torch.no_grad()
@pytest.mark.parametrize("model", ["dnc", "ntm"])
def test_the_slots_alone_are_changed(model):
    machine = ntm.make_model(a_run("copy-rounds", model)).eval()
    x = torch.randn(2, 6, 4)
    wide = dnc.resized(machine, 9)
    assert wide(x)[1].memory.shape == (2, 9, 6)
    assert machine(x)[1].memory.shape == (2, 5, 6)
    torch.testing.assert_close(dnc.resized(machine, 5)(x)[0], machine(x)[0])
    assert all(map(torch.equal, wide.parameters(), machine.parameters()))


@torch.no_grad()
def test_wrong_bits_by_round_sum_to_those_of_the_sequence(machine):
    run = a_run("copy-rounds")
    batches = ntm.exam(run, 10, 0, at_once=4, length=3, rounds=4)
    found = dnc.by_round(machine, batches, 4)
    assert len(found) == 4
    assert len(set(found)) > 1
    assert sum(found) == pytest.approx(ntm.examine(machine, batches)["wrong_bits"], abs=1e-3)


# Runs


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("task", SIZES)
def test_the_record_tells_the_whole_run(task, tmp_path, capsys):
    for model in ("dnc", "dnc-repaired", "ntm"):
        assert command.main(words(tmp_path, task, "--model", model, "--seed", "3")) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    runs = recorded(tmp_path, task)
    assert [(run["model"], run["seed"]) for run in runs] == [
        ("dnc", 3),
        ("dnc-repaired", 3),
        ("ntm", 3),
    ]
    for run in runs:
        assert run["experiment"] == "dnc"
        assert [point["sequences"] for point in run["curve"]] == [0, 32, 64]
        assert run["curve"][-1]["bits"] != run["curve"][0]["bits"]
        assert len(run["beyond"]) == len(dnc.BEYOND.get(task, []))
        assert {"command", "versions", "date", "key", "machine", "final"} < run.keys()
        if task not in dnc.LONG:
            assert "by_round" not in run
            continue
        assert [point["slots"] for point in run["by_slots"]] == [4, 5]
        assert all(len(wrong) == 4 for wrong in run["by_round"].values())
        gates = ["as trained"] if run["model"] == "ntm" else dnc.GATES
        assert list(run["by_round"]) == list(gates)
        trained = sum(run["by_round"]["as trained"])  # with the slots it was trained with
        assert trained == pytest.approx(run["by_slots"][1]["wrong_bits"], abs=1e-3)


@pytest.mark.usefixtures("threads")
def test_the_recorded_command_makes_the_same_record(tmp_path):
    once, again = tmp_path / "once", tmp_path / "again"
    assert command.main(words(once, "copy-rounds", "--seed", "7", "--slots", "6")) == 0
    (record,) = recorded(once, "copy-rounds")
    assert "slots=6" in record["variant"]
    _, _, _, *arguments = shlex.split(record["command"])
    assert arguments[0] == "dnc"
    places = ["--results", f"{again}/results", "--unfinished", f"{again}/unfinished"]
    assert command.main([*arguments, *places]) == 0
    assert recorded(again, "copy-rounds") == [record]


@pytest.mark.usefixtures("threads")
def test_the_exported_model_is_the_trained_one(tmp_path):
    assert command.main(words(tmp_path, "copy", "--export")) == 0
    tensors, about = checkpoints.load(tmp_path / "results" / "dnc_copy.safetensors")
    assert about["recipe"]["slots"] == TINY["slots"]
    (saved,) = (tmp_path / "unfinished").glob("*.safetensors")
    trained = checkpoints.load(saved)[0]
    assert all(torch.equal(t, trained[f"model.{name}"]) for name, t in tensors.items())


def test_every_recipe_makes_machines_of_one_size():
    for task, recipes in dnc.RECIPES.items():
        runs = [dnc.Run(task, model, changes={"compiled": False}) for model in recipes]
        machines = [ntm.make_model(run) for run in runs]
        assert [type(machine) for machine in machines] == [DNC, DNC, NTM]
        repairs = [run.recipe.options for run in runs]
        assert not repairs[0]
        assert repairs[1]
        sizes = {(m.cell.slots, m.cell.width, m.cell.read_heads) for m in machines}
        controllers = {tuple(p.shape for p in m.cell.controller.parameters()) for m in machines}
        assert len(sizes) == len(controllers) == 1
        batch = ntm.exam(runs[0], 3, 0)[0]
        assert all(ntm.loss(machine, batch).isfinite() for machine in machines)
        if task in dnc.LONG:  # there are more vectors than slots
            long = ntm.make_batch(runs[0], 1, Generator(), **dnc.LONG[task] | {"rounds": 10})
            vectors = int(long.mask.sum()) if task == "copy-rounds" else 4 * 10
            assert vectors > runs[0].recipe.slots


def test_a_recipe_asks_for_a_compiled_step(monkeypatch):
    asked = []
    monkeypatch.setattr(DNC, "compile", lambda self: asked.append(self))
    for compiled in (False, True):
        ntm.make_model(a_run("copy", compiled=compiled))
    assert len(asked) == 1


def test_progress_is_solved_below_a_tenth_of_a_bit():
    run = a_run("copy")
    points = [{"sequences": n, "wrong_bits": w, "seconds": n / 2}
              for n, w in ((0, 9.0), (4, 0.2), (8, 0.09))]  # fmt: skip
    model = ntm.make_model(run)
    assert run.figures(model, training.Progress(8, 4.0, points))["solved_sequences"] == 8
    assert run.figures(model, training.Progress(8, 4.0, points[:2]))["solved_sequences"] is None


def test_two_records_of_one_published_table_agree():
    folder = records.RESULTS
    rows = json.loads((folder / "published_dnc.json").read_text())["rows"]
    systems = json.loads((folder / "published_models.json").read_text())["systems"]
    _, mean, _, best, *_ = next(row for row in rows if row[0] == "DNC, 8 read heads")
    headlines = next(system["headlines"] for system in systems if system["id"] == "dnc")
    assert [line["value"] for line in headlines[:2]] == [best, mean]
