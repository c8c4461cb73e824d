"""What is read of one attention call, and every reason for which a layer's attention cannot be captured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from .attention import AttentionCall
from .errors import CaptureError

DTYPES = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}
# Under these names transformers' attention modules keep what maps the concatenated heads to the residual stream.
OUTPUT_NAMES = ("o_proj", "dense", "out_proj", "c_proj")
# Arguments that make attention another thing than softmax(scale * q k) v, and what they are called.
FOREIGN = {
    "softcap": "soft-capped logits",
    "s_aux": "attention sinks",
    "head_mask": "a mask of heads",
    "position_bias": "a bias by position",
    "encoder_hidden_states": "cross attention",
}
# Rows of the mask that are compared at once, so that a long prompt needs no second mask.
MASK_ROWS = 512


@dataclass(frozen=True)
class LayerFacts:
    """What holds of one layer for every prompt."""

    layer: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    hidden_size: int
    window: int | None
    scale: float
    dtype: str
    device: str


def read_facts(call: AttentionCall) -> LayerFacts:
    """The facts of a layer, or why it cannot be captured."""
    layer = _layer(call)
    where = f"layer {layer} ({type(call.module).__name__})"
    _refuse_foreign(call, where)
    _refuse_shapes(call, where)
    (_, heads, _, width), kv_heads = call.query.shape, call.key.shape[1]
    weight = output_projection(call.module, where).weight
    if weight.ndim != 2 or weight.shape[1] != heads * width:
        raise CaptureError(
            f"{where} has an output projection of shape {tuple(weight.shape)}; "
            f"{heads} heads of {width} need (hidden, {heads * width})"
        )
    for what, dtype in (("queries", call.query.dtype), ("output projection", weight.dtype)):
        if dtype not in DTYPES:
            raise CaptureError(f"{where} has a type of its {what} that captures do not hold: {dtype}")
    return LayerFacts(
        layer=layer,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=width,
        hidden_size=weight.shape[0],
        window=_window(call, layer, where),
        scale=_scale(call, where),
        dtype=DTYPES[call.query.dtype],
        device=str(call.query.device),
    )


def output_projection(module: nn.Module, where: str) -> nn.Linear:
    """The module's W_o, which must be a plain linear map: of others the weight alone says too little."""
    for name in OUTPUT_NAMES:
        found = getattr(module, name, None)
        if isinstance(found, nn.Linear):
            return found
        if found is not None:
            raise CaptureError(f"{where} has an output projection {name} of type {type(found).__name__}, not a Linear")
    raise CaptureError(f"{where} has none of the output projections {', '.join(OUTPUT_NAMES)}")


@contextmanager
def weights_at_hand(module: nn.Module) -> Iterator[None]:
    """Brings weights that accelerate keeps elsewhere; they are on no device between the module's own calls."""
    if not any(weight.is_meta for weight in module.parameters(recurse=False)):
        yield
        return
    from accelerate.utils import align_module_device

    with align_module_device(module):
        yield


def check_mask(call: AttentionCall, facts: LayerFacts, rows: int) -> None:
    """Refuses a call whose last `rows` queries do not see exactly the keys that the capture will say they see."""
    tokens = call.key.shape[2]
    where = f"layer {facts.layer} ({type(call.module).__name__})"
    if call.mask is None:
        _check_without_mask(call, facts, tokens, where)
        return
    if call.mask.ndim != 4:
        raise CaptureError(f"{where} has a mask of shape {tuple(call.mask.shape)}; (1, heads, queries, keys) is known")
    for start in range(tokens - rows, tokens, MASK_ROWS):
        end = min(start + MASK_ROWS, tokens)
        mask = call.mask[:, :, start:end, :tokens]
        expected = visible_keys(start, end, tokens, facts.window, mask.device)
        if mask.dtype == torch.bool:
            same = (mask == expected).all()
        else:
            # A mask that is added: nothing to what is seen, and to the rest so much that nothing of it is left.
            hidden = mask <= torch.finfo(mask.dtype).min / 2
            same = torch.where(expected, mask == 0, hidden).all()
        if not same:
            kind = "causal" if facts.window is None else f"causal with a window of {facts.window}"
            raise CaptureError(f"{where} has a mask that is not {kind}; other masks cannot be captured")


