"""The parts of a sharded store: which rank gets new pairs, and their files in one folder.

Each file is that of a plain `memlib.Store`. A call of `save` has a number, so that what is half
written is never taken for whole, and a folder that no rank sees but one's own will do.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from memlib.store.pairs import Ints
from memlib.store.ranks import Ranks, fingerprint
from memlib.store.store import OPTIONS, Store

BUFFERS = ("keys", "values", "ids")
FILE = re.compile(r"save-(\d+)\.(\d+)-of-(\d+)\.safetensors")


def kind(store: Store) -> int:
    """Return a number by which shards that are not alike are told."""
    buffers = store.keys, store.values
    return fingerprint(
        len(store.ids), store.width, store.value_width, store.measure, *(x.dtype for x in buffers)
    )


def shares(held: Ints, new: Ints, turn: Ints) -> Ints:
    """Return how many of the new pairs (B,) each rank gets, (R, B): those with fewest first.

    Args:
        held: (R, B), how many pairs each rank holds.
        new: (B,)
        turn: (B,), of ranks that hold the same, the first in turn (modulo R) gets what is left.
    """
    count = np.arange(1, len(held) + 1)[:, None]
    level = ((new + np.sort(held, axis=0).cumsum(0)) // count).min(0)  # like water in vessels
    given = (level - held).clip(min=0)
    left = new - given.sum(0)
    turns = (np.arange(len(held))[:, None] - turn) % len(held)
    turns = np.where(held + given == level, turns, len(held))
    more = turns.argsort(0, kind="stable").argsort(0, kind="stable") < left
    result: Ints = given + more
    return result


def name(save: int, rank: int, ranks: int) -> str:
    """Return the name of a shard's file."""
    return f"save-{save}.{rank}-of-{ranks}.safetensors"


def saves(names: Sequence[Sequence[str]]) -> list[tuple[int, int]]:
    """Return the number of each save that is whole among the names all ranks see, and its ranks."""
    found = {
        tuple(map(int, m.groups())) for some in names for n in some if (m := FILE.fullmatch(n))
    }
    several = {(save, ranks) for save, _, ranks in found}
    return sorted(s for s in several if all((s[0], r, s[1]) in found for r in range(s[1])))


def last(names: Sequence[Sequence[str]]) -> int:
    """Return the highest number of a save, whole or not; 0 where there is none."""
    return max((int(m[1]) for some in names for n in some if (m := FILE.fullmatch(n))), default=0)


def dealt(files: Sequence[str], names: Sequence[Sequence[str]]) -> list[list[str]]:
    """Deal files to the ranks that see them, as evenly as that goes; the same on every rank."""
    hands: list[list[str]] = [[] for _ in names]
    for file in files:
        able = [rank for rank, seen in enumerate(names) if file in seen]
        hands[min(able, key=lambda rank: len(hands[rank]))].append(file)
    return hands


def like(store: Store) -> dict[str, Any]:
    """Return what makes an empty store of the same kind."""
    options: dict[str, Any] = {option: getattr(store, option) for option in OPTIONS}
    kinds = {"dtype": store.keys.dtype, "value_dtype": store.values.dtype}
    return options | kinds | {"batch_size": len(store.ids), "device": str(store.keys.device)}


def joined(stores: Sequence[Store]) -> Store:
    """Return one store with the pairs of several, under the ids they have."""
    if len(stores) == 1:
        return stores[0]
    parts = [store._tensors() for store in stores]
    tensors = {name: torch.cat([part[name] for part in parts], 1) for name in BUFFERS}
    tensors["next"] = torch.stack([part["next"] for part in parts]).amax(0)
    slots = tensors["ids"].shape[1]
    if (capacity := stores[0].capacity) is not None and slots > capacity:
        raise ValueError(f"capacity {capacity} must hold the pairs of a rank; got {slots}")
    whole = Store(**like(stores[0]))
    whole._restore(tensors, ring=False)
    return whole


def listed(folder: Path) -> list[str]:
    """Return the names of the files of shards that this rank sees."""
    return sorted(x.name for x in folder.glob("save-*") if FILE.fullmatch(x.name))


def opened(
    folder: Path, names: Sequence[Sequence[str]], ranks: Ranks, options: dict[str, Any]
) -> Store | None:
    """Return what this rank takes of the last whole save, if there is a file for it.

    Args:
        folder: of the files.
        names: of those that each rank sees.
        ranks: that open it.
        options: of `Store.open`.
    """
    if not (whole := saves(names)):
        raise ValueError(f"{folder.name} must hold a whole save; got {sum(map(len, names))} files")
    save, parts = whole[-1]
    mine = dealt([name(save, r, parts) for r in range(parts)], names)[ranks.rank]
    return joined([Store.open(folder / file, **options) for file in mine]) if mine else None


def durable(folder: Path, ranks: Ranks, options: dict[str, Any]) -> Store:
    """Return the durable store of this rank, of which no higher rank may have been."""
    folder.mkdir(parents=True, exist_ok=True)
    if (there := [x.name for x in folder.iterdir() if x.name.isdecimal()]) and (
        most := max(map(int, there))
    ) >= ranks.size:
        raise ValueError(f"{folder.name} must be opened by {most + 1} ranks; got {ranks.size}")
    return Store.open(folder / str(ranks.rank), durable=True, **options)
