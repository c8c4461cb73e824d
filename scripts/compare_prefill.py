"""Times prefill and decoding of kvprof, llama.cpp and PyTorch in turns, on the same geometry and threads.

    cargo build --release
    python3 scripts/compare_prefill.py            # kvprof and llama.cpp, the wheel xllamacpp
    python3 scripts/compare_prefill.py --case smollm2-135m:2048,4096 --case qwen2.5-coder-0.5b:1024 --case any.gguf:512
    python3 scripts/compare_prefill.py --torch    # PyTorch too: downloads several gigabytes
    python3 scripts/compare_prefill.py --llama-bench build/bin/llama-bench    # a llama.cpp built here too

A case is a model, by a name of kvprof's or as a GGUF file, and its prompt lengths in tokens. All cases are timed in one
run, and the processor is named with the instruction sets that decide about products.

A wheel is compiled for many processors; to compare with a llama.cpp compiled for this one, build it from its
source (`cmake -B build -DGGML_NATIVE=ON && cmake --build build --target llama-bench`) and name its program.

Python packages go into a virtual environment that is thrown away. llama.cpp runs the same GGUF, with and
without flash attention. PyTorch (transformers, sdpa, float32) runs a model of the same geometry with random
weights: how long a product takes does not depend on its numbers. Every program is started anew in every
round, and the rounds take turns in opposite orders; medians are printed with their least and most, and each
program's time over kvprof's in the same round.

Units: prefill in seconds; decoding in tokens per second after a prompt of that length.
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

PACKAGES = {"llama": ["xllamacpp"], "torch": ["torch", "transformers", "gguf", "numpy"]}
PROGRAMS = ["kvprof", "llama.cpp", "llama.cpp flash"]
BUILT = ["llama.cpp built", "llama.cpp built flash"]
TORCH = ["PyTorch sdpa"]
NEW_TOKENS = 16
CASE = "smollm2-135m:2048,4096"
INSTRUCTION_SETS = ["avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kvprof", default="target/release/kvprof", help="the binary")
    parser.add_argument("--case", action="append", metavar="MODEL:LENGTHS", help=f"[default: {CASE}]")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--llama-bench", help="a llama-bench built for this processor, timed too")
    parser.add_argument("--torch", action="store_true", help="time PyTorch too")
    parser.add_argument("--json", action="store_true", help="print every round as JSON")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    for case in given.case or [CASE]:
        if not re.fullmatch(r".+:[1-9]\d*(,[1-9]\d*)*", case):
            parser.error(f"--case {case}: expected a model and prompt lengths, such as {CASE}")
    if min(given.threads, given.rounds) < 1:
        parser.error("--threads and --rounds must be at least 1")
    return given


def weights_of(kvprof, model):
    """The GGUF file of a model; one that kvprof knows by name is fetched first and found in the cache folder by its hash."""
    if Path(model).is_file():
        return str(Path(model))
    tiny = [kvprof, "bench", "--model", model, "--only", "prefill", "--lengths", "64", "--repeats", "1", "--quiet"]
    subprocess.run(tiny, check=True)
    inspected = subprocess.run([kvprof, "inspect", model, "--json"], check=True, capture_output=True, text=True)
    wanted = json.loads(inspected.stdout)["sha256"]
    folders = [os.environ.get("KVPROF_CACHE"), os.environ.get("XDG_CACHE_HOME"), Path.home() / ".cache"]
    for folder in filter(None, folders):
        for record in Path(folder).glob("**/*.gguf.sha256.json"):
            weights = Path(str(record).removesuffix(".sha256.json"))
            if wanted in record.read_text() and weights.is_file():
                return str(weights)
    sys.exit(f"no GGUF file of {model} was found: name the file itself with --case FILE:LENGTHS")


def cases_of(given):
    """Name, file and prompt length of everything that is timed."""
    cases = []
    for case in given.case or [CASE]:
        model, lengths = case.rsplit(":", 1)
        weights = weights_of(given.kvprof, model)
        cases += [(Path(model).name, weights, int(length)) for length in lengths.split(",")]
    return cases


def processor():
    """Name of the processor, and which of the instruction sets it has that decide about products."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    fields = {name.strip(): value.strip() for name, value in fields.items()}
    flags = fields.get("flags", fields.get("Features", "")).split()
    has = [flag for flag in INSTRUCTION_SETS if flag in flags]
    return f"{fields.get('model name', platform.machine())} with {', '.join(has) or 'none of ' + ', '.join(INSTRUCTION_SETS)}"


