"""What leaves a KV head while decoding: R-KV, VaSE, random tokens, and kvpress's DecodingPress, on one head.

Every rule is written in float64 over queries, keys and values of a whole text; what is held is a list of positions in
their order. A decision that rounding could turn over stops the script.
"""
import numpy as np

from living.chance import Generator

CLEAR = 1e-4  # relative distance of the last token that stays from the first that leaves


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def best(worth, count):
    """The indices of the largest numbers, ascending; they must be clearly larger than the rest."""
    order = np.argsort(-worth, kind="stable")
    if 0 < count < len(worth):
        last, next_ = worth[order[count - 1]], worth[order[count]]
        assert last == np.inf or last - next_ > CLEAR * max(abs(last), abs(next_)), (last, next_)
    return np.sort(order[:count])


class Head:
    """Queries [G, token, D], keys and values [token, D] of a whole text; `held` are positions, ascending."""

    def __init__(self, queries, keys, values, tokens):
        self.queries, self.keys, self.values = queries, keys, values
        self.held = np.arange(tokens)

    def logits(self, now, window, keys):
        """[G, window, keys] of the newest queries."""
        return self.queries[:, now - window : now] @ self.keys[keys].T / np.sqrt(self.keys.shape[1])


class RKv:
    name = "evict-r-kv"

    def __init__(self, budget, every, window=8, sinks=0, **more):
        self.parameters = dict(budget=budget, every=every, window=window, sinks=sinks, **more)
        self.stays, self.every, self.window, self.sinks = budget - every, every, window, sinks
        self.share = more.get("lambda", 0.07)

    def evict(self, head, now):
        if len(head.held) <= self.stays:
            return
        old, new = head.held[: -self.window], head.held[-self.window :]
        attention = softmax(head.logits(now, self.window, old).max(axis=0)).mean(axis=0)
        padded = np.pad(attention, 3, constant_values=-np.inf)
        pooled = np.lib.stride_tricks.sliding_window_view(padded, 7).max(axis=1)
        keys = head.keys[head.held]
        keys = keys / (np.linalg.norm(keys, axis=1, keepdims=True) + 1e-8)
        cosines = keys @ keys.T
        assert np.abs(cosines - 0.5).min() > 1e-6, "a cosine is close to the threshold"
        np.fill_diagonal(cosines, 0)
        for row in cosines:
            alike = np.flatnonzero(row > 0.5)
            row[alike[-1] if len(alike) else 0] = 0
        redundancy = softmax(cosines.mean(axis=0))[: len(old)]
        worth = self.share * pooled - (1 - self.share) * redundancy
        worth[old < self.sinks] = np.inf
        head.held = np.concatenate([old[best(worth, self.stays - self.window)], new])


class Vase:
    name = "evict-vase"

    def __init__(self, budget, every, window, sinks, seed, ranges=0.25):
        self.parameters = dict(budget=budget, every=every, window=window, sinks=sinks, seed=seed, ranges=ranges)
        self.stays, self.every, self.window, self.sinks, self.seed = budget - every, every, window, sinks, seed
        self.widest = int(ranges * self.stays)

    def evict(self, head, now):
        if len(head.held) <= self.stays:
            return
        old, new = head.held[: -self.window], head.held[-self.window :]
        rows = softmax(head.logits(now, self.window, old)).mean(axis=1)
        chances = np.stack([np.convolve(row, np.full(5, 0.2), mode="same") for row in rows]).mean(axis=0)
        draw = Generator(self.seed, now << 32)
        lot = np.array([np.log(draw.unit() + 2.0**-53) for _ in old]) / chances
        ranges = np.ptp(head.values[old], axis=1)
        ranges[old < self.sinks] = np.inf
        lot[best(ranges, self.widest)] = np.inf
        head.held = np.concatenate([old[best(lot, self.stays - self.window)], new])


class Random:
    name = "evict-random"

    def __init__(self, tokens, more, every, window, seed):
        self.parameters = dict(budget=f"kept+{more}", every=every, window=window, seed=seed)
        self.tokens, self.stays, self.every, self.window, self.seed = tokens, tokens + more - every, every, window, seed

    def evict(self, head, now):
        if len(head.held) <= self.stays:
            return
        draw = Generator(self.seed, now << 32)
        worth = np.array([draw.whole() >> 11 for _ in head.held], float)
        worth[(head.held < self.tokens) | (now - head.held <= self.window)] = np.inf
        head.held = head.held[best(worth, self.stays)]


class Decoding:
    """kvpress's own DecodingPress over a press that scores; rows are put back into their order after each cut, since
    kvpress leaves them in that of their scores."""

    name = "compress-every"

    def __init__(self, press, target, every, scorer, window=0, **more):
        import torch
        from kvpress import DecodingPress

        self.torch, self.every, self.window = torch, every, window
        self.press = DecodingPress(base_press=press, compression_interval=every, target_size=target)
        self.parameters = dict(target=target, every=every, scorer=scorer, window=window, sinks=0, **more)

    def tensor(self, x):
        return self.torch.from_numpy(x)[None]

    def attention(self, head, now):
        """[1, G, window, keys]; a query does not see what came after it."""
        if self.window == 0:
            return None
        logits = head.logits(now, self.window, head.held)
        at = np.arange(now - self.window, now)
        logits[:, head.held[None] > at[:, None]] = -np.inf
        return self.tensor(softmax(logits))

    def step(self, head, now):
        """After the token before `now` came."""
        from types import SimpleNamespace

        keys, values = (self.tensor(rows[head.held])[None] for rows in (head.keys, head.values))
        rows = SimpleNamespace(keys=keys, values=values)
        cache = SimpleNamespace(layers=[rows])
        module = SimpleNamespace(
            layer_idx=0,
            head_dim=head.keys.shape[1],
            config=SimpleNamespace(num_attention_heads=len(head.queries), num_key_value_heads=1),
        )
        # As many hidden states as a press with a window asks for, though it is given attention.
        hidden = self.torch.zeros(1, 1, 4, dtype=self.torch.float64)
        self.press.hidden_states_buffer[0] += [hidden] * (self.window + 1)
        kwargs = dict(hidden_states=hidden, past_key_values=cache, cache_position=self.torch.tensor([now - 1]))
        self.press.forward_hook(module, [], kwargs, [None, self.attention(head, now)])
        known = {key.tobytes(): position for position, key in enumerate(head.keys)}
        head.held = np.sort([known[key.tobytes()] for key in rows.keys[0, 0].numpy()])


def followed(rule, head, tokens, steps):
    """Positions before the first step and after each that lets tokens leave: {step: [...]}."""
    kept = {}
    if not isinstance(rule, Decoding):
        rule.evict(head, tokens)
    kept[0] = head.held.tolist()
    for step in range(1, steps + 1):
        now = tokens + step
        head.held = np.append(head.held, now - 1)
        before = len(head.held)
        if isinstance(rule, Decoding):
            rule.step(head, now)
        elif step % rule.every == 0:
            rule.evict(head, now)
        if len(head.held) < before:
            kept[step] = head.held.tolist()
    return kept
