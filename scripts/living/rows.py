"""Goldens of the quantisers: input matrices, what every format reads back, and rotated rows."""
import numpy as np

from living import formats

BITS = (8, 4, 2)


def listed(x):
    """Numbers that are read back as the same float32."""
    return [float(str(number)) for number in np.asarray(x, np.float32).ravel()]


def short(row):
    """A row whose blocks of 32 make float32 lose the last bit of max - min: the step found first is too small.

    The first block does so in 8 bits, the second in 4, the third in 2.
    """
    row = np.clip(row, -0.9, 0.4).astype(np.float32)
    for block, (bits, step) in enumerate(((8, 2.0**-7), (4, 2.0**-3), (2, 2.0**-1))):
        if block * formats.BLOCK < len(row):
            top = np.float32((2**bits - 1) * step - 1)
            row[block * formats.BLOCK + 4] = -1
            row[block * formats.BLOCK + 9] = np.nextafter(top, np.float32(2))
    return row


def synthetic(chance, width):
    """Named rows of one width."""
    normal = chance.standard_normal((12, width))
    outliers = normal[1].copy()
    outliers[[3, width // 2 + 1]] = 40, -25
    offset = 1000 + 0.01 * normal[2]  # float32 tells numbers near 1000 only 6e-5 apart
    rows = dict(
        normal=normal[0],
        outliers=outliers,
        offset=offset,
        constant=np.full(width, 0.3),
        constant_in_float16=np.full(width, -2.5),
        zeros=np.zeros(width),
        negative=-np.abs(normal[3]) - 0.5,
        tiny=1e-6 * normal[4],
        large=np.clip(1e4 * normal[5], -3e4, 3e4),
        largest=np.where(np.arange(width) % 2 == 0, 3e4, -3e4),
        mixed=normal[6] * 10.0 ** chance.integers(-6, 4, width),
        one_number=np.where(np.arange(width) == 5, 1.7, 0),
        short=short(normal[7]),
    )
    return {name: row.astype(np.float32) for name, row in rows.items()}


def columns(chance, width):
    """32 rows whose columns are of the kinds above, one after another."""
    kinds = list(synthetic(chance, formats.BLOCK).values())
    scale = chance.uniform(0.5, 1, width)
    drawn = [np.roll(kinds[i % len(kinds)], i) * np.float32(scale[i]) for i in range(width)]
    return np.stack(drawn, axis=1).astype(np.float32)


def groups_of(width):
    """Groups by row that a method uses at this width: 32, and the D, D / 2, D / 4 of two-level caches."""
    of_levels = {(8, width), (4, width // 2), (2, width // 4)}
    return sorted({(bits, formats.BLOCK) for bits in BITS} | of_levels, reverse=True)


def matrix_by_row(name, x, labels=None):
    width = x.shape[1]
    blocks = {kind: formats.ggml_blocks(x, kind) for kind in formats.GGML}
    return dict(
        name=name,
        rows=labels,
        shape=list(x.shape),
        input=listed(x),
        ggml={
            kind: dict(hex=[row.tobytes().hex() for row in blocks[kind]], decoded=listed(formats.ggml(x, kind)))
            for kind in formats.GGML
        },
        by_row=[
            dict(bits=bits, group=group, decoded=listed(formats.by_row(x, bits, group)))
            for bits, group in groups_of(width)
        ],
    )


def matrix_by_channel(name, x):
    decoded = [dict(bits=bits, rows=formats.BLOCK, decoded=listed(formats.by_channel(x, bits))) for bits in BITS]
    return dict(name=name, shape=list(x.shape), input=listed(x), by_channel=decoded)


def rotation(what, width, rows):
    size = formats.ROTATED if what == "values" else formats.key_rotation(width)
    turned = formats.rotated(rows.astype(np.float64), size)
    assert np.allclose(formats.rotated(turned, size), rows, rtol=1e-12, atol=1e-12)
    return dict(
        what=what,
        width=width,
        size=size,
        input=[listed(row) for row in rows],
        rotated=[[float(f"{number:.12g}") for number in row] for row in turned],
    )


def goldens(prompt):
    """Everything; a row of a key and of a value, and the keys of 32 tokens, are those of a real prompt."""
    chance = np.random.default_rng(20)
    layer, head, token = 12, 1, 300
    by_row, by_channel, turned = [], [], []
    for width in (64, 128):
        rows = synthetic(chance, width)
        by_row.append(matrix_by_row(f"synthetic {width}", np.stack(list(rows.values())), list(rows)))
        by_channel.append(matrix_by_channel(f"synthetic {width}", columns(chance, width)))
    real = np.stack([prompt.keys[layer, head, token], prompt.values[layer, head, token]]).astype(np.float32)
    where = f"{prompt.name}, layer {layer}, KV head {head}"
    by_row.append(matrix_by_row(f"{where}, position {token}", real, ["key after RoPE", "value"]))
    keys = prompt.keys[layer, head, token : token + formats.BLOCK]
    by_channel.append(matrix_by_channel(f"{where}, keys from position {token} on", keys.astype(np.float32)))
    turned.append(rotation("keys", 64, real[:1]))
    turned.append(rotation("values", 64, real[1:]))
    for width in (128, 192, 256):
        rows = chance.standard_normal((1, width)).astype(np.float32)
        turned += [rotation("keys", width, rows), rotation("values", width, rows)]
    return dict(by_row=by_row, by_channel=by_channel, hadamard=turned)