def environment(folder, wanted):
    venv.create(folder, with_pip=True)
    python = str(Path(folder) / "bin" / "python")
    packages = [package for kind in wanted for package in PACKAGES[kind]]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True, stdout=sys.stderr)
    listed = subprocess.run([python, "-m", "pip", "freeze"], check=True, capture_output=True, text=True)
    names = {package.lower() for package in packages}
    versions = [line for line in listed.stdout.split() if line.split("==")[0].lower() in names]
    return python, versions


def with_threads(threads):
    names = ["RAYON_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"]
    return {**os.environ, **{name: str(threads) for name in names}}


def run_kvprof(given, model, length):
    command = [given.kvprof, "bench", "--model", model, "--json", "--quiet", "--only", "prefill,decode-full"]
    command += ["--lengths", str(length), "--repeats", "1", "--steps", str(NEW_TOKENS)]
    run = subprocess.run(command, check=True, capture_output=True, text=True, env=with_threads(given.threads))
    rows = {row["workload"]: row for row in json.loads(run.stdout)["rows"]}
    decoding = rows["decode-full"]
    return rows["prefill"]["wall"]["median"], NEW_TOKENS / decoding["wall"]["median"]


def run_worker(given, python, program, model, length):
    command = [python, __file__, "--worker", program, model, str(length), str(given.threads)]
    run = subprocess.run(command, capture_output=True, text=True, env=with_threads(given.threads))
    if run.returncode != 0:
        sys.exit(f"{program} failed at {length} tokens:\n{run.stderr[-2000:]}")
    measured = json.loads(run.stdout.splitlines()[-1])
    return measured["prefill_s"], measured["tokens_per_s"]


def run_llama_bench(given, program, model, length):
    flash = "1" if program.endswith("flash") else "0"

    def tokens_per_second(*test):
        command = [given.llama_bench, "-m", model, "-t", str(given.threads), "-ngl", "0", "-r", "1", "-fa", flash]
        run = subprocess.run([*command, *test, "-o", "json"], capture_output=True, text=True)
        if run.returncode != 0:
            sys.exit(f"{program} failed at {length} tokens:\n{run.stderr[-2000:]}")
        return json.loads(run.stdout)[0]["avg_ts"]

    prefill = length / tokens_per_second("-p", str(length), "-n", "0")
    return prefill, tokens_per_second("-p", "0", "-n", str(NEW_TOKENS), "-d", str(length))


def llama_worker(program, model, length, threads):
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.n_ctx = length + NEW_TOKENS + 8
    params.n_parallel = 1
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    flash = xllamacpp.llama_flash_attn_type
    params.flash_attn_type = (
        flash.LLAMA_FLASH_ATTN_TYPE_ENABLED if program.endswith("flash") else flash.LLAMA_FLASH_ATTN_TYPE_DISABLED
    )
    server = xllamacpp.Server(params)
    ids = [100 + 7 * i % 3000 for i in range(length)]
    request = {"n_predict": NEW_TOKENS + 1, "temperature": 0, "cache_prompt": False, "ignore_eos": True}

    def timings(prompt):
        done = server.handle_completions({**request, "prompt": prompt})
        if "timings" not in done:
            raise RuntimeError(f"no timings in {done}")
        return done["timings"]

    timings(ids[:64])
    measured = timings(ids)
    if measured["prompt_n"] != length:
        raise RuntimeError(f"{measured['prompt_n']} tokens were prefilled, not {length}")
    return measured["prompt_ms"] / 1e3, measured["predicted_per_second"]


