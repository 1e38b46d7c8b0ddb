"""An index in a file is a help and never the truth: one that does not serve is built anew."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from memlib import similarity
from memlib.store import Store, files

pytest.importorskip("faiss")
pytest.importorskip("safetensors")

BACKENDS = ["flat", "hnsw", "ivf"]


@pytest.fixture(params=BACKENDS)
def store(request):
    random = torch.Generator().manual_seed(0)
    made = Store(4, 2, batch_size=2, backend=request.param, measure="negative_squared_distance")
    ids = made.add(torch.randn(2, 40, 4, generator=random), torch.randn(2, 40, 2, generator=random))
    made.read(QUERY, 3, need_weights=True)  # now there is an index
    made.delete(ids[:, 3:7])
    made.read(QUERY, 3, need_weights=True)  # and it has dead entries
    return made


QUERY = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(1))


def rewritten(path, backend, change):
    """Change what a file says of its first index, and vouch for it."""
    tensors, about = files.read(path)
    names = f"{backend}.0", f"{backend}.0.slot"
    index, slot = change(*(tensors.pop(name).clone() for name in names))
    tensors |= {n: t for n, t in zip(names, (index, slot), strict=True) if t is not None}
    files.write(path, tensors, about)


def other(width=4, backend="hnsw", measure="negative_squared_distance"):
    """An index of another store."""

    def change(index, slot):
        store = Store(width, backend=backend, measure=measure)
        store.add(torch.randn(1, len(slot), width), torch.randn(1, len(slot), width))
        store.address(torch.ones(1, 1, width), 1)
        return store._search.tensors(store.keys, store.ids)[f"{backend}.0"], slot

    return change


def spoiled(index, slot):
    index[:4] = torch.tensor([*b"Zz9!"], dtype=torch.uint8)  # of a version to come
    return index, slot


def noise(index, slot):
    return torch.randint(256, index.shape, dtype=torch.uint8), slot


def huge(index, slot):
    index[20:64] = 255  # sizes without end
    return index, slot


CHANGES = {
    "of a newer faiss": spoiled,
    "noise": noise,
    "sizes without end": huge,
    "cut short": lambda index, slot: (index[: len(index) // 2], slot),
    "empty": lambda index, slot: (index[:0], slot),
    "of another dtype": lambda index, slot: (index.float(), slot),
    "of another width": other(width=5),
    "of another measure": other(measure="dot"),
    "of another kind": None,
    "without slots": lambda index, slot: (index, None),
    "with slots alone": lambda index, slot: (None, slot),
    "with fewer slots": lambda index, slot: (index, slot[:-1]),
    "with other slots": lambda index, slot: (index, slot + 1),
    "with a slot twice": lambda index, slot: (index, slot.where(slot != 9, torch.tensor(8))),
    "with slots of a matrix": lambda index, slot: (index, slot.unsqueeze(0)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_an_index_that_does_not_serve_is_built_anew(name, store, tmp_path):
    change = CHANGES[name] or other(backend="flat" if store.backend != "flat" else "hnsw")
    expected = store.read(QUERY, 3, need_weights=True)
    store.save(tmp_path / "store")
    rewritten(tmp_path / "store", store.backend, change)
    found = Store.open(tmp_path / "store")
    first, second = found._search.indexes
    assert first.index is None
    assert second.index is not None
    read = found.read(QUERY, 3, need_weights=True)
    if store.backend != "ivf":  # whose clusters are learned from all that there is by then
        for one, two in zip(read, expected, strict=True):
            torch.testing.assert_close(one, two)
    assert first.index.ntotal == 36


def test_an_index_that_serves_is_gone_on_with(store, tmp_path):
    expected = store.read(QUERY, 3, need_weights=True)
    store.save(tmp_path / "store")
    found = Store.open(tmp_path / "store")
    assert all(index.index.ntotal == 40 for index in found._search.indexes), "dead entries too"
    assert all(map(torch.equal, found.read(QUERY, 3, need_weights=True), expected))


def test_a_damaged_file_is_still_refused(store, tmp_path):
    store.save(tmp_path / "store")
    data = bytearray((tmp_path / "store").read_bytes())
    data[-5] ^= 1
    (tmp_path / "store").write_bytes(data)
    with pytest.raises(ValueError, match="store is damaged: its checksum must be"):
        Store.open(tmp_path / "store")


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_an_index_goes_along_with_what_it_has_still_to_learn(way, store):
    store.overwrite(store.ids[:, :1], QUERY[:, :1], torch.ones(2, 1, 2))
    twin = way(store)
    for index, same in zip(twin._search.indexes, store._search.indexes, strict=True):
        assert index.index is not same.index
        assert index.index.ntotal == same.index.ntotal == 40
        assert len(index.changed) == len(same.changed) == 1
        assert np.array_equal(index.slot, same.slot)
    expected = store.read(QUERY, 3, need_weights=True)
    assert all(map(torch.equal, twin.read(QUERY, 3, need_weights=True), expected))
    twin.add(QUERY, torch.zeros(2, 5, 2))
    assert store.lengths.tolist() == [36, 36]


def test_an_index_that_another_process_cannot_read_is_built_anew(store):
    index = store._search.indexes[0]
    data = index.__getstate__()
    data["index"][:4] = 0
    index.__setstate__(data)
    assert index.index is None
    store.read(QUERY, 3, need_weights=True)
    assert index.index.ntotal == 36


MEASURES = ["dot", "cosine", "negative_squared_distance"]


@pytest.mark.parametrize("scale", [1e-40, 1e-25, 1e17, 1e19, 1e38])
@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("backend", ["exact", *BACKENDS])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_keys_of_any_size_are_found(backend, measure, scale, dtype):
    keys = (torch.randn(1, 40, 4, generator=torch.Generator().manual_seed(2)) * scale).to(dtype)
    keys = keys.clamp(*(torch.finfo(dtype).min, torch.finfo(dtype).max))
    store = Store(4, 1, backend=backend, measure=measure, dtype=dtype)
    store.add(keys, keys[..., :1])
    query = keys[:, :7].roll(1, -1)
    query = query if measure == "negative_squared_distance" else query / scale
    ids, _ = store.address(query, 3, strength=1e-38 if scale > 1e9 else 0.0)
    scores = similarity(query.double(), keys.double(), measure=measure)
    best = scores.topk(3).values
    found = scores.gather(-1, ids)
    assert_close(found, best, rtol=0, atol=1e-5 * float(scores.abs().max()) + 1e-43)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_index_goes_and_comes_back_with_what_it_cannot_hold(backend, tmp_path):
    store = Store(4, 1, backend=backend, measure="negative_squared_distance")
    keys = torch.randn(1, 30, 4, generator=torch.Generator().manual_seed(0))
    store.add(keys, keys[..., :1])
    index = store._search.indexes[0]

    def found():
        return store.address(keys[:, :5], 1, strength=0.0)[0].flatten().tolist()

    assert found() == [0, 1, 2, 3, 4]
    assert index.index is not None
    huge = store.add(torch.full((1, 1, 4), 1e30), torch.zeros(1, 1, 1))
    store.save(tmp_path / "store")
    assert found() == [0, 1, 2, 3, 4]
    assert index.index is None
    again = Store.open(tmp_path / "store")
    assert torch.equal(again.address(torch.full((1, 1, 4), 9e29), 1, strength=0.0)[0], huge[None])
    store.delete(huge)
    assert found() == [0, 1, 2, 3, 4]
    assert index.index is not None
    far = store.address(torch.full((1, 1, 4), -1e30), 1, strength=0.0)[0]  # a query alone may be
    assert far.item() in store.ids[0].tolist()


@pytest.mark.parametrize("width", [4, 4096])
@pytest.mark.parametrize("threshold", [20, None])  # of older versions, and this one's own
def test_flat_tells_near_keys_apart_however_many_the_queries(width, threshold, monkeypatch):
    import faiss

    if threshold:
        monkeypatch.setattr(faiss.cvar, "distance_compute_blas_threshold", threshold)
    store = Store(width, 1, backend="flat", measure="negative_squared_distance")
    keys = torch.full((1, 64, width), 10000.0)
    keys[0, torch.arange(64), torch.arange(64) % 4] += 1 + torch.arange(64) // 4
    store.add(keys, keys[..., :1])
    ids, _ = store.address(keys, 1)
    assert ids.flatten().tolist() == list(range(64))
