"""The reference pages: each line of "Same formula, other name", and the names in the API."""

import inspect
import re
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import memlib
from memlib import (
    ClassicalHopfield,
    Gates,
    Hopfield,
    KeyValueMemory,
    address,
    attend,
    locate,
    read,
    write,
)

BOOK = Path(__file__).parents[1] / "book"


def draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


QUERY, KEYS, VALUES = draw(2, 3, 5), draw(2, 7, 5, seed=1), draw(2, 7, 4, seed=2)
ONE_HOT = F.one_hot(torch.tensor([[4]]), 7).double()  # a head on slot 4


def gates(gate: float, move: int) -> Gates:
    """One head that looks for QUERY's first vector, then moves."""
    ones = torch.ones(2, 1, dtype=torch.float64)
    shift = F.one_hot(torch.full((2, 1), 1 + move), 3).double()
    return Gates(QUERY[:, :1], 5 * ones, gate * ones, shift, ones)


def test_attend():
    weights = address(QUERY, KEYS, strength=2.0)
    torch.testing.assert_close(attend(QUERY, KEYS, VALUES, strength=2.0), read(weights, VALUES))


def test_transformer():
    expected = F.scaled_dot_product_attention(QUERY, KEYS, VALUES)
    torch.testing.assert_close(attend(QUERY, KEYS, VALUES), expected)


def test_hopfield_update():
    expected = attend(QUERY, KEYS, KEYS, measure="dot", strength=0.7)
    torch.testing.assert_close(Hopfield(strength=0.7)(QUERY, KEYS), expected)


def test_kernel_regression():
    sigma = 1.5
    kernel = torch.exp(-torch.cdist(QUERY, KEYS).square() / (2 * sigma**2))
    expected = kernel @ VALUES / kernel.sum(dim=-1, keepdim=True)
    strength = 1 / (2 * sigma**2)
    got = attend(QUERY, KEYS, VALUES, measure="negative_squared_distance", strength=strength)
    torch.testing.assert_close(got, expected)


def test_nearest_neighbor():
    nearest = torch.cdist(QUERY, KEYS).argmin(dim=-1, keepdim=True)
    expected = VALUES.gather(1, nearest.expand(-1, -1, 4))
    got = attend(QUERY, KEYS, VALUES, measure="negative_squared_distance", strength=1e6)
    torch.testing.assert_close(got, expected)


def test_average():
    expected = VALUES.mean(dim=1, keepdim=True).expand(-1, 3, -1)
    torch.testing.assert_close(attend(QUERY, KEYS, VALUES, strength=0.0), expected)


def test_top_k_of_all():
    got = attend(QUERY, KEYS, VALUES, top_k=7)
    torch.testing.assert_close(got, attend(QUERY, KEYS, VALUES))


def test_overwriting():
    memory = KeyValueMemory(7, 5, 4, dtype=torch.float64)
    full = memory.write(KEYS, VALUES, memory.initial_state(2))
    full = full._replace(written=full.written.roll(4, dims=1))  # slot 4 is the oldest
    new = draw(2, 1, 4, seed=3)
    expected = memory.write(QUERY[:, :1], new, full).values
    got = write(full.values, ONE_HOT.expand(2, 1, 7), new, torch.ones_like(new))
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(got[:, 4], new[:, 0])


def test_delta_rule():
    weights, new = ONE_HOT.expand(2, 1, 7), draw(2, 1, 4, seed=3)
    delta = write(VALUES, weights, new - read(weights, VALUES))
    torch.testing.assert_close(delta, write(VALUES, weights, new, torch.ones_like(new)))


def test_hebbian_storage():
    patterns = draw(3, 6).sign()
    sums = write(torch.zeros(6, 6, dtype=torch.float64), patterns, patterns)
    torch.testing.assert_close(sums, patterns.T @ patterns)
    expected = (sums - sums.diag().diag()) / 6
    torch.testing.assert_close(ClassicalHopfield().connections(patterns), expected)


def test_content_alone():
    previous = draw(2, 1, 7, seed=4).softmax(dim=-1)
    expected = address(QUERY[:, :1], KEYS, measure="cosine", strength=5.0)
    torch.testing.assert_close(locate(gates(1.0, 0), KEYS, previous), expected)


def test_location_alone():
    got = locate(gates(0.0, +1), KEYS, ONE_HOT.expand(2, 1, 7))
    torch.testing.assert_close(got, ONE_HOT.expand(2, 1, 7).roll(1, dims=-1))


def test_the_page_names_every_test_here_and_no_other():
    named = re.findall(r"`(test_\w+)`", (BOOK / "map.md").read_text(encoding="utf-8"))
    here = {name for name in globals() if name.startswith("test_") and "page" not in name}
    assert len(named) == len(set(named))
    assert set(named) == here


def test_the_api_page_lists_every_public_name():
    text = (BOOK / "api.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\.\. (?:auto\w+|py:data):: (\w+)", text, re.MULTILINE)
    assert set(memlib.__all__) - {"programs"} <= set(listed)
    public = {
        name
        for name, value in vars(memlib.programs).items()
        if getattr(value, "__module__", "") == "memlib.programs" and not name.startswith("_")
    }
    assert public <= set(listed)


def test_the_api_page_writes_overloaded_signatures_as_they_are():
    text = (BOOK / "api.md").read_text(encoding="utf-8")
    written = re.findall(r":: (\w+)\((.+)\)$", text, re.MULTILINE)
    assert [name for name, _ in written] == ["attend", "read"]
    for function, (_, arguments) in zip((attend, KeyValueMemory.read), written, strict=True):
        parameters = inspect.signature(function).parameters.values()
        bare = [p.replace(annotation=inspect.Parameter.empty) for p in parameters]
        bare = [p for p in bare if p.name != "self"]
        assert str(inspect.Signature(bare)) == f"({arguments})"
