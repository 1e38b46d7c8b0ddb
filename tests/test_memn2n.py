"""The end-to-end memory network against the paper's loops, and what it promises beyond them."""

import copy
import itertools
import math

import pytest
import reference
import torch
from torch import nn
from torch.func import functional_call
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from memlib import MemN2N, attend, position_encoding

VOCAB, ANSWERS, WIDTH, HOPS, SLOTS = 12, 4, 6, 3, 5
TYINGS = ["adjacent", "layerwise", "none"]


def make(seed=0, dtype=torch.float64, **options):
    """A small model with lively parameters, ready to answer."""
    torch.manual_seed(seed)
    options = {"slots": SLOTS, "hops": HOPS, **options}
    model = MemN2N(VOCAB, ANSWERS, WIDTH, **options, dtype=dtype).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model


def draw(batch=3, sentences=4, words=5, seed=1):
    """Stories and questions with padding here and there."""
    generator = torch.Generator().manual_seed(seed)
    story = torch.randint(0, VOCAB, (batch, sentences, words), generator=generator)
    question = torch.randint(0, VOCAB, (batch, 4), generator=generator)
    if batch > 1:
        story[1, -1] = 0  # one sentence less
    return story, question


@pytest.mark.parametrize("tying", TYINGS)
@pytest.mark.parametrize("encoding", ["position", "bag"])
@pytest.mark.parametrize("temporal", [True, False])
@pytest.mark.parametrize(
    ("relu", "empty", "linear"),
    [(False, True, False), (True, True, False), (False, False, False), (False, True, True)],
)
@pytest.mark.parametrize("sentences", [4, 7])  # 7: more than the memory holds
def test_parity_with_plain_loops(tying, encoding, temporal, relu, empty, linear, sentences):
    options = {"tying": tying, "temporal": temporal, "relu": relu}
    options |= {"empty": empty, "linear": linear}
    model = make(encoding=encoding, **options)
    story, question = draw(sentences=sentences)
    scores, weights = model(story, question, need_weights=True)
    shared = {"vocab_size": VOCAB, "answers": ANSWERS, "slots": SLOTS, "hops": HOPS}
    shared |= {"position": encoding == "position", **options}
    for name in ("answer", "between"):
        value = getattr(model, name)
        shared[name] = None if value is None else value.detach().numpy()
    tables = [embedding.detach().numpy() for embedding in model.embeddings]
    for row in range(len(story)):
        expected, where = reference.memn2n(
            tables, story[row].tolist(), question[row].tolist(), **shared
        )
        assert_close(scores[row].detach(), torch.tensor(expected), rtol=1e-10, atol=1e-10)
        assert_close(weights[row].detach(), torch.tensor(where), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("tying", TYINGS)
def test_a_hop_is_one_attend(tying):
    """Over the sentences, and over all slots, the empty ones being 0."""
    model = make(tying=tying)
    story, question = draw()
    full = torch.cat((story, torch.zeros(3, SLOTS - 4, 5, dtype=torch.int64)), dim=1)
    for model.empty, shown in ((False, story), (True, full)):
        hop_by_hop(model, shown, question, everything=model.empty)


def hop_by_hop(model, story, question, everything):
    told = (story != 0).any(-1)
    age = told.flip(1).cumsum(1).flip(1) - told.long()
    encoded = model._encode(story, question, age, told)
    memory, u = encoded[:, :-1], encoded[:, -1, model._question]
    told = told | everything
    for k, v in zip(model._keys, model._values, strict=True):
        read = attend(
            u.unsqueeze(1), memory[:, :, k], memory[:, :, v], measure="dot", mask=told.unsqueeze(1)
        )[:, 0]
        u = read + (u if model.between is None else u @ model.between.mT)
    answer = model.embeddings[-1][1 : ANSWERS + 1] if model.answer is None else model.answer
    assert_close(model(story, question), u @ answer.mT)


def test_position_encoding_is_the_official_one():
    words, width = 5, 4
    weights = position_encoding(words, width)
    for j, k in itertools.product(range(1, words + 1), range(1, width + 1)):
        expected = 1 + 4 * (k - (width + 1) / 2) * (j - (words + 1) / 2) / (width * words)
        assert weights[j - 1, k - 1].item() == pytest.approx(expected)
        paper = (1 - j / words) - (k / width) * (1 - 2 * j / words)
        assert abs(expected - 2 * paper) <= 2 / words + 2 / width
    assert_close(weights.mean(0), torch.ones(width))
    assert_close(position_encoding(1, 3), torch.ones(1, 3))


def test_one_sentence_is_encoded_by_position_encoding():
    model = make(temporal=False)
    story, question = torch.tensor([[[3, 7, 5]]]), torch.tensor([[2]])
    encoded = model._encode(story, question, torch.zeros(1, 1).long(), torch.ones(1, 1).bool())
    expected = (position_encoding(3, WIDTH) * model.embeddings[1][[3, 7, 5]]).sum(0)
    assert_close(encoded[0, 0, 1], expected)


class Calls(TorchDispatchMode):
    """Counts the operations."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


@pytest.mark.needs_torch("2.12")
@pytest.mark.parametrize("tying", TYINGS)
def test_a_story_is_looked_up_once_however_many_hops(tying):
    lookups = {
        "_embedding_bag",
        "_embedding_bag_forward_only",
        "embedding",
        "index_select",
        "index",
    }
    lookups |= {"gather", "embedding_bag"}
    counts = {}
    for hops in (1, 2, 6):
        model = make(hops=hops, tying=tying)
        with Calls() as calls, torch.no_grad():
            model(*draw())
        assert sum(name in lookups for name in calls.names) == 1
        counts[hops] = len(calls.names)
    # a hop adds its read and nothing else: no encoding grows with it
    assert counts[6] - counts[2] == 4 * (counts[2] - counts[1])
    assert counts[2] - counts[1] <= 30


@pytest.mark.parametrize("tying", TYINGS)
@pytest.mark.parametrize("linear", [True, False])
def test_padding_never_changes_the_answer(tying, linear):
    model = make(tying=tying, linear=linear, dtype=torch.float32)
    story, question = draw(batch=4, sentences=4)
    expected = model(story, question)
    wide = torch.zeros(4, 9, 8, dtype=torch.int64)
    wide[:, [1, 3, 4, 7], 2:7] = story  # empty sentences before, between and after; words too
    asked = torch.zeros(4, 7, dtype=torch.int64)
    asked[:, 1:5] = question
    assert_close(model(wide, asked), expected, rtol=1e-6, atol=1e-6)
    apart = torch.zeros(4, 4, 9, dtype=torch.int64)
    apart[..., [0, 2, 3, 6, 8]] = story  # padding between the words
    assert_close(model(apart, question), expected, rtol=1e-6, atol=1e-6)


def test_the_other_rows_never_change_the_answer():
    model = make(dtype=torch.float32)
    story, question = draw(batch=6)
    expected = model(story, question)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    assert_close(model(story[order], question[order]), expected[order], rtol=0, atol=1e-6)
    for row in range(6):
        alone = model(story[row : row + 1], question[row : row + 1])
        assert_close(alone[0], expected[row], rtol=0, atol=1e-6)


@pytest.mark.slow
def test_gradcheck():
    for tying, linear in itertools.product(TYINGS, (False, True)):
        model = make(tying=tying, linear=linear, hops=2, relu=not linear)
        story, question = draw(batch=2, sentences=3, words=3)
        names, values = zip(*model.named_parameters(), strict=True)

        def run(*parameters, model=model, names=names, story=story, question=question):
            given = dict(zip(names, parameters, strict=True))
            return functional_call(model, given, (story, question))

        assert torch.autograd.gradcheck(run, values)


def test_padding_is_neither_read_nor_trained():
    model = make()
    story, question = draw()
    model(story, question).sum().backward()
    assert all(not embedding.grad[0].any() for embedding in model.embeddings)
    before = model(story, question)
    with torch.no_grad():
        for embedding in model.embeddings:
            embedding[0] = math.nan
    assert torch.equal(model(story, question), before)
    fresh = MemN2N(VOCAB, ANSWERS)
    assert all(not embedding[0].any() for embedding in fresh.embeddings)


def test_without_a_story_the_question_alone_decides():
    model = make()
    _, question = draw()
    nothing, weights = model(torch.zeros(3, 0, 4).long(), question, need_weights=True)
    assert weights.shape == (3, HOPS, 0)
    assert_close(model(torch.zeros(3, 4, 4).long(), question), nothing)
    u = model._encode(torch.zeros(3, 0, 4).long(), question, *2 * [torch.zeros(3, 0).long()])
    assert_close(nothing, u[:, -1, 0] @ model.embeddings[-1][1 : ANSWERS + 1].mT)
    assert model(torch.zeros(0, 4, 4).long(), torch.zeros(0, 3).long()).shape == (0, ANSWERS)
    assert model(torch.zeros(2, 4, 0).long(), torch.zeros(2, 0).long()).shape == (2, ANSWERS)


def test_only_the_newest_sentences_are_readable():
    model = make()
    story, question = draw(sentences=9)
    scores, weights = model(story, question, need_weights=True)
    assert_close(model(story[:, -SLOTS - 1 :], question), scores)  # row 1 has an empty one
    assert not weights[0, :, :-SLOTS].any()
    assert_close(weights.sum(-1), torch.ones(3, HOPS, dtype=torch.float64))


def test_older_and_newer_are_told_apart_by_age_alone():
    story = torch.tensor([[[1, 2], [1, 2], [1, 2]]])
    question = torch.tensor([[3]])
    _, weights = make()(story, question, need_weights=True)
    assert weights[0, 0].unique().numel() == 3
    for empty, share in ((True, 1 / SLOTS), (False, 1 / 3)):
        model = make(temporal=False, empty=empty)
        with torch.no_grad():
            model.embeddings[0][3] = 0  # a question that looks for nothing
        _, weights = model(story, question, need_weights=True)
        assert_close(weights[:, 0], torch.full((1, 3), share, dtype=torch.float64))


def test_noise_makes_gaps_of_every_kind():
    model = make(noise=0.5, slots=20).train()
    told = torch.ones(4000, 6, dtype=torch.bool)
    told[0, 2:] = False
    age = told.flip(1).cumsum(1).flip(1) - told.long()
    torch.manual_seed(0)
    noisy = model._gaps(age, told)
    assert noisy[0, :2].max() <= 2  # one more at most for two sentences
    rows = noisy[1:]
    assert (rows.diff(dim=1) < 0).all()  # the order stays
    missing = rows.max(1).values - 5
    # 0 to 3 missing, equally often; the last kept need not be the oldest place
    places = {tuple(row) for row in rows.tolist()}
    assert {row for row in places if max(row) == 5} == {(5, 4, 3, 2, 1, 0)}
    assert missing.max() == 3
    assert len(places) == 1 + 6 + math.comb(7, 2) + math.comb(8, 3)  # every set of gaps
    counts = torch.tensor([(missing == m).float().mean() for m in range(4)])
    # P(oldest place = 5 + m): m missing of n, and the gap not beyond the oldest
    kept = [math.comb(5 + m, 5) for m in range(4)]
    expected = [sum(kept[m] / math.comb(6 + n, 6) for n in range(m, 4)) / 4 for m in range(4)]
    assert_close(counts, torch.tensor(expected), rtol=0, atol=0.03)


def test_noise_is_for_training_alone():
    story, question = draw()
    model = make(noise=0.5)
    expected = model(story, question)
    assert torch.equal(model(story, question), expected)
    model.train()
    torch.manual_seed(0)
    first = model(story, question)
    assert not torch.equal(model(story, question), first)
    torch.manual_seed(0)
    assert torch.equal(model(story, question), first)


def test_a_linear_start_ends():
    model = make(linear=True)
    story, question = draw()
    _, weights = model(story, question, need_weights=True)
    assert (weights < 0).any()
    model.linear = False
    scores, weights = model(story, question, need_weights=True)
    assert (weights >= 0).all()
    assert torch.equal(scores, make()(story, question))


@pytest.mark.parametrize("linear", [True, False])
def test_scores_beyond_float16_on_the_way(linear):
    options = {"linear": linear, "tying": "none", "temporal": False, "empty": False, "hops": 1}
    exact = MemN2N(3, 1, width=1, dtype=torch.float64, **options)
    keys, values, words = exact.embeddings
    with torch.no_grad():
        keys[1:], values[1:], words[1:] = 300, 2**-10, torch.tensor([[300.0], [-300.0]])
        exact.answer.fill_(0.5)
    half = MemN2N(3, 1, width=1, dtype=torch.float16, **options)
    half.load_state_dict(exact.state_dict())
    story, question = torch.tensor([[[1], [2]]]), torch.tensor([[2]])
    scores = half(story, question)  # of two slots, -90,000 each
    assert_close(scores.double(), exact(story, question), rtol=1e-3, atol=0)
    grads = torch.autograd.grad(scores.sum(), list(half.parameters()))
    assert all(grad.isfinite().all() for grad in grads)
    if linear:
        with pytest.raises(ValueError, match=r"embeddings.0.* must be small enough for"):
            half(story, question, need_weights=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_what_overflows_is_refused(dtype):
    model = MemN2N(3, 1, width=1, dtype=dtype, linear=True)
    with torch.no_grad():
        for embedding in model.embeddings:
            embedding[1:] = torch.finfo(dtype).max
    story, question = torch.tensor([[[1], [2]]]), torch.tensor([[2]])
    with pytest.raises(ValueError, match=f"must be small enough for {dtype}; the"):
        model(story, question)
    model.embeddings[1].data[1] = torch.nan
    with pytest.raises(ValueError, match=r"embeddings.1 must be finite where it is read; got NaN"):
        model(story, question)


@pytest.mark.needs_torch("2.13")
@pytest.mark.slow
def test_compiles_whole():
    for tying, noise in itertools.product(TYINGS, (0.0, 0.3)):
        torch.compiler.reset()
        model = make(tying=tying, noise=noise)
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        story, question = draw()
        assert_close(compiled(story, question), model(story, question))
        compiled.train()(story, question).sum().backward()


def test_meta():
    for tying in TYINGS:
        model = MemN2N(VOCAB, ANSWERS, tying=tying, noise=0.1, device="meta")
        story, question = (x.to("meta") for x in draw())
        scores, weights = model(story, question, need_weights=True)
        assert scores.device.type == weights.device.type == "meta"
        assert (scores.shape, weights.shape) == ((3, ANSWERS), (3, 3, 4))


@pytest.mark.parametrize("tying", TYINGS)
def test_copies_and_state_dicts_give_the_same(tying):
    model, other = (make(seed, tying=tying) for seed in (0, 1))
    story, question = draw()
    assert not torch.equal(other(story, question), model(story, question))
    other.load_state_dict(model.state_dict())
    for twin in (other, copy.deepcopy(model)):
        assert torch.equal(twin(story, question), model(story, question))
    single = model.float()
    assert single(story.int(), question.int()).dtype == torch.float32


def test_parameters_are_those_of_the_paper():
    sizes = {"adjacent": 4, "layerwise": 3, "none": 7}
    for tying, matrices in sizes.items():
        model = MemN2N(100, 10, 20, 3, slots=50, tying=tying)
        words = matrices * (100 + 50) * 20
        extra = {"adjacent": 0, "layerwise": 10 * 20 + 20 * 20, "none": 10 * 20}[tying]
        assert sum(p.numel() for p in model.parameters()) == words + extra
        spread = torch.cat([p.flatten() for p in model.parameters()]).std()
        assert spread.item() == pytest.approx(0.1, rel=0.05)


def test_reset_parameters_draws_anew():
    model = MemN2N(VOCAB, ANSWERS, tying="layerwise")
    before = copy.deepcopy(model.state_dict())
    model.reset_parameters()
    assert not any(torch.equal(before[n], p) for n, p in model.state_dict().items())


WRONG = [
    ({"vocab_size": 1}, ValueError, "vocab_size must be at least 2; got 1"),
    ({"answers": 12}, ValueError, r"answers must be in \[1, 11\]; got 12"),
    ({"answers": 0}, ValueError, "answers must be"),
    ({"width": 2.0}, TypeError, "width must be an integer"),
    ({"hops": 0}, ValueError, "hops must be at least 1; got 0"),
    ({"slots": 0}, ValueError, "slots must be at least 1"),
    ({"tying": "all"}, ValueError, "tying must be one of adjacent, layerwise, none; got 'all'"),
    ({"encoding": "sum"}, ValueError, "encoding must be one of position, bag"),
    ({"noise": -0.1}, ValueError, "noise must be finite and at least 0; got -0.1"),
    ({"dtype": torch.int64}, TypeError, "dtype must have a floating-point dtype"),
]


@pytest.mark.parametrize(("options", "error", "words"), WRONG)
def test_bad_sizes_are_refused(options, error, words):
    with pytest.raises(error, match=words):
        MemN2N(**{"vocab_size": VOCAB, "answers": ANSWERS, **options})


def test_more_answers_than_words_need_their_own_matrix():
    assert MemN2N(4, 9, tying="none")(
        torch.ones(1, 2, 3).long(), torch.ones(1, 2).long()
    ).shape == (
        1,
        9,
    )


WORDS = torch.ones(2, 3, 4, dtype=torch.int64)
INPUTS = [
    ((WORDS.float(), WORDS[:, 0]), TypeError, "story must have dtype int64 or int32"),
    ((WORDS, WORDS[:, 0].bool()), TypeError, "question must have dtype int64 or int32"),
    (([[1]], WORDS[:, 0]), TypeError, "story must be a torch.Tensor; got list"),
    ((WORDS[0], WORDS[:, 0]), ValueError, r"story must have shape \(B, N, W\); got \(3, 4\)"),
    ((WORDS, WORDS[:1, 0]), ValueError, r"question must have shape \(B, W\) with B = 2"),
    ((WORDS * VOCAB, WORDS[:, 0]), ValueError, r"story must hold words in \[0, 12\); got 12 to 12"),
    ((WORDS, -WORDS[:, 0]), ValueError, r"question must hold words in \[0, 12\); got -1 to -1"),
]


@pytest.mark.parametrize(("inputs", "error", "words"), INPUTS)
def test_bad_input_is_refused(inputs, error, words):
    with pytest.raises(error, match=words):
        make()(*inputs)


def test_it_says_what_it_is():
    assert "width=6, hops=3, slots=5, tying='adjacent'" in repr(make())
