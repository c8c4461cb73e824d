"""Recall by clusters of keys: every KV head sees the tokens of the clusters that its queries ask for."""
import numpy as np

from living.caches import Cache
from living.chance import Generator
from living.margins import Margins
from living.model import SIZE, probabilities

SINKS, KEYS_PER_CLUSTER, ROUNDS, WHOLE_LAYERS = 16, 80, 20, 2


def unit(x):
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    return np.divide(x, length, out=np.zeros_like(x), where=length > 0)


def drawn(generator, weights, margins):
    """The first index whose cumulative weight exceeds u times the total."""
    sums = np.cumsum(weights)
    wanted = generator.unit() * sums[-1]
    margins.count(np.abs(sums - wanted).min() / sums[-1])
    return int(np.searchsorted(sums, wanted, side="right"))


def seeds(keys, count, generator, margins):
    """Indexes of the keys that k-means++ starts from."""
    directions, even = unit(keys), np.ones(len(keys), keys.dtype)
    chosen = [drawn(generator, even, margins)]
    nearest = directions @ directions[chosen[0]]
    while len(chosen) < count:
        weights = np.maximum(1 - nearest, 0)
        chosen.append(drawn(generator, weights if weights.any() else even, margins))
        nearest = np.maximum(nearest, directions @ directions[chosen[-1]])
    return chosen


def assigned(keys, centroids, margins):
    """The centroid of greatest cosine for every key, the lower index of equals."""
    cosines = unit(keys) @ unit(centroids).T
    if cosines.shape[1] > 1:
        best = np.sort(cosines, axis=1)
        margins.see(best[:, -1], best[:, -2])
    return cosines.argmax(axis=1)


def clusters(keys, count, generator, near):
    """(assignment of every key, centroids); clusters without members are left out."""
    centroids = keys[seeds(keys, min(count, len(keys)), generator, near["draws"])].copy()
    assignment = None
    for _ in range(ROUNDS):
        before, assignment = assignment, assigned(keys, centroids, near["cosines"])
        if before is not None and (before == assignment).all():
            break
        for i in np.unique(assignment):
            centroids[i] = keys[assignment == i].mean(axis=0)
    used, assignment = np.unique(assignment, return_inverse=True)
    return assignment, centroids[used]


class Clusters:
    """Clusters of one KV head, those of later batches behind those of the prompt."""

    def __init__(self):
        self.centroids, self.members = None, []

    def add(self, assignment, centroids, first):
        """Clusters of the slots from `first` on."""
        self.centroids = centroids if first == SINKS else np.concatenate([self.centroids, centroids])
        self.members += [first + np.flatnonzero(assignment == i) for i in range(len(centroids))]

    def chosen(self, query, room, near):
        """Slots of the best clusters, `room` of them or all."""
        scores = self.centroids @ query
        order = np.argsort(-scores, kind="stable")
        ends = np.cumsum([len(self.members[i]) for i in order])
        last = int(np.searchsorted(ends, room))
        if last + 1 < len(order):
            near.see(scores[order[last]], scores[order[last + 1]])
        if 0 < last < len(order) and ends[last] > room:  # cut short: another would be if it were first
            near.see(scores[order[last]], scores[order[last - 1]])
        return np.sort(np.concatenate([self.members[i] for i in order[: last + 1]])[:room])


class Recall(Cache):
    def __init__(self, prompt, steps, budget, every=320, new=8, seed=0, whole_layers=WHOLE_LAYERS):
        super().__init__(f"clusters budget {budget} every {every} new {new} seed {seed}", prompt, steps)
        self.budget, self.every, self.new, self.seed = budget, every, new, seed
        self.near = {name: Margins() for name in ("draws", "cosines", "scores", "top")}
        self.clustered, self.batches = min(SINKS, self.held), []
        self.whole_layers, self.fragile = whole_layers, []
        self.clusters = {at: Clusters() for at in np.ndindex(self.layers, self.kv_heads) if at[0] >= whole_layers}
        self.assignments = self.cluster(max(1, int(prompt.tokens / KEYS_PER_CLUSTER + 0.5)))
        self.seen_before, self.chosen = {}, [{}]
        self.hits, self.hit_rate, self.came_back, self.returned = [], [], 0, []

    def cluster(self, count):
        """Clusters what is held and not yet clustered; batch 0 is the prompt."""
        slots, assignments, seed = np.s_[self.clustered : self.held], {}, self.seed + len(self.batches)
        for (layer, head), own in self.clusters.items():
            generator = Generator(seed, layer * self.kv_heads + head)
            near = dict(draws=Margins(), cosines=Margins())
            assignment, centroids = clusters(self.keys[layer, head, slots], count, generator, near)
            own.add(assignment, centroids, self.clustered)
            assignments[layer, head] = assignment
            for name, margins in near.items():
                self.near[name].join(margins)
                if margins.below[1e-6]:
                    self.fragile.append([len(self.batches), layer, head, name])
        self.batches.append(self.held - self.prompt_held)
        self.clustered = self.held
        return assignments

    def weights(self, layer, q, keys):
        logits = q @ keys.swapaxes(-1, -2) / q.dtype.type(SIZE**0.5)
        if layer < self.whole_layers:
            return probabilities(logits)
        seen = np.zeros((self.kv_heads, 1, keys.shape[1]), bool)
        seen[:, :, :SINKS] = seen[:, :, self.clustered :] = True
        full = probabilities(logits).mean(axis=1)
        for head in range(self.kv_heads):
            own = self.clusters[layer, head]
            chosen = own.chosen(q[head].mean(axis=0), max(self.budget - SINKS, 0), self.near["scores"])
            seen[head, 0, chosen] = True
            self.chosen[-1][layer, head] = chosen
            self.compare(layer, head, chosen, full[head], seen[head, 0])
        return probabilities(np.where(seen, logits, -np.inf))

    def compare(self, layer, head, chosen, full, seen):
        """Whether what was chosen is what attention wanted, and whether anything came back."""
        clustered = np.arange(SINKS, self.clustered)
        order = clustered[np.lexsort((-clustered, -full[clustered]))]
        if len(chosen) < len(order):
            self.near["top"].see(full[order[len(chosen) - 1]], full[order[len(chosen)]])
        self.hits.append(len(np.intersect1d(chosen, order[: len(chosen)])) / len(chosen))
        before, clustered_before = self.seen_before.get((layer, head), (seen, 0))
        self.came_back += bool((seen[:clustered_before] & ~before[:clustered_before]).any())
        self.seen_before[layer, head] = seen, self.clustered

    def after_step(self, position):
        super().after_step(position)
        self.hit_rate.append(float(np.mean(self.hits)))
        # A first step has none before it to which anything could come back.
        self.returned.append(self.came_back / len(self.clusters) if self.returned else None)
        self.hits, self.came_back = [], 0
        self.chosen.append({})
        if self.held - self.clustered >= self.every:
            self.cluster(self.new)

    def figures(self):
        members = [len(c.members) for c in self.clusters.values()]
        return dict(held=self.held * self.heads, clusters=sum(members))

    def result(self):
        return dict(
            kind="clusters",
            budget=self.budget,
            every=self.every,
            new=self.new,
            seed=self.seed,
            clustered_after=self.batches[1:],
            hit_rate=self.hit_rate,
            returned=self.returned,
            near={name: margins.told() for name, margins in self.near.items()},
            fragile=self.fragile,
        )
