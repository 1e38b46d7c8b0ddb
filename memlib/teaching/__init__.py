"""Helpers for the notebooks alone: figures, animations, explorables, quizzes, checkers, files.

Nothing in memlib imports this package; matplotlib and IPython are imported where they are used.
"""

from memlib.teaching.explore import byte_rows, explore
from memlib.teaching.facts import PHRASINGS, Fact, country_facts, word_vectors
from memlib.teaching.figures import draw_memory, figure, heat, show
from memlib.teaching.files import find, ready
from memlib.teaching.player import animate
from memlib.teaching.quiz import quiz
from memlib.teaching.style import ACCENT, GROUND, INK, MUTED, SECOND, style
from memlib.teaching.words import vocabulary

__all__ = [
    "ACCENT",
    "GROUND",
    "INK",
    "MUTED",
    "PHRASINGS",
    "SECOND",
    "Fact",
    "animate",
    "byte_rows",
    "country_facts",
    "draw_memory",
    "explore",
    "figure",
    "find",
    "heat",
    "quiz",
    "ready",
    "show",
    "style",
    "vocabulary",
    "word_vectors",
]
