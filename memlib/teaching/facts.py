"""What *Large stores* asks about: facts of all countries, and vectors for words."""

import unicodedata
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

PHRASINGS = {  # ways to ask for a capital and a currency; the first few name it
    "capital": (
        "What is the capital of {}?",
        "Which city is the capital of {}?",
        "Name the capital of {}.",
        "Tell me {}'s capital.",
        "Which city governs {}?",
        "Where does the government of {} sit?",
        "From which city is {} ruled?",
        "What is the seat of government of {}?",
        "Where is the parliament of {}?",
        "Where does the president of {} live?",
        "What is the most important city of {}?",
        "Where do the ministers of {} work?",
    ),
    "currency": (
        "What is the currency of {}?",
        "Which currency is used in {}?",
        "Name the currency of {}.",
        "What money do people use in {}?",
        "What do you pay with in {}?",
        "Which money is used in {}?",
        "How do people pay in {}?",
        "What coins are used in {}?",
        "What cash do I need in {}?",
        "Which banknotes are printed in {}?",
        "In what are wages paid in {}?",
        "What does the central bank of {} issue?",
    ),
}


NAME = "l2_supercat"  # of the table and the tokenizer among the files of wordllama


class Fact(NamedTuple):
    """A fact and its sentence.

    Attributes:
        country: whom it is about.
        relation: "capital", "currency", "place" or "province".
        answer: what one may ask for.
        text: the sentence.
    """

    country: str
    relation: str
    answer: str
    text: str


def word_vectors() -> tuple[Tensor, Callable[[str], Tensor]]:
    """Return a table of vectors, one a token, and what turns a text into the rows of its tokens.

    Both are files of the package wordllama, made from the token tables of large language models.
    They are read as files, for its own loader looks in another folder and then asks the network.
    """
    from safetensors.torch import load_file

    table = load_file(_folder() / f"weights/{NAME}_256.safetensors")["embedding.weight"].float()
    encode = tokenizer().encode

    def tokens(text: str) -> Tensor:
        return torch.tensor(encode(text, add_special_tokens=False).ids)

    return table, tokens


def tokenizer() -> Any:
    """Return what turns texts into tokens."""
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(_folder() / f"tokenizers/{NAME}_tokenizer_config.json"))


def _folder() -> Path:
    spec = find_spec("wordllama")
    (place,) = (spec.submodule_search_locations if spec else None) or [""]
    return Path(place)


def country_facts() -> tuple[list[Fact], list[Fact]]:
    """Return capitals, currencies and places of all countries, and apart from them the provinces.

    They are what the package countryinfo says, a few of them out of date. A place is a city that
    a time zone is named after, unless it is called like its country or its capital.
    """
    from countryinfo import all_countries

    facts, provinces = [], []
    for country in sorted(all_countries(), key=lambda country: country.name()):
        name, known = country.name(), country.info()
        if capital := _only(known.get("capital")):
            facts.append(Fact(name, "capital", capital, f"The capital of {name} is {capital}."))
        if money := " and ".join(known.get("currencies") or []):
            facts.append(Fact(name, "currency", money, f"The currency of {name} is {money}."))
        zones = [zone.split("/")[-1].replace("_", " ") for zone in known.get("timezoneNames") or []]
        for place in sorted(set(zones)):
            if _letters(place) not in _letters(f"{name} {capital}"):
                facts.append(Fact(name, "place", place, f"{place} is a place in {name}."))
        for province in known.get("provinces") or []:
            text = f"{province} is a province of {name}."
            provinces.append(Fact(name, "province", province, text))
    return facts, provinces


def _only(value: Any) -> str | None:
    """Return what the package says, if it says one thing."""
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    return value.strip() if isinstance(value, str) and value.strip() else None


def _letters(name: str) -> str:
    return unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
