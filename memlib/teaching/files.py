"""Find the book's files from wherever a notebook runs."""

import os
from pathlib import Path


def find(name: str) -> Path:
    """Return the path of a file or folder of the book.

    Looks in the folder `MEMLIB_BOOK` names (if it is set), then in the working folder and in each
    folder above it; in each, for `name` itself and for `book/name`.

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
    here = Path.cwd()
    folders = [here, *here.parents]
    if os.environ.get("MEMLIB_BOOK"):
        folders.insert(0, Path(os.environ["MEMLIB_BOOK"]))
    for folder in folders:
        for path in (folder / name, folder / "book" / name):
            if path.exists():
                return path
    looked = ", ".join(str(folder) for folder in folders)
    raise FileNotFoundError(
        f"no {name!r} (nor 'book/{name}') in: {looked}. "
        "Run the notebook inside the book's repository, or set MEMLIB_BOOK to its folder."
    )
