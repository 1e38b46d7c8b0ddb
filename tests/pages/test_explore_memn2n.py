"""The reader on the page of end-to-end memory: told stories and asked, by mouse, keys and touch."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from babi import fresh, reader
from explorables import FRAME, Explorable, axe, close, every_look, exercised, opened
from playwright.sync_api import Browser, Page

TRAINED, SURE = 1e-3, 0.02
QUIZ = Path(__file__).parents[2] / "book/quizzes/memn2n.json"
WORD = re.compile(r"[^\s.,?!]+")
STRANGE = ["walked", "attic", "hello", "Zeppelin", "ran"]


def split(text: str) -> list[str]:
    """The sentences of a text, as they are typed."""
    parts = [part.strip() for part in re.findall(r"[^.?!\n]+[.?!]*", text)]
    return [part for part in parts if WORD.search(part)]


def spoken(text: str) -> tuple[str, ...]:
    return tuple(WORD.findall(text.lower()))


def answer(state: dict[str, Any], *, rounded: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """What memlib's reader says to the story of a state: scores, weights (K, N)."""
    model, words, _ = reader(rounded=rounded)
    told = [spoken(sentence) for sentence in split(state["story"])]
    numbers = [
        [words.number(w) for w in s if w in words] for s in [*told, spoken(state["question"])]
    ]
    table = torch.zeros(len(numbers), max(map(len, numbers)) or 1, dtype=torch.int64)
    for row, sentence in zip(table, numbers, strict=True):
        row[: len(sentence)] = torch.tensor(sentence)
    model.empty = state["empty"]
    try:
        with torch.no_grad():
            scores, weights = model(table[None, :-1], table[-1:], need_weights=True)
    finally:
        model.empty = True
    return scores[0], weights[0]


def compare(one: Explorable) -> None:
    """Numbers, bars and the answer are those of memlib's reader."""
    state, seen = one.state, one.seen
    scores, weights = answer(state, rounded=True)
    close(scores, seen["scores"], TRAINED)
    close(weights, seen["weights"], TRAINED)
    close((1 - weights.sum(1)).clamp(min=0), seen["nothing"], TRAINED)
    original = answer(state, rounded=False)[0]
    first, second = original.topk(2).values
    shown = int(state["hops"])
    if first - second > SURE and shown == len(weights):
        said = reader(rounded=False)[1].answers[int(original.argmax())]
        assert f"The answer: {said} (" in one.said
        assert one.root.locator(".ml-bars .ml-label").first.text_content() == said
    drawn = one.page.evaluate(
        """() => [...document.querySelectorAll('.ml-hops tbody tr:not([hidden])')].map(
            row => [...row.querySelectorAll('.ml-fill')].map(fill => fill.style.width))"""
    )
    rows = [*np.asarray(seen["weights"]).T[-60:], seen["nothing"]]
    assert len(drawn) == len(rows)
    for row, widths in zip(rows, drawn, strict=True):
        right = [100 * x if k < shown else 0 for k, x in enumerate(row)]
        close(right, [float(width.removesuffix("%")) for width in widths], 6e-3)


def write(one: Explorable, label: str, text: str, *, by_key: bool) -> None:
    """Types into a field, in place of what is there."""
    field = one.root.get_by_role("textbox", name=label, exact=True)
    if by_key:
        field.focus()
        one.page.keyboard.press("Control+a")
        one.page.keyboard.insert_text(text[:-1])
        one.page.keyboard.type(text[-1])
    else:
        field.click()
        field.fill(text)


def edit(one: Explorable, at: int, name: str, *, by_key: bool) -> None:
    """Chooses a sentence and moves, repeats or removes it; the story is what it should be."""
    lines = split(one.state["story"])
    radios = one.root.locator(".ml-hops input[type=radio]:visible")
    if by_key:
        one.root.locator(".ml-hops input[type=radio]:checked").focus()
        for _ in range((at - one.state["at"]) % len(lines)):
            one.page.keyboard.press("ArrowDown")
        one.press(name)
    else:
        radios.nth(at).click()
        one.button(name).click()
    to = at
    if name == "Take out":
        lines.pop(at)
        to = max(min(at, len(lines) - 1), 0)
    elif name == "Tell again":
        lines.insert(at, lines[at])
        to = at + 1
    else:
        to = min(max(at + {"Move up": -1, "Move down": 1}[name], 0), len(lines) - 1)
        lines.insert(to, lines.pop(at))
    assert split(one.state["story"]) == lines
    assert one.state["at"] == to
    compare(one)


