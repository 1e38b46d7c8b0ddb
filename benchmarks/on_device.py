"""How each part of `benchmarks.gpu` is measured, on whatever device it is asked to."""

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.attend import WIDTH, plain, stream
from benchmarks.ntm import once
from memlib import DNC, NTM, Decoder, attend
from memlib.store.nearest import nearest

Cell = dict[str, Any]
Row = dict[str, Any]
Ways = Mapping[str, Callable[[], Any]]
WARM = 3  # calls that are not counted
KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}


class Where(NamedTuple):
    """A device, and how long a cell is measured there."""

    device: str
    seconds: float = 1.0
    most: int = 100

    def clock(self, call: Callable[[], Any]) -> float:
        """Return how many milliseconds a call takes."""
        if self.device != "cuda":
            start = time.perf_counter()
            call()
            return 1e3 * (time.perf_counter() - start)
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        begin.record()
        call()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end)

    def medians(self, ways: Ways) -> Row:
        """Call all in turn; return the median milliseconds of each."""
        for call in ways.values():
            for _ in range(WARM):
                call()
        times: dict[str, list[float]] = {name: [] for name in ways}
        start, runs = time.perf_counter(), 0
        while runs < self.most and (runs < 3 or time.perf_counter() - start < self.seconds):
            for name, call in ways.items():
                times[name].append(self.clock(call))
            runs += 1
        return {f"{name}_ms": round(median(t), 4) for name, t in times.items()} | {"runs": runs}

    def compiled(self, function: Any) -> Any:
        """Compile into CUDA graphs; on a CPU only trace, which takes less long."""
        how = {"mode": "reduce-overhead"} if self.device == "cuda" else {"backend": "eager"}
        return torch.compile(function, **how)


def reads(cell: Cell, where: Where) -> Row:
    """Time `memlib.attend` beside the formula and PyTorch's attention by each of its kernels."""
    dtype = getattr(torch, cell["dtype"])
    torch.manual_seed(0)
    query, keys, values = (
        torch.randn(cell["batch"], 1, length, WIDTH, device=where.device, dtype=dtype)
        for length in (cell["queries"], cell["slots"], cell["slots"])
    )
    ways: dict[str, Callable[[], Any]] = {
        "attend": lambda: attend(query, keys, values),
        "distance": lambda: attend(query, keys, values, measure="negative_squared_distance"),
        "plain": lambda: plain(query, keys, values),
        "sdpa": lambda: F.scaled_dot_product_attention(query, keys, values),
        "bound": lambda: stream(query, keys, values),
    }
    for name, kernel in KERNELS.items():

        def alone(kernel: SDPBackend = kernel) -> Tensor:
            with sdpa_kernel(kernel):
                return F.scaled_dot_product_attention(query, keys, values)

        if can(alone):
            ways[name] = alone
    exact = plain(query[:1].double(), keys[:1].double(), values[:1].double())
    apart = (attend(query, keys, values)[:1] - exact).abs().max().item()
    row = where.medians(ways)
    kernels = [row[f"{name}_ms"] for name in ("sdpa", *KERNELS) if f"{name}_ms" in row]
    return row | {"apart": apart, "best kernel/attend": ratio(min(kernels), row["attend_ms"])}


def steps(cell: Cell, where: Where) -> Row:
    """Time a step of a recurrent machine on the device, compiled there, and on the CPU."""
    machine = {"NTM": NTM, "DNC": DNC}[cell["machine"]]
    torch.manual_seed(0)
    here = machine(9, 8, cell["slots"], cell["width"], read_heads=cell["read_heads"]).cell
    there = machine(9, 8, cell["slots"], cell["width"], read_heads=cell["read_heads"]).cell
    there.load_state_dict(here.state_dict())
    there.to(where.device)
    x = torch.rand(cell["batch"], 9).round()
    moved, fast = x.to(where.device), where.compiled(there)
    start = there.initial_state(cell["batch"])
    row = where.medians(
        {"device": lambda: there(moved, start), "compiled": lambda: fast(moved, start)}
    )
    row |= where._replace(device="cpu").medians({"cpu": lambda: here(x)})
    apart = (there(moved, start)[0].cpu() - here(x)[0]).abs().max().item()
    row |= {"apart": apart, "cpu/device": ratio(row["cpu_ms"], row["device_ms"])}
    return row | {"device/compiled": ratio(row["device_ms"], row["compiled_ms"])}


