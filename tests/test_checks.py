"""The checks themselves, where no public function shows both of their sides."""

import pytest
import torch

import memlib
from memlib import _checks as checks


@pytest.mark.parametrize(
    ("rule", "shape", "fits"),
    [
        ("(B,)", (3,), True),
        ("(B,)", (3, 3), False),
        ("(..., N)", (3,), True),
        ("(..., N)", (), False),
        ("(..., N, M)", (9, 9, 2, 5), True),
        ("(..., N, M)", (9, 9, 2, 4), False),
        ("(N, M)", (9, 2, 5), False),
    ],
)
def test_shape(rule, shape, fits):
    sizes = {"M": 5} if "M" in rule else {}
    if fits:
        checks.shape("x", torch.empty(shape), rule, **sizes)
    else:
        with pytest.raises(ValueError, match="x must have shape"):
            checks.shape("x", torch.empty(shape), rule, **sizes)


def test_leading_gives_the_common_shape():
    assert checks.leading(a=(torch.empty(2, 1, 5), 1), b=(torch.empty(3, 4, 4), 2)) == (2, 3)


def test_numbers_at_their_limits():
    checks.number("x", 0, 0, 1)
    checks.number("x", 1.0, 0, 1)
    checks.integer("x", 1, 1, 1)
    checks.within("x", torch.tensor([0.0, 1.0, float("nan")]), 0, 1)
    with pytest.raises(ValueError, match="x must be finite and at least 0; got inf"):
        checks.number("x", float("inf"), 0)
    with pytest.raises(ValueError, match=r"x must be in \[1, 1\]; got 2"):
        checks.integer("x", 2, 1, 1)


def test_values_are_looked_at_in_eager_mode_alone():
    nan = torch.full((2,), float("nan"))
    assert checks.has_nan(nan)
    assert not checks.has_nan(torch.ones(2))
    assert not checks.has_nan(nan.to("meta"))
    looked = []
    torch.vmap(lambda x: looked.append(checks.has_nan(x)) or x)(nan)
    torch.compile(lambda x: looked.append(checks.has_nan(x)) or x, backend="eager", fullgraph=True)(
        nan
    )
    assert looked == [False, False]


@pytest.mark.parametrize("name", memlib.__all__)
def test_every_public_name_is_documented(name):
    thing = getattr(memlib, name)
    assert thing.__doc__
    if name not in ("MEASURES", "programs"):
        assert thing.__doc__.strip().splitlines()[0].endswith((".", ":"))
    if callable(thing) and not issubclass(type(thing), type(tuple)):
        assert "Example" in thing.__doc__