def swap_unknown(one: Explorable, rng: np.random.Generator, *, by_key: bool) -> None:
    """Puts a known word in place of an unknown one, which is marked."""
    words = reader(rounded=True)[1]
    text = f"{one.state['story']} {one.state['question']}"
    strange = [w for w in dict.fromkeys(spoken(text)) if w not in words][:12]
    marks = one.root.locator("button.ml-unknown")
    assert marks.all_text_contents() == strange
    struck = one.root.locator(".ml-hops s.ml-unknown").all_text_contents()
    assert struck == [w for w in spoken(one.state["story"]) if w not in words]
    known = sorted(w for w in words.words[1:] if re.fullmatch(r"\w+", w))
    new, old = known[int(rng.integers(len(known)))], strange[int(rng.integers(len(strange)))]
    story, question = one.state["story"], one.state["question"]
    if by_key:
        one.press(old)
        for _ in range(sum(w[0] == new[0] for w in known)):
            if one.page.evaluate("document.activeElement.textContent") == new:
                break
            one.page.keyboard.press(new[0])
        one.page.keyboard.press("Enter")
    else:
        one.button(old).click()
        one.root.locator(".ml-words").get_by_role("button", name=new, exact=True).click()
    told = re.compile(rf"(?<![^\s.,?!]){old}(?![^\s.,?!])", re.I)
    within = bool(told.search(story))
    assert one.state["story"] == (told.sub(new, story, count=1) if within else story)
    assert one.state["question"] == (question if within else told.sub(new, question, count=1))
    compare(one)


def use(one: Explorable, rng: np.random.Generator, *, by_key: bool) -> None:
    """Tells a random story with unknown words, asks, moves, switches, and looks hop by hop."""
    found = fresh(int(rng.integers(2**31)), 200)
    question = found[int(rng.integers(len(found)))]
    lines = [" ".join(sentence).capitalize() + "." for sentence in question.story[-12:]]
    lines.insert(int(rng.integers(len(lines) + 1)), f"Mary {rng.choice(STRANGE)} to the park.")
    write(one, "Story", "\n".join(lines), by_key=by_key)
    write(one, "Question", " ".join(question.question) + "?", by_key=by_key)
    compare(one)
    swap_unknown(one, rng, by_key=by_key)
    for name in rng.permutation(["Move up", "Move down", "Tell again", "Take out"]):
        count = len(split(one.state["story"]))
        edit(one, int(rng.integers(count)), str(name), by_key=by_key)
    box = one.root.get_by_role("checkbox", name="empty slots take part")
    if by_key:
        box.focus()
        one.page.keyboard.press("Space")
    else:
        box.click()
    assert not one.state["empty"]
    compare(one)
    for hops in ("no hop", "1 hop", "2 hops"):
        radio = one.root.get_by_role("radio", name=hops, exact=True)
        if by_key:
            one.root.locator(".ml-choose input:checked").focus()
            one.page.keyboard.press("ArrowRight" if hops == "no hop" else "ArrowDown")
        else:
            radio.click()
        assert radio.is_checked()
        compare(one)
        assert "answer:" not in one.said
        assert not one.root.locator(".ml-bars").is_visible()


@every_look
def test_it_reads_any_story(
    browser: Browser, book: str, rng: np.random.Generator, size: str, scheme: str
) -> None:
    with exercised(browser, book, "memn2n", size, scheme, compare) as one:
        use(one, rng, by_key=size == "wide")


def test_two_kept_examples_are_answered_wrong(browser: Browser, book: str) -> None:
    with opened(browser, book, "memn2n") as one:
        words = reader(rounded=False)[1]
        for name, right in (("Wrong: three facts", "bedroom"), ("Wrong: a way", "n,w")):
            one.press(name)
            compare(one)
            assert words.answers[int(answer(one.state, rounded=False)[0].argmax())] != right
            assert one.said.endswith(f"Wrong: it is {right}.")
        write(one, "Question", "Where is the garden?", by_key=True)
        assert "Wrong" not in one.said


def test_of_nothing_it_answers_nothing(browser: Browser, book: str) -> None:
    with opened(browser, book, "memn2n") as one:
        before = one.root.locator("summary, textarea").evaluate_all(
            "all => all.map(e => e.tagName)"
        )
        assert before == ["SUMMARY", "TEXTAREA"]  # what is known is said first
        for story in ("", " . ?", "Hello world."):
            one.root.get_by_role("textbox", name="Story").fill(story)
            assert (one.seen, "answers nothing" in one.said) == ({}, True)
            assert not one.root.locator(".ml-bars").is_visible()
        axe(one)
        one.root.locator("summary").click()
        for word in ("mary", "garden", "."):
            one.root.locator(".ml-words").get_by_role("button", name=word, exact=True).click()
        assert one.state["story"] == "Hello world. mary garden."
        compare(one)
        one.root.get_by_role("textbox", name="Question").fill("Zeppelin?")
        assert one.seen == {}
        axe(one)


