"""The cache for models of the transformers package, beside the package's own."""

from __future__ import annotations

import copy
import doctest
import functools
import gc
import importlib
import inspect
import itertools
import pkgutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

transformers = pytest.importorskip("transformers", exc_type=ImportError)

from integrations.pretrained import MODELS, VOCAB, batch, made, positions  # noqa: E402
from transformers import DynamicCache  # noqa: E402

import memlib.integrations.transformers as ours  # noqa: E402
from memlib.integrations.transformers import MemoryCache  # noqa: E402
from memlib.transformer import heavy_hitters, looked_at, sinks, window  # noqa: E402

WAYS = {"greedy": {"do_sample": False}, "sample": {"do_sample": True}, "beam": {"num_beams": 3}}
HITTERS = functools.partial(heavy_hitters, recent=3)


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> Any:
    return made(request.param)


def generated(model: Any, cache: Any, *, padded: bool = True, **options: Any) -> Any:
    ids, mask = batch()
    torch.manual_seed(1)
    mask = mask if padded else torch.ones_like(mask)
    options = {"max_new_tokens": 14, "do_sample": False} | options
    return model.generate(
        ids, attention_mask=mask, cache=cache, return_dict_in_generate=True, output_logits=True,
        **options,
    )  # fmt: skip


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_it_decodes_as_the_packages_own_cache_does(model: Any, way: str, padded: bool) -> None:
    theirs = generated(model, DynamicCache(config=model.config), padded=padded, **WAYS[way])
    for cache in (MemoryCache(model), MemoryCache(model, slots=40)):
        mine = generated(model, cache, padded=padded, **WAYS[way])
        assert torch.equal(mine.sequences, theirs.sequences)
        for one, other in zip(mine.logits, theirs.logits, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
    assert len({tuple(row) for row in theirs.sequences[:, 12:].tolist()}) == 3  # rows differ


def stepwise(model: Any, cache: Any, ids: Tensor, mask: Tensor, first: int, *sizes: int) -> Tensor:
    """The logits of a text that comes in parts: the first, and then of these sizes in turn."""
    logits, start, place = [], 0, positions(mask)
    with torch.no_grad():
        while start < ids.shape[1]:
            stop = start + (sizes[len(logits) % len(sizes)] if start else first)
            part, where = ids[:, start:stop], place[:, start:stop]
            given = {"attention_mask": mask[:, :stop], "position_ids": where, "cache": cache}
            logits.append(model(part, **given).logits)
            start = stop
    return torch.cat(logits, dim=1)


def text(length: int = 40) -> tuple[Tensor, Tensor]:
    """A long text after the tokens of the batch."""
    ids, mask = batch()
    more = torch.randint(2, VOCAB, (3, length - 12), generator=torch.Generator().manual_seed(2))
    return torch.cat((ids, more), 1), torch.cat((mask, torch.ones_like(more)), 1)


@pytest.mark.parametrize("sizes", [(1,), (3, 1, 7)])
def test_steps_and_parts_are_the_full_forward_pass(model: Any, sizes: tuple[int, ...]) -> None:
    ids, mask = text()
    got = stepwise(model, MemoryCache(model), ids, mask, 12, *sizes)
    with torch.no_grad():
        full = model(ids, attention_mask=mask, position_ids=positions(mask)).logits
    real = mask.bool()
    torch.testing.assert_close(got[real], full[real], rtol=0, atol=1e-4)


def kept(column: list[int], padding: int, rule: Any, n: int) -> list[int]:
    """The columns of a row that stay, by the definition of the rule; padding goes first."""
    tokens = [c for c in column if c >= padding]
    if len(tokens) <= n:
        return column[-n:]
    if rule is window:
        return tokens[-n:]
    first = [c for c in tokens if c < padding + 4]
    return first + tokens[len(tokens) - (n - len(first)) :]


def written_out(mask: Tensor, rule: Any, slots: int, n: int, parts: list[int]) -> Tensor:
    """What every token may read, (B, 1, T, T), when the cache forgets."""
    length = mask.shape[1]
    readable = torch.zeros(len(mask), 1, length, length, dtype=torch.bool)
    for row, padding in enumerate((~mask.bool()).sum(1).tolist()):
        held: list[int] = []
        start = 0
        for size in parts:
            if len(held) + size > slots and len(held) > n:
                held = kept(held, padding, rule, n)
            for query in range(start, start + size):
                held.append(query)
                seen = [column for column in held if column >= padding]
                readable[row, 0, query, seen or [query]] = True
            start += size
    return readable


@pytest.mark.parametrize("part", [1, 3])
@pytest.mark.parametrize("rule", [window, sinks])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_forgetting_is_the_full_pass_with_its_mask_written_out(
    name: str, rule: Any, part: int
) -> None:
    model, (ids, mask) = made(name), text(42)
    with MemoryCache(model, slots=14, forget=rule, n=9) as cache:
        got = stepwise(model, cache, ids, mask, 12, part)
        assert cache.get_seq_length() == 42
        assert max(layer.held for layer in cache.layers) <= 14
    readable = written_out(mask, rule, 14, 9, [12] + [part] * (30 // part))
    with torch.no_grad():
        wanted = model(ids, attention_mask=readable, position_ids=positions(mask)).logits
        full = model(ids, attention_mask=mask, position_ids=positions(mask)).logits
    real = mask.bool()
    torch.testing.assert_close(got[real], wanted[real], rtol=0, atol=1e-4)
    assert (full - wanted)[real].abs().max() > 0.1  # and it makes a difference


def test_a_window_of_the_model_is_kept_exactly() -> None:
    """With as little as it reads: the buffers move on, the logits are those of the full pass."""
    model, (ids, mask) = made("mistral"), text(200)
    cache = MemoryCache(model)
    got = stepwise(model, cache, ids, mask, 12, 1)
    with torch.no_grad():
        full = model(ids, attention_mask=mask, position_ids=positions(mask)).logits
    torch.testing.assert_close(got[mask.bool()], full[mask.bool()], rtol=0, atol=1e-4)
    assert cache.layers[0].held <= 6 + 64


def test_heavy_hitters_keep_what_was_looked_at_most() -> None:
    """Against the weights of the full pass, the mask of the cache's own choices written out."""
    model, (ids, mask) = made("llama", num_hidden_layers=1), text(30)
    readable = torch.zeros(3, 1, 30, 30, dtype=torch.bool)
    readable[:, :, :12, :12] = torch.ones(12, 12, dtype=torch.bool).tril()
    readable &= mask[:, None, None].bool()
    with MemoryCache(model, slots=14, forget=HITTERS, n=9) as cache:
        stays = []
        for stop in range(12, 31):
            start = stop - 1 if stop > 12 else 0
            part, place = ids[:, start:stop], positions(mask[:, :stop])[:, start:]
            with torch.no_grad():
                model(part, attention_mask=mask[:, :stop], position_ids=place, cache=cache)
            columns = cache.layers[0].columns
            if stop > 12:
                readable[:, 0, start].scatter_(1, columns, mask.bool().gather(1, columns))
            stays.append(columns)
    model.set_attn_implementation("eager")
    additive = torch.where(readable, 0.0, torch.finfo(torch.float32).min)
    given = {"attention_mask": additive, "position_ids": positions(mask)}
    with torch.no_grad():
        looks = model(ids, output_attentions=True, **given).attentions[0]
    weights = looks.sum(1) * mask[:, :, None]  # (B, T, T), padding looks at nothing
    drops = 0
    for query, (before, after) in enumerate(itertools.pairwise(stays), start=12):
        if after.shape[1] == before.shape[1] + 1:
            continue
        drops += 1
        for row in range(3):
            total = weights[row, :query].sum(0)
            held = before[row].tolist()
            best = sorted(held[:-3], key=lambda c, t=total: -float(t[c]))[: 9 - 3] + held[-3:]
            assert after[row, :-1].tolist() == sorted(best)
    assert drops == 4


@pytest.mark.parametrize("rule", [HITTERS, looked_at, functools.partial(looked_at, last=2)])
def test_rules_that_need_weights_decode_and_leave_the_model_as_it_was(
    model: Any, rule: Any
) -> None:
    ids, mask = batch()
    name, before = model.config._attn_implementation, model(ids, attention_mask=mask).logits
    few = model.config.model_type == "mistral"  # less than the window of 6 that all its layers have
    slots, n = (5, 4) if few else (16, 9)
    with MemoryCache(model, slots, forget=rule, n=n) as cache:
        assert model.config._attn_implementation == "memlib_eager"
        out = generated(model, cache)
        held = [layer.held for layer in cache.layers if few or not layer.is_sliding]
        assert max(held) <= slots
    assert torch.isfinite(torch.stack(out.logits)).all()
    assert model.config._attn_implementation == name
    assert torch.equal(model(ids, attention_mask=mask).logits, before)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("rule", [window, sinks, HITTERS, looked_at])
def test_with_room_for_all_a_rule_changes_nothing(model: Any, rule: Any, beams: int) -> None:
    theirs = generated(model, DynamicCache(config=model.config), num_beams=beams)
    with MemoryCache(model, slots=64, forget=rule) as cache:
        assert torch.equal(generated(model, cache, num_beams=beams).sequences, theirs.sequences)


def test_beams_forget_each_by_itself() -> None:
    """The best beam, read once more as a row of its own, has the scores that the search gave."""
    model = made("llama")
    with MemoryCache(model, slots=14, forget=sinks, n=9) as cache:
        found = generated(model, cache, num_beams=3, output_scores=True)
        ids = found.sequences
        mask = torch.cat((batch()[1], torch.ones_like(ids[:, 12:])), 1)
        cache.reset()
        logits = stepwise(model, cache, ids, mask, 12, 1)
    logs = logits[:, 11:-1].log_softmax(-1).gather(2, ids[:, 12:, None]).squeeze(2)
    torch.testing.assert_close(found.sequences_scores, logs.mean(1), rtol=0, atol=1e-4)


def test_padding_goes_before_any_token_whatever_its_score() -> None:
    """A rule that gives all tokens the worst score there is drops padding first all the same."""
    model, (ids, mask) = made("llama"), text(16)

    def worst(cache: Any) -> Tensor:
        return torch.full(cache.positions.shape, -torch.inf)

    with MemoryCache(model, slots=12, forget=worst, n=8) as cache:
        stepwise(model, cache, ids[:, :13], mask[:, :13], 12, 1)
        columns = cache.layers[0].columns
    assert columns[0].tolist() == [0, 5, 6, 7, 8, 9, 10, 11, 12]  # one of its five padded columns
    assert columns[1].tolist() == [2, 3, 4, 5, 6, 7, 8, 9, 12]  # of equal scores the older stay
    assert columns[2].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 12]


def test_a_prompt_longer_than_the_slots_is_read_whole() -> None:
    model, (ids, mask) = made("llama"), text(40)
    with MemoryCache(model, slots=10, forget=sinks) as cache, torch.no_grad():
        got = model(ids, attention_mask=mask, position_ids=positions(mask), cache=cache).logits
        wanted = model(ids, attention_mask=mask, position_ids=positions(mask)).logits
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)
        more = torch.cat((mask, mask[:, :1] | 1), 1)
        model(ids[:, :1], attention_mask=more, position_ids=more.sum(1, True) - 1, cache=cache)
    assert cache.layers[1].held == 10
    assert cache.nbytes == 2 * 2 * 3 * 2 * 10 * 8 * 4  # layers, keys and values, (B, G, N, M)


def test_crop_takes_back_the_newest_tokens() -> None:
    model, (ids, mask) = made("llama"), text(30)
    cache = MemoryCache(model)
    first = stepwise(model, cache, ids, mask, 12, 1)
    cache.crop(-10)
    assert cache.get_seq_length() == 20
    place = positions(mask)[:, 20:]
    with torch.no_grad():
        again = model(ids[:, 20:], attention_mask=mask, position_ids=place, cache=cache).logits
    torch.testing.assert_close(again, first[:, 20:], rtol=0, atol=1e-5)


def test_drafts_are_taken_back() -> None:
    """Prompt lookup guesses several tokens and crops those that were wrong."""
    model, ids = made("gpt2"), batch()[0][2:].repeat(1, 2)
    options = {"max_new_tokens": 20, "do_sample": False}
    plain = model.generate(ids, **options)
    mine = model.generate(ids, cache=MemoryCache(model), prompt_lookup_num_tokens=3, **options)
    assert torch.equal(mine, plain)


def test_a_conversation_goes_on_and_branches() -> None:
    model, (ids, mask) = made("gpt2"), batch()
    with MemoryCache(model, slots=20, forget=HITTERS, n=15) as cache:
        said = generated(model, cache).sequences
        branch = copy.deepcopy(cache)
        more = torch.cat((said, ids[:, -3:]), 1)
        both = torch.cat((mask, torch.ones_like(more[:, 12:])), 1)
        options = {"attention_mask": both, "max_new_tokens": 8, "do_sample": False}
        one = model.generate(more, cache=cache, **options)
        assert torch.equal(model.generate(more, cache=branch, **options), one)
        assert torch.equal(branch.layers[0].columns, cache.layers[0].columns)
        branch.detach()
    assert not model.base_model._forward_pre_hooks
    assert model.config._attn_implementation == "sdpa"


def test_two_caches_take_turns_on_one_model() -> None:
    model, (ids, mask) = made("llama"), text(30)
    with MemoryCache(model, slots=14, forget=HITTERS, n=9) as alone:
        wanted = stepwise(model, alone, ids, mask, 12, 1)
    with (
        MemoryCache(model, slots=14, forget=HITTERS, n=9) as one,
        MemoryCache(model, slots=14, forget=looked_at, n=9) as other,
    ):
        half = stepwise(model, one, ids[:, :20], mask[:, :20], 12, 1)
        stepwise(model, other, ids, mask, 12, 1)
        assert torch.equal(half, wanted[:, :20])
        with torch.no_grad():
            for stop in range(21, 31):
                given = {"attention_mask": mask[:, :stop], "cache": one}
                place = positions(mask)[:, stop - 1 : stop]
                got = model(ids[:, stop - 1 : stop], position_ids=place, **given).logits
                assert torch.equal(got[:, 0], wanted[:, stop - 1])


def test_a_cache_that_is_gone_is_detached() -> None:
    model = made("llama")
    cache = MemoryCache(model, slots=10, forget=HITTERS)
    assert model.config._attn_implementation == "memlib_eager"
    del cache
    gc.collect()
    assert model.config._attn_implementation == "sdpa"
    assert not model.base_model._forward_pre_hooks


def test_gradients_are_those_of_the_packages_own_cache() -> None:
    model, (ids, mask) = made("llama"), batch()
    grads = []
    for cache in (DynamicCache(config=model.config), MemoryCache(model)):
        model.zero_grad()
        with torch.no_grad():  # the past has no gradient in either
            model(ids[:, :6], attention_mask=mask[:, :6], cache=cache)
        model(ids[:, 6:], attention_mask=mask, cache=cache).logits.square().mean().backward()
        grads.append([p.grad.clone() for p in model.parameters()])
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_it_goes_in_and_out_of_inference_mode() -> None:
    model, (ids, mask) = made("gpt2"), batch()
    cache = MemoryCache(model)
    with torch.inference_mode():
        model(ids[:, :6], attention_mask=mask[:, :6], cache=cache)
    with torch.no_grad():
        got = model(ids[:, 6:], attention_mask=mask, cache=cache).logits
        full = model(ids, attention_mask=mask).logits[:, 6:]
    torch.testing.assert_close(got[mask[:, 6:].bool()], full[mask[:, 6:].bool()], rtol=0, atol=1e-4)


def test_reset_and_rows() -> None:
    model = made("llama")
    cache = MemoryCache(model)
    first = generated(model, cache).sequences
    cache.reset()
    assert cache.get_seq_length() == 0
    assert torch.equal(generated(model, cache).sequences, first)
    keys = cache.layers[0].keys.clone()
    cache.batch_repeat_interleave(2)
    cache.batch_select_indices(torch.tensor([1, 4]))
    assert torch.equal(cache.layers[0].keys, keys[[0, 2]])


def test_a_model_that_does_not_register_its_attention() -> None:
    """GPT-Neo has an attention of its own: rules of keys work, those of weights are refused."""
    config = transformers.GPTNeoConfig(
        vocab_size=VOCAB, hidden_size=32, num_layers=2, num_heads=4, window_size=6,
        attention_types=[[["global", "local"], 1]], bos_token_id=1, eos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.GPTNeoForCausalLM(config).eval()
    theirs = generated(model, DynamicCache(), pad_token_id=0)
    mine = generated(model, MemoryCache(model), pad_token_id=0)
    assert torch.equal(mine.sequences, theirs.sequences)
    with pytest.raises(ValueError, match=r"registered attention functions; GPTNeoForCausalLM does"):
        MemoryCache(model, slots=10, forget=HITTERS)
    assert not model.base_model._forward_pre_hooks


def test_what_does_not_fit_is_refused_and_nothing_is_lost() -> None:
    model, (ids, mask) = made("llama"), batch()
    cache = MemoryCache(model, slots=14)
    with torch.no_grad():
        model(ids, attention_mask=mask, cache=cache)
        with pytest.raises(ValueError, match="must fit in the 14 slots; got 3 beside the 12 held"):
            model(ids[:, :3], cache=cache)
        assert {layer.seen for layer in cache.layers} == {12}
        model(ids[:, :2], cache=cache)


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"forget": sinks}, "slots must be a number where a rule forgets"),
        ({"slots": 4, "n": 2}, "n must be None without a rule"),
        ({"slots": 4, "n": 4, "forget": sinks}, r"n must be in \[0, 3\]; got 4"),
        ({"slots": 0}, "slots must be"),
    ],
)
def test_sizes_are_checked(options: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        MemoryCache(made("gpt2"), **options)


@pytest.mark.parametrize("slots", [1, 2, 8, 9])
def test_no_more_is_held_than_there_are_slots(slots: int) -> None:
    model, ids = made("llama"), batch()[0][2:]
    with MemoryCache(model, slots=slots, forget=sinks) as cache, torch.no_grad():
        for column in range(12):
            model(ids[:, column : column + 1], cache=cache)
            assert cache.layers[0].held <= slots
    with MemoryCache(model, slots=slots, forget=sinks, n=slots - 1) as cache, torch.no_grad():
        for column in range(12):
            model(ids[:, column : column + 1], cache=cache)
        assert cache.layers[0].held == slots


def test_other_rows_are_refused_and_nothing_is_lost() -> None:
    model, ids = made("llama"), batch()[0][1:]
    caches = [MemoryCache(model), MemoryCache(model)]
    for cache in caches:
        model(ids, cache=cache)
    with pytest.raises(ValueError, match="tokens must come for the 2 rows of the cache; got 1"):
        model(ids[:1], cache=caches[0])
    assert [layer.seen for layer in caches[0].layers] == [12, 12]
    one, other = (model(ids[:, :1], cache=cache).logits for cache in caches)
    assert torch.equal(one, other)


def test_other_mistakes_are_named() -> None:
    with pytest.raises(TypeError, match="model must be a PreTrainedModel; got int"):
        MemoryCache(3)
    model, (ids, mask) = made("llama"), batch()
    with pytest.raises(ValueError, match="causal language model; got LlamaModel"):
        MemoryCache(model.model)
    with MemoryCache(model, slots=14, forget=sinks) as cache, torch.no_grad():
        with pytest.raises(ValueError, match="padding at the left"):
            model(ids, attention_mask=mask.flip(1), cache=cache)
        with pytest.raises(ValueError, match=r"with shape \(B, T\); got \(3, 1, 12, 12\)"):
            model(ids, attention_mask=torch.ones(3, 1, 12, 12, dtype=torch.bool), cache=cache)
        model(ids, attention_mask=mask, cache=cache)
        with pytest.raises(ValueError, match="can't be cropped"):
            cache.crop(-1)
    cache = MemoryCache(model, slots=12, forget=HITTERS, n=8)
    cache.detach()
    with torch.no_grad():
        model(ids, attention_mask=mask, cache=cache)
        with pytest.raises(ValueError, match="got those of 0 of 12: is the cache attached"):
            model(ids[:, :1], cache=cache)


def test_the_api_page_writes_its_signature() -> None:
    """The book is built without the package, so the page can't find it out."""
    path = Path(__file__).parents[2] / "book/api_models.md"
    if not path.exists():
        pytest.skip("the archive of the sources holds no book")
    page = path.read_text(encoding="utf-8")
    parameters = inspect.signature(MemoryCache).parameters.values()
    bare = inspect.Signature([p.replace(annotation=inspect.Parameter.empty) for p in parameters])
    assert f":: MemoryCache{bare}\n" in page


@pytest.mark.parametrize("name", [m.name for m in pkgutil.iter_modules(ours.__path__)])
def test_examples(name: str) -> None:
    module = importlib.import_module(f"{ours.__name__}.{name}")
    failed, tried = doctest.testmod(module)
    assert not failed
    assert tried or name in ("attached", "filling", "layer")
