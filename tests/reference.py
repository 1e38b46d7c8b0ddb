"""The papers' equations as plain float64 loops, one memory at a time; memlib is not imported.

Arguments are anything NumPy takes; a mask holds True where a slot may be read.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

Array = NDArray[np.float64]


def similarity(query: ArrayLike, keys: ArrayLike, measure: str) -> Array:
    q, k = np.asarray(query, float), np.asarray(keys, float)
    scores = np.zeros((len(q), len(k)))
    for i in range(len(q)):
        for n in range(len(k)):
            dot = sum(a * b for a, b in zip(q[i], k[n], strict=True))
            if measure == "scaled_dot":
                dot /= math.sqrt(q.shape[1])
            elif measure == "cosine":
                norms = math.hypot(*q[i]) * math.hypot(*k[n])
                dot = dot / norms if norms else 0.0
            elif measure == "negative_squared_distance":
                dot = -sum((a - b) ** 2 for a, b in zip(q[i], k[n], strict=True))
            scores[i, n] = dot
    return scores


def softmax(scores: Array, readable: NDArray[np.bool_]) -> Array:
    """Over the readable entries of one row; zeros where there are none."""
    weights = np.zeros(len(scores))
    if readable.any():
        top = max(scores[readable])
        for n in np.flatnonzero(readable):
            weights[n] = math.exp(scores[n] - top)
        weights /= weights.sum()
    return weights


def address(
    query: ArrayLike,
    keys: ArrayLike,
    measure: str = "scaled_dot",
    strength: ArrayLike = 1.0,
    mask: ArrayLike = True,
    top_k: int | None = None,
) -> Array:
    scores = similarity(query, keys, measure)
    readable = np.array(np.broadcast_to(np.asarray(mask, bool), scores.shape))
    strengths = np.broadcast_to(np.asarray(strength, float), len(scores))
    weights = np.zeros_like(scores)
    for i, row in enumerate(scores):
        if top_k is not None:
            best = sorted(np.flatnonzero(readable[i]), key=lambda n: -row[n])[:top_k]
            readable[i] = False
            readable[i, best] = True
        weights[i] = softmax(strengths[i] * row, readable[i])
    return weights


def read(weights: ArrayLike, values: ArrayLike) -> Array:
    """Graves et al. 2014, eq. 2."""
    w, v = np.asarray(weights, float), np.asarray(values, float)
    result = np.zeros((len(w), v.shape[1]))
    for i in range(len(w)):
        for n in range(len(v)):
            result[i] += w[i, n] * v[n]
    return result


def write(
    memory: ArrayLike, weights: ArrayLike, add: ArrayLike, erase: ArrayLike | None = None
) -> Array:
    """Graves et al. 2014, eq. 3 and 4: every head erases, then every head adds."""
    result = np.asarray(memory, float).copy()
    w, a = np.asarray(weights, float), np.asarray(add, float)
    e = np.zeros_like(a) if erase is None else np.asarray(erase, float)
    for h in range(len(w)):
        for n in range(len(result)):
            result[n] *= 1 - w[h, n] * e[h]
    for h in range(len(w)):
        for n in range(len(result)):
            result[n] += w[h, n] * a[h]
    return result


def interpolate(content: ArrayLike, previous: ArrayLike, gate: float) -> Array:
    """Graves et al. 2014, eq. 7."""
    return gate * np.asarray(content, float) + (1 - gate) * np.asarray(previous, float)


def shift(weights: ArrayLike, moves: ArrayLike) -> Array:
    """Graves et al. 2014, eq. 8: w'(i) = sum_j s(j) w(i - j mod N), j = -S//2 ... S//2."""
    w, s = np.asarray(weights, float), np.asarray(moves, float)
    reach, slots = len(s) // 2, len(w)
    result = np.zeros(slots)
    for i in range(slots):
        for j in range(-reach, reach + 1):
            result[i] += s[j + reach] * w[(i - j) % slots]
    return result


def sharpen(weights: ArrayLike, sharpening: float) -> Array:
    """Graves et al. 2014, eq. 9."""
    powers = np.asarray(weights, float) ** sharpening
    return powers / powers.sum()


