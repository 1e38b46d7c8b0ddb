"""The page's end-to-end memory network against memlib's, and the reader trained on bAbI."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import numpy as np
import pytest
import torch
from babi import PATH, fresh, reader
from engine import ask, engine, worst
from playwright.sync_api import Browser

from memlib import MemN2N, position_encoding, tasks
from memlib.teaching.explore.weights import pack

CASES, CLOSE, SURE = 200, 1e-5, 0.02


def draw(seed: int) -> list[dict[str, Any]]:
    """Networks of every kind with random weights, and stories with padding anywhere, or none."""
    rng = np.random.default_rng(seed)
    cases = []
    for index in range(CASES):
        vocab, hops, slots, width = (int(size) for size in rng.integers(2, 8, 4))
        tying = ("adjacent", "layerwise", "none")[index % 3]
        options = {
            "vocab_size": vocab,
            "answers": int(rng.integers(1, vocab)),
            "width": 1 if index % 20 == 0 else width,
            "hops": hops - 1,
            "slots": 1 if index % 10 == 0 else slots,
            "tying": tying,
            "encoding": ("position", "bag")[index % 2],
            **{name: bool(rng.random() < 0.5) for name in ("temporal", "relu", "empty")},
            "linear": bool(rng.random() < 0.2),
        }
        torch.manual_seed(index)
        model = MemN2N(**options, dtype=torch.float64).eval()
        scale = float(rng.choice([0.0, 0.1, 1.0] if options["linear"] else [0.0, 0.1, 1.0, 3.0]))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(std=scale)
        sentences, longest = int(rng.integers(0, 13)), int(rng.integers(1, 7))
        story = rng.integers(0, vocab, (sentences, longest)) * (rng.random((sentences, 1)) < 0.8)
        cases.append(
            {
                "options": {**options, "vocabSize": vocab},
                "tensors": {k: v.numpy() for k, v in model.state_dict().items()},
                "story": story,
                "question": rng.integers(0, vocab, longest) * (index % 15 > 0),
                "model": model,
            }
        )
    return cases


def networks(browser: Browser, plant: tuple[str, str] = ("", "")) -> dict[str, float]:
    """The worst differences over random networks, relative where numbers are large."""
    cases = draw(1)
    sizes = np.random.default_rng(2).integers(1, 51, (CASES, 2)).tolist()
    with engine(browser, "memn2n.js", plant=plant) as page:
        places = ask(page, "([words, width]) => positionEncoding(words, width)", sizes)
        asked = "c => new MemN2N(c.tensors, c.options).forward(c.story, c.question)"
        plain = [{k: v for k, v in case.items() if k != "model"} for case in cases]
        answers = ask(page, asked, plain)
    found = dict.fromkeys(("scores", "weights"), 0.0)
    found["places"] = max(
        worst(position_encoding(*size), place) for size, place in zip(sizes, places, strict=True)
    )
    for case, answer in zip(cases, answers, strict=True):
        story, question = (torch.as_tensor(case[name])[None] for name in ("story", "question"))
        with torch.no_grad():
            right = case["model"](story, question, need_weights=True)
        for name, ours, theirs in zip(("scores", "weights"), right, answer, strict=True):
            size = max(1.0, float(ours.abs().max())) if ours.numel() else 1.0
            found[name] = max(found[name], worst(ours[0], theirs) / size)
    return found


def test_any_network_is_memlibs(browser: Browser) -> None:
    found = networks(browser)
    assert max(found.values()) < CLOSE, found


@pytest.mark.parametrize(
    ("name", "plant"),
    [
        ("places", ("i + 0.5 - of / 2", "i + 1 - of / 2")),
        ("scores", ("word !== 0);\n    const places", "word > -1);\n    const places")),
        ("scores", ("kept.map((x, k) => (this.relu ?", "kept.map((x, k) => (!this.relu ?")),
        ("weights", ("newest.length - 1 - n", "n")),
        ("weights", ("told.slice(-this.slots)", "told.slice(0, this.slots)")),
        ("weights", ("full(this.slots - newest.length", "full(this.slots - story.length")),
        ("weights", ("layerwise: 2,", "layerwise: 1,")),
    ],
)
def test_a_wrong_network_is_found(browser: Browser, name: str, plant: tuple[str, str]) -> None:
    assert networks(browser, plant)[name] > 100 * CLOSE


def real(count: int = 10) -> list[tasks.Question]:
    """Test questions of the real tasks, where they are."""
    try:
        folder = tasks.find_babi()
    except FileNotFoundError:
        pytest.skip("the real bAbI files are not here: MEMLIB_DATA")
    chance = random.Random(1)
    return [
        question
        for task in range(1, 21)
        for question in chance.sample(
            tasks.read_babi(tasks.babi_file(folder, task, "test"), task=task), count
        )
    ]


def said(words: tuple[str, ...], end: str) -> str:
    return " ".join(words).capitalize() + end


def answered(
    browser: Browser, asked: list[tasks.Question], plant: tuple[str, str] = ("", "")
) -> tuple[int, float]:
    """How many sure answers differ from the original's, and the worst logit from the rounded."""
    packed = json.dumps(pack(PATH))
    texts = [
        {"story": " ".join(said(s, ".") for s in q.story), "question": said(q.question, "?")}
        for q in asked
    ]
    with engine(browser, "memn2n.js", "vocabulary.js", "weights.js", plant=plant) as page:
        page.evaluate(
            """packed => {
                const { metadata: { about }, tensors } = packed;
                window.words = new Vocabulary(about.words);
                const sizes = { vocabSize: about.words.length, answers: about.answers.length };
                window.reader = new MemN2N(unpack(packed), { ...about.recipe, ...sizes });
            }""",
            json.loads(packed),
        )
        theirs = ask(
            page,
            """({ story, question }) => {
                const numbered = text => sentences(text).map(s => window.words.encode(wordsOf(s)));
                return reader.forward(numbered(story), numbered(question).flat());
            }""",
            texts,
        )
    wrong, far = 0, 0.0
    original, words, _ = reader(rounded=False)
    batch = words.encode(asked, slots=original.slots, unknown="skip").padded()
    with torch.no_grad():
        decided = original(batch.story, batch.question)
        ours, looks = reader(rounded=True)[0](batch.story, batch.question, need_weights=True)
    for row, (scores, weights) in enumerate(theirs):
        first, second = decided[row].topk(2).values
        if first - second > SURE:
            wrong += int(np.argmax(scores)) != int(decided[row].argmax())
        told = len(asked[row].story[-original.slots :])
        seen = np.asarray(weights)[:, -told:]
        far = max(far, worst(ours[row], scores), worst(looks[row][:, :told], seen))
    return wrong, far


