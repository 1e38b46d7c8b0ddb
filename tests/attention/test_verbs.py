"""The three verbs against the papers' loops, and what masks, top-k and bad slots do to them."""

import pytest
import reference
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from memlib import MEASURES, address, attend, read, similarity, write

DOUBLE = {"dtype": torch.float64}
MASKS = {
    "none": None,
    "slots": torch.tensor([True, False, True, True, False, True]),
    "queries": torch.tensor([[1, 0, 1, 1, 0, 1], [0, 0, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0]]).bool(),
}


@pytest.fixture
def qkv():
    torch.manual_seed(1)
    return torch.randn(3, 4, **DOUBLE), torch.randn(6, 4, **DOUBLE), torch.randn(6, 2, **DOUBLE)


def close(result, loops, error=1e-12):
    assert_close(result, torch.as_tensor(loops).to(result), rtol=error, atol=error)


@pytest.mark.parametrize("measure", MEASURES)
def test_similarity_is_its_formula(qkv, measure):
    close(similarity(*qkv[:2], measure=measure), reference.similarity(*qkv[:2], measure))


def test_distance_to_itself_is_never_above_0():
    x = 1e3 * torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    assert similarity(x, x, measure="negative_squared_distance").max() <= 0


def test_cosine_of_a_zero_vector_is_0_with_finite_gradients():
    query = torch.zeros(1, 3, requires_grad=True)
    scores = similarity(query, torch.eye(3), measure="cosine")
    scores.sum().backward()
    assert torch.equal(scores, torch.zeros(1, 3))
    assert query.grad.isfinite().all()


@pytest.mark.parametrize("top_k", [None, 1, 2, 6])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("measure", MEASURES)
def test_address_read_and_attend_are_their_formulas(qkv, measure, mask, top_k):
    query, keys, values = qkv
    strength = torch.tensor([0.0, 0.7, 3.0], **DOUBLE)
    options = {"measure": measure, "strength": strength, "mask": mask, "top_k": top_k}
    loops = {**options, "mask": True if mask is None else mask}
    weights = reference.address(query, keys, **loops)
    value = reference.read(weights, values)
    close(address(query, keys, **options), weights)
    close(read(torch.as_tensor(weights), values), value)
    close(attend(query, keys, values, **options), value)
    both = attend(query, keys, values, **options, need_weights=True)
    close(both[0], value)
    close(both[1], weights)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_attend_equals_read_of_address(measure, dtype, error):
    torch.manual_seed(2)
    query, keys, values = (
        torch.randn(*shape, dtype=dtype) for shape in ((2, 1, 5, 3), (3, 7, 3), (2, 1, 7, 8))
    )
    weights = address(query, keys, measure=measure, strength=2.5)
    close(attend(query, keys, values, measure=measure, strength=2.5), read(weights, values), error)
    assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_attend_equals_scaled_dot_product_attention(qkv, mask):
    query, keys, values = qkv
    rows = [0, 2]  # SDPA's answer to a query with nothing to read differs between versions
    given = mask[rows] if mask is not None and mask.ndim > 1 else mask
    theirs = F.scaled_dot_product_attention(query[rows], keys, values, given)
    close(attend(query, keys, values, mask=mask)[rows], theirs)
    close(reference.attend(query[rows], keys, values, given), theirs)


@pytest.mark.parametrize("erase", [True, False])
@pytest.mark.parametrize("heads", [1, 3])
def test_write_is_its_formula(heads, erase):
    torch.manual_seed(3)
    memory, weights = torch.randn(5, 4, **DOUBLE), torch.rand(heads, 5, **DOUBLE)
    add = torch.randn(heads, 4, **DOUBLE)
    gone = torch.rand(heads, 4, **DOUBLE) if erase else None
    close(write(memory, weights, add, gone), reference.write(memory, weights, add, gone))


def test_top_k_of_all_slots_equals_full_attention(qkv):
    assert_close(attend(*qkv, top_k=6), attend(*qkv))


def test_top_k_reads_no_more_than_k_and_only_readable_slots(qkv):
    weights = address(*qkv[:2], mask=MASKS["slots"], top_k=2)
    assert ((weights > 0).sum(-1) == 2).all()
    assert (weights[:, ~MASKS["slots"]] == 0).all()
    few = address(*qkv[:2], mask=MASKS["queries"], top_k=2)
    assert (few > 0).sum(-1).tolist() == [2, 0, 1]


def test_mask_equals_a_compressed_memory(qkv):
    query, keys, values = qkv
    keep = MASKS["slots"]
    assert_close(attend(query, keys, values, mask=keep), attend(query, keys[keep], values[keep]))


