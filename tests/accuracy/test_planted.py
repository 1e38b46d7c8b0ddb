"""Faults planted in memlib again, as its code once had them: the campaign finds each."""

import importlib

import pytest
import torch
from torch import Tensor

from memlib.attention import scores, streaming, verbs
from memlib.dnc import bookkeeping
from memlib.fast_weights import chunks

from . import campaign, found
from . import test_second as second


def drawn(name: str, dtype: str) -> bool:
    """Whether the fixed draw fails."""
    return any(map(campaign.failing, campaign.examples(name, dtype, 0, campaign.count(name))))


def kept(name: str, dtype: str) -> bool:
    """Whether what once failed fails again."""
    examples = [e for e in found.FOUND if (e.name, e.dtype) == (name, dtype)]
    assert examples
    return any(map(campaign.failing, examples))


def cancelling(query: Tensor, keys: Tensor, strength: float | Tensor) -> Tensor:
    """2 q·k - |k|² - |q|², in the dtype of the keys."""
    squares = keys.square().sum(-1).unsqueeze(-2)
    return 2 * query @ keys.mT - squares - query.square().sum(-1, keepdim=True)


@pytest.mark.parametrize(
    "name",
    ["similarity", "address", "attend", "KeyValueMemory.read", "Store.address"],
)
def test_a_distance_that_cancels_is_found(name, monkeypatch):
    assert not drawn(name, "float32")
    monkeypatch.setattr(scores, "_nearness", cancelling)
    assert drawn(name, "float32")


def test_a_distance_that_cancels_is_found_by_what_once_failed(monkeypatch):
    monkeypatch.setattr(scores, "_nearness", cancelling)
    for name in ("similarity", "address", "attend", "Store.address", "Store.read"):
        assert kept(name, "float32"), name


@pytest.mark.parametrize("name", ["address", "attend", "KeyValueMemory.read"])
def test_a_finite_number_for_what_may_not_be_read_is_found(name, monkeypatch):
    def finite(query, keys, measure, strength, mask, top_k=None):
        scores, mask = mended(query, keys, measure, strength, mask, top_k)
        lowest = torch.finfo(query.dtype).min
        return scores.clamp_min(lowest).to(query.dtype).to(scores.dtype), mask

    mended = verbs._readable
    assert not drawn(name, "float16")
    monkeypatch.setattr(verbs, "_readable", finite)
    if name != "KeyValueMemory.read":
        assert kept(name, "float16")
    assert drawn(name, "float16")


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("similarity", "bfloat16"),
        ("similarity", "float16"),
        ("address", "bfloat16"),
        ("address", "float32"),
        ("locate", "bfloat16"),
        ("Head.forward", "float32"),
    ],
)
def test_a_norm_that_is_clamped_or_overflows_is_found(name, dtype, monkeypatch):
    def clamped(x: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return norm.clamp_min(torch.finfo(x.dtype).eps)

    monkeypatch.setattr(scores, "_norm", clamped)
    monkeypatch.setattr(scores, "_power_of_two", torch.ones_like)
    monkeypatch.setattr(scores, "_single", lambda x: x)
    assert drawn(name, dtype)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_probabilities_that_are_raised_to_the_smallest_are_found(dtype, monkeypatch):
    def clamped(near: Tensor, alone: Tensor, share: Tensor, rest: Tensor) -> Tensor:
        recalled, alone = share * near.exp(), alone + rest.log()
        tiny = torch.finfo(recalled.dtype).tiny
        both = torch.logaddexp(alone, recalled.clamp_min(tiny).log())
        return torch.where(recalled > 0, both, alone)

    module = importlib.import_module("memlib.store.knn_lm")  # the function has its name
    monkeypatch.setattr(module, "_mixed", clamped)
    assert drawn("knn_lm", dtype)
    assert dtype == "bfloat16" or kept("knn_lm", dtype)


def test_a_second_derivative_of_0_is_found(monkeypatch):
    """By `test_second`: it asks for one that is right, or refused."""
    assert not second.wrong_or_silent("dot", 8200, "streamed")
    monkeypatch.setattr(streaming, "_once", lambda grads, *_: tuple(grads))
    assert second.wrong_or_silent("dot", 8200, "streamed")


def test_sums_that_cancel_in_a_gradient_are_found(monkeypatch):
    def cancelling(usage: Tensor) -> Tensor:
        rising, order = usage.clamp_min(1e-14).sort(dim=-1, stable=True)
        logs = rising.log()
        weights = (1 - rising) * (logs.cumsum(dim=-1) - logs).exp()
        return weights.scatter(-1, order, weights)

    monkeypatch.setattr(bookkeeping, "_allocation", cancelling)
    assert drawn("allocation", "float32")


def test_decays_that_are_added_as_logarithms_are_found(monkeypatch):
    def factored(left: Tensor, right: Tensor, decay: Tensor) -> tuple[Tensor, ...]:
        log = decay.clamp_min(1e-30).log().cumsum(-2)  # up to each token
        since, until = log.exp(), (-log).exp()
        products = (left * since.unsqueeze(-2)).flatten(-3, -2) @ (right * until).mT
        C = right.shape[-2]
        products = products.unflatten(-2, (C, -1)) * torch.ones(C, C).tril().unsqueeze(-2)
        after = (log[..., -1:, :] - log).exp()
        return products, left * since.unsqueeze(-2), right * after, log[..., -1:, :].exp()

    assert not drawn("matrix_memory", "float32")
    monkeypatch.setattr(chunks, "_joined", factored)
    assert drawn("matrix_memory", "float32")
