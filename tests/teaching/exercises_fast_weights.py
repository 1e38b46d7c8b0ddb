"""Proofs of the checkers in *Fast weights*: right answers, and wrong ones by hint."""

import torch


def forget(S, k):
    unit = torch.eye(len(k), dtype=S.dtype)
    return (unit - k[:, None] * k) @ S


def forget_read(S, k):
    return k @ S


def forget_twice(S, k):
    return S + k[:, None] * (k @ S)


def forget_each(S, k):
    return S * (1 - k**2)[:, None]


def forget_alike(S, k):
    return S - (k @ S)[None]


def forget_all(S, k):
    return torch.zeros_like(S)


def forget_loop(S, k):
    read = sum(k[m] * S[m] for m in range(len(k)))
    return torch.stack([S[m] - k[m] * read for m in range(len(k))])


def step(S, k, v, b, w, d):
    faded = torch.diag(d) @ S
    unit = torch.eye(len(k), dtype=S.dtype)
    return (unit - torch.outer(k, b * k)) @ faded + torch.outer(k, w * v)


def step_late(S, k, v, b, w, d):
    return torch.diag(d) @ step(S, k, v, b, w, torch.ones_like(d))


def step_stale(S, k, v, b, w, d):
    return torch.diag(d) @ S - torch.outer(k, (b * k) @ S) + torch.outer(k, w * v)


def step_other_key(S, k, v, b, w, d):
    faded = torch.diag(d) @ S
    return faded - torch.outer(b * k, k @ faded) + torch.outer(k, w * v)


def step_keeps(S, k, v, b, w, d):
    return torch.diag(d) @ S + torch.outer(k, w * v)


def step_no_decay(S, k, v, b, w, d):
    return step(S, k, v, b, w, torch.ones_like(d))


def step_whole(S, k, v, b, w, d):
    return step(S, k, v, b, torch.ones_like(w), d)


def step_adds(S, k, v, b, w, d):
    return step(S, k, v, -b, w, d)


def step_rows(S, k, v, b, w, d):
    faded = torch.stack([d[m] * S[m] for m in range(len(k))])
    missing = w * v - torch.einsum("m,m,mv->v", b, k, faded)
    return faded + k[:, None] * missing


def crosstalk(keys, values):
    products = keys @ keys.T
    products.fill_diagonal_(0)
    return (products @ values).norm(dim=-1) / values.norm(dim=-1)


def crosstalk_squares(keys, values):
    return crosstalk(keys, values) ** 2


def crosstalk_bare(keys, values):
    return crosstalk(keys, values) * values.norm(dim=-1)


def crosstalk_whole(keys, values):
    return (keys @ keys.T @ values).norm(dim=-1) / values.norm(dim=-1)


def crosstalk_mean(keys, values):
    return crosstalk(keys, values).mean()


def crosstalk_loop(keys, values):
    matrix = sum(torch.outer(k, v) for k, v in zip(keys, values, strict=True))
    errors = [(k @ matrix - v).norm() / v.norm() for k, v in zip(keys, values, strict=True)]
    return torch.stack(errors)


def decay_for(steps, left):
    return float(torch.tensor(left, dtype=torch.float64).log().div(steps).exp())


def decay_lost(steps, left):
    return 1 - left ** (1 / steps)


def decay_line(steps, left):
    return 1 - (1 - left) / steps


def decay_power(steps, left):
    return left**steps


def taught(keys, values):
    return keys.T @ torch.linalg.solve(keys @ keys.T, values)


def taught_sum(keys, values):
    return keys.T @ values


def taught_once(keys, values):
    matrix = torch.zeros(keys.shape[1], values.shape[1], dtype=keys.dtype)
    for k, v in zip(keys, values, strict=True):
        matrix += torch.outer(k, v - k @ matrix)
    return matrix


def taught_ridge(keys, values):
    unit = torch.eye(keys.shape[1], dtype=keys.dtype)
    return torch.linalg.solve(keys.T @ keys + unit, keys.T @ values)


def taught_turned(keys, values):
    return taught(keys, values).T


def taught_long(keys, values):
    matrix = torch.zeros(keys.shape[1], values.shape[1], dtype=keys.dtype)
    for _ in range(2000):
        for k, v in zip(keys, values, strict=True):
            matrix = matrix + torch.outer(k, v - k @ matrix)
    return matrix


def added(S, keys, values, rates):
    rows = []
    for k, v, rate in zip(keys, values, rates, strict=True):
        rows.append(rate * (v - k @ S))
        S = S + torch.outer(k, rows[-1])
    return torch.stack(rows)


def added_alone(S, keys, values, rates):
    return rates[:, None] * (values - keys @ S)


def added_columns(S, keys, values, rates):
    A = torch.tril(keys @ keys.T, -1) * rates[None]
    return torch.linalg.solve(
        torch.eye(len(A), dtype=A.dtype) + A, rates[:, None] * (values - keys @ S)
    )


def added_diagonal(S, keys, values, rates):
    A = rates[:, None] * torch.tril(keys @ keys.T)
    return torch.linalg.solve(
        torch.eye(len(A), dtype=A.dtype) + A, rates[:, None] * (values - keys @ S)
    )


def added_first_order(S, keys, values, rates):
    own = added_alone(S, keys, values, rates)
    return own - rates[:, None] * (torch.tril(keys @ keys.T, -1) @ own)


def added_empty(S, keys, values, rates):
    return added(torch.zeros_like(S), keys, values, rates)


def added_after(S, keys, values, rates):
    return S + keys.T @ added(S, keys, values, rates)


def added_inverse(S, keys, values, rates):
    A = rates[:, None] * torch.tril(keys @ keys.T, -1)
    return torch.linalg.inv(torch.eye(len(A), dtype=A.dtype) + A) @ added_alone(
        S, keys, values, rates
    )


PROOFS = {
    "forget": (
        forget,
        {
            "by the outer product with k": forget_read,
            "take it away": forget_twice,
            "each slot lost a part of itself": forget_each,
            "all slots lost the same vector": forget_alike,
            "everything is forgotten": forget_all,
        },
    ),
    "step": (
        step,
        {
            "the decay comes first": step_late,
            "after the decay, not before": step_stale,
            "the key that writes has none": step_other_key,
            "nothing is erased yet": step_keeps,
            "nothing decays yet": step_no_decay,
            "the write gate does nothing yet": step_whole,
            "twice over": step_adds,
        },
    ),
    "crosstalk": (
        crosstalk,
        {
            "that is the square": crosstalk_squares,
            "as a share of the value's length": crosstalk_bare,
            "take the value off first": crosstalk_whole,
            "not their mean": crosstalk_mean,
        },
    ),
    "decay_for": (
        decay_for,
        {
            "the share lost in a step": decay_lost,
            "shares multiply": decay_line,
            "had `left` been the decay": decay_power,
        },
    ),
    "taught": (
        taught,
        {
            "that is the sum": taught_sum,
            "one telling at rate 1": taught_once,
            "toward 0 and errs": taught_ridge,
            "(M, V) is asked for": taught_turned,
        },
    ),
    "added": (
        added,
        {
            "what the tokens before it in this piece added": added_alone,
            "not its column": added_columns,
            "nothing on its diagonal": added_diagonal,
            "they corrected themselves, too": added_first_order,
            "the matrix before this piece": added_empty,
            "that is the matrix after": added_after,
        },
    ),
}
ALSO_RIGHT = {
    "forget": forget_loop,
    "step": step_rows,
    "crosstalk": crosstalk_loop,
    "decay_for": lambda steps, left: pow(left, 1 / steps),
    "taught": taught_long,
    "added": added_inverse,
}
