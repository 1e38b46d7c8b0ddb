"""The float64 formulas that everything is held against: themselves held against exact numbers."""

import math
from fractions import Fraction

import numpy as np
import pytest
import reference
import torch
from torch.testing import assert_close

import memlib

from . import draws, truth

MEASURES = ("dot", "scaled_dot", "cosine", "negative_squared_distance")
LAYOUTS = sorted(set(draws.LAYOUTS))
DIGITS = 1e-12  # float64, and a factor for sums


def exact(query, keys, measure):
    """Scores by fractions, the root at the end in extended precision."""
    rows = []
    for q in query.tolist():
        row = []
        for k in keys.tolist():
            q_, k_ = [Fraction(x) for x in q], [Fraction(x) for x in k]
            dot = sum(a * b for a, b in zip(q_, k_, strict=True))
            if measure == "negative_squared_distance":
                row.append(np.longdouble(-sum((a - b) ** 2 for a, b in zip(q_, k_, strict=True))))
                continue
            scale = np.longdouble(1)
            if measure == "scaled_dot":
                scale = np.sqrt(np.longdouble(len(q)))
            elif measure == "cosine":
                square = sum(a * a for a in q_) * sum(b * b for b in k_)
                scale = long(square) ** np.longdouble(0.5) if square else np.longdouble(1)
            row.append(long(dot) / scale)
        rows.append(row)
    return np.array(rows, np.longdouble)


def long(x: Fraction):
    """A fraction in extended precision: numerators and denominators go beyond float64."""
    if not x:
        return np.longdouble(0)
    shift = x.numerator.bit_length() - x.denominator.bit_length()
    scaled = x / Fraction(2) ** shift
    top = int(scaled * 2**80)
    return np.ldexp(np.longdouble(top >> 40) * 2**40 + np.longdouble(top & (2**40 - 1)), shift - 80)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_scores_are_those_of_fractions(measure, layout):
    for seed, scale in enumerate((1.0, 1e-30, 1e18, 1e-42)):
        rng = draws.random(layout, seed)
        shapes = {"query": (2, 7), "keys": (5, 7)}
        points = draws.points(rng, shapes, "float32", layout, scale)
        q, k = (points[n].double() for n in shapes)
        ours = truth.scores(q, k, measure)
        off = np.abs(ours.value.numpy() - exact(q, k, measure))
        assert (off <= DIGITS * ours.size.numpy() + 1e-320).all()


@pytest.mark.parametrize("measure", MEASURES)
def test_weights_are_those_of_extended_precision(measure):
    rng = draws.random("weights", 0)
    points = draws.points(rng, {"query": (3, 4), "keys": (6, 4)}, "float32", "offset", 1.0)
    q, k = points["query"].double(), points["keys"].double()
    logits = np.longdouble(0.7) * exact(q, k, measure)
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    wanted = powers / powers.sum(-1, keepdims=True)
    found = truth.look(q, k, measure, 0.7)
    size = 1 + float(found.reach.max())
    assert np.abs(found.weights.numpy() - wanted).max() < 1e-15 * size * 10


@pytest.mark.parametrize("measure", MEASURES)
def test_float64_itself_keeps_a_bound(measure):
    """Against extended precision, since nothing is wider in torch."""
    rng = draws.random("float64", 1)
    for layout in ("plain", "offset", "duplicates", "clusters", "far"):
        points = draws.points(rng, {"query": (3, 16), "keys": (9, 16)}, "float64", layout, 1.0)
        q, k = points["query"], points["keys"]
        found = truth.look(q, k, measure, 1.0)
        logits = exact(q, k, measure)
        powers = np.exp(logits - logits.max(-1, keepdims=True))
        wanted = powers / powers.sum(-1, keepdims=True)
        off = np.abs(memlib.address(q, k, measure=measure).numpy() - wanted)
        assert (off <= 1e-14 * (1 + found.reach.numpy()) * np.maximum(wanted, 1e-6)).all()


def test_selections_of_the_loops_are_the_same():
    """The loops of `reference`, written for another purpose, say the same."""
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(n, 4, generator=generator, dtype=torch.float64) for n in (3, 6))
    for measure in MEASURES:
        loops = torch.from_numpy(reference.address(q, k, measure, 1.3))
        assert_close(truth.look(q, k, measure, 1.3).weights, loops)
    w = torch.rand(6, generator=generator, dtype=torch.float64)
    moves = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    assert_close(truth.shift(w, moves), torch.from_numpy(reference.shift(w, moves)))
    sharp, _ = truth.sharpen(w, torch.tensor(2.5, dtype=torch.float64))
    assert_close(sharp, torch.from_numpy(reference.sharpen(w, 2.5)))
    free, _ = truth.allocation(w)
    assert_close(free, torch.stack([torch.as_tensor(x) for x in reference.allocation(list(w))]))
    energy = truth.energy(q, k, 1.3, torch.ones(1, dtype=torch.bool)).value
    assert_close(energy[0].item(), reference.modern_energy(q[0], k, 1.3))


def test_a_mixture_is_exact_where_its_parts_vanish():
    known = torch.ones(1, dtype=torch.bool)
    logits = torch.tensor([[0.0, -2000.0]], dtype=torch.float64)
    near = torch.tensor([[-math.inf, -3000.0]], dtype=torch.float64)
    for mix, wanted in ((0.0, [0, -2000]), (1.0, [-math.inf, -3000]), (0.5, [-math.log(2)] * 2)):
        share = torch.tensor([mix], dtype=torch.float64)
        value, _ = truth.mixture(logits, near, share, known)
        if mix == 0.5:
            wanted = [-math.log(2), -2000 - math.log(2)]
        assert_close(value, torch.tensor([wanted], dtype=torch.float64))
