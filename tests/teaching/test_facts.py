"""What the chapter on stores asks about: facts of all countries, and vectors for words."""

import pytest
import torch

pytest.importorskip("countryinfo")
pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")
pytest.importorskip("wordllama")

from memlib import teaching
from memlib.teaching.words import common_words, pieces


def test_facts_say_what_they_are_about():
    facts, provinces = teaching.country_facts()
    assert {fact.relation for fact in facts} == {"capital", "currency", "place"}
    assert {fact.relation for fact in provinces} == {"province"}
    assert all(f.country in f.text and f.answer in f.text for f in (*facts, *provinces))
    assert len(set(facts)) == len(facts)
    pairs = [(fact.country, fact.relation) for fact in facts if fact.relation != "place"]
    assert len(set(pairs)) == len(pairs)
    assert teaching.country_facts() == (facts, provinces)


def test_phrasings_ask_about_a_country():
    for phrases in teaching.PHRASINGS.values():
        assert len(set(phrases)) == len(phrases) == 12
        assert all(phrase.format("Peru").count("Peru") == 1 for phrase in phrases)


def test_a_text_is_rows_of_the_table():
    table, tokens = teaching.word_vectors()
    found = tokens("The capital of Peru is Lima.")
    assert found.tolist() != tokens("The capital of Peru is Cuzco.").tolist()
    assert table.ndim == 2
    assert len(found) >= 6
    assert 0 <= int(found.min()) <= int(found.max()) < len(table)


def test_words_of_a_text_sum_up_to_its_tokens():
    table, tokens = teaching.word_vectors()
    text = "What's the capital of Côte d'Ivoire (Ivory Coast)?"
    words, vectors = teaching.vocabulary([text], others=50)
    assert len(words) == len(set(words)) == len(vectors)
    assert pieces(text)[:4] == [" What", "'", "s", " the"]
    total = vectors[[words.index(piece) for piece in pieces(text)]].sum(dim=0)
    assert torch.allclose(total, table[tokens(text)].sum(dim=0), atol=1e-4)


def test_common_words_come_in_the_order_of_the_tokenizer():
    common = common_words(100)
    assert len(set(common)) == 100
    assert common[0] == " the"
    assert common_words(10) == common[:10]
