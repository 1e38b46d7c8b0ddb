"""Weights by distance in float32: 1e-4 of each above 1e-6, wherever digits may be lost."""

import pytest
import torch

import memlib

from . import truth

BOUND = 1e-4
QUERIES = (1, 5, 64)  # few are subtracted, many multiplied


def offset(normal):
    return normal(1000, 16) + 1e4, 16


def near_duplicates(normal):
    return normal(50, 16).repeat(20, 1) + 1e-3 * normal(1000, 16), 16


def pixels(normal):
    return (normal(300, 3072) * 40 + 128).clamp(0, 255).round(), 3072


def two_clusters(normal):
    side = torch.where(torch.arange(1000) < 500, 1e4, -1e4)
    return normal(1000, 16) + side.unsqueeze(-1), 16


def overflowing_norms(normal):
    return (normal(1000, 64) * 3e3).half(), 64


def clusters_of_duplicates(normal):
    side = torch.where(torch.arange(1000) < 500, 1e4, -1e4)
    return 1e-2 * normal(1000, 16) + side.unsqueeze(-1), 16


ROWS = (offset, near_duplicates, pixels, two_clusters, overflowing_norms, clusters_of_duplicates)


@pytest.mark.parametrize("queries", QUERIES)
@pytest.mark.parametrize("row", ROWS)
def test_each_weight_keeps_the_bound(row, queries):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=generator)

    keys, width = row(normal)
    some = torch.randint(len(keys), (queries,), generator=generator)
    query = (keys[some].float() + 1e-3 * normal(queries, width)).to(keys.dtype)
    far = -truth.scores(query.double(), keys.double(), "negative_squared_distance").value
    near = far.topk(21, largest=False).values  # so that of the 21st e^-5 is left
    strength = float(5 / (near[:, -1] - near[:, 0]).clamp_min(1e-30).median())
    keys_ = keys.float() if keys.dtype == torch.float16 else keys
    query_ = query.float() if keys.dtype == torch.float16 else query
    found = memlib.address(
        query_, keys_, measure="negative_squared_distance", strength=strength
    ).double()
    wanted = (-strength * far).softmax(-1)
    counts = wanted > 1e-6
    off = ((found - wanted).abs() / wanted)[counts].max()
    assert off < BOUND
    if keys.dtype == torch.float16:
        half = memlib.address(query, keys, measure="negative_squared_distance", strength=strength)
        close = half.double() - wanted
        assert (close.abs() <= 1e-3 * wanted + 6e-8).all()
