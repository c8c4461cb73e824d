"""Writes what transformers and kvpress find on real weights, for tests/fixtures/oracle_<model>.

usage: reference_real.py GGUF_FILE GOLDEN_FOLDER OUT_FOLDER [part ...]
       parts: tokenizer, synth512, wiki1024, wiki2048; all if none is named
needs: torch 2.8.0, transformers 4.57.1, kvpress 0.5.5, gguf 0.19.0, sentencepiece, numpy

GOLDEN_FOLDER holds prompts.json, prompts_wiki.json and tokenizer_goldens.json. The texts of the user's turn are taken
from the prompts and wrapped anew: in the model's own chat template where it has one, else bare after the token that
begins a text. The reference runs the dequantised weights in float32: eager attention for logits, attention and greedy
ids, sdpa for kvpress's kept sets (its Ada-KV refuses eager attention; the scores are the same up to rounding).
The logits of synth512 are also computed in float64 by the plain decoder.
"""

import hashlib
import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
import torch
from kvpress import AdaKVPress
from jinja2.sandbox import ImmutableSandboxedEnvironment
from transformers import DynamicCache

from reference import plain_decoder
from reference.measures import digits
from reference.observed_model import greedy, kept_by, observe, snapkv, spans
from reference.real_gguf import RealModel

torch.set_num_threads(int(os.environ.get("REFERENCE_THREADS", "1")))
STEPS, WINDOW, KERNEL, SHARE = 24, 32, 5, 5
PARTS = ("tokenizer", "synth512", "wiki1024", "wiki2048")


def user_turn(text):
    """The text of the user's turn of a prompt in ChatML."""
    return text.split("<|im_start|>user\n")[1].split("<|im_end|>")[0]


def wrapped(real, text):
    """The text as the model is meant to see it, and the ids that begin it."""
    template = real.field("tokenizer.chat_template")
    if template is None:
        return text, [real.tokenizer.first]
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    messages = [dict(role="user", content=text)]
    return environment.from_string(template).render(messages=messages, add_generation_prompt=True), []


def write_tokenizer(real, golden, out):
    """Ids of the test strings."""
    tokenizer = real.tokenizer
    strings = [case["text"] for case in json.loads((golden / "tokenizer_goldens.json").read_text())["cases"]]
    if real.architecture == "gemma3":
        strings.append("<start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\n")
    found = []
    for text in strings:
        case = dict(text=text, ids=tokenizer.ids(text))
        if (normalized := tokenizer.ids(text, normalized=True)) != case["ids"]:
            case["ids_nfc"] = normalized
        found.append(case)
    record = dict(strings=found)
    if real.field("tokenizer.chat_template") is not None:
        rendered, _ = wrapped(real, "What is 2+2?")
        messages = [dict(role="user", content="What is 2+2?")]
        record["chat"] = dict(messages=messages, rendered=rendered, ids=tokenizer.ids(rendered))
    save(out / "tokenizer.json", record)


def kept_sets(model, ids):
    """What kvpress keeps of a fifth of the prompt in every layer without a window."""
    length, keep = len(ids), len(ids) // SHARE
    span, found = spans(model.config), {}
    presses = dict(snapkv=snapkv(WINDOW, KERNEL, keep, length))
    presses["adakv"] = AdaKVPress(snapkv(WINDOW, KERNEL, keep, length), alpha_safeguard=0.2)

    def hook(module, args, kwargs, output):
        cached = kwargs["past_key_values"].layers[module.layer_idx]
        for name, press in presses.items():
            kept = None
            if span[module.layer_idx] is None:
                kept = kept_by(press, module, kwargs, cached, None)
            found.setdefault(name, []).append(kept)

    handles = [layer.self_attn.register_forward_hook(hook, with_kwargs=True) for layer in model.model.layers]
    model.set_attn_implementation("sdpa")
    with torch.no_grad():
        model(torch.tensor([ids]), past_key_values=DynamicCache(), logits_to_keep=1)
    model.set_attn_implementation("eager")
    for handle in handles:
        handle.remove()
    settings = dict(window=WINDOW, kernel=KERNEL, keep=keep)
    sets = {}
    for name, layers in found.items():
        sets[name] = settings | ({"safeguard": 0.2} if name == "adakv" else {})
        sets[name]["kept"] = [kept and kept["kept"] for kept in layers]
        sets[name]["margin"] = [kept and digits(kept["margin"], 3) for kept in layers]
    return sets


