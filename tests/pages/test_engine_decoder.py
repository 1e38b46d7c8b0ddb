"""The page's Transformer against memlib's: its layers, any decoder, and the chapter's machine."""

from __future__ import annotations

import base64
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from apart import FILE, by_cache, by_hand, chapter, machine
from engine import ask, engine, worst
from playwright.sync_api import Browser
from torch import Generator, Tensor

from experiments import capitals
from memlib import Decoder, FeedForward, MemoryAttention
from memlib.teaching.explore.weights import pack
from memlib.transformer.positions import _rotate, _turns

CASES, CLOSE, HALF, SURE = 200, 1e-5, 1e-3, 0.02
PARTS = [f"{part} of {n}" for n in (1, 2) for part in ("head 1", "head 2", "feed-forward")]


def randomly(module: torch.nn.Module, rng: np.random.Generator, scale: float) -> None:
    """Draw all parameters; norms too, which are 1 and 0 otherwise."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.tensor(rng.normal(size=tuple(parameter.shape)) * scale))


# Layers, at sizes and scales drawn at random


def layers(seed: int, count: int) -> tuple[list[dict[str, Any]], list[dict[str, Tensor]]]:
    """Inputs of layers, and what memlib's make of them; zero vectors and one slot among them."""
    rng = np.random.default_rng(seed)
    cases, right = [], []
    for index in range(count):
        heads, half, tokens, slots = (int(n) for n in rng.integers(1, (4, 5, 9, 9)))
        width, scale = 2 * half * heads, float(rng.choice([0.1, 1, 10]))
        factory = {"dtype": torch.float64}
        attention, memory = (
            MemoryAttention(width, heads, **factory),
            FeedForward(width, slots, **factory),
        )
        norm = torch.nn.LayerNorm(width, **factory)
        for module in (attention, memory, norm):
            randomly(module, rng, scale)
        x = rng.normal(size=(tokens, width)) * (rng.random((tokens, 1)) > 0.1) * scale
        if index % 10 == 0:
            x[:] = rng.normal()  # alike in all numbers: nothing is left of it in a norm
        given, far = torch.tensor(x), int(rng.integers(100_000))
        with torch.no_grad():
            y, _, weights = attention(given[None], need_weights=True)
            turned = _rotate(
                given[:1, None, None], _turns(torch.tensor([[far]]), width, 1e4, y.dtype)
            )
            right.append(
                {
                    "norm": norm(given),
                    "rotate": turned[0, 0, 0],
                    "weights": weights[0].transpose(0, 1)[-1],
                    "attention": y[0],
                    "address": memory.address(given),
                    "memory": memory(given),
                }
            )
        linears = "query", "key", "value", "output"
        cases.append(
            {
                "x": x,
                "far": far,
                "heads": heads,
                "norm": [norm.weight.tolist(), norm.bias.tolist()],
                "attention": {n: getattr(attention, n).weight.tolist() for n in linears},
                "memory": [memory.keys.tolist(), memory.values.tolist()],
            }
        )
    return cases, right


LAYERS = """c => {
    const attention = new MemoryAttention(c.attention, c.heads);
    const memory = new FeedForward(...c.memory);
    const slots = c.x.map((x, t) => attention.slot(x, t));
    const weights = c.x.map((x, t) => attention.address(x, t, slots.slice(0, t + 1)));
    return {
        norm: c.x.map((x) => layerNorm(x, ...c.norm)),
        rotate: rotate(c.x[0], turns(c.far, c.x[0].length)),
        weights: weights.at(-1),
        attention: weights.map((w, t) => attention.read(w, slots.slice(0, t + 1))),
        address: c.x.map((x) => memory.address(x)),
        memory: c.x.map((x) => memory.read(memory.address(x))),
    };
}"""


def wrong_layers(
    browser: Browser, count: int, plant: tuple[str, str] = ("", "")
) -> dict[str, float]:
    """The worst difference of each function, relative where numbers are large."""
    cases, right = layers(1, count)
    with engine(browser, "layers.js", plant=plant) as page:
        answers = ask(page, LAYERS, cases)
    found: dict[str, float] = {}
    for ours, theirs in zip(right, answers, strict=True):
        for name, numbers in ours.items():
            size = max(1.0, float(numbers.abs().max()))
            found[name] = max(found.get(name, 0), worst(numbers, theirs[name]) / size)
    return found


def test_layers_are_memlibs(browser: Browser) -> None:
    found = wrong_layers(browser, CASES)
    assert len(found) == 6
    assert max(found.values()) < CLOSE, found


@pytest.mark.parametrize(
    ("name", "plant"),
    {
        "norm": ("+ 1e-5", "+ 1e-2"),
        "rotate": ("((-2 * j) / width)", "(-j / width)"),
        "weights": (
            "this.turned(this.query, x, position)",
            "split(linear(x, this.query), this.heads)",
        ),
        "attention": ("slot.values[h]", "slot.values[0]"),
        "address": ("Math.max(0, score)", "score"),
        "memory": ("return read(weights, this.values)", "return read(weights, this.keys)"),
    }.items(),
)
def test_a_wrong_layer_is_found(browser: Browser, name: str, plant: tuple[str, str]) -> None:
    assert wrong_layers(browser, 40, plant)[name] > 100 * CLOSE


