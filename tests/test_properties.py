"""Properties that every public function has, each written once and run over `cases.CASES`."""

import contextlib
import copy
import re
from pathlib import Path

import cases
import pytest
import torch
from cases import BY_NAME, CASES, SIZES
from torch.testing import assert_close

import memlib

every_function = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
BATCHED = [case for case in CASES if case.name != "programs.run"]
every_batched = pytest.mark.parametrize("case", BATCHED, ids=lambda case: case.name)
SMOOTH = [case for case in CASES if case.differentiable]
LARGE = {"MemoryAttention-learned", "NTM-lengths"}  # so many numbers that differences take long


def shape_of(letters, **sizes):
    return tuple((SIZES | sizes)[s] for s in letters.split())


def leaves(case, tensors):
    """The same tensors, wanting gradients where the function has one."""
    return {
        n: t.detach().clone().requires_grad_(n in case.differentiable) for n, t in tensors.items()
    }


@every_function
def test_runs_on_meta(case):
    results = case.run(case.draw(torch.float32, "meta"), case.make(torch.float32, "meta"))
    assert all(r.is_meta for r in results)
    if case.name != "programs.run":  # its length is known to the program alone
        assert results[0].shape == shape_of(case.out)


def free():
    """The names of which README says that they take any leading dimensions."""
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    said = " ".join(text.split()).partition("The verbs (")[2]
    said = said.partition("take any leading dimensions")[0]
    return set(re.findall(r"`(\w+)`", said))


@every_batched
def test_leading_dimensions_are_as_readme_says(case):
    tensors, module = case.draw(), case.make()
    several = {n: t.expand(2, *t.shape) for n, t in tensors.items()}
    if re.match(r"\w+", case.name)[0] not in free():
        with pytest.raises(ValueError, match=r"must have shape \(B|must broadcast to \(B"):
            case.run(several, module)
        return
    expected = case.run(tensors, module)
    for more, fewer in zip(case.run(several, module), expected, strict=True):
        assert_close(more, fewer.expand(2, *fewer.shape))
    alone = case.run({n: t[0] for n, t in tensors.items()}, module)
    assert_close(alone, tuple(one[0] for one in expected))


def test_leading_dimensions_are_as_docstrings_say():
    public = {name: getattr(memlib, name) for name in memlib.__all__}
    public = {n: getattr(f, "forward", f) for n, f in public.items() if callable(f)}
    shown = {n for n, f in public.items() if re.search(r"\(\.\.\., \w", f.__doc__ or "")}
    assert shown == free()


@every_function
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_keeps_the_dtype_and_is_as_exact_as_it_allows(case, dtype):
    exact = case.draw()
    module = case.make().to(dtype)
    rounded = {n: t.to(dtype) if t.is_floating_point() else t for n, t in exact.items()}
    expected = case.run({n: t.double() if t.is_floating_point() else t for n, t in rounded.items()})
    for result, wanted in zip(case.run(rounded, module), expected, strict=True):
        assert result.dtype == (dtype if wanted.is_floating_point() else wanted.dtype)
        error = {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 8e-2}[dtype]
        assert_close(result.to(wanted.dtype), wanted, rtol=error, atol=error)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.name, marks=[pytest.mark.slow] if case.name in LARGE else [])
        for case in SMOOTH
    ],
)
def test_gradients_are_those_of_finite_differences(case):
    tensors, module = leaves(case, case.draw()), case.make()
    parameters = dict(module.named_parameters())

    def function(*arguments):
        changed = tensors | dict(zip(case.differentiable, arguments, strict=False))
        with contextlib.ExitStack() as stack:
            if parameters:
                values = dict(zip(parameters, arguments[-len(parameters) :], strict=True))
                swap = torch.nn.utils.stateless._reparametrize_module
                stack.enter_context(swap(module, values))
            results = case.run(changed, module)
        return tuple(r for r in results if r.is_floating_point())

    arguments = [tensors[n] for n in case.differentiable] + list(parameters.values())
    assert torch.autograd.gradcheck(function, arguments, atol=1e-6)


