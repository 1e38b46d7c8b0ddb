"""Attention over slots that lie on several ranks."""

from typing import TYPE_CHECKING, Any, Literal, overload

from torch import Tensor

from memlib import _checks as checks
from memlib.attention.verbs import Measure, _check_address, _hide, attend
from memlib.store.partial import entering, recorded, stream, weigh
from memlib.store.ranks import Ranks

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


@overload
def attend_sharded(
    query: Tensor, keys: Tensor, values: Tensor, *, group: "ProcessGroup | None" = ...,
    measure: Measure = ..., strength: float | Tensor = ..., mask: Tensor | None = ...,
    need_weights: Literal[False] = ...,
) -> Tensor: ...  # fmt: skip


@overload
def attend_sharded(
    query: Tensor, keys: Tensor, values: Tensor, *, group: "ProcessGroup | None" = ...,
    measure: Measure = ..., strength: float | Tensor = ..., mask: Tensor | None = ...,
    need_weights: Literal[True],
) -> tuple[Tensor, Tensor]: ...  # fmt: skip


@overload
def attend_sharded(
    query: Tensor, keys: Tensor, values: Tensor, *, group: "ProcessGroup | None" = ...,
    measure: Measure = ..., strength: float | Tensor = ..., mask: Tensor | None = ...,
    need_weights: bool,
) -> Tensor | tuple[Tensor, Tensor]: ...  # fmt: skip


def attend_sharded(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    group: "ProcessGroup | None" = None,
    measure: Measure = "scaled_dot",
    strength: float | Tensor = 1.0,
    mask: Tensor | None = None,
    need_weights: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""`memlib.attend` over slots of which each rank holds a part: :math:`r = \sum_i w_i r_i`.

    :math:`r_i` is the read of the part of rank i, :math:`s_i` the log-sum-exp of its scores, and
    :math:`w = \operatorname{softmax}(s)`: exactly the read of all slots at once. Parts may be of
    any sizes, 0 too. The ranks are the processes of `torch.distributed`, and every one must call.

    Args:
        query: (..., L, M), the same on every rank; so is all but keys, values and mask.
        keys: (..., N, M), this rank's slots.
        values: (..., N, V).
        group: of the ranks; all processes when None. Where there is no group, this is `attend`.
        measure: see `memlib.similarity`.
        strength: see `memlib.attend`.
        mask: bool, True = may be read; broadcasts to (..., L, N), this rank's slots.
        need_weights: return the weights of this rank's slots too.

    Returns:
        Values (..., L, V), the same on every rank; with `need_weights` also weights (..., L, N),
        which sum to 1 over the slots of all ranks.

    Accuracy: float32 1e-4, bfloat16 2e-2, float16 2e-3, of the sum of weights times sizes of
    values while strength times score stays below 100, and beyond it, or beyond a width of 128,
    in proportion.

    Raises:
        TypeError: as `memlib.attend`.
        ValueError: as `memlib.attend`; another rank refused, or was given something else.
        ConnectionError: a rank did not answer within the timeout of the group.

    Source:
        Milakov and Gimelshein 2018, section 3 (arXiv 1805.02867); over ranks: Liu et al. 2023
        (arXiv 2310.01889).

    Note:
        Gradients are those of one loss that every rank computes alike; the query's comes out the
        same on every rank, the keys' and values' where they are. Where losses differ by rank, take
        the gradient of their sum (a `memlib.ShardedStore` does, with ``queries="own"``). First
        derivatives only without `need_weights`.

    Example:
        >>> import torch
        >>> from memlib import attend_sharded  # in one process: all slots are here
        >>> keys, values = torch.eye(2), torch.tensor([[10.0], [20.0]])
        >>> attend_sharded(keys, keys, values, measure="dot", strength=50.0)
        tensor([[10.],
                [20.]])
    """
    ranks = Ranks(group)
    if ranks.size == 1:
        options: Any = {"measure": measure, "strength": strength, "mask": mask}
        return attend(query, keys, values, need_weights=need_weights, **options)

    def check() -> float | Tensor:
        found, _ = _check_address(query, keys, measure, strength, mask, None)
        checks.tensor("values", values)
        checks.shape("values", values, "(..., N, V)", N=keys.shape[-2])
        checks.alike(query=query, values=values)
        lead = checks.leading(query=(query, 2), keys=(keys, 2), values=(values, 2))
        sizes.append((*lead, values.shape[-1]))
        return found

    sizes: list[tuple[int, ...]] = []  # of the read, known once all is checked
    asked = query, measure, strength, need_weights
    shared = *asked, recorded(query, keys, values, strength), sizes
    found, _ = ranks.agree("attend_sharded", check, shared)
    keys, values = _hide(mask, keys, values)
    entered = ranks.enter(query), keys, values, measure, entering(ranks, found), mask
    if need_weights:
        value, weights = weigh(ranks, *entered)
    else:
        value, weights = stream(ranks, *entered), None
    checks.finite(value, query=query, keys=keys, values=values, strength=found)
    return value if weights is None else (value, weights)
