"""Condenses the PyTorch reference's golden figures into tests/fixtures/oracle/.

usage: make_fixtures.py GOLDEN_FOLDER OUT_FOLDER   (needs numpy, pandas, pyarrow)

The reference runs the dequantised weights of SmolLM2-135M-Instruct.Q4_1.gguf in float32 with transformers
4.57.1 and torch 2.8.0. One JSON file per prompt: its ids, MBA per head with the reference's own margins
(distance of the decision from flipping, relative to the total), LMBA, LMBO, logits and the greedy continuation, and the mass on the first 4 keys and on the window's keys.
"""
import json
import sys

import numpy as np

golden, out = sys.argv[1:3]
load = lambda name: json.load(open(f"{golden}/{name}"))
prompts = {p["name"]: p for p in load("prompts.json")["prompts"]}
generations = {r["prompt"]: r for r in load("generation.json")["results"]}

for name, prompt in prompts.items():
    layers = load(f"attn_{name}.json")["layers"]
    rows = np.load(f"{golden}/attn_rows_{name}.npz")["mba_rows"].astype(int)
    lmbo = {}
    for query, theirs in (("last", "last"), ("pooled", "mean")):
        for kind, suffix in (("renorm", ""), ("raw", "raw_")):
            for t in ("0.8", "0.9", "0.95", "0.99"):
                for end in ("first", "stable"):
                    key = f"lmbo_{query}_{suffix}{t[2:].ljust(2, '0')}_{end}"
                    lmbo[key] = [l["lmbo"][f"{theirs}_{kind}"][f"{end}@{t}"] for l in layers]
    lmba = {}
    for query, theirs in (("last", "last"), ("pooled", "win_incl"), ("rows", "mean32")):
        for p in ("0.5", "0.8", "0.9", "0.95", "0.99"):
            lmba[f"lmba_{query}_{p[2:].ljust(2, '0')}"] = [l["lmba_p"][p][theirs] for l in layers]
    record = dict(
        name=name,
        ids=prompt["ids"],
        mba_last=[l["mba_last"] for l in layers],
        margin_last=[[float(f"{m:.3g}") for m in l["margin_last"]] for l in layers],
        mba_pooled=[l["mba_win_incl"] for l in layers],
        margin_pooled=[[float(f"{m:.3g}") for m in l["margin_win_incl"]] for l in layers],
        mba_rows_sum=rows.sum(-1).tolist(),
        mba_kv_pooled=[l["mba_kv_incl"] for l in layers],
        sink_mass=[[float(f"{m:.8g}") for m in l["mass_first4_mean"]] for l in layers],
        window_mass=[[float(f"{m:.8g}") for m in l["mass_window_mean"]] for l in layers],
        output_norm_last=[l["out_norm_last"] for l in layers],
        lmba=lmba,
        lmbo=lmbo,
        top10_ids=generations[name]["top10_ids"],
        top10_logits=generations[name]["top10_logits"],
        greedy=generations[name]["greedy32"],
    )
    with open(f"{out}/{name}.json", "w") as file:
        json.dump(record, file, separators=(",", ":"))

# What kvpress 0.5.5 keeps of the same prompts, and how the model goes on from it.
import pandas as pd  # noqa: E402

METHODS = ["snapkv_w32_k5", "streamingllm_sink4", "tova", "knorm", "observed_h2o", "adakv_snapkv_a0.2"]
# PyramidKVPress's layers keep different numbers of tokens in these runs; with other settings it keeps the same everywhere.
UNEVEN = [("pyramidkv_w32_k5_beta4", 128), ("pyramidkv_w32_k5_beta8", 256), ("pyramidkv_w32_k5_beta20", 1024)]
chosen = lambda method, keep: method in METHODS or (method, keep) in UNEVEN
kept = pd.read_parquet(f"{golden}/kvpress_kept.parquet")
kept = kept[[chosen(*run) for run in zip(kept.method, kept.keep)]]
kept.to_parquet(f"{out}/kvpress_kept.parquet", compression="zstd")
results = [r for r in load("kvpress_gen.json")["results"] if chosen(r["method"], r["keep"])]
fields = ("prompt", "method", "keep", "greedy32", "margins")
with open(f"{out}/kvpress_greedy.json", "w") as file:
    json.dump([{f: r[f] for f in fields} for r in results], file, separators=(",", ":"))
