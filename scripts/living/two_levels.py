"""Two levels of precision and eviction by attention received, after LeanKV."""
import numpy as np

from living import formats
from living.caches import Cache
from living.margins import Margins
from living.model import SIZE, probabilities

NEWEST = 64
GONE, LOW, HIGH = 0, 1, 2
# (bits, groups in a row) of keys and values
FORMATS = {HIGH: ((8, 1), (4, 2)), LOW: ((4, 2), (2, 4))}


def coded(keys, values, level):
    return tuple(
        formats.by_row(x, bits, SIZE // groups) for x, (bits, groups) in zip((keys, values), FORMATS[level])
    )


def bytes_of(level):
    return sum(SIZE * bits // 8 + 4 * groups for bits, groups in FORMATS[level])


def lowest(scores, candidates, margins):
    """The candidate of the lowest score, the earlier one of equals; None without candidates."""
    slots = np.flatnonzero(candidates)
    if not len(slots):
        return None
    ordered = np.sort(scores[slots])
    if len(ordered) > 1:
        margins.see(ordered[0], ordered[1])
    return slots[scores[slots].argmin()]


class TwoLevels(Cache):
    """`exact` codes nothing and lets only what is gone be missed."""

    def __init__(self, prompt, steps, prune, demote, exact=False):
        super().__init__(f"prune {prune} demote {demote}" + (" exact" if exact else ""), prompt, steps)
        self.prune, self.demote, self.exact = prune, demote, exact
        self.near = {name: Margins() for name in ("prompt", "victims", "limits")}
        self.left, self.demoted, self.changes = 0, 0, []
        n = self.held
        self.counts = np.zeros(self.keys.shape[:3], prompt.keys.dtype)
        self.sums = np.zeros_like(self.counts)
        self.counts[:, :, :n] = n - np.arange(n)
        self.sums[:, :, :n] = prompt.paid.max(axis=2)
        self.level = np.full(self.counts.shape, GONE)
        self.level[:, :, :n] = self.prompt_levels(self.sums[:, :, :n] / self.counts[:, :, :n], n)
        self.first_levels = self.level[:, :, :n].copy()
        if not exact:
            self.code_prompt(n)

    def prompt_levels(self, scores, n):
        older = scores[:, :, : max(n - NEWEST, 0)]
        for limit in (self.prune, self.demote):
            if limit > 0:
                self.near["prompt"].see(older, limit / n)
        levels = np.full(scores.shape, HIGH)
        low, gone = older < self.demote / n, older < self.prune / n
        levels[:, :, : older.shape[2]] = np.where(gone, GONE, np.where(low, LOW, HIGH))
        return levels

    def code_prompt(self, n):
        keys, values = (x[:, :, :n].copy() for x in (self.keys, self.values))
        for level in (LOW, HIGH):
            these = self.level[:, :, :n] == level
            if these.any():
                self.keys[:, :, :n][these], self.values[:, :, :n][these] = coded(keys[these], values[these], level)

    def held_as(self, k, v):
        return (k, v) if self.exact else coded(k, v, HIGH)

    def weights(self, layer, q, keys):
        self.level[layer, :, self.held] = HIGH
        held = self.level[layer, :, None, : self.held + 1] != GONE
        logits = q @ keys.swapaxes(-1, -2) / q.dtype.type(SIZE**0.5)
        rows = probabilities(np.where(held, logits, -np.inf))
        self.sums[layer, :, : self.held + 1] += rows.max(axis=1)
        self.counts[layer, :, : self.held + 1] += 1
        return rows

    def after_step(self, position):
        """At most one high token changes its level, in every KV head."""
        super().after_step(position)
        for layer in range(self.layers):
            for head in range(self.kv_heads):
                self.settle(layer, head, position)

    def settle(self, layer, head, position):
        level = self.level[layer, head, : self.held]
        scores = self.sums[layer, head, : self.held] / self.counts[layer, head, : self.held]
        outside = np.arange(self.held) < position + 1 - NEWEST
        victim = lowest(scores, (level == HIGH) & outside, self.near["victims"])
        low = lowest(scores, level == LOW, self.near["victims"])
        if victim is None:
            return
        prune, demote = (limit / (position + 1) for limit in (self.prune, self.demote))
        self.see_limits(scores[victim], None if low is None else scores[low], prune, demote)
        if scores[victim] < prune and (low is None or scores[victim] < scores[low]):
            self.let_go(layer, head, victim)
        elif scores[victim] < demote:
            self.demote_one(layer, head, victim)
            if low is not None and scores[low] < prune:
                self.let_go(layer, head, low)

    def see_limits(self, victim, low, prune, demote):
        near = self.near["limits"]
        for limit in (prune, demote):
            if limit > 0:
                near.see(victim, limit)
        if low is not None and prune > 0:
            near.see(low, prune)
            near.see(low, victim)

    def let_go(self, layer, head, slot):
        self.level[layer, head, slot] = GONE
        self.left += 1
        self.changes.append((self.held - self.prompt_held, int(slot), "gone"))

    def demote_one(self, layer, head, slot):
        """Coded low from what it decodes to."""
        at = np.s_[layer, head, slot]
        self.level[at] = LOW
        self.demoted += 1
        self.changes.append((self.held - self.prompt_held, int(slot), "low"))
        if not self.exact:
            self.keys[at], self.values[at] = coded(self.keys[at], self.values[at], LOW)

    def figures(self):
        high, low = (int((self.level[:, :, : self.held] == level).sum()) for level in (HIGH, LOW))
        return dict(high=high, low=low, bytes=high * bytes_of(HIGH) + low * bytes_of(LOW))

    def result(self):
        return dict(
            kind="two_levels",
            prune=self.prune,
            demote=self.demote,
            exact=self.exact,
            demoted=self.demoted,
            left=self.left,
            near={name: margins.told() for name, margins in self.near.items()},
        )
