"""Processes that hold parts of one thing, the ranks of `torch.distributed`: what they tell.

What every rank holds alike is *shared*; what is a rank's own, its *part*. The four functions of
gradients come in pairs, each the backward of the other, so that they have all derivatives:
`enter` (shared to part, as it is) and `total` (part to shared, the sum); `gather` (part to shared,
one after the other) and `own` (shared to part). The gradient of what is shared is shared too.

Source: the operators f and g of Shoeybi et al. 2019, section 3 (arXiv 1909.08053).
"""

import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from memlib.attention.scores import _single

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

T = TypeVar("T")
HEAD = 3  # numbers of a call: which, whether it is refused, with what


class Ranks:
    """The ranks of a group, all of its processes when None; one where there is no group.

    Raises:
        ValueError: this process is not in the group.
    """

    def __init__(self, group: "ProcessGroup | None" = None) -> None:
        import torch.distributed as dist  # not with memlib: it takes time, and few need it

        self.group, self.rank, self.size = group, 0, 1
        self.device = torch.device("cpu")  # on which numbers that are no tensor's travel
        if dist.is_available() and dist.is_initialized():
            self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
            if self.rank < 0:
                raise ValueError("group must hold this process; got one of other ranks")
            if dist.get_backend(group) == "nccl":
                self.device = torch.device("cuda", torch.cuda.current_device())

    # What every rank must call together

    def stack(self, part: Tensor) -> Tensor:
        """Return the parts of all ranks, of one shape, (R, ...), without gradients."""
        import torch.distributed as dist

        part = part.detach().contiguous()
        parts = [torch.empty_like(part) for _ in range(self.size)]
        self._wait(lambda: dist.all_gather(parts, part, group=self.group))
        return torch.stack(parts)

    def sum(self, part: Tensor) -> Tensor:
        """Return the sum of the parts of all ranks, without gradients."""
        import torch.distributed as dist

        whole = _single(part.detach()).clone(memory_format=torch.contiguous_format)
        self._wait(lambda: dist.all_reduce(whole, group=self.group))
        return whole.to(part.dtype)

    def tell(self, mine: T) -> list[T]:
        """Return what each rank has to say, any object that can be pickled."""
        import torch.distributed as dist

        found: list[Any] = [mine] * self.size
        if self.size > 1:
            self._wait(lambda: dist.all_gather_object(found, mine, group=self.group))
        return found

    def agree(
        self, verb: str, work: Callable[[], T], shared: Sequence[object],
        part: Callable[[T | None], Sequence[int]] = lambda done: (),
        hear: Callable[[Tensor], object] = lambda told: None,
    ) -> tuple[T, Tensor]:  # fmt: skip
        """Do the work if no rank refuses it, and all were asked the same; and what each tells.

        Args:
            verb: what is done.
            work: changes nothing; what it raises is raised on this rank, and refused on the others.
            shared: with what, on every rank.
            part: returns integers, as many on every rank, of what the work returned; of None where
                it was refused.
            hear: is given the parts, also where a rank refused it.

        Returns:
            What the work returned, and the parts (R, ·) int64.

        Raises:
            ValueError: another rank refused it, or was asked something else.
        """
        refused, done = None, None
        try:
            done = work()
        except Exception as error:
            refused = error
        # what is refused here need not even be a tensor
        mark = 0 if refused else fingerprint(*shared)
        head = zlib.crc32(verb.encode()), refused is not None, mark
        told = torch.tensor([*head, *part(done)], dtype=torch.long, device=self.device)
        told = (self.stack(told) if self.size > 1 else told.unsqueeze(0)).cpu()
        if (told[:, 0] == told[0, 0]).all():
            hear(told[:, HEAD:])
        if refused is not None:
            raise refused
        for place, rule in (
            (0, "call the same verb, here {}; rank {} called another than rank 0"),
            (1, "be able to {}; rank {} refused, and its own error says why"),
            (2, "give the same to {}; rank {} gave something else than rank 0"),
        ):
            first = 0 if place == 1 else told[0, place]
            if (other := (told[:, place] != first).nonzero()).numel():
                raise ValueError(f"every rank must {rule.format(verb, int(other[0]))}")
        return done, told[:, HEAD:]  # type: ignore[return-value]

    def _wait(self, collective: Callable[[], object]) -> None:
        try:
            collective()
        except RuntimeError as error:
            first = str(error).splitlines()[0]
            raise ConnectionError(
                f"every rank must answer within the timeout of its group; rank {self.rank} of "
                f"{self.size} waited in vain: {first}"
            ) from error

    # The same with gradients

    def enter(self, x: Tensor) -> Tensor:
        """Return what is shared as a part; its gradient is the sum of those of the parts."""
        return self._linear("enter", x)

    def total(self, x: Tensor) -> Tensor:
        """Return the sum of the parts."""
        return self._linear("total", x)

    def gather(self, x: Tensor) -> Tensor:
        """Return the parts of all ranks, of one shape, (R, ...)."""
        return self._linear("gather", x)

    def own(self, x: Tensor) -> Tensor:
        """Return of (R, ...) what is this rank's."""
        return self._linear("own", x)

    def join(self, x: Tensor, lengths: Sequence[int]) -> Tensor:
        """Return the parts (B, n, ...) of all ranks, of these lengths n, one after the other."""
        padding = max(lengths) - x.shape[1]
        parts = self.gather(F.pad(x, (*(0, 0) * (x.ndim - 2), 0, padding)))
        return torch.cat([parts[r, :, :n] for r, n in enumerate(lengths)], dim=1)

    def _linear(self, name: str, x: Tensor) -> Tensor:
        apply: Any = _Linear.apply
        result: Tensor = apply(self, x, name)
        return result


class _Linear(torch.autograd.Function):
    """One of the four; its backward is the other one of its pair."""

    @staticmethod
    def forward(ctx: Any, ranks: Ranks, x: Tensor, name: str) -> Tensor:
        ctx.ranks, ctx.other = ranks, BACKWARD[name]
        return FORWARD[name](ranks, x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None]:
        return None, getattr(ctx.ranks, ctx.other)(grad), None


FORWARD: dict[str, Callable[[Ranks, Tensor], Tensor]] = {
    "enter": lambda _, x: x.view_as(x),
    "total": lambda ranks, x: ranks.sum(x),
    "gather": lambda ranks, x: ranks.stack(x),
    "own": lambda ranks, x: x[ranks.rank].clone(),
}
BACKWARD = {"enter": "total", "total": "enter", "gather": "own", "own": "gather"}


def fingerprint(*given: object) -> int:
    """Return a checksum of tensors and other things, by which ranks notice that theirs differ."""
    found = 0
    for x in given:
        if isinstance(x, Tensor):
            found = zlib.crc32(f"{x.dtype} {tuple(x.shape)}".encode(), found)
            raw = x.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
            found = zlib.crc32(raw.data if raw.size else b"", found)
        else:
            found = zlib.crc32(repr(x).encode(), found)
    return found
