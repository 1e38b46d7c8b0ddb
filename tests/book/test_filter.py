"""The record behind the filter of memories: the same systems and facts as on the map."""

import json
import re
from pathlib import Path

BOOK = Path(__file__).parents[2] / "book"
FILTER = json.loads((BOOK.parent / "results/published_memories.json").read_text("utf-8"))


def test_the_filter_has_every_system_of_the_map_with_its_page_and_no_other():
    text = (BOOK / "map.md").read_text("utf-8")
    table = text[text.index("## The systems") : text.index("## Same formula")]
    rows = dict(re.findall(r"^\* - \[([^\]]+)\]\((\w+)\.ipynb\)", table, flags=re.M))
    assert {m["name"]: m["page"] for m in FILTER["memories"]} == rows


def test_the_filter_agrees_with_the_record_of_what_was_published():
    """A system that the map has under another name says so; then the year is that of the first."""
    record = json.loads((BOOK.parent / "results/published_models.json").read_text("utf-8"))
    ours = {m["name"]: m for m in FILTER["memories"]}
    for system in record["systems"]:
        memory = ours[system.get("map", system["name"])]
        assert memory["writes"] == system["writes"], system["name"]
        if "map" not in system:
            assert memory["year"] == system["year"], system["name"]
    assert {k: FILTER["facets"]["writes"][k] for k in record["writes"]} == record["writes"]


def test_the_filter_knows_each_answer_and_stands_in_order():
    for memory in FILTER["memories"]:
        for name, answers in FILTER["facets"].items():
            assert memory[name] in answers
            assert FILTER["short"][name].keys() == answers.keys()
    years = [m["year"] or 0 for m in FILTER["memories"]]
    assert years == sorted(years)
