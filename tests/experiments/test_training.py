"""Training that is killed and resumed ends where one that is left alone ends, bit for bit."""

import fcntl
import json
import os
import pty
import random
import re
import select
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

pytest.importorskip("experiments")  # a part of the repository, not of the package
pytest.importorskip("safetensors")
pytest.importorskip("tqdm")

from experiments import __main__ as command
from experiments import checkpoints, files, keys, ntm, ntm_ablation, records, training
from memlib import NTM, tasks

ROOT = Path(__file__).parents[2]
ABOUT = {"task": "line", "seed": 0, "recipe": {"batch_size": 4}}
CORRUPT = r"^some\.safetensors is corrupt"
ADAM = {"kind": torch.optim.Adam, "weight_decay": 0.01}


class Net(nn.Module):
    """All that is hard to resume: dropout, a buffer that moves, a parameter without gradient."""

    def __init__(self, hidden=5, dtype=torch.float32):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(3, hidden), nn.BatchNorm1d(hidden), nn.Dropout(0.3), nn.Linear(hidden, 1)
        ).to(dtype)
        self.unused = nn.Parameter(torch.ones(2, dtype=dtype))

    def forward(self, x):
        return self.layers(x)


def make(hidden=5, dtype=torch.float32, kind=torch.optim.Adam, loss=None, **options):
    torch.manual_seed(0)
    model = Net(hidden, dtype)
    exam = torch.randn(20, 3, generator=torch.Generator().manual_seed(1), dtype=dtype)
    return training.Training(
        model=model,
        optimizer=kind(model.parameters(), **({"lr": 0.1} | options)),
        generator=torch.Generator().manual_seed(2),
        make_batch=lambda generator: torch.randn(4, 3, generator=generator, dtype=dtype),
        loss=loss or squared,
        evaluate=lambda model: {"loss": squared(model, exam).item()},
        rate=lambda sequences: 0.1 / (1 + sequences / 50),
        batch_size=4,
        every=20,
        clip=training.by_running_norm(1.0),
    )


def squared(model, x):
    return (model(x)[:, 0] - x.sum(dim=1)).square().mean()


def everything(job):
    """All that a run is, the time it took aside."""
    tensors = checkpoints.flatten(job.model, job.optimizer, job.generators())
    curve = [{k: v for k, v in point.items() if k != "seconds"} for point in job.progress.curve]
    return {name: t.clone() for name, t in tensors.items()}, curve, job.progress.sequences


def assert_same(one, other):
    assert one[1:] == other[1:]
    assert one[0].keys() == other[0].keys()
    for name, tensor in one[0].items():
        assert tensor.dtype == other[0][name].dtype
        assert torch.equal(tensor, other[0][name]), name


class Killed(BaseException):
    pass


def killed_at(update):
    calls = iter(range(1, update + 1))

    def loss(model, x):
        if next(calls) == update:
            raise Killed
        return squared(model, x)

    return loss


