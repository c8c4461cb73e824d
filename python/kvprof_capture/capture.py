"""The function that captures: it checks all it can without torch, looks at the model once, then runs every prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from .errors import CaptureError
from .format import FORMAT, VERSION, Header, check_folder
from .prompts import Prompt, check_ids, entries_of, tokenized
from .version import __version__

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from .probe import Layer

# Told the number of prompts that are done, of all, and the one that comes next, None at the end.
Progress = Callable[[int, int, Prompt | None], None]


def capture(
    model: PreTrainedModel,
    prompts: Iterable[Any],
    out: str | Path | BinaryIO,
    *,
    window: int | None = 32,
    name: str | None = None,
    source: str | None = None,
    sha256: str = "",
    data_name: str = "prompts",
    data_sha256: str = "",
    tokenizer: Any | None = None,
    chat: bool = False,
    attention: str = "sdpa",
    max_prompt_tokens: int | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> None:
    """Captures what a causal language model's attention gets of every prompt.

    `prompts` are lists of token ids, texts (which need `tokenizer`, and are wrapped in its chat template with `chat`),
    or objects with `ids` or `prompt` and, where they have one, `id`. `out` is a folder, or a binary stream. `window` is
    how many of each prompt's last queries are kept, None for all. The model computes as it did before; what its
    attention is set to is put back at the end.

    Raises `CaptureError` for all that cannot be captured, and `OSError` where `out` cannot be written.
    """
    from .attention import NAMES, captured_attention
    from .forward import probe_layers, record
    from .sinks import Folder, Sink, Stream

    if attention not in NAMES:
        raise CaptureError(f"attention {attention!r} is not known; {' and '.join(NAMES)} are")
    if window is not None and window < 1:
        raise CaptureError(f"a window of {window} rows is too small; take 1 or more, or None for all")
    if isinstance(prompts, str | bytes):
        raise CaptureError("prompts are a list; put the one text into a list")
    given = ((f"prompt {number}", str(number), prompt) for number, prompt in enumerate(prompts))
    wanted = tokenized(entries_of(given), tokenizer, chat=chat)
    if not wanted:
        raise CaptureError("there is no prompt to capture")
    _check_model(model)
    check_ids(wanted, vocabulary=model.get_input_embeddings().num_embeddings, max_tokens=max_prompt_tokens)
    sink: Sink
    if isinstance(out, str | Path):
        check_folder(Path(out), resume=resume)
        sink = Folder(Path(out), resume=resume)
    else:
        sink = Stream(out)

    with captured_attention(model, attention):
        layers = probe_layers(model, wanted[0])
        shown = source if source is not None else model.config.name_or_path
        named = {"name": name or Path(shown).name or type(model).__name__, "source": shown, "sha256": sha256}
        data = {"name": data_name, "sha256": data_sha256}
        header = {
            **_made_by(layers, attention),
            "window": window,
            "model": {**named, **_geometry(model, layers)},
            "data": data,
            "prompts": [{"id": prompt.id, "ids": prompt.ids} for prompt in wanted],
        }
        sink.begin(header, [layer.output for layer in layers])
        for number, prompt in enumerate(wanted):
            if progress:
                progress(number, len(wanted), prompt)
            if not sink.holds(number):
                record(model, prompt, sink, number=number, layers=layers, window=window)
        if progress:
            progress(len(wanted), len(wanted), None)


def _check_model(model: PreTrainedModel) -> None:
    """Refuses what is no causal language model of transformers."""
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel):
        raise CaptureError(f"{type(model).__name__} is no model of transformers; merge adapters and unwrap it first")
    if model.config.is_encoder_decoder:
        raise CaptureError(f"{type(model).__name__} has an encoder and a decoder; captures hold decoders alone")


def _made_by(layers: list[Layer], attention: str) -> Header:
    """What the file is, and what computed the tensors."""
    import torch
    import transformers

    # In the order of layers, each once.
    devices = dict.fromkeys(layer.facts.device for layer in layers)
    return {
        "format": FORMAT,
        "version": VERSION,
        "byte_order": "little",
        # The function of attention is part of it: its rounding is in every later layer.
        "made_by": f"kvprof_capture {__version__}, transformers {transformers.__version__}, "
        f"torch {torch.__version__}, {attention} attention",
        "device": ", ".join(devices),
        "dtype": layers[0].facts.dtype,
    }


def _geometry(model: PreTrainedModel, layers: list[Layer]) -> Header:
    """What a reader needs of the model itself."""
    first = layers[0].facts
    return {
        "architecture": model.config.get_text_config().model_type,
        "num_heads": first.num_heads,
        "num_kv_heads": first.num_kv_heads,
        "head_dim": first.head_dim,
        "hidden_size": first.hidden_size,
        "layers": [{"window": layer.facts.window, "scale": layer.facts.scale} for layer in layers],
    }