def write_prompt(real, model, prompt, out, check):
    """All figures of one prompt."""
    started = time.time()
    text, begin = wrapped(real, user_turn(prompt["text"]))
    tokenizer = real.tokenizer
    ids = begin + tokenizer.ids(text)
    logits, layers, _, cache = observe(model, ids, keep_rows=False)
    tokens, margins = greedy(model, logits, cache, len(ids), STEPS)
    del cache
    best = torch.topk(logits, 10)
    figures = {key: [layer[key] for layer in layers] for key in layers[0]}
    figures = {key: digits(value, 3 if key.endswith("margin") else 9) for key, value in figures.items()}
    record = dict(name=prompt["name"], tokens=len(ids), ids=ids)
    if check:
        record["text"] = text
    record |= dict(top10_ids=best.indices.tolist(), top10_logits=digits(best.values, 9))
    record |= dict(logsumexp=float(torch.logsumexp(logits.double(), 0)), greedy=tokens)
    record |= dict(greedy_margin=digits(margins, 4), continuation=tokenizer.text(tokens)) | figures
    record |= kept_sets(model, ids)
    if check:
        record["float64"] = against_float64(model, ids, logits)
    save(out / f"{prompt['name']}.json", record)
    lines = [f"{prompt['name']}: {len(ids)} tokens, {time.time() - started:.0f} s, {record['continuation']!r}"]
    for kind in ("greedy_margin", "mba_last", "mba_pooled", "mba_kv", "mba_rows", "lmbo"):
        lines.append(f"  {kind}: {smallest(record, kind):.3g}")
    for name in ("snapkv", "adakv"):
        lines.append(f"  {name}: {min(m for layer in record[name]['margin'] if layer for m in layer):.3g}")
    print("\n".join(lines), record.get("float64"), flush=True)


def smallest(record, kind):
    """The least margin of a kind of decision."""
    return min(np.min(value) for key, value in record.items() if key.startswith(kind) and key.endswith("margin"))


def against_float64(model, ids, logits):
    """Largest difference of the logits from the plain decoder in float64, over all and over the best ten."""
    tensors = {name: parameter.numpy() for name, parameter in model.named_parameters()}
    exact, _ = plain_decoder.run(model.config.to_dict(), tensors, ids)
    difference = np.abs(logits.numpy() - exact)
    best = np.argsort(-exact)[:10]
    return dict(logits=digits(float(difference.max()), 3), top10=digits(float(difference[best].max()), 3))


def save(path, record):
    """Compact JSON."""
    path.write_text(json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n")


def main(gguf_path, golden, out, *parts):
    golden, out = Path(golden), Path(out)
    out.mkdir(parents=True, exist_ok=True)
    real = RealModel(gguf_path)
    parts = parts or PARTS
    config = real.config()
    content = Path(gguf_path).read_bytes()
    about = dict(
        name=real.field("general.name"),
        architecture=real.architecture,
        file=dict(bytes=len(content), sha256=hashlib.sha256(content).hexdigest()),
        software={p: version(p) for p in ("transformers", "torch", "kvpress", "gguf", "numpy", "sentencepiece")},
        spans=spans(config),
        config={key: value for key, value in config.to_diff_dict().items() if key != "transformers_version"},
    )
    del content
    save(out / "model.json", about)
    if "tokenizer" in parts:
        write_tokenizer(real, golden, out)
    prompts = json.loads((golden / "prompts.json").read_text())["prompts"]
    prompts += json.loads((golden / "prompts_wiki.json").read_text())["prompts"]
    chosen = [prompt for prompt in prompts if prompt["name"] in parts]
    if chosen:
        model = real.model()
        for prompt in chosen:
            write_prompt(real, model, prompt, out, check=prompt["name"] == "synth512")


if __name__ == "__main__":
    main(*sys.argv[1:])
