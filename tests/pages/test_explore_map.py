"""The filter of memories on both of its pages, with answers ticked at random."""

from __future__ import annotations

import json

import numpy as np
import pytest
from explorables import FRAME, Explorable, axe, every_look, malformed, opened, restored
from playwright.sync_api import Browser

from memlib import teaching

RECORD = json.loads(teaching.find("results/published_memories.json").read_text("utf-8"))
FACETS = RECORD["facets"]


def fits(memory: dict[str, str], ticked: dict[str, set[str]], without: str = "") -> bool:
    return all(
        name == without or not ticked[name] or memory[name] in ticked[name] for name in FACETS
    )


def compare(one: Explorable, ticked: dict[str, set[str]]) -> None:
    """The list and every count are what the record says."""
    found = [m["name"] for m in RECORD["memories"] if fits(m, ticked)]
    assert one.seen["found"] == found
    rows = one.root.locator(".ml-list li")
    names = [row.locator("a").inner_text() for row in rows.all() if row.is_visible()]
    assert names == found
    counts = [
        [sum(fits(m, ticked, name) and m[name] == a for m in RECORD["memories"]) for a in answers]
        for name, answers in FACETS.items()
    ]
    assert one.seen["counts"] == counts
    shown = one.root.locator(".ml-facet .ml-number").all_inner_texts()
    assert shown == [f"({count})" for line in counts for count in line]
    assert str(len(found)) in one.said or "No memory" in one.said


@pytest.mark.parametrize("page", ["map", "models"])
@every_look
def test_any_answers_can_be_ticked(
    browser: Browser, book: str, rng: np.random.Generator, page: str, size: str, scheme: str
) -> None:
    ticked: dict[str, set[str]] = {name: set() for name in FACETS}
    with opened(browser, book, page, size, scheme) as one:
        compare(one, ticked)
        axe(one)
        boxes = one.root.locator("input[type=checkbox]")
        order = [(name, answer) for name, answers in FACETS.items() for answer in answers]
        for index in rng.choice(len(order), 8):
            name, answer = order[index]
            if rng.random() < 0.5:
                boxes.nth(int(index)).focus()
                one.page.keyboard.press("Space")
            else:
                boxes.nth(int(index)).click()
            ticked[name] ^= {answer}
            compare(one, ticked)
        axe(one)
        restored(browser, one)
        if size == "wide":
            malformed(browser, one)


def test_its_three_surprises(browser: Browser, book: str) -> None:
    with opened(browser, book, "map") as one:
        shows = one.button("Show me")
        shows.nth(0).click()
        by_name = {m["name"]: m for m in RECORD["memories"]}
        writes = {by_name[name]["writes"] for name in one.seen["found"] if by_name[name]["year"]}
        assert writes == {"network"}
        shows.nth(1).click()
        assert [by_name[name]["year"] for name in one.seen["found"]] == [2016]
        shows.nth(2).click()
        assert one.seen["found"] == []
        assert "No memory" in one.said


def test_every_link_leads_to_a_page(browser: Browser, book: str) -> None:
    with opened(browser, book, "map") as one:
        links = one.root.locator(".ml-list a").evaluate_all("all => all.map(a => a.href)")
        assert len(links) == len(RECORD["memories"])
        assert {one.page.request.get(link).status for link in set(links)} == {200}


def test_a_wrong_count_is_found(browser: Browser, book: str) -> None:
    with opened(browser, book, "map") as one:
        one.page.evaluate(f"{FRAME}.seen.counts[0][0] += 1")
        with pytest.raises(AssertionError):
            compare(one, {name: set() for name in FACETS})
