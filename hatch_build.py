"""What the wheel holds besides memlib: quizzes and records, for notebooks taken alone."""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FILES = {"results": "memlib/teaching/data/results", "book/quizzes": "memlib/teaching/data/quizzes"}


class Files(BuildHookInterface):  # type: ignore[type-arg]
    """Adds them to a wheel, but not to an editable install, which has them in its repository."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Is called by hatchling before it builds."""
        if version == "standard":
            build_data["force_include"].update(FILES)