class TestTraining:
    @pytest.fixture
    def path(self, tmp_path):
        return tmp_path / "run.safetensors"

    @pytest.fixture
    def every_5_updates(self, monkeypatch):
        ticks = iter(range(10**6))
        clock = SimpleNamespace(monotonic=lambda: next(ticks), process_time=time.process_time)
        monkeypatch.setattr(training, "time", clock)
        return {"save_seconds": 5}

    @pytest.mark.parametrize(
        "options",
        [
            ADAM,
            {"kind": torch.optim.Adam, "fused": True},
            {"kind": torch.optim.Adam, "amsgrad": True},
            {"kind": torch.optim.RMSprop, "momentum": 0.9, "centered": True},
            {"kind": torch.optim.SGD, "momentum": 0.9},
            {"kind": torch.optim.SGD},
        ],
        ids=["adam", "fused", "amsgrad", "rmsprop", "momentum", "sgd"],
    )
    def test_40_updates_are_17_and_a_kill_and_the_rest(self, path, every_5_updates, options):
        whole = make(**options)
        training.train(whole, 160, path=path.with_name("whole"), about=ABOUT)
        first = make(**options, loss=killed_at(18))
        with pytest.raises(Killed):
            training.train(first, 160, path=path, about=ABOUT, **every_5_updates)
        assert 0 < checkpoints.load(path)[1]["progress"]["sequences"] < 17 * 4
        torch.manual_seed(99)  # another process would not stand where this one does
        second = make(**options)
        training.train(second, 160, path=path, about=ABOUT, **every_5_updates)
        assert_same(everything(whole), everything(second))
        assert len(whole.progress.curve) == 9

    def test_it_learns_and_the_curve_says_so(self, path):
        curve = training.train(make(), 800, path=path, about=ABOUT).curve
        assert [point["sequences"] for point in curve] == list(range(0, 801, 20))
        assert curve[-1]["loss"] < curve[0]["loss"] / 2
        seconds = [point["seconds"] for point in curve]
        assert seconds == sorted(seconds)
        assert seconds[-1] > 0

    def test_seconds_are_summed_over_sittings(self, path, monkeypatch):
        clock = iter(range(10**6))  # each update takes one second
        monkeypatch.setattr(time, "process_time", lambda: next(clock))
        training.train(make(), 40, path=path, about=ABOUT)
        assert training.train(make(), 80, path=path, about=ABOUT).seconds == 20

    def test_a_finished_run_is_left_as_it_is(self, path):
        job = make()
        training.train(job, 40, path=path, about=ABOUT)
        again = make(loss=killed_at(1))
        training.train(again, 40, path=path, about=ABOUT)
        assert_same(everything(job), everything(again))

    def test_the_learning_rate_follows_the_sequences(self, path):
        job = make(kind=torch.optim.SGD)
        seen = []
        job.rate = lambda sequences: seen.append(sequences) or 1 / (1 + sequences)
        training.train(job, 20, path=path, about=ABOUT)
        assert seen == [0, 4, 8, 12, 16]
        assert job.optimizer.param_groups[0]["lr"] == 1 / 17

    def test_a_gradient_is_clipped_at_the_running_norm(self):
        job = make(kind=torch.optim.SGD, loss=lambda model, x: 1e6 * squared(model, x))
        job.rate = lambda _: 1.0
        job.clip, job.progress.norm = training.by_running_norm(1.5), 2.0
        before = [p.clone() for p in job.model.parameters()]
        training.update(job)
        after = job.model.parameters()
        moved = torch.cat([(a - b).flatten() for a, b in zip(after, before, strict=True)])
        assert moved.norm().item() == pytest.approx(3.0, rel=1e-3)
        assert job.progress.norm == pytest.approx(0.98 * 2.0 + 0.02 * 3.0, rel=1e-3)

    @pytest.mark.parametrize("scale", [1e10, 1e20, 1e30])
    def test_a_gradient_whose_squares_overflow_is_clipped_as_any(self, scale):
        moved, norms = [], []
        for factor in (1.0, scale):
            job = make(kind=torch.optim.SGD, loss=lambda m, x, f=factor: 1e6 * f * squared(m, x))
            job.rate = lambda _: 1.0
            job.clip, job.progress.norm = training.by_running_norm(1.5), 2.0
            before = [p.clone() for p in job.model.parameters()]
            training.update(job)
            after = job.model.parameters()
            moved.append(torch.cat([(a - b).flatten() for a, b in zip(after, before, strict=True)]))
            norms.append(job.progress.norm)
        torch.testing.assert_close(moved[1], moved[0], rtol=1e-4, atol=1e-6)
        assert norms[1] == pytest.approx(norms[0], rel=1e-4)

    def test_the_first_gradient_is_not_clipped_and_begins_the_running_norm(self):
        job = make(kind=torch.optim.SGD, loss=lambda model, x: 1e3 * squared(model, x))
        job.rate = lambda _: 1.0
        before = [p.clone() for p in job.model.parameters()]
        training.update(job)
        after = job.model.parameters()
        moved = torch.cat([(a - b).flatten() for a, b in zip(after, before, strict=True)])
        assert job.progress.norm == pytest.approx(moved.norm().item(), rel=1e-3)
        assert job.progress.norm > 10

    def test_each_matrix_is_clipped_by_itself(self):
        job = make(kind=torch.optim.SGD, loss=lambda model, x: 1e4 * squared(model, x))
        job.rate, job.clip = (lambda _: 1.0), training.by_matrix(0.5)
        before = [p.clone() for p in job.model.parameters()]
        training.update(job)
        after = job.model.parameters()
        moved = [(a - b).norm().item() for a, b in zip(after, before, strict=True)]
        assert max(moved) == pytest.approx(0.5, rel=1e-3)
        assert sum(m == pytest.approx(0.5, rel=1e-3) for m in moved) >= 2

    def test_the_model_is_prepared_for_every_update_and_evaluation(self, path):
        job, seen = make(), []
        job.prepare = lambda model, sequences: seen.append((model is job.model, sequences))
        training.train(job, 20, path=path, about=ABOUT)
        assert seen == [(True, n) for n in (0, 0, 4, 8, 12, 16, 20)]

    def test_a_gradient_that_is_nan_stops_the_run(self, path):
        job = make(loss=lambda model, x: squared(model, x) * float("nan"))
        with pytest.raises(RuntimeError, match="non-finite"):
            training.train(job, 40, path=path, about=ABOUT)

    def test_ctrl_c_ends_the_update_saves_and_says_so(self, path):
        whole = make()
        training.train(whole, 160, path=path.with_name("whole"), about=ABOUT)
        calls = []

        def loss(model, x):
            calls.append(x)
            if len(calls) == 7:
                signal.raise_signal(signal.SIGINT)
            return squared(model, x)

        before = signal.getsignal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt, match="stopped after 28 sequences"):
            training.train(make(loss=loss), 160, path=path, about=ABOUT)
        assert signal.getsignal(signal.SIGINT) is before
        job = make()
        training.train(job, 160, path=path, about=ABOUT)
        assert_same(everything(whole), everything(job))

    def test_the_second_ctrl_c_breaks_off_at_once(self, path, request):
        # a shell's background job starts with Ctrl-C ignored
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))

        def loss(model, x):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            raise AssertionError

        with pytest.raises(KeyboardInterrupt, match=r"^$"):
            training.train(make(loss=loss), 160, path=path, about=ABOUT)
        assert not path.exists()

    @pytest.mark.parametrize(
        ("options", "about", "fault"),
        [
            ({}, ABOUT | {"task": "circle"}, "task must be circle; got line"),
            ({}, ABOUT | {"seed": 1}, "seed must be 1; got 0"),
            ({}, ABOUT | {"recipe": {"batch_size": 8}}, "recipe.batch_size must be 8; got 4"),
            ({}, {"task": "line", "seed": 0}, "recipe is unexpected"),
            ({"hidden": 6}, ABOUT, r"model.layers.0.weight must be float32 \(6, 3\); got .* \(5, "),
            ({"dtype": torch.float64}, ABOUT, r"weight must be float64 \(5, 3\); got float32"),
            ({"kind": torch.optim.SGD}, ABOUT, "optimizer.layers.0.bias.exp_avg is unexpected"),
            ({"amsgrad": True}, ABOUT, "optimizer.unused.max_exp_avg_sq is missing"),
        ],
    )
    def test_another_runs_checkpoint_is_refused(self, path, options, about, fault):
        training.train(make(), 20, path=path, about=ABOUT)
        with pytest.raises(ValueError, match=rf"run.safetensors does not fit: .*{fault}"):
            training.train(make(**options), 40, path=path, about=about)

    def test_a_checkpoint_beyond_the_budget_is_refused(self, path):
        training.train(make(), 40, path=path, about=ABOUT)
        with pytest.raises(ValueError, match="must be at most at 20 sequences; got 40"):
            training.train(make(), 20, path=path, about=ABOUT)

    @pytest.mark.parametrize(
        "name", ["model.layers.3.bias", "optimizer.unused.exp_avg", "generator.data"]
    )
    def test_a_missing_or_unexpected_tensor_is_refused(self, path, name):
        training.train(make(), 20, path=path, about=ABOUT)
        tensors, about = checkpoints.load(path)
        checkpoints.save(path, {n: t for n, t in tensors.items() if n != name}, about)
        with pytest.raises(ValueError, match=f"{name} is missing"):
            training.train(make(), 40, path=path, about=ABOUT)
        checkpoints.save(path, tensors | {f"{name}.more": torch.ones(1)}, about)
        with pytest.raises(ValueError, match=f"{name}.more is unexpected"):
            training.train(make(), 40, path=path, about=ABOUT)

    def test_code_that_changed_meanwhile_is_told(self, path):
        for key, sequences in (("a", 20), ("b", 40), ("b", 60)):
            job = make()
            job.progress.codes.append(key)
            training.train(job, sequences, path=path, about=ABOUT)
        assert job.progress.codes == ["a", "b"]

    def test_optimizer_state_that_is_no_tensor_is_refused(self):
        job = make(kind=torch.optim.LBFGS)
        job.optimizer.state[job.model.unused]["func_evals"] = 3
        with pytest.raises(TypeError, match="func_evals of unused must be a tensor; got 3"):
            checkpoints.flatten(job.model, job.optimizer, {})