def modern_energy(state: ArrayLike, patterns: ArrayLike, strength: float) -> float:
    """Ramsauer et al. 2020, eq. 2, for one state and all patterns."""
    s, x = np.asarray(state, float), np.asarray(patterns, float)
    log_sum = math.log(sum(math.exp(strength * float(p @ s)) for p in x)) / strength
    return (
        -log_sum + s @ s / 2 + math.log(len(x)) / strength + max(math.hypot(*p) for p in x) ** 2 / 2
    )


def hebbian(patterns: ArrayLike) -> Array:
    """Hopfield 1982: W_ij = 1/M sum_n x_ni x_nj, no unit connected to itself."""
    x = np.asarray(patterns, float)
    width = x.shape[1]
    weights = np.zeros((width, width))
    for i in range(width):
        for j in range(width):
            weights[i, j] = 0 if i == j else sum(p[i] * p[j] for p in x) / width
    return weights


def attend(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None = None,
    strength: float | Tensor = 1.0,
) -> Tensor:
    """Vaswani et al. 2017, eq. 1, as one differentiable line, for any leading dimensions."""
    scores = query @ keys.transpose(-1, -2) / math.sqrt(query.shape[-1])
    scores = scores * (strength[..., None] if isinstance(strength, Tensor) else strength)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return torch.softmax(scores, dim=-1) @ values


# The Neural Turing Machine, one sequence at a time. Slots, heads and steps are Python loops; the
# numbers are torch scalars and short vectors, so that autograd gives the gradients of the loops.

Vector = Tensor
Parameters = dict[str, Tensor]  # of the machine, by their names in its `named_parameters`


class Machine(NamedTuple):
    """What one sequence leaves behind."""

    memory: list[Vector]  # N of (M,)
    reads: list[Vector]  # R of (M,)
    weights: list[list[Tensor]]  # R + W of N numbers, read heads first
    hidden: Vector
    cell: Vector


def ntm_split(raw: Tensor, reads: int, writes: int, width: int, shifts: int) -> list[Parameters]:
    """The interface's outputs for each head, before they are squashed; read heads first."""
    result, start = [], 0
    for _ in range(reads + writes):
        head = {}
        sizes = {"key": width, "shift": shifts, "gate": 1, "strength": 1, "sharpening": 1}
        for name, size in sizes.items():
            head[name] = raw[start : start + size]
            start += size
        result.append(head)
    for name in ("erase", "add"):
        for head in result[reads:]:
            head[name] = raw[start : start + width]
            start += width
    assert start == len(raw)
    return result


def ntm_locate(head: Parameters, memory: list[Vector], previous: list[Tensor]) -> list[Tensor]:
    """Graves et al. 2014, eq. 5 to 9, for one head."""
    slots, reach = len(memory), len(head["shift"]) // 2
    key, strength = head["key"].tanh(), (1 + head["strength"][0].exp()).log()
    gate, sharpening = head["gate"][0].sigmoid(), 1 + (1 + head["sharpening"][0].exp()).log()
    exps = head["shift"].exp()
    moves = exps / exps.sum()
    found, length = [], (key * key).sum().sqrt()
    for slot in memory:
        cosine = (key * slot).sum() / (length * (slot * slot).sum().sqrt())
        found.append((strength * cosine).exp())
    total = sum(found)
    blend = [gate * found[n] / total + (1 - gate) * previous[n] for n in range(slots)]
    around = range(-reach, reach + 1)
    moved = [sum(moves[j + reach] * blend[(i - j) % slots] for j in around) for i in range(slots)]
    powers = [w**sharpening for w in moved]
    total = sum(powers)
    return [power / total for power in powers]


def ntm_controller(kind: str, p: Parameters, x: Vector, h: Vector, c: Vector) -> list[Vector]:
    """The controller's output, and its hidden state and cell after the step."""
    if kind == "feed-forward":
        output = (p["controller.0.weight"] @ x + p["controller.0.bias"]).tanh()
        return [output, h, c]
    new = p["controller.weight_ih"] @ x + p["controller.bias_ih"]
    old = p["controller.weight_hh"] @ h + p["controller.bias_hh"]
    if kind == "lstm":
        i, f, g, o = (new + old).split(len(h))
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
    else:
        (r, z, n), (r_old, z_old, n_old) = new.split(len(h)), old.split(len(h))
        update = (z + z_old).sigmoid()
        h = (1 - update) * (n + (r + r_old).sigmoid() * n_old).tanh() + update * h
    return [h, h, c]


