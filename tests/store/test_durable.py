"""A store in a folder: against one in memory, and against what happens to processes and files."""

import copy
import gc
import os
import pickle
import resource
import shutil
import signal
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import Mock

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from memlib import Store
from memlib.store import DurableStore, records
from tests.store import durability
from tests.store.durability import contents, opened

KILLS, DAMAGES = 20, 100  # in CI; `python -m experiments durability` does 300 and 1,000


def filled(path, pairs=(6, 4), seed=0, **options):
    """A new store whose rows hold so many pairs, and its ids."""
    store = opened(path, width=4, value_width=2, batch_size=len(pairs), **options)
    chance = torch.Generator().manual_seed(seed)
    keys = torch.randn(len(pairs), max(pairs), 4, generator=chance)
    values = torch.randn(len(pairs), max(pairs), 2, generator=chance)
    return store, store.add(keys, values, lengths=torch.tensor(pairs))


class BesideMemory(RuleBasedStateMachine):
    """The same calls to a store in a folder and to one in memory, through openings."""

    @initialize(
        rows=st.integers(1, 3),
        capacity=st.none() | st.integers(1, 9),
        dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float64]),
        whole=st.booleans(),
    )
    def begin(self, rows, capacity, dtype, whole):
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name, "store")
        value_dtype = torch.int64 if whole else dtype
        sizes = {"width": 3, "value_width": 2, "batch_size": rows, "capacity": capacity}
        kinds = {"dtype": dtype, "value_dtype": value_dtype}
        self.rows, self.kinds = rows, (dtype, value_dtype)
        self.memory = Store(**sizes, **kinds)
        self.durable = opened(self.path, **sizes, **kinds)
        self.chance = torch.Generator().manual_seed(rows)

    def pairs(self, count):
        keys, values = (
            torch.randint(-9, 9, (self.rows, count, n), generator=self.chance) for n in (3, 2)
        )
        return keys.to(self.kinds[0]), values.to(self.kinds[1])

    @rule(count=st.integers(0, 5), data=st.data())
    def add(self, count, data):
        keys, values = self.pairs(count)
        some = st.lists(st.integers(0, count), min_size=self.rows, max_size=self.rows)
        lengths = torch.tensor(data.draw(some))
        new = [x.add(keys, values, lengths=lengths) for x in (self.memory, self.durable)]
        assert torch.equal(*new)

    @rule(data=st.data())
    def overwrite(self, data):
        ids = self.some(data)
        keys, values = self.pairs(ids.shape[1])
        for x in (self.memory, self.durable):
            x.overwrite(ids, keys, values)

    @rule(data=st.data())
    def delete(self, data):
        ids = self.some(data)
        for x in (self.memory, self.durable):
            x.delete(ids)

    def some(self, data):
        held = [sorted(row) for row in contents(self.memory)]
        chosen = [
            data.draw(st.lists(st.sampled_from(row), unique=True)) if row else [] for row in held
        ]
        longest = max(map(len, chosen))
        return torch.tensor(
            [row + [-1] * (longest - len(row)) for row in chosen], dtype=torch.long
        ).reshape(self.rows, longest)

    @rule(again=st.sampled_from(["open", "reclaim", "killed"]))
    def again(self, again):
        if again == "reclaim":
            self.durable.reclaim()
            return
        if again == "killed":  # as a process that ends without a word leaves it
            beside = self.path.with_name(f"{self.path.name}+")
            shutil.copytree(self.path, beside)
            self.path = beside
        else:
            self.durable.close()
        self.durable = opened(self.path)

    @invariant()
    def same(self):
        assert contents(self.durable) == contents(self.memory)
        assert self.durable._next.tolist() == self.memory._next.tolist()
        assert torch.equal(self.durable.lengths, self.memory.lengths)
        beside = opened(self.path, readonly=True)
        assert contents(beside) == contents(self.memory)

    def teardown(self):
        self.durable.close()
        self.folder.cleanup()


