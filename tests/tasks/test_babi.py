"""The bAbI reader against the format, and against the real files where they are at hand."""

import os
from pathlib import Path

import pytest
import torch

from memlib.tasks import BabiError, Question, Vocabulary, read_babi

REAL = Path(os.environ.get("MEMLIB_DATA", Path(__file__).parents[3] / "shared/data/babi")) / "en"
real = pytest.mark.skipif(not REAL.is_dir(), reason=f"the bAbI files are not in {REAL}")

STORY = """\
1 Mary moved to the bathroom.
2 John went to the hallway.
3 Where is Mary? \tbathroom\t1
4 Daniel went back to the hallway.
5 What do John and Daniel see?\tbathroom,Hallway\t2 4
1 Sandra journeyed, at last, to the kitchen.
2 Is Sandra in the kitchen?\tyes
"""


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "qa.txt"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_a_file_in_full(write):
    first, second, third = read_babi(write(STORY), task=7)
    told = (("mary", "moved", "to", "the", "bathroom"), ("john", "went", "to", "the", "hallway"))
    assert first == Question(told, ("where", "is", "mary"), "bathroom", (0,), 7)
    assert second.story == (*told, ("daniel", "went", "back", "to", "the", "hallway"))
    assert (second.answer, second.supporting) == ("bathroom,hallway", (1, 2))  # line 4 is fact 2
    assert third.story == (("sandra", "journeyed", "at", "last", "to", "the", "kitchen"),)
    assert (third.answer, third.supporting) == ("yes", ())


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", ["", "\n", "\n\n", "\n \t\n", "\n\n\n   "])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_what_editors_add_does_not_matter(write, mark, end, last):
    text = mark + (STORY.rstrip() + last).replace("\n", end)
    assert read_babi(write(text.encode())) == read_babi(write(STORY))


def test_line_ends_and_a_missing_last_one_do_not_matter(write):
    expected = read_babi(write(STORY))
    assert read_babi(write(STORY.replace("\n", "\r\n"))) == expected
    assert read_babi(write(STORY.rstrip())) == expected


BAD = [
    ("x Mary went.\n", r"line 1: must begin with a number and a space; got 'x Mary went.'"),
    ("1 Mary went.\n\n2 Where?\thome\t1\n", "line 2: must begin with a number.*; got ''"),
    ("² Mary went.\n", r"line 1: must begin with a number and a space; got '² Mary went.'"),
    ("1 Mary.\n٢ Where?\thome\t1\n", r"line 2: must begin with a number and a space; got '٢ Wh"),
    (f"{'9' * 5000} Mary.\n", rf"line 1: must begin with a number and a space; got '{'9' * 40}'$"),
    ("1 Mary went.\n\ufeff2 Where?\thome\t1\n", "line 2: must begin with a number"),
    ("1 Mary went.\n2 Where?\thome\t²\n", "line 2: must support itself by earlier.*; got ²"),
    ("1 Mary went.\n2 Where?\thome\t１\n", "line 2: must support itself by earlier.*; got １"),
    (f"1 A.\n2 B?\tc\t{'1' * 5000}\n", rf"line 2: must support itself by.*; got {'1' * 40}$"),
    (b"\xef\xbb\xbf1 M\xffry went.\n", "must be UTF-8; invalid start byte at byte 6"),
    ("1 Mary went.\n".encode("utf-16"), "must be UTF-8; invalid start byte at byte 0"),
    ("1 Mary went.\n3 Where?\thome\t1\n", "line 2: must be number 2 of its story, or 1; got 3"),
    ("2 Mary went.\n", "line 1: must be number 1 of its story, or 1; got 2"),
    ("1 ...\n", r"line 1: must hold a word; got '...'"),
    ("1\n", "line 1: must hold a word; got ''"),
    ("1 Mary went.\n2 Where?\t\t1\n", "line 2: must have an answer behind the first tab; got none"),
    ("1 Mary went.\n2 Where?\thome\t1\t2\n", "line 2: must have at most 2 tabs; got 3"),
    ("1 Mary went.\n2 Where?\thome\t2\n", "line 2: must support itself by earlier.*; got 2"),
    ("1 Mary went.\n2 Where?\thome\tone\n", "line 2: must support itself by earlier.*; got one"),
    ("1 A.\n2 B?\tc\t1\n3 D?\te\t2\n", "line 3: must support itself by earlier sentences.*got 2"),
    ("1 Mary went.\n", "must hold a question; got 1 lines without one"),
    ("", "must hold a question; got 0 lines"),
    (b"1 M\xffry went.\n", "must be UTF-8; invalid start byte at byte 3"),
]


@pytest.mark.parametrize(("text", "words"), BAD)
def test_a_bad_line_is_named(write, text, words):
    with pytest.raises(BabiError, match=rf"qa\.txt.*{words}"):
        read_babi(write(text))


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_babi(tmp_path / "none.txt")


