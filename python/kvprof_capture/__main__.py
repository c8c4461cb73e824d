"""The command line: `python -m kvprof_capture MODEL --prompts FILE (--out FOLDER | --stream)`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from .capture import capture
from .errors import CaptureError
from .format import check_folder
from .identity import model_sha256
from .progress import Reporter
from .prompts import PromptFile, read_prompts
from .version import __version__

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROGRAM = "kvprof_capture"
LONGEST_MESSAGE = 400


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; gives the exit code."""
    options = _parser().parse_args(arguments)
    if options.device is not None and options.device_map is not None:
        _parser().error("--device and --device-map say the same thing; give one")
    # Whatever a library prints must not get into the stream.
    stream = _standard_output() if options.stream else None
    try:
        _run(options, stream)
    except BrokenPipeError:
        return _failed("the reader closed the stream before the capture was whole")
    except (CaptureError, OSError) as error:
        return _failed(str(error))
    except KeyboardInterrupt:
        return _failed("interrupted; --resume goes on with a folder", code=130)
    return 0


def _run(options: argparse.Namespace, stream: BinaryIO | None) -> None:
    prompts = read_prompts(options.prompts, options.limit)
    if options.out is not None:
        check_folder(options.out, resume=options.resume)
    model, tokenizer = _load(options, prompts)
    source = options.model if options.gguf_file is None else f"{options.model}/{options.gguf_file}"
    source = source if options.revision is None else f"{source}@{options.revision}"
    reporter = Reporter(quiet=options.quiet)
    try:
        capture(
            model,
            [{"id": entry.id, _key(entry.content): entry.content} for entry in prompts.entries],
            options.out if stream is None else stream,
            window=options.window,
            name=options.name or _name(options),
            source=source,
            sha256=model_sha256(options.model, options.gguf_file),
            data_name=prompts.name,
            data_sha256=prompts.sha256,
            tokenizer=tokenizer,
            chat=options.chat,
            attention=options.attention,
            max_prompt_tokens=options.max_prompt_tokens,
            resume=options.resume,
            progress=reporter,
        )
    finally:
        reporter.close()


def _load(options: argparse.Namespace, prompts: PromptFile) -> tuple[PreTrainedModel, Any | None]:
    """The model, and its tokenizer where a prompt is text."""
    if options.quiet:
        # Reading GGUF shows a bar that transformers' own switch does not reach; tqdm asks as it is imported.
        os.environ["TQDM_DISABLE"] = "1"
    import torch
    import transformers

    if options.quiet:
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
    where: dict[str, Any] = {}
    if options.revision is not None:
        where["revision"] = options.revision
    if options.gguf_file is not None:
        where["gguf_file"] = options.gguf_file
    dtype = options.dtype if options.dtype == "auto" else getattr(torch, options.dtype)
    try:
        # A device that is not there is told before weights are read.
        device = torch.empty(0, device=options.device or "cpu").device
        needed = any(isinstance(entry.content, str) for entry in prompts.entries)
        tokenizer = transformers.AutoTokenizer.from_pretrained(options.model, **where) if needed else None
        if options.device_map is not None:
            where["device_map"] = options.device_map
        model = transformers.AutoModelForCausalLM.from_pretrained(
            options.model, dtype=dtype, attn_implementation=options.attention, **where
        )
        return (model if options.device_map is not None else model.to(device)), tokenizer
    except Exception as error:  # Loading raises what each library below it chose.
        raise CaptureError(f"cannot load {options.model}: {error}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="Capture what kvprof measures of a transformers model's attention."
    )
    parser.add_argument("model", metavar="MODEL", help="a folder or a name on the Hugging Face hub")
    parser.add_argument(
        "--prompts",
        metavar="FILE",
        type=Path,
        required=True,
        help='JSONL with "ids" or "prompt" and, where wanted, "id"; or the capture.json of another capture',
    )
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--out", metavar="FOLDER", type=Path, help="write a capture folder")
    target.add_argument("--stream", action="store_true", help="write the capture to standard output")
    parser.add_argument(
        "--window", metavar="N", type=_window, default=32, help="last queries of each prompt to keep, or all (32)"
    )
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16", "float16"), default="auto")
    parser.add_argument("--device", help="where to compute: cpu, cuda, ... (cpu)")
    parser.add_argument("--device-map", metavar="MAP", help="how accelerate spreads the model: auto, balanced, ...")
    parser.add_argument("--attention", choices=("sdpa", "eager"), default="sdpa", help="what computes attention (sdpa)")
    parser.add_argument("--limit", metavar="N", type=_positive, help="take the first N prompts")
    parser.add_argument("--max-prompt-tokens", metavar="N", type=_positive, help="refuse longer prompts")
    parser.add_argument("--chat", action="store_true", help="wrap texts in the chat template, as one user's message")
    parser.add_argument("--revision", metavar="R", help="revision on the hub")
    parser.add_argument("--gguf-file", metavar="F", help="the GGUF file inside MODEL to read")
    parser.add_argument("--name", help="the model's name in figures")
    parser.add_argument("--resume", action="store_true", help="go on with a folder that was begun")
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors")
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def _window(text: str) -> int | None:
    return None if text == "all" else _positive(text)


# What argparse names in "invalid ... value".
_positive.__name__ = "whole number"
_window.__name__ = "window (a whole number or all)"


def _key(content: list[int] | str) -> str:
    return "prompt" if isinstance(content, str) else "ids"


def _name(options: argparse.Namespace) -> str:
    return Path(options.gguf_file).stem if options.gguf_file is not None else Path(options.model).resolve().name


def _standard_output() -> BinaryIO:
    """The stream to write to; what else is printed from here on goes to standard error."""
    own = os.fdopen(os.dup(1), "wb")
    sys.stdout.flush()
    os.dup2(2, 1)
    return own


def _failed(message: str, code: int = 1) -> int:
    line = " ".join(message.split())
    if len(line) > LONGEST_MESSAGE:
        line = f"{line[: LONGEST_MESSAGE - 3]}..."
    print(f"{PROGRAM}: error: {line}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
