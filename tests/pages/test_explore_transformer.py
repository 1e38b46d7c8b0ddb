"""The chapter's Transformer in its page: read, cut, written over and taught, as a reader does."""

from __future__ import annotations

import json
import re
from typing import Any

import checks
import numpy as np
import pytest
import torch
from apart import ROOT, by_cache, by_hand, chapter, machine, source
from explorables import FRAME, Explorable, axe, close, every_look, malformed, opened, restored
from playwright.sync_api import Browser

WORDS = re.findall(r'listed = """(.*?)"""', source("words"), re.S)[0].split()
LOWER = [word.lower() for word in WORDS]
START = "Ada Bob Peru Lima Cleo Dora Emil Fay Ada Bob"
RULES = "window", "sinks", "heavy hitters", "looked at"
MOST, TRAINED = 24, 1e-3  # words that are read


def tokens_of(text: str) -> list[int]:
    """What of a text the machine reads."""
    said = re.findall(r"[^\s.,;:?!]+", text.lower())
    return [LOWER.index(word) for word in said if word in LOWER][:MOST]


@torch.no_grad()
def reference(state: dict[str, Any]) -> dict[str, Any]:
    """What memlib says to a state of the page."""
    model, teach = machine("rounded"), chapter()
    for country, capital in state["facts"]:
        model = teach(model, country, capital)
    aged, window = state["rule"] == "window", state["window"] if state["window"] < MOST else None
    cuts = {
        "without": state["off"],
        "window": window if aged else None,
        "forget": None if aged or not window else {"rule": state["rule"], "slots": window - 1},
        "dropped": state["dropped"],
        "edits": [
            {"position": place, "token": token, "layers": [n for n in (1, 2) if n & layers]}
            for place, token, layers in state["edits"]
        ],
    }
    tokens = tokens_of(state["text"])
    alone = [
        by_hand(model, [country], {"without": state["off"]})["logits"][0][0].argmax().item()
        for country in range(16)
    ]
    if not tokens:
        return {"tokens": tokens, "alone": alone}
    seen = by_cache(model, tokens, cuts) if cuts["forget"] else by_hand(model, tokens, cuts)
    asked = min(state["asked"], len(tokens) - 1) if state["asked"] >= 0 else len(tokens) - 1
    logits = seen["logits"][0][asked]
    activations = [layer[asked] for layer in seen.get("activations", ())]
    return {
        "tokens": tokens,
        "alone": alone,
        "asked": asked,
        "best": logits.argmax().item(),
        "logits": logits,
        "shares": logits.softmax(-1),
        "weights": torch.stack(seen["weights"])[:, :, asked, : asked + 1],
        **({"activations": torch.stack(activations)} if activations else {}),
    }


def compare(one: Explorable) -> dict[str, Any]:
    """What is shown is what memlib says."""
    ours, theirs = reference(one.state), one.seen
    for name, right in ours.items():
        close(right, theirs[name], TRAINED)
    if len(ours) > 2:
        shown = one.page.evaluate(CELLS)
        assert [row[:4] for row in shown] == [
            [f"{w:.2f}" if w >= 0.005 else "" for w in ours["weights"][:, :, n].flatten().tolist()]
            if n <= ours["asked"]
            else [""] * 4
            for n in range(len(ours["tokens"]))
        ]
        assert f" it says {WORDS[ours['best']]}," in one.said
        first = one.root.locator(".ml-bars .ml-label").first
        assert first.text_content() == WORDS[ours["best"]]
    return ours


CELLS = """() => [...document.querySelectorAll('.ml-slots tbody tr')]
    .filter(row => row.checkVisibility() && row.querySelector('input').checkVisibility())
    .map(row => [...row.querySelectorAll('td')].map(cell => cell.textContent))"""


def switch(one: Explorable, role: Any, name: str, *, by_key: bool) -> None:
    """Switches a box or a choice by mouse or by keys."""
    found = one.root.get_by_role(role, name=name, exact=True)
    if not by_key:
        found.click()
    else:
        found.focus()
        one.page.keyboard.press("Space")


def choose(one: Explorable, label: str, option: str, *, by_key: bool) -> None:
    """Chooses from a list, by its name or by typing the name."""
    found = one.root.get_by_label(label, exact=True)
    if by_key:
        found.focus()
        one.page.keyboard.type(option, delay=5)
        assert found.evaluate("list => list.selectedOptions[0].textContent") == option
    else:
        found.select_option(option)


def press(one: Explorable, name: str, *, by_key: bool) -> None:
    """Presses a button."""
    one.press(name) if by_key else one.button(name).click()


