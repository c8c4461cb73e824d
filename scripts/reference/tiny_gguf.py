"""Writes a tiny model as llama.cpp's converter would, and reads it back.

Conventions: queries and keys of Llama are permuted so that rotated pairs lie side by side; Gemma's norm weights have
1 added; Phi-3 keeps its fused projections; the factors of llama3 and longrope scaling are tensors.
"""

import math

import gguf
import numpy as np

from reference.tiny_tokenizer import CHAT_TEMPLATE, MERGES, SPECIAL, vocabulary

ARCHITECTURES = {"gemma3_text": "gemma3", "mistral": "llama"}
NAMES = {
    "embed_tokens": "token_embd",
    "norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
GEMMA_NAMES = NAMES | {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def gguf_name(name, config):
    """The GGUF name of a Hugging Face tensor."""
    names = GEMMA_NAMES if config["model_type"] == "gemma3_text" else NAMES
    stem, kind = name.removeprefix("model.").rsplit(".", 1)
    if not stem.startswith("layers."):
        return f"{names[stem]}.{kind}"
    _, layer, part = stem.split(".", 2)
    return f"blk.{layer}.{names[part]}.{kind}"


def permuted(weight, heads):
    """Rows of each head reordered from halves to neighbouring pairs."""
    return weight.reshape(heads, 2, -1, weight.shape[-1]).swapaxes(1, 2).reshape(weight.shape)


def unpermuted(weight, heads):
    """What `permuted` was given."""
    return weight.reshape(heads, -1, 2, weight.shape[-1]).swapaxes(1, 2).reshape(weight.shape)


def pair_heads(name, config):
    """Heads of a tensor whose rows are permuted, None for all other tensors."""
    if ARCHITECTURES.get(config["model_type"], config["model_type"]) != "llama":
        return None
    if name.endswith("q_proj.weight"):
        return config["num_attention_heads"]
    return config["num_key_value_heads"] if name.endswith("k_proj.weight") else None


def query_scale(name, config):
    """What a query norm is multiplied by: GGUF has no place for a query_pre_attn_scalar of its own."""
    if config["model_type"] != "gemma3_text" or not name.endswith("q_norm.weight"):
        return np.float32(1)
    return np.float32(math.sqrt(config["head_dim"] / config["query_pre_attn_scalar"]))


def to_gguf(name, value, config):
    """A tensor as the file holds it."""
    if (heads := pair_heads(name, config)) is not None:
        return permuted(value, heads)
    if config["model_type"] == "gemma3_text" and name.endswith("norm.weight"):
        return (value + np.float32(1)) * query_scale(name, config)
    return value


def llama3_factors(config):
    """What the file divides each rotation frequency by."""
    scaling, dims = config["rope_scaling"], config["head_dim"]
    frequencies = config["rope_theta"] ** (-np.arange(0, dims, 2) / dims)
    turns = scaling["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    low, high, factor = (scaling[k] for k in ("low_freq_factor", "high_freq_factor", "factor"))
    share = np.clip((turns - low) / (high - low), 0, 1)
    return (1 / (share + (1 - share) / factor)).astype(np.float32)


def write(path, config, tensors, pre, begins, chat, half):
    """Writes the file; `half` stores matrices in F16 and vectors in F32, as the converter does."""
    kind = config["model_type"]
    architecture = ARCHITECTURES.get(kind, kind)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type("model")
    # Not the family's name: llama.cpp looks for tokens of Phi-3's own in a file that is called so.
    writer.add_name("tiny random model")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16 if half else gguf.LlamaFileType.ALL_F32)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    if kind != "phi3":
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if kind in ("llama", "phi3"):
        writer.add_rope_dimension_count(int(head_dim * config.get("partial_rotary_factor", 1.0)))
    write_rope(writer, config)
    if kind == "gemma3_text":
        writer.add_sliding_window(config["sliding_window"])
        writer.add_sliding_window_pattern(config["layer_types"].index("full_attention") + 1)
        writer.add_rope_freq_base_swa(config["rope_local_base_freq"])
    if kind == "phi3":
        writer.add_sliding_window(config["sliding_window"] or 0)
        scaling = config["rope_scaling"]
        for length in ("long", "short"):
            factors = np.array(scaling[f"{length}_factor"], dtype=np.float32)
            writer.add_tensor(f"rope_factors_{length}.weight", factors)
    if (config.get("rope_scaling") or {}).get("rope_type") == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_factors(config))
    write_tokenizer(writer, pre, begins, chat)
    for name, value in tensors.items():
        value = np.ascontiguousarray(to_gguf(name, value, config), dtype=np.float32)
        if half and value.ndim == 2:
            value = value.astype(np.float16)
        writer.add_tensor(gguf_name(name, config), value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_rope(writer, config):
    """The keys of rotary scaling; llama3 has none but its tensor."""
    scaling = config.get("rope_scaling") or {}
    kind = scaling.get("rope_type", scaling.get("type"))
    if kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
        writer.add_rope_scaling_factor(scaling["factor"])
    if kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(scaling["original_max_position_embeddings"])
    if kind == "longrope":
        original = config["original_max_position_embeddings"]
        stretch = config["max_position_embeddings"] / original
        writer.add_rope_scaling_type(gguf.RopeScalingType.LONGROPE)
        writer.add_rope_scaling_orig_ctx_len(original)
        writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(stretch) / math.log(original)))


def write_tokenizer(writer, pre, begins, chat):
    """The vocabulary as a byte-level one."""
    tokens = vocabulary()
    normal, control = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([int(control if token in SPECIAL else normal) for token in tokens])
    writer.add_token_merges(MERGES)
    if begins:
        writer.add_bos_token_id(tokens.index("<|begin|>"))
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_pad_token_id(tokens.index("<|endoftext|>"))
    writer.add_add_bos_token(begins)
    if chat:
        writer.add_chat_template(CHAT_TEMPLATE)


def verify(path, config, tensors):
    """Reads the file, undoes the conventions and compares every tensor. Returns the largest difference."""
    file = gguf.GGUFReader(path)
    stored = {tensor.name: tensor for tensor in file.tensors}
    largest = 0.0
    for name, value in tensors.items():
        tensor = stored.pop(gguf_name(name, config))
        back = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32).reshape(value.shape)
        if (heads := pair_heads(name, config)) is not None:
            back = unpermuted(back, heads)
        elif config["model_type"] == "gemma3_text" and name.endswith("norm.weight"):
            back = back / query_scale(name, config) - np.float32(1)
        largest = max(largest, float(np.abs(back - value).max()))
    assert set(stored) <= {"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"}, set(stored)
    return largest