TENSORS = {
    "x": torch.arange(6.0).view(2, 3).mT,
    "none": torch.empty(0, 4),
    "one": torch.tensor(1, dtype=torch.int64),
    "half": torch.ones(3, dtype=torch.bfloat16),
    "which": torch.tensor([True, False]),
}


class TestCheckpoints:
    @pytest.fixture
    def path(self, tmp_path):
        path = tmp_path / "some.safetensors"
        checkpoints.save(path, TENSORS, {"seed": 0, "of": [1, 2.5, None, '"sha256":"0"']})
        return path

    def test_what_is_saved_comes_back(self, path):
        tensors, about = checkpoints.load(path, {"seed": 0}, TENSORS)
        assert about == {"seed": 0, "of": [1, 2.5, None, '"sha256":"0"']}
        assert tensors.keys() == TENSORS.keys()
        for name, tensor in TENSORS.items():
            assert torch.equal(tensor, tensors[name])
            assert tensor.dtype == tensors[name].dtype

    def test_anyone_who_reads_safetensors_reads_it(self, path):
        from safetensors.torch import load_file

        assert torch.equal(load_file(path)["x"], TENSORS["x"])

    def test_tied_tensors_are_saved(self, tmp_path):
        x = torch.ones(3)
        checkpoints.save(tmp_path / "tied", {"a": x, "b": x}, {})
        assert checkpoints.load(tmp_path / "tied")[0].keys() == {"a", "b"}

    def test_every_flipped_byte_is_noticed(self, path):
        whole = path.read_bytes()
        for i in range(len(whole)):
            for bit in (0, 5, 7):
                flipped = bytearray(whole)
                flipped[i] ^= 1 << bit
                path.write_bytes(flipped)
                with pytest.raises(ValueError, match=CORRUPT):
                    checkpoints.load(path)

    def test_every_truncation_is_noticed(self, path):
        whole = path.read_bytes()
        for i in range(len(whole)):
            path.write_bytes(whole[:i])
            with pytest.raises(ValueError, match=CORRUPT):
                checkpoints.load(path)
        path.write_bytes(whole + b"\0")
        with pytest.raises(ValueError, match=CORRUPT):
            checkpoints.load(path)

    @pytest.mark.parametrize("name", ["fsync", "replace"])
    def test_a_save_that_breaks_off_leaves_the_file_before(self, path, name, monkeypatch):
        def broken(*_):
            raise Killed

        before = path.read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(files.os, name, broken)
            with pytest.raises(Killed):
                checkpoints.save(path, {}, {"seed": 1})
        assert path.read_bytes() == before
        checkpoints.save(path, {}, {"seed": 1})
        assert checkpoints.load(path) == ({}, {"seed": 1})
        assert list(path.parent.iterdir()) == [path]

    def test_many_faults_are_cut_short(self, path):
        with pytest.raises(ValueError, match=r"half is unexpected; .*; which .* and 1 more"):
            checkpoints.load(path, {"seed": 1}, {})


