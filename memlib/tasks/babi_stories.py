"""Stories in the manner of the bAbI tasks (Weston et al. 2015), told by a world of our own.

They need no files, so that a page runs anywhere. The grammar is that of the tasks; names, places
and things are ours, and results on them are no results on bAbI.
"""

from collections.abc import Callable, Iterator
from itertools import chain, islice, repeat
from random import Random
from typing import NamedTuple

import torch
from torch import Generator

from memlib import _checks as checks
from memlib.tasks.babi import Question, Sentence

PEOPLE = {"nora": "she", "lena": "she", "hugo": "he", "omar": "he"}
PLACES = ("attic", "cellar", "library", "pantry", "stable", "workshop")
THINGS = ("lantern", "kettle", "violin")
WALKS = (("walked",), ("ran",), ("hurried",), ("wandered",), ("came", "back"))
TAKES = (("took",), ("fetched",), ("collected",), ("picked", "up"))
DROPS = (("dropped",), ("left",), ("released",), ("put", "down"))
GIVES = (("gave",), ("handed",), ("passed",))
LATER = (("then",), ("later",), ("soon",), ("after", "that"))
NUMBERS = ("none", "one", "two", "three")
ANIMALS = {"fox": "foxes", "goose": "geese", "frog": "frogs", "horse": "horses"}
PETS = ("ruby", "oscar", "daisy", "felix")
ROUNDS = 5  # questions a story


def babi_stories(task: int, count: int, *, generator: Generator | None = None) -> list[Question]:
    """Tell stories and ask about them, five questions a story, four in task 15.

    Args:
        task: 1, 2 or 3, where somebody or something is, or was before, by that many facts;
            6, yes or no; 7, how many things somebody carries; 11, pronouns; 15, deduction.
        count: number of questions.
        generator: the source of chance, on the CPU.

    Returns:
        Questions whose answers are single words. Their supporting facts, in the order of the
        story, prove the answer without the others.

    Raises:
        TypeError: task or count no integer.
        ValueError: a task that is not told here, or count below 0.

    Source:
        Weston et al. 2015, section 3.

    Example:
        >>> from torch import Generator
        >>> from memlib.tasks import babi_stories
        >>> first = babi_stories(1, 1, generator=Generator().manual_seed(0))[0]
        >>> [" ".join(fact) for fact in first.story]
        ['hugo walked to the attic', 'nora walked to the pantry']
        >>> " ".join(first.question), first.answer, first.supporting
        ('where is nora', 'pantry', (1,))
    """
    task = checks.integer("task", task, 1, 20)
    count = checks.integer("count", count, 0)
    if task not in TELLERS:
        told = ", ".join(map(str, TELLERS))
        raise ValueError(f"task must be one of {told}, which are told here; got {task}")
    random = Random(int(torch.randint(2**62, (), generator=generator)))
    stories = (TELLERS[task](random) for _ in repeat(None))
    asked = islice(chain.from_iterable(stories), count)
    return [question._replace(task=task) for question in asked]


class _Fact(NamedTuple):
    """Where somebody or something is, by the sentences that tell it."""

    place: str
    facts: tuple[int, ...]


