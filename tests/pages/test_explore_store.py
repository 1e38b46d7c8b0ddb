"""The store's page: 719 facts asked in English, and clusters on a plane, by mouse and by keys."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from explorables import FRAME, Explorable, axe, close, every_look, malformed, opened, restored
from playwright.sync_api import Browser

from memlib import Store, teaching
from memlib.teaching.words import pieces

STOPS = [1, 2, 3, 6, 10, 20, 50, 100, 300, 719]
FACTS, CLUSTERS, NEAREST = 719, 17, 5
GIVEN: dict[str, Any] = {}


def given(one: Explorable) -> dict[str, Any]:
    """What the page was given, with vectors of words and of facts in float64."""
    if not GIVEN:
        text = one.root.locator(".ml-data").text_content() or ""
        data = json.loads(text)
        packed = data["vectors"]
        whole = np.frombuffer(base64.b64decode(packed["bytes"]), np.int8).reshape(packed["shape"])
        scale = np.frombuffer(base64.b64decode(packed["scale"]["half"]), np.float16)
        GIVEN.update(data, vectors=torch.tensor(whole.astype(float) * scale[:, None]))
        GIVEN["at"] = {word: n for n, word in enumerate(data["words"])}
        GIVEN["keys"] = {kind: torch.stack([embed(t) for t in data[kind]]) for kind in KINDS}
    return GIVEN


KINDS = ("facts", "bare")


def known(text: str) -> list[int]:
    """The words of a text: as written, else with a capital alone, else in small letters."""
    found = []
    for piece in pieces(text):
        small = piece.lower()
        capital = re.sub(r"[^\W\d_]", lambda letter: letter[0].upper(), small, count=1)
        some = (GIVEN["at"].get(way) for way in (piece, capital, small))
        found += [next((n for n in some if n is not None), -1)]
    return found


def embed(text: str) -> torch.Tensor:
    """A text as the sum of its known words, at length 1."""
    rows = [n for n in known(text) if n >= 0]
    return F.normalize(GIVEN["vectors"][rows].sum(dim=0), dim=0)


def compare(one: Explorable) -> None:
    """What is shown is what memlib's stores say."""
    data, state, seen = given(one), one.state, one.seen
    keys, numbers = data["keys"]["facts" if state["answer"] else "bare"], list(range(FACTS))
    if (own := embed(state["own"])).any():
        keys, numbers = torch.cat((keys, own[None])), [*numbers, FACTS]
    store = Store(keys.shape[1], 1, measure="cosine", dtype=torch.float64)
    store.add(keys[None], torch.zeros(1, len(keys), 1, dtype=torch.float64))
    if state["gone"]:
        store.delete(torch.tensor([state["gone"]]))
    query, held = embed(state["question"]), int(store.lengths)
    assert seen["held"] == held
    texts = state["question"], state["own"]
    unknown = [p.strip() for t in texts for p, n in zip(pieces(t), known(t), strict=True) if n < 0]
    assert seen["unknown"] == unknown
    assert all(word in one.said for word in unknown)
    if not query.any():
        assert seen["slots"] == []
        return
    ids, weights = store.address(
        query[None, None], min(state["k"], held), strength=float(state["strength"])
    )
    ids, scores = ids.flatten(), keys @ query
    close(weights.flatten(), seen["weights"])
    assert len(set(seen["slots"])) == len(seen["slots"])
    close(scores[ids], scores[[numbers.index(n) for n in seen["slots"]]])  # of equals, any
    close(scores[ids[0]], seen["like"])
    assert not set(state["gone"]) & set(seen["slots"])
    rows = one.root.locator(".ml-found li:visible .ml-label").all_text_contents()
    shown = [[*data["facts"], state["own"]][n] for n in seen["slots"][:6]]
    assert rows == shown


def compare_plane(one: Explorable) -> None:
    """What is found on the plane is what a store with an inverted file finds."""
    data, state, seen = given(one), one.state, one.seen
    points, centers = (torch.tensor(data[name]).double() for name in ("points", "centers"))
    place = torch.tensor([[[state["x"], state["y"]]]]).double()
    found = {}
    for backend in ("exact", "ivf"):
        store = Store(
            2, 1, measure="negative_squared_distance", backend=backend, dtype=torch.float64
        )
        store.effort = state["effort"]
        store.add(points[None], torch.zeros(1, len(points), 1).double())
        found[backend] = store.address(place, NEAREST)[0].flatten().tolist()
    away = torch.cdist(place[0], points)[0]
    for name, backend in (("wanted", "exact"), ("found", "ivf")):
        assert len(set(seen[name])) == NEAREST
        close(away[found[backend]], away[seen[name]])  # of equals, any
    cells = torch.cdist(place[0], centers)[0].argsort()[: state["effort"]].tolist()
    assert seen["cells"] == cells
    within = torch.isin(torch.cdist(points, centers).argmin(dim=1), torch.tensor(cells))
    assert seen["compared"] == CLUSTERS + within.sum()
    close(away[found["exact"][-1]], seen["reach"])
    shown = {name: one.root.locator(f".ml-plane .ml-{name}").count() for name in ("hit", "missed")}
    hit = len(set(seen["wanted"]) & set(seen["found"]))
    assert shown == {"hit": 2 * hit, "missed": 2 * (NEAREST - hit)}  # each, and above all others
    assert f"{hit} of the {NEAREST} nearest" in one.said


