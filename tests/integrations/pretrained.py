"""Small models of the transformers package, made from their configuration."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

VOCAB = 64
SIZES: dict[str, Any] = {"vocab_size": VOCAB, "pad_token_id": 0, "bos_token_id": 1}
SIZES |= {"eos_token_id": None}
ROTARY: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
ROTARY |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", ROTARY),  # rotary positions, heads that share keys
    "gpt2": ("GPT2", {"n_embd": 32, "n_layer": 2, "n_head": 4}),  # learned positions
    "mistral": ("Mistral", ROTARY | {"sliding_window": 6}),  # a window in every layer
    "gemma2": ("Gemma2", ROTARY | {"sliding_window": 6}),  # in every other; its own softmax
}


def made(name: str, seed: int = 0, **changed: Any) -> Any:
    """A model with parameters large enough for it to look somewhere."""
    transformers = importlib.import_module("transformers")  # which is an extra
    torch.manual_seed(seed)
    kind, sizes = MODELS[name]
    config = getattr(transformers, f"{kind}Config")(**SIZES | sizes | changed)
    head = "LMHeadModel" if kind == "GPT2" else "ForCausalLM"
    model = getattr(transformers, kind + head)(config).eval()
    for parameter in model.parameters():
        parameter.data.mul_(4)
    return model


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Three rows of 12 tokens, padded at the left by 5, 2 and none."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, VOCAB, (3, 12), generator=generator)
    mask = (torch.arange(12) >= torch.tensor([[5], [2], [0]])).long()
    return ids.where(mask.bool(), 0), mask


def positions(mask: Tensor) -> Tensor:
    """Where in its text each token stands, as `generate` counts."""
    return (mask.cumsum(-1) - 1).clamp(min=0)
