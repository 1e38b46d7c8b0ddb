"""The differentiable neural computer: a memory that knows what is free and what came after what.

It finds, reads and writes with the verbs of the floors below. What is new is bookkeeping: a usage
for every slot, so that a write can ask for a free one (`allocation`), and links from each slot to
the one written next, so that a read can follow the order of writing.
"""

from typing import Literal, NamedTuple, cast, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memlib import checks
from memlib.addressable import _interpolate, _sharpen
from memlib.attention import _address, _read, _write
from memlib.recurrent import Cell, InitialMemory, Machine

MASK_MIN = 0.1  # of a content mask: no feature is ever quite hidden, or masks would not be learned
FAINT = 1e-6  # added to weights that are sharpened, so that the faintest have bounded gradients


class DNCState(NamedTuple):
    """All that a DNC carries from step to step, for B rows; a new one comes out of every step.

    Attributes:
        memory: (B, N, M).
        reads: (B, R, M), what the R read heads read last.
        weights: (B, R + W, N), where the heads were last: R read heads, then W write heads.
        usage: (B, N), how far each slot is taken, 0 free, 1 in use.
        links: (B, W, N, N): entry (i, j) says how far slot i was written right after slot j.
        precedence: (B, W, N), how far each slot was the last written.
        hidden: (B, D), the controller's hidden state; (B, 0) if it has none.
        cell: (B, D), the LSTM's cell; (B, 0) for any other controller.
    """

    memory: Tensor
    reads: Tensor
    weights: Tensor
    usage: Tensor
    links: Tensor
    precedence: Tensor
    hidden: Tensor
    cell: Tensor

    def detach(self) -> "DNCState":
        """Return the same state without its history, for truncated backpropagation."""
        return DNCState(*(value.detach() for value in self))


def allocation(usage: Tensor) -> Tensor:
    r"""Find a free slot: :math:`a[\phi_j] = (1 - u[\phi_j]) \prod_{i<j} u[\phi_i]`.

    :math:`\phi` lists the slots from the least used to the most used, of equals the first one
    first. A free slot gets all the weight; with none quite free, the freest share it.

    Args:
        usage: (..., N), u in [0, 1]: 0 free, 1 in use.

    Returns:
        Weights (..., N), at least 0, summing to :math:`1 - \prod_n u_n`.

    Raises:
        TypeError: no floating-point tensor.
        ValueError: a usage outside [0, 1], or NaN.

    Source:
        Graves et al. 2016, Methods, "Dynamic memory allocation" (doi 10.1038/nature20101).

    Example:
        >>> import torch
        >>> from memlib import allocation
        >>> allocation(torch.tensor([1.0, 0.5, 0.8]))
        tensor([0.0000, 0.5000, 0.1000])
    """
    checks.tensor("usage", usage)
    checks.shape("usage", usage, "(..., N)")
    checks.within("usage", usage, 0, 1)
    weights = _allocation(usage)
    checks.finite(weights, usage=usage)
    return weights


class _Told(NamedTuple):
    """What the controller tells the heads of a DNC, read heads first."""

    key: Tensor  # k (B, R + W, M), masked already
    strength: Tensor  # β (B, R + W), at least 1
    mask: Tensor  # (B, R + W, M) in [MASK_MIN, 1]; empty unless content is masked
    add: Tensor  # v (B, W, M)
    erase: Tensor  # e (B, W, M) in [0, 1]
    free: Tensor  # f (B, R) in [0, 1]
    allocation: Tensor  # g^a (B, W) in [0, 1]
    write: Tensor  # g^w (B, W) in [0, 1]
    modes: Tensor  # π (B, R, 2 W + 1): backward, content, forward; sums to 1
    sharpening: Tensor  # s (B, 2, W, R), at least 1: backward, forward; or empty


