"""Words that a page knows: pieces of texts, and a vector for each, as the tokenizer would have it.

The tokenizer works on whole texts and is far too large for a page. But no token of it goes beyond
a run of letters or a run of signs, so that a text is the sum of such pieces.
"""

import re
from collections.abc import Iterable

import torch
from torch import Tensor

from memlib.teaching.facts import tokenizer, word_vectors

PIECE = re.compile(r" ?(?:[^\W_]+|(?:[^\w\s]|_)+)")
WORD = re.compile("▁[a-z]{3,}")
SIGNS = "?", ".", ",", "!", "'", '"', " (", ")", "-", ":", ";"


def pieces(text: str) -> list[str]:
    """Return the runs of letters and of signs, each with the space before it.

    Example:
        >>> pieces("What's Peru?")
        [' What', "'", 's', ' Peru', '?']
    """
    return PIECE.findall(" " + " ".join(text.split()))


def common_words(count: int) -> list[str]:
    """Return the first words of the tokenizer's own list, which begins with the commonest.

    A word has small letters alone, at least three, and is on the list with a capital, too.
    """
    known = tokenizer().get_vocab()
    words = [word for word in known if WORD.fullmatch(word) and word.title() in known]
    return [" " + word[1:] for word in sorted(words, key=known.__getitem__)[:count]]


def vocabulary(texts: Iterable[str], others: int = 2000) -> tuple[list[str], Tensor]:
    """Return all pieces of texts and so many other common words, and the vector of each, (W, M).

    The sum of the vectors of a text's pieces is, but for its length, the mean of its tokens.
    """
    table, tokens = word_vectors()
    own = dict.fromkeys(piece for text in texts for piece in pieces(text)) | dict.fromkeys(SIGNS)
    common = [word for word in common_words(others + len(own)) if word not in own]
    words = [*own, *common[:others]]
    # a line's end joins no token: what is left without the two before it stands within a word
    inner = [tokens(word[1:] if word[0] == " " else f"\n{word}") for word in words]
    rows = [ids if word[0] == " " else ids[2:] for word, ids in zip(words, inner, strict=True)]
    return words, torch.stack([table[row].sum(dim=0) for row in rows])
