"""The feed-forward layer of a Transformer: a memory whose slots are learned in training."""

from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memlib import _checks as checks
from memlib.attention.scores import _similarity
from memlib.attention.verbs import _address, _read

Activation = Literal["relu", "gelu", "softmax"]


class FeedForward(nn.Module):
    r"""The other layer of a Transformer, a memory learned in training: :math:`f(x K^T)\, V`.

    Its N hidden units are slots; the activation f makes weights of the similarities, and the
    output is `memlib.read` of the values by these weights. With f = softmax it is
    `memlib.attend`; with f = relu the weights need not sum to 1, and it is the feed-forward layer
    of Vaswani et al. 2017 without its biases.

    Args:
        width: width D of inputs, keys and values.
        slots: number of slots N.
        activation: "relu", "gelu" or "softmax".
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        TypeError: a size is no integer, or the dtype not real.
        ValueError: a size below 1, or an unknown activation.

    Source:
        Geva et al. 2021, section 2 (arXiv 2012.14913).

    Example:
        >>> import torch
        >>> from memlib import FeedForward, attend
        >>> layer = FeedForward(width=4, slots=16, activation="softmax")
        >>> x = torch.randn(2, 3, 4)
        >>> torch.allclose(layer(x), attend(x, layer.keys, layer.values, measure="dot"), atol=1e-6)
        True
    """

    def __init__(
        self,
        width: int,
        slots: int,
        *,
        activation: Activation = "relu",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        width = checks.integer("width", width, 1)
        slots = checks.integer("slots", slots, 1)
        checks.choice("activation", activation, ("relu", "gelu", "softmax"))
        like = torch.empty(0, device=device, dtype=dtype)
        checks.tensor("dtype", like)
        self.activation = activation
        self.keys = nn.Parameter(like.new_empty(slots, width))
        self.values = nn.Parameter(like.new_empty(slots, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new parameters: on the scale of linear layers."""
        slots, width = self.keys.shape
        nn.init.uniform_(self.keys, -(width**-0.5), width**-0.5)
        nn.init.uniform_(self.values, -(slots**-0.5), slots**-0.5)

    def address(self, x: Tensor) -> Tensor:
        """Return how much each slot has to say, (..., T, D) -> (..., T, N).

        Raises:
            TypeError: wrong dtypes.
            ValueError: wrong shapes, or NaN.
        """
        checks.tensor("x", x)
        checks.shape("x", x, "(..., T, D)", D=self.keys.shape[1])
        checks.alike(**{"the parameters": self.keys, "x": x})
        weights = self._address(x)
        checks.finite(weights, x=x)
        return weights

    def forward(self, x: Tensor) -> Tensor:
        """Read the memory by `address`, (..., T, D) -> (..., T, D).

        Accuracy: float32 2e-6, bfloat16 1e-1, float16 1e-2, of the largest result, times its
        condition.

        Raises:
            TypeError: wrong dtypes.
            ValueError: wrong shapes, or NaN.
        """
        return _read(self.address(x), self.values)

    if TYPE_CHECKING:
        __call__ = forward  # nn.Module says that it returns Any

    def _look(self, x: Tensor) -> Tensor:
        return _read(self._address(x), self.values)

    def _address(self, x: Tensor) -> Tensor:
        if self.activation == "softmax":
            return _address(x, self.keys, "dot")
        scores = _similarity(x, self.keys, "dot")
        return F.relu(scores) if self.activation == "relu" else F.gelu(scores)

    def extra_repr(self) -> str:
        """Return the sizes shown by ``print(module)``."""
        slots, width = self.keys.shape
        return f"{width}, slots={slots}, activation={self.activation!r}"
