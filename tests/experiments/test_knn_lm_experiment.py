"""The kNN language model's experiment: what may be in its memory, and its records, in seconds."""

import hashlib
import json
import math
import random
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("experiments")  # a part of the repository, not of the package
pytest.importorskip("safetensors")
pytest.importorskip("tqdm")

from experiments import __main__, knn_lm, training
from experiments.knn_lm import Passage
from memlib.store import knn_lm as interpolate

SMALL = knn_lm.Recipe(
    packages=("one", "two"), files=2, asked=40, length=16, width=16, layers=1, heads=2,
    batch_size=4, warm_up=8, sequences=48, every=16, slots=(0, 16, 100), k=4,
    mixes=(0.0, 0.3, 0.5), strengths=(0.1, 1.0),
)  # fmt: skip


@pytest.fixture
def library(tmp_path):
    """A library with two packages of their own words, and one of training."""
    folder, draw = tmp_path / "library", random.Random(0)
    for package in ("one", "two", "rest", "one/test", "encodings", "site-packages"):
        words = [f"{package[:3]}_{draw.randrange(10**6)}" for _ in range(8)]
        (folder / package).mkdir(parents=True)
        for number in range(7):
            text = "\n".join(draw.choice(words) for _ in range(20 + number))
            (folder / package / f"{number}.py").write_text(text + "\n")
    (folder / "pydoc_data").mkdir()
    topics = {"with": "The with statement. " * 4, "yield": "It yields a value. " * 4}
    (folder / "pydoc_data" / "topics.py").write_text(f"topics = {topics!r}")
    return folder


@pytest.fixture
def texts(library):
    return knn_lm.read_texts(SMALL, library)


@pytest.fixture
def places(tmp_path, library, monkeypatch):
    """Small settings, and folders of one's own."""
    monkeypatch.setattr(knn_lm, "RECIPE", SMALL)
    monkeypatch.setattr(knn_lm, "LIBRARY", library)
    return ("--results", str(tmp_path), "--unfinished", str(tmp_path / "unfinished"))


@pytest.fixture
def model():
    return knn_lm.make_model(0, SMALL).eval()


def runs_of(folder):
    return json.loads((folder / "knn_lm.json").read_text())["runs"]


def digest(text):
    return hashlib.sha256(text).hexdigest()


def remembered(texts):
    return b"".join((*texts.memory.values(), *(p.before for p in (*texts.test, *texts.validate))))


