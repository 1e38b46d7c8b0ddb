"""The streamed read equals the plain formula, and never makes the matrix of scores."""

import pytest
import reference
import torch
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from memlib import MEASURES, attend
from memlib.attention import distance, streaming
from memlib.store import Store


@pytest.fixture
def cores(request):
    """Run with this many threads; the split comes only where there are several."""
    before = torch.get_num_threads()
    torch.set_num_threads(getattr(request, "param", 2))
    yield torch.get_num_threads()
    torch.set_num_threads(before)


class Sizes(TorchDispatchMode):
    """Notes the size of every tensor that any operation makes, in forward and backward."""

    def __init__(self):
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for x in tree_leaves(result):
            if isinstance(x, torch.Tensor):
                self.largest = max(self.largest, x.numel())
        return result


LARGE = streaming.SLOTS_WORTH_SPLITTING + 3  # not divisible by 2


@pytest.mark.parametrize("cores", [2, 3], indirect=True)
@pytest.mark.parametrize("value_width", [2, 3, 5])
@pytest.mark.parametrize(
    ("query", "memory"),
    [((1,), ()), ((3,), ()), ((2, 1), (2,)), ((2, 2), ()), ((1, 1, 1, 1), (1, 1, 1)), ((0,), ())],
    ids=str,
)
def test_split_over_slots_equals_the_plain_formula(cores, query, memory, value_width):
    torch.manual_seed(0)
    ours = [
        torch.randn(*query, 3, dtype=torch.float64),
        torch.randn(*memory, 3, LARGE, dtype=torch.float64).mT,  # not contiguous
        torch.randn(*memory, LARGE, value_width, dtype=torch.float64),
    ]
    theirs = [x.clone().requires_grad_() for x in ours]
    ours = [x.requires_grad_() for x in ours]
    value, plain = attend(*ours, strength=3.0), reference.attend(*theirs, strength=3.0)
    torch.manual_seed(1)
    direction = torch.randn_like(plain)
    ((value * direction).sum() + value.sum()).backward()
    ((plain * direction).sum() + plain.sum()).backward()
    assert_close(value, plain, rtol=1e-12, atol=1e-12)
    for x, y in zip(ours, theirs, strict=True):
        assert_close(x.grad, y.grad, rtol=1e-12, atol=1e-12)


def test_split_takes_a_gradient_without_strides(cores):
    torch.manual_seed(0)
    query, keys = torch.randn(1, 4, requires_grad=True), torch.randn(LARGE, 4)
    attend(query, keys, keys).sum().backward()
    split, query.grad = query.grad, None
    reference.attend(query, keys, keys).sum().backward()
    assert_close(split, query.grad)


