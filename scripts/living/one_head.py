"""Goldens of single KV heads, where no rounding of a model can hide a wrong rule: given queries, keys and values go
through a cache, and what comes out is written down with every decision.

Also numbers of the generator, and clusters of a few made-up keys.
"""
import numpy as np

from living.caches import Ggml, Residual
from living.chance import Generator
from living.margins import Margins
from living.model import GROUP, Prompt, received
from living.recall import Recall, clusters, seeds
from living.two_levels import TwoLevels

TOKENS, STEPS, LAYER, KV_HEAD = 144, 24, 12, 1


def plain(x, digits):
    """Rounded to so many digits, in float64; four digits are as well a float32 of their own."""
    return np.vectorize(lambda number: float(f"{number:.{digits}g}"))(x)


def exact32(x):
    """Four digits, as float32 holds them, in float64."""
    return plain(x, 4).astype(np.float32).astype(np.float64)


def inputs(prompt):
    """(queries [GROUP, token, SIZE], keys, values [token, SIZE]) of the first tokens of a real prompt."""
    many = TOKENS + STEPS
    queries = prompt.queries[KV_HEAD * GROUP : (KV_HEAD + 1) * GROUP, :many]
    return exact32(queries), *(exact32(x[LAYER, KV_HEAD, :many]) for x in (prompt.keys, prompt.values))


def caches_of(prompt):
    levels = lambda *limits: TwoLevels(prompt, STEPS, *limits)
    recall = lambda budget, **more: Recall(prompt, STEPS, budget, whole_layers=0, **more)
    ggml = lambda *types, **more: Ggml(prompt, STEPS, *types, **more)
    return [
        Residual(prompt, STEPS, 4, 2, 64),
        ggml("q5_1", "q5_1"),
        ggml("q8_0", "q4_0"),
        ggml("q4_0", "q4_0", rotated=True),
        recall(64),
        recall(64, every=16, new=2),
        recall(56, every=4, new=2),
        levels(0.2, 1.0),
        levels(0.0, 3.0),
        levels(1.0, 4.0),
    ]


def outputs(cache, queries, keys, values):
    """[step, GROUP, SIZE]"""
    rows = []
    for at in range(TOKENS, TOKENS + STEPS):
        rows.append(cache.attend(0, queries[None, :, at], keys[None, at], values[None, at])[0])
        cache.after_step(at)
    return np.stack(rows)


def details(cache):
    """Every decision."""
    if isinstance(cache, Recall):
        chosen = [step[0, 0].tolist() for step in cache.chosen[:STEPS]]
        return dict(assignment=cache.assignments[0, 0].tolist(), chosen=chosen)
    if isinstance(cache, TwoLevels):
        return dict(levels=cache.first_levels[0, 0].tolist(), changes=[list(change) for change in cache.changes])
    return {}


def heads(prompt):
    queries, keys, values = inputs(prompt)
    paid = np.stack([received(q[:TOKENS], keys[:TOKENS])[1] for q in queries])
    small = Prompt("one head", keys[None, None, :TOKENS], values[None, None, :TOKENS], paid[None, None])
    configurations = []
    for cache in caches_of(small):
        start = cache.figures()
        out = outputs(cache, queries, keys, values)
        more = dict(start=start, end=cache.figures(), **details(cache), outputs=plain(out, 8).tolist())
        configurations.append(dict(name=cache.name, **cache.result(), **more))
    return dict(
        source=f"{prompt.name}, layer {LAYER}, KV head {KV_HEAD}, from position 0 on, rounded to four digits",
        tokens=TOKENS,
        steps=STEPS,
        queries=plain(queries, 4).tolist(),
        keys=plain(keys, 4).tolist(),
        values=plain(values, 4).tolist(),
        scores=plain((paid / (TOKENS - np.arange(TOKENS))).max(axis=0), 10).tolist(),
        configurations=configurations,
    )


def numbers():
    """The first 64-bit numbers of some streams, as text."""
    streams = []
    for seed, stream in ((0, 0), (0, 6), (0, 89), (1, 6), (2**63 + 11, 5)):
        generator = Generator(seed, stream)
        streams.append(dict(seed=str(seed), stream=stream, numbers=[str(generator.whole()) for _ in range(20)]))
    return streams


def made_up_clusters():
    """Keys of different lengths around a few directions, and what comes of them."""
    chance, cases = np.random.default_rng(7), []
    for keys_of, size, count, stream in ((40, 8, 4, 0), (25, 8, 6, 6), (3, 8, 5, 1), (60, 16, 1, 2)):
        middles = chance.standard_normal((count, size))
        around = middles[chance.integers(0, len(middles), keys_of)]
        keys = exact32(around + 0.6 * chance.standard_normal((keys_of, size)))
        keys *= 2.0 ** chance.integers(-1, 2, keys_of)[:, None]
        near = dict(draws=Margins(), cosines=Margins())
        first = seeds(keys, min(count, keys_of), Generator(0, stream), near["draws"])
        assignment, centroids = clusters(keys, count, Generator(0, stream), near)
        assert not any(margins.below[1e-4] for margins in near.values()), "a decision is close"
        cases.append(
            dict(
                seed=0,
                stream=stream,
                count=count,
                keys=[[float(str(np.float32(number))) for number in key] for key in keys],
                seeds=first,
                assignment=assignment.tolist(),
                centroids=plain(centroids, 9).tolist(),
            )
        )
    return cases


def goldens(prompt):
    return dict(numbers=numbers(), clusters=made_up_clusters(), one_head=heads(prompt))
