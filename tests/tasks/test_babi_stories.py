"""Stories of our own against a second telling of their world, which knows nothing of the first."""

import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Generator

from memlib.tasks import Question, Vocabulary, babi_stories, read_babi

TASKS = (1, 2, 3, 6, 7, 11, 15)
REAL = Path(__file__).parents[3] / "shared/data/babi/en"
real = pytest.mark.skipif(not REAL.is_dir(), reason=f"the bAbI files are not in {REAL}")
SINGULAR = {"foxes": "fox", "geese": "goose", "frogs": "frog", "horses": "horse"}


def told(task, count=300, seed=0):
    return babi_stories(task, count, generator=Generator().manual_seed(seed))


class Replay:
    """Plays a story sentence by sentence; `strict` refuses what cannot happen."""

    def __init__(self, story, strict=False):
        self.at, self.holder, self.spot, self.trail = {}, {}, {}, {}
        self.kind, self.fear, self.subject, self.strict = {}, {}, None, strict
        for sentence in story:
            self.play(sentence)

    def must(self, holds):
        assert holds or not self.strict

    def play(self, s):
        match s:
            case (pet, "is", "a", kind):
                self.kind[pet] = kind
            case (some, "are", "afraid", "of", others):
                self.fear[SINGULAR[some]] = SINGULAR[others]
            case (*before, "he" | "she", _, "to", "the", place):
                self.must(before)
                self.walk(self.subject, place)
            case (*_, "he" | "she", "came", "back", "to", "the", place):
                self.walk(self.subject, place)
            case (person, *_, "to", "the", place):
                self.walk(person, place)
            case (person, "took" | "fetched" | "collected", "the", thing):
                self.take(person, thing)
            case (person, "picked", "up", "the", thing):
                self.take(person, thing)
            case (person, "dropped" | "left" | "released", "the", thing):
                self.drop(person, thing)
            case (person, "put", "down", "the", thing):
                self.drop(person, thing)
            case (person, "gave" | "handed" | "passed", "the", thing, "to", other):
                self.must(self.holder.get(thing) == person)
                self.must(self.at.get(person) == self.at.get(other) != None)  # noqa: E711
                self.holder[thing] = other
            case _:
                raise AssertionError(s)

    def walk(self, person, place):
        self.must(self.at.get(person) != place)
        self.subject = person
        self.at[person] = place
        for thing, holder in self.holder.items():
            if holder == person:
                self.trail[thing].append(place)

    def take(self, person, thing):
        place = self.at.get(person)
        self.must(place and not self.holder.get(thing) and self.spot.get(thing, place) == place)
        self.holder[thing] = person
        trail = self.trail.setdefault(thing, [])
        if place and trail[-1:] != [place]:
            trail.append(place)

    def drop(self, person, thing):
        self.must(self.holder.get(thing) == person)
        self.holder[thing] = None
        self.spot[thing] = self.at.get(person)

    def answer(self, question):
        """The answer, or None where the story does not tell."""
        match question:
            case ("where", "is", "the", thing):
                holder = self.holder.get(thing)
                return self.at.get(holder) if holder else self.spot.get(thing)
            case ("where", "is", person):
                return self.at.get(person)
            case ("where", "was", "the", thing, "before", "the", place):
                trail = self.trail.get(thing, [])
                last = max((i for i, p in enumerate(trail) if p == place), default=0)
                return trail[last - 1] if last else None
            case ("is", person, "in", "the", place):
                here = self.at.get(person)
                return here and ("yes" if here == place else "no")
            case ("how", "many", "things", "is", person, "carrying"):
                return ("none", "one", "two", "three")[[*self.holder.values()].count(person)]
            case ("what", "is", pet, "afraid", "of"):
                return self.fear.get(self.kind.get(pet))
        raise AssertionError(question)


@pytest.fixture(params=TASKS)
def questions(request):
    return told(request.param)


def test_a_second_telling_finds_the_same_answers(questions):
    for q in questions:
        assert Replay(q.story, strict=True).answer(q.question) == q.answer


