"""What each public function promises: how far a result may be from that of float64.

The docstring of each function says the same in one line, which a test compares. A softmax turns
the rounding of a large score into an error of a weight; hence `REACH`: where |strength * score|
goes beyond, the error may grow in proportion.
"""

from typing import NamedTuple

from . import truth

HUNDRED = 1e-4 / truth.ROUNDING  # the score up to which float32 keeps 1e-4


class Bound(NamedTuple):
    """What may be lost.

    Attributes:
        float32: the largest error.
        bfloat16: the same for that dtype.
        float16: the same for that dtype.
        of: what it is relative to.
        module: the layers of a module round at each step, so that the reach counts in the dtype.
    """

    float32: float
    bfloat16: float
    float16: float
    of: str
    module: bool = False

    def __str__(self) -> str:
        each = f"float32 {self.float32:g}, bfloat16 {self.bfloat16:g}, float16 {self.float16:g}"
        return f"Accuracy: {each}, {self.of}."


WEIGHT = "of every weight above 1e-6"
READ = "of the sum of w |v|"
SOFTMAX = "while a strength times a score stays below 100"

MODULE = 2e-6, 1e-1, 1e-2  # sixteen roundings

BOUNDS = {
    "similarity": Bound(1e-5, 8e-3, 1e-3, "of the sum of |q k|, of 1 or of the distance"),
    "address": Bound(1e-4, 8e-3, 1e-3, f"{WEIGHT} {SOFTMAX}"),
    "read": Bound(1e-5, 8e-3, 1e-3, READ),
    "write": Bound(1e-5, 2e-2, 2e-3, "of |M| and the sum of w |a|"),
    "attend": Bound(1e-4, 2e-2, 2e-3, f"{READ} {SOFTMAX}"),
    "KeyValueMemory.read": Bound(1e-4, 2e-2, 2e-3, f"{READ} {SOFTMAX}"),
    "Hopfield.forward": Bound(1e-4, 2e-2, 2e-3, f"of the sum of w |x| a step {SOFTMAX}"),
    "Hopfield.energy": Bound(1e-5, 8e-3, 1e-3, "of the sum of its terms' sizes"),
    "ClassicalHopfield.forward": Bound(0.0, 0.0, 0.0, "no sign is wrong"),
    "ClassicalHopfield.energy": Bound(1e-5, 8e-3, 1e-3, "of the sum of |W s s|"),
    "ClassicalHopfield.connections": Bound(1e-5, 8e-3, 1e-3, "of the sum of |x x|"),
    "interpolate": Bound(1e-5, 8e-3, 1e-3, WEIGHT),
    "shift": Bound(1e-5, 8e-3, 1e-3, WEIGHT),
    "sharpen": Bound(1e-4, 8e-3, 1e-3, f"{WEIGHT} while γ |log w| stays below 100"),
    "locate": Bound(1e-4, 8e-3, 1e-3, f"{WEIGHT} while γ (β + |log w|) stays below 100"),
    "allocation": Bound(1e-5, 8e-3, 1e-3, WEIGHT),
    "Store.address": Bound(1e-4, 8e-3, 1e-3, f"{WEIGHT} {SOFTMAX}"),
    "Store.read": Bound(1e-4, 2e-2, 2e-3, f"{READ} {SOFTMAX}"),
    "knn_lm": Bound(1e-4, 1e-2, 2e-3, f"of 1 + |log p| {SOFTMAX}"),
    "position_encoding": Bound(1e-6, 1e-6, 1e-6, "of 1"),
    **{
        name: Bound(*MODULE, "of the largest result, times its condition", module=True)
        for name in (
            "Head.forward",
            "NTMCell.forward",
            "DNCCell.forward",
            "MemN2N.forward",
            "MemoryAttention.forward",
            "FeedForward.forward",
            "Decoder.forward",
            "MemorizingAttention.forward",
        )
    },
}

# Of a gradient, relative to the sum of the sizes of its terms. Half precision rounds them on
# the way, and more than once.
GRADIENT = {"float32": 1e-3, "bfloat16": 1e-1, "float16": 1e-2}
