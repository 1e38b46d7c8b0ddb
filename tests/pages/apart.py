"""The chapter's Transformer taken apart by hand, with memlib's verbs: what the page must equal."""

from __future__ import annotations

import copy
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import memlib
from experiments import capitals, checkpoints
from memlib import Decoder, KVCache
from memlib.transformer.forgetting import accumulate, heavy_hitters, looked_at, sinks, window
from memlib.transformer.positions import _rotate, _turns, _visible

ROOT = Path(__file__).parents[2]
FILE = ROOT / "results" / "capitals.safetensors"


@lru_cache
def machine(kind: str) -> Decoder:
    """The recorded machine: "original", or "rounded" to half precision."""
    model = capitals.make_model()
    model.load_state_dict(checkpoints.load(FILE)[0])
    return model.eval() if kind == "original" else model.half().double().eval()


def by_hand(model: Decoder, tokens: list[int], cuts: dict[str, Any]) -> dict[str, list[Tensor]]:
    """What is seen of a text: logits, and of each layer weights, activations and values."""
    without, edits = cuts.get("without", ()), cuts.get("edits", ())
    dropped, window = cuts.get("dropped", ()), cuts.get("window")
    place = torch.arange(len(tokens))
    forgotten = torch.tensor([t in dropped for t in place.tolist()])
    readable = _visible(place[None], place[None], window)[0, 0]
    readable &= ~forgotten | torch.eye(len(tokens), dtype=torch.bool)  # its own token reads it
    others = []  # (edit, values of each layer), by texts that go on with another token there
    for edit in edits:
        if edit["position"] < len(tokens):
            before = [e for e in edits if e["position"] < edit["position"]]
            text = [*tokens[: edit["position"]], edit["token"]]
            others.append((edit, by_hand(model, text, {**cuts, "edits": before})["values"]))
    x = model.embedding[torch.tensor(tokens)]
    seen: dict[str, list[Tensor]] = {"weights": [], "activations": [], "values": []}
    for n, block in enumerate(model.blocks, 1):
        part: Any = block
        layer, asked = part.attention, part.attention_norm(x)
        turns = _turns(place[None], layer.head_width, layer.base, x.dtype)
        q, k, v = (
            linear(asked).unflatten(-1, (layer.heads, -1)).transpose(0, 1)
            for linear in (layer.query, layer.key, layer.value)
        )
        q, k = (_rotate(vectors[None], turns)[0] for vectors in (q, k))
        weights = memlib.address(q, k, mask=readable)  # (H, T, T)
        later = v.clone()
        for edit, values in others:
            if n in edit["layers"]:
                later[:, edit["position"]] = values[n - 1][:, edit["position"]]
        own = weights.diagonal(dim1=-2, dim2=-1).unsqueeze(-1)
        heads = memlib.read(weights, later) + own * (v - later)
        for h in range(layer.heads):
            heads[h] *= f"head {h + 1} of {n}" not in without
        x = x + layer.output(heads.transpose(0, 1).flatten(1))
        activations = part.feed_forward.address(part.feed_forward_norm(x))
        x = x + (f"feed-forward of {n}" not in without) * memlib.read(
            activations, part.feed_forward.values
        )
        for name, what in (("weights", weights), ("activations", activations), ("values", v)):
            seen[name].append(what)
    return {**seen, "logits": [model.norm(x) @ model.embedding.T]}


def by_cache(model: Decoder, tokens: list[int], cuts: dict[str, Any]) -> dict[str, list[Tensor]]:
    """What is seen of a text read token by token, as its caches are written over and forget."""
    cut, place = copy.deepcopy(model), torch.arange(len(tokens))
    for layer in cut.attention:
        layer.window = cuts.get("window")
    for part, _, n in (name.rpartition(" of ") for name in cuts.get("without", ())):
        cut = capitals.without(cut, int(n), part)
    caches, logits = cut.cache(1, len(tokens)), []
    seen = [torch.zeros(layer.heads, len(place), len(place)).double() for layer in cut.attention]
    for t, token in enumerate(tokens):
        before = copy.deepcopy(caches)
        said, _, weights = cut(torch.tensor([[token]]), caches, need_weights=True)
        logits.append(said[0, 0])
        for cache, looks, given in zip(caches, seen, weights, strict=True):
            held = cache.positions[0][: int((cache.positions >= 0).sum())]
            looks[:, t, held[-given.shape[-1] :]] = given[0, :, 0]
        for edit in cuts.get("edits", ()):
            if edit["position"] == t:
                other = copy.deepcopy(before)
                cut(torch.tensor([[edit["token"]]]), other)
                for n in edit["layers"]:
                    new = caches[n - 1].positions[0] == t
                    caches[n - 1].values[:, :, new] = other[n - 1].values[:, :, new]
        for cache, looks in zip(caches, seen, strict=True):
            if t in cuts.get("dropped", ()):
                cache.keep(-window(cache), int((cache.positions >= 0).sum()) - 1)
            if choice := cuts.get("forget"):
                scores = scored(cache, looks[None, :, : t + 1], choice["rule"], choice["slots"])
                cache.keep(scores, choice["slots"])
    return {"logits": [torch.stack(logits)], "weights": seen}


def scored(cache: KVCache, looks: Tensor, rule: str, n: int) -> Tensor:
    """The scores of a rule, for weights (1, H, T, T) by positions."""
    places = cache.positions[0]
    weights = looks[..., places.clamp(min=0)].masked_fill(places < 0, 0)
    if rule == "heavy hitters":
        return heavy_hitters(cache, accumulate(cache, weights), recent=n // 2)
    if rule == "looked at":
        return looked_at(cache, weights, last=max(1, min(8, n // 2)))
    return {"window": window, "sinks": sinks}[rule](cache)


def chapter() -> Any:
    """The chapter's `teach`: (model, country, capital) -> a model with that fact written."""
    names: dict[str, Any] = {"torch": torch, "copy": copy, "memlib": memlib}
    names["net"] = machine("rounded")
    for cell in ("feed-inside", "edit-run"):
        exec(source(cell), names)
    return names["teach"]


def source(cell: str) -> str:
    """A cell of the chapter."""
    book = json.loads((ROOT / "book/transformer.ipynb").read_text(encoding="utf-8"))
    return "".join(*(c["source"] for c in book["cells"] if c["id"] == cell))
