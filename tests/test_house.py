"""The house: a room for each chapter, each importing only from those before it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MEMLIB = ROOT / "memlib"
GROUND = ["_checks", "_device", "_files"]
ROOMS = ["attention", "key_value", "content", "addressable", "recurrent", "ntm", "memn2n"]
ROOMS += ["transformer", "fast_weights", "dnc", "store"]  # in reading order
BESIDE = ["integrations", "tasks", "teaching"]  # imported by no room
SHORT = "programs"  # memlib.addressable.programs, under its short name


def modules(folder: Path = MEMLIB) -> dict[str, Path]:
    """All modules by their dotted name; a package by its own."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        name = ".".join(("memlib", *parts)).removesuffix(".__init__")
        found[name] = path
    return found


def imports(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules of memlib that a file names in its imports, wherever these stand."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports are absolute"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                name = inner if inner in known else node.module or ""
                if name.split(".")[0] == "memlib":
                    yield name
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] == "memlib")


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def upward(folder: Path = MEMLIB) -> list[str]:
    """Imports of a room from one that comes after it, or from beside the rooms."""
    known = modules(folder)
    order = [*GROUND, *ROOMS]
    faults = []
    for module, path in known.items():
        if room(module) not in order:
            continue
        for name in imports(path, known):
            here, there = room(module), room(name)
            if there not in order or order.index(there) > order.index(here):
                faults.append(f"{module} imports {name}")
    return faults


def circle(folder: Path = MEMLIB) -> list[str]:
    """Modules that import one another, the first circle that is found; packages aside."""
    known = modules(folder)
    plain = {name: path for name, path in known.items() if path.name != "__init__.py"}
    needs = {name: {n for n in imports(path, known) if n in plain} for name, path in plain.items()}
    done: set[str] = set()

    def walk(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return []
        found = next(filter(None, (walk(n, [*way, name]) for n in sorted(needs[name]))), [])
        done.add(name)
        return found

    return next(filter(None, (walk(name, []) for name in sorted(needs))), [])


def test_every_module_has_its_room() -> None:
    top = {path.stem for path in MEMLIB.iterdir() if path.suffix == ".py"} - {"__init__"}
    top |= {path.parent.name for path in MEMLIB.glob("*/__init__.py")}
    assert top == {*GROUND, *ROOMS, *BESIDE, SHORT}


def test_reading_order_is_import_order() -> None:
    assert upward() == []


def test_no_circle() -> None:
    assert circle() == []


def test_the_modules_of_a_room_name_modules_and_not_rooms() -> None:
    """From a room itself only its users import, so its `__init__` may come last."""
    known = modules()
    inside = {name: path for name, path in known.items() if room(name) in ROOMS}
    found = [
        f"{module} imports {name}"
        for module, path in inside.items()
        for name in imports(path, known)
        if path.name != "__init__.py" and name != "memlib" and known[name].name == "__init__.py"
    ]
    assert found == []


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A small house that is in order."""
    (tmp_path / "store").mkdir()
    for name in (*GROUND, *ROOMS[:-1]):
        (tmp_path / f"{name}.py").write_text("")
    (tmp_path / "store/__init__.py").write_text("")
    (tmp_path / "store/files.py").write_text("from memlib import _checks as checks\n")
    (tmp_path / "store/store.py").write_text("from memlib.store import files\n")
    return tmp_path


def test_a_planted_fault_is_found(house: Path) -> None:
    assert upward(house) == []
    assert circle(house) == []
    (house / "ntm.py").write_text("def f():\n    from memlib.store.files import x\n")
    assert upward(house) == ["memlib.ntm imports memlib.store.files"]
    (house / "store/files.py").write_text("import memlib.store.store\n")
    assert circle(house) == ["memlib.store.files", "memlib.store.store", "memlib.store.files"]
    (house / "content.py").write_text("from memlib import tasks\n")
    assert "memlib.content imports memlib" in upward(house)


def test_readme_lists_the_rooms_in_reading_order() -> None:
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("| chapter |")[2]
    named = re.findall(r"`(\w+)/?`", "\n".join(re.findall(r"^\|[^|]*\|([^|]*)\|", table, re.M)))
    assert named == ROOMS


def test_tests_mirror_the_house() -> None:
    for name in (*ROOMS, *BESIDE):
        tests = ROOT / "tests"
        assert list(tests.glob(f"test_{name}.py")) or list((tests / name).glob("test_*.py")), name
