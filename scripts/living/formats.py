"""How rows of numbers are coded: ggml's blocks, groups with two float16 parameters, and Hadamard rotation.

Everything here takes arrays whose last axis is a row of a key or value, rounds them to float32 first, and returns
float32. What is called decoded is what a cache reads back.
"""
import numpy as np
from gguf import GGMLQuantizationType as Types
from gguf.quants import dequantize, quantize

BLOCK = 32
GGML = {name: Types[name.upper()] for name in ("q8_0", "q4_0", "q4_1", "q5_0", "q5_1")}
ROTATED = 64


def ggml_blocks(x, name):
    """Bytes of ggml's blocks of 32 along the rows."""
    with np.errstate(divide="ignore"):
        return quantize(np.ascontiguousarray(x, np.float32), GGML[name])


def ggml(x, name):
    return dequantize(ggml_blocks(x, name), GGML[name]).reshape(x.shape)


def half(x):
    """Rounded to the nearest float16, from float32."""
    return x.astype(np.float32).astype(np.float16).astype(np.float32)


def to_half(x, upward):
    """The nearest float16 that is not below (`upward`) or not above x."""
    near = x.astype(np.float16)
    wrong = near.astype(np.float32) < x if upward else near.astype(np.float32) > x
    limit = np.float16(np.inf if upward else -np.inf)
    return np.where(wrong, np.nextafter(near, limit), near)


def parameters(x, bits):
    """(m, s) as float32 for groups along the last axis.

    The last code must reach the maximum, as float32 adds: it does not where the quotient was rounded to just a float16.
    """
    levels = np.float32(2**bits - 1)
    low = to_half(x.min(axis=-1, keepdims=True), False).astype(np.float32)
    high = x.max(axis=-1, keepdims=True)
    step = to_half((high - low) / levels, True)
    for _ in range(2):
        short = low + step.astype(np.float32) * levels < high
        step = np.where(short, np.nextafter(step, np.float16(np.inf)), step)
    return low, step.astype(np.float32)


def codes(x, low, step, bits):
    quotient = np.divide(x - low, step, out=np.zeros_like(x), where=step > 0)
    return np.clip(np.rint(quotient), 0, 2**bits - 1).astype(np.float32)


def slack(x, low, step):
    """How far |x - decoded| may be from s / 2: float32 cannot tell numbers of this size better apart."""
    return np.spacing(np.maximum(np.abs(x), np.abs(low) + step).astype(np.float32))


def groups_decoded(x, bits):
    """Groups along the last axis, coded in `bits` and decoded."""
    low, step = parameters(x, bits)
    out = low + step * codes(x, low, step, bits)
    error = np.abs(x.astype(np.float64) - out)
    assert (error <= step / 2 * (1 + 1e-6) + slack(x, low, step)).all(), "further off than half a step"
    return out


def by_row(x, bits, group):
    """Groups of `group` neighbouring numbers of a row."""
    rows = np.ascontiguousarray(x, np.float32)
    return groups_decoded(rows.reshape(*x.shape[:-1], -1, group), bits).reshape(x.shape)


def by_channel(x, bits, rows=BLOCK):
    """Groups of `rows` consecutive rows of one column; the number of rows is a multiple of it."""
    x = np.asarray(x, np.float32)
    blocks = x.reshape(*x.shape[:-2], -1, rows, x.shape[-1]).swapaxes(-1, -2)
    return groups_decoded(np.ascontiguousarray(blocks), bits).swapaxes(-1, -2).reshape(x.shape)


def hadamard(size):
    """Sylvester's matrix, divided by the root of its size: symmetric and its own inverse."""
    matrix = np.ones((1, 1))
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    assert len(matrix) == size
    return matrix / size**0.5


def key_rotation(width):
    """The largest power of two, 64 at least, that divides the width."""
    size = width & -width
    assert size >= ROTATED, f"no power of two from 64 on divides {width}"
    return size


def rotated(x, size):
    """Consecutive blocks of `size` numbers of every row through the matrix; twice gives x."""
    blocks = x.reshape(*x.shape[:-1], -1, size)
    return (blocks @ hadamard(size).astype(x.dtype)).reshape(x.shape)
