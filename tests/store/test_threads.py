"""Threads share a store: none sees half of what another does, and a copy is whole."""

import copy
import io
import multiprocessing
import pickle
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import nullcontext

import pytest
import torch

from memlib.store import MemorizingAttention, Store, knn_lm, locks
from memlib.store.indexes import BACKENDS

ROUNDS = 60
MODULUS = 7  # a pair's value follows from its key


@pytest.fixture(autouse=True)
def often():
    """Threads change places often, in the midst of everything."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.fixture(params=BACKENDS)
def backend(request):
    if request.param != "exact":
        pytest.importorskip("faiss")
    return request.param


def pairs(number, batch=2, count=5):
    """Pairs that belong together: row b holds keys (n, 1, 1, 1) and values 10 n + b."""
    keys = torch.ones(batch, count, 4)
    keys[..., 0] = float(number)
    values = torch.full((batch, count, 1), 10.0 * number) + torch.arange(batch).view(-1, 1, 1)
    return keys, values


def fits(keys, values):
    return torch.equal(values[..., 0], 10 * keys[..., 0] + torch.arange(len(keys)).view(-1, 1))


def together(*jobs):
    """Run all at once; an error in any is raised here."""
    start = threading.Barrier(len(jobs))

    def run(job):
        start.wait()
        for step in range(ROUNDS):
            job(step)

    with ThreadPoolExecutor(len(jobs)) as pool:
        for done in [pool.submit(run, job) for job in jobs]:
            done.result()


@pytest.mark.parametrize("capacity", [None, 40])
def test_a_read_never_sees_half_an_add_an_overwrite_or_a_delete(backend, capacity, tmp_path):
    store = Store(4, 1, batch_size=2, capacity=capacity, backend=backend)
    store.add(*pairs(1))
    query = torch.ones(2, 3, 4)

    def add(step):
        ids = store.add(*pairs(step % MODULUS))
        assert (ids[:, 1:] - ids[:, :-1] == 1).all(), "no other thread's ids come between"
        if step % 5 == 4:
            with store._lock:  # its own unless forgotten
                held = torch.isin(ids, store.ids).all()
                if held:
                    store.delete(ids[:, 1:])

    def overwrite(step):
        with store._lock:
            ids = store.ids.amax(1, keepdim=True)
            store.overwrite(ids, *pairs(step % MODULUS, count=1))

    def read(step):
        _, ids, weights = store.read(query, 2, need_weights=True)
        assert ((ids >= 0) == (weights > 0)).all()
        assert torch.allclose(weights.sum(-1), torch.ones(()))
        keys, values = _held(copy.copy(store))
        assert fits(keys, values)

    def keep(step):
        if step % 10 == 0 and pytest.importorskip("safetensors"):
            store.save(tmp_path / "store")
            assert fits(*_held(Store.open(tmp_path / "store")))
        assert fits(*_held(pickle.loads(pickle.dumps(store))))

    def look(step):
        ids, _ = store.address(query, 3)
        with store._lock:
            held = torch.where(torch.isin(ids, store.ids), ids, -1)
            keys, values = store.get(held)
        there = (held >= 0).unsqueeze(-1)
        rows = torch.arange(2).view(-1, 1, 1, 1)
        assert torch.equal(values, (10 * keys[..., :1] + rows) * there)

    together(add, add, overwrite, read, look, keep)
    lengths, ids = store.lengths, store.ids
    assert ((ids >= 0).sum(1) == lengths).all()
    assert fits(*_held(store))


def _held(store):
    """Keys and values of the pairs that both rows hold."""
    filled = (store.ids >= 0).all(0)
    return store.keys[:, filled], store.values[:, filled]


def test_a_language_model_and_a_layer_take_their_turn(backend):
    layer = MemorizingAttention(8, 2, 1, k=4, positions="none")
    memory = layer.memory(1, backend=backend)
    tokens = Store(8, 1, backend=backend, value_dtype=torch.long)
    tokens.add(torch.ones(1, 4, 8), torch.ones(1, 4, 1, dtype=torch.long))
    x = torch.randn(1, 3, 8)

    def attend(step):
        with torch.no_grad():
            y, after = layer(x, memory)
        assert y.isfinite().all()
        assert after.store is memory.store

    def forget(step):
        memory.store.delete(memory.store.ids)

    def learn(step):
        with tokens._lock:
            tokens.delete(tokens.ids[:, : tokens.ids.shape[1] // 2])
            tokens.add(torch.randn(1, 5, 8), torch.full((1, 5, 1), step % 4))

    def predict(step):
        total = knn_lm(torch.zeros(1, 3, 4), x, tokens, 3).exp().sum(-1)
        assert torch.allclose(total, torch.ones(()))

    together(attend, attend, forget, learn, predict)


@pytest.mark.parametrize("guarded", [True, False])
def test_it_is_the_lock_that_lets_a_read_wait(guarded, monkeypatch):
    """With the control: where there is no lock, the half of an add is read."""
    store = Store(4, 1, batch_size=2)
    if not guarded:
        store._lock = nullcontext()
    halfway, go_on = threading.Event(), threading.Event()

    def stop(row, slot):
        halfway.set()
        assert go_on.wait(60)

    monkeypatch.setattr(store, "_touch", stop)
    with ThreadPoolExecutor(2) as pool:
        adding = pool.submit(store.add, *pairs(1))
        try:
            assert halfway.wait(60)
            reading = pool.submit(store.address, torch.ones(2, 1, 4), 2)
            done, _ = wait([reading], timeout=1 if guarded else 60)
        finally:
            go_on.set()
        assert bool(done) is not guarded
        adding.result()
        ids, _ = reading.result()
        assert bool((ids >= 0).all()) is guarded


def test_a_lock_is_its_own_in_every_copy():
    store = Store(4, 1)
    buffer = io.BytesIO()
    torch.save(store, buffer)
    buffer.seek(0)
    others = [copy.copy(store), copy.deepcopy(store), pickle.loads(pickle.dumps(store))]
    others.append(torch.load(buffer, weights_only=False))
    with store._lock, ThreadPoolExecutor(1) as pool:
        for other in others:
            assert pool.submit(other.add, *pairs(1, batch=1)).result(timeout=20) is not None


def test_a_copy_is_made_of_a_class_with_more_to_it():
    class Named(Store):
        pass

    store = Named(4, 1)
    store.name, store.same = ["x"], store
    other = copy.deepcopy(store)
    assert type(other) is Named
    assert other.name == ["x"]
    assert other.name is not store.name
    assert other.same is other


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system"
)
def test_a_process_forks_while_stores_are_whole():
    store = Store(4, 1, batch_size=2)
    stop = threading.Event()

    def add():
        for step in range(10**9):
            if stop.is_set():
                return
            store.add(*pairs(step % MODULUS))
            store.delete(store.ids)

    adding = threading.Thread(target=add)
    adding.start()
    context = multiprocessing.get_context("fork")
    try:
        for _ in range(8):
            answers = context.SimpleQueue()
            child = context.Process(target=_child, args=(store, answers))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of threads and fork
                child.start()
            child.join(60)
            assert child.exitcode == 0
            assert answers.get() == [True, True]
    finally:
        stop.set()
        adding.join()
    assert locks._held == []


def _child(store, answers):
    torch.set_num_threads(1)
    whole = fits(*_held(store))
    held = ((store.ids >= 0).sum(1) == store.lengths).all().item()
    store.add(*pairs(3))
    answers.put([whole, held])


def test_a_copy_for_a_worker_does_not_share_what_is_changed_in_place():
    from multiprocessing.reduction import ForkingPickler

    store = Store(4, 1, batch_size=2, capacity=8)
    store.add(*pairs(1))
    other = pickle.loads(bytes(ForkingPickler.dumps(store)))  # torch hands on shared memory
    other.overwrite(other.ids[:, :5], *pairs(2))
    assert store.keys[0, 0, 0] == 1
    assert other.keys[0, 0, 0] == 2
