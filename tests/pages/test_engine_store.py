"""The page's store, its clusters and its words against memlib's: the same answers."""

from __future__ import annotations

import base64
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from engine import ask, engine, worst
from playwright.sync_api import Browser

from memlib import Store, teaching
from memlib.attention.verbs import MEASURES
from memlib.store.nearest import nearest
from memlib.teaching.explore import byte_rows
from memlib.teaching.words import pieces, vocabulary

CASES, CLOSE = 200, 1e-5
NO = ("", "")
WITHOUT = {
    "capital": "The capital of {}",
    "currency": "The currency of {}",
    "place": "A place in {}",
}


def draw(seed: int) -> list[dict[str, Any]]:
    """Random stores: one pair, most pairs deleted, and questions of nothing among them."""
    rng = np.random.default_rng(seed)
    cases = []
    for index in range(CASES):
        slots, width, value_width = (int(size) for size in rng.integers(1, (40, 9, 5)))
        mask = rng.random(slots) < rng.choice([0.1, 0.5, 0.9])
        mask[rng.integers(slots)] = True
        cases.append(
            {
                "query": rng.normal(size=width) * (index % 10 > 0),
                "keys": rng.normal(size=(slots, width)),
                "values": rng.normal(size=(slots, value_width)),
                "measure": MEASURES[index % 4],
                "strength": float(rng.choice([0.0, 1.0, 20.0, 200.0])),
                "mask": mask,
                "k": int(rng.integers(1, mask.sum() + 1)) if index % 10 else int(mask.sum()),
                "most": slots + 1,
            }
        )
    return cases


def stored(case: dict[str, Any], **options: Any) -> tuple[Store, torch.Tensor]:
    keys, values = (torch.as_tensor(case[name])[None] for name in ("keys", "values"))
    options |= {"measure": case["measure"], "dtype": torch.float64}
    store = Store(keys.shape[2], values.shape[2], **options)
    ids = store.add(keys, values)
    if gone := (~np.asarray(case["mask"])).nonzero()[0].tolist():
        store.delete(ids[:, gone])
    return store, torch.as_tensor(case["query"])[None, None]


def reads(browser: Browser, plant: tuple[str, str] = NO) -> dict[str, float]:
    """The worst differences of reads; 1 where other pairs are found."""
    cases = draw(1)
    asked = """c => ({
        found: nearest(c.query, c.keys, c.most, c.measure, c.mask),
        address: address(c.query, c.keys, c.k, c),
        read: read(c.query, c.keys, c.values, c.k, c),
    })"""
    with engine(browser, "store.js", plant=plant) as page:
        theirs = ask(page, asked, cases)
    bad = {"found": 0.0, "address": 0.0, "weights": 0.0, "read": 0.0}
    for case, got in zip(cases, theirs, strict=True):
        store, query = stored(case)
        keys, mask = torch.as_tensor(case["keys"])[None], torch.as_tensor(case["mask"])[None]
        best = nearest(query, keys, case["most"], case["measure"], mask)[0, 0]
        ids, weights = store.address(query, case["k"], strength=case["strength"])
        value = store.read(query, case["k"], strength=case["strength"])
        alike = not query.any() and case["measure"] != "negative_squared_distance"
        sort = sorted if alike else list  # asked for nothing, all fit alike: in any order
        bad["found"] += sort(best.tolist()) != sort(got["found"])
        bad["address"] += sort(ids[0, 0].tolist()) != sort(got["address"][0])
        bad["weights"] = max(bad["weights"], worst(weights[0, 0], got["address"][1]))
        bad["read"] = max(bad["read"], worst(value[0, 0], got["read"]))
    return bad


def test_a_read_is_that_of_the_store(browser: Browser) -> None:
    found = reads(browser)
    assert max(found.values()) < CLOSE, found


@pytest.mark.parametrize(
    ("name", "plant"),
    {
        "found": ("best[i] ?? -1", "best[i] ?? 0"),
        "address": ("!mask || mask[n]", "true"),
        "weights": ("{ measure, strength },\n  );", "{ measure },\n  );"),
        "read": ("found.subarray(0, there.length)", "found.subarray(1)"),
    }.items(),
)
def test_a_wrong_read_is_found(browser: Browser, name: str, plant: tuple[str, str]) -> None:
    assert reads(browser, plant)[name] > 100 * CLOSE


