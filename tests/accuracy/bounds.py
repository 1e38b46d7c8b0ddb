"""What each public function promises: how far a result may be from that of float64.

The docstring of each function says the same in one line, which a test compares. A softmax turns
the rounding of a large score into an error of a weight; hence, where |strength * score|
goes beyond 100, it may grow in proportion: see `truth.ROUNDING`.
"""

from typing import NamedTuple


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
        if not self.float32:
            return f"Accuracy: {self.of}."
        if self.float32 == self.float16:
            return f"Accuracy: {_power(self.float32)} {self.of}."
        each = (f"{dtype} {_power(getattr(self, dtype))}" for dtype in self._fields[:3])
        return f"Accuracy: {', '.join(each)}, {self.of}."


def _power(bound: float) -> str:
    """As 2e-3: the shortest."""
    digit, power = f"{bound:.0e}".split("e")
    return f"{digit}e{int(power)}"


WEIGHT = "of every weight above 1e-6"
READ = "of the sum of weights times sizes of values"
TERMS = "of the sum of the sizes of its terms"
BEYOND = "stays below 100, and beyond it, or beyond a width of 128, in proportion"
SOFTMAX = f"while strength times score {BEYOND}"
CONDITION = "times its condition"
LAYERS = f"of the largest result, {CONDITION}"
MODULE = 2e-6, 1e-1, 1e-2  # sixteen roundings

BOUNDS = {
    "similarity": Bound(
        1e-5, 8e-3, 1e-3, f"{TERMS}; a cosine of 1, a distance of itself and 1e-9 of the largest"
    ),
    "address": Bound(1e-4, 8e-3, 1e-3, f"{WEIGHT} {SOFTMAX}"),
    "read": Bound(1e-5, 8e-3, 1e-3, READ),
    "write": Bound(1e-5, 2e-2, 2e-3, "of the sizes of the memory and of what is added"),
    "attend": Bound(1e-4, 2e-2, 2e-3, f"{READ} {SOFTMAX}"),
    "KeyValueMemory.read": Bound(1e-4, 2e-2, 2e-3, f"{READ} {SOFTMAX}"),
    "Hopfield.forward": Bound(1e-4, 2e-2, 2e-3, f"for one step {READ} {SOFTMAX}"),
    "Hopfield.energy": Bound(1e-5, 8e-3, 1e-3, TERMS),
    "ClassicalHopfield.forward": Bound(0.0, 0.0, 0.0, "no sign is wrong"),
    "ClassicalHopfield.energy": Bound(1e-5, 8e-3, 1e-3, TERMS),
    "ClassicalHopfield.connections": Bound(1e-5, 8e-3, 1e-3, TERMS),
    "interpolate": Bound(1e-5, 8e-3, 1e-3, WEIGHT),
    "shift": Bound(1e-5, 8e-3, 1e-3, WEIGHT),
    "sharpen": Bound(1e-4, 8e-3, 1e-3, f"{WEIGHT} while γ times its logarithm stays below 100"),
    "locate": Bound(1e-4, 8e-3, 1e-3, f"{WEIGHT} while γ times β {BEYOND}"),
    "allocation": Bound(1e-5, 8e-3, 1e-3, WEIGHT),
    "Store.address": Bound(1e-4, 8e-3, 1e-3, f"{WEIGHT} {SOFTMAX}"),
    "Store.read": Bound(1e-4, 2e-2, 2e-3, f"{READ} {SOFTMAX}"),
    "knn_lm": Bound(1e-4, 1e-2, 2e-3, f"of 1 + the size of a result {SOFTMAX}"),
    "position_encoding": Bound(1e-6, 1e-6, 1e-6, "of 1"),
    "matrix_memory": Bound(
        1e-5, 8e-3, 1e-3, f"of the largest number held or read on the way, {CONDITION}"
    ),
    "Head.forward": Bound(*MODULE, LAYERS, module=True),
    "NTMCell.forward": Bound(*MODULE, LAYERS, module=True),
    "DNCCell.forward": Bound(*MODULE, LAYERS, module=True),
    "MemN2N.forward": Bound(1e-5, *MODULE[1:], LAYERS, module=True),  # sums of many words
    "MemoryAttention.forward": Bound(*MODULE, LAYERS, module=True),
    "FastWeights.forward": Bound(*MODULE, LAYERS, module=True),
    "NeuralMemory.forward": Bound(*MODULE, LAYERS, module=True),
    "FeedForward.forward": Bound(*MODULE, LAYERS, module=True),
    "Decoder.forward": Bound(*MODULE, LAYERS, module=True),
    "MemorizingAttention.forward": Bound(*MODULE, LAYERS, module=True),
}

# Of a gradient, relative to the sum of the sizes of its terms. Half precision rounds them on
# the way, and more than once.
GRADIENT = {"float32": 1e-3, "bfloat16": 1e-1, "float16": 1e-2}
