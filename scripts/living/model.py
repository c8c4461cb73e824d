"""SmolLM2-135M in NumPy: a prefill that shows keys, values and sums of attention, and steps of many caches at once.

Keys and queries stand in kvprof's order: dimension j < SIZE / 2 of a head is the file's 2j, SIZE / 2 + j is its 2j + 1,
so that the two of a RoPE pair lie half a head apart.
"""
from dataclasses import dataclass

import numpy as np
from gguf import GGUFReader, dequantize

HEADS, KV_HEADS, SIZE, THETA, EPS = 9, 3, 64, 1e5, 1e-5
GROUP, HIDDEN, INNER = HEADS // KV_HEADS, 576, 1536


def ordered(name, x, hidden, inner):
    """A tensor [out, in], or [hidden] of a norm, with its dimensions in other orders."""
    if name.endswith(("ffn_gate.weight", "ffn_up.weight")):
        x = x[inner][:, hidden]
    elif name.endswith("ffn_down.weight"):
        x = x[hidden][:, inner]
    elif x.ndim == 1 or name.endswith("attn_output.weight"):
        x = x[hidden]
    else:
        x = x[:, hidden]
    return np.ascontiguousarray(x)


class Weights:
    """Tensors by name, in the number type `real`.

    `hidden` and `inner` index the dimensions of the residual stream and those within the feed-forward network in
    another order: nothing but the order in which products are added changes.
    """

    def __init__(self, path, real, hidden=np.s_[:], inner=np.s_[:]):
        tensors = {t.name: dequantize(t.data, t.tensor_type).astype(real) for t in GGUFReader(path).tensors}
        self.real = real
        self.tensors = {name: ordered(name, x, hidden, inner) for name, x in tensors.items()}
        self.layers = sum(name.endswith(".attn_q.weight") for name in self.tensors)

    def __getitem__(self, name):
        return self.tensors[f"{name}.weight"]


@dataclass
class Prompt:
    """What a prefill leaves: `keys`, `values` [layer, KV head, token, SIZE]; `paid` [layer, KV head, query head of the
    group, token] are sums of attention over all rows; `logits` are those after the last token; `queries` are kept of
    one layer, [HEADS, token, SIZE]."""

    name: str
    keys: np.ndarray
    values: np.ndarray
    paid: np.ndarray
    logits: np.ndarray | None = None
    queries: np.ndarray | None = None

    @property
    def tokens(self):
        return self.keys.shape[2]


def norm(x, weight):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + x.dtype.type(EPS)) * weight


def turned(x, positions):
    """RoPE of [token, head, SIZE], from the file's order of dimensions to kvprof's.

    Frequencies and angles are rounded to float32 whatever the rest is computed in: the model was trained so.
    """
    frequencies = (THETA ** (-np.arange(0, SIZE, 2) / SIZE)).astype(np.float32)
    angles = np.outer(positions.astype(np.float32), frequencies).astype(np.float64)
    cos, sin = (f(angles).astype(x.dtype)[:, None, :] for f in (np.cos, np.sin))
    even, odd = x[..., 0::2], x[..., 1::2]
    return np.concatenate([even * cos - odd * sin, even * sin + odd * cos], axis=-1)


def probabilities(logits):
    """Softmax along the last axis; -inf is what cannot be seen."""
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def attention(queries, keys):
    """Weights [..., query, key] of queries [..., query, SIZE] that see all of keys [..., key, SIZE]."""
    return probabilities(queries @ keys.swapaxes(-1, -2) / queries.dtype.type(SIZE**0.5))


def projected(w, layer, h, positions):
    """Queries, keys, values [row, head, SIZE] of hidden rows, after RoPE."""
    q, k, v = ((h @ w[f"blk.{layer}.attn_{name}"].T).reshape(len(h), -1, SIZE) for name in "qkv")
    return turned(q, positions), turned(k, positions), v


def joined(w, layer, x, out):
    """The residual stream after attention's outputs [row, HEADS * SIZE] and the feed-forward network."""
    x = x + out @ w[f"blk.{layer}.attn_output"].T
    h = norm(x, w[f"blk.{layer}.ffn_norm"])
    gate = h @ w[f"blk.{layer}.ffn_gate"].T
    return x + (gate / (1 + np.exp(-gate)) * (h @ w[f"blk.{layer}.ffn_up"].T)) @ w[f"blk.{layer}.ffn_down"].T


def logits_of(w, x):
    return norm(x, w["output_norm"]) @ w["token_embd"].T


def received(q, keys):
    """(rows [query, key] of attention to earlier keys and the own one, their sums over queries)."""
    logits = q @ keys.T / q.dtype.type(SIZE**0.5)
    logits[np.arange(len(keys))[None, :] > np.arange(len(q))[:, None]] = -np.inf
    rows = probabilities(logits)
    return rows, rows.sum(axis=0)


def prefill(w, ids, name, watched=12):
    """`watched` is the layer whose queries are kept."""
    x, positions = w["token_embd"][ids], np.arange(len(ids))
    keys, values, paid, queries = [], [], [], None
    for layer in range(w.layers):
        q, k, v = projected(w, layer, norm(x, w[f"blk.{layer}.attn_norm"]), positions)
        out, sums = np.empty_like(q), np.empty((HEADS, len(ids)), w.real)
        for head in range(HEADS):
            rows, sums[head] = received(q[:, head], k[:, head // GROUP])
            out[:, head] = rows @ v[:, head // GROUP]
        x = joined(w, layer, x, out.reshape(len(ids), -1))
        keys.append(k.swapaxes(0, 1))
        values.append(v.swapaxes(0, 1))
        paid.append(sums.reshape(KV_HEADS, GROUP, -1))
        queries = q.swapaxes(0, 1) if layer == watched else queries
    return Prompt(name, np.stack(keys), np.stack(values), np.stack(paid), logits_of(w, x[-1:])[0], queries)


def step(w, token, position, caches):
    """Logits [cache, vocabulary] after one token that is fed to every cache; the caches grow by it."""
    x = np.repeat(w["token_embd"][token][None], len(caches), axis=0)
    positions = np.full(len(caches), position)
    for layer in range(w.layers):
        q, k, v = projected(w, layer, norm(x, w[f"blk.{layer}.attn_norm"]), positions)
        q = q.reshape(len(caches), KV_HEADS, GROUP, SIZE)
        out = [cache.attend(layer, q[i], k[i], v[i]) for i, cache in enumerate(caches)]
        x = joined(w, layer, x, np.stack(out).reshape(len(caches), -1))
    for cache in caches:
        cache.after_step(position)
    return logits_of(w, x)


def log_probabilities(logits):
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def divergence(full, other):
    """KL(full || other) in nats."""
    p, q = log_probabilities(full), log_probabilities(other)
    return float((np.exp(p) * (p - q)).sum())