# A decoder, told what to leave out: by hand, with memlib's verbs


def draw_cuts(rng: np.random.Generator, length: int, vocabulary: int, index: int) -> dict[str, Any]:
    """Parts, a window, slots and edits; now all of them, now nothing, now every slot dropped."""
    kinds = {"without", "window", "dropped", "edits"} if index % 3 else set()
    kinds -= {str(name) for name in rng.permutation(sorted(kinds))[: index % 4]}
    edits = [
        {
            "position": int(rng.integers(length)),
            "layers": [[1], [2], [1, 2]][rng.integers(3)],
            "token": int(rng.integers(vocabulary)),
        }
        for _ in range(rng.integers(1, 3))
    ]
    many = 1.0 if index % 20 == 1 else 0.2
    cuts = {
        "without": [str(part) for part in rng.permutation(PARTS)[: rng.integers(1, 4)]],
        "window": int(rng.integers(1, length + 2)),
        "dropped": [t for t in range(length) if rng.random() < many],
        "edits": edits,
    }
    return {name: cut for name, cut in cuts.items() if name in kinds}


def text(rng: np.random.Generator, length: int) -> list[int]:
    """A fresh text as in training, but as short as that; it may repeat much sooner."""
    recipe = replace(capitals.RECIPE, length=40, period=(1, 32))
    draw = Generator().manual_seed(int(rng.integers(2**62)))
    words: list[int] = capitals.texts(1, draw, recipe)[0].tolist()
    return words[:length]


FORWARD = """(c) => {
    const steps = models[c.model].forward(c.tokens, c.cuts);
    const flat = (x) => (x.length && x[0].length !== undefined ? x.flatMap(flat) : [...x]);
    const bytes = (x) => {
        const view = new Uint8Array(new Float32Array(x).buffer);
        let text = "";
        for (let i = 0; i < view.length; i += 8192)
            text += String.fromCharCode(...view.subarray(i, i + 8192));
        return btoa(text);
    };
    return ["logits", "weights", "activations"].map((n) => bytes(steps.flatMap((s) => flat(s[n]))));
}"""


def unpacked(answer: list[str], like: dict[str, list[Tensor]]) -> dict[str, float]:
    """The largest difference of each kind of numbers from those seen by hand."""
    length = len(like["logits"][0])
    heads, triangle = torch.stack(like["weights"]), torch.ones(length, length).tril().bool()
    ours = {
        "logits": like["logits"][0].flatten(),
        "weights": torch.cat([heads[:, :, t, : t + 1].flatten() for t in range(length)]),
        "activations": torch.stack(like["activations"], 1).flatten(),
    }
    assert not heads[:, :, ~triangle].any()
    theirs = (numbers(text) for text in answer)
    return {n: worst(ours[n].detach(), their) for n, their in zip(ours, theirs, strict=True)}


def numbers(text: str) -> Tensor:
    return torch.tensor(np.frombuffer(base64.b64decode(text), np.float32))


def small(rng: np.random.Generator) -> Decoder:
    """A decoder of any size, drawn at random."""
    heads, half, tokens, slots = (int(n) for n in rng.integers((1, 1, 2, 1), (4, 4, 9, 9)))
    sizes = {"width": 2 * half * heads, "layers": 2, "heads": heads, "slots": slots}
    model = Decoder(tokens, **sizes, dtype=torch.float64)
    randomly(model, rng, float(rng.choice([0.2, 1.0])))
    return model


def given(model: Decoder) -> dict[str, Any]:
    """What the page makes a decoder of."""
    tensors = {name: value.tolist() for name, value in model.state_dict().items()}
    return {"tensors": tensors, "sizes": {"layers": 2, "heads": model.attention[0].heads}}


START = """([packed, others]) => {
    window.models = [new Decoder(unpack(packed), packed.metadata.about.recipe)];
    for (const { tensors, sizes } of others) models.push(new Decoder(tensors, sizes));
}"""


