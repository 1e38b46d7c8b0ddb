"""Proofs of the checkers in *The Transformer as memory*: right answers, and wrong ones by hint."""

import numpy as np
import torch
import torch.nn.functional as F


def cache_size(layers, kv_heads, width, tokens, number):
    key = value = kv_heads * width * number
    return layers * tokens * (key + value)


def may_read(new, slots, window):
    rows = [
        [0 <= slot <= t and (window is None or slot > t - window) for slot in slots.tolist()]
        for t in new.tolist()
    ]
    return torch.tensor(rows)


def held(seen, slots):
    ring = [-1] * slots
    for t in range(seen):
        ring[t % slots] = t
    return torch.tensor(ring)


def held_first(seen, slots):
    return torch.tensor([slot if slot < seen else -1 for slot in range(slots)])


def held_in_order(seen, slots):
    return torch.tensor([max(-1, t) for t in range(seen - slots, seen)])


def held_from_one(seen, slots):
    return torch.tensor([t + 1 if t >= 0 else -1 for t in held(seen, slots).tolist()])


def held_below(seen, slots):
    ring = [slot - slots for slot in range(slots)]  # the last round that never was
    for t in range(seen):
        ring[t % slots] = t
    return torch.tensor(ring)


def sums(weights, tokens, step=1, last=False):
    """For each query that counts, the weight on what followed its like."""
    found = []
    for t in range(len(tokens)):
        before = [i for i in range(t) if tokens[i] == tokens[t]]
        before = before[-1:] if last else before
        if before:
            places = [i + step for i in before if 0 <= i + step <= t]
            found.append(sum((weights[t, i] for i in places), start=torch.zeros(())))
    return torch.stack(found)


def prefix_matching(weights, tokens):
    return sums(weights, tokens).mean()


def turned(weights, tokens):
    return prefix_matching(weights.T, tokens)


def grouped(query, keys, values):
    heads, groups = len(query), len(keys)
    rows = []
    for h in range(heads):
        g = h * groups // heads
        weights = (query[h] @ keys[g].T / query.shape[-1] ** 0.5).softmax(-1)
        rows.append(weights @ values[g])
    return torch.stack(rows)


def in_turn(query, keys, values):
    order = [h % len(keys) for h in range(len(query))]
    rows = [
        (q @ keys[g].T / q.shape[-1] ** 0.5).softmax(-1) @ values[g]
        for q, g in zip(query, order, strict=True)
    ]
    return torch.stack(rows)


def first_alone(query, keys, values):
    return grouped(query, keys[:1], values[:1])


def pooled(query, keys, values):
    return grouped(query, keys.flatten(0, 1)[None], values.flatten(0, 1)[None])


def unscaled(query, keys, values):
    return grouped(query * query.shape[-1] ** 0.5, keys, values)


def stacked(query, keys, values):
    return grouped(query, keys, values).reshape(len(keys), -1, *query.shape[1:])


def edit(values, weights, question, new):
    wanted = weights @ values
    wanted[question] = new
    gram = weights @ weights.T
    return values + weights.T @ torch.linalg.solve(gram, wanted - weights @ values)


def edit_delta(values, weights, question, new):
    w = weights[question]
    return values + w[:, None] * (new - w @ values) / (w @ w)


def edit_anew(values, weights, question, new):
    wanted = weights @ values
    wanted[question] = new
    return torch.linalg.lstsq(weights, wanted, driver="gelsd").solution


def edit_loudest(values, weights, question, new):
    w = weights[question]
    place = F.one_hot(w.argmax(), len(w)).double()
    return values + place[:, None] * (new - w @ values) / w.max()


