"""Joins what gpu_check.sh left in a folder into one table and gpu_check.json.

    python3 scripts/gpu_table.py gpu-check
"""

import json
import sys
from pathlib import Path


def read(folder, name):
    try:
        return json.loads((folder / f"{name}.json").read_text())
    except (OSError, ValueError):
        return None


def main():
    folder = Path(sys.argv[1])
    steps = [line.split() for line in (folder / "steps.txt").read_text().splitlines()]
    failed = [name for name, status, _ in steps if status != "0"]
    failed += strayed({name: read(folder, name) for name, status, _ in steps if status == "0"})
    gpu = (folder / "gpu.txt").read_text().strip() or "unknown GPU"
    found = {name: read(folder, name) for name, status, _ in steps if status == "0"}
    seconds = sum(int(took) for _, _, took in steps)
    summary = {"gpu": gpu, "failed": failed, "seconds": seconds, "results": found}
    (folder / "gpu_check.json").write_text(json.dumps(summary, indent=2) + "\n")

    print(f"{gpu}; {seconds} s")
    print("failed: " + (", ".join(failed) if failed else "nothing") + "\n")
    compared(found)
    texts(found)
    timings(found)
    print(f"\nEverything: {folder / 'gpu_check.json'}; what programs said: {folder / 'log.txt'}")
    return 1 if failed else 0


def strayed(found):
    """What differs by more than float32 sums in another order explain."""
    columns = (found.get("compare-gpu-f32") or {}).get("columns", [])
    whole = [c for c in columns if c["column"].startswith(("mba_last_", "mba_pooled_"))]
    far = [f"{c['table']}.{c['column']}" for c in whole if c["largest"] > 1 or c["equal"] < 0.98 * c["rows"]]
    texts = ["greedy text"] if same_text(found, "text") is False else []
    return far + texts


def same_text(found, kind):
    both = [(found.get(f"{kind}-{device}") or {}).get("text") for device in ("cpu", "gpu")]
    return None if None in both else both[0] == both[1]


def compared(found):
    wanted = ["mba_last_90", "mba_pooled_90", "mba_rows_90", "lmba_pooled_90", "lmbo_pooled_90_first"]
    print(f"{'profile against CPU f32':<26}{'of':<10}{'column':<22}{'rows':>7}{'equal':>8}{'mean':>10}{'|diff|':>10}{'largest':>9}")
    for name in ("gpu-f32", "gpu-bf16"):
        result = found.get(f"compare-{name}")
        for row in (result or {}).get("columns", []):
            if row["column"] in wanted:
                equal = f"{100 * row['equal'] / row['rows']:.1f} %"
                print(
                    f"{name:<26}{row['table']:<10}{row['column']:<22}{row['rows']:>7}{equal:>8}{row['mean']:>10.3f}"
                    f"{row['mean_absolute']:>10.4f}{row['largest']:>9.3f}"
                )


def texts(found):
    for kind in ("text", "cut"):
        both = [(found.get(f"{kind}-{device}") or {}).get("text") for device in ("cpu", "gpu")]
        if None not in both:
            verdict = "equal" if both[0] == both[1] else f"differ: {both[0]!r} and {both[1]!r}"
            print(f"{'greedy text, f32' if kind == 'text' else 'the same, cut to 128':<26}CPU and GPU {verdict}")


def timings(found):
    print(f"\n{'dtype':<7}{'length':>7}  {'workload':<13}{'time':>12}{'ratio':>8}{'of limit':>10}{'PyTorch':>12}")
    torch = {row["length"]: row for row in (found.get("torch") or {}).get("rows", [])}
    for dtype in ("f32", "bf16"):
        report = found.get(f"bench-{dtype}")
        for row in (report or {}).get("rows", []):
            rates = row.get("rates") or {}
            decodes = rates.get("decodes")
            steps = report["steps"]
            wall = row["wall"]["median"]
            time = f"{wall / steps * 1e3:.2f} ms" if decodes else f"{wall * 1e3:.0f} ms"
            share = rates.get("share_of_limit")
            share = "-" if share is None else f"{100 * share:.0f} %"
            beside = torch.get(row["length"]) if dtype == "bf16" else None
            other = "-"
            if beside and row["workload"] == "prefill":
                other = f"{beside['prefill_s'] * 1e3:.0f} ms"
            if beside and row["workload"] == "decode-full":
                other = f"{beside['decode_ms']:.2f} ms"
            print(
                f"{dtype:<7}{row['length']:>7}  {row['workload']:<13}{time:>12}{row['ratio']['median']:>8.2f}"
                f"{share:>10}{other:>12}"
            )


if __name__ == "__main__":
    sys.exit(main())
