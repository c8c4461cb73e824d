"""Reads kvprof's interchange files with numpy, and with kvpress where it is installed.

    cargo test --release --test budgets interchange
    python3 scripts/check_interchange.py target/tmp/interchange

Every X.ratios.json must make kvpress keep the tokens of X.plan.json, and every X.npy must be a budget
curve that LU-KV's rounding turns into the tokens of X.plan.json's shares.
"""

import json
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np


def kept_by_kvpress(length, ratio):
    try:
        from kvpress.utils import compute_n_kept
    except ImportError:
        return 0 if ratio >= 1 else max(1, int(length * (1 - ratio)))
    return compute_n_kept(length, ratio)


def kept_by_lu_kv(length, prune_ratios):
    """Tokens per KV head of one layer, as LUKVPress rounds them in float32."""
    ideal = (1 - prune_ratios.astype(np.float32)).clip(0, 1) * np.float32(length)
    total = int(np.round(ideal.sum()))
    total = max(len(ideal), min(len(ideal) * length, total))
    kept = np.floor(ideal).astype(int)
    missing = total - kept.sum()
    if missing > 0:
        order = np.argsort(-(ideal - kept), kind="stable")
        kept[order[:missing]] += 1
    return kept.clip(1, length)


def spread(plan, total):
    """Floor and share of the rest by exact fractions: cap, then largest remainder."""
    length, floor = plan["reference_tokens"], min(plan["floor"], plan["reference_tokens"])
    shares = [Fraction(s) for layer in plan["shares"] for s in layer]
    kept, left = [floor] * len(shares), total - floor * len(shares)
    cells = list(range(len(shares)))
    while True:
        weight = sum(shares[i] for i in cells)
        ideal = {i: shares[i] * left / weight if weight else Fraction(left, len(cells)) for i in cells}
        full = [i for i in cells if ideal[i] >= length - floor]
        if not full:
            break
        for i in full:
            kept[i], left = length, left - (length - floor)
        cells = [i for i in cells if i not in full]
        if not cells:
            return np.array(kept)
    # In units of 2^-20 tokens; shares are floats, and what is within a unit of the last remainder ties.
    units = {i: int(ideal[i] * 2**20 + Fraction(1, 2)) for i in cells}
    for i in cells:
        kept[i] += units[i] >> 20
        left -= units[i] >> 20
    if left > 0:
        remainder = {i: units[i] & (2**20 - 1) for i in cells}
        last = sorted(remainder.values(), reverse=True)[left - 1]
        rank = {i: 0 if r > last + 1 else 1 if r + 1 >= last else 2 for i, r in remainder.items()}
        for i in sorted(cells, key=lambda i: (rank[i], i))[:left]:
            kept[i] += 1
    return np.array(kept)


def check_plan(plan):
    amount, = plan["budget"].values()
    tokens = np.array(plan["tokens"])
    per_head = Fraction(str(amount))
    if "retained_fraction" in plan["budget"]:
        per_head *= plan["reference_tokens"]
    total = min(int(per_head * tokens.size), plan["reference_tokens"] * tokens.size)
    assert tokens.sum() == total, "the budget is spent to the token"
    assert (spread(plan, total) == tokens.ravel()).all(), "exact fractions give the same tokens"


def check_ratios(path, plan):
    ratios = json.loads(path.read_text())
    length, tokens = plan["reference_tokens"], np.array(plan["tokens"])
    kept = [kept_by_kvpress(length, ratio) for ratio in ratios]
    assert (np.array(kept) == tokens.min(axis=1)).all(), path
    return f"{len(ratios)} layers, {length} tokens, mean ratio {np.mean(ratios):.4f}"


def check_curve(path, plan):
    curve = np.load(path, allow_pickle=False)
    length, tokens = plan["reference_tokens"], np.array(plan["tokens"])
    assert curve.shape == (99, *tokens.shape), curve.shape
    assert curve.dtype == np.float64 and ((curve >= 0) & (curve <= 1)).all()
    for index in range(99):
        total = tokens.size * length * (99 - index) // 100
        kept = np.array([kept_by_lu_kv(length, layer) for layer in curve[index]])
        assert kept.sum() == total, (index, kept.sum(), total)
        if total >= plan["floor"] * tokens.size:
            assert (kept.ravel() == spread(plan, total)).all(), index
        else:
            assert kept.max() - kept.min() <= 1, index
    return f"{curve.shape}, prune ratios {curve.min():.4f} to {curve.max():.4f}"


def check_press(ratios):
    try:
        from kvpress import PerLayerCompressionPress, SnapKVPress
    except ImportError:
        return "kvpress is not installed: its arithmetic was repeated"
    press = PerLayerCompressionPress(press=SnapKVPress(), compression_ratios=ratios)
    return f"kvpress takes the list, mean ratio {press.compression_ratio:.4f}"


def main(folder):
    plans = sorted(folder.glob("*.plan.json"))
    assert plans, f"no plans in {folder}"
    for path in plans:
        name = path.name.removesuffix(".plan.json")
        plan = json.loads(path.read_text())
        check_plan(plan)
        print(f"{name}: plan of {plan['budget']}, floor {plan['floor']}: ok")
        ratios, curve = folder / f"{name}.ratios.json", folder / f"{name}.npy"
        if ratios.exists():
            print(f"{name}: ratios of {check_ratios(ratios, plan)}: ok")
            print(f"{name}: {check_press(json.loads(ratios.read_text()))}")
        if curve.exists():
            print(f"{name}: budget curve {check_curve(curve, plan)}: ok")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "target/tmp/interchange"))
