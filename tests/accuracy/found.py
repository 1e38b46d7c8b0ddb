"""Examples that once failed, tried always. What the nightly draw prints is pasted here."""

from .campaign import Example, drawn, given  # noqa: F401

ONES = [0.001] * 16

FOUND: list[Example] = [
    # a distance whose digits go into |q|² and |k|²
    *(
        given(
            name, "float32", query=[[[10000.4]]], keys=[[[10000.0], [10001.0], [10003.0]]],
            measure="negative_squared_distance",
        )
        for name in ("similarity", "address")
    ),
    # the only readable slot has a score beyond float16
    given(
        "address", "float16", query=[[[300.0]]], keys=[[[-300.0], [300.0]]], measure="dot",
        mask=[[[True, False]]],
    ),
    given(
        "attend", "float16", query=[[[300.0]]], keys=[[[-300.0], [300.0]]],
        values=[[[1.0], [2.0]]], measure="dot", mask=[[[True, False]]], need_weights=True,
    ),
    given(
        "attend", "float16", query=[[[300.0]]], keys=[[[-300.0], [300.0]]],
        values=[[[1.0], [2.0]]], measure="dot", mask=[[[True, False]]],
    ),
    # short vectors, and long ones whose norm overflows
    given("similarity", "bfloat16", query=[[ONES]], keys=[[ONES]], measure="cosine"),
    given("address", "bfloat16", query=[[ONES]], keys=[[ONES, [-x for x in ONES]]],
          measure="cosine"),
    given("similarity", "float16", query=[[[6e4] * 4]], keys=[[[6e4] * 4]], measure="cosine"),
    given("similarity", "float32", query=[[[1e-30] * 4]], keys=[[[1e30] * 4]], measure="cosine"),
]  # fmt: skip
