"""What the chapter on stores asks about: facts of all countries, and vectors for words."""

import pytest

pytest.importorskip("countryinfo")
pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")
pytest.importorskip("wordllama")

from memlib import teaching


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