BesideMemory.TestCase.settings = settings(max_examples=40, stateful_step_count=12, deadline=None)
TestBesideMemory = BesideMemory.TestCase


@pytest.mark.parametrize("backend", ["exact", "hnsw"])
def test_reads_as_a_store_in_memory(tmp_path, backend):
    if backend != "exact":
        pytest.importorskip("faiss")
    store, _ = filled(tmp_path / "s", pairs=(300,), backend=backend)
    store.close()
    again, memory = opened(tmp_path / "s"), Store(4, 2, backend=backend)
    memory.add(store.keys[:, :300], store.values[:, :300])
    query = torch.randn(1, 5, 4)
    for k in (1, 7, 300):
        found, wanted = (x.read(query, k, need_weights=True) for x in (again, memory))
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    again.close()


def test_versions_and_times(tmp_path, monkeypatch):
    clock = iter((100.0, 200.0, 150.0, 300.0, 400.0))
    monkeypatch.setattr(time, "time", lambda: next(clock))
    store, ids = filled(tmp_path / "s", pairs=(3,), history=True)
    for value in (1.0, 2.0):  # at 200, and at 150, when the clock was set back
        store.overwrite(ids[:, 1:2], torch.ones(1, 1, 4), torch.full((1, 1, 2), value))
    store.delete(ids[:, :1])
    told = store.versions(1)
    assert [when for when, _, _ in told] == [100.0, 200.0, 200.0]
    assert [value.tolist() for _, _, value in told[1:]] == [[1.0, 1.0], [2.0, 2.0]]
    assert store.before(150.0).tolist() == [[2]]
    assert store.before(201.0).tolist() == [[1, 2]]
    with pytest.raises(ValueError, match="ids must be held in their row; got 0 in row 0"):
        store.versions(0)
    store.reclaim()
    assert [when for when, _, _ in store.versions(1)] == [200.0]
    assert store.before(201.0).tolist() == [[1, 2]]
    store.delete(store.before(150.0))
    assert [sorted(row) for row in contents(store)] == [[1]]
    store.close()