PROOFS = {
    "cache_size": (
        cache_size,
        {
            "a key and a value: twice": lambda layers, g, m, t, n: layers * g * m * t * n,
            "each takes `number` bytes": lambda layers, g, m, t, n: layers * g * 2 * m * t,
            "every layer": lambda layers, g, m, t, n: g * 2 * m * t * n,
            "each key/value head": lambda layers, g, m, t, n: layers * 2 * m * t * n,
            "all pairs of tokens": lambda layers, g, m, t, n: layers * g * 2 * m * t * t * n,
        },
    ),
    "may_read": (
        may_read,
        {
            "reads its own": lambda new, slots, window: (
                may_read(new, slots, window) & (new[:, None] != slots)
            ),
            "does nothing yet": lambda new, slots, window: may_read(new, slots, None),
            "one token too many": lambda new, slots, window: may_read(
                new, slots, window and window + 1
            ),
            "the future": lambda new, slots, window: (
                (slots >= 0) & (new[:, None] - slots < (window or 99))
            ),
            "an empty slot": lambda new, slots, window: (
                (new[:, None] >= slots) & (new[:, None] - slots < (window or 99))
            ),
            "wrong way round": lambda new, slots, window: ~may_read(new, slots, window),
            "a row for each query": lambda new, slots, window: may_read(new, slots, window).T,
        },
    ),
    "held": (
        held,
        {
            "came first": held_first,
            "the oldest first": held_in_order,
            "begin at 0": held_from_one,
            "comes next": lambda seen, slots: held(seen + 1, slots),
            "told by -1": held_below,
        },
    ),
    "prefix_matching": (
        prefix_matching,
        {
            "on the same token": lambda weights, tokens: sums(weights, tokens, step=0).mean(),
            "the token before its like": lambda weights, tokens: sums(weights, tokens, -1).mean(),
            "said before count": lambda weights, tokens: sums(weights, tokens).sum() / len(tokens),
            "all occurrences": lambda weights, tokens: sums(weights, tokens, last=True).mean(),
            "the mean is asked for": lambda weights, tokens: sums(weights, tokens).sum(),
            "rows of the weights": turned,
        },
    ),
    "grouped": (
        grouped,
        {
            "in turn": in_turn,
            "group 0": first_alone,
            "all groups": pooled,
            "as it comes": unscaled,
            "side by side": stacked,
        },
    ),
    "edit": (
        edit,
        {
            "weights overlap": edit_delta,
            "adds the new answer": lambda values, weights, question, new: (
                values + weights[question][:, None] * new
            ),
            "more than they need": edit_anew,
            "less what was read": lambda values, weights, question, new: edit(
                values, weights, question, weights[question] @ values + new
            ),
            "one slot alone": edit_loudest,
            "nothing was changed": lambda values, weights, question, new: values.clone(),
        },
    ),
}


def counted(layers, kv_heads, width, tokens, number):
    vectors = sum(2 * kv_heads for _ in range(layers))
    return vectors * number * width * tokens


def between(new, slots, window):
    newest = new.unsqueeze(1)
    oldest = torch.zeros_like(newest) if window is None else (newest + 1 - window).clamp(min=0)
    return torch.ge(slots, oldest).logical_and(torch.le(slots, newest))


def held_in_numpy(seen, slots):
    ring, last = np.full(slots, -1), np.arange(max(0, seen - slots), seen)
    ring[last % slots] = last
    return torch.from_numpy(ring)


def prefix_matching_in_numpy(weights, tokens):
    w, words = weights.numpy(), tokens.numpy()
    found = []
    for t in range(1, len(words)):
        before = np.flatnonzero(words[:t] == words[t])
        if before.size:
            found.append(w[t, before + 1].sum())
    return torch.tensor(np.mean(found))


def grouped_by_torch(query, keys, values):
    times = query.shape[0] // keys.shape[0]
    many = (x.repeat_interleave(times, dim=0) for x in (keys, values))
    return F.scaled_dot_product_attention(query, *many)


def edit_in_numpy(values, weights, question, new):
    w, v = weights.numpy(), values.numpy()
    change = np.zeros((len(w), v.shape[1]))
    change[question] = new.numpy() - w[question] @ v
    least = np.linalg.lstsq(w, change, rcond=None)[0]  # the smallest of all that fit
    return torch.from_numpy(v + least)


ALSO_RIGHT = {
    "cache_size": counted,
    "may_read": between,
    "held": held_in_numpy,
    "prefix_matching": prefix_matching_in_numpy,
    "grouped": grouped_by_torch,
    "edit": edit_in_numpy,
}