def test_few_queries_of_a_large_memory_are_split(cores, monkeypatch):
    counted = []
    pieces = streaming._pieces
    monkeypatch.setattr(
        streaming, "_pieces", lambda *args: counted.append(args[-1]) or pieces(*args)
    )
    attend(torch.randn(1, 4), torch.randn(LARGE, 4), torch.randn(LARGE, 4))
    attend(torch.randn(65, 4), torch.randn(LARGE, 4), torch.randn(LARGE, 4))  # busy already
    attend(torch.randn(1, 4), torch.randn(99, 4), torch.randn(99, 4))  # not worth it
    assert counted == [2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_split_in_every_dtype(cores, dtype):
    torch.manual_seed(0)
    query, keys, values = (torch.randn(n, 4).to(dtype) for n in (2, LARGE, LARGE))
    plain = reference.attend(query.double(), keys.double(), values.double())
    error = 1e-6 if dtype == torch.float32 else 2e-3
    assert_close(attend(query, keys, values).double(), plain, rtol=error, atol=error)
    with torch.autocast("cpu", torch.bfloat16 if dtype == torch.float32 else dtype):
        assert_close(attend(query, keys, values).double(), plain, rtol=1e-2, atol=1e-2)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_function_transforms_where_the_read_would_be_split(cores):
    torch.manual_seed(0)
    query, keys, values = torch.randn(2, 1, 4), torch.randn(LARGE, 4), torch.randn(LARGE, 2)
    expected = attend(query, keys, values)
    assert_close(torch.vmap(attend, (0, None, None))(query, keys, values), expected)
    grad = torch.func.grad(lambda q: attend(q, keys, values).sum())(query)
    leaf = query.clone().requires_grad_()
    reference.attend(leaf, keys, values).sum().backward()
    assert_close(grad, leaf.grad)


def test_a_missing_kernel_falls_back_to_pytorch(cores, monkeypatch):
    torch.manual_seed(0)
    qkv = [torch.randn(n, 4) for n in (1, LARGE, LARGE)]
    expected = attend(*qkv)
    monkeypatch.setattr(streaming, "_forward", None)
    assert_close(attend(*qkv), expected)


@pytest.mark.parametrize("value_width", [3, 8])
@pytest.mark.parametrize("mask", [None, "N", "1N", "LN"])
@pytest.mark.parametrize("lead", [(), (2,), (2, 3)], ids=str)
@pytest.mark.parametrize("measure", MEASURES)
def test_no_tensor_holds_a_score_for_each_query_and_slot(
    measure, lead, mask, value_width, monkeypatch
):
    monkeypatch.setattr(distance, "BLOCK", 1024)  # a memory of 200 slots is a large one
    largest = largest_tensor(64, 200, lead, mask, value_width, measure=measure)
    scores = 64 * 200 if mask != "LN" else 64 * 200 * max(2, torch.Size(lead).numel())
    assert largest < scores  # a mask of its own for each query has that size already


def test_strides_make_no_scores():
    query, keys, values = (torch.randn(4, n).mT for n in (64, 96, 96))
    with Sizes() as sizes:
        attend(query, keys, values)
    assert sizes.largest < 64 * 96


@pytest.mark.parametrize("cores", [1, 2], indirect=True)
@pytest.mark.parametrize("lead", [(), (2,)], ids=str)
def test_no_scores_of_a_large_memory_either(cores, lead):
    assert largest_tensor(12, LARGE, lead, None, 4, grad_of="q") < 12 * LARGE


def test_the_detector_sees_scores():
    assert largest_tensor(64, 96, (), None, 3, need_weights=True) == 64 * 96
    assert largest_tensor(64, 96, (2,), None, 3, top_k=5) == 2 * 64 * 96


def largest_tensor(queries, slots, lead, mask, value_width, grad_of="qkv", **options):
    torch.manual_seed(0)
    shapes = {"q": (queries, 4), "k": (slots, 4), "v": (slots, value_width)}
    tensors = [torch.randn(*lead, *s, requires_grad=n in grad_of) for n, s in shapes.items()]
    if mask is not None:
        ones = [1] * len(lead)
        shape = {"N": (slots,), "1N": (*lead, 1, slots), "LN": (*ones, queries, slots)}[mask]
        options["mask"] = torch.rand(shape) < 0.5
    with Sizes() as sizes:
        result = attend(*tensors, **options)
        (result[0] if isinstance(result, tuple) else result).sum().backward()
    return sizes.largest


STEEP = [  # scale of queries and keys, and strength: scores up to 1e12, the best far apart
    (1.0, 1.0), (30.0, 1.0), (1e3, 1.0), (6e4, 1.0), (1.0, 1e6), (1e-3, 1e4),
]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(("scale", "strength"), STEEP)
@pytest.mark.parametrize("each", [False, True], ids=["number", "tensor"])
@pytest.mark.parametrize("masked", [False, True])
def test_gradients_of_scores_of_any_size(measure, dtype, scale, strength, each, masked):
    random = torch.Generator().manual_seed(0)
    query, keys, values = (
        torch.randn(2, n, width, generator=random).mul(by).clamp(-6e4, 6e4).to(dtype)
        for n, width, by in ((40, 85, scale), (100, 85, scale), (100, 3, 1.0))
    )
    grad = torch.randn(2, 40, 3, generator=random).to(dtype)
    mask = torch.rand(2, 40, 100, generator=random) < 0.5 if masked else None
    if each:
        strength = torch.full((2, 1), min(strength, 6e4), dtype=dtype)

    def gradients(kind):
        leaves = [x.to(kind).requires_grad_() for x in (query, keys, values)]
        beta = strength.to(kind) if each else strength
        exact = kind == torch.float64
        read = attend(*leaves, measure=measure, strength=beta, mask=mask, need_weights=exact)
        return torch.autograd.grad(read[0] if exact else read, leaves, grad.to(kind))

    ours, right = gradients(dtype), gradients(torch.float64)
    assert all(x.isfinite().all() for x in ours)
    size = float(right[2].abs().max())  # the values': shares of `grad`
    limit = {torch.float32: 1e-3, torch.bfloat16: 2e-2, torch.float16: 4e-3}[dtype]
    assert_close(ours[2].double(), right[2], rtol=0, atol=limit * size)


@pytest.mark.parametrize("measure", ["dot", "cosine"])
def test_a_steep_read_makes_no_scores_either(measure, monkeypatch):
    monkeypatch.setattr(distance, "BLOCK", 1024)
    assert largest_tensor(64, 200, (), None, 3, measure=measure, strength=1e6) < 64 * 200


@pytest.mark.parametrize("options", [{"need_weights": True}, {"top_k": 2}, {}], ids=str)
@pytest.mark.parametrize("of", ["attend", "store"])
def test_a_gradient_by_weights_beyond_float16(of, options):
    """g v is 180,000, of which a strength of 1e-3 leaves little."""
    query, keys = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0, 4.0], [4.0, 3.0]]])
    values = torch.tensor([[[300.0], [-300.0]]])

    def gradient(dtype):
        leaf = query.to(dtype).requires_grad_()
        if of == "store":
            store = Store(2, 1, dtype=dtype)
            store.add(keys.to(dtype), values.to(dtype))
            read = store.read(leaf, 2, strength=1e-3, need_weights=bool(options))
        else:
            read = attend(leaf, keys.to(dtype), values.to(dtype), strength=1e-3, **options)
        read = read[0] if isinstance(read, tuple) else read
        return torch.autograd.grad(read, leaf, torch.full_like(read, 600.0))[0].double()

    assert_close(gradient(torch.float16), gradient(torch.float64), rtol=2e-3, atol=0)