class TestTexts:
    def check(self, texts, recipe, folder):
        """Every file is in one place, and what is asked in no other."""
        asked = [*texts.test, *texts.validate]
        whole = {name: digest(text) for name, text in knn_lm.python_files(folder).items()}
        assert len(set(whole.values())) == len(whole)
        own = {n: d for n, d in whole.items() if n.split("/")[0] in recipe.packages}
        names = [passage.name for passage in asked]
        assert len(set(names)) == len(names) == 2 * recipe.files * len(recipe.packages)
        assert set(names) <= own.keys()
        parts = knn_lm.python_files(folder)
        for package in recipe.packages:
            left = [n for n in own if n.startswith(f"{package}/") and n not in names]
            assert digest(texts.memory[package]) == digest(b"".join(parts[n] for n in left))
        assert digest(texts.train) == digest(b"".join(parts[n] for n in parts if n not in own))
        spans = [digest(passage.asked) for passage in asked]
        assert len(set(spans)) == len(spans)
        for passage in asked:
            assert parts[passage.name].startswith(passage.before + passage.asked)
            assert len(passage.asked) == recipe.asked
            assert passage.asked not in texts.train
            assert passage.asked not in remembered(texts)

    def test_what_is_asked_is_neither_trained_on_nor_remembered(self, texts, library):
        self.check(texts, SMALL, library)

    def test_nor_is_it_in_the_library_of_python(self):
        texts = knn_lm.read_texts(knn_lm.RECIPE, knn_lm.LIBRARY)
        self.check(texts, knn_lm.RECIPE, knn_lm.LIBRARY)
        about = texts.about()
        assert about["test_bytes"] == about["validate_bytes"] == 24_576
        assert about["train_bytes"] > 1_000_000
        assert about["memory_bytes"] == len(remembered(texts))
        assert about["test_before"] == [len(passage.before) for passage in texts.test]

    def test_tests_and_tables_are_left_out(self, library):
        names = knn_lm.python_files(library)
        assert {name.split("/")[0] for name in names} == {"one", "two", "rest"}
        assert not any("test" in name for name in names)

    def test_a_copy_is_no_second_file(self, library):
        before = knn_lm.python_files(library)
        (library / "rest" / "copy.py").write_bytes((library / "one" / "0.py").read_bytes())
        assert set(knn_lm.python_files(library).values()) == set(before.values())

    def test_the_order_of_files_is_the_same_everywhere(self, library):
        names = list(knn_lm.python_files(library))
        assert names != sorted(names)
        assert names == list(knn_lm.python_files(library))
        for path in library.rglob("*.py"):  # written on another system
            path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
        assert names == list(knn_lm.python_files(library))

    def test_the_hash_tells_texts_apart(self, library, texts):
        first = texts.about()
        path = library / "rest" / "0.py"
        path.write_text(path.read_text() + "#")
        second = knn_lm.read_texts(SMALL, library).about()
        assert first["hash"] != second["hash"]
        assert first["python"] == second["python"]

    def test_a_package_that_is_too_small_is_refused(self, library):
        with pytest.raises(ValueError, match="one in library must have 4 long files and 9,999"):
            knn_lm.read_texts(replace(SMALL, slots=(9_999,)), library)

    def test_stores_of_other_text_hold_none_of_the_package(self, texts):
        found = knn_lm.stores_of(texts)
        assert tuple(found) == knn_lm.STORES
        assert found["elsewhere"] == {"one": texts.memory["two"], "two": texts.memory["one"]}
        assert set(found["contrast"].values()) == {texts.train}
        assert texts.prose.startswith(b"The with statement.")
        for package, text in texts.memory.items():
            (word,) = {line.split(b"_")[0] for line in text.split()}  # each has words of its own
            assert not any(
                word + b"_" in found[n][package] for n in ("elsewhere", "contrast", "prose")
            )

    def test_the_manual_comes_with_the_library(self):
        prose = knn_lm.read_manual(knn_lm.LIBRARY)
        assert len(prose) > max(knn_lm.RECIPE.slots)
        assert prose.count(b" the ") > 500


class TestLook:
    def test_each_byte_is_predicted_from_those_before_it(self, model, texts):
        passage = texts.test[0]
        seen = knn_lm.look(model, passage.before, passage.asked, SMALL.length)
        assert bytes(seen.targets.tolist()) == passage.asked
        whole, half = passage.before + passage.asked, SMALL.length // 2
        for t in range(len(passage.asked)):
            first = len(passage.before) + t - half - t % half
            past = torch.tensor([list(whole[first : len(passage.before) + t])])
            with torch.no_grad():
                logits, _ = model(past)
            torch.testing.assert_close(seen.logits[t], logits[0, -1])

    def test_logits_are_made_of_the_states(self, model):
        seen = knn_lm.look(model, b"", b"some text of any length", SMALL.length)
        torch.testing.assert_close(seen.logits, seen.states @ model.embedding.detach().T)

    def test_what_comes_later_changes_nothing(self, model):
        one = knn_lm.look(model, b"abc", b"0123456789", SMALL.length)
        two = knn_lm.look(model, b"abc", b"01234xxxxx", SMALL.length)
        torch.testing.assert_close(one.logits[:6], two.logits[:6])
        assert not torch.allclose(one.logits[6:], two.logits[6:])

    def test_no_hook_is_left(self, model):
        knn_lm.look(model, b"", b"text", SMALL.length)
        assert not model.norm._forward_hooks