def clusters(browser: Browser, plant: tuple[str, str] = NO) -> dict[str, float]:
    """How often the clusters of the page, with the centers of faiss, find something else."""
    rng = np.random.default_rng(2)
    cases, ours = [], []
    for index in range(CASES):
        slots, width = int(rng.choice([3, 10, 60, 300])), int(rng.integers(2, 5))
        centers = rng.normal(size=(8, width)) * (index % 5 > 0)  # every fifth: no structure
        keys = centers[rng.integers(8, size=slots)] + 0.3 * rng.normal(size=(slots, width))
        case = {
            "keys": keys.astype(np.float32).astype(float),
            "values": np.zeros((slots, 1)),
            "mask": np.ones(slots, bool),
            "measure": "negative_squared_distance",
            "query": (2.0 * rng.normal(size=width)).astype(np.float32).astype(float),
            "k": int(rng.integers(1, min(slots, 12) + 1)),
            "effort": int(rng.integers(1, round(slots**0.5) + 1)),
        }
        store, query = stored(case, backend="ivf", effort=case["effort"])
        ids, _ = store.address(query, case["k"])
        index_of = store._search.indexes[0].index
        quantizer = index_of.quantizer
        case["centers"] = quantizer.reconstruct_n(0, index_of.nlist).astype(float)
        _, lists = quantizer.search(query[0].float().numpy(), case["effort"])
        sizes = [index_of.invlists.list_size(int(one)) for one in lists[0]]
        looked = sum(sizes) if sum(sizes) >= case["k"] else slots
        ours.append((ids[0, 0].tolist(), lists[0].tolist(), index_of.nlist + looked))
        cases.append(case)
    asked = """c => { const f = new Clusters(c.keys, c.centers).nearest(c.query, c.k, c.effort);
        return [f.found, f.clusters, f.compared] }"""
    with engine(browser, "store.js", plant=plant) as page:
        theirs = ask(page, asked, cases)
    names = ("found", "clusters", "compared")
    return {
        name: float(sum(a[n] != b[n] for a, b in zip(ours, theirs, strict=True)))
        for n, name in enumerate(names)
    }


def test_clusters_find_what_the_store_finds(browser: Browser) -> None:
    found = clusters(browser)
    assert max(found.values()) == 0, found


@pytest.mark.parametrize(
    ("name", "plant"),
    {
        "found": ("few ? within.fill(true) : within", "within"),
        "clusters": ("this.centers, effort, this.measure", "this.centers, effort"),
        "compared": ("this.centers.length + mask", "mask"),
    }.items(),
)
def test_a_wrong_look_into_clusters_is_found(
    browser: Browser, name: str, plant: tuple[str, str]
) -> None:
    assert clusters(browser, plant)[name] > 0


@cache
def chapter() -> dict[str, Any]:
    """The facts of the chapter, all its questions, and the words that the page is given."""
    facts, _ = teaching.country_facts()
    questions = [
        phrase.format(fact.country)
        for relation, phrases in teaching.PHRASINGS.items()
        for phrase in phrases
        for fact in facts
        if fact.relation == relation
    ]
    questions += [f"In which country is {f.answer}?" for f in facts if f.relation == "place"]
    texts = [fact.text for fact in facts]
    bare = [WITHOUT[fact.relation].format(fact.country) for fact in facts]
    words, vectors = vocabulary([*texts, *bare, *questions])
    rows = byte_rows(vectors)
    whole = np.frombuffer(base64.b64decode(rows["bytes"]), np.int8).reshape(rows["shape"])
    scale = np.frombuffer(base64.b64decode(rows["scale"]["half"]), np.float16)
    return {
        "texts": texts,
        "bare": bare,
        "questions": questions,
        "words": words,
        "vectors": vectors,
        "rows": rows,
        "rounded": torch.tensor(whole.astype(float) * scale[:, None]),
    }


def embed(texts: list[str]) -> torch.Tensor:
    """Texts as the chapter makes vectors of them."""
    table, tokens = teaching.word_vectors()
    means = [table[tokens(text)].double().mean(dim=0) for text in texts]
    return F.normalize(torch.stack(means), dim=-1)


def composed(texts: list[str], vectors: torch.Tensor) -> torch.Tensor:
    """Texts as sums of words."""
    at = {word: n for n, word in enumerate(chapter()["words"])}
    sums = [vectors[[at[piece] for piece in pieces(text)]].double().sum(0) for text in texts]
    return F.normalize(torch.stack(sums), dim=-1)


def test_words_say_what_the_tokenizer_would() -> None:
    known = chapter()
    texts = known["texts"] + known["bare"] + known["questions"]
    assert len(texts) > 7000
    assert worst(composed(texts, known["vectors"]), embed(texts)) < 1e-6
    rng = np.random.default_rng(3)
    drawn = ["".join(rng.choice(known["words"], 8)).strip() for _ in range(CASES)]
    drawn = [text for text in drawn if all(p in known["words"] for p in pieces(text))]
    assert len(drawn) > CASES / 2
    apart = 1 - (composed(drawn, known["vectors"]) * embed(drawn)).sum(dim=1)
    assert apart.median() < 1e-6  # where runs do not meet, of letters or of signs


WORDS = """c => { window.w ??= new Words(c.words, unpackRows(c.rows));
    return c.texts.map(text => ({ pieces: pieces(text), vector: w.embed(text) })) }"""
HOSTILE = [
    "",
    "   ",
    "???",
    "\t tabs\nand  lines ",
    "D.C..",
    "naïve Curaçao's",
    "中文 words",
    "a_b",
]


