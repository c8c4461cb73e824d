"""Caches that hold every token, exactly or coded, and what all caches have in common."""
import numpy as np

from living import formats
from living.model import SIZE, attention

NUMBERS = 2 * SIZE  # of a token in a KV head


class Cache:
    """Keys and values as attention reads them, [layer, KV head, slot, SIZE], with room for what is generated.

    Slots are in the order of positions. `cut` says what stays of the prompt, [layer][KV head] slots, all of one number.
    """

    def __init__(self, name, prompt, steps, cut=None):
        self.name = name
        self.layers, self.kv_heads = prompt.keys.shape[:2]
        self.keys, self.values = (self.roomy(x, cut, steps) for x in (prompt.keys, prompt.values))
        self.prompt_held = self.held = self.keys.shape[2] - steps

    @staticmethod
    def roomy(x, cut, steps):
        if cut is not None:
            x = np.stack([np.stack([of[slots] for of, slots in zip(*pair)]) for pair in zip(x, cut)])
        return np.concatenate([x, np.zeros_like(x[:, :, :steps])], axis=2)

    @property
    def heads(self):
        return self.layers * self.kv_heads

    def attend(self, layer, q, k, v):
        """Outputs [KV head, GROUP, SIZE]; the new token is held first."""
        self.keys[layer, :, self.held], self.values[layer, :, self.held] = self.held_as(k, v)
        keys, values = (x[layer, :, : self.held + 1] for x in (self.keys, self.values))
        weights = self.weights(layer, q, keys)
        return weights @ values

    def held_as(self, k, v):
        """Keys and values of a new token [KV head, SIZE] as attention is to read them."""
        return k, v

    def weights(self, layer, q, keys):
        return attention(q, keys)

    def after_step(self, position):
        self.held += 1

    def figures(self):
        """What is recorded of the cache as it is now."""
        return {}

    def result(self):
        """What is recorded when all is done."""
        return {}


class Residual(Cache):
    """Old tokens coded in groups, keys by channel and values by row; the newest in float16."""

    GROUP, VALUES_GROUP = 32, 32

    def __init__(self, prompt, steps, key_bits, value_bits, residual, cut=None, cut_name=None):
        name = f"k{key_bits} v{value_bits} residual {residual}" + (f" on {cut_name}" if cut_name else "")
        super().__init__(name, prompt, steps, cut)
        self.key_bits, self.value_bits, self.residual, self.cut_name = key_bits, value_bits, residual, cut_name
        self.coded, self.coded_after = 0, []
        exact = [x[:, :, : self.held].copy() for x in (self.keys, self.values)]
        self.keys[:, :, : self.held], self.values[:, :, : self.held] = (formats.half(x) for x in exact)
        self.code(max(self.held - residual, 0) // self.GROUP * self.GROUP, *exact)

    def code(self, upto, keys, values):
        """Codes slots from `coded` to `upto`, from these keys and values of all slots."""
        new = np.s_[:, :, self.coded : upto]
        if upto > self.coded:
            self.keys[new] = formats.by_channel(keys[new], self.key_bits, self.GROUP)
            self.values[new] = formats.by_row(values[new], self.value_bits, self.VALUES_GROUP)
            self.coded = upto

    def held_as(self, k, v):
        return formats.half(k), formats.half(v)

    def after_step(self, position):
        super().after_step(position)
        if self.held - self.coded >= self.residual + self.GROUP:
            self.code(self.coded + self.GROUP, self.keys, self.values)
            self.coded_after.append(self.held - self.prompt_held)

    def figures(self):
        tail = self.held - self.coded
        keys = self.GROUP * SIZE * self.key_bits // 8 + 4 * SIZE
        values = self.GROUP * (SIZE * self.value_bits // 8 + 4 * SIZE // self.VALUES_GROUP)
        per_head = self.coded // self.GROUP * (keys + values) + tail * NUMBERS * 2
        return dict(coded=self.coded * self.heads, tail=tail * self.heads, bytes=per_head * self.heads)

    def result(self):
        return dict(
            kind="residual",
            k_bits=self.key_bits,
            v_bits=self.value_bits,
            group=self.GROUP,
            values_group=self.VALUES_GROUP,
            residual=self.residual,
            cut=self.cut_name,
            coded_after=self.coded_after,
        )


class Ggml(Cache):
    """Every token in ggml's blocks from the moment that it comes, keys and values rotated first if `rotated`.

    What is decoded is rotated back here, instead of queries and outputs: the products are the same numbers.
    """

    def __init__(self, prompt, steps, key_type, value_type, rotated=False):
        name = f"k={key_type} v={value_type}" + (" rotated" if rotated else "")
        super().__init__(name, prompt, steps)
        self.types, self.rotated = (key_type, value_type), rotated
        held = np.s_[:, :, : self.held]
        self.keys[held], self.values[held] = self.held_as(self.keys[held], self.values[held])

    def held_as(self, k, v):
        if not self.rotated:
            return tuple(formats.ggml(x, name) for x, name in zip((k, v), self.types))
        sizes = formats.key_rotation(SIZE), formats.ROTATED
        decoded = (formats.ggml(formats.rotated(x, size), name) for x, size, name in zip((k, v), sizes, self.types))
        return tuple(formats.rotated(x.astype(k.dtype), size) for x, size in zip(decoded, sizes))

    def figures(self):
        sizes = {"q8_0": 34, "q4_0": 18, "q4_1": 20, "q5_0": 22, "q5_1": 24}
        row = sum(sizes[name] * SIZE // formats.BLOCK for name in self.types)
        return dict(held=self.held * self.heads, bytes=row * self.held * self.heads)

    def result(self):
        return dict(kind="ggml", k=self.types[0], v=self.types[1], rotated=self.rotated)
