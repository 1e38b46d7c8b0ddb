"""The differentiable neural computer: a memory that knows what is free and what came after what.

It finds, reads and writes with the verbs of the floors below. New is `memlib.dnc.bookkeeping`: a
usage for every slot, so that a write can ask for a free one (`allocation`), and links from each
slot to the one written next, so that a read can follow the order of writing.
"""

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from memlib.addressable.gates import _interpolate, _sharpen
from memlib.attention.scores import HALF, _single
from memlib.attention.verbs import _address, _read, _write
from memlib.dnc.bookkeeping import DNCState, _allocation, _link, _use
from memlib.dnc.interface import Interface, Told
from memlib.recurrent.cell import Cell, InitialMemory
from memlib.recurrent.sequence import Machine

FAINT = 1e-6  # added to weights that are sharpened: the faintest have bounded gradients


class DNCCell(Cell):
    r"""One step of a differentiable neural computer.

    The controller sees the input and the last reads, :math:`h_t = c(x_t, r_{t-1}, h_{t-1})`; a
    linear layer turns :math:`h_t` into all that the heads are told. What was read may be freed; a
    write goes to a free slot, to one found by content, or nowhere; a read goes back along the
    links, forth, or to the slot found by content. The logits are linear in :math:`(h_t, r_t)`.

    `torch.func.vmap` has no rule for an LSTM and refuses it; other controllers it takes. With
    `DistributedDataParallel`, a state that is passed in leaves the learned one without a gradient:
    say ``find_unused_parameters=True``.

    Args:
        input_size: size I of an input vector.
        output_size: size O of an output vector.
        slots: number of slots N.
        width: width M of a slot.
        read_heads: number of read heads R.
        write_heads: number of write heads W. They write at once, each with links of its own, and
            each is offered the slots that those before it leave free.
        controller: an `torch.nn.LSTMCell`, `torch.nn.GRUCell` or `torch.nn.RNNCell` of input size
            I + R * M, or any other module (B, I + R * M) -> (B, D), taken as feed-forward: it is
            tried on zeros, in evaluation mode, and what it draws or counts then is undone. None
            is an LSTM of size 100.
        initial_memory: what lies in the slots at first: "constant" (1e-6), "learned", or
            "random", drawn once and kept.
        mask_content: a head also says which features its content is compared by; takes B (R + W)
            N M numbers more memory.
        deallocate: what is freed is erased, so that content lookup finds it no more.
        sharpen_links: a read head also says how sharply it follows links.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        TypeError: a size is no integer, the controller no module, or the dtype not real.
        ValueError: a size below 1, an unknown initial memory, a controller of the wrong input size.

    Source:
        Graves et al. 2016, Methods (doi 10.1038/nature20101); the last three options: Csordás and
        Schmidhuber 2019 (arXiv 1904.10278); several write heads: the published code of the first.
        Deviations: learned first reads and state; a memory of 1e-6, where a cosine has a gradient.

    Example:
        >>> import torch
        >>> from memlib import DNCCell
        >>> cell = DNCCell(input_size=9, output_size=8, read_heads=2)
        >>> logits, state = cell(torch.randn(3, 9), cell.initial_state(batch_size=3))
        >>> logits.shape, state.links.shape
        (torch.Size([3, 8]), torch.Size([3, 1, 128, 128]))
    """

    state_type = ("a DNCState", DNCState)
    state_shapes = (
        "(B, N, M)", "(B, R, M)", "(B, H, N)", "(B, N)", "(B, W, N, N)", "(B, W, N)", "(B, D)",
        "(B, D)",
    )  # fmt: skip

    def __init__(
        self,
        input_size: int,
        output_size: int,
        slots: int = 128,
        width: int = 20,
        *,
        read_heads: int = 1,
        write_heads: int = 1,
        controller: nn.Module | None = None,
        initial_memory: InitialMemory = "constant",
        mask_content: bool = False,
        deallocate: bool = False,
        sharpen_links: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self._size(input_size=input_size, output_size=output_size, slots=slots, width=width)
        self._size(read_heads=read_heads, write_heads=write_heads)
        self.mask_content, self.sharpen_links = mask_content, sharpen_links
        self.deallocate = deallocate
        sizes = (self.width, self.read_heads, self.write_heads)
        self._told = Interface(*sizes, mask_content, sharpen_links)
        self._build(self._told.size, controller, initial_memory, device, dtype)
        self._reset_start()

    def initial_state(self, batch_size: int = 1) -> DNCState:
        """Return the learned state before the first step: all slots free, no head anywhere."""
        start, heads, slots = self._begin(batch_size), self.write_heads, self.slots
        none = start["memory"].new_zeros
        return DNCState(
            weights=none(batch_size, self.read_heads + heads, slots),
            usage=none(batch_size, slots),
            links=none(batch_size, heads, slots, slots),
            precedence=none(batch_size, heads, slots),
            **start,
        )

    def forward(self, x: Tensor, state: DNCState | None = None) -> tuple[Tensor, DNCState]:
        """Take one step.

        Args:
            x: (B, I).
            state: where the last step ended; None starts anew.

        Returns:
            Logits (B, O), and the new state; the old one stays as it is.

        Accuracy: float32 2e-6, bfloat16 1e-1, float16 1e-2, of the largest result, times its
        condition.

        Raises:
            TypeError: wrong dtypes, or a state that is no `DNCState`.
            ValueError: wrong shapes, or NaN.
        """
        return self._checked_step(x, state)

    if TYPE_CHECKING:
        __call__ = forward  # nn.Module says that it returns Any

    def _step(self, x: Tensor, state: DNCState) -> tuple[Tensor, DNCState]:
        """Everything but the output layer; trusts its arguments."""
        h, hidden, cell = self._control(x, state)
        raw = self.interface(h)
        state = state._replace(hidden=hidden, cell=cell)
        if state.memory.dtype not in HALF:
            return h, self._change(raw, state)
        # which slot is the freest takes more digits: rounded once, at the end
        after = self._change(_single(raw), DNCState(*map(_single, state)))
        return h, DNCState(*(part.to(x.dtype) for part in after))

    def _change(self, raw: Tensor, state: DNCState) -> DNCState:
        """Return the state after what the heads are told by raw numbers."""
        told = self._told(raw)
        read_before, written_before = state.weights.split((self.read_heads, self.write_heads), 1)

        kept = (1 - told.free.unsqueeze(-1) * read_before).prod(dim=1)  # ψ (B, N)
        usage = _use(state.usage, written_before) * kept  # u
        memory = state.memory * kept.unsqueeze(-1) if self.deallocate else state.memory

        writing = self._writing(told, usage, state.memory)  # w^w (B, W, N)
        memory = _write(memory, writing, told.add, told.erase)
        links, precedence = _link(state.links, state.precedence, writing)

        reading = self._reading(told, links, read_before, memory)  # w^r (B, R, N)
        weights = torch.cat((reading, writing), dim=1)
        reads = _read(reading, memory)
        after = memory, reads, weights, usage, links, precedence
        return DNCState(*after, state.hidden, state.cell)

    def _writing(self, told: Told, usage: Tensor, memory: Tensor) -> Tensor:
        """Return where to write: :math:`w = g^w (g^a a + (1 - g^a) c)`."""
        content = self._content(told, slice(self.read_heads, None), memory)  # c (B, W, N)
        free = [_allocation(usage)]
        for h in range(self.write_heads - 1):  # the next head sees taken what this one takes
            taken = told.write[:, h, None] * told.allocation[:, h, None] * free[h]
            usage = _use(usage, taken.unsqueeze(1))
            free.append(_allocation(usage))
        weights = _interpolate(torch.stack(free, 1), content, told.allocation)
        return told.write.unsqueeze(-1) * weights

    def _reading(self, told: Told, links: Tensor, before: Tensor, memory: Tensor) -> Tensor:
        """Return where to read: a blend of the slots before, those alike and those after."""
        content = self._content(told, slice(self.read_heads), memory)  # c (B, R, N)
        before = before.unsqueeze(1)  # following links is a read of them
        back, forth = _read(before, links), _read(before, links.mT)  # (B, W, R, N)
        if self.sharpen_links:
            moves = FAINT + torch.stack((back, forth), dim=1)
            back, forth = _sharpen(moves, told.sharpening).unbind(1)
        ways = (back.transpose(1, 2), content.unsqueeze(2), forth.transpose(1, 2))
        return _read(told.modes.unsqueeze(2), torch.cat(ways, dim=2)).squeeze(2)

    def _content(self, told: Told, heads: slice, memory: Tensor) -> Tensor:
        """Return where the memory is like the keys of some heads, compared by cosine."""
        key, strength = told.key[:, heads], told.strength[:, heads]
        if not self.mask_content:
            return _address(key, memory, "cosine", strength)
        keys = memory.unsqueeze(1) * told.mask[:, heads].unsqueeze(2)  # (B, H, N, M)
        return _address(key.unsqueeze(2), keys, "cosine", strength.unsqueeze(2)).squeeze(2)

    def extra_repr(self) -> str:
        """Return the sizes shown by ``print(module)``."""
        return (
            f"{self.input_size}, {self.output_size}, slots={self.slots}, width={self.width}, "
            f"read_heads={self.read_heads}, write_heads={self.write_heads}, "
            f"initial_memory={self.kind!r}, mask_content={self.mask_content}, "
            f"deallocate={self.deallocate}, sharpen_links={self.sharpen_links}"
        )


class DNC(Machine[DNCState]):
    r"""A differentiable neural computer over sequences.

    `torch.func.vmap` has no rule for an LSTM and refuses it. After `compile` a machine can be
    copied and pickled; the copy compiles its step anew.

    Args:
        input_size: size I of an input vector.
        output_size: size O of an output vector.
        slots: number of slots N.
        width: width M of a slot.
        read_heads: number of read heads R.
        write_heads: number of write heads W.
        controller: see `DNCCell`, as all of these.
        initial_memory: "constant", "learned" or "random".
        mask_content: heads say which features content is compared by.
        deallocate: what is freed is erased.
        sharpen_links: read heads say how sharply they follow links.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        TypeError: a size is no integer, the controller no module, or the dtype not real.
        ValueError: see `DNCCell`.

    Source:
        Graves et al. 2016 (doi 10.1038/nature20101).

    Example:
        >>> import torch
        >>> from memlib import DNC
        >>> dnc = DNC(input_size=9, output_size=8, read_heads=2)
        >>> x = torch.randn(2, 41, 9)
        >>> logits, state = dnc(x[:, :20])
        >>> more, state = dnc(x[:, 20:], state)  # goes on where it stopped
        >>> torch.allclose(torch.cat((logits, more), dim=1), dnc(x)[0], atol=1e-6)
        True
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        slots: int = 128,
        width: int = 20,
        *,
        read_heads: int = 1,
        write_heads: int = 1,
        controller: nn.Module | None = None,
        initial_memory: InitialMemory = "constant",
        mask_content: bool = False,
        deallocate: bool = False,
        sharpen_links: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        cell = DNCCell(
            input_size, output_size, slots, width, read_heads=read_heads, write_heads=write_heads,
            controller=controller, initial_memory=initial_memory, mask_content=mask_content,
            deallocate=deallocate, sharpen_links=sharpen_links, device=device, dtype=dtype,
        )  # fmt: skip
        super().__init__(cell)

    def initial_state(self, batch_size: int = 1) -> DNCState:
        """Return the learned state before the first step: all slots free, no head anywhere."""
        return cast(DNCState, self.cell.initial_state(batch_size))