def use(one: Explorable, rng: np.random.Generator, *, by_key: bool) -> None:
    """Types a text, asks from another word, and takes everything away that can be taken."""
    typed = [WORDS[i] for i in rng.integers(0, 64, 6)]
    typed = [*typed, "walked", *typed[: int(rng.integers(2, 6))]]
    field = one.root.get_by_label("Your text", exact=True)
    field.fill("")
    assert "of nothing it says nothing" in one.said
    compare(one)
    field.press_sequentially(" ".join(typed)) if by_key else field.fill(" ".join(typed).lower())
    known = len(typed) - 1
    assert one.root.locator(".ml-unknown:visible").all_text_contents() == ["walked"]
    compare(one)

    choose(one, "One that it knows", WORDS[next_ := int(rng.integers(64))], by_key=by_key)
    press(one, "Add it", by_key=by_key)
    assert compare(one)["tokens"][-1] == next_
    press(one, "Add what it says", by_key=by_key)
    compare(one)

    asked = int(rng.integers(4, known))
    if by_key:  # the words are one stop of the tab key; arrows lead from each to the next
        one.root.locator(".ml-slots input[type=radio]:checked").focus()
        for _ in range(known + 1 - asked):
            one.page.keyboard.press("ArrowUp")
    else:
        one.root.locator(".ml-slots input[type=radio]").nth(asked + (asked >= 6)).click()
    assert compare(one)["asked"] == asked

    for _ in range(2):
        parts = one.root.locator("[data-part]")
        part = parts.nth(int(rng.integers(6)))
        if by_key:
            part.focus()
            one.page.keyboard.press("Space")
        else:
            part.click()
        compare(one)
    for slot in rng.choice(known, 2, replace=False):
        switch(one, "checkbox", f"slot {slot} is kept", by_key=by_key)
        compare(one)
    if by_key:
        one.slide("slots that a query reads", -int(rng.integers(16, 23)))
    else:
        one.put("slots that a query reads", int(rng.integers(2, 9)))
    compare(one)

    for rule in rng.permutation(RULES):
        one.root.locator(".ml-choose").get_by_role("radio", name=rule, exact=True).check()
        compare(one)

    slot = int(rng.integers(asked))
    name = f"{slot} {WORDS[one.seen['tokens'][slot]]}"
    choose(one, "Slot", name, by_key=by_key)
    choose(one, "gets the value of", WORDS[int(rng.integers(64))], by_key=by_key)
    layer = ["layer 1", "layer 2", "both"][rng.integers(3)]
    one.root.locator(".ml-choose").get_by_role("radio", name=layer, exact=True).check()
    press(one, "Write into the slot", by_key=by_key)
    compare(one)
    country, capital = (int(i) for i in rng.choice(16, 2, replace=False))
    choose(one, "The capital of", WORDS[country], by_key=by_key)
    choose(one, "is", WORDS[48 + capital], by_key=by_key)
    press(one, "Write the fact", by_key=by_key)
    assert one.state["facts"] == [[country, 48 + capital]]
    compare(one)


@every_look
def test_everything_can_be_taken_away(
    browser: Browser, book: str, rng: np.random.Generator, size: str, scheme: str
) -> None:
    with opened(browser, book, "transformer", size, scheme) as one:
        assert one.state["text"] == START
        compare(one)
        axe(one)
        use(one, rng, by_key=size == "wide")
        one.root.locator("summary").click()
        axe(one)
        restored(browser, one)
        if size == "wide":
            malformed(browser, one)
        press(one, "Undo slots", by_key=size == "wide")
        press(one, "Undo facts", by_key=size == "wide")
        compare(one)
        one.button("Reset").click()
        compare(one)


