"""Stores on a GPU: pairs there, ids counted on the host, faiss on the CPU; files cross over."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

import memlib
from memlib.store.nearest import nearest


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def filled(device, backend="exact"):
    """A store with a history: rows of two lengths, pairs deleted, overwritten, forgotten."""
    store = memlib.Store(4, 3, batch_size=2, backend=backend, capacity=64, device=device)
    keys, values = draw(2, 60, 4).to(device), draw(2, 60, 3, seed=1).to(device)
    ids = store.add(keys, values, lengths=torch.tensor([60, 40], device=device))
    store.delete(ids[:, 3:7])
    store.add(keys[:, :20], values[:, :20])
    store.overwrite(ids[:, 30:32], values[:, :2, :1].expand(-1, -1, 4), values[:, 2:4])
    return store


@pytest.mark.parametrize("backend", ["exact", "flat", "hnsw", "ivf"])
def test_it_holds_and_finds_the_same(backend, device, tmp_path):
    if backend != "exact":
        pytest.importorskip("faiss", reason="the backends of faiss need faiss")
    here, there = filled("cpu", backend), filled(device, backend)
    query = draw(2, 5, 4, seed=9)
    assert_close(there.read(query.to(device), 7).cpu(), here.read(query, 7))
    for got, wanted in zip(there.address(query.to(device), 7), here.address(query, 7), strict=True):
        assert got.device.type == device
        assert_close(got.cpu(), wanted)
    assert torch.equal(there.ids.cpu(), here.ids)
    assert there.lengths.device.type == device
    pytest.importorskip("safetensors", reason="files of a store need safetensors")
    there.save(tmp_path / "store")
    for opened in (
        memlib.Store.open(tmp_path / "store"),
        memlib.Store.open(tmp_path / "store", device=device),
    ):
        again = opened.read(query.to(opened.keys.device), 7).cpu()
        assert_close(again, here.read(query, 7))


@pytest.mark.parametrize("measure", memlib.MEASURES)
def test_the_exact_search_finds_the_nearest(measure, device):
    """In a memory large enough to be searched by groups."""
    keys = draw(1, 20_000, 8).to(device)
    query = keys[:, ::1500] + 0.01 * draw(1, 14, 8, seed=1).to(device)
    found = nearest(query, keys, 4, measure)
    scores = memlib.similarity(query, keys, measure=measure)
    wanted = scores.topk(4).values
    assert_close(scores.gather(-1, found), wanted, rtol=1e-4, atol=1e-4)
