"""A first look at a few tokens: the facts of every layer, and whether its attention is what a capture can say.

Names of arguments tell of attention that is known to be foreign. Attention that nobody thought of is found here, where
softmax(scale * q k) v is computed beside the model, and what reaches W_o is compared with what left attention.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from .attention import AttentionCall
from .errors import CaptureError
from .facts import LayerFacts, check_mask, output_projection, read_facts, visible_keys, weights_at_hand

# Tokens of the first prompt that are looked at.
PROBE_TOKENS = 8
# How far attention may be from its definition, against the largest value: rounding, never another formula.
TOLERANCE = {"f32": 1e-4, "f16": 1e-2, "bf16": 4e-2}


@dataclass(frozen=True)
class Layer:
    """A layer that can be captured: its facts, and how to ask for its W_o on the CPU."""

    facts: LayerFacts
    output: Callable[[], torch.Tensor]


class Probe:
    """The observer that learns what every layer is."""

    def __init__(self) -> None:
        self._layers: dict[int, Layer] = {}
        self._handles: list[RemovableHandle] = []
        # Attention outputs on their way to W_o; what is left in it at the end never came there.
        self._on_the_way: dict[int, torch.Tensor] = {}

    def before(self, call: AttentionCall) -> None:
        """Reads a layer's facts and refuses what cannot be captured."""
        facts = read_facts(call)
        where = f"layer {facts.layer} ({type(call.module).__name__})"
        if facts.layer in self._layers:
            raise CaptureError(f"{where} computes attention twice for one prompt")
        check_mask(call, facts, call.key.shape[2])
        projection = output_projection(call.module, where)
        self._layers[facts.layer] = Layer(facts, lambda: _weight(projection))
        self._handles.append(projection.register_forward_pre_hook(self._arrival(facts.layer, where)))

    def after(self, call: AttentionCall, output: torch.Tensor) -> None:
        """Compares what was computed with the definition."""
        facts = self._layers[call.module.layer_idx].facts
        expected = _definition(call, facts)
        distance = (output[0].float() - expected).abs().max().item()
        bound = TOLERANCE[facts.dtype] * call.value.float().abs().max().item()
        # Written so that what is not a number is refused too.
        if not distance <= bound:
            raise CaptureError(
                f"layer {facts.layer} ({type(call.module).__name__}) does not compute softmax(scale * q k) v: its "
                f"output is up to {distance:.3g} away from it, where rounding explains {bound:.3g}"
            )
        self._on_the_way[facts.layer] = output

    def _arrival(self, layer: int, where: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def check(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            left = self._on_the_way.pop(layer, None)
            if left is None or not torch.equal(left.reshape(-1), inputs[0].reshape(-1)):
                raise CaptureError(f"{where} changes its heads between attention and the output projection")

        return check

    def release(self) -> None:
        """Takes the hooks off the model."""
        for handle in self._handles:
            handle.remove()

    def layers(self, expected: int) -> list[Layer]:
        """All layers in order, refused unless attention of each of the `expected` ones was seen."""
        missing = [layer for layer in range(expected) if layer not in self._layers]
        if missing or len(self._layers) != expected:
            raise CaptureError(
                f"{len(self._layers)} of {expected} layers computed their attention through transformers' attention "
                f"interface; layer {missing[0] if missing else expected} is the first that is not as it should be"
            )
        if self._on_the_way:
            raise CaptureError(f"layer {min(self._on_the_way)} does not hand its heads to its output projection")
        found = [self._layers[layer] for layer in range(expected)]
        _check_one_geometry([layer.facts for layer in found])
        return found


def host_copy(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous copy on the CPU that shares nothing with the model."""
    return torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())


def _weight(projection: nn.Linear) -> torch.Tensor:
    with weights_at_hand(projection):
        return host_copy(projection.weight)


def _definition(call: AttentionCall, facts: LayerFacts) -> torch.Tensor:
    """softmax(scale * q k) v in float32, `(tokens, heads, width)`."""
    groups = facts.num_heads // facts.num_kv_heads
    query = call.query[0].float()
    key = call.key[0].float().repeat_interleave(groups, dim=0)
    value = call.value[0].float().repeat_interleave(groups, dim=0)
    tokens = query.shape[1]
    seen = visible_keys(0, tokens, tokens, facts.window, query.device)
    logits = (query @ key.transpose(1, 2) * facts.scale).masked_fill(~seen, -torch.inf)
    return (logits.softmax(dim=-1) @ value).transpose(0, 1)


def _check_one_geometry(facts: list[LayerFacts]) -> None:
    """The format has one geometry and one type for all layers."""
    for field in ("num_heads", "num_kv_heads", "head_dim", "hidden_size", "dtype"):
        first = getattr(facts[0], field)
        for other in facts:
            if getattr(other, field) != first:
                raise CaptureError(
                    f"layer {other.layer} has {field} {getattr(other, field)} and layer 0 has {first}; "
                    "captures hold models whose layers are alike"
                )