def test_by_touch(browser: Browser, book: str) -> None:
    context = browser.new_context(has_touch=True, viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.goto(f"{book}/book/transformer.html")
    page.locator(".ml-explore").scroll_into_view_if_needed()
    page.wait_for_selector(".ml-explore.ml-live")
    one = Explorable(checks.Visit(page, book), book, "transformer")
    one.root.locator(".ml-slots").get_by_text("8 Ada", exact=True).tap()
    assert compare(one)["asked"] == 8
    for part in ("head 2 of 1", "feed-forward of 2"):
        one.root.locator(f"[data-part='{part}']").tap()
        compare(one)
    one.root.get_by_role("checkbox", name="slot 1 is kept", exact=True).tap()
    compare(one)
    slider = one.root.get_by_role("slider", name="slots that a query reads", exact=True)
    slider.tap(position={"x": 60, "y": 10})
    assert 1 < one.state["window"] < MOST
    for name in ("Write into the slot", "Write the fact", "Add it", "Add what it says"):
        one.button(name).tap()
        compare(one)
    assert one.state["edits"]
    assert one.state["facts"]
    assert len(one.seen["tokens"]) == 12
    context.close()


def test_what_it_knows_is_said_before_the_first_word(browser: Browser, book: str) -> None:
    with opened(browser, book, "transformer") as one:
        above = one.root.locator(".ml-lab").inner_text().split("Your text")[0]
        assert "64 words: 16 countries, their capitals and 32 names" in above
        one.root.locator("summary").press("Enter")
        listed = one.root.locator("details").inner_text()
        assert set(WORDS) <= set(re.findall(r"\w+", listed))


def test_it_goes_on_by_itself_up_to_as_much_as_it_reads(browser: Browser, book: str) -> None:
    with opened(browser, book, "transformer", query="?text=Ada+Bob+Peru+Lima+Ada") as one:
        add = one.button("Add what it says")
        while not add.is_disabled():
            said = compare(one)["best"]
            add.click()
            assert one.seen["tokens"][-1] == said
        assert len(one.seen["tokens"]) == MOST
        one.root.get_by_label("Your text", exact=True).press("End")
        one.page.keyboard.type(" Zoe")
        assert one.root.get_by_text("too late to be read").filter(visible=True).count() == 1


def answer(one: Explorable) -> str:
    """What comes next."""
    return WORDS[compare(one)["best"]]


def test_what_it_asks_to_try_comes_out_as_a_surprise(browser: Browser, book: str) -> None:
    with opened(browser, book, "transformer") as one:
        shows = one.button("Show me")
        assert answer(one) == "Peru"
        shows.nth(0).click()
        assert answer(one) == "Peru"
        switch(one, "checkbox", "slot 3 is kept", by_key=False)
        assert answer(one) == "Emil"
        shows.nth(1).click()
        assert answer(one) == "Norway"
        one.button("Undo slots").click()
        assert answer(one) == "Cleo"
        one.button("Write into the slot").click()
        assert one.state["edits"] == [[2, WORDS.index("Oslo"), 1]]
        assert answer(one) == "Cleo"
        shows.nth(2).click()
        assert answer(one) == "Stockholm"
        moved = [WORDS[c] for c, said in enumerate(one.seen["alone"]) if said == 62 and c != 14]
        assert len(moved) == 11
        assert "6 of 16" in one.said


def test_the_quiz_on_the_smallest_window(browser: Browser, book: str) -> None:
    quiz = json.loads((ROOT / "book/quizzes/transformer.json").read_text(encoding="utf-8"))
    (question,) = (item for item in quiz if item["id"] == "apart")
    (right,) = (a["value"] for a in question["answers"] if a["correct"])
    with opened(browser, book, "transformer") as one:
        found = {}
        for window in range(MOST, 0, -1):
            one.put("slots that a query reads", window)
            found[window] = answer(one)
    assert min(window for window, said in found.items() if said == "Peru") == right
    assert all(found[window] == "Peru" for window in range(right, MOST + 1))
    assert found[6] == "Cleo"


def test_the_quiz_on_the_rules(browser: Browser, book: str) -> None:
    quiz = json.loads((ROOT / "book/quizzes/transformer.json").read_text(encoding="utf-8"))
    (question,) = (item for item in quiz if item["id"] == "chosen")
    with opened(browser, book, "transformer", query="?window=6") as one:
        for option in question["answers"]:
            rule = one.root.locator(".ml-choose").get_by_role("radio", name=option["answer"])
            rule.check()
            assert (answer(one) == "Peru") == option["correct"]
        one.put("slots that a query reads", 7)
        assert one.state["rule"] == "looked at"
        assert answer(one) == "Emil"


PLANTED = {  # what is done behind the reader's back
    "a head is heard": "e.draw({...e.state, off: []})",
    "another window": "e.draw({...e.state, window: 5})",
    "another rule": "e.draw({...e.state, rule: 'sinks'})",
    "a slot is kept": "e.draw({...e.state, dropped: []})",
    "the other layer": "e.draw({...e.state, edits: [[2, 51, 1]]})",
    "no fact": "e.draw({...e.state, facts: []})",
    "a wrong number": "e.seen.logits[0] += 0.1",
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_fault_is_found(browser: Browser, book: str, fault: str) -> None:
    state = "?off=head+2+of+2&window=8&dropped=1&edits=2.51.2&facts=6.62"
    with opened(browser, book, "transformer", query=state) as one:
        compare(one)
        one.page.evaluate(f"{{ const e = {FRAME}; {PLANTED[fault]} }}")
        with pytest.raises(AssertionError):
            compare(one)
