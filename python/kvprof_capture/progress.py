"""What is told while a capture runs: a bar on a terminal that can show one, else a line per prompt."""

from __future__ import annotations

import sys
from typing import Any

from .prompts import Prompt


class Reporter:
    """Tells on standard error which prompt is being captured, or nothing at all."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: Any | None = None

    def __call__(self, done: int, total: int, prompt: Prompt | None) -> None:
        """Says that `prompt` begins after `done` of `total`."""
        if self._quiet:
            return
        bar = self._bar or self._new_bar(total)
        if bar is not None:
            bar.update(done - bar.n)
            if prompt is not None:
                bar.set_postfix_str(f"{prompt.id}, {len(prompt.ids)} tokens")
        elif prompt is not None:
            print(f"prompt {done + 1} of {total}: {prompt.id}, {len(prompt.ids)} tokens", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leaves the terminal as it was."""
        if self._bar is not None:
            self._bar.close()

    def _new_bar(self, total: int) -> Any | None:
        if not sys.stderr.isatty():
            return None
        try:
            from tqdm import tqdm
        except ImportError:
            return None
        self._bar = tqdm(total=total, unit="prompt", file=sys.stderr)
        return self._bar
