"""The notebooks as they are stored: clean, stable, complete, and in the order of the template."""

from __future__ import annotations

import ast
import copy
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import folds
import pytest
import setup_cell

BOOK = setup_cell.ROOT / "book"
NOTEBOOKS = setup_cell.stored()
NAMES = [path.relative_to(BOOK).with_suffix("").as_posix() for path in NOTEBOOKS]
TEMPLATE = [
    *("Goals", "A first look", "Predict before you run", "The idea in words", "The equations"),
    *("From scratch in NumPy", "The same in memlib", "An experiment", "Watching the memory"),
    *("What it cannot do", "Its row in the map", "Summary", "Test yourself", "Exercises"),
    "Further reading",
]
CHAPTERS = ["key_value", "content", "addressable", "ntm", "memn2n", "transformer"]
CHAPTERS += ["fast_weights", "dnc", "models", "store"]
MEND = "run `make tidy`"  # tests/book/test_tidy.py compares the whole form
SHOWS = {  # what shows a picture, and its arguments in order
    "teaching.show": ("fig", "alt", "name"),
    "teaching.animate": ("draw", "frames", "alt", "name"),
    "teaching.explore": ("name", "fig", "alt"),
}


def load(name: str) -> dict[str, Any]:
    return json.loads((BOOK / f"{name}.ipynb").read_text(encoding="utf-8"))


def sources(name: str, kind: str) -> list[str]:
    return ["".join(c["source"]) for c in load(name)["cells"] if c["cell_type"] == kind]


def calls(name: str) -> list[ast.Call]:
    """All calls in the code cells of a notebook."""
    trees = [ast.parse(source) for source in sources(name, "code")]
    return [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]


def faults(cell: dict[str, Any]) -> str:
    """What is wrong with the metadata of a cell: its tags, and the folds that they ask for."""
    metadata = {key: value for key, value in cell["metadata"].items() if key != "tags"}
    if metadata != folds.folds(cell):
        return f"{cell['id']}: {metadata}, where its tags ask for {folds.folds(cell)}"
    whole = "hide-cell" in cell["metadata"].get("tags", ())
    return "" if not whole or cell["id"].endswith("-solution") else f"{cell['id']}: no solution"


def called(call: ast.Call) -> str:
    return ast.unparse(call.func)


def pictures(name: str) -> list[dict[str | None, ast.expr]]:
    """The arguments, by name, of each call that shows a picture."""
    return [
        dict(zip(SHOWS[called(call)], call.args, strict=False))
        | {keyword.arg: keyword.value for keyword in call.keywords}
        for call in calls(name)
        if called(call) in SHOWS
    ]


