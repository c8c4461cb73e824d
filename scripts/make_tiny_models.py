"""Writes tiny random models of every family with their golden figures, for tests/fixtures/families.

usage: make_tiny_models.py OUT_FOLDER [MODEL ...]
needs: torch 2.8.0, transformers 4.57.1, kvpress 0.5.5, gguf 0.19.0, numpy

Each model becomes a Hugging Face folder, most also a GGUF file beside it, and golden.json says what transformers
computes with it in float32 and eager attention (see README.md of the fixtures for the fields).

Attention is made uneven on purpose: each query head has its own factor on its query weights, from 0.7 to 4.5, so that
some heads attend to nearly all keys and others to few. Where queries are normalised such a factor would be lost; there
the weights of the two norms grow with the dimension, and heads put their energy into different dimensions.

The seed of a model is the first one at which no decision in golden.json is close: see LEAST.
"""

import gc
import json
import os
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

from reference import plain_decoder, tiny_gguf, tiny_tokenizer
from reference.measures import digits
from reference.observed_model import greedy, observe, snapkv, spans

torch.set_num_threads(1)
# The least margin that each kind of decision must keep: greedy steps in logits, MBA in shares of a row's mass, LMBO in
# cosine, kept sets in scores.
LEAST = dict(greedy=0.1, mba=2e-5, lmbo=1e-6, snapkv=2e-6)
STEPS, LENGTHS = 16, dict(default=[96], phi3=[96, 48])
SNAPKV = dict(window=8, kernel=5)

