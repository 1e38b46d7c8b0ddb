"""Find the book's files from wherever a notebook runs, and what the chapters import."""

import os
import re
from importlib.metadata import PackageNotFoundError, requires
from importlib.util import find_spec
from pathlib import Path

from memlib.teaching.style import style

OWN = Path(__file__).with_name("data")  # in an installed package: results and quizzes of the book
CHECKOUT = Path(__file__).parents[2]  # in an editable install: the book's repository
MODULES = {"faiss-cpu": "faiss", "scikit-learn": "sklearn"}  # where they differ from the package


def ready() -> None:
    """Check that what the chapters import is installed, and set the look of their figures.

    Raises:
        ImportError: Something is missing; the message names it and says how to install it.
    """
    if missing := [f"'{need}'" for need in _needs() if find_spec(_module(need)) is None]:
        raise ImportError(
            "memlib is installed, but not all that the chapters import: "
            f"run `pip install {' '.join(missing)}`"
        )
    style()


def _needs() -> list[str]:
    """What the extra `notebooks` asks for, as the installed package says it."""
    try:
        lines = requires("memlib") or []
    except PackageNotFoundError:  # run from its folder, not installed: nothing is known
        return []
    return [line.split(";")[0].strip() for line in lines if re.search(r"extra == .notebooks", line)]


def _module(need: str) -> str:
    """The module by which a requirement is known to be there."""
    name = re.match(r"[\w.-]+", need)
    return MODULES.get(name[0], name[0]) if name else need


def find(name: str) -> Path:
    """Return the path of a file or folder of the book.

    Looks in the folder `MEMLIB_BOOK` names (if it is set), in the working folder and each folder
    above it, in the repository that memlib runs from, and in the package's own copies of
    `results/` and `quizzes/`; in each, for `name` itself and for `book/name`.

    Args:
        name: A relative path, such as `results/digits.json` or `quizzes/key_value.json`.

    Returns:
        The first path that exists.

    Raises:
        ValueError: `name` is empty or absolute.
        FileNotFoundError: There is no such file; the message lists where it was looked for.
    """
    if not name or Path(name).is_absolute():
        raise ValueError(f"name must be a relative path; got {name!r}")
    folders = _folders()
    for folder in folders:
        for path in (folder / name, folder / "book" / name):
            if path.exists():
                return path
    looked = ", ".join(str(folder) for folder in folders)
    raise FileNotFoundError(
        f"no {name!r} (nor 'book/{name}') in: {looked}. "
        "Run the notebook inside the book's repository, or set MEMLIB_BOOK to its folder."
    )


def _folders() -> list[Path]:
    """Where the book's files may lie, the nearest first."""
    here = Path.cwd()
    named = os.environ.get("MEMLIB_BOOK")
    checkout = [CHECKOUT] if (CHECKOUT / "_toc.yml").exists() else []
    return [*([Path(named)] if named else []), here, *here.parents, *checkout, OWN]
