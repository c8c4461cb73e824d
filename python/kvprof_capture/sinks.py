"""Where a capture goes: a folder of files, or a stream that another program reads while it is written."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import save, save_file

from .errors import CaptureError
from .format import (
    HEADER,
    TEMPORARY,
    Header,
    check_folder,
    check_same,
    header_line,
    layer_file,
    layer_metadata,
    output_file,
    output_metadata,
    rename_whole,
    write_whole,
)

Outputs = Sequence[Callable[[], torch.Tensor]]


class Sink(Protocol):
    """What takes a capture, one layer at a time."""

    def begin(self, header: Header, outputs: Outputs) -> None:
        """Takes what holds for all prompts; `outputs` gives W_o of every layer when it is called."""

    def holds(self, prompt: int) -> bool:
        """Whether every layer of a prompt is there already."""

    def layer(self, prompt: int, layer: int, tensors: dict[str, torch.Tensor]) -> None:
        """Takes queries, keys and values of one layer; nothing of them is kept."""


class Folder:
    """A folder in which every file that is there is whole."""

    def __init__(self, path: Path, *, resume: bool) -> None:
        self._path = path
        self._resume = resume
        self._layers = 0

    def begin(self, header: Header, outputs: Outputs) -> None:
        """Writes `capture.json`, then every W_o that is not there."""
        self._layers = len(outputs)
        found = check_folder(self._path, resume=self._resume)
        if found is None:
            self._path.mkdir(parents=True, exist_ok=True)
            write_whole(self._path / HEADER, header_line(header))
        else:
            check_same(found, header, self._path)
        for layer, output in enumerate(outputs):
            path = self._path / output_file(layer)
            if not path.is_file():
                _save_whole({"output": output()}, path, output_metadata(layer))

    def holds(self, prompt: int) -> bool:
        """Whether every layer of a prompt is there already."""
        return all((self._path / layer_file(prompt, layer)).is_file() for layer in range(self._layers))

    def layer(self, prompt: int, layer: int, tensors: dict[str, torch.Tensor]) -> None:
        """Writes one layer beside its place and renames it."""
        path = self._path / layer_file(prompt, layer)
        path.parent.mkdir(exist_ok=True)
        _save_whole(tensors, path, layer_metadata(prompt, layer))


class Stream:
    """A stream that a reader measures while the model runs: every layer comes with its W_o, and nothing is kept."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._outputs: Outputs = ()

    def begin(self, header: Header, outputs: Outputs) -> None:
        """Writes `capture.json` on one line."""
        self._outputs = outputs
        self._write(header_line(header))

    def holds(self, prompt: int) -> bool:
        """Nothing that was streamed can be gone on with."""
        return False

    def layer(self, prompt: int, layer: int, tensors: dict[str, torch.Tensor]) -> None:
        """Writes one layer with its W_o as one safetensors file."""
        whole = {**tensors, "output": self._outputs[layer]()}
        content = save(whole, layer_metadata(prompt, layer))
        start = _with_ordered_metadata(content)
        self._write(start)
        self._write(memoryview(content)[len(start) :])

    def _write(self, content: bytes | memoryview) -> None:
        # Unbuffered files may take less than they are given.
        left = memoryview(content)
        while left:
            left = left[self._stream.write(left) :]
        # The reader need not wait for the next layer to see this one whole.
        self._stream.flush()


def _save_whole(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
    beside = path.with_name(path.name + TEMPORARY)
    try:
        save_file(tensors, beside, metadata)
        with beside.open("r+b") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            start = _with_ordered_metadata(struct.pack("<Q", length) + file.read(length))
            file.seek(0)
            file.write(start)
        # safetensors makes files that others cannot read, whatever the user's mask says.
        beside.chmod(0o666 & ~_mask())
        rename_whole(beside, path)
    except SafetensorError as error:
        beside.unlink(missing_ok=True)
        raise CaptureError(f"cannot write {path}: {error}") from error
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _mask() -> int:
    """The user's mask, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _with_ordered_metadata(content: bytes) -> bytes:
    """Length and header of a safetensors file with its metadata in order.

    safetensors writes metadata in an order of chance; a capture that was gone on with has the bytes of any other.
    """
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    # The same text in another order is as long as it was; spaces at its end are what alignment had put there.
    ordered = json.dumps(header, separators=(",", ":")).encode().ljust(length)
    assert len(ordered) == length, "a safetensors header that is longer in order"
    return content[:8] + ordered
