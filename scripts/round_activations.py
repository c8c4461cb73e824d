#!/usr/bin/env python3
"""Captures a model of transformers whose linear layers see rounded activations, to hold `--products` against.

    PYTHONPATH=python scripts/round_activations.py LEVELS MODEL --prompts FILE --dtype float32 --out FOLDER [..]

LEVELS is 32767 for what i16 does and 127 for i8: every 32 activations are rounded to the nearest of so many levels on either
side of zero, of the largest of them. Everything behind it goes to `python -m kvprof_capture` as it stands; `kvprof measure`
makes a profile of the capture, `kvprof compare` holds it against another.
"""

import sys

import torch

GROUP = 32


def rounded(x, levels):
    groups = x.float().unflatten(-1, (-1, GROUP))
    scale = groups.abs().amax(-1, keepdim=True) / levels
    codes = torch.where(scale > 0, groups / scale, 0).round()
    return (codes * scale).flatten(-2).to(x.dtype)


def main():
    if len(sys.argv) < 3 or not sys.argv[1].isdecimal() or int(sys.argv[1]) == 0:
        sys.exit(__doc__)
    levels = int(sys.argv.pop(1))
    plain = torch.nn.Linear.forward
    torch.nn.Linear.forward = lambda layer, x: plain(layer, rounded(x, levels))
    from kvprof_capture.__main__ import main as capture

    return capture()


if __name__ == "__main__":
    sys.exit(main())