def test_there_are_notebooks() -> None:
    assert set(CHAPTERS) | {"intro", "test_your_understanding"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
class TestStored:
    def test_without_results(self, name: str) -> None:
        for cell in load(name)["cells"]:
            if cell["cell_type"] == "code":
                assert cell["outputs"] == [], f"{cell['id']}: {MEND}"
                assert cell["execution_count"] is None, f"{cell['id']}: {MEND}"

    def test_folded_alike_on_pages_in_jupyter_and_in_colab(self, name: str) -> None:
        """Tags and folds, and nothing else; what is hidden whole is labelled as a solution."""
        assert [fault for cell in load(name)["cells"] if (fault := faults(cell))] == [], MEND
        words = re.findall(r"<summary>(.*?)</summary>", "\n".join(sources(name, "markdown")))
        assert set(words) <= {"Answer", "Solution"}

    def test_ids_are_words_and_unique(self, name: str) -> None:
        ids = [cell["id"] for cell in load(name)["cells"]]
        assert [i for i, count in Counter(ids).items() if count > 1] == [], MEND
        assert [i for i in ids if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", i)] == [], MEND
        assert [i for i in ids if re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f-]+)?", i)] == [], MEND

    def test_kernel(self, name: str) -> None:
        notebook = load(name)
        assert notebook["metadata"]["kernelspec"]["name"] == "python3", MEND
        assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5), MEND

    def test_set_up_cell_comes_first(self, name: str) -> None:
        first = next(c for c in load(name)["cells"] if c["cell_type"] == "code")
        assert first == setup_cell.cell(), "run `make address` to write it again"
        assert first["metadata"]["tags"] == ["remove-cell"], "it is seen on the page"

    def test_title_is_the_only_one(self, name: str) -> None:
        cells = load(name)["cells"]
        assert "".join(cells[0]["source"]).startswith("# ")
        titles = [
            t for t in sources(name, "markdown") for line in t.splitlines() if line[:2] == "# "
        ]
        assert len(titles) == 1

    def test_no_path_of_a_machine(self, name: str) -> None:
        text = (BOOK / f"{name}.ipynb").read_text(encoding="utf-8")
        assert not re.search(r"/(home|root|tmp|work|Users)/|[A-Z]:\\\\", text)

    def test_code_that_is_seen_fits_a_screen(self, name: str) -> None:
        code = [c for c in load(name)["cells"] if c["cell_type"] == "code" and not folds.folds(c)]
        assert [c["id"] for c in code if len(c["source"]) > 45] == []

    def test_every_picture_says_its_finding(self, name: str) -> None:
        assert not [call for call in calls(name) if called(call).endswith("plt.show")]
        for words in pictures(name):
            assert {"alt", "name"} <= set(words)
            finding = ast.unparse(words["alt"])  # a bare name is judged when it is shown
            assert isinstance(words["alt"], ast.Name) or len(finding.split()) >= 6, finding

    def test_seeded_once_and_before_the_first_draw(self, name: str) -> None:
        """torch by one literal seed; NumPy by generators alone."""
        cells = sources(name, "code")
        seeded = [
            i for i, cell in enumerate(cells) if re.search(r"torch\.manual_seed\(\d+\)", cell)
        ]
        drawn = [i for i, cell in enumerate(cells) if re.search(r"torch\.rand|\.bernoulli\(", cell)]
        bare = [cell for cell in cells if "torch.rand" in cell and "generator=" not in cell]
        assert len(seeded) <= 1
        assert not bare or (seeded and seeded[0] <= drawn[0]), bare[:1]
        loose = [c for c in cells if re.search(r"np\.random\.(?!default_rng|Generator)\w+", c)]
        assert not loose, "use np.random.default_rng"


CODE: dict[str, Any] = {"cell_type": "code", "id": "a-solution"}
FOLD: dict[str, Any] = {"cellView": "form", "jupyter": {"source_hidden": True}}


@pytest.mark.parametrize(
    "metadata",
    [
        {"tags": ["hide-cell"]},
        {"tags": ["remove-input"], "jupyter": {"source_hidden": True}},
        {"tags": ["hide-input"], "cellView": "form"},
        {"tags": ["hide-output"], **FOLD},
        {**FOLD},
        {"collapsed": True},
    ],
)
def test_a_missing_or_a_needless_fold_is_found_and_mended(metadata: dict[str, Any]) -> None:
    cell = {**CODE, "metadata": copy.deepcopy(metadata)}
    assert faults(cell)
    cell["metadata"].pop("collapsed", None)  # what is not a fold is left for others to judge
    folds.fold({"cells": [cell]})
    assert not faults(cell)
    assert cell["metadata"].get("tags") == metadata.get("tags")


def test_a_hidden_cell_that_is_no_solution_is_found() -> None:
    cell = {**CODE, "id": "drawing", "metadata": {"tags": ["hide-cell"], **FOLD}}
    assert "no solution" in faults(cell)


def test_the_introduction_begins_with_its_picture() -> None:
    title, setup, picture, *_ = load("intro")["cells"]
    assert len(title["source"]) == 1
    assert setup["id"] == "setup"
    assert "teaching.explore(" in "".join(picture["source"])


