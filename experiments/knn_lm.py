"""A memory of text that a language model was never trained on, as in kNN-LM.

A small `memlib.Decoder` learns to name the next byte of Python's standard library, but for a few
packages that are kept from it. Some of their files are asked: the model reads the second half of
a file, a window at a time, and what it knows of all that came before is in a `memlib.Store`: a
pair for each byte, how the model saw what came before it (the key) and the byte (the value). The
store is filled with the other files of the package, then with the first half of the file itself,
and with fewer slots it forgets the first: 1,024 slots hold the end of the first half, 65,536 hold
all of it and a part of the package. `memlib.knn_lm` mixes what it recalls into what the model
says (Khandelwal et al. 2020, arXiv 1911.00172). A key is what the logits are made of; the
paper's, what the last feed-forward layer reads, was as good in a trial.

In the paper the store holds the text of training, or that of another domain, without training on
it (section 4.3); this is the latter. Four more stores tell what the text must have to be of use;
each holds as many bytes as the largest memory, and has a mix and a strength of its own.

========= ========================================================================================
text      what it is for
========= ========================================================================================
training  files of the library outside the packages, without tests and tables
validate  second halves of files: mix and strength are chosen on them, for each store
test      second halves of other files: nothing is chosen on them
========= ========================================================================================

========= ========================================================================================
store     what it holds                                                          seen in training?
========= ========================================================================================
memory    files of the package that are not asked; last, the file's first half   no
package   the same without the first half                                        no
elsewhere files of another package that was kept from training                   no
contrast  the end of the text of training                                        yes
prose     the manual of the language, in English, which comes with the library   no
========= ========================================================================================

Files come in the order of a hash of their names, a shuffle that is the same everywhere. The text
differs from one version of Python to the next; records with the same ``text`` can be compared.

Every finished run is a line of ``results/knn_lm.json``.
"""

import argparse
import ast
import hashlib
import math
import platform
import sysconfig
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from experiments import command_line, records, training
from experiments.tokens import rise_and_fall
from memlib import Decoder, Store, default_device, knn_lm

LIBRARY = Path(sysconfig.get_paths()["stdlib"])
LEFT_OUT = {  # installed packages, tests, and what is made of tables or old code
    "site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__",
    "encodings", "pydoc_data", "idlelib", "lib2to3", "turtledemo",
}  # fmt: skip
MANUAL = "pydoc_data/topics.py"  # chapters of the language reference, as `help()` shows them
STORES = ("memory", "package", "elsewhere", "contrast", "prose")
OF_THE_MACHINE = ("_sysconfigdata", "config-")  # how this Python was built
DATA = 1_000_000  # seed of the training data's generator
BYTES, NEWLINE = 256, 10
ROWS = 128  # read at a time
THIN = 4  # of the bytes that validate, one in so many is asked to make a choice


@dataclass(frozen=True)
class Recipe:
    """The text, the model, its training, and its memory.

    Attributes:
        packages: kept from training.
        files: of each package that are asked, and as many that validate.
        asked: bytes of each, from its middle on; a file that is asked has four times as many.
        length: bytes that the model reads at once.
        width: of the model.
        layers: of the model.
        heads: of a layer.
        batch_size: rows an update.
        rate: the highest learning rate.
        warm_up: rows over which it rises at first.
        sequences: the budget, over which it then falls to 0.
        every: rows between looks.
        clip: largest norm of the gradient of each parameter.
        slots: of the memories that are measured.
        k: pairs that a query reads.
        mixes: shares of the memory to choose from; 0 is none.
        strengths: of the read, to choose from; the inverse of the paper's temperature.
    """

    packages: tuple[str, ...] = ("asyncio", "email", "multiprocessing")
    files: int = 4
    asked: int = 2_048
    length: int = 128
    width: int = 128
    layers: int = 2
    heads: int = 4
    batch_size: int = 16
    rate: float = 0.005
    warm_up: int = 1_600
    sequences: int = 20_000
    every: int = 2_000
    clip: float = 1.0
    slots: tuple[int, ...] = (0, 1_024, 16_384, 65_536)
    k: int = 32
    mixes: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    strengths: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4, 0.8)


RECIPE = Recipe()


class Passage(NamedTuple):
    """A file that is asked: its first half may be remembered, what follows is asked."""

    package: str
    name: str
    before: bytes
    asked: bytes


