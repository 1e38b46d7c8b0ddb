"""Reads by distance: scores in float32 sort out which slots need all digits."""

import itertools

import pytest
import torch

from memlib import attend
from memlib.attention import blockwise, distance

FAR = "negative_squared_distance"


def truth(query, keys, values, strength, mask):
    mode = "donot_use_mm_for_euclid_dist"
    scores = torch.cdist(query.double(), keys.double(), compute_mode=mode).square() * -strength
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(-1).nan_to_num(0) @ values.double()


@pytest.fixture
def sifted(monkeypatch):
    """What became of each block: True where few scores were made anew."""
    seen, sift = [], blockwise._sift

    def watched(*given):
        found = sift(*given)
        seen.append(found is not None)
        return found

    monkeypatch.setattr(blockwise, "_sift", watched)
    monkeypatch.setattr(distance, "BLOCK", 1 << 11)
    return seen


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("strength", [1e-3, 0.1, 1.0, 30.0, 1e4])
@pytest.mark.parametrize("queries", [1, 3, 40])
def test_reads_by_distance_have_their_digits(queries, strength, dtype, masked, sifted):
    torch.manual_seed(0)
    scales = [(1.0, 0.0), (30.0, 0.0)] + ([(1.0, 1e4), (1e-3, 1.0)] * (dtype == torch.float32))
    for (scale, offset), width, slots in itertools.product(scales, (1, 64), (37, 4000)):
        query, keys = (torch.randn(n, width) * scale + offset for n in (queries, slots))
        query, keys, values = query.to(dtype), keys.to(dtype), torch.rand(slots, 5).to(dtype)
        query[0] = keys[slots // 2]
        mask = torch.rand(queries, slots) > 0.3 if masked else None
        got = attend(query, keys, values, measure=FAR, strength=strength, mask=mask)
        off = (got.double() - truth(query, keys, values, strength, mask)).abs().max()
        assert off < (2e-5 if dtype == torch.float32 else 4e-3), (scale, offset, width, slots)
    assert strength < 0.1 or True in sifted


@pytest.mark.parametrize("queries", [1, 40])
def test_few_slots_are_looked_at_twice_where_few_count(queries, sifted):
    torch.manual_seed(0)
    query, keys, values = (torch.randn(n, 64) for n in (queries, 20_000, 20_000))
    attend(query, keys, values, measure=FAR, strength=4.0)
    assert all(sifted)
    sifted.clear()
    attend(query, keys, values, measure=FAR, strength=0.3)
    assert sifted == [False]  # where many count, one block tells


@pytest.mark.parametrize("queries", [1, 40])
def test_an_error_that_is_named_too_small_shows(queries, monkeypatch):
    """The planted fault: float32 is believed where it has no digits left."""
    torch.manual_seed(0)
    query, keys = (torch.randn(n, 64) * 1e-2 + 1e3 for n in (queries, 4000))
    values, off = torch.rand(4000, 5), distance._off
    for fault in (False, True):
        if fault:
            monkeypatch.setattr(distance, "_off", lambda most, width: off(most, width) * 0)
            monkeypatch.setattr(distance, "_centre", lambda keys: keys[..., :1, :] * 0)
            monkeypatch.setattr(distance, "FEW", 0)
        got = attend(query, keys, values, measure=FAR, strength=1e3)
        wrong = (got.double() - truth(query, keys, values, 1e3, None)).abs().max()
        assert (wrong > 1e-2) == fault
