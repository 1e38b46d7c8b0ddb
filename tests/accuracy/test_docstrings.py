"""Each public function names its bound, and it is the bound that the campaign holds it to."""

import inspect
import re

import pytest

import memlib

from . import campaign, table
from .bounds import BOUNDS

NOT_OF_NUMBERS = {  # what makes, keeps or only moves numbers, and why it has no bound
    "programs": "a module of programs made of the verbs",
    "MEASURES": "names",
    "default_device": "a device",
    "Gates": "a tuple of tensors",
    "KeyValueState": "a tuple of tensors",
    "NTMState": "a tuple of tensors",
    "DNCState": "a tuple of tensors",
    "NeuralState": "a tuple of tensors",
    "Looks": "a tuple of tensors",
    "Recollection": "a tuple of tensors",
    "DurableStore": "a Store, whose pairs are kept as they are",
    "Engine": "what somebody else runs",
    "retrieve": "one call of attend, with its bound",
    "ShardedStore": "a Store in parts, whose reads are held to one store's",
    "attend_sharded": "attend in parts, held to attend; in one process it is attend",
    "SegmentMemory": "keeps inputs as they are",
    "KVCache": "keeps keys and values as they are",
    "NTM": "a sequence of steps of NTMCell: the deviation is recorded, not bounded",
    "DNC": "a sequence of steps of DNCCell: the deviation is recorded, not bounded",
}


def documented(name: str) -> str:
    found = memlib
    for part in name.split("."):
        found = getattr(found, part)
    return " ".join((inspect.getdoc(found) or "").split())


def test_every_public_name_has_a_bound_or_a_reason_for_none() -> None:
    bounded = {name.partition(".")[0] for name in BOUNDS}
    assert bounded | NOT_OF_NUMBERS.keys() == {*memlib.__all__}
    assert not bounded & NOT_OF_NUMBERS.keys()
    assert BOUNDS.keys() == table.SUBJECTS.keys()
    assert {name for name, _ in campaign.each()} == BOUNDS.keys()


@pytest.mark.parametrize("name", BOUNDS)
def test_the_docstring_names_the_bound(name: str) -> None:
    told = re.findall(r"Accuracy: [^.]*(?:\.\d[^.]*)*\.", documented(name))
    assert told == [str(BOUNDS[name])]