def write(one: Explorable, label: str, text: str, *, by_key: bool) -> None:
    """Types a text into a field."""
    field = one.root.get_by_label(label)
    if by_key:
        field.focus()
        one.page.keyboard.press("Control+A")
        one.page.keyboard.type(text) if text else one.page.keyboard.press("Delete")
    else:
        field.fill(text)


def ask(one: Explorable, rng: np.random.Generator, *, by_key: bool) -> None:
    """A question offered, one of random words, an unknown word; k, strength, keys, facts."""
    data = given(one)
    phrase, country = str(rng.choice(data["phrases"])), str(rng.choice(data["countries"]))
    if by_key:
        write(one, "Question", phrase.replace("{}", country), by_key=True)
    else:
        one.root.get_by_label("Or choose").select_option(phrase.replace("{}", "…"))
        one.root.get_by_label("about").select_option(country)
        assert one.state["question"] == phrase.replace("{}", country)
    compare(one)
    chosen = one.root.get_by_label("about").evaluate("e => e.options[e.selectedIndex].text")
    assert chosen == country
    k = int(rng.integers(0, len(STOPS)))
    if by_key:
        one.slide("facts read, k", k - STOPS.index(one.state["k"]))
        one.slide("strength β", int(rng.integers(-20, 20)))
        one.root.get_by_role("checkbox", name="the answer is in the key").focus()
        one.page.keyboard.press("Space")
    else:
        one.put("facts read, k", k)
        one.put("strength β", int(rng.integers(0, 61)))
        one.root.get_by_role("checkbox", name="the answer is in the key").click()
    assert one.state["k"] == STOPS[k]
    assert one.state["answer"] is False
    compare(one)
    some = " ".join(str(word).strip() for word in rng.choice(data["words"], 6))
    write(one, "Question", f"zyzzyva {some}", by_key=by_key)
    assert "zyzzyva" in one.seen["unknown"]
    compare(one)
    words = [str(word).strip() for word in rng.choice(data["words"], 4)]
    write(one, "A fact of your own", " ".join(words), by_key=by_key)
    compare(one)
    for _ in range(2):
        rows = one.root.locator(".ml-found li:visible button")
        row = rows.nth(int(rng.integers(rows.count())))
        if by_key:
            row.focus()
            one.page.keyboard.press("Enter")
        else:
            row.click()
        compare(one)


def look(one: Explorable, rng: np.random.Generator, *, by_key: bool) -> None:
    """Moves the query on the plane, and looks into some clusters."""
    effort = int(rng.integers(1, CLUSTERS + 1))
    if by_key:
        for label in ("query, from left", "query, from below"):
            one.slide(label, int(rng.integers(-50, 41)))
        one.slide("clusters looked into", effort - one.state["effort"])
    else:
        map = one.root.locator(".ml-plane")
        map.scroll_into_view_if_needed()
        box = map.bounding_box()
        assert box is not None
        one.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        one.page.mouse.down()
        x, y = rng.random(2)
        one.page.mouse.move(box["x"] + x * box["width"], box["y"] + (1 - y) * box["height"])
        one.page.mouse.up()
        one.page.mouse.move(box["x"], box["y"])  # no longer held
        close([1.5 * x, y], [one.state["x"], one.state["y"]], 0.02)
        compare_plane(one)
        one.put("clusters looked into", effort)
        map.scroll_into_view_if_needed()
        box = map.bounding_box()
        assert box is not None
        x, y = 0.1 + 0.8 * rng.random(2)
        middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        one.swipe(middle, (box["x"] + x * box["width"], box["y"] + (1 - y) * box["height"]))
        close([1.5 * x, y], [one.state["x"], one.state["y"]], 0.02)
    assert one.state["effort"] == effort
    compare_plane(one)


