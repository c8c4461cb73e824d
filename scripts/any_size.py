#!/usr/bin/env python3
"""Profiles prompts of models of any size and says what the process took, by the kernel's count.

    scripts/any_size.py [--kvprof BINARY] [--case MODEL:TOKENS:BOUND]... [--out FOLDER] [--memory BYTES]

A case is a model as --model takes it, the tokens of one prompt, and what the process may take in MB: `300` of all resident
memory, `300a` of anonymous memory alone, without mapped pages of the weight file, which the system may drop and read
again. Without cases the default model is profiled at 8,192 tokens within 250 MB. VmHWM is the kernel's own peak of
resident memory; of its parts the kernel keeps no peak, so that RssAnon and RssFile are read every 10 ms.

Exit code 1 if a bound is broken or a profile fails. Needs Linux and nothing but Python.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time

FIELDS = ("VmHWM", "RssAnon", "RssFile")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kvprof", default="target/release/kvprof")
    parser.add_argument("--case", action="append", metavar="MODEL:TOKENS:BOUND")
    parser.add_argument("--memory", help="passed on to kvprof profile")
    parser.add_argument("--out", type=pathlib.Path, help="folder for profiles; a temporary one by default")
    return parser.parse_args()


def parsed(case):
    """Model, tokens, bound in MB, and whether it is of anonymous memory alone."""
    found = re.fullmatch(r"(.+):(\d+):(\d+)(a?)", case)
    if not found:
        sys.exit(f"--case {case}: expected MODEL:TOKENS:BOUND, such as big.gguf:2048:1200a")
    model, tokens, bound, anonymous = found.groups()
    return model, int(tokens), int(bound), bool(anonymous)


def megabytes(process):
    """What the kernel counts of a process now, in MB; nothing once it is gone."""
    try:
        text = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return {}
    lines = (line.split(":") for line in text.splitlines())
    return {name: int(rest.split()[0]) * 1024 / 1e6 for name, rest in lines if name in FIELDS}


def watched(command):
    """Exit code, seconds and peaks of a command."""
    peaks, began = dict.fromkeys(FIELDS, 0.0), time.monotonic()
    process = subprocess.Popen(command)
    while process.poll() is None:
        for name, now in megabytes(process).items():
            peaks[name] = max(peaks[name], now)
        time.sleep(0.01)
    return process.returncode, time.monotonic() - began, peaks


def main():
    options = arguments()
    cases = [parsed(case) for case in options.case or ["smollm2-135m:8192:250"]]
    failed = False
    with tempfile.TemporaryDirectory() as scratch:
        out = options.out or pathlib.Path(scratch)
        print(f"{'model':<28}{'tokens':>8}{'seconds':>9}{'peak':>9}{'anonymous':>11}{'mapped':>9}  bound")
        for number, (model, tokens, bound, anonymous) in enumerate(cases):
            prompt = pathlib.Path(scratch) / f"{number}.jsonl"
            prompt.write_text(json.dumps({"ids": [100 + i * 37 % 5000 for i in range(tokens)]}) + "\n")
            profile = out / f"case-{number}"
            command = [options.kvprof, "profile", "--model", model, "--data", str(prompt), "--quiet"]
            command += ["--out", str(profile), "--device", "cpu"]
            command += ["--memory", options.memory] if options.memory else []
            code, seconds, peaks = watched(command)
            taken = peaks["RssAnon"] if anonymous else peaks["VmHWM"]
            kept = code == 0 and taken <= bound
            failed |= not kept
            verdict = "kept" if kept else f"failed with {code}" if code else "BROKEN"
            name = pathlib.Path(model).name
            of_what = "anonymous" if anonymous else "in all"
            print(
                f"{name:<28}{tokens:>8}{seconds:>9.1f}{peaks['VmHWM']:>6.0f} MB{peaks['RssAnon']:>8.0f} MB"
                f"{peaks['RssFile']:>6.0f} MB  {bound} MB {of_what}: {verdict}",
                flush=True,
            )
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