@every_batched
def test_rows_of_a_batch_never_see_each_other(case):
    tensors, module = case.draw(), case.make()
    together = case.run(tensors, module)
    for row in range(SIZES["B"]):
        alone = case.run({n: t[row : row + 1] for n, t in tensors.items()}, module)
        for one, many in zip(alone, together, strict=True):
            assert_close(one, many[row : row + 1])


@every_function
def test_strides_do_not_matter_and_nothing_is_mutated(case):
    tensors, module = case.draw(), case.make()
    expected = case.run(tensors, module)
    strided = {n: torch.stack((t, ~t if t.dtype == torch.bool else -t), -1)[..., 0]
               for n, t in tensors.items()}  # fmt: skip
    assert not any(t.is_contiguous() for t in strided.values() if t.numel() > 1)
    results = case.run(strided, module)
    assert_close(results, expected)
    fresh = case.draw()
    for name in fresh:
        assert torch.equal(strided[name], fresh[name]), name
        assert torch.equal(tensors[name], fresh[name]), name


@every_batched
def test_results_share_no_memory_with_the_arguments(case):
    tensors = case.draw()
    results = case.run(tensors)
    kept = tuple(r.clone() for r in results)
    for tensor in tensors.values():
        tensor.zero_()
    assert_close(results, kept)


@pytest.mark.parametrize(
    ("case", "letter"),
    [(case, letter) for case in CASES for letter in case.empty],
    ids=lambda x: x if isinstance(x, str) else x.name,
)
def test_a_size_of_0_works(case, letter):
    results = case.run(case.draw(**{letter: 0}))
    assert results[0].shape == shape_of(case.out, **{letter: 0})
    assert all(r.isfinite().all() for r in results)


@pytest.mark.parametrize("case", SMOOTH, ids=lambda case: case.name)
def test_works_under_autocast(case):
    tensors = leaves(case, case.draw(torch.float32))
    module = case.make(torch.float32)
    expected = case.run(tensors, module)
    with torch.autocast("cpu", torch.bfloat16):
        results = case.run(tensors, module)
    for result, wanted in zip(results, expected, strict=True):
        assert_close(result.to(wanted.dtype), wanted, rtol=0.1, atol=0.1)
    sum(r.float().sum() for r in results if r.requires_grad).backward()
    assert all(t.grad.isfinite().all() for t in tensors.values() if t.grad is not None)


@pytest.mark.needs_torch("2.13")
@every_batched
def test_compiles_to_one_graph(case):
    torch._dynamo.reset()
    tensors, module = case.draw(torch.float32), case.make(torch.float32)

    def function(**tensors):
        return case.call(module, **tensors)

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    assert_close(cases.flat(compiled(**tensors)), case.run(tensors, module))


def traced_anyway():
    """Calls of what `cases.CASES` does not hold, each with tensors that it takes."""
    x, words = torch.ones(2, 3, 4), torch.ones(2, 3, dtype=torch.long)
    store, texts = memlib.Store(4, batch_size=2), memlib.Store(4, 1, value_dtype=torch.long)
    store.add(x, x)
    texts.add(x[:1], words[:1, :, None])
    cache = memlib.KVCache(2, 1, 9, 4)
    cache.extend(x[:, None], x[:, None])  # a second token goes a shorter way
    story = memlib.MemN2N(9, 4)
    return {
        "DNC": (memlib.DNC(4, 2, 5, 3), x),
        "allocation": (memlib.allocation, x / 9),
        "Decoder": (memlib.Decoder(9, 8), words),
        "MemN2N": (lambda question: story(words.unsqueeze(1), question), words),
        "MemorizingAttention": (lambda y: memlib.MemorizingAttention(4, 2)(y)[0], x),
        "KVCache.extend": (lambda y: cache.extend(y, y)[0], x[:, None, :1]),
        "Store.add": (lambda y: store.add(y, y), x),
        "Store.read": (lambda y: store.read(y, 2), x),
        "Store.address": (lambda y: store.address(y, 2), x),
        "Store.get": (lambda ids: store.get(ids), words),
        "knn_lm": (lambda y: memlib.knn_lm(y, y, texts, 2), x),
    }