@every_look
def test_it_is_asked_and_looked_into(
    browser: Browser, book: str, rng: np.random.Generator, size: str, scheme: str
) -> None:
    with opened(browser, book, "store", size, scheme) as one:
        compare(one)
        compare_plane(one)
        axe(one)
        ask(one, rng, by_key=size == "wide")
        look(one, rng, by_key=size == "wide")
        axe(one)
        restored(browser, one)
        if size == "wide":
            malformed(browser, one)
        write(one, "Question", "", by_key=size == "wide")
        compare(one)
        assert "Nothing that is known" in one.said
        back = one.root.get_by_role("button", name="Put back what was deleted")
        if back.is_enabled():
            back.click()
        assert one.state["gone"] == []
        one.button("Reset").click()
        compare(one)


def test_its_words_are_those_of_the_tokenizer_at_eight_bits(browser: Browser, book: str) -> None:
    facts, _ = teaching.country_facts()
    table, tokens = teaching.word_vectors()
    with opened(browser, book, "store") as one:
        data = given(one)
    assert data["facts"] == [fact.text for fact in facts]
    assert sum(word not in map(str, range(10)) for word in data["words"]) > 2000 + 700
    questions = [
        p.format(f.country) for ps in teaching.PHRASINGS.values() for p in ps for f in facts
    ]
    assert all(n >= 0 for text in {*data["facts"], *data["bare"], *questions} for n in known(text))
    for text in data["facts"][::7]:
        whole = F.normalize(table[tokens(text)].mean(dim=0).double(), dim=0)
        assert whole @ embed(text) > 0.9999


def test_what_it_asks_to_try_comes_out_as_a_surprise(browser: Browser, book: str) -> None:
    with opened(browser, book, "store") as one:
        facts = given(one)["facts"]
        lead = lambda: facts[one.seen["slots"][0]]  # noqa: E731
        shows = one.button("Show me")
        shows.nth(0).click()
        assert (lead(), one.seen["weights"]) == ("The capital of Scotland is Edinburgh.", [1])
        one.put("facts read, k", len(STOPS) - 1)
        assert lead() == "The capital of Scotland is Edinburgh."
        assert 0.17 < one.seen["weights"][0] < 0.19  # the quiz asks for it
        one.button("Reset").click()
        answer = one.root.get_by_role("checkbox", name="the answer is in the key")
        assert lead() == "The capital of Kenya is Nairobi."
        answer.click()
        assert lead() == "The currency of Kenya is KES."
        shows.nth(1).click()
        assert not any("Morocco" in facts[n] for n in one.seen["slots"])
        answer.click()
        assert lead() == "Casablanca is a place in Morocco."
        assert one.seen["weights"][0] > 0.99
        shows.nth(2).click()
        hits = []
        for effort in (1, 2, 3, 4, 5):
            one.put("clusters looked into", effort)
            hits.append(len(set(one.seen["wanted"]) & set(one.seen["found"])))
        assert hits == [0, 0, 0, 3, 5]
        one.put("clusters looked into", CLUSTERS)
        assert one.seen["compared"] == CLUSTERS + 300  # more than without clusters


def test_a_corrected_fact_leads_once_the_old_one_is_deleted(browser: Browser, book: str) -> None:
    with opened(browser, book, "store") as one:
        write(one, "Question", "What is the capital of Burundi?", by_key=False)
        write(one, "A fact of your own", "The capital of Burundi is Gitega.", by_key=False)
        old = given(one)["facts"].index("The capital of Burundi is Bujumbura.")
        assert one.seen["slots"][:2] == [old, FACTS]
        one.root.get_by_role("button", name="Delete: The capital of Burundi is Bujumbura.").click()
        assert one.seen["slots"][0] == FACTS
        compare(one)
        one.root.get_by_role("button", name="Delete: The capital of Burundi is Gitega.").click()
        assert one.state["own"] == ""
        assert FACTS not in one.seen["slots"]


PLANTED = {  # what is done behind the reader's back
    "another strength": "e.draw({...e.state, strength: 19.9})",
    "a fact that was deleted": "e.draw({...e.state, gone: [e.seen.slots[5]]})",
    "other keys": "e.draw({...e.state, answer: false})",
    "one cluster more": "e.draw({...e.state, effort: 2})",
    "a query a little aside": "e.draw({...e.state, x: e.state.x + 0.001})",
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_fault_is_found(browser: Browser, book: str, fault: str) -> None:
    with opened(browser, book, "store") as one:
        compare(one)
        compare_plane(one)
        one.page.evaluate(f"{{ const e = {FRAME}; {PLANTED[fault]} }}")

        def both() -> None:
            compare(one)
            compare_plane(one)

        with pytest.raises(AssertionError):
            both()
