"""`make tidy`: what Jupyter saved comes back to the stored form, once and for all."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
import setup_cell
import surroundings
import tidy

BOOK = setup_cell.ROOT / "book"
SMALL = "test_your_understanding"
EXECUTE = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
notebook.cells.insert(1, nbformat.v4.new_code_cell("print(1 + 1)\\n1 / 3"))
NotebookClient(notebook, timeout=120).execute()
nbformat.write(notebook, sys.argv[1])
"""
LAB = {  # what JupyterLab writes beside the kernel's name
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "other"},
    "language_info": {
        "codemirror_mode": {"name": "ipython", "version": 3},
        "file_extension": ".py",
        "mimetype": "text/x-python",
        "name": "python",
        "version": "3.13.1",
    },
    "widgets": {"application/vnd.jupyter.widget-state+json": {}},
}


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """A folder with one small notebook of the book and its references."""
    for name in (f"{SMALL}.ipynb", "references.bib", "references.md"):
        (tmp_path / name).write_bytes((BOOK / name).read_bytes())
    return tmp_path


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.*")}


def test_the_book_is_tidy() -> None:
    stored = tidy.book(BOOK)
    assert len(stored) > 12
    assert [p.name for p, text in stored.items() if p.read_text("utf-8") != text] == [], (
        "run `make tidy`"
    )


