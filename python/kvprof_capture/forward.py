"""One forward pass per prompt, in which every layer is written as soon as its attention was asked for."""

from __future__ import annotations

import inspect

import torch
from transformers import PreTrainedModel

from .attention import AttentionCall, Observer, observing
from .errors import CaptureError
from .facts import check_mask, read_facts
from .probe import PROBE_TOKENS, Layer, Probe, host_copy
from .prompts import Prompt
from .sinks import Sink


class Recorder:
    """The observer that hands every layer of one prompt to a sink, in order, and keeps none."""

    def __init__(self, sink: Sink, prompt: int, layers: list[Layer], window: int | None) -> None:
        self._sink = sink
        self._prompt = prompt
        self._layers = layers
        self._window = window
        self.seen = 0

    def before(self, call: AttentionCall) -> None:
        """Writes what went into attention, before it is computed: its memory is free by then."""
        facts = read_facts(call)
        where = f"layer {facts.layer} ({type(call.module).__name__})"
        if facts.layer != self.seen or self.seen == len(self._layers):
            raise CaptureError(f"{where} came where layer {self.seen} of {len(self._layers)} was expected")
        known = self._layers[self.seen].facts
        if facts != known:
            raise CaptureError(f"{where} is not what it was for the first tokens: {facts}, not {known}")
        self.seen += 1
        tokens = call.key.shape[2]
        rows = tokens if self._window is None else min(self._window, tokens)
        check_mask(call, facts, rows)
        tensors = {
            "queries": host_copy(call.query[0, :, tokens - rows :]),
            "keys": host_copy(call.key[0]),
            "values": host_copy(call.value[0]),
        }
        for name, tensor in tensors.items():
            if not tensor.isfinite().all():
                raise CaptureError(f"{where} has {name} that are infinite or not numbers in {facts.dtype}")
        self._sink.layer(self._prompt, facts.layer, tensors)

    def after(self, call: AttentionCall, output: torch.Tensor) -> None:
        """Nothing of the output is captured."""


def probe_layers(model: PreTrainedModel, prompt: Prompt) -> list[Layer]:
    """What every layer is, from the first tokens of a prompt."""
    probe = Probe()
    try:
        _forward(model, Prompt(prompt.id, prompt.ids[:PROBE_TOKENS]), probe)
    finally:
        probe.release()
    return probe.layers(model.config.get_text_config().num_hidden_layers)


def record(
    model: PreTrainedModel, prompt: Prompt, sink: Sink, *, number: int, layers: list[Layer], window: int | None
) -> None:
    """Writes all layers of one prompt."""
    recorder = Recorder(sink, number, layers, window)
    _forward(model, prompt, recorder)
    if recorder.seen != len(layers):
        raise CaptureError(f"prompt {prompt.id!r} ended after {recorder.seen} of {len(layers)} layers")


def _forward(model: PreTrainedModel, prompt: Prompt, observer: Observer) -> None:
    embedding = model.get_input_embeddings().weight
    # Weights that accelerate keeps elsewhere have no device; its hooks move the ids to where they are needed.
    device = torch.device("cpu") if embedding.is_meta else embedding.device
    ids = torch.tensor([prompt.ids], device=device)
    arguments = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
    # A mask of ones says that nothing is padded or packed, so that sdpa needs no matrix of tokens by tokens.
    run: torch.nn.Module = model
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        arguments["logits_to_keep"] = 1
    else:
        # Logits of every token would be larger than all that is captured.
        run = model.base_model
    try:
        with torch.no_grad(), observing(observer):
            run(**arguments)
    except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError) as error:
        raise CaptureError(
            f"the model fails at {len(prompt.ids)} tokens of prompt {prompt.id!r}: {type(error).__name__}: {error}"
        ) from error
