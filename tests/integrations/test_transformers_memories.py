"""External memories on models of the transformers package: filled, read, detached."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("transformers", exc_type=ImportError)

from integrations.pretrained import MODELS, VOCAB, batch, made
from transformers import DynamicCache

from memlib.integrations.transformers import (
    KNNMemory,
    MemorizingMemory,
    MemoryCache,
)
from memlib.store import Store, knn_lm

KINDS = {"knn": KNNMemory, "memorizing": lambda model: MemorizingMemory(model, layer=1, k=4)}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> Any:
    return made(request.param)


def tokens(length: int, rows: int = 1, seed: int = 3) -> Tensor:
    return torch.randint(2, VOCAB, (rows, length), generator=torch.Generator().manual_seed(seed))


def left(model: Any) -> tuple[Any, ...]:
    """All that a memory might leave behind on a model."""
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    state = {name: x.clone() for name, x in model.state_dict().items()}
    return (
        sum(hooks),
        model.config._attn_implementation,
        model.training,
        [*state],
        [*state.values()],
    )


@pytest.mark.parametrize("kind", KINDS)
def test_detached_it_is_the_same_model_to_the_bit(model: Any, kind: str) -> None:
    (ids, mask), before = batch(), left(model)
    with torch.no_grad():
        plain = model(ids, attention_mask=mask).logits
        with KINDS[kind](model) as memory:
            memory.fill(tokens(20))
            assert not torch.equal(model(ids, attention_mask=mask).logits, plain)
        assert torch.equal(model(ids, attention_mask=mask).logits, plain)
    after = left(model)
    assert after[:4] == before[:4]
    assert all(map(torch.equal, after[4], before[4]))
    memory.detach()  # once more does nothing
    with pytest.raises(ValueError, match="must be attached to be filled"):
        memory.fill(tokens(20))


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_memory_changes_nothing(model: Any, kind: str) -> None:
    ids, mask = batch()
    plain = model(ids, attention_mask=mask).logits
    with KINDS[kind](model):
        assert torch.equal(model(ids, attention_mask=mask).logits, plain)


def test_knn_is_knn_lm_of_the_models_own_logits(model: Any) -> None:
    ids, (text, padding) = tokens(9, rows=2, seed=4), batch()
    with torch.no_grad():
        plain = model(ids)
        query = model.base_model(ids).last_hidden_state
        keys = model.base_model(text, attention_mask=padding).last_hidden_state
    store = Store(32, 1, measure="negative_squared_distance", value_dtype=torch.long)
    for row, start in enumerate((5, 2, 0)):  # a pair for each token after the first of its row
        store.add(keys[row : row + 1, start:-1], text[row : row + 1, start + 1 :, None])
    options = {"mix": 0.4, "strength": 0.05}
    with KNNMemory(model, k=5, **options) as memory, torch.no_grad():
        assert memory.fill(text, padding) == 6 + 9 + 11
        got = model(ids, labels=ids)
    wanted = knn_lm(plain.logits, query, store, 5, **options)
    torch.testing.assert_close(got.logits, wanted, rtol=1e-4, atol=1e-4)
    loss = -wanted[:, :-1].gather(2, ids[:, 1:, None]).mean()
    torch.testing.assert_close(got.loss, loss, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_knn_goes_on_as_its_text_did(name: str) -> None:
    """In `generate`, with our cache, from every prompt of the text."""
    model, text = made(name), tokens(30)
    with KNNMemory(model, k=1, mix=0.99) as memory:
        memory.fill(text)
        for length in (5, 12, 20):
            options = {"max_new_tokens": 10, "do_sample": False, "cache": MemoryCache(model)}
            said = model.generate(text[:, :length], **options)
            assert torch.equal(said, text[:, : length + 10])


def test_knn_reads_its_text_in_parts_that_overlap_by_a_token() -> None:
    model, text = made("llama"), tokens(31)
    with KNNMemory(model) as memory:
        assert memory.fill(text, segment=10) == 30
        assert memory.store.values.flatten()[:30].tolist() == text[0, 1:].tolist()


def test_knn_is_trained_through() -> None:
    model, ids = made("llama"), tokens(12)
    model.train()
    with KNNMemory(model, strength=0.05) as memory:
        memory.fill(tokens(20))
        assert model.training
        model(ids, labels=ids).loss.backward()
    grads = [p.grad for p in model.parameters()]
    assert all(g is not None and torch.isfinite(g).all() for g in grads)
    assert max(float(g.abs().max()) for g in grads) > 0


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_memorizing_all_of_a_text_is_reading_it(name: str) -> None:
    """With its gate open and all pairs read: attention over the keys of that text and no others."""
    model = made(name, **{"n_layer": 1} if name == "gpt2" else {"num_hidden_layers": 1})
    text, ids = tokens(20), tokens(7, rows=2, seed=5)
    before = DynamicCache(config=model.config)
    with MemorizingMemory(model, layer=0, k=100, gate=1.0) as memory, torch.no_grad():
        assert memory.fill(text) == 20
        got = model(ids).logits
    readable = torch.zeros(2, 1, 7, 27, dtype=torch.bool)
    readable[..., :20] = True
    with torch.no_grad():
        model(text.expand(2, -1), cache=before)
        place = torch.arange(7)[None]
        wanted = model(ids, cache=before, attention_mask=readable, position_ids=place).logits
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-4)


def test_memorizing_keeps_one_layer_of_the_tokens_that_are_none_of_the_padding(model: Any) -> None:
    text, mask = batch()
    cache = MemoryCache(model)
    with MemorizingMemory(model, layer=1) as memory, torch.no_grad():
        assert memory.fill(text, mask) == 7 + 10 + 12
        memory.detach()
        model(text, attention_mask=mask, cache=cache)
    keys = cache.layers[1].keys.transpose(1, 2)[mask.bool()].transpose(0, 1)
    assert torch.equal(memory.store.keys[:, :29], keys)


def test_a_closed_gate_reads_nothing_and_a_gate_is_learned() -> None:
    model, ids = made("llama"), tokens(12)
    plain = model(ids).logits
    with MemorizingMemory(model, layer=1, k=4, gate=0.0) as memory:
        memory.fill(tokens(20))
        assert torch.equal(model(ids).logits, plain)


def test_the_gate_is_learned() -> None:
    model, ids = made("gpt2").double(), tokens(12)
    with MemorizingMemory(model, layer=1, k=4, gate=0.3) as memory:
        memory.fill(tokens(20))
        torch.testing.assert_close(memory.bias.sigmoid(), torch.full((4,), 0.3).double())

        def loss(bias: Tensor) -> Tensor:
            memory._parameters["bias"] = bias  # as a parameter, but a part of this graph
            return model(ids).logits.square().mean()

        bias = memory.bias.detach().clone().requires_grad_()
        assert torch.autograd.gradcheck(loss, (bias,), atol=1e-6)
        loss(bias).backward()
        assert bias.grad.abs().min() > 0


@pytest.mark.parametrize("order", [1, -1])
def test_memories_and_a_cache_share_a_model(order: int) -> None:
    """Attached and detached in any order; each leaves the others as they are."""
    from memlib.transformer import heavy_hitters

    model, text = made("llama"), tokens(30)
    plain = model(text).logits
    knn, far = KNNMemory(model, k=1, mix=0.99), MemorizingMemory(model, layer=0, k=4, gate=0.2)
    assert model.config._attn_implementation == "memlib_sdpa"
    cache = MemoryCache(model, slots=20, forget=heavy_hitters, n=16)
    assert model.config._attn_implementation == "memlib_eager"
    far.fill(tokens(40, seed=6))
    knn.fill(text)
    out = model.generate(text[:, :6], cache=cache, max_new_tokens=20, do_sample=False)
    assert cache.get_seq_length() == 25
    assert out.shape == (1, 26)
    for one in (knn, far, cache)[::order]:
        one.detach()
    assert model.config._attn_implementation == "sdpa"
    assert torch.equal(model(text).logits, plain)


@pytest.mark.parametrize(
    "how",
    [
        {"num_items_in_batch": torch.tensor(1000)},
        {"shift_labels": tokens(12).roll(-3)},
        {},
    ],
)
def test_knn_leaves_the_models_own_loss_as_it_is_but_for_its_logits(how: dict[str, Any]) -> None:
    ids, model = tokens(12), made("llama")
    plain = model(ids, labels=ids, **how)
    with KNNMemory(model, mix=0.0) as memory, KNNMemory(model, mix=0.5, strength=0.05) as other:
        memory.fill(tokens(20))
        torch.testing.assert_close(model(ids, labels=ids, **how).loss, plain.loss)
        other.fill(tokens(20, seed=9))
        mixed = model(ids, labels=ids, **how)
        by_place = model(ids, None, None, None, None, ids, **how)
        memory.detach()  # the first before the second
        alone = model(ids, labels=ids, **how)
    wanted = model.loss_function(logits=mixed.logits, labels=ids, vocab_size=VOCAB, **how)
    for said in (mixed, by_place, alone):
        torch.testing.assert_close(said.loss, wanted)
    assert (mixed.loss - plain.loss).detach().abs() > 1e-3
    assert torch.equal(model(ids, labels=ids, **how).loss, plain.loss)
    assert "_loss_function" not in vars(model)


def test_knn_leaves_what_a_mixture_of_experts_adds() -> None:
    from transformers import MixtralConfig, MixtralForCausalLM

    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    sizes |= {"num_attention_heads": 2, "num_key_value_heads": 2, "num_local_experts": 4}
    config = MixtralConfig(vocab_size=VOCAB, router_aux_loss_coef=0.5, **sizes)
    model, ids = MixtralForCausalLM(config).eval(), tokens(12)
    plain = model(ids, labels=ids, output_router_logits=True).loss
    with KNNMemory(model, mix=0.0) as memory:
        memory.fill(tokens(20))
        found = model(ids, labels=ids, output_router_logits=True).loss
    torch.testing.assert_close(found, plain)


def test_a_loss_that_cannot_be_mixed_is_refused() -> None:
    model, ids = made("llama"), tokens(12)

    class Own(type(model)):  # type: ignore[misc]
        def forward(self, input_ids: Tensor, labels: Any = None, **given: Any) -> Any:
            output = super().forward(input_ids, **given)
            output.loss = None if labels is None else output.logits.square().mean()
            return output

    model = Own(model.config).eval()
    with KNNMemory(model) as memory:
        assert model(ids, labels=ids).loss is not None  # nothing to mix yet
        memory.fill(tokens(20))
        assert model(ids).loss is None
        with pytest.raises(ValueError, match=r"labels must be left out .* its own loss; Own does"):
            model(ids, labels=ids)


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_that_does_not_fit_is_refused_whole(kind: str) -> None:
    model, text = made("llama"), tokens(30)
    with KINDS[kind](model) as memory:
        for place, wrong in ((20, VOCAB), (25, -1)):
            bad = text.clone()
            bad[0, place] = wrong
            with pytest.raises(ValueError, match=rf"ids must be in \[0, 63\]; got {wrong}"):
                memory.fill(bad, segment=8)
        for mask in ([[1] * 30], torch.ones(1, 30)):
            with pytest.raises(
                TypeError, match=r"mask must be a torch\.Tensor of bool or integers"
            ):
                memory.fill(text, mask)
        assert memory.store is None or not memory.store.lengths.any()


def test_a_store_of_other_values_is_refused() -> None:
    model, store = made("llama"), Store(8, 1, batch_size=2)
    store.add(torch.zeros(2, 1, 8), torch.zeros(2, 1, 1))
    with (
        MemorizingMemory(model, layer=0, store=store),
        pytest.raises(ValueError, match="values of the store"),
    ):
        model(tokens(4))


def test_mistakes_are_named() -> None:
    model = made("llama")
    with pytest.raises(ValueError, match=r"layer must be one of \[0, 1\]; got 7"):
        MemorizingMemory(model, layer=7)
    with pytest.raises(ValueError, match=r"gate must be .* in \[0, 1\]; got 2"):
        MemorizingMemory(model, layer=0, gate=2)
    with pytest.raises(TypeError, match="store must be a Store or None; got int"):
        MemorizingMemory(model, layer=0, store=3)
    with pytest.raises(TypeError, match="values of the store must have dtype int64"):
        KNNMemory(model, Store(32, 1))
    with pytest.raises(ValueError, match="keys of the store"):
        KNNMemory(model, Store(8, 1, value_dtype=torch.long))
    assert left(model)[:2] == (0, "sdpa")
    wrong = Store(8, batch_size=3)
    wrong.add(torch.zeros(3, 1, 8), torch.zeros(3, 1, 8))
    with (
        MemorizingMemory(model, layer=0, store=wrong),
        pytest.raises(ValueError, match="keys of the store"),
    ):
        model(tokens(4))
    with KNNMemory(model) as memory:
        with pytest.raises(ValueError, match="ids must have shape"):
            memory.fill(tokens(4)[0])
        memory.fill(tokens(4))
        with pytest.raises(ValueError, match="return_dict must be True; got a tuple"):
            model(tokens(4), return_dict=False)
