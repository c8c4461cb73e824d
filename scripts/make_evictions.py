"""Computes evictions.json: which tokens a KV head holds while decoding lets others go.

usage: make_evictions.py LIVING_FOLDER   (needs numpy, torch, kvpress)

LIVING_FOLDER is tests/fixtures/living, which has one_head.json (make_living_caches.py): queries, keys and values of a
real head. Nothing of kvprof takes part. R-KV, VaSE and random tokens are written down in living/evictions.py;
compress-every is kvpress 0.5.5's DecodingPress itself over its own presses, with attention by queries at their true
positions.
"""
import json
import sys

import numpy as np
from kvpress import KeyDiffPress, KnormPress, SnapKVPress, TOVAPress

from living import chance
from living.evictions import Decoding, Head, Random, RKv, Vase, followed


def rules(tokens):
    return [
        RKv(64, 8),
        RKv(100, 12, sinks=4, **{"lambda": 0.5}),
        RKv(40, 1),
        Vase(96, 8, window=16, sinks=4, seed=3),
        Vase(60, 6, window=12, sinks=4, seed=0, ranges=0.4),
        Random(tokens, 20, every=4, window=8, seed=5),
        Decoding(KnormPress(), 96, 8, "knorm"),
        Decoding(KeyDiffPress(), 50, 5, "keydiff"),
        Decoding(TOVAPress(), 64, 6, "tova", window=1),
        Decoding(
            SnapKVPress(window_size=8, kernel_size=5), 96, 8, "snapkv", window=8,
            scorer_parameters=dict(kernel=5, pooling="avg"),
        ),
    ]


def main():
    folder = sys.argv[1]
    chance.check()
    one = json.load(open(f"{folder}/one_head.json"))["one_head"]
    tokens, steps = one["tokens"], one["steps"]
    told = []
    for rule in rules(tokens):
        head = Head(*(np.array(one[name], np.float64) for name in ("queries", "keys", "values")), tokens)
        kept = followed(rule, head, tokens, steps)
        print(rule.name, rule.parameters, {step: len(positions) for step, positions in kept.items()})
        told.append(dict(residency=rule.name, parameters=rule.parameters, kept=kept))
    with open(f"{folder}/evictions.json", "w") as file:
        json.dump(told, file, separators=(",", ":"), allow_nan=False)


main()
