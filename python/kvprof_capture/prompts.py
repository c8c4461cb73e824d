"""Prompts: a file of lines with token ids or text, or the prompts of another capture."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import CaptureError
from .format import FORMAT, header_from


@dataclass(frozen=True)
class Prompt:
    """The token ids of one prompt and the name that results give it."""

    id: str
    ids: list[int]


@dataclass(frozen=True)
class Entry:
    """One prompt as it was given: token ids, or text that a tokenizer has yet to read."""

    id: str
    content: list[int] | str
    where: str


@dataclass(frozen=True)
class PromptFile:
    """The prompts of a file, with what names the data in the capture."""

    name: str
    sha256: str
    entries: list[Entry]


def read_prompts(path: Path, limit: int | None = None) -> PromptFile:
    """The first `limit` prompts of a JSONL file or of a capture's `capture.json`."""
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise CaptureError(f"cannot read the prompts of {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise CaptureError(f"{path} is not UTF-8: {error}") from error
    name = path.stem
    if _is_capture(text):
        header = header_from(text, path)
        name = _mapping(header.get("data"), f"the data of {path}").get("name", name)
        given = header.get("prompts")
        if not isinstance(given, list):
            raise CaptureError(f"{path} has no list of prompts")
        lines = [(f"prompt {n} of {path}", n, prompt) for n, prompt in enumerate(given[:limit])]
    else:
        lines = _jsonl(text, path, limit)
    entries = entries_of((where, str(number), given) for where, number, given in lines)
    if not entries:
        raise CaptureError(f"{path} holds no prompt")
    return PromptFile(str(name), hashlib.sha256(content).hexdigest(), entries)


def entries_of(given: Iterable[tuple[str, str, Any]]) -> list[Entry]:
    """Entries from `(where, default id, value)`; a value is text, token ids or an object with `prompt` or `ids`."""
    entries: list[Entry] = []
    seen: dict[str, str] = {}
    for where, default, value in given:
        entry = _entry(where, default, value)
        if entry.id in seen:
            raise CaptureError(f"{where} has the id {entry.id!r} of {seen[entry.id]}; ids name prompts in results")
        seen[entry.id] = where
        entries.append(entry)
    return entries


def tokenized(entries: Sequence[Entry], tokenizer: Any | None, *, chat: bool) -> list[Prompt]:
    """Prompts as token ids; ids that were given are used as they are, whether or not `chat` wraps texts."""
    return [Prompt(entry.id, _ids(entry, tokenizer, chat=chat)) for entry in entries]


def check_ids(prompts: Sequence[Prompt], *, vocabulary: int, max_tokens: int | None) -> None:
    """Refuses ids that the model has no embedding of, and prompts longer than the user allowed: none is ever cut."""
    for prompt in prompts:
        outside = next((i for i in prompt.ids if not 0 <= i < vocabulary), None)
        if outside is not None:
            raise CaptureError(f"prompt {prompt.id!r} has the token {outside}; the vocabulary is 0 to {vocabulary - 1}")
        if max_tokens is not None and len(prompt.ids) > max_tokens:
            raise CaptureError(
                f"prompt {prompt.id!r} has {len(prompt.ids)} tokens, more than --max-prompt-tokens {max_tokens}; "
                "shorten it or raise the bound, prompts are never cut"
            )


def _is_capture(text: str) -> bool:
    """Whether all of `text` is one object that says it is a capture; a JSONL file fails at its second line."""
    try:
        whole = json.loads(text)
    except ValueError:
        return False
    return isinstance(whole, dict) and whole.get("format") == FORMAT


def _jsonl(text: str, path: Path, limit: int | None) -> list[tuple[str, int, Any]]:
    """The objects of the first `limit` lines that are not blank, with the number of their line from 0."""
    found: list[tuple[str, int, Any]] = []
    # Only line feeds end lines: texts may hold other separators unescaped.
    for number, line in enumerate(text.split("\n")):
        if limit is not None and len(found) == limit:
            break
        if not line.strip():
            continue
        where = f"line {number + 1} of {path}"
        try:
            value = json.loads(line)
        except ValueError as error:
            raise CaptureError(f"{where} is not JSON: {error}") from error
        found.append((where, number, _mapping(value, where)))
    return found


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise CaptureError(f"{where} is not a JSON object")
    return value


def _entry(where: str, default: str, value: Any) -> Entry:
    if isinstance(value, Mapping):
        name = _name(value.get("id", default), where)
        if value.get("ids") is not None:
            return Entry(name, _checked_ids(value["ids"], where), where)
        if value.get("prompt") is not None:
            return Entry(name, _checked_text(value["prompt"], where), where)
        raise CaptureError(f'{where} has neither "ids" nor "prompt"')
    if isinstance(value, str):
        return Entry(default, _checked_text(value, where), where)
    return Entry(default, _checked_ids(value, where), where)


def _name(value: Any, where: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise CaptureError(f'{where} has an "id" that is neither text nor a whole number')
    name = str(value)
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise CaptureError(f'{where} has an "id" that is not Unicode text: {error}') from error
    return name


def _checked_text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise CaptureError(f'{where} has a "prompt" that is not text')
    if not value:
        raise CaptureError(f"{where} has an empty prompt")
    return value


def _checked_ids(value: Any, where: str) -> list[int]:
    # Tensors and arrays give whole numbers of Python by this.
    value = value.tolist() if hasattr(value, "tolist") else value
    whole = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    if not whole or any(isinstance(i, bool) or not isinstance(i, int) for i in value):
        raise CaptureError(f'{where} has "ids" that are not a list of whole numbers')
    if not value:
        raise CaptureError(f"{where} has an empty prompt")
    return list(value)


def _ids(entry: Entry, tokenizer: Any | None, *, chat: bool) -> list[int]:
    if not isinstance(entry.content, str):
        return entry.content
    if tokenizer is None:
        raise CaptureError(f"{entry.where} is text, which needs a tokenizer")
    encode: Callable[[str], list[int]] = _chat(tokenizer) if chat else lambda text: tokenizer(text)["input_ids"]
    try:
        ids = list(encode(entry.content))
    except Exception as error:  # Templates and tokenizers raise what their authors chose.
        raise CaptureError(f"{entry.where} cannot be tokenized: {error}") from error
    if not ids:
        raise CaptureError(f"{entry.where} has an empty prompt: its text has no token")
    return ids


def _chat(tokenizer: Any) -> Callable[[str], list[int]]:
    if getattr(tokenizer, "chat_template", None) is None:
        raise CaptureError("--chat needs a chat template; the model's tokenizer has none")

    def encode(text: str) -> list[int]:
        message = [{"role": "user", "content": text}]
        return tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=True, return_dict=False)

    return encode