class _World:
    """People who walk about and carry things, and which sentences tell what is so."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.story: list[Sentence] = []
        self.walks: dict[str, list[_Fact]] = {}  # of each person, oldest first
        self.carried: dict[str, tuple[str, int]] = {}  # thing -> who, and since which sentence
        self.lying: dict[str, _Fact] = {}  # where a thing was put down; before that, anywhere
        self.brought: dict[str, dict[str, _Fact]] = {}  # thing -> to where -> from where, at last
        self.handled: dict[str, list[int]] = {}  # what each person took, dropped, gave and got

    def tell(self, *words: str) -> int:
        """Add a sentence; return its number."""
        self.story.append(words)
        return len(self.story) - 1

    def ask(self, *words: str, answer: str, by: tuple[int, ...]) -> Question:
        """Ask about what has been told so far."""
        return Question(tuple(self.story), words, answer, tuple(sorted(by)))

    def some(self, phrases: tuple[Sentence, ...]) -> Sentence:
        """Choose one of some ways to say the same."""
        return self.random.choice(phrases)

    def elsewhere(self, person: str) -> str:
        """Choose a place where the person is not known to be."""
        here = self.walks[person][-1].place if person in self.walks else None
        return self.random.choice([place for place in PLACES if place != here])

    def act(self, *acts: Callable[[str], bool]) -> None:
        """Let somebody do one of some things that can be done now."""
        while not self.random.choice(acts)(self.random.choice([*PEOPLE])):
            pass

    def walk(self, person: str) -> bool:
        """Go to another place, with all that is carried."""
        place = self.elsewhere(person)
        at = self.tell(person, *self.some(WALKS), "to", "the", place)
        before = self.walks.setdefault(person, [])
        for thing, (carrier, since) in self.carried.items():
            if carrier == person:
                proof = (*before[-1].facts, since, at)
                self.brought.setdefault(thing, {})[place] = _Fact(before[-1].place, proof)
        before.append(_Fact(place, (at,)))
        return True

    def take(self, person: str) -> bool:
        """Take a thing that lies here, or one that has not been seen so far."""
        if person not in self.walks:
            return False
        here = self.walks[person][-1].place
        free = [t for t in THINGS if t not in self.carried]
        near = [t for t in free if t not in self.lying or self.lying[t].place == here]
        if not near:
            return False
        thing = self.random.choice(near)
        at = self.tell(person, *self.some(TAKES), "the", thing)
        self.carried[thing] = (person, at)
        self.handled.setdefault(person, []).append(at)
        return True

    def drop(self, person: str) -> bool:
        """Put down a thing."""
        held = self.held(person)
        if not held:
            return False
        thing = self.random.choice(held)
        at = self.tell(person, *self.some(DROPS), "the", thing)
        here = self.walks[person][-1]
        del self.carried[thing]
        self.lying[thing] = _Fact(here.place, (*here.facts, at))
        self.handled[person].append(at)
        return True

    def give(self, person: str) -> bool:
        """Give a thing to somebody who is here too."""
        held = self.held(person)
        here = self.walks[person][-1].place if held else None
        near = [p for p in self.walks if p != person and self.walks[p][-1].place == here]
        if not near:
            return False
        thing, other = self.random.choice(held), self.random.choice(near)
        at = self.tell(person, *self.some(GIVES), "the", thing, "to", other)
        self.carried[thing] = (other, at)
        self.handled[person].append(at)
        self.handled.setdefault(other, []).append(at)
        return True

    def held(self, person: str) -> list[str]:
        """Return what a person carries."""
        return [thing for thing, (carrier, _) in self.carried.items() if carrier == person]

    def thing(self, thing: str) -> _Fact:
        """Return where a thing is that has been taken before."""
        if thing not in self.carried:
            return self.lying[thing]
        carrier, since = self.carried[thing]
        place, facts = self.walks[carrier][-1]
        return _Fact(place, (*facts, since))


def _one_fact(random: Random) -> Iterator[Question]:
    """Where is nora?"""
    world = _World(random)
    for _ in range(ROUNDS):
        world.act(world.walk)
        world.act(world.walk)
        person = random.choice([*world.walks])
        place, facts = world.walks[person][-1]
        yield world.ask("where", "is", person, answer=place, by=facts)


def _two_facts(random: Random) -> Iterator[Question]:
    """Where is the lantern?"""
    world = _World(random)
    for _ in range(ROUNDS):
        for _ in range(random.randint(2, 6)):
            world.act(world.walk, world.walk, world.take, world.drop)
        while not (seen := [*world.carried, *world.lying]):
            world.act(world.walk, world.take)
        thing = random.choice(sorted({*seen}))
        place, facts = world.thing(thing)
        yield world.ask("where", "is", "the", thing, answer=place, by=facts)


def _three_facts(random: Random) -> Iterator[Question]:
    """Where was the lantern before the attic (the last time it was brought there)?"""
    world = _World(random)
    for _ in range(ROUNDS):
        for _ in range(random.randint(3, 8)):
            world.act(world.walk, world.walk, world.take, world.drop)
        while not world.brought:
            world.act(world.walk, world.take)
        thing = random.choice([*world.brought])
        place = random.choice([*world.brought[thing]])
        before, facts = world.brought[thing][place]
        words = ("where", "was", "the", thing, "before", "the", place)
        yield world.ask(*words, answer=before, by=facts)


def _yes_or_no(random: Random) -> Iterator[Question]:
    """Is nora in the attic?"""
    world = _World(random)
    for _ in range(ROUNDS):
        world.act(world.walk)
        world.act(world.walk, world.take, world.drop)
        person = random.choice([*world.walks])
        place, facts = world.walks[person][-1]
        answer = random.choice(("yes", "no"))
        asked = place if answer == "yes" else world.elsewhere(person)
        yield world.ask("is", person, "in", "the", asked, answer=answer, by=facts)


def _counting(random: Random) -> Iterator[Question]:
    """How many things is nora carrying?"""
    world = _World(random)
    for _ in range(ROUNDS):
        for _ in range(random.randint(2, 4)):
            world.act(world.walk, world.take, world.drop, world.give)
        while not world.handled:
            world.act(world.walk, world.take)
        person = random.choice([*world.handled])
        number, facts = NUMBERS[len(world.held(person))], tuple(world.handled[person])
        words = ("how", "many", "things", "is", person, "carrying")
        yield world.ask(*words, answer=number, by=facts)


def _pronouns(random: Random) -> Iterator[Question]:
    """Nora walked to the attic. Then she ran to the cellar. Where is nora?"""
    world = _World(random)
    last: dict[str, _Fact] = {}
    for _ in range(ROUNDS):
        person = random.choice([*PEOPLE])
        world.walk(person)
        place = world.elsewhere(person)
        told = (*world.some(LATER), PEOPLE[person], *world.some(WALKS), "to", "the", place)
        at = world.tell(*told)
        last[person] = _Fact(place, (at - 1, at))
        world.walks[person].append(last[person])
        asked = random.choice([*last])
        yield world.ask("where", "is", asked, answer=last[asked].place, by=last[asked].facts)


def _deduction(random: Random) -> Iterator[Question]:
    """Foxes are afraid of frogs. Ruby is a fox. What is ruby afraid of?"""
    world = _World(random)
    kinds = {pet: random.choice([*ANIMALS]) for pet in PETS}
    fears = {kind: random.choice([other for other in ANIMALS if other != kind]) for kind in ANIMALS}
    facts: list[Sentence] = [(pet, "is", "a", kind) for pet, kind in kinds.items()]
    facts += [(ANIMALS[a], "are", "afraid", "of", ANIMALS[b]) for a, b in fears.items()]
    random.shuffle(facts)
    at = {fact[0]: world.tell(*fact) for fact in facts}
    for _ in PETS:
        pet = random.choice(PETS)
        by = (at[pet], at[ANIMALS[kinds[pet]]])
        yield world.ask("what", "is", pet, "afraid", "of", answer=fears[kinds[pet]], by=by)


TELLERS: dict[int, Callable[[Random], Iterator[Question]]] = {
    1: _one_fact,
    2: _two_facts,
    3: _three_facts,
    6: _yes_or_no,
    7: _counting,
    11: _pronouns,
    15: _deduction,
}
