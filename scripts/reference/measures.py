"""What the references measure: MBA, LMBO and the margins of every decision, in float64.

The definitions are those of DESIGN.md section 3. A margin says how far a decision is from going the other way, so that
a test can ask for equality where float32 cannot change the answer.
"""

import numpy as np
import torch

THRESHOLDS = (0.5, 0.8, 0.9, 0.95, 0.99)
OUTPUT_THRESHOLDS = (0.9, 0.99)
ROWS = 32


def percent(threshold):
    """The threshold as a column name carries it: 0.9 is "90"."""
    return f"{round(threshold * 100)}"


def mba(attention, thresholds=THRESHOLDS):
    """Smallest number of keys that hold a share of the attention, and the margin of each decision.

    attention: [..., keys]. Returns {threshold: (budgets, margins)}; a margin is the distance of the cumulative sum
    from the threshold at the decision, relative to the total. Ties go to the lower key.
    """
    ordered, _ = torch.sort(attention.double(), dim=-1, descending=True, stable=True)
    sums = ordered.cumsum(-1)
    total = sums[..., -1:]
    found = {}
    for threshold in thresholds:
        wanted = threshold * total
        budgets = (sums < wanted).sum(-1) + 1
        at = (budgets - 1).unsqueeze(-1)
        above = sums.gather(-1, at) - wanted
        below = wanted - sums.gather(-1, (at - 1).clamp(min=0))
        below = torch.where(at > 0, below, torch.full_like(below, torch.inf))
        found[threshold] = (budgets, (torch.minimum(above, below) / total)[..., 0])
    return found


def output_cosines(attention, values, projection):
    """Cosine between the layer's output and the output of each head's b largest keys, for every b.

    attention: [query heads, keys]; values: [kv heads, keys, head dim]; projection: [hidden, query heads * head dim].
    The kept probabilities are divided by their sum, as eviction does. Returns ([keys] cosines, the full output).
    """
    attention, projection = attention.double(), projection.double()
    group = attention.shape[0] // values.shape[0]
    values = values.double().repeat_interleave(group, 0)
    ordered, keys = torch.sort(attention, dim=-1, descending=True, stable=True)
    picked = values.gather(1, keys.unsqueeze(-1).expand(-1, -1, values.shape[-1]))
    kept = (ordered.unsqueeze(-1) * picked).cumsum(1) / ordered.cumsum(-1).unsqueeze(-1)
    outputs = kept.transpose(0, 1).reshape(kept.shape[1], -1) @ projection.T
    full = torch.einsum("hn,hnd->hd", attention, values).reshape(-1) @ projection.T
    return torch.nn.functional.cosine_similarity(outputs, full.unsqueeze(0), dim=-1), full


def lmbo(cosines, threshold):
    """(first, stable, margin): the smallest b that reaches the threshold, the smallest b from which on every b does,
    and the least distance of a cosine from the threshold where one of the two is decided."""
    reached = cosines >= threshold
    first = int(reached.nonzero()[0]) + 1 if reached.any() else cosines.numel()
    missed = (~reached).nonzero()
    stable = int(missed[-1]) + 2 if len(missed) else 1
    near = [b - 1 for b in (first, first - 1, stable, stable - 1) if 1 <= b <= cosines.numel()]
    return first, stable, float((cosines[near] - threshold).abs().min())


def layer_measures(rows, values, projection):
    """All figures of one layer.

    rows: the last attention rows [query heads, w, keys] in float32, zero on keys that a row does not see.
    """
    kv_heads = values.shape[0]
    last, pooled = rows[:, -1], rows.double().mean(1)
    groups = pooled.view(kv_heads, -1, pooled.shape[-1]).mean(1)
    figures = {}
    for name, vector in (("mba_last", last), ("mba_pooled", pooled), ("mba_kv_pooled", groups)):
        for threshold, (budgets, margins) in mba(vector).items():
            figures[f"{name}_{percent(threshold)}"] = budgets.tolist()
            figures[f"{name}_{percent(threshold)}_margin"] = margins.tolist()
    budgets, margins = mba(rows, (0.9,))[0.9]
    figures["mba_rows_90"] = budgets.double().mean(-1).tolist()
    figures["mba_rows_90_margin"] = margins.min(-1).values.tolist()
    for name, vector in (("last", last), ("pooled", pooled)):
        cosines, full = output_cosines(vector, values, projection)
        for threshold in OUTPUT_THRESHOLDS:
            key = f"lmbo_{name}_{percent(threshold)}"
            first, stable, margin = lmbo(cosines, threshold)
            figures |= {f"{key}_first": first, f"{key}_stable": stable, f"{key}_margin": margin}
        figures[f"output_norm_{name}"] = float(full.norm())
        if name == "last":
            figures["_output_last"] = full
    return figures


def digits(value, count):
    """The value with so many significant digits, for JSON; whole numbers stay whole."""
    if isinstance(value, dict):
        return {key: digits(part, count) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [digits(part, count) for part in value]
    if isinstance(value, (np.ndarray, torch.Tensor)):
        return digits(value.tolist(), count)
    if isinstance(value, float):
        return 0 if value == 0 else float(f"{value:.{count}g}")
    return value