def spoken(browser: Browser, plant: tuple[str, str] = NO) -> dict[str, float]:
    known, rng = chapter(), np.random.default_rng(4)
    texts = [str(text) for text in rng.choice(known["questions"] + known["texts"], CASES)]
    case = {"words": known["words"], "rows": known["rows"], "texts": texts + HOSTILE}
    with engine(browser, "words.js", "weights.js", plant=plant) as page:
        (got,) = ask(page, WORDS, [case])
    told = [one["vector"] for one in got]
    return {
        "pieces": float(
            sum(pieces(t) != g["pieces"] for t, g in zip(case["texts"], got, strict=True))
        ),
        "vectors": worst(composed(texts, known["rounded"]), told[:CASES]),
        "nothing": float(np.abs(told[CASES : CASES + 2]).max()),
    }


def test_the_page_reads_words_as_python_does(browser: Browser) -> None:
    found = spoken(browser)
    assert max(found.values()) < CLOSE, found


@pytest.mark.parametrize(
    ("name", "plant"),
    {
        "pieces": ("/ ?(?:[\\p{L}\\p{N}]+|", "/ ?(?:[\\p{L}\\p{N}']+|"),
        "vectors": ("whole[i] * scale[n]", "whole[i] * scale[0]"),
        "nothing": (
            "const sum = new Float64Array(this.vectors[0].length)",
            "const sum = Float64Array.from(this.vectors[0])",
        ),
    }.items(),
)
def test_words_read_wrongly_are_found(browser: Browser, name: str, plant: tuple[str, str]) -> None:
    assert spoken(browser, plant)[name] > 100 * CLOSE


def test_a_word_is_known_in_small_letters_and_with_a_capital(browser: Browser) -> None:
    known = chapter()
    texts = ["what is the CAPITAL of peru?", "Where Is Peru", "zyzzyva of Peru"]
    case = {"words": known["words"], "rows": known["rows"], "texts": texts}
    with engine(browser, "words.js", "weights.js") as page:
        asked = "c => c.texts.map(t => new Words(c.words, c.rows.shape).encode(t))"
        (got,) = ask(page, asked, [case])
    read = [[known["words"][n] if n >= 0 else None for n in one] for one in got]
    assert read[0] == [" what", " is", " the", " capital", " of", " Peru", "?"]
    assert read[1] == [" Where", " is", " Peru"]
    assert read[2] == [None, " of", " Peru"]


@pytest.mark.parametrize("kind", ["texts", "bare"])
def test_eight_bits_give_the_same_answers(browser: Browser, kind: str) -> None:
    """Of the best facts, with the answer in the key or without, at most one in 500 differs."""
    known = chapter()
    texts, questions = known[kind], known["questions"]
    whole = (embed(questions) @ embed(texts).T).argmax(dim=1).tolist()
    query, keys = (composed(some, known["rounded"]) for some in (questions, texts))
    rounded = (query @ keys.T).argmax(dim=1).tolist()
    other = sum(texts[n] != texts[m] for n, m in zip(whole, rounded, strict=True))
    assert other <= len(questions) / 500, other
    some = list(range(0, len(questions), 20))
    case = {"words": known["words"], "rows": known["rows"], "texts": texts}
    case["questions"] = [questions[n] for n in some]
    asked = """c => { const w = new Words(c.words, unpackRows(c.rows));
        const keys = c.texts.map(text => w.embed(text));
        return c.questions.map(text => nearest(w.embed(text), keys, 1)[0]) }"""
    with engine(browser, "words.js", "weights.js", "store.js") as page:
        (found,) = ask(page, asked, [case])
    assert [texts[n] for n in found] == [texts[rounded[n]] for n in some]


def cells(browser: Browser, plant: tuple[str, str] = NO) -> float:
    """How often a place is not in the cell of its nearest center, or in another's."""
    rng = np.random.default_rng(5)
    cases = [
        {"centers": rng.random((int(rng.integers(1, 20)), 2)), "place": rng.random(2)}
        for _ in range(CASES)
    ]
    box = "[[0, 0], [1, 0], [1, 1], [0, 1]]"
    with engine(browser, "pages/store/voronoi.js", plant=plant) as page:
        theirs = ask(page, f"c => c.centers.map((_, n) => cell(c.centers, n, {box}))", cases)
    wrong = 0
    for case, shapes in zip(cases, theirs, strict=True):
        own = int(((case["centers"] - case["place"]) ** 2).sum(1).argmin())
        wrong += sum(inside(case["place"], shape) != (n == own) for n, shape in enumerate(shapes))
    return wrong


def inside(place: np.ndarray, shape: list[list[float]]) -> bool:
    corners = np.array(shape)
    if not shape:
        return False
    edge, to = np.roll(corners, -1, 0) - corners, place - corners
    return bool((edge[:, 0] * to[:, 1] - edge[:, 1] * to[:, 0] >= 0).all())


def test_a_place_lies_in_the_cell_of_its_nearest_center(browser: Browser) -> None:
    assert cells(browser) == 0


def test_a_wrong_cell_is_found(browser: Browser) -> None:
    assert cells(browser, ("const share = a / (a - b)", "const share = b / (b - a)")) > 0