class DNCCell(Cell):
    r"""One step of a differentiable neural computer.

    The controller sees the input and the last reads, :math:`h_t = c(x_t, r_{t-1}, h_{t-1})`; a
    linear layer turns :math:`h_t` into all that the heads are told. What was read may be freed; a
    write goes to a free slot, to one found by content, or nowhere; a read goes back along the
    links, forth, or to the slot found by content. The logits are linear in :math:`(h_t, r_t)`.

    Args:
        input_size: size I of an input vector.
        output_size: size O of an output vector.
        slots: number of slots N.
        width: width M of a slot.
        read_heads: number of read heads R.
        write_heads: number of write heads W. They write at once, each with links of its own, and
            each is offered the slots that those before it leave free.
        controller: an `torch.nn.LSTMCell`, `torch.nn.GRUCell` or `torch.nn.RNNCell` of input size
            I + R * M, or any other module (B, I + R * M) -> (B, D), taken as feed-forward. None
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
        Where we deviate: the first reads and the controller's first state are learned, and the
        memory starts at 1e-6, where a cosine has a gradient.

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
        self.mask_content, self.deallocate = mask_content, deallocate
        self.sharpen_links = sharpen_links
        # what the controller says to the heads, by how it is squashed
        heads, links, W = read_heads + write_heads, 2 * write_heads * read_heads, write_heads
        self._powers = (heads, links * sharpen_links)
        self._shares = (heads * width * mask_content, W * width, read_heads, W, W)
        bare, modes = (heads + W) * width, links + read_heads
        self._split = (bare, sum(self._powers), sum(self._shares), modes)
        self._build(sum(self._split), controller, initial_memory, device, dtype)
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

        Raises:
            TypeError: wrong dtypes, or a state that is no `DNCState`.
            ValueError: wrong shapes, or NaN.
        """
        return self._checked_step(x, state)

    def _step(self, x: Tensor, state: DNCState) -> tuple[Tensor, DNCState]:
        """Everything but the output layer; trusts its arguments."""
        h, hidden, cell = self._control(x, state)
        told = self._told(self.interface(h))
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
        return h, DNCState(memory, reads, weights, usage, links, precedence, hidden, cell)

    def _told(self, raw: Tensor) -> _Told:
        """Squash raw numbers into the ranges of what they say."""
        reads, writes, width = self.read_heads, self.write_heads, self.width
        bare, powers, shares, modes = raw.split(self._split, dim=-1)
        key, add = bare.unflatten(-1, (-1, width)).split((reads + writes, writes), dim=1)
        strength, sharpening = (1 + F.softplus(powers)).split(self._powers, dim=-1)
        mask, erase, free, allocate, write = shares.sigmoid().split(self._shares, dim=-1)
        if self.mask_content:
            mask = MASK_MIN + (1 - MASK_MIN) * mask.unflatten(-1, (reads + writes, width))
            key = key * mask
        if self.sharpen_links:
            sharpening = sharpening.unflatten(-1, (2, writes, reads))
        return _Told(
            key=key,
            strength=strength,
            mask=mask,
            add=add,
            erase=erase.unflatten(-1, (writes, width)),
            free=free,
            allocation=allocate,
            write=write,
            modes=modes.unflatten(-1, (reads, 2 * writes + 1)).softmax(dim=-1),
            sharpening=sharpening,
        )

    def _writing(self, told: _Told, usage: Tensor, memory: Tensor) -> Tensor:
        """Return where to write: :math:`w = g^w (g^a a + (1 - g^a) c)`."""
        content = self._content(told, slice(self.read_heads, None), memory)  # c (B, W, N)
        free = [_allocation(usage)]
        for h in range(self.write_heads - 1):  # the next head sees taken what this one takes
            taken = told.write[:, h, None] * told.allocation[:, h, None] * free[h]
            usage = _use(usage, taken.unsqueeze(1))
            free.append(_allocation(usage))
        weights = _interpolate(torch.stack(free, 1), content, told.allocation)
        return told.write.unsqueeze(-1) * weights

    def _reading(self, told: _Told, links: Tensor, before: Tensor, memory: Tensor) -> Tensor:
        """Return where to read: a blend of the slots before, those alike and those after."""
        content = self._content(told, slice(self.read_heads), memory)  # c (B, R, N)
        before = before.unsqueeze(1)  # following links is a read of them
        back, forth = _read(before, links), _read(before, links.mT)  # (B, W, R, N)
        if self.sharpen_links:
            moves = FAINT + torch.stack((back, forth), dim=1)
            back, forth = _sharpen(moves, told.sharpening).unbind(1)
        ways = (back.transpose(1, 2), content.unsqueeze(2), forth.transpose(1, 2))
        return _read(told.modes.unsqueeze(2), torch.cat(ways, dim=2)).squeeze(2)

    def _content(self, told: _Told, heads: slice, memory: Tensor) -> Tensor:
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