def assert_tracing_is_refused(function, tensors):
    with pytest.raises(RuntimeError, match=r"torch\.jit\.trace") as caught:
        torch.jit.trace(function, tensors, check_trace=False)
    assert str(caught.value) == "torch.jit.trace would keep one example's shapes; use torch.export"


@every_function
@pytest.mark.filterwarnings("ignore")  # torch's own, of tracing and of its age
def test_tracing_is_refused_and_export_named(case):
    """A trace keeps the shapes of its example, and would check nothing else."""
    tensors, module = case.draw(torch.float32), case.make(torch.float32)

    def function(*values):
        return case.run(dict(zip(tensors, values, strict=True)), module)

    assert_tracing_is_refused(function, tuple(tensors.values()))


@pytest.mark.parametrize("name", traced_anyway())
@pytest.mark.filterwarnings("ignore")
def test_tracing_of_the_rest_is_refused_too(name):
    function, tensor = traced_anyway()[name]
    assert_tracing_is_refused(function, (tensor,))


@pytest.mark.needs_torch("2.13")
@pytest.mark.parametrize("strict", [True, False])
def test_exports_with_sizes_left_open(strict):
    class Net(torch.nn.Module):
        def forward(self, query, keys, mask):
            return memlib.attend(query, keys, keys, mask=mask, measure="cosine", strength=2.0)

    def inputs(B, L, N):
        return torch.ones(B, L, 4), torch.rand(B, N, 4), torch.rand(L, N) < 0.7

    B, L, N = (torch.export.Dim(name, min=2, max=99) for name in "BLN")
    open_sizes = ({0: B, 1: L}, {0: B, 1: N}, {0: L, 1: N})
    exported = torch.export.export(
        Net(), inputs(2, 3, 5), dynamic_shapes=open_sizes, strict=strict
    ).module()
    for sizes in ((2, 3, 5), (4, 6, 30)):
        given = inputs(*sizes)
        assert_close(exported(*given), Net()(*given))


# torch has no vmap rule for its own LSTMCell
MAPPED = [case for case in BATCHED if case.name not in ("NTMCell", "NTMCell-start", "NTM-lengths")]
# nor has an older one for the bits of a number, which a cosine looks at there
COSINES = {
    "similarity-cosine", "address-cosine", "attend-cosine", "locate", "Head",
    "KeyValueMemory.read", "NTM-feed-forward",
}  # fmt: skip


def _mapped(case):
    marks = [pytest.mark.needs_torch("2.13")] if case.name in COSINES else []
    return pytest.param(case, marks=marks, id=case.name)


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch's own, under vmap
@pytest.mark.parametrize("case", [*map(_mapped, MAPPED)])
def test_maps_over_a_dimension(case):
    many = [case.draw(torch.float32, seed=seed) for seed in (0, 1)]
    stacked = {n: torch.stack([tensors[n] for tensors in many]) for n in case.shapes}
    module = case.make(torch.float32)
    mapped = torch.vmap(lambda tensors: case.run(tensors, module))(stacked)
    for i, tensors in enumerate(many):
        assert_close(tuple(r[i] for r in mapped), case.run(tensors, module))


@pytest.mark.parametrize(
    "name", ["Head", "KeyValueMemory.read", "Hopfield", "ClassicalHopfield", "NTMCell"]
)
def test_modules_can_be_copied_and_saved(name):
    case = BY_NAME[name]
    tensors, module = case.draw(), case.make()
    other = case.make()
    for parameter in other.parameters():
        torch.nn.init.normal_(parameter)
    other.load_state_dict(module.state_dict())
    expected = case.run(tensors, module)
    assert_close(case.run(tensors, copy.deepcopy(module)), expected)
    assert_close(case.run(tensors, other), expected)
    assert not list(module.buffers()) or not module.state_dict().keys() & {"_like"}
    assert type(module).__name__ in repr(module)