def ntm_step(
    kind: str, p: Parameters, x: Vector, state: Machine, reads: int, writes: int, shifts: int
) -> tuple[Vector, Machine]:
    memory, width = state.memory, len(state.memory[0])
    together = torch.cat([x, *state.reads])
    output, hidden, cell = ntm_controller(kind, p, together, state.hidden, state.cell)
    raw = p["interface.weight"] @ output + p["interface.bias"]
    heads = ntm_split(raw, reads, writes, width, shifts)
    weights = [
        ntm_locate(head, memory, previous)
        for head, previous in zip(heads, state.weights, strict=True)
    ]
    after = []
    for n, slot in enumerate(memory):
        for h in range(reads, reads + writes):
            slot = slot * (1 - weights[h][n] * heads[h]["erase"].sigmoid())  # eq. 3
        for h in range(reads, reads + writes):
            slot = slot + weights[h][n] * heads[h]["add"].tanh()  # eq. 4
        after.append(slot)
    read = [sum(weights[h][n] * after[n] for n in range(len(after))) for h in range(reads)]  # eq. 2
    logits = p["output.weight"] @ torch.cat([output, *read]) + p["output.bias"]
    return logits, Machine(after, read, weights, hidden, cell)


def ntm(
    kind: str,
    p: Parameters,
    x: Tensor,
    state: Sequence[Tensor],
    *,
    reads: int,
    writes: int,
    shifts: int,
) -> tuple[Tensor, list[Tensor]]:
    """Logits (B, T, O) and the state after, as tensors with the batch first like `state`."""
    logits, after = [], []
    for b in range(len(x)):
        memory, read, weights, hidden, cell = (s[b] for s in state)
        weights = [list(w) for w in weights]
        machine = Machine(list(memory), list(read), weights, hidden, cell)
        row = []
        for step in x[b]:
            y, machine = ntm_step(kind, p, step, machine, reads, writes, shifts)
            row.append(y)
        logits.append(torch.stack(row))
        after.append(
            (
                torch.stack(machine.memory),
                torch.stack(machine.reads),
                torch.stack([torch.stack(w) for w in machine.weights]),
                machine.hidden,
                machine.cell,
            )
        )
    return torch.stack(logits), [torch.stack(part) for part in zip(*after, strict=True)]


# The differentiable neural computer, in the same manner.


class Computer(NamedTuple):
    """What one sequence leaves behind."""

    memory: list[Vector]  # N of (M,)
    reads: list[Vector]  # R of (M,)
    weights: list[list[Tensor]]  # R + W of N numbers, read heads first
    usage: list[Tensor]  # N numbers
    links: list[list[list[Tensor]]]  # W of N of N numbers
    precedence: list[list[Tensor]]  # W of N numbers
    hidden: Vector
    cell: Vector


def dnc_split(
    raw: Tensor, reads: int, writes: int, width: int, masked: bool, sharpened: bool
) -> Parameters:
    """The interface's outputs by name, before they are squashed, each (heads, ...)."""
    heads = reads + writes
    shapes = {"key": (heads, width), "add": (writes, width), "strength": (heads,)}
    if sharpened:
        shapes["sharpening"] = (2, writes, reads)
    if masked:
        shapes["mask"] = (heads, width)
    shapes |= {"erase": (writes, width), "free": (reads,), "allocation": (writes,)}
    shapes |= {"write": (writes,), "modes": (reads, 2 * writes + 1)}
    result, start = {}, 0
    for name, shape in shapes.items():
        size = math.prod(shape)
        result[name] = raw[start : start + size].reshape(shape)
        start += size
    assert start == len(raw)
    return result


def allocation(usage: Sequence[Tensor]) -> list[Tensor]:
    """Graves et al. 2016: a[phi_j] = (1 - u[phi_j]) prod_{i<j} u[phi_i]."""
    result, taken = [usage[0]] * len(usage), 1.0
    for n in sorted(range(len(usage)), key=lambda n: float(usage[n].detach())):
        result[n] = (1 - usage[n]) * taken
        taken = taken * usage[n]
    return result


