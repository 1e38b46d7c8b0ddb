"""*Coming from elsewhere*: what its tables name is there, with these arguments, theirs and ours."""

from __future__ import annotations

import ast
import copy
import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import memlib

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "book" / "elsewhere.md").read_text(encoding="utf-8")
Names = Mapping[str, Any]


def rows(section: str) -> list[list[str]]:
    """The rows of a section's table: theirs, ours, what differs."""
    text = re.search(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)
    assert text is not None, section
    lines = [line for line in text[1].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def spans(cells: list[str]) -> list[str]:
    return [span for cell in cells for span in re.findall(r"`([^`]+)`", cell)]


def our_names() -> dict[str, dict[str, Any]]:
    """What a small letter stands for in the column *memlib*, by section."""
    ntm, dnc = memlib.NTM(1, 1, slots=3, width=1), memlib.DNC(1, 1, slots=3, width=1)
    return {
        "nn.MultiheadAttention": {"layer": memlib.MemoryAttention(2, 1)},
        "Caches of transformers": {"cache": memlib.KVCache(1, 1, 2, 2), "copy": copy},
        "faiss": {"store": memlib.Store(2, 1)},
        "hflayers": {"net": memlib.Hopfield()},
        "dnc": {"dnc": dnc, "state": dnc.initial_state()},
        "pytorch-ntm": {"ntm": ntm, "state": ntm.initial_state()},
        "memorizing-transformers-pytorch": {
            "store": memlib.Store(2, 1),
            "layer": memlib.MemorizingAttention(2, 1),
        },
    }


OURS = our_names()
INTEGRATION = "MemoryCache"  # which needs the package itself


def found(node: ast.expr, names: Names) -> Any:
    """What a name, or a name of a name, stands for."""
    if isinstance(node, ast.Attribute):
        return getattr(found(node.value, names), node.attr)
    assert isinstance(node, ast.Name), ast.unparse(node)
    return names[node.id]


def fault(span: str, names: Names) -> str:
    """What is wrong with a call, or an attribute; nothing where all of its names are there."""
    node = ast.parse(span, mode="eval").body
    try:
        if not isinstance(node, ast.Call):
            found(node, names)
            return ""
        called = found(node.func, names)
        if isinstance(called, nn.Module):
            called = called.forward
        keywords = {str(word.arg): None for word in node.keywords}
        if inspect.isbuiltin(called):  # which has no signature, and says it in words
            return ", ".join(word for word in keywords if f"{word}=" not in str(called.__doc__))
        bound = inspect.signature(called).bind_partial(*node.args, **keywords)
    except (KeyError, AttributeError, TypeError) as error:
        return f"{span}: {error!r}"
    given = {name: arg for name, arg in bound.arguments.items() if isinstance(arg, ast.Name)}
    ours = (inspect.getmodule(called) or ast).__name__.startswith("memlib")
    wrong = [f"{arg.id} is {name}" for name, arg in given.items() if ours and arg.id != name]
    return f"{span}: {', '.join(wrong)}" if wrong else ""


@pytest.mark.parametrize("section", OURS)
def test_what_the_tables_name_is_in_memlib(section: str) -> None:
    names = vars(memlib) | OURS[section]
    ours = [row[1] for row in rows(section)]
    named = [span for span in spans(ours) if not span.startswith(INTEGRATION)]
    assert len(named) >= 8
    assert [cell for cell in ours if not spans([cell]) and cell != "none"] == []
    assert [wrong for span in named if (wrong := fault(span, names))] == []


def test_what_the_table_names_is_in_the_integration() -> None:
    pytest.importorskip("transformers")
    names = vars(importlib.import_module("memlib.integrations.transformers"))
    ours = spans([row[1] for row in rows("Caches of transformers")])
    (span,) = [span for span in ours if span.startswith(INTEGRATION)]
    assert fault(span, names) == ""


def torch_names() -> tuple[Names, list[Callable[..., Any]]]:
    mha = nn.MultiheadAttention(2, 1)
    return {"nn": nn, "F": nn.functional, "mha": mha}, [nn.MultiheadAttention, mha.forward]


def transformers_names() -> tuple[Names, list[Callable[..., Any]]]:
    transformers = pytest.importorskip("transformers")
    own = {
        "cache": transformers.DynamicCache(),
        "model": transformers.GenerationMixin,
        "copy": copy,
    }
    return vars(transformers.cache_utils) | own, []


@pytest.mark.parametrize(
    ("section", "make"),
    [("nn.MultiheadAttention", torch_names), ("Caches of transformers", transformers_names)],
)
def test_what_the_tables_name_is_over_there(section: str, make: Callable[[], Any]) -> None:
    """Also alone: `dropout=`, an argument of one of the section's callables."""
    names, callables = make()
    words = {word for one in callables for word in inspect.signature(one).parameters}
    theirs = [span for span in spans([row[0] for row in rows(section)]) if not span.isidentifier()]
    arguments = {span.partition("=")[0] for span in theirs if re.match(r"\w+=", span)}
    assert arguments <= words
    calls = [span for span in theirs if not re.match(r"\w+=", span)]
    assert len(calls) >= 3
    assert [wrong for span in calls if (wrong := fault(span, names))] == []


def test_what_the_table_of_faiss_names_is_over_there() -> None:
    """Its functions say nothing of their arguments; and not every index has every attribute."""
    faiss = pytest.importorskip("faiss")
    flat = faiss.IndexFlatL2(2)
    indexes = [faiss.IndexHNSWFlat(2, 4), faiss.IndexIVFFlat(flat, 2, 1)]
    for span in spans([row[0] for row in rows("faiss")]):
        node = ast.parse(span, mode="eval").body
        node = node.func if isinstance(node, ast.Call) else node
        assert any(_has(node, {"faiss": faiss, "index": index}) for index in indexes), span


def _has(node: ast.expr, names: Names) -> bool:
    try:
        return found(node, names) is not None
    except AttributeError:
        return False


@pytest.mark.parametrize(
    "span",
    [
        "attent(query, keys, values)",  # no such function
        "attend(query, keys, values, masks=may)",  # no such argument
        "attend(queries, keys, values)",  # the argument has another name
        "store.search(query, k)",  # no such method
        "store.add(keys)",  # enough: an example may leave out what follows
    ],
)
def test_a_wrong_name_is_found(span: str) -> None:
    wrong = fault(span, vars(memlib) | {"store": memlib.Store(2, 1)})
    assert bool(wrong) is (span != "store.add(keys)")


def test_every_section_has_something_that_runs() -> None:
    sections = re.findall(r"^## (.+)\n", PAGE, re.M)
    assert sections == ["What differs everywhere", *OURS]
    for part in re.split(r"^## .+\n", PAGE, flags=re.M)[2:]:
        assert "```python\n" in part


def test_the_versions_are_those_of_the_locks() -> None:
    """Who renews a lock reads again what the page says of that package."""
    locks = ROOT.glob("requirements*.txt")
    pins = dict(re.findall(r"^([\w-]+)==(\S+)$", "\n".join(p.read_text() for p in locks), re.M))
    said = dict(re.findall(r"^\| \[([\w-]+)\]\(\S+\).* \| (\S+) \|$", PAGE, re.M))
    assert {"torch", "faiss-cpu", "transformers"} <= said.keys()
    both = said.keys() & pins.keys()
    assert {"torch", "faiss-cpu"} <= both
    assert {name: said[name] for name in both} == {name: pins[name] for name in both}


def test_a_row_with_nothing_to_read_is_nan_over_there() -> None:
    """The page says so of weights that are asked for; without them the read is 0."""
    mha, x = nn.MultiheadAttention(2, 1, batch_first=True), torch.ones(1, 1, 2)
    hidden = torch.ones(1, 1, dtype=torch.bool)
    assert mha(x, x, x, key_padding_mask=hidden)[0].isnan().all()
    assert (mha(x, x, x, key_padding_mask=hidden, need_weights=False)[0] == 0).all()
