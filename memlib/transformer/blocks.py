"""A block of a `Decoder`: a layer that mixes tokens, then a memory that training has written.

Any module may mix the tokens that is called like `MemoryAttention`: inputs, the memory and a mask
go in, outputs and the memory after come out. A `Layer` does so in three steps, so that a model may
look at all arguments before it computes anything, and change no memory until all went well.
"""

from typing import Any, NamedTuple

from torch import Tensor, nn

from memlib import _checks as checks
from memlib.transformer.feed_forward import FeedForward
from memlib.transformer.positions import _are_tokens


class Pending(NamedTuple):
    """A memory that a model has looked at and will settle.

    A layer that is handed one trusts its arguments, changes nothing and hands one back.
    """

    memory: Any
    after: Any = None  # what becomes of it


class Layer(nn.Module):
    """A layer with a memory: `_check_memory`, `_step` and `_settle` are what its `forward` does."""

    width: int

    def _check_memory(self, memory: Any, x: Tensor, mask: Tensor | None) -> None:
        """Refuse a memory that is not of this layer, or too full for x (B, T, D)."""
        raise NotImplementedError

    def _step(
        self, x: Tensor, memory: Any, mask: Tensor | None, need_weights: bool
    ) -> tuple[Tensor, Any, Tensor | None]:
        """Do everything but what changes a memory in place, which is left to `_settle`."""
        raise NotImplementedError

    def _settle(self, memory: Any, after: Any) -> Any:
        """Return the memory after a step, changed in place where it is of that kind."""
        return after

    def _check(
        self, x: Tensor, memory: Any, lengths: Tensor | None, mask: Tensor | None
    ) -> Tensor | None:
        """Refuse what does not fit; return which inputs are tokens, (B, T), None if all are."""
        checks.tensor("x", x)
        checks.shape("x", x, "(B, T, D)", D=self.width)
        checks.alike(**{"the parameters": next(self.parameters()), "x": x})
        mask = _are_tokens(lengths, mask, x.shape[0], x.shape[1], x)
        self._check_memory(memory, x, mask)
        return mask

    def _run(
        self,
        x: Tensor,
        memory: Any,
        lengths: Tensor | None,
        mask: Tensor | None,
        need_weights: bool,
        /,
        **numbers: Tensor | None,
    ) -> tuple[Any, ...]:
        """What `forward` does: all three steps, or of a `Pending` memory the second alone.

        The numbers of the memory are given by the names that an error calls them.
        """
        if isinstance(memory, Pending):
            y, after, weights = self._step(x, memory.memory, mask, need_weights)
            memory = memory._replace(after=after)
        else:
            mask = self._check(x, memory, lengths, mask)
            y, after, weights = self._step(x, memory, mask, need_weights)
            checks.finite(y, x=x, **numbers)
            memory = self._settle(memory, after)
        return (y, memory, weights) if need_weights else (y, memory)


def _look_at(layer: nn.Module, memory: Any, x: Tensor, mask: Tensor | None) -> Any:
    """Return a memory as its layer is to be handed it, once it fits; x are inputs of its size."""
    if not isinstance(layer, Layer):  # which looks at its memory itself
        return memory
    layer._check_memory(memory, x, mask)
    return Pending(memory)


def _settle(layer: nn.Module, memory: Any) -> Any:
    """Return the memory after, of what a layer handed back."""
    return layer._settle(*memory) if isinstance(layer, Layer) else memory


class _Block(nn.Module):
    """A layer over the tokens so far, then a memory learned in training, each added to x."""

    def __init__(self, attention: nn.Module, width: int, slots: int, **factory: Any) -> None:
        super().__init__()
        self.attention = attention
        self.attention_norm = nn.LayerNorm(width, **factory)
        self.feed_forward = FeedForward(width, slots, **factory) if slots else None
        self.feed_forward_norm = nn.LayerNorm(width, **factory) if slots else None

    def forward(
        self, x: Tensor, memory: Any, mask: Tensor | None, need_weights: bool
    ) -> tuple[Tensor, Any, Tensor | None]:
        asked = {"need_weights": True} if need_weights else {}
        y, after, *weights = self.attention(self.attention_norm(x), memory, mask=mask, **asked)
        x = x + y
        if self.feed_forward is not None and self.feed_forward_norm is not None:
            x = x + self.feed_forward._look(self.feed_forward_norm(x))
        return x, after, weights[0] if weights else None
