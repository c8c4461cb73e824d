"""Random models of a few thousand weights, one per kind of attention, and what is true of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedModel

VOCABULARY = 64
LAYERS = 3
WINDOW = 6


@dataclass(frozen=True)
class Family:
    """A configuration and what a capture must say of it."""

    config: str
    options: dict[str, Any] = field(default_factory=dict)
    windows: tuple[int | None, ...] = (None,) * LAYERS
    head_dim: int = 8
    scale: float = 8**-0.5


SLIDING = ["sliding_attention", "full_attention", "sliding_attention"]
FAMILIES = {
    "llama": Family("LlamaConfig"),
    "mistral": Family("MistralConfig", {"sliding_window": WINDOW}, (WINDOW,) * LAYERS),
    "qwen2": Family(
        "Qwen2Config",
        {"use_sliding_window": True, "sliding_window": WINDOW, "layer_types": SLIDING},
        (WINDOW, None, WINDOW),
    ),
    "qwen3": Family("Qwen3Config", {"head_dim": 16}, head_dim=16, scale=16**-0.5),
    "gemma3": Family(
        "Gemma3TextConfig",
        {"head_dim": 16, "sliding_window": WINDOW, "layer_types": SLIDING, "query_pre_attn_scalar": 10},
        (WINDOW, None, WINDOW),
        head_dim=16,
        scale=10**-0.5,
    ),
    "phi3": Family("Phi3Config", {"pad_token_id": 0}),
    "smollm3": Family("SmolLM3Config", {"no_rope_layers": [1, 0, 1], "pad_token_id": 0}),
}


def configured(name: str, **options: Any) -> Any:
    """A tiny configuration of a class of transformers."""
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
    }
    return getattr(transformers, name)(**{**sizes, **options})


def built(config: Any, attention: str = "sdpa", dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A model of random weights, the same ones for the same configuration; large enough that attention is uneven."""
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).to(torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 0.25)
    return model.to(dtype)


def family(name: str, attention: str = "sdpa", dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The tiny model of a family."""
    found = FAMILIES[name]
    return built(configured(found.config, **found.options), attention, dtype)


def token_ids(count: int, seed: int = 0) -> list[int]:
    """Token ids that repeat by chance alone."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, VOCABULARY, (count,), generator=generator).tolist()