def dnc_content(key: Vector, strength: Tensor, mask: Vector, memory: list[Vector]) -> list[Tensor]:
    """Content lookup; of features that a mask (all 1: none) leaves."""
    beta, exps = 1 + (1 + strength.exp()).log(), []
    for slot in memory:
        k, m = key * mask, slot * mask
        cosine = (k * m).sum() / ((k * k).sum().sqrt() * (m * m).sum().sqrt())
        exps.append((beta * cosine).exp())
    return [e / sum(exps) for e in exps]


def dnc_step(
    kind: str,
    p: Parameters,
    x: Vector,
    state: Computer,
    options: set[str],
) -> tuple[Vector, Computer]:
    """One step, by Graves et al. 2016, Methods, and Csordás and Schmidhuber 2019."""
    memory, slots, width = state.memory, range(len(state.memory)), len(state.memory[0])
    writes, reads = len(state.links), len(state.reads)
    output, hidden, cell = ntm_controller(
        kind, p, torch.cat([x, *state.reads]), state.hidden, state.cell
    )
    raw = p["interface.weight"] @ output + p["interface.bias"]
    told = dnc_split(
        raw, reads, writes, width, "mask_content" in options, "sharpen_links" in options
    )
    if "mask_content" in options:
        masks = 0.1 + 0.9 * told["mask"].sigmoid()
    else:
        masks = torch.ones_like(told["key"])

    kept, usage = [], []
    for n in slots:
        psi, unused = 1.0, 1 - state.usage[n]
        for r in range(reads):
            psi = psi * (1 - told["free"][r].sigmoid() * state.weights[r][n])
        for w in range(writes):
            unused = unused * (1 - state.weights[reads + w][n])
        kept.append(psi)
        usage.append((1 - unused) * psi)

    writing, offered = [], list(usage)
    for w in range(writes):
        key, strength = told["key"][reads + w], told["strength"][reads + w]
        content = dnc_content(key, strength, masks[reads + w], memory)
        free = allocation(offered)
        g, wanted = told["write"][w].sigmoid(), told["allocation"][w].sigmoid()
        writing.append([g * (wanted * free[n] + (1 - wanted) * content[n]) for n in slots])
        offered = [offered[n] + (1 - offered[n]) * g * wanted * free[n] for n in slots]

    after = []
    for n in slots:
        slot = memory[n] * kept[n] if "deallocate" in options else memory[n]
        for w in range(writes):
            slot = slot * (1 - writing[w][n] * told["erase"][w].sigmoid())
        for w in range(writes):
            slot = slot + writing[w][n] * told["add"][w]
        after.append(slot)

    links, precedence = [], []
    for w in range(writes):
        old, last, new = state.links[w], state.precedence[w], writing[w]
        zero = torch.zeros_like(new[0])
        links.append(
            [
                [
                    zero if i == j else (1 - new[i] - new[j]) * old[i][j] + new[i] * last[j]
                    for j in slots
                ]
                for i in slots
            ]
        )
        precedence.append([(1 - sum(new)) * last[n] + new[n] for n in slots])

    def follow(r: int, w: int, forward: bool) -> list[Tensor]:
        link, before = links[w], state.weights[r]
        found = [sum((link[i][j] if forward else link[j][i]) * before[j] for j in slots)
                 for i in slots]  # fmt: skip
        if "sharpen_links" in options:
            power = 1 + (1 + told["sharpening"][int(forward), w, r].exp()).log()
            powers = [(f + 1e-6) ** power for f in found]
            found = [f / sum(powers) for f in powers]
        return found

    reading = []
    for r in range(reads):
        exps = told["modes"][r].exp()
        modes = exps / exps.sum()
        content = dnc_content(told["key"][r], told["strength"][r], masks[r], after)
        ways = [follow(r, w, False) for w in range(writes)] + [content]
        ways += [follow(r, w, True) for w in range(writes)]
        reading.append([sum(m * way[n] for m, way in zip(modes, ways, strict=True)) for n in slots])
    read = [sum(weights[n] * after[n] for n in slots) for weights in reading]
    logits = p["output.weight"] @ torch.cat([output, *read]) + p["output.bias"]
    return logits, Computer(after, read, reading + writing, usage, links, precedence, hidden, cell)