class TestRecords:
    KEY = ("model", "seed")

    def test_runs_that_end_together_are_all_kept(self, tmp_path):
        path = tmp_path / "results" / "runs.json"

        def end(seed):
            records.merge(path, {"model": "ntm", "seed": seed, "figure": 1.5}, self.KEY)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(end, random.Random(0).sample(range(60), 60)))
        assert [run["seed"] for run in json.loads(path.read_text())["runs"]] == list(range(60))
        assert len(path.read_text().splitlines()) == 62  # a line a run
        assert list(path.parent.iterdir()) == [path]

    def test_a_run_done_again_takes_its_place(self, tmp_path):
        path = tmp_path / "runs.json"
        for model, figure in (("ntm", 1), ("lstm", 2), ("ntm", 3)):
            records.merge(path, {"model": model, "seed": 0, "figure": figure}, self.KEY)
        runs = json.loads(path.read_text())["runs"]
        assert [(run["model"], run["figure"]) for run in runs] == [("lstm", 2), ("ntm", 3)]

    def test_nan_is_no_record(self, tmp_path):
        with pytest.raises(ValueError, match="JSON"):
            records.merge(tmp_path / "runs.json", {"figure": float("nan")}, ())
        assert not (tmp_path / "runs.json").exists()

    def test_save_tells_what_was_measured_and_how(self, tmp_path, monkeypatch):
        monkeypatch.setattr(records, "ROOT", tmp_path)
        monkeypatch.setattr(records, "RESULTS", tmp_path / "results")
        command = "python -m benchmarks ntm"
        assert records.save("some", {"x": 1}, command=command, seed=3) == "results/some.json"
        record = json.loads((tmp_path / "results" / "some.json").read_text())
        assert record["figures"] == {"x": 1}
        assert record["seed"] == 3
        assert record["versions"]["torch"] == torch.__version__
        assert {"command", "date", "machine"} < record.keys()
        assert record["key"] == keys.today("benchmarks.ntm")