@pytest.mark.slow
def test_run_and_saved_notebook_comes_back(book: Path, tmp_path_factory: Any) -> None:
    """Executed by a kernel and written by nbformat, as JupyterLab's server does."""
    path = book / f"{SMALL}.ipynb"
    before = contents(book)
    command = [sys.executable, "-c", EXECUTE, str(path)]
    settings = surroundings.clean(tmp_path_factory.mktemp("scratch"))
    settings["PYTHONPATH"] = str(setup_cell.ROOT)
    done = subprocess.run(command, cwd=BOOK, env=settings, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    saved = json.loads(path.read_text())
    assert saved["cells"][1]["outputs"], "it was executed"
    assert saved["metadata"]["language_info"].keys() > {"name"}
    assert tidy.write(book) == [path]
    notebook = json.loads(path.read_text())
    assert notebook["cells"].pop(1)["id"] == "print-1-1"
    path.write_text(tidy.dump(notebook))
    assert contents(book) == before


def _counted(notebook: dict[str, Any]) -> None:
    for count, cell in enumerate(c for c in notebook["cells"] if c["cell_type"] == "code"):
        cell["execution_count"] = count + 1
        cell["outputs"] = [{"name": "stdout", "output_type": "stream", "text": ["2\n"]}]


def _noted(notebook: dict[str, Any]) -> None:
    for cell in notebook["cells"]:
        cell["metadata"] |= {"trusted": True, "editable": True, "slideshow": {"slide_type": ""}}
        cell["metadata"]["execution"] = {"iopub.execute_input": "2026-01-01T00:00:00Z"}


def _folded_otherwise(notebook: dict[str, Any]) -> None:
    """The reader opened what was folded, and folded and shut what was open."""
    for cell in notebook["cells"]:
        if cell["metadata"].pop("jupyter", None) is None and cell["cell_type"] == "code":
            cell["metadata"] |= {"jupyter": {"source_hidden": True, "outputs_hidden": True}}
        cell["metadata"] |= {"collapsed": True, "scrolled": True}


def _in_one_string(notebook: dict[str, Any]) -> None:
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"])


def _left_empty(notebook: dict[str, Any]) -> None:
    notebook["cells"].append(nbformat.v4.new_code_cell(""))


def _of_another_kernel(notebook: dict[str, Any]) -> None:
    notebook["metadata"] = LAB
    notebook["nbformat_minor"] = 6


MESSES = [
    *(_counted, _noted, _folded_otherwise, _in_one_string, _left_empty, _of_another_kernel),
]


@pytest.mark.parametrize("name", ["key_value", "intro"])
@pytest.mark.parametrize("mess", MESSES)
def test_what_jupyter_changes_comes_back(mess: Any, name: str) -> None:
    """Each change alone; that it is one is checked, too."""
    stored = (BOOK / f"{name}.ipynb").read_text(encoding="utf-8")
    notebook = json.loads(stored)
    mess(notebook)
    assert tidy.dump(notebook) != stored
    assert tidy.dump(tidy.clean(notebook)) == stored


@pytest.mark.parametrize(
    "form", [{"indent": 2}, {"ensure_ascii": True}, {"indent": None}, {"sort_keys": False}]
)
def test_form_on_disk_comes_back(form: dict[str, Any], book: Path) -> None:
    before, path = contents(book), book / f"{SMALL}.ipynb"
    notebook = json.loads(before[path.name])
    notebook["cells"][0] = dict(reversed(notebook["cells"][0].items()))
    notebook["cells"][0]["source"].append("\nAs wide as β\n")
    path.write_text(tidy.dump(notebook))
    tidy.write(book)
    before = contents(book)
    text = json.dumps(notebook, **{"indent": 1, "ensure_ascii": False} | form)
    path.write_bytes(text.replace("\n", "\r\n").encode())
    assert tidy.write(book) == [path]
    assert contents(book) == before
    assert tidy.write(book) == [], "twice is once"


@pytest.mark.parametrize(
    ("source", "id_"),
    [
        ("## What is left: a *test*", "what-is-left-a-test"),
        ("Écoute bien, one two three four", "ecoute-bien-one-two-three"),
        ("x = 1\nprint(x)", "x-1"),
        ("1 + 1", "cell-1-1"),
        ("deadbeef", "cell-deadbeef"),
        ("β", "cell"),
    ],
)
@pytest.mark.parametrize("given", ["", "3f2a9c1d", "c0ffee12-3f2a-4b1c-8d9e-aa00bb11cc22", "aB_9"])
def test_new_cells_get_words(given: str, source: str, id_: str) -> None:
    cell = {"cell_type": "markdown", "id": given, "metadata": {}, "source": source}
    stored = {**cell, "id": id_}
    cells = [dict(cell), dict(cell), stored, {**stored}, {**stored, "id": "kept-as-it-is"}]
    if not given:
        del cells[0]["id"]
    ids = [one["id"] for one in tidy.clean({"cells": cells})["cells"]]
    assert ids == [f"{id_}-2", f"{id_}-3", id_, f"{id_}-4", "kept-as-it-is"]
    assert all(tidy.ID.fullmatch(one) for one in ids)


def test_what_a_cell_shows_and_holds_is_kept() -> None:
    held = {"a.png": {"image/png": "aGk="}}
    metadata = {"tags": ["hide-cell"], "mystnb": {"image": {"alt": "A finding"}}}
    cells = [
        {"cell_type": "markdown", "id": "a", "metadata": {}, "source": ["x"], "attachments": held},
        {"cell_type": "raw", "id": "b", "metadata": {}, "source": ["y"]},
        {"cell_type": "code", "id": "c", "metadata": metadata, "source": ["z"]},
    ]
    first, raw, code = tidy.clean({"cells": copy.deepcopy(cells)})["cells"]
    assert first["attachments"] == held
    assert raw == cells[1]
    assert {key: code["metadata"][key] for key in metadata} == metadata
    assert code["metadata"]["jupyter"] == {"source_hidden": True}


# ---- Equations ----

TEXT = """\
By [(7)](#eq-b), [()](#eq-a), [(3)](#eq-none) and [(9)](other.ipynb#eq-a).

<a id="eq-a"></a>

$$
x = 1
$$

Without an anchor $$y = 2 \\tag{9}$$ and without a number $$z$$.

<a id="eq-b"></a>

$$w = 4 \\tag{1}$$
"""
NUMBERED = """\
By [(3)](#eq-b), [(1)](#eq-a), [(3)](#eq-none) and [(2)](other.ipynb#eq-a).

<a id="eq-a"></a>

$$
x = 1
\\tag{1}
$$

Without an anchor $$y = 2 \\tag{2}$$ and without a number $$z$$.

<a id="eq-b"></a>

$$w = 4 \\tag{3}$$
"""


def notebook(text: str) -> dict[str, Any]:
    cell = {"cell_type": "markdown", "id": "a", "metadata": {}, "source": text}
    code = {
        "cell_type": "code",
        "id": "b",
        "metadata": {},
        "source": "'$$x \\tag{1}$$ [(1)](#eq-a)'",
    }
    return tidy.clean({"cells": [cell, code]})


def test_equations_are_numbered_in_order_and_what_refers_to_them_follows(book: Path) -> None:
    other = '$$a \\tag{5}$$\n\n<a id="eq-a"></a>\n\n$$b$$\n\nSee [(1)](chapter.ipynb#eq-b).'
    (book / "chapter.ipynb").write_text(tidy.dump(notebook(TEXT)))
    (book / "other.ipynb").write_text(tidy.dump(notebook(other)))
    (book / "page.md").write_text("By [(1)](other.ipynb#eq-a).\n")
    tidy.write(book)
    assert contents(book)["chapter.ipynb"] == tidy.dump(notebook(NUMBERED))
    assert "See [(3)](chapter.ipynb#eq-b)" in contents(book)["other.ipynb"]
    assert contents(book)["page.md"] == "By [(2)](other.ipynb#eq-a).\n"
    assert tidy.write(book) == []


def test_a_wrong_number_in_the_book_is_found(book: Path) -> None:
    (book / "key_value.ipynb").write_bytes((BOOK / "key_value.ipynb").read_bytes())
    assert tidy.write(book) == []
    text = contents(book)["key_value.ipynb"]
    for wrong in (
        text.replace("\\\\tag{2}", "\\\\tag{3}"),
        text.replace("[(2)](#eq-kv", "[(1)](#eq-kv"),
    ):
        assert wrong != text
        (book / "key_value.ipynb").write_text(wrong)
        assert tidy.write(book) == [book / "key_value.ipynb"]
        assert contents(book)["key_value.ipynb"] == text


def test_references_are_written_from_their_entries(book: Path) -> None:
    bib = book / "references.bib"
    bib.write_text(re.sub(r"year = \{1967\}", "year = {1968}", bib.read_text()))
    assert tidy.write(book) == [book / "references.md"]
    assert "1968" in contents(book)["references.md"]