@lru_cache
def decoders() -> list[tuple[Decoder, dict[str, Any], dict[str, list[Tensor]]]]:
    """Texts for the recorded machine and small ones in turn, with random cuts, and what is seen."""
    rng, cases = np.random.default_rng(3), []
    for index in range(2 * CASES):
        model = small(rng) if index % 2 else machine("rounded")
        tokens = text(rng, int(rng.integers(1, 32)))
        if index % 2:
            tokens = rng.integers(len(model.embedding), size=rng.integers(1, 9)).tolist()
        case = {
            "tokens": tokens,
            "cuts": draw_cuts(rng, len(tokens), len(model.embedding), index // 2),
        }
        with torch.no_grad():
            cases.append((model, case, by_hand(model, **case)))
    return cases


def wrong_decoders(
    browser: Browser, count: int, plant: tuple[str, str] = ("", "")
) -> dict[str, float]:
    """The worst differences, of small decoders and of the recorded one."""
    cases = decoders()[: 2 * count]
    others = [given(model) for model, _, _ in cases[1::2]]
    with engine(browser, "decoder.js", "weights.js", plant=plant) as page:
        page.evaluate(START, [pack(FILE), others])
        answers = ask(
            page,
            FORWARD,
            [
                {"model": index % 2 * (index + 1) // 2, **case}
                for index, (_, case, _) in enumerate(cases)
            ],
        )
    found: dict[str, float] = {}
    for index, ((_, _, seen), answer) in enumerate(zip(cases, answers, strict=True)):
        for name, difference in unpacked(answer, seen).items():
            name = f"{'small' if index % 2 else 'recorded'} {name}"
            found[name] = max(found.get(name, 0), difference)
    return found


def test_decoders_are_memlibs_whatever_is_cut(browser: Browser) -> None:
    found = wrong_decoders(browser, CASES)
    assert len(found) == 6
    assert max(found.values()) < CLOSE, found


@pytest.mark.parametrize(
    "plant",
    [
        ("without.includes(part) ? w.map(() => 0) : w", "w"),
        ("slot.position < window", "slot.position <= window"),
        ("if (dropped.includes(position))", "if (dropped.includes(position - 1))"),
        ("edit.layers.includes(n + 1)", "edit.layers.includes(n)"),
        ("this.step(edit.token, position, past", "this.step(edit.token, position, cache"),
        ("feedForward.address(norms[1](x))", "feedForward.address(norms[0](x))"),
        ("linear(this.norm(x), this.embedding)", "linear(x, this.embedding)"),
        ("out[position] = weights[i]", "out[i] = weights[i]"),
        ("const sign = bits >> 15 ? -1 : 1", "const sign = 1"),
    ],
)
def test_a_wrong_decoder_is_found(browser: Browser, plant: tuple[str, str]) -> None:
    assert max(wrong_decoders(browser, 30, plant).values()) > 100 * CLOSE


def test_by_hand_is_memlib() -> None:
    """What the page is compared with: the same as memlib's own ways to do without something."""
    rng, model = np.random.default_rng(4), machine("rounded")
    for index in range(12):
        tokens = text(rng, int(rng.integers(2, 24)))
        cuts = draw_cuts(rng, len(tokens), 64, index)
        with torch.no_grad():
            seen, read = by_hand(model, tokens, cuts), by_cache(model, tokens, cuts)
        assert worst(seen["logits"][0], read["logits"][0]) < CLOSE
        for weights, looks in zip(seen["weights"], read["weights"], strict=True):
            assert worst(weights, looks) < CLOSE


# The recorded machine as it is


def test_the_machine_decides_as_the_original(browser: Browser) -> None:
    words = capitals.texts(CASES, Generator().manual_seed(8_000_000))
    inputs, asked = words[:, :-1], torch.logical_or(*capitals.kinds(words))
    with torch.no_grad():
        original = machine("original")(inputs)[0]
        rounded, _, looks = machine("rounded")(inputs, need_weights=True)
    with engine(browser, "decoder.js", "weights.js") as page:
        page.evaluate(START, [pack(FILE), []])
        cases = [{"model": 0, "tokens": row.tolist()} for row in inputs]
        answers = ask(page, FORWARD, cases)
    logits = torch.stack([numbers(answer[0]).view(80, 64) for answer in answers])
    assert worst(rounded, logits) < HALF
    best = original.topk(2).values
    sure = asked & (best[..., 0] - best[..., 1] > SURE)
    assert asked.sum() > 9_000
    assert sure.sum() / asked.sum() > 0.99
    assert torch.equal(original.argmax(-1)[sure], logits.argmax(-1)[sure])
    weights = torch.stack(looks, 1)  # (B, L, H, T, T)
    rows = torch.cat([weights[..., t, : t + 1].flatten(1) for t in range(80)], 1)
    assert worst(rows, torch.stack([numbers(answer[1]) for answer in answers])) < HALF


def test_facts_are_written_as_in_the_chapter(browser: Browser) -> None:
    edits, right, model, teach = [], [], machine("rounded"), chapter()
    countries = torch.arange(16)[:, None]
    for country in range(16):
        for capital in sorted(set(range(48, 64)) - {country + 48}):
            edits.append([country, country + 48, capital])
            with torch.no_grad():
                right.append(teach(model, country, capital)(countries)[0][:, 0])
    found = {}
    for plant in (
        ("", ""),
        ("(2 * dot(", "(dot("),
        ("model.forward([country])", "model.forward([here])"),
    ):
        with engine(browser, "decoder.js", "weights.js", plant=plant) as page:
            page.evaluate(START, [pack(FILE), []])
            found[plant[0]] = worst(torch.stack(right), ask(page, TAUGHT, edits))
    assert found.pop("") < CLOSE
    assert min(found.values()) > 100 * CLOSE


TAUGHT = """(edit) => {
    const model = teach(models[0], ...edit);
    return Array.from({ length: 16 }, (_, country) => model.forward([country])[0].logits);
}"""