def torch_worker(model, length, threads):
    import time

    import torch
    from gguf import GGUFReader
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(threads)
    fields = GGUFReader(model).fields
    kind = fields["general.architecture"].contents()
    number = lambda name: fields[f"{kind}.{name}"].contents()
    heads = number("attention.head_count")
    has_width = f"{kind}.attention.key_length" in fields
    config = LlamaConfig(
        vocab_size=len(fields["tokenizer.ggml.tokens"].contents()),
        hidden_size=number("embedding_length"),
        intermediate_size=number("feed_forward_length"),
        num_hidden_layers=number("block_count"),
        num_attention_heads=heads,
        num_key_value_heads=number("attention.head_count_kv"),
        head_dim=number("attention.key_length") if has_width else number("embedding_length") // heads,
        attention_bias=kind == "qwen2",
        max_position_embeddings=number("context_length"),
        attn_implementation="sdpa",
    )
    network = LlamaForCausalLM(config).float().eval()
    ids = torch.tensor([[100 + 7 * i % 3000 for i in range(length)]])
    with torch.inference_mode():
        network(ids[:, :64], use_cache=True)
        start = time.perf_counter()
        out = network(ids, use_cache=True, logits_to_keep=1)
        prefill = time.perf_counter() - start
        step = lambda out: network(out.logits[:, -1:].argmax(-1), past_key_values=out.past_key_values, use_cache=True)
        out = step(out)
        start = time.perf_counter()
        for _ in range(NEW_TOKENS):
            out = step(out)
        return prefill, NEW_TOKENS / (time.perf_counter() - start)


def work(program, model, length, threads):
    measure = torch_worker if program.startswith("PyTorch") else lambda *a: llama_worker(program, *a)
    prefill, rate = measure(model, int(length), int(threads))
    print(json.dumps({"prefill_s": prefill, "tokens_per_s": rate}))


def table(rounds, programs):
    width = max(len(f"{name}, {length}") for name, length in rounds)
    print(f"{'model and tokens':<{width}}  {'program':<21} {'prefill s':>9} {'least to most':>15} {'x kvprof':>9}", end="")
    print(f"   {'tokens/s':>8} {'least to most':>15} {'x kvprof':>9}")
    middle = statistics.median
    for (name, length), of_case in rounds.items():
        for program in programs:
            own, base = of_case[program], of_case["kvprof"]
            line = f"{f'{name}, {length}':<{width}}  {program:<21}"
            for column, digits in ((0, 2), (1, 1)):
                values = [one[column] for one in own]
                ratio = middle([one[column] / other[column] for one, other in zip(own, base)])
                span = f"{min(values):.{digits}f} to {max(values):.{digits}f}"
                line += f" {middle(values):>9.{digits}f} {span:>15} {ratio:>9.2f}  "
            print(line.rstrip())


def main():
    given = arguments()
    if given.worker:
        return work(*given.worker)
    cases = cases_of(given)
    programs = PROGRAMS + (BUILT if given.llama_bench else []) + (TORCH if given.torch else [])
    with tempfile.TemporaryDirectory(prefix="compare-prefill-") as folder:
        python, versions = environment(folder, ["llama", "torch"] if given.torch else ["llama"])
        load = os.getloadavg()[0]
        rounds = {(name, length): {program: [] for program in programs} for name, _, length in cases}
        for turn in range(given.rounds):
            for name, model, length in cases:
                for program in programs if turn % 2 == 0 else reversed(programs):
                    print(f"round {turn + 1}/{given.rounds}: {program}, {name}, {length} tokens", file=sys.stderr)
                    if program == "kvprof":
                        measured = run_kvprof(given, model, length)
                    elif program in BUILT:
                        measured = run_llama_bench(given, program, model, length)
                    else:
                        measured = run_worker(given, python, program, model, length)
                    rounds[name, length][program].append(measured)
    if given.json:
        told = {"processor": processor(), "threads": given.threads, "load": load, "versions": versions}
        told["cases"] = [{"model": name, "tokens": length, "rounds": own} for (name, length), own in rounds.items()]
        print(json.dumps(told, indent=2))
    else:
        table(rounds, programs)
        print(f"\n{processor()}, {given.threads} threads, {given.rounds} rounds; {', '.join(versions)}")
        print(f"Load of the machine before the first round: {load:.1f}")


if __name__ == "__main__":
    main()