def test_the_reader_answers_fresh_stories_as_the_original(browser: Browser) -> None:
    asked = fresh(1, CASES)
    assert len(asked) == CASES
    wrong, far = answered(browser, asked)
    assert (wrong, far < 1e-3) == (0, True), (wrong, far)


def test_the_reader_answers_the_real_tasks_as_the_original(browser: Browser) -> None:
    wrong, far = answered(browser, real())
    assert (wrong, far < 1e-3) == (0, True), (wrong, far)


@pytest.mark.parametrize(
    "plant",
    [
        ("(bits >> 10) & 31", "(bits >> 10) & 15"),
        ("this.empty = options.empty ?? true", "this.empty = false"),
        ('encoding === "bag"', 'encoding !== "bag"'),
        ("this.numbers.get(word) ?? []", "this.numbers.get(word) ?? 1"),
    ],
)
def test_a_wrong_reader_is_found(browser: Browser, plant: tuple[str, str]) -> None:
    wrong, far = answered(browser, fresh(2, CASES), plant)
    assert min(wrong / 2, far / 0.1) > 1, (wrong, far)


def test_a_text_is_read_as_memlib_reads_it(browser: Browser) -> None:
    chance = random.Random(3)
    pieces = ["Mary", "went", "garden", " ", "  ", "\t", "\n", ",", ".", "?", "!", "n,w", "É", "1"]
    texts = ["", ".", *("".join(chance.choices(pieces, k=12)) for _ in range(CASES))]
    right = []
    for text in texts:
        found = [re.findall(r"[^\s.,?!]+", part) for part in re.split(r"[.?!\n]", text.lower())]
        right.append([words for words in found if words])
    for plant, same in ((("", ""), True), ((r"/[^\s.,?!]+/g", r"/[^\s.?!]+/g"), False)):
        with engine(browser, "vocabulary.js", plant=plant) as page:
            read = ask(page, "text => sentences(text).map(wordsOf)", texts)
            assert (read == right) == same
