"""Files that earlier code saved still open: stores, machines and their states, a checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from memlib import DNC, NTM, DNCState, NTMState, Store

SAVED = Path(__file__).parent / "saved"
TINY = {"slots": 8, "width": 6, "hidden": 8, "every": 40, "exam": 10, "sequences": 80}
TINY |= {"batch_size": 2, "sizes": {"length": (1, 3), "bits": 3}}


@pytest.mark.parametrize("backend", ["exact", "hnsw"])
def test_a_store_reads_as_it_did(backend: str) -> None:
    pytest.importorskip("safetensors")
    if backend == "hnsw":
        pytest.importorskip("faiss")
    then = json.loads((SAVED / "reads.json").read_text())[backend]
    store = Store.open(SAVED / f"store_{backend}.safetensors")
    assert store.backend == backend
    value, ids, weights = store.read(torch.tensor(then["query"]), k=3, need_weights=True)
    assert ids.tolist() == then["ids"]
    torch.testing.assert_close(weights, torch.tensor(then["weights"]))
    torch.testing.assert_close(value, torch.tensor(then["value"]))


@pytest.mark.parametrize("controller", ["lstm", "gru", "linear"])
@pytest.mark.parametrize("kind", ["ntm", "dnc"])
def test_a_machine_answers_as_it_did(kind: str, controller: str) -> None:
    library = pytest.importorskip("safetensors.torch")
    saved = library.load_file(SAVED / "machines.safetensors")

    def part(name: str) -> dict[str, torch.Tensor]:
        start = f"{kind}.{controller}.{name}."
        return {n.removeprefix(start): x for n, x in saved.items() if n.startswith(start)}

    machine_type, state_type = {"ntm": (NTM, NTMState), "dnc": (DNC, DNCState)}[kind]
    sort = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "linear": nn.Linear}[controller]
    machine = machine_type(3, 2, 4, 3, controller=sort(6, 4))
    machine.load_state_dict(part("model"), strict=True)
    logits, state = machine(saved[f"{kind}.{controller}.x"])
    torch.testing.assert_close(logits, saved[f"{kind}.{controller}.logits"])
    for one, other in zip(state, state_type(**part("state")), strict=True):
        torch.testing.assert_close(one, other)


def test_a_checkpoint_is_gone_on_with(tmp_path: Path) -> None:
    experiments = pytest.importorskip("experiments")  # a part of the repository
    assert experiments
    from experiments import __main__ as command

    (saved,) = SAVED.glob("ntm_*.safetensors")
    (tmp_path / "unfinished").mkdir()
    shutil.copy(saved, tmp_path / "unfinished")
    changes = [word for name, value in TINY.items() for word in ("--set", f"{name}={value!r}")]
    places = ["--results", f"{tmp_path}/results", "--unfinished", f"{tmp_path}/unfinished"]
    assert command.main(["ntm", "--task", "copy", "--model", "ntm", *changes, *places]) == 0
    (run,) = json.loads((tmp_path / "results/ntm_copy.json").read_text())["runs"]
    assert [point["sequences"] for point in run["curve"]] == [0, 40, 80]
    assert run["curve"][-1]["seconds"] == 0.311, "the curve is the one in the file"
