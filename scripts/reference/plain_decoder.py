"""A second reference in numpy and float64, written from the published descriptions and not from transformers.

It reads config.json and the tensors by their Hugging Face names, and serves two ends: it shows how far float32 moves
the logits of the first reference, and that both mean the same model.
"""

import math

import numpy as np


def rms_norm(x, weight, epsilon, shift):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + epsilon) * (shift + weight)


def activation(x, kind):
    if kind == "gelu_pytorch_tanh":
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return x / (1 + np.exp(-x))


def rotation(config, head_dim, length, local):
    """(angles per position of each pair, factor on cosine and sine)."""
    base = config["rope_local_base_freq"] if local else config["rope_theta"]
    scaling = {} if local else (config.get("rope_scaling") or {})
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    dims = int(head_dim * config.get("partial_rotary_factor", 1.0))
    frequencies = base ** (-np.arange(0, dims, 2, dtype=np.float64) / dims)
    factor, magnitude = scaling.get("factor"), 1.0
    if kind == "linear":
        frequencies /= factor
    elif kind == "llama3":
        original, low, high = (
            scaling[k] for k in ("original_max_position_embeddings", "low_freq_factor", "high_freq_factor")
        )
        turns = original * frequencies / (2 * math.pi)
        share = np.clip((turns - low) / (high - low), 0, 1)
        frequencies = frequencies * (share + (1 - share) / factor)
    elif kind == "yarn":
        original = scaling["original_max_position_embeddings"]
        pair_of = lambda turns: dims * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))
        low = max(math.floor(pair_of(scaling.get("beta_fast", 32))), 0)
        high = min(math.ceil(pair_of(scaling.get("beta_slow", 1))), dims - 1)
        share = np.clip((np.arange(dims // 2) - low) / max(high - low, 0.001), 0, 1)
        frequencies = frequencies * (share / factor + 1 - share)
        magnitude = 0.1 * math.log(factor) + 1
    elif kind == "longrope":
        original = config["original_max_position_embeddings"]
        factors = scaling["long_factor" if length > original else "short_factor"]
        frequencies = frequencies / np.asarray(factors)
        magnitude = math.sqrt(1 + math.log(config["max_position_embeddings"] / original) / math.log(original))
    elif kind != "default":
        raise ValueError(f"unknown RoPE scaling {kind}")
    return np.arange(length)[:, None] * frequencies, magnitude


def rotate(x, angles, magnitude):
    half = angles.shape[-1]
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    cosine, sine = np.cos(angles) * magnitude, np.sin(angles) * magnitude
    return np.concatenate([a * cosine - b * sine, b * cosine + a * sine, rest], -1)


def window_of(config, layer):
    kinds = config.get("layer_types")
    if kinds is not None:
        return config["sliding_window"] if kinds[layer] == "sliding_attention" else None
    return config.get("sliding_window")


def run(config, tensors, ids):
    """(logits of the last token, attention [layer][query heads, tokens, tokens])."""
    gemma = config["model_type"].startswith("gemma3")
    shift = 1.0 if gemma else 0.0
    get = lambda name: np.asarray(tensors[f"model.{name}"], dtype=np.float64)
    heads, kv_heads, hidden = (
        config[k] for k in ("num_attention_heads", "num_key_value_heads", "hidden_size")
    )
    head_dim = config.get("head_dim") or hidden // heads
    scale = (config["query_pre_attn_scalar"] if gemma else head_dim) ** -0.5
    norm = lambda x, name: rms_norm(x, get(name), config["rms_norm_eps"], shift)
    count, probabilities = len(ids), []
    x = get("embed_tokens.weight")[ids] * (math.sqrt(hidden) if gemma else 1.0)

    def split(values, n):
        return values.reshape(count, n, head_dim).transpose(1, 0, 2)

    for layer in range(config["num_hidden_layers"]):
        at = f"layers.{layer}"
        h = norm(x, f"{at}.input_layernorm.weight")
        if config["model_type"] == "phi3":
            sizes = np.cumsum([heads * head_dim, kv_heads * head_dim])
            q, k, v = np.split(h @ get(f"{at}.self_attn.qkv_proj.weight").T, sizes, axis=-1)
        else:
            q, k, v = (h @ get(f"{at}.self_attn.{p}_proj.weight").T for p in "qkv")
            if f"model.{at}.self_attn.q_proj.bias" in tensors:
                q, k, v = (a + get(f"{at}.self_attn.{p}_proj.bias") for a, p in zip((q, k, v), "qkv"))
        q, k, v = split(q, heads), split(k, kv_heads), split(v, kv_heads)
        if f"model.{at}.self_attn.q_norm.weight" in tensors:
            q, k = norm(q, f"{at}.self_attn.q_norm.weight"), norm(k, f"{at}.self_attn.k_norm.weight")
        window = window_of(config, layer)
        angles, magnitude = rotation(config, head_dim, count, gemma and window is not None)
        q, k = rotate(q, angles, magnitude), rotate(k, angles, magnitude)
        k, v = (a.repeat(heads // kv_heads, axis=0) for a in (k, v))
        scores = q @ k.transpose(0, 2, 1) * scale
        distance = np.arange(count)[:, None] - np.arange(count)[None, :]
        scores[:, (distance < 0) | (distance >= (window or count))] = -np.inf
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        probabilities.append(weights)
        attended = (weights @ v).transpose(1, 0, 2).reshape(count, -1) @ get(f"{at}.self_attn.o_proj.weight").T
        x = x + (norm(attended, f"{at}.post_attention_layernorm.weight") if gemma else attended)
        before = "pre_feedforward_layernorm" if gemma else "post_attention_layernorm"
        h = norm(x, f"{at}.{before}.weight")
        if config["model_type"] == "phi3":
            gate, up = np.split(h @ get(f"{at}.mlp.gate_up_proj.weight").T, 2, axis=-1)
        else:
            gate, up = (h @ get(f"{at}.mlp.{p}_proj.weight").T for p in ("gate", "up"))
        kind = config["hidden_activation"] if gemma else config["hidden_act"]
        fed = (activation(gate, kind) * up) @ get(f"{at}.mlp.down_proj.weight").T
        x = x + (norm(fed, f"{at}.post_feedforward_layernorm.weight") if gemma else fed)
    head = tensors["lm_head.weight"] if "lm_head.weight" in tensors else tensors["model.embed_tokens.weight"]
    return np.asarray(head, dtype=np.float64) @ norm(x[-1], "norm.weight"), probabilities