class DNC(Machine):
    r"""A differentiable neural computer over sequences.

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

    @overload
    def forward(
        self,
        x: Tensor,
        state: DNCState | None = ...,
        *,
        lengths: Tensor | None = ...,
        need_weights: Literal[False] = ...,
        checkpoint_every: int | None = ...,
    ) -> tuple[Tensor, DNCState]: ...

    @overload
    def forward(
        self,
        x: Tensor,
        state: DNCState | None = ...,
        *,
        lengths: Tensor | None = ...,
        need_weights: Literal[True],
        checkpoint_every: int | None = ...,
    ) -> tuple[Tensor, DNCState, Tensor]: ...

    def forward(
        self,
        x: Tensor,
        state: DNCState | None = None,
        *,
        lengths: Tensor | None = None,
        need_weights: bool = False,
        checkpoint_every: int | None = None,
    ) -> tuple[Tensor, DNCState] | tuple[Tensor, DNCState, Tensor]:
        """Run over a sequence.

        Args:
            x: (B, T, I).
            state: where the last sequence ended; None starts anew.
            lengths: (B,) integers in [0, T]: row b stops after ``lengths[b]`` steps, as if run
                alone; its later logits and weights are 0 and its padding is not looked at.
            need_weights: return the weights of every step too.
            checkpoint_every: keep for the backward pass the state after every `checkpoint_every`
                steps only, and run the steps between again when their turn comes: the same
                gradients with memory for T / c states and c steps instead of T steps, at the cost
                of one more forward pass. About the square root of T needs the least.

        Returns:
            Logits (B, T, O) and the state after the last step of each row; with `need_weights`
            also the weights (B, T, R + W, N), read heads first.

        Raises:
            TypeError: wrong dtypes, or a state that is no `DNCState`.
            ValueError: wrong shapes, lengths outside [0, T], `checkpoint_every` below 1, or NaN.
        """
        return self._run(x, state, lengths, need_weights, checkpoint_every)


# The formulas, each in one place. They trust their arguments.


def _use(usage: Tensor, weights: Tensor) -> Tensor:
    r"""Return usage (B, N) after writes (B, W, N): :math:`1 - (1 - u) \prod_h (1 - w_h)`."""
    return 1 - (1 - torch.cat((usage.unsqueeze(1), weights), dim=1)).prod(dim=1)


def _allocation(usage: Tensor) -> Tensor:
    faint = torch.finfo(usage.dtype).eps ** 2  # gives a free slot a logarithm, and a gradient
    rising, order = (usage + faint).sort(dim=-1, stable=True)  # u[φ], φ
    logs = rising.log()
    weights = (1 - rising) * (logs.cumsum(dim=-1) - logs).exp()
    return weights.scatter(-1, order, weights)  # every entry is put in its place


def _link(links: Tensor, precedence: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return :math:`L_{ij} = (1 - w_i - w_j) L_{ij} + w_i p_j`, :math:`p = (1 - \sum w) p + w`."""
    kept = (1 - weights).unsqueeze(-1) - weights.unsqueeze(-2)
    links = torch.addcmul(kept * links, weights.unsqueeze(-1), precedence.unsqueeze(-2))
    links.diagonal(dim1=-2, dim2=-1).zero_()  # no slot comes after itself
    return links, torch.addcmul(weights, 1 - weights.sum(dim=-1, keepdim=True), precedence)