def test_the_supporting_facts_prove_the_answer_alone_and_none_is_idle(questions):
    for q in questions:
        facts = [q.story[i] for i in q.supporting]
        assert list(q.supporting) == sorted({*q.supporting})
        assert Replay(facts).answer(q.question) == q.answer
        if q.task == 7:  # what was taken and put down again cancels; all of it has to be counted
            person = q.question[4]
            moved = [s for s in q.story if person in s and s[-3:-1] != ("to", "the")]
            assert facts == moved
            continue
        assert len(facts) == {1: 1, 2: 2, 3: 3, 6: 1, 11: 2, 15: 2}[q.task]
        for i in range(len(facts)):
            assert Replay(facts[:i] + facts[i + 1 :]).answer(q.question) != q.answer


def test_single_words_and_a_story_that_grows(questions):
    words = [w for q in questions for s in (*q.story, q.question, (q.answer,)) for w in s]
    assert all(re.fullmatch("[a-z]+", word) for word in words)
    per_story = 4 if questions[0].task == 15 else 5
    for i, q in enumerate(questions):
        if i % per_story:
            before = questions[i - 1].story
            assert q.story[: len(before)] == before
        assert len(q.story) <= 50  # the slots of the paper


def test_answers_are_spread(questions):
    share = Counter(q.answer for q in questions).most_common(1)[0][1] / len(questions)
    assert share < {6: 0.6, 7: 0.7, 15: 0.4}.get(questions[0].task, 0.3)


def test_every_number_of_things_is_an_answer():
    assert {q.answer for q in told(7)} == {"none", "one", "two", "three"}


def test_they_can_be_written_to_a_file_and_read_again(questions, tmp_path):
    lines = []
    for q in questions:
        facts = [f"{i} {' '.join(s).capitalize()}." for i, s in enumerate(q.story, 1)]
        support = " ".join(str(i + 1) for i in q.supporting)
        asked = f"{len(facts) + 1} {' '.join(q.question)}?\t{q.answer}\t{support}"
        lines += [*facts, asked]
    path = tmp_path / "qa.txt"
    path.write_text("\n".join(lines) + "\n")
    assert read_babi(path, task=questions[0].task) == questions


def test_they_are_encoded_as_the_real_ones(questions):
    vocabulary = Vocabulary.of(questions)
    story, question, answer = vocabulary.encode(questions).padded()
    assert len(story) == len(question) == len(answer) == len(questions)
    assert (answer >= 0).all()
    assert vocabulary.answers == tuple(sorted({q.answer for q in questions}))


@pytest.mark.parametrize("task", TASKS)
def test_a_seed_tells_one_story(task):
    assert told(task, 20, seed=1) == told(task, 20, seed=1) != told(task, 20, seed=2)
    assert told(task, 30, seed=1)[:20] == told(task, 20, seed=1)
    assert told(task, 0) == []
    before = torch.get_rng_state()
    told(task, 5)
    assert torch.equal(torch.get_rng_state(), before)
    generator = Generator().manual_seed(0)
    assert babi_stories(task, 5, generator=generator) != babi_stories(task, 5, generator=generator)
    assert all(isinstance(q, Question) and q.task == task for q in babi_stories(task, 3))


@real
def test_no_sentence_is_one_of_the_real_ones():
    ours = {s for task in TASKS for q in told(task) for s in (*q.story, q.question)}
    theirs = {
        s for path in REAL.glob("*.txt") for q in read_babi(path) for s in (*q.story, q.question)
    }
    assert not ours & theirs


REFUSALS = [
    (lambda: babi_stories(4, 1), ValueError, "task must be one of 1, 2, 3, 6, 7, 11, 15, "),
    (lambda: babi_stories(21, 1), ValueError, "task must be in [1, 20]; got 21"),
    (lambda: babi_stories("1", 1), TypeError, "task must be an integer; got str"),
    (lambda: babi_stories(1, -1), ValueError, "count must be at least 0; got -1"),
    (lambda: babi_stories(1, 1.0), TypeError, "count must be an integer; got float"),
]


@pytest.mark.parametrize(("call", "kind", "message"), REFUSALS, ids=[m for _, _, m in REFUSALS])
def test_bad_input_is_refused(call, kind, message):
    with pytest.raises(kind, match=re.escape(message)):
        call()