class TestMemory:
    def asked(self, model, texts, passages=None):
        passages = texts.validate if passages is None else passages
        remember = knn_lm.remembering(model, SMALL)
        return knn_lm.recollections(model, passages, texts.memory, True, SMALL, remember)

    def test_a_memory_of_nothing_is_the_bare_model(self, model, texts):
        for seen, past in self.asked(model, texts):
            found = knn_lm.bits(seen, knn_lm.make_store(past, 0), 4, 0.5, 1.0)
            expected = F.cross_entropy(seen.logits, seen.targets, reduction="none") / math.log(2)
            torch.testing.assert_close(found, expected.double())

    def test_the_newest_are_kept(self, model, texts):
        (_, past) = self.asked(model, texts)[0]
        everything = remembered_by(past)
        for slots in (1, 16, 100):
            store = knn_lm.make_store(past, slots)
            values = store.values.flatten()[store.ids.flatten().argsort()]
            assert bytes(values.tolist()) == everything[-slots:]
        assert texts.validate[0].before.endswith(everything[-100:])
        assert everything[:-100] == texts.memory[texts.validate[0].package][-100:]

    def test_the_very_text_that_is_asked_is_found(self, model, texts):
        passage = texts.test[0]
        other = Passage(passage.package, "other", passage.asked, passage.asked)
        ((seen, past),) = self.asked(model, texts, [passage])
        same = knn_lm.look(model, passage.before, other.before, SMALL.length)
        alone, helped, told = (
            knn_lm.bits(seen, store, 1, 0.9, 1.0).mean()
            for store in (
                knn_lm.make_store(past, 0),
                knn_lm.make_store(past, 100),
                knn_lm.make_store([*past, (same.states, same.targets)], 100),
            )
        )
        assert told < 0.2 < 1 < helped
        assert told < alone / 10

    def test_one_search_serves_all_choices(self, model, texts):
        for seen, past in self.asked(model, texts):
            store = knn_lm.make_store(past, 100)
            rows = knn_lm.narrowed(seen, store, 4)
            for mix, strength in ((0.0, 1.0), (0.3, 0.1), (1.0, 0.05)):
                torch.testing.assert_close(
                    knn_lm.bits(seen, rows, 4, mix, strength),
                    knn_lm.bits(seen, store, 4, mix, strength),
                )

    def test_bits_are_those_of_the_interpolation(self, model, texts):
        ((seen, past),) = self.asked(model, texts, texts.test[:1])
        store = knn_lm.make_store(past, 100)
        found = interpolate(seen.logits[None], seen.states[None], store, 4, mix=0.3, strength=0.1)[
            0
        ].exp()
        expected = -found[torch.arange(SMALL.asked), seen.targets].log2()
        torch.testing.assert_close(knn_lm.bits(seen, store, 4, 0.3, 0.1), expected.double())

    def test_the_choice_is_the_best_on_what_validates(self, model, texts):
        validate = self.asked(model, texts)
        thin = [(knn_lm.Seen(*(x[:: knn_lm.THIN] for x in seen)), past) for seen, past in validate]

        def total(mix, strength):
            return sum(
                knn_lm.bits(seen, knn_lm.make_store(past, 100), SMALL.k, mix, strength).sum().item()
                for seen, past in thin
            )

        mix, strength = knn_lm.choose(validate, 100, SMALL)
        best = min(total(other, strength) for other in SMALL.mixes)
        assert total(mix, strength) == pytest.approx(best)
        assert total(mix, strength) <= min(total(0.5, other) for other in SMALL.strengths)

    def test_the_test_has_no_say_in_the_choice(self, model, texts):
        validate, test = (self.asked(model, texts, p) for p in (texts.validate, texts.test))
        lines = knn_lm.measure(test, validate, SMALL)
        wrong = [(seen._replace(targets=seen.targets.flip(0)), past) for seen, past in test]
        others = knn_lm.measure(wrong, validate, SMALL)
        for name in ("weight", "strength"):
            assert [line[name] for line in lines] == [line[name] for line in others]
        assert [x["bits_per_byte"] for x in lines] != [x["bits_per_byte"] for x in others]

    def test_what_does_not_help_is_left_out(self, model, texts):
        seen, _ = self.asked(model, texts, texts.validate[:1])[0]
        wrong = seen.states, torch.full_like(seen.targets, 255)
        assert knn_lm.choose([(seen, [wrong])], 100, SMALL)[0] == 0.0


