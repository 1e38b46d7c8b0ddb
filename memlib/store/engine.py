"""Engines that others run, and a read of what they found: a database, an index, a service."""

from typing import Any, Literal, Protocol, overload, runtime_checkable

import torch
from torch import Tensor

from memlib import _checks as checks
from memlib.attention.verbs import Measure, attend


@runtime_checkable
class Engine(Protocol):
    """Whatever finds the pairs whose keys are most similar to a query, and gives them back.

    It has one method, and may have an attribute `measure`: the one it searches by, which `retrieve`
    then weighs by. All rows of queries look into the same pairs, or each into its own, as the
    engine likes.

    Example:
        >>> import torch
        >>> from memlib import Engine, Store, retrieve
        >>> class Lent:
        ...     def __init__(self, store):
        ...         self.store, self.measure = store, store.measure
        ...     def search(self, query, k):
        ...         ids, _ = self.store.address(query, k)
        ...         return ids, *self.store.get(ids)
        >>> store = Store(width=2, value_width=1)
        >>> ids = store.add(torch.eye(2)[None], torch.tensor([[[10.0], [20.0]]]))
        >>> query = torch.tensor([[[1.0, 2.0]]])
        >>> isinstance(Lent(store), Engine)
        True
        >>> retrieve(query, Lent(store), k=1), store.read(query, k=1)
        (tensor([[[20.]]]), tensor([[[20.]]]))
    """

    def search(self, query: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """Find the k pairs most similar to each query, or fewer.

        Args:
            query: (B, L, M), without a gradient.
            k: number of pairs, at least 1.

        Returns:
            Ids (B, L, K) int64, -1 for none, with K at most k; keys (B, L, K, M) and values
            (B, L, K, V), of the dtype and on the device of the query. What stands beside an id
            of -1 is not looked at.
        """
        ...


@overload
def retrieve(
    query: Tensor, engine: Engine, k: int, *, measure: Measure | None = ...,
    strength: float | Tensor = ..., need_weights: Literal[False] = ...,
) -> Tensor: ...  # fmt: skip


@overload
def retrieve(
    query: Tensor, engine: Engine, k: int, *, measure: Measure | None = ...,
    strength: float | Tensor = ..., need_weights: Literal[True],
) -> tuple[Tensor, Tensor, Tensor]: ...  # fmt: skip


@overload
def retrieve(
    query: Tensor, engine: Engine, k: int, *, measure: Measure | None = ...,
    strength: float | Tensor = ..., need_weights: bool,
) -> Tensor | tuple[Tensor, Tensor, Tensor]: ...  # fmt: skip


def retrieve(
    query: Tensor,
    engine: Engine,
    k: int,
    *,
    measure: Measure | None = None,
    strength: float | Tensor = 1.0,
    need_weights: bool = False,
) -> Tensor | tuple[Tensor, Tensor, Tensor]:
    r"""Read what an engine finds: :math:`r = \sum_{n \in \mathcal{N}} w_n v_n`.

    :math:`\mathcal{N}` are the pairs that it gives back, and the weights those of
    `memlib.address` over their keys: one call of `memlib.attend`. Whatever scores the engine ranks
    by, its weights are made here; so the read is that of a `memlib.Store` wherever the engine
    finds the same pairs. Gradients flow to the query, and to what it gives back.

    Args:
        query: (B, L, M).
        engine: what has the one method of `Engine`.
        k: number of pairs; where there are fewer, all of them.
        measure: similarity measure, see `memlib.similarity`; None for the engine's own, or
            "scaled_dot" where it names none.
        strength: a number of at least 0, or a tensor that broadcasts to (B, L).
        need_weights: return ids and weights too.

    Returns:
        Values (B, L, V), zeros where nothing was found; with `need_weights` also the ids
        (B, L, K) and the weights (B, L, K), 0 at an id of -1.

    Raises:
        TypeError: wrong dtypes, of the query or of what the engine gave back.
        ValueError: wrong shapes, more than k pairs or one of them twice, negative strength, NaN.

    Example:
        See `Engine`.
    """
    checks.tensor("query", query)
    checks.shape("query", query, "(B, L, M)")
    k = checks.integer("k", k, 1)
    if isinstance(engine, type) or not isinstance(engine, Engine):
        got = f"the class {engine.__name__}" if isinstance(engine, type) else type(engine).__name__
        raise TypeError(f"engine must have a method search; got {got}")
    answer: Any = engine.search(query.detach(), k)
    if not isinstance(answer, tuple | list) or len(answer) != 3:
        got = f"{len(answer)} things" if isinstance(answer, tuple | list) else type(answer).__name__
        raise TypeError(f"the engine must answer with ids, keys and values; got {got}")
    ids, keys, values = answer
    ids = _checked(query, k, ids, keys, values)

    by: Measure = getattr(engine, "measure", "scaled_dot") if measure is None else measure
    if isinstance(strength, Tensor) and strength.ndim:
        checks.fits("strength", strength, query.shape[:2], "queries (B, L)")
        strength = strength.unsqueeze(-1)
    value, weights = attend(
        query.unsqueeze(2), keys, values, measure=by, strength=strength,
        mask=(ids >= 0).unsqueeze(2), need_weights=True,
    )  # fmt: skip
    value, weights = value.squeeze(2), weights.squeeze(2)
    return (value, ids, weights) if need_weights else value


def _checked(query: Tensor, k: int, ids: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Refuse an answer that does not fit the question; return its ids as int64."""
    checks.integers("the engine's ids", ids)
    batch, queries, width = query.shape
    found = {"B": batch, "L": queries, "K": ids.shape[-1] if ids.ndim else 0}
    checks.shape("the engine's ids", ids, "(B, L, K)", **found)
    checks.integer("the engine's number K of pairs", found["K"], 0, k)
    for name, x, rule in (("keys", keys, "(B, L, K, M)"), ("values", values, "(B, L, K, V)")):
        checks.tensor(f"the engine's {name}", x)
        checks.shape(f"the engine's {name}", x, rule, M=width, **found)
        checks.alike(query=query, **{f"the engine's {name}": x})
    checks.together(query=query, **{"the engine's ids": ids})
    checks.differ("the engine's ids", ids, "for each query")
    return torch.where(ids < 0, -1, ids.long())
