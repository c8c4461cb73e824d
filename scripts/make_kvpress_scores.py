#!/usr/bin/env python3
"""Writes the scores of a kvpress press as files for `kvprof eval --method-file`.

    kvprof eval --data wikimqa-style-2k --limit 4 --write-prompts prompts.jsonl
    make_kvpress_scores.py MODEL prompts.jsonl PRESS scores      (needs kvpress, torch, transformers, safetensors)
    kvprof eval --data wikimqa-style-2k --limit 4 --methods full,snapkv,ada-kv --method-file NAME=scores

MODEL is a Hugging Face folder or a GGUF file that transformers reads, with the weights that kvprof runs; PRESS is a class
of kvpress with a `score`, with arguments where it needs them: "KnormPress", "ExpectedAttentionPress(epsilon=0.01)".
Every prompt is prefilled once with full attention, and what the press's `score` gives in each layer is one row of
`scores` [L, H_kv, T]; `ids` [T] are the token ids that kvprof wrote. With --remove RATIO the press cuts too, and the file has
the slots that stay as `kept` [L, H_kv, T] instead, which is a cut by itself: --method-file NAME@BUDGET=FOLDER. RATIO is
the share that kvpress removes, its compression_ratio.
"""

import argparse
import json
from pathlib import Path

import kvpress
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, DynamicCache


def load_model(path):
    path = Path(path)
    where = dict(pretrained_model_name_or_path=path)
    if path.suffix == ".gguf":
        where = dict(pretrained_model_name_or_path=path.parent, gguf_file=path.name)
    model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32, attn_implementation="sdpa")
    return model.eval()


def press_of(text):
    """The press that is spelled as in Python, from the classes of kvpress alone."""
    name = text.split("(")[0]
    if not isinstance(getattr(kvpress, name, None), type):
        raise SystemExit(f"kvpress has no press {name}")
    press = eval(text if "(" in text else f"{text}()", {"__builtins__": {}}, vars(kvpress))
    if not isinstance(press, kvpress.ScorerPress):
        raise SystemExit(f"{name} has no scores of its own: a ScorerPress is needed")
    return press


def prefilled(model, press, ids, keep):
    """Scores, or the slots that stay, [L, H_kv, T], from one prefill that nothing is cut from."""
    found = []
    tokens = len(ids)

    def hook(module, arguments, named, output):
        layer = named["past_key_values"].layers[module.layer_idx]
        keys, values = layer.keys, layer.values
        scores = press.score(module, named["hidden_states"], keys, values, output[1], named)[0]
        if keep is not None:
            stays = scores.topk(kvpress.utils.compute_n_kept(tokens, keep), dim=-1).indices
            scores = torch.zeros_like(scores, dtype=torch.uint8).scatter_(1, stays, 1)
        found.append(scores)

    hooks = []
    for layer in model.model.layers:
        layer.self_attn.rotary_emb = model.model.rotary_emb
        hooks.append(layer.self_attn.register_forward_hook(hook, with_kwargs=True))
    with torch.no_grad():
        press.post_init_from_model(model)
        model.model(torch.tensor([ids]), past_key_values=DynamicCache())
    for hook in hooks:
        hook.remove()
    return torch.stack(found).contiguous()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("prompts", type=Path)
    parser.add_argument("press")
    parser.add_argument("out", type=Path)
    parser.add_argument("--remove", type=float, metavar="RATIO")
    given = parser.parse_args()
    if given.remove is not None and not 0 < given.remove < 1:
        raise SystemExit(f"--remove {given.remove} is not between 0 and 1")
    press = press_of(given.press)
    model = load_model(given.model)
    given.out.mkdir(parents=True, exist_ok=True)
    for place, line in enumerate(given.prompts.read_text().splitlines()):
        prompt = json.loads(line)
        found = prefilled(model, press, prompt["ids"], given.remove)
        if found.is_floating_point():
            # Forced tokens may be at infinity, which no file of scores has.
            found = found.float().nan_to_num(posinf=1e30, neginf=-1e30)
        name = "scores" if given.remove is None else "kept"
        ids = torch.tensor(prompt["ids"], dtype=torch.int64)
        save_file({name: found, "ids": ids}, given.out / f"{place:06}.safetensors")
        print(f"{prompt['id']}: {name} {list(found.shape)}", flush=True)


if __name__ == "__main__":
    main()
