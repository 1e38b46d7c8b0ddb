"""Writes the repository's address to every place that shows it: `make address URL=https://...`.

Without an argument the address in pyproject.toml (`project.urls`) is written onwards. While it is
empty the book has no launch, repository or issue button.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import setup_cell

ROOT = setup_cell.ROOT
FORM = re.compile(r"https://[\w.-]+/[\w.-]+/[\w.-]+")


def _set(path: Path, *changes: tuple[str, str]) -> None:
    """Replaces one line each, found by its pattern, in a text file."""
    text = path.read_text()
    for pattern, line in changes:
        text, count = re.subn(pattern, line.replace("\\", r"\\"), text, count=1, flags=re.M)
        if not count:
            raise ValueError(f"{path.name} must hold a line like {pattern}")
    path.write_text(text)


def write(url: str, root: Path = ROOT) -> None:
    """Writes the address (or its absence) to pyproject, configuration, citation and notebooks."""
    if url and not FORM.fullmatch(url):
        raise ValueError(f"the address must look like https://HOST/OWNER/NAME; got {url!r}")
    github = url.startswith("https://github.com/")
    shown = str(bool(url)).lower()
    line = f'Repository = "{url}"\n' if url else ""
    _set(
        root / "pyproject.toml",
        (r'^\[project\.urls\]\n(Repository = ".*"\n)?', f"[project.urls]\n{line}"),
    )
    _set(
        root / "_config.yml",
        (r"^  url: .*$", f'  url: "{url}"'),
        (r"^  binderhub_url: .*$", f'  binderhub_url: "{"https://mybinder.org" * github}"'),
        (r"^  colab_url: .*$", f'  colab_url: "{"https://colab.research.google.com" * github}"'),
        (r"^  use_repository_button: .*$", f"  use_repository_button: {shown}"),
        (r"^  use_issues_button: .*$", f"  use_issues_button: {shown}"),
        (r"^  use_edit_page_button: .*$", f"  use_edit_page_button: {shown}"),
    )
    line = f'repository-code: "{url}"\n' if url else ""
    _set(
        root / "CITATION.cff",
        (r'^type: software\n(repository-code: ".*"\n)?', f"type: software\n{line}"),
    )
    setup_cell.write(root)


if __name__ == "__main__":
    address = sys.argv[1].rstrip("/") if len(sys.argv) > 1 else setup_cell.repository()
    write(address)
    print(f"the repository's address is {address or 'empty: no button is drawn'}")
