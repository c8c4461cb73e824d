"""Runs a transformers model on one prompt and reads what the references need from every layer."""

import torch
from kvpress import AdaKVPress, SnapKVPress
from transformers import DynamicCache

from reference.measures import ROWS, layer_measures


def spans(config):
    """The number of keys that each layer sees, None where it sees all."""
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        window = getattr(config, "sliding_window", None)
        return [window] * config.num_hidden_layers
    return [config.sliding_window if kind == "sliding_attention" else None for kind in kinds]


def observe(model, ids, keep_rows=True, press=None):
    """One prefill. Returns (last logits, per-layer figures, kept sets of the press, cache).

    The model must run with eager attention, which is what hands over the probabilities. `press` is a kvpress scorer
    press; it sees what its own hook would give it, and only in layers without a window.
    """
    layers, kept = [], []
    span = spans(model.config)

    def hook(module, args, kwargs, output):
        cached = kwargs["past_key_values"].layers[module.layer_idx]
        rows = output[1][0, :, -min(ROWS, len(ids)) :, :].clone()
        figures = layer_measures(rows, cached.values[0], module.o_proj.weight)
        projected = figures.pop("_output_last")
        error = (projected - output[0][0, -1].double()).abs().max() / output[0][0, -1].abs().max()
        assert error < 1e-5, f"layer {module.layer_idx}: projected output differs by {error}"
        if keep_rows:
            figures["attention_last"] = rows[:, -1]
            figures["attention_pooled"] = rows.double().mean(1).float()
        layers.append(figures)
        if press is not None:
            full = span[module.layer_idx] is None
            kept.append(kept_by(press, module, kwargs, cached, output[1]) if full else None)
        return (output[0], None)

    handles = []
    for layer in model.model.layers:
        layer.self_attn.rotary_emb = model.model.rotary_emb
        handles.append(layer.self_attn.register_forward_hook(hook, with_kwargs=True))
    # A cache made without the configuration keeps all keys of layers with a window; their masks hide what is out of it.
    cache = DynamicCache()
    with torch.no_grad():
        output = model(torch.tensor([ids]), past_key_values=cache, logits_to_keep=1)
    for handle in handles:
        handle.remove()
    return output.logits[0, -1], layers, kept, cache


def kept_by(press, module, kwargs, cached, attentions):
    """What a press keeps of one layer: sorted keys of each kv head, and how clear the choice is.

    The margin is the distance between the worst kept and the best dropped score: per kv head, or one for the layer
    where all heads share one budget.
    """
    hidden, keys, values = kwargs["hidden_states"], cached.keys, cached.values
    scores = (press.press if isinstance(press, AdaKVPress) else press).score(
        module, hidden, keys, values, attentions, kwargs
    )[0]
    module.masked_key_indices = None
    cut, _ = press.compress(module, hidden, keys, values, attentions, kwargs)
    chosen = torch.zeros(scores.shape, dtype=torch.bool)
    if module.masked_key_indices is not None:
        chosen[:] = True
        _, heads, positions = module.masked_key_indices
        chosen[heads, positions] = False
        module.masked_key_indices = None
    else:
        for head in range(len(scores)):
            places = {row.tobytes(): place for place, row in enumerate(keys[0, head].numpy())}
            assert len(places) == keys.shape[2], "two keys of a head are equal"
            chosen[head, [places[row.tobytes()] for row in cut[0, head].numpy()]] = True
    return {"kept": [row.nonzero()[:, 0].tolist() for row in chosen], "margin": choice_margin(press, scores, chosen)}


def choice_margin(press, scores, chosen):
    """Distance between the worst kept and the best dropped score of kvpress."""
    if isinstance(press, SnapKVPress):
        return [float(row[kept].min() - row[~kept].max()) for row, kept in zip(scores, chosen)]
    # Every head's best few are safe, whatever the other heads have; they decide nothing between heads.
    safe = int(chosen.sum() // len(scores) * press.alpha_safeguard)
    guarded = torch.zeros_like(chosen).scatter_(1, scores.topk(safe, dim=1).indices, True)
    return [float(scores[chosen & ~guarded].min() - scores[~chosen].max())]


def greedy(model, logits, cache, start, count):
    """(ids, margins) of greedy decoding after a prefill of `start` tokens; stop ids are ignored."""
    ids, margins = [], []
    with torch.no_grad():
        for step in range(count):
            best = torch.topk(logits, 2)
            ids.append(int(best.indices[0]))
            margins.append(float(best.values[0] - best.values[1]))
            if step + 1 < count:
                position = torch.tensor([[start + step]])
                output = model(torch.tensor([[ids[-1]]]), past_key_values=cache, position_ids=position)
                logits = output.logits[0, -1]
    return ids, margins


def snapkv(window, kernel, keep, length):
    """kvpress's SnapKV that keeps exactly so many tokens of a prompt of this length.

    kvpress rounds length * (1 - ratio) down, so a ratio of 0.8 may keep one token less than a fifth; half a token
    more is asked for.
    """
    press = SnapKVPress(1 - (keep + 0.5) / length, window_size=window, kernel_size=kernel)
    assert int(length * (1 - press.compression_ratio)) == keep, (keep, length)
    return press