class TestLock:
    def test_only_one_holds_it_at_a_time(self, tmp_path):
        path = tmp_path / "run.lock"
        first, second = files.lock(path, wait=False), files.lock(path, wait=False)
        with first, pytest.raises(BlockingIOError, match="another process holds"):
            second.__enter__()
        with files.lock(path, wait=False):
            pass


TINY = {"slots": 8, "width": 6, "hidden": 8, "every": 40, "exam": 10, "sequences": 160}
TINY |= {"batch_size": 2, "sizes": {"length": (1, 3), "bits": 3}}


def words(folder, model="ntm", *more, save_seconds=0.0):
    """The command line of a run that takes a second."""
    changes = [word for name, value in TINY.items() for word in ("--set", f"{name}={value!r}")]
    places = ["--results", f"{folder}/results", "--unfinished", f"{folder}/unfinished"]
    return ["ntm", "--task", "copy", "--model", model, *changes, *places,
            "--save-seconds", str(save_seconds), *more]  # fmt: skip


def outcome(folder):
    """All that the runs of a folder left, the time they took aside."""
    runs = json.loads((folder / "results" / "ntm_copy.json").read_text())["runs"]
    for run in runs:
        for point in (run, *run["curve"]):
            for name in ("seconds", "solved_seconds"):
                point.pop(name, None)
    saved = sorted((folder / "unfinished").glob("*.safetensors"))
    return runs, {path.name: checkpoints.load(path)[0] for path in saved}


def assert_same_outcome(one, other):
    assert one[0] == other[0]
    assert one[1].keys() == other[1].keys()
    for name, tensors in one[1].items():
        assert tensors.keys() == other[1][name].keys()
        assert all(torch.equal(t, other[1][name][key]) for key, t in tensors.items())


def start(arguments, **options):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    module = [sys.executable, "-m", "experiments", *arguments]
    return subprocess.Popen(module, cwd=ROOT, env=environment, **options)


