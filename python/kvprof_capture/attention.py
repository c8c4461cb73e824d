"""Attention functions of transformers that show every call to an observer, and compute what they wrap.

They are registered under names of their own with the public interfaces of attention and of masks: a name without a
mask function would get no mask at all, and layers with a window would see everything.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .errors import CaptureError

# What computes attention, and the name under which it is shown to an observer.
NAMES = {"sdpa": "kvprof_capture", "eager": "kvprof_capture_eager"}


@dataclass(frozen=True)
class AttentionCall:
    """What a layer handed to its attention function: one batch row, heads before tokens, after RoPE."""

    kind: str
    module: nn.Module
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    mask: torch.Tensor | None
    options: dict[str, Any]


class Observer(Protocol):
    """Who is shown the calls of one prompt."""

    def before(self, call: AttentionCall) -> None:
        """Sees a call; what it raises ends the forward pass."""

    def after(self, call: AttentionCall, output: torch.Tensor) -> None:
        """Sees what the wrapped function made of the call, `(1, tokens, heads, width)`."""


_observer: ContextVar[Observer | None] = ContextVar("kvprof_capture_observer", default=None)


@contextmanager
def observing(observer: Observer) -> Iterator[None]:
    """Shows every attention call inside the block to `observer`."""
    token = _observer.set(observer)
    try:
        yield
    finally:
        _observer.reset(token)


@contextmanager
def captured_attention(model: PreTrainedModel, kind: str) -> Iterator[None]:
    """Lets `model` compute by the watched function of `kind`, in evaluation mode; both are put back afterwards."""
    before, was_training = _implementations(model), model.training
    _register(kind)
    try:
        try:
            # A name of one's own is taken by models that do not support what it wraps.
            model.set_attn_implementation(kind)
            model.set_attn_implementation(NAMES[kind])
        except (ValueError, ImportError) as error:
            raise CaptureError(f"{type(model).__name__} does not take {kind} attention: {error}") from error
        # transformers only warns where a class does not go through the interface.
        if model.config.get_text_config()._attn_implementation != NAMES[kind]:
            raise CaptureError(
                f"the attention of {type(model).__name__} does not go through transformers' attention interface"
            )
        model.eval()
        yield
    finally:
        model.set_attn_implementation(before)
        model.train(was_training)


def _implementations(model: PreTrainedModel) -> dict[str, str]:
    """Which function each part of the model uses; parts have configurations of their own in multimodal models."""
    parts = {key: getattr(model.config, key) for key in model.config.sub_configs}
    found = {key: part._attn_implementation for key, part in parts.items() if part is not None}
    return {"": model.config._attn_implementation, **found}


def _register(kind: str) -> None:
    AttentionInterface.register(NAMES[kind], _watched(kind))
    AttentionMaskInterface.register(NAMES[kind], ALL_MASK_ATTENTION_FUNCTIONS[kind])


def _watched(kind: str) -> Callable[..., tuple[torch.Tensor, torch.Tensor | None]]:
    def attend(
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **options: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        wrapped, observer = _wrapped(kind, module), _observer.get()
        if observer is None:
            return wrapped(module, query, key, value, attention_mask, **options)
        call = AttentionCall(kind, module, query, key, value, attention_mask, options)
        observer.before(call)
        output, weights = wrapped(module, query, key, value, attention_mask, **options)
        observer.after(call, output)
        return output, weights

    return attend


def _wrapped(kind: str, module: nn.Module) -> Callable[..., tuple[torch.Tensor, torch.Tensor | None]]:
    """The function that `module` itself would have called: its file may override it, and has the eager one."""
    file = sys.modules[type(module).__module__]
    if kind == "eager":
        function = getattr(file, "eager_attention_forward", None)
        if function is None:
            raise CaptureError(f"{type(module).__name__} has no eager attention function; take --attention sdpa")
        return function
    return getattr(file, "ALL_ATTENTION_FUNCTIONS", ALL_ATTENTION_FUNCTIONS)[kind]
