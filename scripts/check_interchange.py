"""Reads kvprof's interchange files with numpy, and compresses with them in kvpress where it is installed.

    cargo test --release --test budgets interchange
    python3 scripts/check_interchange.py target/tmp/interchange target/release/kvprof

Every X.ratios.json must make kvpress keep the tokens of X.plan.json, and every X.npy must be a budget
curve that LU-KV's rounding turns into the tokens of X.plan.json's shares. With `pip install kvpress` the presses
themselves prefill a model of the plan's geometry with these files. Where the binary is named, head scores of this
script's own go through `kvprof convert` and must give the budgets of HeadKV's formula.
"""

import importlib.util
import json
import subprocess
import sys
import tempfile
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


def made_up_model(plan):
    """A model of the plan's geometry with random weights: what is kept depends on lengths alone."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    layers, kv_heads = np.array(plan["tokens"]).shape
    config = LlamaConfig(
        vocab_size=64, hidden_size=8 * kv_heads, intermediate_size=8, num_hidden_layers=layers, head_dim=8,
        num_attention_heads=kv_heads, num_key_value_heads=kv_heads, attn_implementation="sdpa",
        max_position_embeddings=plan["reference_tokens"],
        name_or_path="made-up",
    )
    model = LlamaForCausalLM(config).eval()
    return model, torch.randint(64, (1, plan["reference_tokens"]))


def prefilled(press, plan):
    import torch
    from transformers import DynamicCache

    model, ids = made_up_model(plan)
    cache = DynamicCache()
    with torch.no_grad(), press(model):
        model.model(input_ids=ids, past_key_values=cache)
    return model, cache


def check_press(ratios, plan):
    """kvpress cuts every layer to what the plan's heads share."""
    from kvpress import PerLayerCompressionPress, SnapKVPress

    press = PerLayerCompressionPress(press=SnapKVPress(), compression_ratios=ratios)
    _, cache = prefilled(press, plan)
    lengths = [cache.get_seq_length(layer) for layer in range(len(ratios))]
    assert lengths == np.array(plan["tokens"]).min(axis=1).tolist(), lengths
    return f"kvpress kept {min(lengths)} to {max(lengths)} of {plan['reference_tokens']} tokens in {len(ratios)} layers"


def check_lu_press(path, plan, removed):
    """LUKVPress masks all but what the curve's plan keeps at this ratio."""
    import kvpress.presses.lukv_press as lukv
    from kvpress import KnormPress

    lukv.BUDGET_CURVE_URLS[("made-up", "KnormPress")] = str(path)
    lukv.load_budget_curve = lambda url: np.load(url, allow_pickle=False)
    press = lukv.LUKVPress(press=KnormPress(), compression_ratio=removed / 100)
    model, _ = prefilled(press, plan)
    length, shape = plan["reference_tokens"], np.array(plan["tokens"]).shape
    kept = np.full(shape, length)
    for layer, block in enumerate(model.model.layers):
        if block.self_attn.masked_key_indices is not None:
            kept[layer] -= np.bincount(block.self_attn.masked_key_indices[1].numpy(), minlength=shape[1])
    total = kept.size * length * (100 - removed) // 100
    assert kept.sum() == total, (kept.sum(), total)
    assert (kept.ravel() == spread(plan, total)).all()
    return f"LUKVPress at {removed} % removed keeps {kept.min()} to {kept.max()} per head, {total} in all"


def head_scores(plan, heads):
    """Scores lists of every head, as HeadKV's files have them: some long, some of one number, some zero."""
    random = np.random.default_rng(heads)
    lengths = random.integers(1, 5, size=(plan["geometry"]["layers"], heads))
    scores = {
        f"{layer}-{head}": (random.random(length) ** 4 * (random.random() > 0.2)).tolist()
        for (layer, head), length in np.ndenumerate(lengths)
    }
    # In an order of no meaning: names say what a list belongs to.
    return {name: scores[name] for name in random.permutation(list(scores))}


def spread_by_scores(plan, scores, heads, budget, beta):
    """R - R/beta for every KV head, R/beta of all pooled and shared by the mean scores of its query heads."""
    layers, kv_heads = np.array(plan["tokens"]).shape
    mean = lambda values: sum(map(Fraction, values)) / len(values)
    group = heads // kv_heads
    of_kv_heads = [
        mean([mean(scores[f"{layer}-{kv * group + member}"]) for member in range(group)])
        for layer in range(layers)
        for kv in range(kv_heads)
    ]
    floor = plan["sinks"] + plan["window"]
    rest = budget - floor
    pooled = rest / beta * len(of_kv_heads)
    ideal = [rest - rest / beta + score / sum(of_kv_heads) * pooled for score in of_kv_heads]
    shares = np.array([amount / sum(ideal) for amount in ideal], dtype=object).reshape(layers, kv_heads)
    total = int(budget * len(of_kv_heads))
    return spread({**plan, "floor": floor, "shares": shares.tolist()}, total)


def check_head_scores(path, plan, kvprof):
    """Head scores that kvprof converts, against the formula."""
    checked = 0
    for heads in (plan["geometry"]["heads"], plan["geometry"]["kv_heads"]):
        scores = head_scores(plan, heads)
        for budget, beta in (("128", "1.01"), ("123.4", "2"), ("900", "1"), ("64", "10")):
            with tempfile.TemporaryDirectory() as folder:
                names = [Path(folder) / name for name in ("scores.json", "plan.json")]
                names[0].write_text(json.dumps(scores))
                convert = [kvprof, "convert", names[0], "--like", path, "--out", names[1], "--quiet"]
                subprocess.run([*convert, "--budget", budget, "--beta", beta], check=True)
                made = json.loads(names[1].read_text())
            want = spread_by_scores(plan, scores, heads, Fraction(budget), Fraction(beta))
            assert (np.array(made["tokens"]).ravel() == want).all(), (heads, budget, beta)
            checked += 1
    return f"{checked} plans of head scores are HeadKV's formula to the token"


def main(folder, kvprof=None):
    plans = sorted(folder.glob("*.plan.json"))
    assert plans, f"no plans in {folder}"
    installed = importlib.util.find_spec("kvpress") is not None
    if not installed:
        print("kvpress is not installed: its arithmetic is repeated instead")
    for path in plans:
        name = path.name.removesuffix(".plan.json")
        plan = json.loads(path.read_text())
        check_plan(plan)
        print(f"{name}: plan of {plan['budget']}, floor {plan['floor']}: ok")
        ratios, curve = folder / f"{name}.ratios.json", folder / f"{name}.npy"
        if ratios.exists():
            print(f"{name}: ratios of {check_ratios(ratios, plan)}: ok")
            if installed:
                print(f"{name}: {check_press(json.loads(ratios.read_text()), plan)}: ok")
        if curve.exists():
            print(f"{name}: budget curve {check_curve(curve, plan)}: ok")
            for removed in (50, 90) if installed else ():
                print(f"{name}: {check_lu_press(curve, plan, removed)}: ok")
    if kvprof is None:
        print("head scores are not checked: name the binary to convert them with")
    else:
        print(f"{plans[0].stem}: {check_head_scores(plans[0], json.loads(plans[0].read_text()), kvprof)}: ok")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "target/tmp/interchange"), *sys.argv[2:3])