class TestNTM:
    @pytest.fixture
    def threads(self):
        before = torch.get_num_threads()
        yield
        torch.set_num_threads(before)

    @pytest.mark.slow
    @pytest.mark.usefixtures("threads")
    def test_killed_at_any_moment_it_ends_as_if_left_alone(self, tmp_path):
        """It saves after every update, so most kills fall into the middle of a save."""
        left, killed = tmp_path / "left", tmp_path / "killed"
        assert command.main(words(left)) == 0
        moments = random.Random(0)
        checkpoint, kills = killed / "unfinished", 0
        for _ in range(3):
            process = start(words(killed))
            before = {path: path.stat().st_mtime_ns for path in checkpoint.glob("*.safetensors")}
            while process.poll() is None:
                now = {path: path.stat().st_mtime_ns for path in checkpoint.glob("*.safetensors")}
                if now != before:  # it trains
                    time.sleep(0.15 * moments.random())
                    process.send_signal(signal.SIGKILL)
                    break
                time.sleep(0.001)
            kills += process.wait() == -signal.SIGKILL
            for path in checkpoint.glob("*.safetensors"):
                checkpoints.load(path)
        assert kills >= 2
        assert start(words(killed)).wait() == 0
        assert_same_outcome(outcome(left), outcome(killed))

    @pytest.mark.slow
    @pytest.mark.usefixtures("threads")
    def test_the_record_tells_the_whole_run(self, tmp_path, capsys):
        for model in ("ntm", "ntm-feedforward", "lstm"):
            assert command.main(words(tmp_path, model, "--seeds", "2", "--seed", "3")) == 0
        out, err = capsys.readouterr()
        assert len(out.splitlines()) == 6
        assert "\r" not in err, "lines, not a bar, where no terminal looks on"
        assert re.findall(r"^copy lstm 4: +(\d+)%", err, re.M) == ["0", "100"]
        runs, _ = outcome(tmp_path)
        key = [(run["model"], run["seed"]) for run in runs]
        assert key == [(m, s) for m in ("lstm", "ntm", "ntm-feedforward") for s in (3, 4)]
        for run in runs:
            assert [point["sequences"] for point in run["curve"]] == [0, 40, 80, 120, 160]
            assert {"sequences", "bits", "wrong_bits"} == run["curve"][0].keys()
            assert [test["length"] for test in run["beyond"]] == [20, 40, 80, 120]
            assert run["sequences"] == 160
            assert run["curve"][-1]["bits"] != run["curve"][0]["bits"]
            assert {"command", "versions", "date", "key", "machine", "final"} < run.keys()
        assert runs[0]["curve"] != runs[1]["curve"]

    @pytest.mark.usefixtures("threads")
    def test_the_recorded_command_makes_the_same_record(self, tmp_path):
        once, again = tmp_path / "once", tmp_path / "again"
        assert command.main(words(once, "lstm", "--perturb", "1e-6", "--seed", "7")) == 0
        (record,), _ = outcome(once)
        _, _, _, *arguments = shlex.split(record["command"])
        places = ["--results", f"{again}/results", "--unfinished", f"{again}/unfinished"]
        assert command.main([*arguments, *places]) == 0
        assert_same_outcome(outcome(once), outcome(again))

    @pytest.mark.usefixtures("threads")
    def test_a_variant_stands_beside_the_run_it_varies(self, tmp_path):
        command.main(words(tmp_path, "lstm"))
        command.main(words(tmp_path, "lstm", "--perturb", "1e-6"))
        command.main(words(tmp_path, "lstm", "--sequences", "80"))
        command.main(words(tmp_path, "lstm", "--set", "learning_rate=0.5"))
        runs, saved = outcome(tmp_path)
        variants = {run["variant"] for run in runs}
        assert len(variants) == len(saved) == 4
        ends = ("perturb=1e-06", "sequences=80", "learning_rate=0.5")
        assert all(any(end in variant for variant in variants) for end in ends)

    def test_a_perturbation_moves_one_bias_and_nothing_else(self):
        for model in ("ntm", "ntm-feedforward", "lstm"):
            one = ntm.make_model(ntm.Run("copy", model, 1, changes=TINY)).state_dict()
            other = ntm.make_model(ntm.Run("copy", model, 1, 1e-3, TINY)).state_dict()
            moved = {name: other[name] - one[name] for name in one}
            assert sum(int(t.count_nonzero()) for t in moved.values()) == 1
            name = next(name for name, t in moved.items() if t.count_nonzero())
            assert "bias" in name
            assert moved[name].sum().item() == pytest.approx(1e-3, rel=1e-3)

    @pytest.mark.usefixtures("threads")
    def test_the_exported_model_is_the_trained_one(self, tmp_path):
        assert command.main(words(tmp_path, "ntm", "--export")) == 0
        tensors, about = checkpoints.load(tmp_path / "results" / "ntm_copy.safetensors")
        saved = outcome(tmp_path)[1]
        assert {"task", "model", "seed", "recipe", "command", "key"} < about.keys()
        model = ntm.make_model(ntm.Run("copy", "ntm", changes=TINY))
        model.load_state_dict(tensors)
        trained = next(iter(saved.values()))
        assert all(torch.equal(t, trained[f"model.{name}"]) for name, t in tensors.items())

    @pytest.mark.usefixtures("threads")
    def test_fresh_starts_anew_and_what_does_not_fit_says_so(self, tmp_path, capsys):
        assert command.main(words(tmp_path, "lstm")) == 0
        (path,) = (tmp_path / "unfinished").glob("*.safetensors")
        path.write_bytes(path.read_bytes()[:-1])
        assert command.main(words(tmp_path, "lstm")) == 1
        err = capsys.readouterr().err
        assert f"{path.name} is corrupt" in err
        assert err.strip().endswith("--fresh")
        assert command.main(words(tmp_path, "lstm", "--fresh")) == 0
        checkpoints.load(path)

    @pytest.mark.usefixtures("threads")
    def test_the_same_run_twice_at_once_is_refused(self, tmp_path, capsys):
        assert command.main(words(tmp_path, "lstm")) == 0
        (path,) = (tmp_path / "unfinished").glob("*.lock")
        with files.lock(path):
            assert command.main(words(tmp_path, "lstm")) == 1
        assert "another process holds" in capsys.readouterr().err

    def test_ctrl_c_on_a_terminal(self, tmp_path):
        """The bar and the line that says how to go on are on stderr; stdout stays clean."""
        arguments = words(tmp_path, "lstm", "--set", "sequences=1000000", save_seconds=100)
        screen, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
        process = start(arguments, stderr=terminal, stdout=subprocess.PIPE)
        os.close(terminal)
        seen = b""
        try:
            while b"wrong_bits" not in seen and select.select([screen], [], [], 60)[0]:
                seen += os.read(screen, 1000)
            process.send_signal(signal.SIGINT)
            while select.select([screen], [], [], 60)[0] and (chunk := os.read(screen, 1000)):
                seen += chunk
        except OSError:  # the end of a terminal
            pass
        finally:
            process.kill()
            os.close(screen)
        assert process.communicate() == (b"", None)
        assert process.returncode == 130
        assert b"%|" in seen
        assert re.search(rb"stopped after [\d,]+ sequences; all is saved; to go on: python", seen)
        (path,) = (tmp_path / "unfinished").glob("*.safetensors")
        assert 0 < checkpoints.load(path)[1]["progress"]["sequences"] < 10**6

    @pytest.mark.parametrize(
        ("change", "fault"),
        [("speed=1", "NAME must be one of sequences, .*; got 'speed'"), ("width=x", "literal")],
    )
    def test_a_change_that_cannot_be_is_refused(self, change, fault, capsys):
        with pytest.raises(SystemExit):
            command.main(["ntm", "--set", change])
        assert re.search(fault, capsys.readouterr().err)

    def test_every_task_has_recipes_and_makes_its_models(self):
        assert ntm.RECIPES.keys() == tasks.TASKS.keys()
        for task, recipes in ntm.RECIPES.items():
            for model in recipes:  # the LSTM, the fastest, comes last
                small = {"hidden": 4, "heads": 1, "exam": 3, "compiled": False}
                run = ntm.Run(task, model, changes=small)
                net = ntm.make_model(run)
                batches = ntm.exam(run, 3, 0, at_once=2)
                assert [len(batch.inputs) for batch in batches] == [2, 1]
                assert ntm.loss(net, batches[0]).isfinite()
            points = [{"sequences": n, "wrong_bits": w, "seconds": n / 2}
                      for n, w in ((0, 9.0), (4, 0.01), (8, 0.009), (12, 0.0))]  # fmt: skip
            figures = ntm.figures(run, net, training.Progress(12, 6.0, points[:2]))
            assert figures["solved_sequences"] is figures["solved_seconds"] is None
            figures = ntm.figures(run, net, training.Progress(12, 6.0, points))
            assert (figures["solved_sequences"], figures["solved_seconds"]) == (8, 4.0)
            assert figures["final"]["bits"] > 0
            assert len(figures["beyond"]) == len(ntm.BEYOND.get(task, []))

    def test_a_recipe_asks_for_a_compiled_step(self, monkeypatch):
        asked = []
        monkeypatch.setattr(NTM, "compile", lambda self: asked.append(self))
        for compiled in (False, True):
            for model in ("ntm", "ntm-feedforward", "lstm"):
                ntm.make_model(ntm.Run("copy", model, changes={"compiled": compiled}))
        assert len(asked) == 2