BASE = dict(
    vocab_size=300,
    hidden_size=32,
    intermediate_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=256,
    rms_norm_eps=1e-5,
    tie_word_embeddings=True,
)
# Two wide heads, so that a head has enough rotated pairs for the scalings to tell apart.
WIDE = dict(num_attention_heads=2, num_key_value_heads=1)
LLAMA3 = dict(
    rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32
)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=64)
QWEN2_WINDOW = dict(use_sliding_window=True, sliding_window=24, max_window_layers=1)
GEMMA3 = dict(
    head_dim=12,
    num_hidden_layers=4,
    sliding_window=16,
    layer_types=["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
    query_pre_attn_scalar=48,
    rope_theta=1e6,
    rope_local_base_freq=2000.0,
    rope_scaling=dict(rope_type="linear", factor=8.0),
    rms_norm_eps=1e-6,
)


def longrope(short, long):
    return dict(
        original_max_position_embeddings=64, rope_scaling=dict(type="longrope", short_factor=short, long_factor=long)
    )


PHI3 = longrope([1.0, 1.02, 1.05, 1.1, 1.2, 1.3, 1.5, 1.7], [1.0, 1.3, 1.9, 2.7, 4.1, 6.3, 8.8, 12.5])
PHI3_PARTIAL = longrope([1.0, 1.0, 1.1, 1.2, 1.4, 1.6], [1.1, 1.7, 2.9, 5.0, 9.2, 14.0]) | dict(
    partial_rotary_factor=0.75
)


class Model:
    """One row of the table of models: a configuration and how its files are written."""

    def __init__(self, family, *changes, pre, begins=False, chat=True, gguf=True, half=False, dtype="float32", **files):
        self.family, self.pre, self.begins, self.chat = family, pre, begins, chat
        self.changes, self.gguf, self.half, self.dtype = changes, gguf, half, dtype
        self.shard = files.get("shard", "1GB")
        self.tokenizer_class = files.get("tokenizer_class", "PreTrainedTokenizerFast")
        self.template_file = files.get("template_file", False)
        self.stop_at_both = files.get("stop_at_both", True)

    def config(self):
        """The transformers configuration."""
        values = dict(BASE)
        for change in self.changes:
            values |= change
        tokens = tiny_tokenizer.vocabulary()
        ends = [tokens.index("<|im_end|>"), tokens.index("<|endoftext|>")]
        values |= dict(
            bos_token_id=tokens.index("<|begin|>") if self.begins else None,
            eos_token_id=ends[0],
            pad_token_id=ends[1],
            architectures=[f"{self.family}ForCausalLM"],
        )
        name = "Gemma3TextConfig" if self.family == "Gemma3" else f"{self.family}Config"
        return getattr(transformers, name)(**values)


UNTIED = dict(tie_word_embeddings=False, num_hidden_layers=2)
MODELS = {
    "llama": Model("Llama", UNTIED, pre="llama-bpe"),
    "llama_bf16": Model("Llama", UNTIED, pre="llama-bpe", gguf=False, dtype="bfloat16"),
    "llama3": Model("Llama", WIDE, dict(rope_theta=5e4, rope_scaling=LLAMA3), pre="llama-bpe", begins=True),
    "llama_linear": Model("Llama", WIDE, dict(rope_scaling=dict(rope_type="linear", factor=4.0)), pre="smollm"),
    "llama_yarn": Model("Llama", WIDE, dict(rope_scaling=YARN), pre="gpt-2"),
    # GGUF has no window for Llama's architecture, which Mistral's files use.
    "mistral": Model("Mistral", UNTIED, dict(sliding_window=24), pre="llama-bpe", begins=True, gguf=False),
    "qwen2": Model("Qwen2", pre="qwen2"),
    "qwen2_sharded": Model("Qwen2", pre="qwen2", gguf=False, shard="70KB"),
    # Nor has it one for Qwen2.
    "qwen2_window": Model("Qwen2", QWEN2_WINDOW, pre="qwen2", gguf=False),
    "qwen3": Model("Qwen3", dict(head_dim=16, num_hidden_layers=2), pre="qwen2", template_file=True),
    "gemma3": Model("Gemma3", GEMMA3, pre="gpt-2", begins=True, chat=False, half=True, stop_at_both=False),
    "phi3": Model("Phi3", WIDE, UNTIED, PHI3, pre="gpt-2", tokenizer_class="GPT2Tokenizer"),
    "phi3_partial": Model("Phi3", WIDE, PHI3_PARTIAL, pre="gpt-2", tokenizer_class="GPT2Tokenizer"),
}


def random_weights(model, seed):
    """Fills a model with random weights; see the text above."""
    random, config = np.random.default_rng(seed), model.config
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    gemma = config.model_type == "gemma3_text"
    normed = config.model_type in ("qwen3", "gemma3_text")
    normal = lambda *shape: random.standard_normal(shape)
    spread = lambda *shape: random.uniform(-0.3, 0.3, shape)

    def queries(count, width, inputs):
        """Rows of `count` query heads: a factor per head, or for normalised heads a tilt over their dimensions."""
        strength = np.geomspace(0.7, 4.5, count) if count > 2 else np.array([0.9, 3.2])
        tilt = np.linspace(-4, 4, count)
        order = random.permutation(count)
        factors = np.ones((count, width)) * strength[order, None]
        if normed:
            dimension = np.arange(width) % (width // 2) / (width // 2 - 1)
            factors = np.exp(tilt[order, None] * (dimension - 0.5))
        return (normal(count, width, inputs) * factors[:, :, None]).reshape(-1, inputs) / inputs**0.5

    def value_of(name, shape):
        inputs = shape[-1]
        if name.endswith("embed_tokens.weight"):
            return normal(*shape) * (0.2 if gemma else 0.5 if config.tie_word_embeddings else 1.0)
        if name.endswith("lm_head.weight"):
            return normal(*shape) * 6 / inputs**0.5
        if name.endswith(("q_norm.weight", "k_norm.weight")):
            dimension = np.arange(inputs) % (inputs // 2) / (inputs // 2 - 1)
            return 0.6 + 2.4 * dimension + spread(inputs) - (1 if gemma else 0)
        if name == "model.norm.weight":
            return (4.0 if gemma else 2.0 if config.tie_word_embeddings else 1.0) + spread(inputs) - (1 if gemma else 0)
        if gemma and name.endswith(("post_attention_layernorm.weight", "post_feedforward_layernorm.weight")):
            return 0.3 + spread(inputs)
        if name.endswith("norm.weight"):
            return spread(inputs) + (0 if gemma else 1)
        if name.endswith("bias"):
            return normal(*shape) * 0.5
        if name.endswith("qkv_proj.weight"):
            width = shape[0] // (heads + 2 * kv_heads)
            rest = normal(2 * kv_heads * width, inputs) / inputs**0.5
            rest[: kv_heads * width] *= 1.2
            return np.concatenate([queries(heads, width, inputs), rest])
        if name.endswith("q_proj.weight"):
            return queries(heads, shape[0] // heads, inputs)
        if name.endswith("k_proj.weight"):
            return normal(*shape) * 1.2 / inputs**0.5
        return normal(*shape) * (1.5 if name.endswith(("o_proj.weight", "down_proj.weight")) else 1.2) / inputs**0.5

    for name, parameter in model.named_parameters():
        parameter.requires_grad_(False)
        parameter.copy_(torch.from_numpy(value_of(name, tuple(parameter.shape)).astype(np.float32)))


def build(row, seed):
    """The model in float32, holding exactly the values that its files can hold."""
    config = row.config()
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    random_weights(model, seed)
    for parameter in model.parameters():
        if row.dtype == "bfloat16":
            parameter.copy_(parameter.bfloat16().float())
        elif row.half and parameter.ndim == 2:
            parameter.copy_(parameter.half().float())
    return model


def measure(model, tokenizer):
    """Golden figures of every prompt, and the smallest margin of each kind of decision."""
    margins, prompts = {kind: [] for kind in LEAST}, []
    span = spans(model.config)
    for start, length in enumerate(lengths(model)):
        text, ids = tiny_tokenizer.prompt(tokenizer, length, 60 * start)
        press = None
        if not any(span):
            press = snapkv(SNAPKV["window"], SNAPKV["kernel"], length // 2, length)
        logits, layers, kept, cache = observe(model, ids, press=press)
        tokens, steps = greedy(model, logits, cache, length, STEPS)
        margins["greedy"] += steps
        for layer in layers:
            for key, value in layer.items():
                if key.endswith("_margin"):
                    margins["lmbo" if key.startswith("lmbo") else "mba"] += np.ravel(value).tolist()
        prompt = dict(name=f"tokens{length}", text=text, ids=ids, logits=logits)
        prompt |= {key: [layer[key] for layer in layers] for key in layers[0]}
        prompt |= dict(greedy=tokens, greedy_margin=steps)
        if press is not None:
            margins["snapkv"] += np.ravel([k["margin"] for k in kept]).tolist()
            prompt["snapkv"] = SNAPKV | dict(
                keep=length // 2, kept=[k["kept"] for k in kept], margin=[k["margin"] for k in kept]
            )
        prompts.append(prompt)
    return prompts, {kind: min(found) for kind, found in margins.items() if found}


def lengths(model):
    """Tokens of each prompt."""
    return LENGTHS.get(model.config.model_type, LENGTHS["default"])


def continues_clearly(model, tokenizer):
    """Whether greedy decoding does not repeat itself and no step is close; most seeds fail here, at little cost."""
    for start, length in enumerate(lengths(model)):
        _, ids = tiny_tokenizer.prompt(tokenizer, length, 60 * start)
        cache = DynamicCache()
        with torch.no_grad():
            logits = model(torch.tensor([ids]), past_key_values=cache, logits_to_keep=1).logits[0, -1]
        tokens, margins = greedy(model, logits, cache, length, STEPS)
        if len(set(tokens)) < STEPS // 2 or min(margins) < LEAST["greedy"]:
            return False
    return True


def check_continuation(model, prompts):
    """Without a cache the same greedy ids come out, so the cache of layers with a window is right."""
    with torch.no_grad():
        for prompt in prompts:
            ids = list(prompt["ids"])
            for expected in prompt["greedy"]:
                assert int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()) == expected
                ids.append(expected)


def against_float64(config, tensors, prompts):
    """Largest differences between float32 and the plain decoder in float64."""
    worst = dict(logits=0.0, attention=0.0)
    for prompt in prompts:
        logits, attention = plain_decoder.run(config, tensors, prompt["ids"])
        worst["logits"] = max(worst["logits"], float(np.abs(prompt["logits"].numpy() - logits).max()))
        for rows, mine in zip(prompt["attention_last"], attention):
            worst["attention"] = max(worst["attention"], float(np.abs(rows.numpy() - mine[:, -1]).max()))
    return worst


def write_folder(folder, row, model):
    """Writes configuration and weights as transformers does."""
    tokens = tiny_tokenizer.vocabulary()
    ends = [tokens.index("<|im_end|>"), tokens.index("<|endoftext|>")]
    model.generation_config.eos_token_id = ends if row.stop_at_both else ends[0]
    model.generation_config.pad_token_id = ends[1]
    if row.dtype == "bfloat16":
        model = model.bfloat16()
    model.save_pretrained(folder, max_shard_size=row.shard)
    for file in folder.glob("*.safetensors"):
        file.chmod(0o644)


def tokenizer_cases(folder, row, tokenizer):
    """Ids of the test strings, with the token that begins a text where the family has one, and a rendered chat."""
    loaded = AutoTokenizer.from_pretrained(folder)
    strings = [dict(text=text, ids=tokenizer.encode(text).ids) for text in tiny_tokenizer.STRINGS]
    for case in strings:
        assert loaded(case["text"]).input_ids == case["ids"], case
    found = dict(strings=strings)
    if row.chat:
        rendered = loaded.apply_chat_template(tiny_tokenizer.MESSAGES, tokenize=False, add_generation_prompt=True)
        ids = tokenizer.encode(rendered, add_special_tokens=False).ids
        found["chat"] = dict(messages=tiny_tokenizer.MESSAGES, rendered=rendered, ids=ids)
    return found


def make(name, out):
    """Writes one model. Returns a line about it."""
    row, folder = MODELS[name], Path(out) / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tokenizer = tiny_tokenizer.write(folder, row.pre, row.begins, row.tokenizer_class, row.chat, row.template_file)
    for seed in range(2000):
        model = build(row, seed)
        if not continues_clearly(model, tokenizer):
            continue
        prompts, margins = measure(model, tokenizer)
        if all(margin >= LEAST[kind] for kind, margin in margins.items()):
            break
    else:
        raise RuntimeError(f"{name}: no seed gives clear decisions")
    check_continuation(model, prompts)
    write_folder(folder, row, model)
    config = json.loads((folder / "config.json").read_text())
    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= {key: value.float().numpy() for key, value in load_file(file).items()}
    reloaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    again, _ = measure(reloaded, tokenizer)
    for mine, theirs in zip(prompts, again):
        assert (mine["logits"] - theirs["logits"]).abs().max() < 1e-4, "the folder holds another model"
    golden = dict(
        model=name,
        software={package: version(package) for package in ("transformers", "torch", "kvpress", "gguf", "numpy")},
        seed=seed,
        spans=spans(model.config),
        smallest_margin=margins,
        float64_difference=against_float64(config, tensors, prompts),
        tokenizer=tokenizer_cases(folder, row, tokenizer),
        prompts=prompts,
    )
    if row.gguf:
        path = folder / "model.gguf"
        tiny_gguf.write(path, config, tensors, row.pre, row.begins, row.chat, row.half)
        golden["gguf_difference"] = tiny_gguf.verify(path, config, tensors)
    (folder / "golden.json").write_text(to_json(golden))
    size = sum(file.stat().st_size for file in folder.iterdir())
    return (
        f"{name}: seed {seed}, {size // 1024} KiB, margins {digits(margins, 3)},"
        f" float64 {digits(golden['float64_difference'], 2)}, gguf {golden.get('gguf_difference')}"
    )


def to_json(golden):
    """Compact JSON: nine digits where a float32 is meant, three in margins."""
    short = lambda key: "margin" in key or key == "float64_difference"
    golden = {key: digits(value, 3) if short(key) else value for key, value in golden.items()}
    for prompt in golden["prompts"]:
        prompt |= {key: digits(value, 3 if short(key) else 9) for key, value in prompt.items()}
        if "snapkv" in prompt:
            prompt["snapkv"]["margin"] = digits(prompt["snapkv"]["margin"], 3)
    return json.dumps(golden, ensure_ascii=False, separators=(",", ":")) + "\n"


if __name__ == "__main__":
    for model_name in sys.argv[2:] or MODELS:
        print(make(model_name, sys.argv[1]), flush=True)
        gc.collect()
