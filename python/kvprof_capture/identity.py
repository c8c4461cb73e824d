"""The digest of a model on disk, as kvprof itself counts it: captures and profiles name the same weights alike."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
DEFINING = (
    "config.json",
    "tokenizer.json",
    "generation_config.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)


def model_sha256(model: str, gguf_file: str | None) -> str:
    """SHA-256 of a GGUF file or of a local safetensors folder; empty for what is not here under that name."""
    folder = Path(model)
    if gguf_file is not None:
        return _file_sha256(folder / gguf_file) if (folder / gguf_file).is_file() else ""
    weights = _weights(folder)
    if not weights:
        return ""
    names = [*weights, *(name for name in DEFINING if (folder / name).is_file())]
    # As `sha256sum FILES | LC_ALL=C sort | sha256sum` prints it in the folder.
    lines = sorted(f"{_file_sha256(folder / name)}  {name}\n" for name in names)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _weights(folder: Path) -> list[str]:
    """The index and the shards that it names, or the one file; nothing where the folder is not whole."""
    if (folder / INDEX).is_file():
        try:
            shards = sorted(set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError):
            return []
        names = [INDEX, *shards]
    else:
        names = [SINGLE]
    return names if all((folder / name).is_file() for name in names) else []


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