@dataclass(frozen=True)
class Texts:
    """All text of a run, no byte of which is in two places.

    Attributes:
        train: what the model is trained on.
        memory: the files of each package that are not asked.
        validate: passages on which choices are made.
        test: passages on which none is.
        prose: the manual.
    """

    train: bytes
    memory: dict[str, bytes]
    validate: list[Passage]
    test: list[Passage]
    prose: bytes

    def about(self) -> dict[str, Any]:
        """Return what a record says of the text."""
        digest = hashlib.sha256(self.train + self.prose)
        for package, text in self.memory.items():
            digest.update(package.encode() + text)
        asked = (*self.validate, *self.test)
        for passage in asked:
            digest.update(passage.name.encode() + passage.before + passage.asked)
        return {
            "python": platform.python_version(),
            "hash": digest.hexdigest()[:16],
            "train_bytes": len(self.train),
            "prose_bytes": len(self.prose),
            "memory_bytes": sum(map(len, self.memory.values())) + sum(len(p.before) for p in asked),
            "validate_bytes": sum(len(passage.asked) for passage in self.validate),
            "test_bytes": sum(len(passage.asked) for passage in self.test),
            "validate_files": [passage.name for passage in self.validate],
            "test_files": [passage.name for passage in self.test],
            "test_before": [len(passage.before) for passage in self.test],
        }


def python_files(folder: Path) -> dict[str, bytes]:
    """Return the files of a library by name, shuffled by the hash of it, none with like contents.

    Line ends are those of Unix, so that the text is the same on every system.
    """
    names = [path.relative_to(folder) for path in folder.rglob("*.py")]
    chosen = [
        name.as_posix() for name in names
        if not LEFT_OUT & set(name.parts) and not name.as_posix().startswith(OF_THE_MACHINE)
    ]  # fmt: skip
    found: dict[bytes, str] = {}  # a copy has the place of the first
    for name in sorted(chosen, key=lambda name: hashlib.sha256(name.encode()).digest()):
        found.setdefault((folder / name).read_bytes().replace(b"\r\n", b"\n"), name)
    return {name: text for text, name in found.items()}


def read_texts(recipe: Recipe, folder: Path) -> Texts:
    """Read a library and say what each part of it is for.

    Raises:
        ValueError: a package has too few files, or too little text for the largest memory.
    """
    library, prose = python_files(folder), read_manual(folder)
    memory, validate, test = {}, [], []
    for package in recipe.packages:
        own = {name: library.pop(name) for name in list(library) if name.startswith(f"{package}/")}
        long = [name for name, text in own.items() if len(text) >= 4 * recipe.asked]
        chosen = long[: 2 * recipe.files]
        passages = [_split(package, name, own.pop(name), recipe.asked) for name in chosen]
        memory[package] = b"".join(own.values())
        if len(passages) < 2 * recipe.files or len(memory[package]) < max(recipe.slots):
            rule = f"{2 * recipe.files} long files and {max(recipe.slots):,} bytes in others"
            got = f"{len(passages)} and {len(memory[package]):,}"
            raise ValueError(f"{package} in {folder.name} must have {rule}; got {got}")
        test += passages[::2]
        validate += passages[1::2]
    return Texts(b"".join(library.values()), memory, validate, test, prose)


def read_manual(folder: Path) -> bytes:
    """Return the chapters of the language reference that come with a library."""
    *_, last = ast.parse((folder / MANUAL).read_bytes()).body
    assert isinstance(last, ast.Assign)
    return "\n".join(ast.literal_eval(last.value).values()).encode()


def _split(package: str, name: str, text: bytes, asked: int) -> Passage:
    middle = len(text) // 2
    return Passage(package, name, text[:middle], text[middle : middle + asked])


def as_tensor(text: bytes) -> Tensor:
    """Return the bytes of a text, (T,) uint8."""
    return torch.frombuffer(bytearray(text), dtype=torch.uint8).to(default_device())


def make_model(seed: int, recipe: Recipe) -> Decoder:
    """Build a model, drawn from the seed."""
    torch.manual_seed(seed)
    return Decoder(BYTES, recipe.width, recipe.layers, recipe.heads).to(default_device())


def make_batch(text: Tensor, generator: Generator, recipe: Recipe) -> Tensor:
    """Draw pieces of a text, a byte longer than what the model reads: (B, T + 1) int64."""
    start = torch.randint(len(text) - recipe.length, (recipe.batch_size, 1), generator=generator)
    return text[(start + torch.arange(recipe.length + 1)).to(text.device)].long()