def visible_keys(start: int, end: int, tokens: int, window: int | None, device: torch.device) -> torch.Tensor:
    """Which keys the queries `start..end` see, themselves included."""
    query = torch.arange(start, end, device=device)[:, None]
    key = torch.arange(tokens, device=device)[None, :]
    seen = key <= query
    return seen if window is None else seen & (key > query - window)


def _check_without_mask(call: AttentionCall, facts: LayerFacts, tokens: int, where: str) -> None:
    """Without a mask sdpa is causal over all keys, and eager attention sees what comes later."""
    if call.kind == "eager" and tokens > 1:
        raise CaptureError(f"{where} got no mask: its attention is not causal")
    if facts.window is not None and tokens > facts.window:
        raise CaptureError(
            f"{where} declares a window of {facts.window} keys but attends to all {tokens}: it got no mask"
        )


def _layer(call: AttentionCall) -> int:
    layer = getattr(call.module, "layer_idx", None)
    if not isinstance(layer, int):
        raise CaptureError(f"{type(call.module).__name__} does not say which layer it is: it has no layer_idx")
    return layer


def _refuse_foreign(call: AttentionCall, where: str) -> None:
    for name, what in FOREIGN.items():
        if call.options.get(name) is not None:
            raise CaptureError(f"{where} has {what} ({name}), which captures do not hold")
    causal = call.options.get("is_causal")
    if not (getattr(call.module, "is_causal", True) if causal is None else causal):
        raise CaptureError(f"{where} is not causal")


def _refuse_shapes(call: AttentionCall, where: str) -> None:
    query, key, value = call.query.shape, call.key.shape, call.value.shape
    if len(query) != 4 or query[0] != 1:
        raise CaptureError(f"{where} has queries of shape {tuple(query)}; (1, heads, tokens, width) is known")
    if value[-1] != key[-1]:
        raise CaptureError(f"{where} has values {value[-1]} wide and keys {key[-1]} wide, as MLA has; both must be one")
    if key != value or key[-1] != query[-1]:
        raise CaptureError(f"{where} has keys of shape {tuple(key)} and values of shape {tuple(value)}")
    if key[2] != query[2]:
        raise CaptureError(f"{where} has {key[2]} keys for {query[2]} queries, as cross attention or a cache has")
    if query[1] % key[1]:
        raise CaptureError(f"{where} has {query[1]} query heads for {key[1]} KV heads, which do not divide them")
    config = getattr(call.module, "config", None)
    declared = getattr(config, "num_key_value_heads", None)
    if isinstance(declared, int) and declared != key[1]:
        raise CaptureError(f"{where} has keys of {key[1]} heads where its configuration says {declared}")


def _scale(call: AttentionCall, where: str) -> float:
    scale = call.options.get("scaling")
    if scale is not None:
        return float(scale)
    if call.kind == "sdpa":
        return call.query.shape[-1] ** -0.5
    raise CaptureError(f"{where} passes no scaling to its eager attention; take --attention sdpa")


def _window(call: AttentionCall, layer: int, where: str) -> int | None:
    """Keys that a query sees, itself included: what the call says, else the module, else the model's configuration."""
    config = getattr(call.module, "config", None)
    types = getattr(config, "layer_types", None)
    kind = types[layer] if types and layer < len(types) else None
    if kind not in (None, "full_attention", "sliding_attention"):
        raise CaptureError(f"{where} is of the type {kind}; full_attention and sliding_attention can be captured")
    # Masks follow the type, even where a model hands its window to every layer.
    if kind == "full_attention":
        return None
    if "sliding_window" in call.options:
        window = call.options["sliding_window"]
    elif hasattr(call.module, "sliding_window"):
        window = call.module.sliding_window
    else:
        window = getattr(config, "sliding_window", None) if kind == "sliding_attention" else None
    if window is None:
        return None
    if isinstance(window, bool) or not isinstance(window, int) or window < 1:
        raise CaptureError(f"{where} has a sliding window of {window!r}; a whole number from 1 up is known")
    return window
