"""What the experiments' command lines have in common."""

import argparse
import ast
from dataclasses import fields
from pathlib import Path
from typing import Any

from experiments import records

UNFINISHED = records.ROOT / ".build" / "experiments"


def add_running(parser: argparse.ArgumentParser) -> None:
    """Add how to run, whatever is run."""
    add = parser.add_argument
    add("--fresh", action="store_true", help="start anew, whatever was saved")
    add("--threads", type=int, default=1)
    add("--unfinished", type=Path, default=UNFINISHED, help="folder of the checkpoints")


def add_results(parser: argparse.ArgumentParser) -> None:
    """Add where the records go that keep many runs in a file."""
    parser.add_argument("--results", type=Path, default=records.RESULTS, help="of the records")


def add_changes(parser: argparse.ArgumentParser, recipe: type) -> None:
    """Add ``--set NAME=VALUE``, again and again: pairs of a field of a recipe and its new value."""
    kinds = {field.name: field.type for field in fields(recipe)}

    def change(text: str) -> tuple[str, Any]:
        name, _, value = text.partition("=")
        if name not in kinds:
            rule = f"NAME must be one of {', '.join(kinds)}; got {name!r}"
            raise argparse.ArgumentTypeError(rule)
        try:
            return name, value if kinds[name] is str else ast.literal_eval(value)
        except (SyntaxError, ValueError):
            rule = f"VALUE must be a Python literal; got {value}"
            raise argparse.ArgumentTypeError(rule) from None

    parser.add_argument(
        "--set", type=change, action="append", default=[], metavar="NAME=VALUE",
        help="change the recipe: " + ", ".join(kinds),
    )  # fmt: skip