@pytest.mark.parametrize("name", CHAPTERS)
class TestChapter:
    def test_headings(self, name: str) -> None:
        text = "\n".join(sources(name, "markdown"))
        assert re.findall(r"^## (.+)$", text, flags=re.M) == TEMPLATE

    def test_at_least_eight_asserts(self, name: str) -> None:
        trees = [ast.parse(source) for source in sources(name, "code")]
        count = sum(isinstance(n, ast.Assert) for tree in trees for n in ast.walk(tree))
        assert count >= 8

    def test_one_quiz_of_at_least_five(self, name: str) -> None:
        shown = [ast.literal_eval(c.args[0]) for c in calls(name) if called(c) == "teaching.quiz"]
        assert shown == [name]
        assert len(json.loads((BOOK / f"quizzes/{name}.json").read_text())) >= 5

    def test_at_least_five_exercises_each_with_its_solution(self, name: str) -> None:
        checked, exercise = 0, ""
        cells = iter(load(name)["cells"])
        parts: dict[str, str] = {}
        for cell in cells:
            source = "".join(cell["source"])
            if headings := re.findall(r"^##+ (.+)$", source, flags=re.M):
                exercise = headings[-1] if headings[-1].startswith("Exercise ") else ""
            if exercise:
                folded = "hide-cell" in cell["metadata"].get("tags", ())
                mark = "[solution]" if folded or "<details>" in source else ""
                parts[exercise] = parts.get(exercise, "") + mark + source
                checked += not mark and f"ex.{name}." in source
        assert checked >= 5
        assert [title for title, text in parts.items() if "[solution]" not in text] == []
        assert [title for title in parts if not re.search(r"★.*\b\d+ minutes\)$", title)] == []
        assert [int(title.split()[1]) for title in parts] == list(range(1, len(parts) + 1))

    def test_checkers_are_called(self, name: str) -> None:
        from memlib.teaching import exercises

        used = {c for call in calls(name) if (c := called(call)).startswith(f"ex.{name}.")}
        public = getattr(exercises, name)
        assert used, "no checker is called"
        assert all(hasattr(public, function.rpartition(".")[2]) for function in used)

    def test_scratch_cells_are_short(self, name: str) -> None:
        """At most 15 lines a cell between "From scratch" and "The same in memlib"."""
        part = ""
        for cell in load(name)["cells"]:
            source = "".join(cell["source"])
            if heading := re.match(r"## (.+)", source):
                part = heading[1]
            if part == "From scratch in NumPy" and cell["cell_type"] == "code":
                assert len([line for line in source.splitlines() if line.strip()]) <= 15, cell["id"]


@pytest.mark.parametrize("path", sorted((BOOK / "quizzes").glob("*.json")), ids=lambda p: p.stem)
def test_quiz(path: Path) -> None:
    from memlib.teaching.quiz import load as load_quiz

    items = load_quiz(path)  # raises where the schema is broken
    for item in items:
        feedback = [answer["feedback"] for answer in item["answers"]]
        assert len(set(feedback)) == len(feedback), f"{item['id']}: one feedback for two answers"
        assert all(len(text.split()) >= 3 for text in feedback), item["id"]
        if "chapter" in item:
            page = item["chapter"]["href"].partition("#")[0]
            assert (BOOK / page).is_file(), (
                page
            )  # JupyterLab finds no heading by a name in lower case


def test_understanding_asks_the_eight_questions() -> None:
    items = json.loads((BOOK / "quizzes/test_your_understanding.json").read_text())
    assert len(items) == 8
    assert all("chapter" in item for item in items)


def test_names_of_pictures_are_unique_in_the_book() -> None:
    names = Counter(
        words["name"].value
        for name in NAMES
        for words in pictures(name)
        if isinstance(words["name"], ast.Constant)
    )
    assert len(names) >= 10
    assert [name for name, count in names.items() if count > 1] == []