def test_space_is_reclaimed(tmp_path, monkeypatch):
    monkeypatch.setattr("memlib.store.durable.DEAD", 8)
    sizes = {}
    for history in (False, True):
        store, ids = filled(tmp_path / str(history), pairs=(5,), history=history)
        for _ in range(50):
            store.overwrite(ids, torch.randn(1, 5, 4), torch.randn(1, 5, 2))
        sizes[history] = store._log.end
        assert len(store.versions(0)) == (51 if history else store._log.end // 5)
        store.close()
    assert sizes[True] == 255
    assert sizes[False] <= 5 + 5 + 8 + 5
    names = sorted(path.name for path in (tmp_path / "False").iterdir())
    assert len(names) == 7  # four files of one generation, two of what it is, and the lock


def test_a_process_may_end_while_space_is_reclaimed(tmp_path, monkeypatch):
    """Before the new files count, or before the old ones are gone."""
    for n, name in enumerate(("write_about", "Log.remove")):
        store, ids = filled(tmp_path / str(n), pairs=(5,))
        store.overwrite(ids, torch.ones(1, 5, 4), torch.ones(1, 5, 2))
        truth = contents(store)
        with monkeypatch.context() as patch:
            patch.setattr(f"memlib.store.log.{name}", Mock(side_effect=SystemExit))
            with pytest.raises(SystemExit):
                store.reclaim()
        store.close()
        for _ in range(2):
            store = opened(tmp_path / str(n))
            assert contents(store) == truth
            store.reclaim()
            store.close()
        assert contents(opened(tmp_path / str(n), readonly=True)) == truth
        assert len(list((tmp_path / str(n)).iterdir())) == 7


def test_a_reader_does_not_take_what_is_missing_for_empty(tmp_path):
    filled(tmp_path / "s")[0].close()
    for name in ("1.log", "1.mirror"):
        (tmp_path / "s" / name).unlink()
    with pytest.raises(ValueError, match=r"s is damaged: there is neither 1\.log nor 1\.mirror"):
        opened(tmp_path / "s", readonly=True)


def test_a_store_that_nobody_holds_gives_its_folder_back(tmp_path):
    store, _ = filled(tmp_path / "s")
    del store
    opened(tmp_path / "s").close()


# Processes


@pytest.mark.slow
def test_what_was_acknowledged_survives_a_kill(tmp_path):
    truth, folder = {}, tmp_path / "s"
    with durability.Writers() as writers:
        for seed in range(KILLS):
            may_be = durability.told(writers.kill_one(folder, seed), truth)
            there = durability.found(folder)
            assert there in [durability.rounded(x) for x in may_be], f"after kill {seed}"
            truth = there


def test_one_writer_and_readers_of_a_whole_past(tmp_path):
    store, ids = filled(tmp_path / "s", pairs=(5,))
    with pytest.raises(BlockingIOError, match="s must have one writer, and is open for writing"):
        opened(tmp_path / "s")
    reader = opened(tmp_path / "s", readonly=True)
    past = contents(reader)
    with pytest.raises(RuntimeError, match="s can only be read here: it was opened with readonly"):
        reader.delete(ids)
    store.overwrite(ids, torch.ones(1, 5, 4), torch.ones(1, 5, 2))
    store.reclaim()
    store.add(torch.ones(1, 50, 4), torch.ones(1, 50, 2))
    assert contents(reader) == past
    assert contents(opened(tmp_path / "s", readonly=True)) == contents(store)
    store.close()
    with pytest.raises(RuntimeError, match="can only be read here"):
        store.delete(ids)
    opened(tmp_path / "s").close()


def test_a_forked_child_may_not_write(tmp_path):
    store, ids = filled(tmp_path / "s", pairs=(5,))
    child = os.fork()
    if not child:
        try:
            store.delete(ids)
        except RuntimeError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    store.delete(ids[:, :1])
    store.close()


def test_copies_are_plain_stores(tmp_path):
    store, ids = filled(tmp_path / "s")
    for other in (copy.deepcopy(store), copy.copy(store), pickle.loads(pickle.dumps(store))):
        assert type(other) is Store
        other.delete(ids[:, :1])
        assert len(contents(other)[0]) == 5
    store.save(tmp_path / "file")
    assert contents(Store.open(tmp_path / "file")) == contents(store)
    store.close()


# Files


def test_a_full_disk_changes_nothing(tmp_path):
    store, ids = filled(tmp_path / "s", pairs=(5,))
    before, (soft, hard) = contents(store), resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for limit in (150, 100, 64):  # pairs, records, any
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            with pytest.raises(OSError, match="File too large"):
                store.add(torch.ones(1, 9, 4), torch.ones(1, 9, 2))
            with pytest.raises(OSError, match="File too large"):
                store.overwrite(ids, torch.ones(1, 5, 4), torch.ones(1, 5, 2))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert contents(store) == before
    signal.signal(signal.SIGXFSZ, old)
    store.add(torch.ones(1, 1, 4), torch.ones(1, 1, 2))
    after = contents(store)
    store.close()
    assert contents(opened(tmp_path / "s")) == after


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    store, _ = filled(tmp_path / "s", pairs=(5,))
    store.close()
    real = os.open

    def refuse(path, flags, *args, **kwargs):
        if flags & (os.O_RDWR | os.O_WRONLY | os.O_CREAT):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PermissionError):
        opened(tmp_path / "s")
    assert contents(opened(tmp_path / "s", readonly=True)) == contents(store)


def test_what_is_not_a_store(tmp_path):
    with pytest.raises(ValueError, match="width must be given for the new store s; got None"):
        opened(tmp_path / "s")
    with pytest.raises(
        ValueError, match="must be the folder of a durable store; there is no about"
    ):
        opened(tmp_path / "t", readonly=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileExistsError):
        opened(tmp_path / "file", width=4)
    with pytest.raises(TypeError, match="readonly must be given with durable=True alone"):
        Store.open(tmp_path / "file", readonly=True)
    filled(tmp_path / "u")[0].close()
    with pytest.raises(ValueError, match="width of u must be 5; got 4"):
        opened(tmp_path / "u", width=5)