def test_numbers_of_words(write):
    questions = read_babi(write(STORY))
    vocabulary = Vocabulary.of(questions)
    assert vocabulary.answers == ("bathroom", "bathroom,hallway", "yes")
    assert vocabulary.words[:4] == ("", *vocabulary.answers)
    assert vocabulary.words[4:] == tuple(sorted(vocabulary.words[4:]))
    assert [vocabulary.number(word) for word in vocabulary.words] == [*range(len(vocabulary))]
    assert "hallway" in vocabulary
    assert "cellar" not in vocabulary
    with pytest.raises(ValueError, match=r"one of the 24 known; got 'cellar'"):
        vocabulary.number("cellar")
    with pytest.raises(ValueError, match="answers must hold at least one"):
        Vocabulary([], ["a"])
    with pytest.raises(ValueError, match="must not be empty"):
        Vocabulary(["a"], [""])


def spell(vocabulary, numbers):
    return tuple(vocabulary.words[n] for n in numbers.tolist() if n)


def test_questions_come_back_from_their_numbers(write):
    questions = read_babi(write(STORY))
    vocabulary = Vocabulary.of(questions)
    stories = vocabulary.encode(questions)
    story, question, answer = stories.padded()
    assert story.shape == (3, 3, 7)
    for i, q in enumerate(questions):
        assert spell(vocabulary, question[i]) == q.question
        assert tuple(spell(vocabulary, s) for s in story[i] if s.any()) == q.story
        assert vocabulary.answers[answer[i]] == q.answer
    assert story.dtype == question.dtype == answer.dtype == torch.int64
    assert len(stories.sentences) == 1 + 4 + 3  # each once, and the empty one


def test_a_batch_is_as_small_as_its_rows_allow(write):
    questions = read_babi(write(STORY))
    stories = Vocabulary.of(questions).encode(questions)
    story, question, answer = stories.padded(torch.tensor([0, 0]))
    assert (story.shape, question.shape, answer.shape) == ((2, 2, 5), (2, 5), (2,))
    full = stories.padded()
    assert torch.equal(story[0], full.story[0, :2, :5])
    sentences, lengths, asked, answer = stories.ragged(torch.tensor([2, 1]))
    assert lengths.tolist() == [1, 3]
    assert torch.equal(sentences, full.story[[2, 1, 1, 1], [0, 0, 1, 2]])
    assert torch.equal(asked, full.question[[2, 1]])
    none = stories.padded(torch.zeros(0, dtype=torch.int64))
    assert (none.story.shape, none.question.shape) == ((0, 0, 0), (0, 0))


def test_the_newest_sentences_are_kept(write):
    questions = read_babi(write(STORY))
    vocabulary = Vocabulary.of(questions)
    short = vocabulary.encode(questions, slots=2).padded()
    assert short.story.shape[1] == 2
    assert tuple(spell(vocabulary, s) for s in short.story[1]) == questions[1].story[-2:]
    with pytest.raises(ValueError, match="slots must be at least 1; got 0"):
        vocabulary.encode(questions, slots=0)


def test_what_is_not_in_the_vocabulary(write):
    questions = read_babi(write(STORY))
    vocabulary = Vocabulary.of(questions[:1])
    with pytest.raises(ValueError, match="a word must be one of the 10 known; got"):
        vocabulary.encode(questions[1:2])
    stories = vocabulary.encode(questions[1:2], unknown="skip").padded()
    assert stories.answer.tolist() == [-1]  # an answer it cannot give
    assert spell(vocabulary, stories.story[0, 2]) == ("went", "to", "the", "hallway")
    with pytest.raises(ValueError, match="unknown must be one of refuse, skip; got 'drop'"):
        vocabulary.encode(questions, unknown="drop")


def test_questions_without_stories():
    alone = Question((), ("why",), "because")
    stories = Vocabulary.of([alone]).encode([alone, alone])
    story, question, _ = stories.padded()
    assert story.shape == (2, 0, 1)
    assert question.tolist() == [[2], [2]]
    nothing = Vocabulary.of([alone]).encode([])
    assert nothing.padded().story.shape == (0, 0, 0)
    assert nothing.ragged().lengths.shape == (0,)


def test_stories_move_and_are_selected(write):
    questions = read_babi(write(STORY), task=3)
    stories = Vocabulary.of(questions).encode(questions)
    some = stories.select(stories.answer == 0)
    assert (some.question.shape, some.task.tolist()) == ((1,), [3])
    assert stories.to("meta").story.device.type == "meta"


@real
def test_the_real_files():
    found = {path.name: read_babi(path) for path in sorted(REAL.glob("*.txt"))}
    assert len(found) == 40
    assert all(len(questions) == 1000 for questions in found.values())
    every = [q for questions in found.values() for q in questions]
    assert max(len(q.story) for q in every) == 228
    vocabulary = Vocabulary.of(every)
    stories = vocabulary.encode(every)
    assert stories.story.shape == (40_000, 50)
    last = stories.padded(torch.tensor([len(every) - 1]))
    assert spell(vocabulary, last.question[0]) == every[-1].question
    apples = next(q for q in found["qa8_lists-sets_train.txt"] if "," in q.answer)
    assert apples.answer in vocabulary.answers