def test_padding_never_changes_the_answer(qkv):
    query, keys, values = qkv
    more_keys, more_values = F.pad(keys, (0, 0, 0, 9), value=3), F.pad(values, (0, 0, 0, 9))
    mask = torch.arange(15) < 6
    assert_close(attend(query, more_keys, more_values, mask=mask), attend(query, keys, values))


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("junk", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("shape", [(6,), (2, 1, 6), (2, 3, 6)])
def test_unreadable_slots_change_neither_result_nor_gradient(shape, junk, measure, need_weights):
    torch.manual_seed(4)
    mask = torch.rand(shape) < 0.6
    mask[..., 2], mask[..., 3] = False, True
    hidden = ~(mask if mask.ndim == 1 else mask.any(-2)).expand(2, 6).unsqueeze(-1)
    assert hidden.any()

    def run(fill):
        torch.manual_seed(5)
        tensors = [torch.randn(2, n, 4, **DOUBLE) for n in (3, 6, 6)]
        tensors[1:] = [x.masked_fill(hidden, fill) for x in tensors[1:]]
        for x in tensors:
            x.requires_grad_()
        result = attend(*tensors, mask=mask, measure=measure, need_weights=need_weights)
        value, weights = result if need_weights else (result, value_of(result))
        (value.square().sum() + weights.square().sum()).backward()
        return value, weights, *(x.grad for x in tensors)

    def value_of(value):
        return value.new_zeros(())

    clean, dirty = run(0.5), run(junk)
    assert_close(dirty, clean)
    assert not dirty[3].masked_select(hidden).any()
    weights = address(torch.randn(2, 3, 4), torch.full((2, 6, 4), junk), measure=measure,
                      mask=torch.zeros(6, dtype=torch.bool))  # fmt: skip
    assert torch.equal(weights, torch.zeros(2, 3, 6))


@pytest.mark.parametrize("options", [{}, {"need_weights": True}, {"top_k": 1}, {"strength": 2.0}])
def test_nan_readable_for_one_query_reaches_no_other(qkv, options):
    query, keys, values = qkv
    values[1] = float("inf")
    mask = torch.ones(3, 6, dtype=torch.bool)
    mask[:2, 1] = False
    keys[1] = query[2] * 9  # the last query will read the infinity, as it may
    result = attend(query, keys, values, mask=mask, **options)
    value = result[0] if isinstance(result, tuple) else result
    keep = [0, 2, 3, 4, 5]
    alone = attend(query[:2], keys[keep], values[keep],
                   **{k: v for k, v in options.items() if k != "need_weights"})  # fmt: skip
    assert_close(value[:2], alone)
    assert value[2].isinf().all()


def test_nan_readable_for_one_query_is_refused(qkv):
    query, keys, values = qkv
    values[1, 0] = float("nan")
    mask = torch.ones(3, 6, dtype=torch.bool)
    mask[1:, 1] = False
    strength = torch.ones(3, **DOUBLE)
    with pytest.raises(ValueError, match=r"values must be finite where it is read; got NaN at"):
        attend(query, keys, values, mask=mask, strength=strength)


def test_nan_in_a_slot_without_weight_is_not_read():
    values = torch.tensor([[1.0], [float("nan")]])
    assert read(torch.tensor([[2.0, 0.0]]), values).tolist() == [[2.0]]


@pytest.mark.parametrize("options", [{}, {"need_weights": True}, {"top_k": 2}])
def test_nothing_to_read_gives_zeros_and_finite_gradients(qkv, options):
    for tensor in qkv:
        tensor.requires_grad_()
    mask = torch.zeros(6, dtype=torch.bool)
    result = attend(*qkv, mask=mask, **options)
    value = result[0] if options.get("need_weights") else result
    assert torch.equal(value, torch.zeros(3, 2, **DOUBLE))
    value.sum().backward()
    assert all(tensor.grad.isfinite().all() for tensor in qkv)


def test_an_empty_memory_reads_zeros(qkv):
    query, keys, values = qkv
    value, weights = attend(query, keys[:0], values[:0], need_weights=True)
    assert torch.equal(value, torch.zeros(3, 2, **DOUBLE))
    assert weights.shape == (3, 0)


def test_a_write_may_replace_nan_and_says_when_it_brings_it():
    memory = torch.full((2, 2), float("nan"))
    one = torch.ones(1, 2)
    assert write(memory, torch.tensor([[0.0, 1.0]]), one, one).isnan().any()
    with pytest.raises(ValueError, match="add must be finite"):
        write(torch.zeros(2, 2), one, one / 0 * 0, one)


@pytest.mark.parametrize("strength", [1e4, 1e30])
def test_a_huge_strength_picks_exactly_one(strength):
    keys = torch.eye(4)
    weights = address(keys + 0.1, keys, measure="dot", strength=strength)
    assert torch.equal(weights, torch.eye(4))


def test_second_derivatives_exist_in_the_two_step_form(qkv):
    query, keys, values = (x.requires_grad_() for x in qkv)
    assert torch.autograd.gradgradcheck(
        lambda q, k, v: read(address(q, k), v), (query, keys, values)
    )