@durability.small_pieces()
def test_damage_is_harmless_or_found(tmp_path):
    truth = durability.lived(tmp_path / "s", torch.Generator().manual_seed(0))
    kinds = []
    for seed in range(DAMAGES):
        beside = tmp_path / f"damaged{seed}"
        shutil.copytree(tmp_path / "s", beside)
        what = durability.damage(beside, np.random.default_rng(seed))
        assert durability.is_harmless_or_found(beside, truth), what
        kinds.append(what[0])
        shutil.rmtree(beside)
    assert len(set(kinds)) == 6  # each file was damaged


def test_damage_to_both_copies_is_said(tmp_path):
    store, ids = filled(tmp_path / "s", pairs=(5,))
    store.overwrite(ids[:, :2], torch.ones(1, 2, 4), torch.ones(1, 2, 2))
    store.add(torch.ones(1, 1, 4), torch.ones(1, 1, 2))
    truth = contents(store)[0]
    store.close()
    for name in ("1.log", "1.mirror"):
        data = bytearray((tmp_path / "s" / name).read_bytes())
        data[64 * 2 + 9] ^= 1  # that the two old versions went
        (tmp_path / "s" / name).write_bytes(data)
    for _ in range(2):  # it is said again at each opening
        with pytest.warns(UserWarning, match="lost of s: record 2 of 1.log and of its mirror"):
            store = opened(tmp_path / "s")
        assert contents(store)[0] == truth  # an older version is known by the newer one
        store.close()
    with pytest.warns(UserWarning, match="lost"):
        store = opened(tmp_path / "s")
    store.add(torch.ones(1, 1, 4), torch.ones(1, 1, 2))
    store.reclaim()  # which writes what is left anew
    store.close()
    assert sorted(contents(opened(tmp_path / "s"))[0]) == sorted([*truth, 6])


@pytest.mark.parametrize("name", records.ABOUT)
def test_a_writer_mends_a_description(tmp_path, name):
    store, _ = filled(tmp_path / "s")
    store.close()
    whole = (tmp_path / "s" / name).read_bytes()
    for harm in (lambda path: path.write_text("{"), lambda path: path.unlink()):
        harm(tmp_path / "s" / name)
        opened(tmp_path / "s").close()
        assert (tmp_path / "s" / name).read_bytes() == whole


def test_both_descriptions_damaged(tmp_path):
    filled(tmp_path / "s")[0].close()
    for name in records.ABOUT:
        (tmp_path / "s" / name).write_text("{")
    with pytest.raises(ValueError, match="s must be the folder of a durable store; about"):
        opened(tmp_path / "s")