def remembered_by(past):
    return b"".join(bytes(values.tolist()) for _, values in past)


def timeless(run):
    """Return a record without what no two runs share."""
    run = {name: value for name, value in run.items() if not name.startswith("seconds")}
    run["curve"] = [{**point, "seconds": 0} for point in run["curve"]]
    return run


class TestRuns:
    def test_a_run_is_recorded_with_its_memories(self, tmp_path, places, texts):
        knn_lm.main(["--seeds", "0", "1", *places])
        runs = runs_of(tmp_path)
        assert [run["seed"] for run in runs] == [0, 1]
        for run in runs:
            assert run["text"] == texts.about()
            assert [p["sequences"] for p in run["curve"]] == [0, 16, 32, 48]
            assert run["parameters"] == 256 * 16 + (4 + 8) * 16**2 + 3 * 2 * 16
            for name in knn_lm.STORES:
                sizes = SMALL.slots if name == "memory" else SMALL.slots[-1:]
                assert [line["slots"] for line in run[name]] == list(sizes)
                for line in run[name]:
                    assert len(line["files"]) == len(run["text"]["test_files"]) == 4
                    mean = sum(line["files"]) / 4  # files are asked as many bytes
                    assert line["bits_per_byte"] == pytest.approx(mean, abs=1e-4)
                    assert line["weight"] in SMALL.mixes
            assert run["recipe"]["asked"] == 40
        assert runs[0]["memory"] != runs[1]["memory"]

    def test_the_command_of_a_record_makes_that_record(self, tmp_path, places):
        knn_lm.main(["--seeds", "3", *places])
        (run,) = runs_of(tmp_path)
        words = run["command"].split()
        assert words[:4] == ["python", "-m", "experiments", "knn_lm"]
        knn_lm.main([*words[4:], "--fresh", *places])
        (again,) = runs_of(tmp_path)
        assert timeless(again) == timeless(run)

    def test_a_run_that_was_stopped_goes_on_bit_for_bit(self, tmp_path, texts):
        def run(path, *stops):
            for stop in stops:
                job = knn_lm.set_up(knn_lm.make_model(0, SMALL), texts, 0, SMALL)
                training.train(job, stop, path=path, about={})
            return job

        whole, parts = run(tmp_path / "a", 48), run(tmp_path / "b", 16, 32, 48)
        for one, other in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
            assert torch.equal(one, other)
        curves = [[p["bits_per_byte"] for p in job.progress.curve] for job in (whole, parts)]
        assert curves[0] == curves[1]
        for job in (whole, parts):
            job.model.eval()
        found, same = (knn_lm.examine(job.model, texts, SMALL) for job in (whole, parts))
        for name in knn_lm.STORES:
            bits = [[line["bits_per_byte"] for line in x[name]] for x in (found, same)]
            assert bits[0] == bits[1]

    def test_a_checkpoint_of_another_text_is_refused(self, tmp_path, places, library):
        from experiments.checkpoints import CheckpointError

        knn_lm.main(["--seeds", "0", *places])
        path = library / "rest" / "0.py"
        path.write_text(path.read_text() + "#")
        with pytest.raises(CheckpointError, match=r"text\.hash"):
            knn_lm.main(["--seeds", "0", *places])

    def test_batches_are_pieces_of_the_training_text(self, texts):
        text = knn_lm.as_tensor(texts.train)
        batch = knn_lm.make_batch(text, torch.Generator().manual_seed(0), SMALL)
        assert batch.shape == (SMALL.batch_size, SMALL.length + 1)
        assert all(bytes(row.tolist()) in texts.train for row in batch)

    def test_it_is_listed(self):
        assert "knn_lm" in __main__.EXPERIMENTS