def test_the_oldest_of_many_sentences_is_pushed_out(
    browser: Browser, book: str, rng: np.random.Generator
) -> None:
    with opened(browser, book, "memn2n", "narrow") as one:
        people, rooms = ["Mary", "John", "Daniel"], ["garden", "office", "kitchen"]
        told = [f"{rng.choice(people)} went to the {rng.choice(rooms)}." for _ in range(70)]
        one.root.get_by_role("textbox", name="Story").fill(" ".join(told))
        one.root.get_by_role("textbox", name="Question").fill("Where is Mary?")
        compare(one)
        weights = np.asarray(one.seen["weights"])
        assert not weights[:, :-50].any()
        assert (weights[:, -50:] > 0).all()
        assert "10 older sentences" in (one.root.text_content() or "")
        axe(one)


def test_by_touch(browser: Browser, book: str) -> None:
    context = browser.new_context(has_touch=True, viewport={"width": 390, "height": 844})
    page: Page = context.new_page()
    page.goto(f"{book}/book/memn2n.html?story=Mary+walked+to+the+park.%0AJohn+went+to+the+park.")
    page.locator(".ml-explore").scroll_into_view_if_needed()
    page.wait_for_selector(".ml-explore.ml-live")
    lab = page.locator(".ml-lab")
    lab.get_by_role("button", name="walked", exact=True).tap()
    lab.get_by_role("button", name="went", exact=True).tap()
    lab.get_by_text("john went to the park").tap()
    lab.get_by_role("button", name="Move up", exact=True).tap()
    lab.get_by_text("empty slots take part").tap()
    state = page.evaluate(f"{FRAME}.state")
    assert state["story"] == "John went to the park.\nMary went to the park."
    assert (state["at"], state["empty"]) == (0, False)
    context.close()


def test_what_it_asks_to_try_comes_out_as_a_surprise(browser: Browser, book: str) -> None:
    words = reader(rounded=False)[1]

    def check(one: Explorable, expected: str, sure: float) -> None:
        compare(one)
        share = answer(one.state, rounded=False)[0].softmax(-1)
        assert words.answers[int(share.argmax())] == expected
        assert share.max() > sure
        assert f"The answer: {expected} (" in one.said

    with opened(browser, book, "memn2n") as one:
        shows = one.button("Show me")
        shows.nth(0).click()
        check(one, "office", 0.99)
        shows.nth(1).click()
        day = split(one.state["story"])
        seen = set()
        for at, name in itertools.islice(itertools.cycle([(0, "Move down"), (1, "Move down")]), 6):
            check(one, "school", 0.5)
            edit(one, at, name, by_key=False)
            seen.add(tuple(split(one.state["story"])))
        assert seen == set(itertools.permutations(day))
        shows.nth(2).click()
        check(one, "no", 0.99)
        one.root.get_by_role("checkbox").uncheck()
        check(one, "yes", 0.9)


def test_the_quiz_asks_what_the_page_shows(browser: Browser, book: str) -> None:
    (item,) = (i for i in json.loads(QUIZ.read_text("utf-8")) if i["id"] == "again")
    (right,) = (a["value"] for a in item["answers"] if a["correct"])
    with opened(browser, book, "memn2n") as one:
        write(one, "Story", "John went to the office.\nMary moved to the garden.", by_key=True)
        write(one, "Question", "Where is John?", by_key=True)
        for told in range(1, right + 1):
            answered = "garden" if told == right else "office"
            share = answer(one.state, rounded=False)[0].softmax(-1)
            assert reader(rounded=False)[1].answers[int(share.argmax())] == answered
            assert f"The answer: {answered} (" in one.said
            if told >= right - 1:
                assert f"{share.max():.0%}" == "99%"
            edit(one, 1, "Tell again", by_key=False)


PLANTED = {  # what is done behind the reader's back
    "without empty slots": "e.draw({...e.state, empty: false})",
    "another question": "e.draw({...e.state, question: 'Where is Mary?'})",
    "a wrong score": "e.seen.scores[0] += 0.1",
    "a bar too long": "document.querySelector('.ml-hops .ml-fill').style.width = '3%'",
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_fault_is_found(browser: Browser, book: str, fault: str) -> None:
    with opened(browser, book, "memn2n") as one:
        compare(one)
        one.page.evaluate(f"{{ const e = {FRAME}; {PLANTED[fault]} }}")
        with pytest.raises(AssertionError):
            compare(one)
