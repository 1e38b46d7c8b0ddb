"""The bAbI experiment on stories of our own, and the checkpoint that the chapter reads."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Generator

from experiments import babi, babi_live, babi_reader
from memlib import MemN2N
from memlib.tasks import Vocabulary, babi_stories, read_babi


@pytest.fixture
def data(tmp_path):
    """A folder of one task, in the format of the files."""
    folder = tmp_path / "en"
    folder.mkdir()
    for split, count in (("train", 100), ("test", 50)):
        lines = []
        for question in babi_stories(1, count, generator=Generator().manual_seed(len(split))):
            facts = [" ".join(fact) + "." for fact in question.story]
            by = " ".join(str(fact + 1) for fact in question.supporting)
            asked = f"{' '.join(question.question)}?\t{question.answer}\t{by}"
            lines += [f"{n} {line}" for n, line in enumerate((*facts, asked), 1)]
        (folder / f"qa1_ours_{split}.txt").write_text("\n".join(lines) + "\n")
    return folder


def command(data, *more):
    short = ("--set", "linear_epochs=1", "--set", "epochs=2")
    places = ("--data", str(data), "--out", str(data.parent / "found.json"))
    return [*places, "--unfinished", str(data.parent / "unfinished"), *short, *more]


def test_the_exported_model_is_the_chosen_one(data):
    babi.main(["--tasks", "1", *command(data, "--restarts", "2", "--export")])
    record = json.loads((data.parent / "found.json").read_text())
    path = data.parent / "found.safetensors"
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["about"])
    chosen = next(r for r in record["models"][0]["restarts"] if r["seed"] == about["seed"])
    assert about["seed"] == record["models"][0]["chosen"]
    assert about["recipe"] == chosen["recipe"]
    assert path.stat().st_size < 500_000

    words, recipe = Vocabulary(about["answers"], about["words"][1:]), about["recipe"]
    assert list(words.words) == about["words"]
    sizes = {name: recipe[name] for name in ("width", "hops", "slots", "noise")}
    model = MemN2N(len(words), len(words.answers), **sizes)
    model.load_state_dict(load_file(path))
    test = words.encode(read_babi(data / "qa1_ours_test.txt", task=1), unknown="skip")
    with torch.no_grad():
        assert babi.errors(model, test) == {1: chosen["test_error"]["1"]}


@pytest.mark.parametrize("more", [["--tasks", "1"], ["--tasks", "1,2", "--out", "found.json"]])
def test_an_export_needs_a_file_and_one_model(more, capsys):
    with pytest.raises(SystemExit):
        babi.main(["--export", *more])
    assert "--export needs --out, and one model" in capsys.readouterr().err


def test_the_live_run_is_the_short_recipe(data):
    babi_live.main(command(data, "--restarts", "1"))
    record = json.loads((data.parent / "found.json").read_text())
    (restart,) = record["models"][0]["restarts"]
    assert restart["recipe"]["halve"] == babi_live.SHORT["halve"]
    assert record["test_error"].keys() == {"1"}
    assert "babi --tasks 1" in record["command"]


@pytest.mark.parametrize(
    ("tasks", "a_task", "epochs"), [(1, 1000, 60), (20, 1000, 60), (20, 10_000, 20)]
)
def test_ten_times_the_data_take_a_third_of_the_joint_epochs(data, tasks, a_task, epochs):
    run = babi.Run(data, tuple(range(1, tasks + 1)), joint=True, seed=0)
    recipe = run.recipe(tasks * a_task)
    assert (recipe.epochs, recipe.halve) == (epochs, epochs // 4)


class LastHeard:
    """Answers with the last word of the newest sentence about the third word of the question."""

    slots, empty = 50, True

    def __call__(self, story, question, need_weights=False):
        about = (story[:, :, 0] == question[:, 2:3]).long()  # (Q, N)
        newest = (about * torch.arange(1, story.shape[1] + 1)).argmax(1)
        last = (story != 0).sum(-1).gather(1, newest[:, None]) - 1  # (Q, 1)
        word = story[torch.arange(len(story)), newest].gather(1, last.clamp(min=0))[:, 0]
        scores = torch.nn.functional.one_hot((word - 1).clamp(min=0), 60).double()
        weights = 0.25 * torch.ones(len(story), 3, story.shape[1]) / story.shape[1]
        return (scores, weights) if need_weights else scores


def test_what_an_answer_rests_on_is_found_by_taking_it_away():
    asked = babi_stories(1, 200, generator=Generator().manual_seed(0))
    words = Vocabulary.of(asked)
    batch = words.encode(asked).padded()
    found = babi_reader.of_sentences(LastHeard(), batch, asked, seed=0)
    assert 100 < found["asked"] <= 200  # a story of one sentence has no other
    assert found["another"] == 100
    assert found["supporting"][0] < 20  # that it was there before, too


def test_the_weight_on_nothing_is_what_the_sentences_leave():
    asked = babi_stories(6, 50, generator=Generator().manual_seed(0))
    words = Vocabulary.of(asked)
    found = babi_reader.of_nothing(LastHeard(), words.encode(asked).padded(), words.answers)
    assert found["nothing"] == [0.75] * 3
    assert found["asked"] == found["yes"]["asked"] + found["no"]["asked"] == 50
    assert "maybe" not in found


@pytest.mark.slow
def test_networks_for_one_task_are_trained_with_empty_slots_and_without(data, monkeypatch):
    monkeypatch.setattr(babi_reader, "YES_OR_NO", (1,))
    folder = data.parent
    places = ["--data", str(data), "--unfinished", str(folder / "unfinished")]
    babi_reader.main(["--model", "alone", "--seed", "3", *places, "--results", str(folder)])
    (run,) = json.loads((folder / "babi_reader.json").read_text())["runs"]
    assert (run["model"], run["seed"]) == ("alone", 3)
    assert run["command"].endswith("babi_reader --model alone --seed 3")
    found = run["nothing"]["1"]
    assert max(found["without"]["nothing"]) < 1e-3 < max(found["with"]["nothing"])
    assert found["without"]["wrong"] == found["without"]["masked"]
