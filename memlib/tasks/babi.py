"""The bAbI question-answering tasks (Weston et al. 2015, arXiv 1502.05698): files to tensors.

`read_babi` reads a file into `Question`s, a `Vocabulary` numbers their words, and
`Vocabulary.encode` turns them into `Stories`, which hand out padded or ragged batches. Where the
files come from is `memlib.tasks.babi_files`; stories of our own are `memlib.tasks.babi_stories`.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from memlib import _checks as checks

Sentence = tuple[str, ...]
WORD = re.compile(r"[^\s.,?!]+")
PADDING = ""  # word 0


class BabiError(ValueError):
    """A file that is not what it should be; says which line and what is wrong."""


class Question(NamedTuple):
    """A question with the story told before it.

    Attributes:
        story: the sentences before it, oldest first; earlier questions left out.
        question: its words.
        answer: one string; several answers stay joined by commas, in their order.
        supporting: indices into `story` of the facts that the answer needs.
        task: number of the task, 0 where unknown.
    """

    story: tuple[Sentence, ...]
    question: Sentence
    answer: str
    supporting: tuple[int, ...] = ()
    task: int = 0


class QuestionBatch(NamedTuple):
    """Questions with their stories, padded with word 0.

    Attributes:
        story: (B, N, W) int64, sentences oldest first, then empty ones.
        question: (B, W) int64.
        answer: (B,) int64, class of the right answer; -1 where the vocabulary lacks it.
    """

    story: Tensor
    question: Tensor
    answer: Tensor


class RaggedBatch(NamedTuple):
    """The same without empty sentences.

    Attributes:
        sentences: (total, W) int64, those of all stories one after the other.
        lengths: (B,) int64, how many of them each story has.
        question: (B, W) int64.
        answer: (B,) int64.
    """

    sentences: Tensor
    lengths: Tensor
    question: Tensor
    answer: Tensor


def read_babi(path: str | Path, *, task: int = 0) -> list[Question]:
    r"""Read one file of the bAbI tasks.

    Every line is a number, counted from 1 in each story, and a sentence; a question has after it,
    behind tabs, the answer and the numbers of the supporting sentences. Words are lower-case and
    free of punctuation.

    Args:
        path: of the file, UTF-8.
        task: number kept with each question.

    Returns:
        The questions in the order of the file.

    Raises:
        BabiError: a line that breaks these rules, named by file and number.
        FileNotFoundError: no such file.
        TypeError: task is no integer.
        ValueError: task is below 0.

    Source:
        Weston et al. 2015; the format is told in the README of the archive.

    Example:
        >>> import tempfile
        >>> from memlib.tasks import read_babi
        >>> with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        ...     _ = file.write("1 Mary went home.\n2 Where is Mary?\thome\t1\n")
        ...     file.flush()
        ...     read_babi(file.name)[0].story
        (('mary', 'went', 'home'),)
    """
    path, task = Path(path), checks.integer("task", task, 0)
    questions: list[Question] = []
    story: list[Sentence] = []
    where: dict[int, int] = {}  # number of a line -> index into the story
    before = 0
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise BabiError(
            f"{path.name} must be UTF-8; {error.reason} at byte {error.start}"
        ) from None
    for at, line in enumerate(lines, 1):
        try:
            head, _, rest = line.strip().partition(" ")
            if not head.isascii() or not head.isdigit():
                raise BabiError(f"must begin with a number and a space; got {line[:40]!r}")
            number = int(head)
            if number == 1:
                story, where = [], {}
            elif number != before + 1:
                raise BabiError(f"must be number {before + 1} of its story, or 1; got {number}")
            before = number
            text, *fields = rest.split("\t")
            words = _words(text)
            if not fields:
                where[number] = len(story)
                story.append(words)
                continue
            answer, supporting = _fields(fields, where)
            questions.append(Question(tuple(story), words, answer, supporting, task))
        except BabiError as error:
            raise BabiError(f"{path.name}, line {at}: {error}") from None
    if not questions:
        raise BabiError(f"{path.name} must hold a question; got {len(lines)} lines without one")
    return questions


def _words(text: str) -> Sentence:
    words = tuple(WORD.findall(text.lower()))
    if not words:
        raise BabiError(f"must hold a word; got {text!r}")
    return words


def _fields(fields: Sequence[str], where: dict[int, int]) -> tuple[str, tuple[int, ...]]:
    """Read what stands behind the tabs of a question."""
    if len(fields) > 2:
        raise BabiError(f"must have at most 2 tabs; got {len(fields)}")
    answer = ",".join(part.strip() for part in fields[0].lower().split(","))
    if not answer.strip(","):
        raise BabiError("must have an answer behind the first tab; got none")
    numbers = fields[1].split() if len(fields) > 1 else []
    for number in numbers:
        if not number.isdigit() or int(number) not in where:
            raise BabiError(f"must support itself by earlier sentences of its story; got {number}")
    return answer, tuple(where[int(number)] for number in numbers)


class Vocabulary:
    """Words by number: 0 is padding, then the answers, then all other words.

    Args:
        answers: every answer, in any order.
        words: every other word; one that is an answer too is not counted again.

    Raises:
        ValueError: no answer, or an empty word.

    Example:
        >>> from memlib.tasks import Question, Vocabulary
        >>> home = Question((("mary", "went", "home"),), ("where", "is", "mary"), "home")
        >>> vocabulary = Vocabulary.of([home])
        >>> vocabulary.answers, len(vocabulary)
        (('home',), 6)
        >>> vocabulary.encode([home]).padded().story
        tensor([[[3, 4, 1]]])
    """

    def __init__(self, answers: Iterable[str], words: Iterable[str]) -> None:
        self.answers = tuple(sorted(set(answers)))
        self.words = (PADDING, *self.answers, *sorted(set(words) - set(self.answers)))
        if not self.answers:
            raise ValueError("answers must hold at least one; got none")
        if PADDING in self.words[1:]:
            raise ValueError("a word must not be empty; got ''")
        self._numbers = {word: number for number, word in enumerate(self.words)}

    @classmethod
    def of(cls, questions: Iterable[Question]) -> "Vocabulary":
        """Collect the words of questions and of their stories."""
        answers: set[str] = set()
        sentences: set[Sentence] = set()
        for question in questions:
            answers.add(question.answer)
            sentences.update(question.story, (question.question,))
        return cls(answers, {word for sentence in sentences for word in sentence})

    def __len__(self) -> int:
        """Return the number of words, padding included."""
        return len(self.words)

    def __contains__(self, word: str) -> bool:
        """Tell whether a word has a number."""
        return word in self._numbers

    def number(self, word: str) -> int:
        """Return the number of a word; ValueError names one that is unknown."""
        if word not in self._numbers:
            raise ValueError(f"a word must be one of the {len(self) - 1} known; got {word!r}")
        return self._numbers[word]

    def encode(
        self,
        questions: Sequence[Question],
        *,
        slots: int = 50,
        unknown: Literal["refuse", "skip"] = "refuse",
    ) -> "Stories":
        """Turn questions into numbers.

        Args:
            questions: any number of them.
            slots: sentences kept of each story, the newest.
            unknown: what to do with a word that has no number: refuse it, or skip it, as if it
                had not been said. An answer that has none is -1, never right.

        Returns:
            The stories, ready to be batched.

        Raises:
            ValueError: an unknown word, where refused; or slots below 1.
        """
        slots = checks.integer("slots", slots, 1)
        checks.choice("unknown", unknown, ("refuse", "skip"))
        rows: dict[Sentence, int] = {(): 0}  # every sentence once; row 0 is the empty one
        kept = [q.story[-slots:] for q in questions]
        index = torch.zeros(len(kept), max(map(len, kept), default=0), dtype=torch.int64)
        for row, story in zip(index, kept, strict=True):
            row[: len(story)] = torch.tensor([rows.setdefault(s, len(rows)) for s in story])
        asked = torch.tensor([rows.setdefault(q.question, len(rows)) for q in questions])
        table = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int64)
        for row, sentence in zip(table, rows, strict=True):
            known = [w for w in sentence if unknown == "refuse" or w in self]
            row[: len(known)] = torch.tensor([self.number(w) for w in known])
        answers = {answer: number for number, answer in enumerate(self.answers)}
        answer = torch.tensor([answers.get(q.answer, -1) for q in questions])
        task = torch.tensor([q.task for q in questions])
        return Stories(table, index, asked.long(), answer.long(), task.long())


class Stories(NamedTuple):
    """Many questions in few numbers: every sentence is stored once, stories point to them.

    Attributes:
        sentences: (S, W) int64, words; row 0 is the empty sentence.
        story: (Q, N) int64, rows of `sentences`, oldest first, then 0.
        question: (Q,) int64, rows of `sentences`.
        answer: (Q,) int64, class of the answer; -1 where the vocabulary lacks it.
        task: (Q,) int64.
    """

    sentences: Tensor
    story: Tensor
    question: Tensor
    answer: Tensor
    task: Tensor

    def select(self, rows: Tensor) -> "Stories":
        """Return some of the questions; `rows` are indices (B,), or bool (Q,)."""
        return Stories(self.sentences, *(part[rows] for part in self[1:]))

    def to(self, device: torch.device | str) -> "Stories":
        """Return the same on a device."""
        return Stories(*(part.to(device) for part in self))

    def padded(self, rows: Tensor | None = None) -> QuestionBatch:
        """Return the questions of some rows, all by default, padded to the longest of them."""
        one = self if rows is None else self.select(rows)
        story = one.story[:, : _longest(one.story)]
        found = self.sentences[torch.cat((story, one.question.unsqueeze(1)), dim=1)]  # (B, N+1, W)
        found = found[..., : _longest(found.flatten(0, 1))]
        return QuestionBatch(found[:, :-1], found[:, -1], one.answer)

    def ragged(self, rows: Tensor | None = None) -> RaggedBatch:
        """Return the same without empty sentences."""
        story, question, answer = self.padded(rows)
        told = (story != 0).any(-1)
        return RaggedBatch(story[told], told.sum(1), question, answer)


def _longest(x: Tensor) -> int:
    """Return how many columns of x (R, C) are not 0 in every row."""
    used = (x != 0).any(0).nonzero()
    return int(used[-1]) + 1 if len(used) else 0
