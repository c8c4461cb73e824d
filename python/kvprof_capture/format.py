"""The capture format: names of files, `capture.json`, and what a folder may hold before a capture begins.

Nothing here needs torch, so that all of it can be checked before a model is loaded.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import CaptureError

FORMAT = "kvprof-capture"
VERSION = 1
HEADER = "capture.json"
TEMPORARY = ".tmp"

Header = dict[str, Any]


def layer_file(prompt: int, layer: int) -> str:
    """Where a prompt's layer lies in the folder."""
    return f"prompt-{prompt:05}/layer-{layer:03}.safetensors"


def output_file(layer: int) -> str:
    """Where the output projection of a layer lies in the folder."""
    return f"output-{layer:03}.safetensors"


def layer_metadata(prompt: int, layer: int) -> dict[str, str]:
    """What a file of a prompt's layer says it is."""
    return {"prompt": str(prompt), "layer": str(layer)}


def output_metadata(layer: int) -> dict[str, str]:
    """What a file of an output projection says it is."""
    return {"layer": str(layer)}


def header_line(header: Header) -> bytes:
    """`capture.json` on one line, as both the folder and the stream have it."""
    return json.dumps(header, allow_nan=False).encode() + b"\n"


def write_whole(path: Path, content: bytes) -> None:
    """Writes beside the target and renames, so that a file that is there is whole."""
    beside = path.with_name(path.name + TEMPORARY)
    beside.write_bytes(content)
    rename_whole(beside, path)


def rename_whole(beside: Path, path: Path) -> None:
    """Puts a file in its place once all of it is on the disk, so that neither a kill nor a power loss leaves half of it."""
    with beside.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(beside, path)


def header_from(text: str, where: Path) -> Header:
    """The `capture.json` in `text`, refused if it is not one of this version."""
    try:
        header = json.loads(text)
    except ValueError as error:
        raise CaptureError(f"{where} is not JSON: {error}") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise CaptureError(f'{where} is not the {HEADER} of a capture: its "format" is not "{FORMAT}"')
    if header.get("version") != VERSION:
        raise CaptureError(f"{where} has version {header.get('version')!r}; this program writes and reads {VERSION}")
    return header


def check_folder(folder: Path, *, resume: bool) -> Header | None:
    """The header of the capture that `folder` holds, None where a new one may begin.

    Asked before the model is loaded, as a folder that is in use must not cost the time of loading.
    """
    if not folder.exists() and not folder.is_symlink():
        return None
    if not folder.is_dir():
        raise CaptureError(f"{folder} is not a folder; a capture needs one of its own")
    path = folder / HEADER
    if path.is_file():
        if not resume:
            raise CaptureError(f"{folder} holds a capture; go on with it by --resume, or choose another folder")
        return header_from(path.read_text(encoding="utf-8"), path)
    # A capture that was killed while it wrote its very first file leaves this one alone.
    others = sorted(entry.name for entry in folder.iterdir() if entry.name != HEADER + TEMPORARY)
    if others:
        raise CaptureError(f"{folder} holds {others[0]} and no {HEADER}; a capture needs a folder of its own")
    return None


def check_same(found: Header, wanted: Header, folder: Path) -> None:
    """Refuses to go on with a capture whose remaining files would not be of the same kind.

    Where a digest says which weights they are, it does not matter where they were read from.
    """
    ignored = {"model.source"} if wanted["model"]["sha256"] else set()
    for key, old, new in _differences(found, wanted):
        if key not in ignored:
            raise CaptureError(
                f"{folder} holds another capture: its {key} is {_shown(old)}, this one's is {_shown(new)}; "
                "choose another folder"
            )


def _differences(found: Header, wanted: Header, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every field in which two headers differ, by its path."""
    for key in sorted(found.keys() | wanted.keys()):
        old, new = found.get(key), wanted.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{prefix}{key}.")
        elif old != new:
            yield f"{prefix}{key}", old, new


def _shown(value: Any) -> str:
    """A value as a message can hold it: prompts may have thousands of ids."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
