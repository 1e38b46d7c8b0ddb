"""The API reference: every public name once, on the page of its part, with its true signature."""

from __future__ import annotations

import importlib
import inspect
import re

import pytest
import setup_cell

import memlib

BOOK = setup_cell.ROOT / "book"
PAGES = {  # a page for each part of the book, and the rooms of its chapters
    "verbs": ("attention", "key_value", "content", "addressable"),
    "machines": ("ntm", "memn2n", "transformer", "fast_weights", "dnc"),
    "models": ("store",),
    "tasks": ("tasks", "_device"),
}


def text(page: str) -> str:
    return (BOOK / f"api_{page}.md").read_text(encoding="utf-8")


def listed(page: str) -> list[str]:
    return re.findall(r"^\.\. (?:auto\w+|py:data):: (\w+)", text(page), re.MULTILINE)


def public(room: str) -> set[str]:
    """What a room gives to users: what it exports, of what memlib itself exports."""
    if room == "tasks":
        return set(importlib.import_module("memlib.tasks").__all__)
    module = importlib.import_module(f"memlib.{room}")
    names = {n for n in memlib.__all__ if getattr(module, n, None) is getattr(memlib, n)}
    own = {n for n in names if not inspect.getmodule(getattr(memlib, n)) or _room(n) == room}
    return own - {"programs"} | ({*memlib.programs.__all__} if room == "addressable" else set())


def _room(name: str) -> str:
    return str(getattr(memlib, name).__module__).split(".")[1]


@pytest.mark.parametrize("page", PAGES)
def test_every_name_is_on_the_page_of_its_part(page: str) -> None:
    names = set().union(*(public(room) for room in PAGES[page]))
    assert names
    aliases = {"Program"} if page == "verbs" else set()  # a type without a page of its own
    assert names - set(listed(page)) == aliases


def test_no_name_is_left_out_and_none_stands_twice() -> None:
    names = [name for page in PAGES for name in listed(page)]
    assert set(memlib.__all__) - {"programs"} <= set(names)
    twice = {name for name in names if names.count(name) > 1}
    assert twice == set()


def test_the_first_page_links_them_all() -> None:
    linked = re.findall(r"\(api_(\w+)\.md\)", (BOOK / "api.md").read_text(encoding="utf-8"))
    assert linked == list(PAGES)
    assert {path.stem for path in BOOK.glob("api_*.md")} == {f"api_{page}" for page in PAGES}


def test_overloaded_signatures_are_written_as_they_are() -> None:
    pages = "".join(text(page) for page in PAGES)
    pages = pages.split("memlib.integrations", 1)[0]  # theirs are read by tests/integrations
    written = re.findall(r":: (\w+)\((.+)\)$", pages, re.MULTILINE)
    functions = [
        memlib.attend,
        memlib.KeyValueMemory.read,
        memlib.NTM.forward,
        memlib.MemN2N.forward,
        memlib.MemoryAttention.forward,
        memlib.Decoder.forward,
        memlib.FastWeights.forward,
        memlib.NeuralMemory.forward,
        memlib.DNC.forward,
        memlib.Store.read,
        memlib.ShardedStore.read,
        memlib.attend_sharded,
        memlib.MemorizingAttention.forward,
        memlib.retrieve,
    ]
    for function, (name, arguments) in zip(functions, written, strict=True):
        parameters = inspect.signature(function).parameters.values()
        bare = [p.replace(annotation=inspect.Parameter.empty) for p in parameters]
        bare = [p for p in bare if p.name != "self"]
        assert name == function.__name__
        assert str(inspect.Signature(bare)) == f"({arguments})"