def loss(model: nn.Module, batch: Tensor) -> Tensor:
    """Return the mean cross entropy of each next byte, in nats."""
    logits, _ = model(batch[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())


class Seen(NamedTuple):
    """How a model saw what comes before each byte of a text, which is a query or a key."""

    states: Tensor  # (T, D), what the logits are made of
    logits: Tensor  # (T, V)
    targets: Tensor  # (T,), the bytes


@torch.no_grad()
def look(model: Decoder, before: bytes, text: bytes, length: int) -> Seen:
    """Let a model read a text, each byte with at least length / 2 bytes before it.

    Rows of the length follow each other by half of it, and the second half of each counts. Where
    nothing comes before the text, it is as if these were empty lines.
    """
    half, count = length // 2, len(text)
    past = before[-half:].rjust(half, bytes([NEWLINE]))
    rows = as_tensor(past + text.ljust(-(-count // half) * half, bytes([NEWLINE])))
    rows = rows.unfold(0, 2 * half, half)  # row r tells the bytes from r · half on
    states: list[Tensor] = []
    logits: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        states.append(output[:, half - 1 :].flatten(0, 1))

    hook = model.norm.register_forward_hook(keep)
    try:
        for some in rows.split(ROWS):
            logits.append(model(some[:, :-1].long())[0][:, half - 1 :].flatten(0, 1))
    finally:
        hook.remove()
    return Seen(torch.cat(states)[:count], torch.cat(logits)[:count], as_tensor(text).long())


Pairs = tuple[Tensor, Tensor]  # keys (T, D) and the bytes (T,)
Asked = tuple[Seen, Sequence[Pairs]]  # what is asked, and what came before it


def make_store(past: Sequence[Pairs], slots: int) -> Store:
    """Return a store of the last so many pairs of the past; an empty one of none."""
    like = past[0][0]
    store = Store(
        like.shape[-1], 1, capacity=slots or None, measure="negative_squared_distance",
        value_dtype=torch.long, device=like.device,
    )  # fmt: skip
    for keys, values in past if slots else ():
        store.add(keys[None], values[None, :, None])
    return store


def bits(seen: Seen, store: Store, k: int, mix: float, strength: float) -> Tensor:
    """Return what it takes to name each byte, in bits (T,), with the help of a store."""
    logits, states = seen.logits[None], seen.states[None]
    if len(store.ids) > 1:  # a row for each query
        logits, states = logits.transpose(0, 1), states.transpose(0, 1)
    found = knn_lm(logits, states, store, k, mix=mix, strength=strength).flatten(0, 1)
    return -found.gather(-1, seen.targets.unsqueeze(-1)).squeeze(-1).double() / math.log(2)


def narrowed(seen: Seen, store: Store, k: int) -> Store:
    """Return a store with a row for each query, the k pairs that it finds: one search for all.

    Twice as many are found by products in float32, which is quick; the store of these says which
    are the nearest.
    """
    count = int(store.lengths)
    keys, values = store.keys[0, :count], store.values[0, :count]
    offset = keys.square().sum(dim=-1) / 2  # least |q - k|² is largest q k - |k|² / 2
    near = torch.cat(
        [(q @ keys.T - offset).topk(min(2 * k, count)).indices for q in seen.states.split(ROWS)]
    )
    rows = _rows(keys[near], values[near])
    ids, _ = rows.address(seen.states[:, None], min(k, count))  # (T, 1, k)
    keys, values = rows.get(ids)
    return _rows(keys[:, 0], values[:, 0])


def _rows(keys: Tensor, values: Tensor) -> Store:
    """Return a store of rows of pairs: keys (T, k, D) and values (T, k, 1)."""
    store = Store(
        keys.shape[-1], 1, batch_size=len(keys), measure="negative_squared_distance",
        capacity=keys.shape[1], value_dtype=torch.long, device=keys.device,
    )  # fmt: skip
    store.add(keys, values)
    return store


def choose(asked: Sequence[Asked], slots: int, recipe: Recipe) -> tuple[float, float]:
    """Return the mix and the strength of the fewest bits, a memory of so many slots given.

    From as much of the memory as of the model on, strength and mix are chosen in turn, twice.
    """
    asked = [(Seen(*(x[::THIN] for x in seen)), past) for seen, past in asked]
    stores = [narrowed(seen, make_store(past, slots), recipe.k) for seen, past in asked]

    def total(mix: float, strength: float) -> float:
        pairs = zip(asked, stores, strict=True)
        return sum(bits(s, store, recipe.k, mix, strength).sum().item() for (s, _), store in pairs)

    mix = 0.5
    for _ in range(2):
        strength = min(recipe.strengths, key=partial(total, mix))
        mix = min(recipe.mixes, key=partial(total, strength=strength))
    return mix, strength


Remember = Callable[[bytes], Pairs]


def remembering(model: Decoder, recipe: Recipe) -> Remember:
    """Return how a model remembers the end of a text; each text is read once."""

    @cache
    def remember(text: bytes) -> Pairs:
        seen = look(model, b"", text[-max(recipe.slots) :], recipe.length)
        return seen.states, seen.targets

    return remember


def recollections(
    model: Decoder,
    passages: Sequence[Passage],
    memory: Mapping[str, bytes],
    own: bool,
    recipe: Recipe,
    remember: Remember,
) -> list[Asked]:
    """Return how the model sees passages, and the memory of their packages.

    Args:
        model: the model.
        passages: what is asked.
        memory: a text for each package, of which the end is remembered.
        own: whether the first half of the file is remembered too, as the newest.
        recipe: of the run.
        remember: makes a text into pairs.
    """
    return [
        (
            look(model, passage.before, passage.asked, recipe.length),
            [remember(text) for text in (memory[passage.package], passage.before)[: 1 + own]],
        )
        for passage in passages
    ]


def measure(
    asked: Sequence[Asked], validate: Sequence[Asked], recipe: Recipe
) -> list[dict[str, Any]]:
    """Return what the memories are worth on what is asked; their options come from `validate`.

    Args:
        asked: of the test.
        validate: what the mix and the strength are chosen on.
        recipe: of the run.
    """
    lines = []
    for slots in recipe.slots:
        mix, strength = choose(validate, slots, recipe) if slots else (0.0, 0.0)
        found = []
        for seen, past in asked:
            store = make_store(past, slots)
            near = narrowed(seen, store, recipe.k) if slots else store
            found.append(bits(seen, near, recipe.k, mix, strength))
        lines.append(
            {
                "slots": slots,
                "bits_per_byte": round(torch.cat(found).mean().item(), 5),
                "weight": mix,
                "strength": strength,
                "files": [round(one.mean().item(), 5) for one in found],
            }
        )
    return lines


def stores_of(texts: Texts) -> dict[str, Mapping[str, bytes]]:
    """Return the text of each store, by package."""
    names = list(texts.memory)
    others = dict(zip(names, names[1:] + names[:1], strict=True))
    return {
        "memory": texts.memory,
        "package": texts.memory,
        "elsewhere": {name: texts.memory[other] for name, other in others.items()},
        "contrast": dict.fromkeys(names, texts.train),
        "prose": dict.fromkeys(names, texts.prose),
    }


def examine(model: Decoder, texts: Texts, recipe: Recipe) -> dict[str, Any]:
    """Return what the stores are worth, the memory in all sizes and the others in the largest."""
    begin, found = time.process_time(), {}
    remember = remembering(model, recipe)
    for name, memory in stores_of(texts).items():
        own = name == "memory"
        sizes = recipe if own else replace(recipe, slots=recipe.slots[-1:])
        test, validate = (
            recollections(model, passages, memory, own, recipe, remember)
            for passages in (texts.test, texts.validate)
        )
        found[name] = measure(test, validate, sizes)
    return found | {"seconds_examining": round(time.process_time() - begin, 3)}


def set_up(model: Decoder, texts: Texts, seed: int, recipe: Recipe) -> training.Training:
    """Return a run, ready to be trained; its curve is of the passages that validate."""
    text = as_tensor(texts.train)

    def evaluate(model: nn.Module) -> training.Figures:
        assert isinstance(model, Decoder)
        seen = [look(model, p.before, p.asked, recipe.length) for p in texts.validate]
        nats = F.cross_entropy(
            torch.cat([s.logits for s in seen]), torch.cat([s.targets for s in seen])
        )
        return {"bits_per_byte": round(nats.item() / math.log(2), 5)}

    return training.Training(
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), fused=True),
        generator=Generator().manual_seed(DATA + seed),
        make_batch=lambda generator: make_batch(text, generator, recipe),
        loss=loss,
        evaluate=evaluate,
        rate=rise_and_fall(recipe.rate, recipe.warm_up, recipe.sequences),
        batch_size=recipe.batch_size,
        every=recipe.every,
        clip=training.by_matrix(recipe.clip),
    )


def perform(seed: int, options: argparse.Namespace) -> str:
    """Train, measure and record one run; return a line on how it went."""
    texts = read_texts(RECIPE, LIBRARY)
    told = {"recipe": asdict(RECIPE), "text": texts.about()}
    about = {"experiment": "knn_lm", "seed": seed, **told}
    origin = records.origin(__name__)
    model = make_model(seed, RECIPE)
    job = set_up(model, texts, seed, RECIPE)
    job.progress.codes.append(origin["key"])
    found = training.fit(job, RECIPE.sequences, about, options)
    found |= examine(model.eval(), texts, RECIPE)
    command = f"python -m experiments knn_lm --seeds {seed}"
    origin |= {"command": command, "key": "+".join(job.progress.codes)}
    records.merge(options.results / "knn_lm.json", found | origin, key=("seed",))
    parts = (
        f"{name} " + ", ".join(f"{m['slots']:,}: {m['bits_per_byte']:.3f}" for m in found[name])
        for name in STORES
    )
    return f"{command}: {found['seconds']:.0f} s; bits per byte by slots: {'; '.join(parts)}"


def main(arguments: list[str]) -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m experiments knn_lm", description=__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    command_line.add_running(parser)
    command_line.add_results(parser)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    for seed in options.seeds:
        print(perform(seed, options), flush=True)