def dnc(
    kind: str, p: Parameters, x: Tensor, state: Sequence[Tensor], options: set[str]
) -> tuple[Tensor, list[Tensor]]:
    """Logits (B, T, O) and the state after, as tensors with the batch first like `state`."""

    def nested(value: Tensor, depth: int) -> Any:
        return [nested(v, depth - 1) for v in value] if depth else value

    def stacked(value: Any) -> Tensor:
        return torch.stack([stacked(v) for v in value]) if isinstance(value, list) else value

    depths = (1, 1, 2, 1, 3, 2, 0, 0)  # how many lists deep the parts of a `Computer` are
    logits, after = [], []
    for b in range(len(x)):
        computer = Computer(*(nested(s[b], d) for s, d in zip(state, depths, strict=True)))
        row = []
        for step in x[b]:
            y, computer = dnc_step(kind, p, step, computer, options)
            row.append(y)
        logits.append(torch.stack(row))
        after.append([stacked(part) for part in computer])
    return torch.stack(logits), [torch.stack(part) for part in zip(*after, strict=True)]


def memn2n(
    embeddings: Sequence[ArrayLike],
    story: Sequence[Sequence[int]],
    question: Sequence[int],
    *,
    vocab_size: int,
    answers: int,
    slots: int,
    tying: str,
    hops: int,
    position: bool,
    temporal: bool,
    relu: bool,
    empty: bool,
    linear: bool,
    answer: ArrayLike | None = None,
    between: ArrayLike | None = None,
) -> tuple[Array, Array]:
    """One question: Sukhbaatar et al. 2015, section 2. Scores (A,) and weights (K, N)."""
    tables = [np.asarray(table, float) for table in embeddings]
    width = tables[0].shape[1]

    def encode(table: Array, words: Sequence[int]) -> Array:
        words = [word for word in words if word]
        total = np.zeros(width)
        for j, word in enumerate(words, 1):
            for k in range(1, width + 1):
                weight = 1.0
                if position:
                    weight += (
                        4 * (k - (width + 1) / 2) * (j - (len(words) + 1) / 2)
                        / (width * len(words))
                    )  # fmt: skip
                total[k - 1] += weight * table[word, k - 1]
        return total

    told = [i for i, sentence in enumerate(story) if any(sentence)]
    readable = told[-slots:]
    ages = {i: age for age, i in enumerate(reversed(readable))}
    asking = {"adjacent": 0, "layerwise": 2, "none": 2 * hops}[tying]
    u = encode(tables[asking], question)
    weights = np.zeros((hops, len(story)))
    for hop in range(hops):
        keys, values = {
            "adjacent": (hop, hop + 1),
            "layerwise": (0, 1),
            "none": (hop, hops + hop),
        }[tying]
        memory = {}
        for i in readable:
            time = vocab_size + ages[i]
            memory[i] = [
                encode(tables[which], story[i]) + (tables[which][time] if temporal else 0)
                for which in (keys, values)
            ]
        scores = np.zeros(len(story))
        for i in readable:
            scores[i] = sum(a * b for a, b in zip(u, memory[i][0], strict=True))
        shown = np.array([i in readable for i in range(len(story))], dtype=bool)
        if empty:  # slots with a key of 0
            free = slots - len(readable)
            padded = softmax(
                np.append(scores, np.zeros(free)), np.append(shown, np.full(free, True))
            )
        else:
            padded = softmax(scores, shown)
        weights[hop] = scores if linear else padded[: len(story)]
        read = np.zeros(width)
        for i in readable:
            read += weights[hop, i] * memory[i][1]
        u = read + (u if between is None else np.asarray(between, float) @ u)
        u = np.maximum(u, 0) if relu else u
    last = tables[-1][1 : answers + 1] if answer is None else np.asarray(answer, float)
    return np.array([sum(a * b for a, b in zip(row, u, strict=True)) for row in last]), weights