def test_without_a_name_the_experiments_are_listed(capsys):
    assert command.main([]) == 0
    assert "ntm" in capsys.readouterr().out
    assert command.main(["nothing"]) == 2
    assert "ntm" in capsys.readouterr().err


class TestAblation:
    @pytest.fixture
    def machine(self):
        torch.manual_seed(0)
        return NTM(9, 8, slots=12, width=6)

    @pytest.fixture
    def batch(self):
        return tasks.copy(3, length=5, generator=torch.Generator().manual_seed(0))

    @torch.no_grad()
    def test_to_change_nothing_changes_nothing(self, machine, batch):
        logits, _, weights = machine(batch.inputs, need_weights=True)
        found = ntm_ablation.answer(machine, batch, ntm_ablation.nothing)
        torch.testing.assert_close(found, (logits, weights))

    @torch.no_grad()
    def test_a_held_memory_is_the_one_at_the_end_of_the_input(self, machine, batch):
        seen = []

        def look(*states):
            seen.append(ntm_ablation.hold(*states))
            return seen[-1]

        ntm_ablation.answer(machine, batch, look)
        _, state = machine(batch.inputs[:, :6])  # five vectors and the delimiter
        memories = [after.memory for after in seen]
        assert all(torch.equal(memory, memories[5]) for memory in memories[5:])
        torch.testing.assert_close(memories[5], state.memory)
        assert not torch.equal(memories[4], memories[5])
        for after in seen:
            torch.testing.assert_close(after.reads, after.weights[:, :1] @ after.memory)

    @torch.no_grad()
    def test_a_hardened_read_is_one_slot(self, machine, batch):
        seen = []

        def look(*states):
            seen.append(ntm_ablation.harden(*states))
            return seen[-1]

        ntm_ablation.answer(machine, batch, look)
        for after in seen:
            assert (after.weights[:, 0].sort().values[:, :-1] == 0).all()
            assert (after.weights[:, 1].max(-1).values < 1).all()  # writes are left alone
            where = after.weights[:, 0].argmax(-1)
            torch.testing.assert_close(after.reads[:, 0], after.memory[range(3), where])

    @torch.no_grad()
    def test_the_slots_alone_are_changed(self, machine, batch):
        wide = ntm_ablation.resized(machine, 40)
        assert wide.cell.slots == 40
        assert wide.initial_state(1).memory.shape == (1, 40, 6)
        same = ntm_ablation.resized(machine, 12)
        torch.testing.assert_close(same(batch.inputs)[0], machine(batch.inputs)[0])

    @pytest.mark.slow
    def test_the_record(self, tmp_path, monkeypatch):
        tiny = ntm.Recipe(sequences=8, every=8, exam=4, hidden=8, width=6)
        monkeypatch.setitem(ntm.RECIPES["copy"], "ntm", tiny)
        places = ["--results", str(tmp_path), "--unfinished", str(tmp_path / "unfinished")]
        for walk in ("4.0", "0.0"):
            command.main(["ntm", "--seeds", "2", "--set", f"walk={walk}", *places])
        sizes = ["--seeds", "2", "--length", "20", "--sequences", "64"]
        assert command.main(["ntm_ablation", *sizes, *places]) == 0
        found = json.loads((tmp_path / "ntm_copy_ablation.json").read_text())["figures"]
        runs = json.loads((tmp_path / "ntm_copy.json").read_text())["runs"]
        assert len(found) == len(runs) == 4
        for figures in found:
            known = figures["seed"], figures["walk"]
            run = next(r for r in runs if (r["seed"], r["recipe"]["walk"]) == known)
            assert run["beyond"][0]["length"] == 20
            # the same machine on other sequences: near a guess, both
            assert figures["wrong_bits"]["as trained"] == pytest.approx(80, abs=15)
            assert figures["wrong_bits"].keys() == ntm_ablation.CHANGES.keys()
            assert all(len(focus) == 41 for focus in figures["focus"].values())

    def test_without_the_machines_it_says_so(self, tmp_path, capsys):
        with pytest.raises(SystemExit):
            command.main(["ntm_ablation", "--unfinished", str(tmp_path)])
        assert "first: python -m experiments ntm --task copy" in capsys.readouterr().err