def test_records_know_that_they_are_damaged():
    chance = np.random.default_rng(0)
    whole = np.zeros(300, records.RECORD)
    for name in records.TOLD:
        whole[name] = chance.integers(0, 99, len(whole))
    whole["sum"] = records.sums(whole)
    for bit in range(0, 512, 7):
        torn = whole.copy()
        torn.view(np.uint8).reshape(len(whole), 64)[:, bit // 8] ^= 1 << bit % 8
        assert (records.sums(torn) != torn["sum"]).all()
    assert (records.sums(np.zeros(2, records.RECORD)) != 0).all()


def test_pairs_that_lie_near(tmp_path):
    store, _ = filled(tmp_path / "s", pairs=(40, 7))
    store.delete(store.ids[:, 3:5])
    for count in (1, 3, 0):
        query = torch.randn(2, count, 4)
        found = store.near(query, 1.5).tolist()
        for row, held in enumerate(contents(store)):
            keys = {i: torch.tensor(key) for i, (key, _) in held.items()}
            wanted = [i for i, k in keys.items() if any((k - q).norm() <= 1.5 for q in query[row])]
            assert [i for i in found[row] if i >= 0] == wanted
    assert store.near(torch.zeros(2, 1, 4), 1e9).shape == (2, 38)
    store.delete(store.near(query[:, :0], 1.0))
    with pytest.raises(ValueError, match="distance must be finite and at least 0; got -1"):
        store.near(torch.zeros(2, 1, 4), -1)
    store.close()


def test_a_store_stays_where_it_was_opened(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "a")
    first, ids = filled("facts", pairs=(6,), history=True)
    monkeypatch.chdir(tmp_path / "b")
    second, _ = filled("facts", pairs=(3,), seed=1)
    first.delete(ids[:, :2])
    first.reclaim()
    first.history = False
    assert first.folder == (tmp_path / "a" / "facts").resolve()
    expected = contents(first), contents(second)
    first.close()
    second.close()
    found = [Store.open(tmp_path / name / "facts", durable=True) for name in ("a", "b")]
    assert tuple(map(contents, found)) == expected
    assert not found[0].history


def test_a_store_goes_in_and_out_of_inference_mode(tmp_path):
    for pairs in ((4,), (3, 2)):  # mapped when it is opened again, and copied
        store, _ = filled(tmp_path / f"{len(pairs)}", pairs=pairs)
        store.close()
        with torch.inference_mode():
            store = Store.open(tmp_path / f"{len(pairs)}", durable=True)
            rows = torch.ones(len(pairs), 30, 4), torch.ones(len(pairs), 30, 2)
            ids = store.add(*rows)
        ids = store.add(*rows)
        store.overwrite(ids[:, :3], *(x[:, :3] * 2 for x in rows))
        store.delete(ids[:, 4:7])
        reader = Store.open(tmp_path / f"{len(pairs)}", durable=True, readonly=True)
        assert contents(reader) == contents(store)
        store.close()


def test_an_opening_that_fails_leaves_nothing(tmp_path):
    kept = []
    for path in (tmp_path / "new", tmp_path / "old"):
        if path.name == "old":
            filled(path, pairs=(3,))[0].close()
        for wrong in ({"width": None}, {"width": 5}):
            if (path.name, wrong["width"]) == ("new", 5):
                continue  # which is a store of that width
            try:
                Store.open(path, durable=True, **wrong, value_width=3, batch_size=1).close()
            except ValueError as error:
                kept.append(error)  # with its frames, and what they hold
        assert path.exists() == (path.name == "old")
    assert len(kept) == 3
    with Store.open(tmp_path / "old", durable=True) as store:
        assert store.lengths.tolist() == [3]
    with pytest.raises(RuntimeError, match="can only be read here"):
        store.delete(store.ids)


def test_nothing_is_acknowledged_where_the_folder_is_gone(tmp_path):
    store, ids = filled(tmp_path / "s")
    before = contents(store)
    shutil.rmtree(tmp_path / "s")
    for change in (
        lambda: store.add(torch.ones(2, 1, 4), torch.ones(2, 1, 2)),
        lambda: store.overwrite(ids[:, :1], torch.ones(2, 1, 4), torch.ones(2, 1, 2)),
        lambda: store.delete(ids[:, :1]),
    ):
        with pytest.raises(FileNotFoundError, match="s must be there; its files were removed"):
            change()
    assert contents(store) == before
    store.close()


def test_type(tmp_path):
    assert isinstance(filled(tmp_path / "s")[0], DurableStore)


def open_files():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("pairs", [(50,), (30, 20)])  # mapped, and copied into memory
def test_a_reader_sees_its_past_whatever_becomes_of_the_files(tmp_path, monkeypatch, pairs):
    monkeypatch.setattr("memlib.store.durable.DEAD", 8)
    store, ids = filled(tmp_path / "s", pairs=pairs)
    store.overwrite(ids[:, :1], *(torch.ones(len(pairs), 1, n) for n in (4, 2)))
    truth, query = contents(store), torch.ones(len(pairs), 1, 4)
    reader, beside = (opened(tmp_path / "s", readonly=True) for _ in range(2))
    assert contents(beside) == truth
    store.delete(ids[:, 1:19])
    store.delete(ids[:, 19:])  # which reclaims
    assert not (tmp_path / "s" / "1.keys").exists()
    child = os.fork()
    if not child:
        whole = contents(reader) == truth and len(reader.versions(0)) == 2
        del reader, store, beside
        os._exit(7 * whole)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    reader.read(query, k=3)
    assert contents(reader) == truth
    assert [len(reader.versions(0, row)) for row in range(len(pairs))] == [2] * len(pairs)
    assert not (reader.verify() >= 0).any()
    reader.save(tmp_path / "file")
    assert contents(Store.open(tmp_path / "file")) == truth
    assert contents(copy.deepcopy(reader)) == truth
    with pytest.raises(RuntimeError, match="can only be read here"):
        reader.add(torch.ones(len(pairs), 90, 4), torch.ones(len(pairs), 90, 2))
    assert contents(reader) == truth
    left = contents(store)
    store.close()
    again = opened(tmp_path / "s")
    again.reclaim()
    again.close()
    assert contents(store) == left  # a closed store is read as a reader is
    store.read(query, k=1)
    assert not (store.verify() >= 0).any()
    with pytest.raises(RuntimeError, match="can only be read here"):
        store.add(torch.ones(len(pairs), 90, 4), torch.ones(len(pairs), 90, 2))


def test_a_reader_opens_however_often_the_files_change(tmp_path, monkeypatch):
    store, _ = filled(tmp_path / "s", pairs=(5,))
    truth = contents(store)
    about, left = records.read_about, [9]

    def late(folder):
        found = about(folder)
        if left[0]:
            left[0] -= 1
            store.reclaim()  # what was read names files that are gone
        return found

    monkeypatch.setattr(records, "read_about", late)
    assert contents(opened(tmp_path / "s", readonly=True)) == truth
    assert not left[0]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the system doesn't list open files")
def test_stores_that_nobody_holds_leave_no_file_open(tmp_path):
    filled(tmp_path / "s")[0].close()
    gc.collect()  # what other tests have left in circles
    before = open_files()
    for n in range(50):
        store = opened(tmp_path / "s", readonly=n % 2 > 0)
        store.read(torch.ones(2, 1, 4), k=1)
        if not n % 2:
            store.reclaim()
        del store
    assert open_files() == before
    (tmp_path / "s" / "26.values").unlink()
    for _ in range(50):
        with pytest.raises(ValueError, match=r"s is damaged: .*26\.values"):
            opened(tmp_path / "s", readonly=True)
    assert open_files() == before


def harm(path, at=0):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_all_is_compared_each_time(tmp_path):
    store, _ = filled(tmp_path / "s", pairs=(5,))
    store.close()
    store = opened(tmp_path / "s")
    new = store.add(torch.ones(1, 2, 4), torch.ones(1, 2, 2))
    store.read(torch.ones(1, 1, 4), k=7)
    assert store.verify().shape == (1, 0)
    harm(tmp_path / "s" / "1.keys")  # of what was read
    assert store.verify().tolist() == [[*range(5)]]
    harm(tmp_path / "s" / "1.values", at=5 * 8)  # of what this process wrote
    assert store.verify().tolist() == [[*range(7)]]
    with pytest.raises(ValueError, match="s is damaged: 7 pairs differ from their checksums"):
        store.read(torch.ones(1, 1, 4), k=1)
    with pytest.raises(ValueError, match="s is damaged: 2 pairs differ"):
        store.get(new)
    harm(tmp_path / "s" / "1.values", at=5 * 8)  # and back
    assert store.verify().tolist() == [[*range(5)]]
    store.get(new)
    store.delete(store.verify())
    assert store.read(torch.ones(1, 1, 4), k=1).tolist() == [[[1.0, 1.0]]]
    store.close()


@pytest.mark.parametrize("own", [True, False])
def test_damage_is_not_made_lawful(tmp_path, monkeypatch, own):
    """Whether the process that reclaims wrote it, or read it before it was damaged."""
    store, ids = filled(tmp_path / "s", pairs=(5,))
    if not own:
        store.close()
        store = opened(tmp_path / "s")
        store.read(torch.ones(1, 1, 4), k=5)
    store.add(torch.ones(1, 20, 4), torch.ones(1, 20, 2))
    harm(tmp_path / "s" / "1.keys")
    with pytest.raises(ValueError, match="s is damaged: 5 pairs differ"):
        store.reclaim()
    # a call that is acknowledged does not raise for what was to be done after it
    monkeypatch.setattr("memlib.store.durable.DEAD", 8)
    tried = Mock(side_effect=store.reclaim)
    store.reclaim = tried
    for n in range(5, 25):
        store.delete(torch.tensor([[n]]))
    assert 1 <= tried.call_count <= 2
    assert store.verify().tolist() == [[*range(5)]]
    store.delete(ids)
    store.add(torch.ones(1, 1, 4), torch.ones(1, 1, 2))
    store.reclaim()  # now that nothing damaged is held
    store.close()
    assert [*contents(opened(tmp_path / "s"))[0]] == [25]


def test_a_disk_too_full_to_reclaim(tmp_path, monkeypatch):
    monkeypatch.setattr("memlib.store.durable.DEAD", 8)
    store, ids = filled(tmp_path / "s", pairs=(9,))
    tried = Mock(side_effect=OSError(28, "No space left on device"))
    with monkeypatch.context() as patch:
        patch.setattr("memlib.store.log.begin", tried)
        for n in range(20):
            pairs = torch.full((1, 9, 4), float(n)), torch.full((1, 9, 2), float(n))
            store.overwrite(ids, *pairs)
        assert 5 <= tried.call_count <= 11  # each time as many more pairs are gone
        with pytest.raises(OSError, match="No space left"):
            store.reclaim()
    truth = contents(store)
    store.overwrite(ids, *pairs)
    store.overwrite(ids, *pairs)
    assert store._log.end < 20
    store.close()
    assert contents(opened(tmp_path / "s")) == truth


def test_the_second_description_fails_while_space_is_reclaimed(tmp_path, monkeypatch):
    """From the first on, the new files are the valid ones."""
    store, ids = filled(tmp_path / "s", pairs=(5,))
    real = records.replacing

    def full(path):
        if path.name == "about.mirror":
            raise OSError(28, "No space left on device")
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(records, "replacing", full)
        store.reclaim()
        store.delete(ids[:, :1])
    truth = contents(store)
    store.close()
    assert contents(opened(tmp_path / "s", readonly=True)) == truth
    opened(tmp_path / "s").close()
    (tmp_path / "s" / "about.json").unlink()
    assert contents(opened(tmp_path / "s")) == truth


def test_old_files_that_cannot_be_removed(tmp_path, monkeypatch):
    store, _ = filled(tmp_path / "s", pairs=(5,))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", Mock(side_effect=PermissionError(13, "Permission denied")))
        store.reclaim()
    store.add(torch.ones(1, 1, 4), torch.ones(1, 1, 2))
    truth = contents(store)
    store.close()
    store = opened(tmp_path / "s")
    assert contents(store) == truth
    assert not (tmp_path / "s" / "1.keys").exists()
    store.close()


def test_an_interrupt_while_space_is_reclaimed(tmp_path, monkeypatch):
    """What is acknowledged later is there, or there is no later: never files that nobody reads."""
    for n, name in enumerate(records.ABOUT):
        store, _ = filled(tmp_path / str(n), pairs=(5,))
        real = records.replacing
        with monkeypatch.context() as patch:
            stop = {name: Mock(side_effect=KeyboardInterrupt)}
            patch.setattr(records, "replacing", lambda p, s=stop, r=real: s.get(p.name, r)(p))
            with pytest.raises(KeyboardInterrupt):
                store.reclaim()
        with pytest.raises(RuntimeError, match="can only be read here"):
            store.add(torch.ones(1, 1, 4), torch.ones(1, 1, 2))
        truth = contents(store)
        store.close()
        store = opened(tmp_path / str(n))
        assert contents(store) == truth
        store.reclaim()
        store.close()


def test_history_belongs_to_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("memlib.store.durable.DEAD", 0)
    store, ids = filled(tmp_path / "s", pairs=(2,), history=True)
    pairs = torch.ones(1, 2, 4), torch.ones(1, 2, 2)
    for _ in range(3):
        store.overwrite(ids, *pairs)
    store.close()
    store = opened(tmp_path / "s")
    assert store.history
    store.overwrite(ids, *pairs)
    assert len(store.versions(0)) == 5
    store.reclaim()
    store.close()
    for name in records.ABOUT:  # either copy says so, also after reclaim
        with replaced(tmp_path / "s" / name):
            assert opened(tmp_path / "s", readonly=True).history
    reader = opened(tmp_path / "s", readonly=True, history=True)
    with pytest.raises(RuntimeError, match="s can only be read here"):
        reader.history = False
    store = opened(tmp_path / "s")
    with monkeypatch.context() as patch:
        patch.setattr(records, "replacing", Mock(side_effect=OSError(28, "No space left")))
        with pytest.raises(OSError, match="No space left"):
            store.history = False
    assert store.history
    store.history = False
    store.close()
    with pytest.raises(ValueError, match="history of s must be True; got False"):
        opened(tmp_path / "s", readonly=True, history=True)
    store = opened(tmp_path / "s")
    assert not store.history
    for _ in range(4):
        store.overwrite(ids, *pairs)
    assert len(store.versions(0)) < 4
    store.close()
    store, _ = filled(tmp_path / "t", pairs=(2,))
    assert not store.history
    about = records.read_about(tmp_path / "t")
    del about["history"]  # as in folders from before
    records.write_about(tmp_path / "t", about)
    store.close()
    assert not opened(tmp_path / "t", readonly=True).history
    opened(tmp_path / "t", history=True).close()
    assert opened(tmp_path / "t", readonly=True).history


@contextmanager
def replaced(path):
    """A file that is damaged for a while."""
    whole = path.read_bytes()
    path.write_text("{")
    yield
    path.write_bytes(whole)


def test_nothing_newer_is_named_after_space_is_reclaimed(tmp_path, monkeypatch):
    now = [100.25]
    monkeypatch.setattr(time, "time", lambda: now[0])
    store, _ = filled(tmp_path / "s", pairs=(1,))
    for now[0] in (100.5, 100.75, 101.0, 101.25, 101.5):
        store.add(torch.ones(1, 1, 4), torch.ones(1, 1, 2))
    for _ in range(2):
        store.reclaim()
        assert store.before(100.25).tolist() == [[]]
        assert store.before(100.6).tolist() == [[]]  # not 2, which was told after
        assert store.before(101.1).tolist() == [[0, 1, 2, 3]]
        assert store.before(101.45).tolist() == [[0, 1, 2, 3]]
        told = [store.versions(n)[0][0] for n in range(6)]
        assert told == [101.0] * 4 + [101.5] * 2  # no later than the last
    now[0] = 102.0
    store.add(torch.ones(1, 1, 4), torch.ones(1, 1, 2))
    store.reclaim()
    assert store.before(102.0).tolist() == [[0, 1, 2, 3]]
    assert store.before(102.1).tolist() == [[*range(7)]]
    now[0] = 90.0  # a clock that is set back does not make the new older than the old
    store.add(torch.ones(1, 1, 4), torch.ones(1, 1, 2))
    assert store.versions(7)[0][0] == 102.0
    store.close()
