"""Examples that once failed, tried always. What the nightly draw prints is pasted here."""

from .campaign import Example, drawn, given

SHORT = [0.001] * 16
MASKED = {"query": [[[300.0]]], "keys": [[[-300.0], [300.0]]], "mask": [[[True, False]]]}
VALUES = [[[1.0], [2.0]]]
NEAR = {"query": [[[10000.4]]], "keys": [[[10000.0], [10001.0], [10003.0]]]}
FAR = "negative_squared_distance"
TOLD = {"query": [[[1.0]]], "keys": [[[1.0], [1.0]]], "tokens": [[0, 1]], "lengths": [2]}

FOUND: list[Example] = [
    # a distance whose digits go into |q|² and |k|²
    given("similarity", "float32", **NEAR, measure=FAR),
    given("address", "float32", **NEAR, measure=FAR),
    given("attend", "float32", **NEAR, values=[[[1.0], [2.0], [3.0]]], measure=FAR),
    *(
        given("Store.address", "float32", **NEAR, lengths=[3], measure=FAR, backend=backend, k=3)
        for backend in ("exact", "flat", "hnsw", "ivf")
    ),
    given("Store.read", "float32", **NEAR, values=[[[1.0], [2.0], [3.0]]], lengths=[3],
          measure=FAR, backend="exact", k=2),
    given("address", "float16", query=[[[1000.0]]], keys=[[[1000.0]]], measure=FAR, strength=0.2),
    # the only readable slot has a score beyond float16
    given("address", "float16", **MASKED, measure="dot"),
    given("attend", "float16", **MASKED, values=VALUES, measure="dot", need_weights=True),
    given("attend", "float16", **MASKED, values=VALUES, measure="dot"),
    given("Hopfield.energy", "float16", query=[[[-300.0]]], patterns=[[[200.0], [300.0]]],
          mask=[True, False], strength=1.0),
    # short vectors, and long ones whose norm overflows
    given("similarity", "bfloat16", query=[[SHORT]], keys=[[SHORT]], measure="cosine"),
    given("address", "bfloat16", query=[[SHORT]], keys=[[SHORT, [-x for x in SHORT]]],
          measure="cosine"),
    given("similarity", "float16", query=[[[6e4] * 4]], keys=[[[6e4] * 4]], measure="cosine"),
    given("similarity", "float32", query=[[[1e-30] * 4]], keys=[[[1e30] * 4]], measure="cosine"),
    given("locate", "float32", key=[[[3e38, -3e38]]], memory=[[[-1e37, 2e37], [-3e37, -5e37]]],
          shift=[[[1.0]]], previous=[[[0.0, 0.0]]], strength=[[0.7]], gate=[[1.0]],
          sharpening=[[1.0]]),
    # probabilities below the smallest number, and a mix at an end or next to it
    given("knn_lm", "float16", **TOLD, logits=[[[9.0] + [-30.0] * 40]], measure=FAR,
          backend="exact", k=2, mix=0.5),
    *(
        given("knn_lm", dtype, **TOLD, logits=[[[0.0, 0.0]]], mix=[[1.0]], measure=FAR,
              backend="exact", k=2)
        for dtype in ("float16", "float32")
    ),
    given("knn_lm", "float32", **TOLD | {"tokens": [[0, 0]]}, logits=[[[0.0, 0.0]]], measure=FAR,
          backend="exact", k=2, mix=0.999999),
    # sums and products of shares whose digits cancel, or that are too small for the dtype
    given("allocation", "float32", usage=[[2.2860930926071887e-07, 0.3272190988063812]]),
    given("allocation", "bfloat16", usage=[[2.5033950805664062e-05, 0.01171875, 1.0]]),
    given("sharpen", "float16", weights=[[[0.0, 9.119510650634766e-06]]], sharpening=[[1.0]]),
    drawn("DNCCell.forward", "float32", 1000009),
    # a field of exactly 0, which thirds and sevenths miss
    given("ClassicalHopfield.forward", "float32", signs=[[[0, 1, 0, 0, -1, 1, -1.0]]],
          patterns=[[[-1, -1, -1, -1, -1, 1, 1.0], [-1, -1, 1, 1, -1, 1, 1],
                     [-1, 1, 1, -1, -1, -1, 1]]], steps=1),
    # counts beyond the whole numbers of a dtype
    drawn("ClassicalHopfield.forward", "float16", 18),
    # weights that are made anew for the gradients, from scores of 4e10
    drawn("attend", "float16", 77000209),
    # a gradient by weights that is beyond float16
    drawn("Hopfield.forward", "float16", 9000010),
    # NaN that is returned, and angles of far positions
    drawn("MemN2N.forward", "float16", 4),
    drawn("MemoryAttention.forward", "float32", 1000012),
]  # fmt: skip
