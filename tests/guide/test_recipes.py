"""Every recipe of the guide does as it says: short, of public names, printing what it shows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import recipes
from recipes import Recipe

import memlib

PAGES = recipes.pages()
ALL = [recipe for found in PAGES.values() for recipe in found]


RUN = [
    pytest.param(one, marks=pytest.mark.slow if "spawn" in one.code else (), id=str(one))
    for one in ALL
    if not one.shown
]


@pytest.mark.parametrize("recipe", RUN)
def test_a_recipe_prints_what_its_page_says(recipe: Recipe) -> None:
    if needs := recipes.lacking(recipe):
        pytest.skip(f"{recipe} needs {', '.join(needs)}, which is not installed: `make extras`")
    assert recipes.run(recipe) == recipe.said, f"python tools/recipes.py {recipe.page} --fix"


@pytest.mark.parametrize("recipe", ALL, ids=str)
def test_a_recipe_keeps_the_form(recipe: Recipe) -> None:
    assert recipes.faults(recipe) == []


def test_every_python_block_is_a_recipe() -> None:
    """One that the form does not catch, such as an indented one, would never run."""
    for path in (recipes.ROOT / "book").glob("*.md"):
        text = path.read_text(encoding="utf-8")
        listings = re.findall(r"^[ >]*(?:`{3,}|~{3,}) *(?:py|python\w*|\{code\S*)\b", text, re.M)
        assert len(listings) == len(PAGES.get(path, [])), path.name


# ---- Planted faults ----


def read(text: str) -> Recipe:
    (one,) = recipes.recipes("page", text)
    return one


def block(code: str, *notes: str, said: str = "1\n") -> Recipe:
    return read(
        "".join(f"{n}\n" for n in notes) + f"```python\n{code}\n```\n\n```text\n{said}```\n"
    )


def test_the_form() -> None:
    two = "% needs: faiss\n```python\n1\n```\n\n```python\n2\n```\n"
    assert [one.code for one in recipes.recipes("page", two)] == ["1\n", "2\n"]
    one = block("print(1)", "% needs: faiss, matplotlib")
    assert one == Recipe("page", 3, "print(1)\n", "1\n", ("faiss", "matplotlib"))
    assert read("Text.\n\n```python\nx = 1\n```\n\nText.\n\n```text\n1\n```\n").said is None
    assert read("% shown: downloads\n```python\nx = 1\n```\n").shown


GOOD = [
    block("print(1)"),
    block("from memlib import NTM, attend\nfrom memlib.tasks import copy"),
    block("from memlib.transformer.forgetting import window\nimport torch.nn.functional as F"),
    block("import memlib, math\nmemlib.attend, __name__"),
    block("import faiss", "% needs: faiss"),
    block("x = 1\n" * 14 + "print(x)"),
    read("% shown: downloads a checkpoint\n```python\nx = 1\n```\n"),
]


@pytest.mark.parametrize("recipe", GOOD)
def test_what_is_in_order_passes(recipe: Recipe) -> None:
    assert recipes.faults(recipe) == []


FAULTS = [
    (block("x = 1\n" * 15 + "print(x)"), "has 16 lines"),
    (block("x = " + "1" * 69), "has 73 columns"),
    (read("```python\nprint(1)\n```\n"), "must have a text block"),
    (block("print(1)", "% shown: downloads"), "not both"),
    (block("x = 1", said=""), "prints nothing"),
    (block("from memlib._checks import x"), "imports x of memlib._checks"),
    (block("from memlib.store.files import save"), "imports save of memlib.store.files"),
    (block("from memlib.store.store import Store"), "imports Store of memlib.store.store"),
    (block("from memlib import nothing"), "imports nothing of memlib"),
    (block("import memlib.attention.verbs"), "imports memlib.attention.verbs"),
    (block("import memlib\nmemlib.store.files.save"), "uses memlib.store, which is not public"),
    (block("def f(cache):\n    return cache._bounds"), "uses _bounds"),
    (block("import matplotlib.pyplot as plt"), "write `% needs: matplotlib`"),
    (block("from faiss import x", "% needs: matplotlib"), "write `% needs: faiss`"),
    (block("from memlib.integrations.pgvector import X"), "write `% needs: pgvector`"),
]


@pytest.mark.parametrize(("recipe", "fault"), FAULTS, ids=[fault for _, fault in FAULTS])
def test_a_fault_of_the_form_is_found(recipe: Recipe, fault: str) -> None:
    (found,) = recipes.faults(recipe)
    assert fault in found


def test_what_is_printed_is_compared() -> None:
    """Also what a process of the recipe's own prints; what goes wrong is told, not compared."""
    one = block("import os\nprint(os.listdir())\nos.system('echo from a shell')")
    assert recipes.run(one) == "[]\nfrom a shell\n" != one.said
    page = "A page.\n\n```python\nprint(2)\n```\n\n```text\n1\n```\n\nMore.\n"
    assert recipes.mended(page, read(page), "2\n") == page.replace("1\n", "2\n")
    bare = "```python\nprint(2)\n```\n\nMore.\n"
    assert recipes.mended(bare, read(bare), "2\n") == bare.replace("\nM", "\n```text\n2\n```\n\nM")


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import warnings\nwarnings.warn('mind this')", "UserWarning: mind this"),
        ("print(1)\nraise SystemExit(3)", "ended with 3"),
        ("import socket\nsocket.create_connection(('192.0.2.1', 80))", "with the network off"),
        ("import faiss", "import of faiss halted"),
    ],
)
def test_what_goes_wrong_is_told(code: str, told: str) -> None:
    with pytest.raises(RuntimeError, match=told):
        recipes.run(block(code))


def test_memlib_is_the_one_that_is_tested() -> None:
    """Under `make extras` that of the wheel, whatever lies in the folder that pytest runs in."""
    told = recipes.run(block("import memlib\nprint(memlib.__file__)"))
    assert Path(told.strip()).samefile(memlib.__file__)


def test_a_draw_without_a_seed_is_found() -> None:
    one = block("import torch\nprint(torch.rand(3))")
    assert recipes.run(one) != recipes.run(one)


@pytest.mark.slow
def test_the_command_tells_and_mends(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nprint(2)\n```\n\n```text\n1\n```\n")

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, recipes.__file__, "--book", str(tmp_path), *arguments]
        return subprocess.run(line, capture_output=True, text=True)

    first = command()
    assert first.returncode == 1
    assert "-1\n+2\n" in first.stdout
    assert command("--fix").returncode == 0
    assert page.read_text() == "```python\nprint(2)\n```\n\n```text\n2\n```\n"
    assert command("page").returncode == 0