def learning(cell: Cell, where: Where) -> Row:
    """Time forward and backward over a sequence, on the device and on the CPU."""
    machine = {"NTM": NTM, "DNC": DNC}[cell["machine"]]
    ways = {}
    with torch.enable_grad():
        for name, device in (("device", where.device), ("cpu", "cpu")):
            net = machine(9, 8, cell["slots"], cell["width"], device=device)
            x, y = (torch.rand(cell["batch"], cell["steps"], n).round().to(device) for n in (9, 8))
            ways[name] = lambda net=net, x=x, y=y: once(net, x, y)
        row = where.medians(ways)
    return row | {"cpu/device": ratio(row["cpu_ms"], row["device_ms"])}


def decoding(cell: Cell, where: Where) -> Row:
    """Time a token of a decoder, as it is and compiled."""
    torch.manual_seed(0)
    dtype = getattr(torch, cell["dtype"])
    sizes = (cell["vocab"], cell["width"], cell["layers"], cell["heads"])
    model = Decoder(*sizes, device=where.device, dtype=dtype)
    tokens = torch.randint(cell["vocab"], (cell["batch"], cell["tokens"]), device=where.device)
    caches = [model.cache(cell["batch"], cell["slots"]) for _ in range(2)]
    firsts = [model(tokens, cache)[0][:, -1:] for cache in caches]
    token = firsts[0].argmax(-1)
    fast = where.compiled(model)
    apart = (model(token, caches[0])[0] - fast(token, caches[1])[0]).abs().max().item()
    row = where.medians(
        {"eager": lambda: model(token, caches[0]), "compiled": lambda: fast(token, caches[1])}
    )
    return row | {"apart": apart, "eager/compiled": ratio(row["eager_ms"], row["compiled_ms"])}


def beside_transformers(cell: Cell, where: Where) -> Row:
    """Time a token of an attention layer beside Llama's with the same weights, and its caches."""
    try:
        from benchmarks import decode
    except SystemExit as reason:
        return {"skipped": str(reason)}
    times: dict[str, list[float]] = {name: [] for name in decode.WAYS}
    with torch.device(where.device):
        torch.manual_seed(0)
        state = decode.Decoding(cell["size"], cell["batch"], cell["tokens"], cell["slots"])
        for run in range(WARM + min(where.most, cell["slots"] - cell["tokens"] - WARM)):
            ways = state.step("layer", *state.prepare())
            for name, call in ways.items():
                taken = where.clock(call)
                if run >= WARM:
                    times[name].append(taken)
    decode.layers.cache_clear()
    row: Row = {f"{name}_ms": round(median(t), 4) for name, t in times.items()}
    better = min(row["dynamic_ms"], row["static_ms"])
    return row | {"better cache/memlib": ratio(better, row["memlib_ms"])}


def searches(cell: Cell, where: Where) -> Row:
    """Time the exact search beside one product of matrices and a top-k of all scores."""
    torch.manual_seed(0)
    k, dtype = cell["k"], getattr(torch, cell["dtype"])
    query, keys = (
        torch.randn(1, length, WIDTH, device=where.device, dtype=dtype)
        for length in (cell["queries"], cell["slots"])
    )
    found, best = nearest(query, keys, k, "dot"), (query @ keys.mT).topk(k).indices
    same = torch.isin(found + marks(found), best + marks(best)).double().mean().item()
    ways = {
        "memlib": lambda: nearest(query, keys, k, "dot"),
        "products": lambda: (query @ keys.mT).topk(k).indices,
    }
    row = where.medians(ways)
    return row | {"same": same, "products/memlib": ratio(row["products_ms"], row["memlib_ms"])}


def marks(slots: Tensor) -> Tensor:
    """Return a number that tells the slots of one query from those of another."""
    return (torch.arange(slots.shape[1], device=slots.device) << 32).view(1, -1, 1)


def ratio(other: float, ours: float) -> float:
    """Return how many times as long the other takes."""
    return round(other / ours, 3)


def can(call: Callable[[], Any]) -> bool:
    """Whether PyTorch has a kernel for this here."""
    try:
        call()
    except RuntimeError:
        return False
    return True
