"""Opens a GGUF file of real weights: its tokenizer, and its weights dequantised to float32 in a transformers model.

The configuration is written from the file's own metadata and the conventions of llama.cpp are undone here, so that
nothing hangs on transformers' own conversion of GGUF files.
"""

import functools
import re

import gguf
import numpy as np
import sentencepiece
import torch
import transformers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from tokenizers.normalizers import NFC

from reference.tiny_gguf import gguf_name
from reference.tiny_tokenizer import QWEN_2

NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4


class RealModel:
    """An opened GGUF file."""

    def __init__(self, path):
        self.file = gguf.GGUFReader(path)
        self.architecture = self.field("general.architecture")

    def field(self, name, default=None):
        """A metadata value."""
        return self.file.fields[name].contents() if name in self.file.fields else default

    def number(self, name, default=None):
        """A metadata value of the architecture; floats as the decimal number that was meant."""
        value = self.field(f"{self.architecture}.{name}", default)
        return float(f"{value:.7g}") if isinstance(value, float) else value

    def config(self):
        """The transformers configuration."""
        heads, width = self.number("attention.head_count"), self.number("embedding_length")
        shared = dict(
            vocab_size=len(self.field("tokenizer.ggml.tokens")),
            hidden_size=width,
            intermediate_size=self.number("feed_forward_length"),
            num_hidden_layers=self.number("block_count"),
            num_attention_heads=heads,
            num_key_value_heads=self.number("attention.head_count_kv"),
            max_position_embeddings=self.number("context_length"),
            rms_norm_eps=self.number("attention.layer_norm_rms_epsilon"),
            rope_theta=self.number("rope.freq_base"),
            tie_word_embeddings=not any(t.name == "output.weight" for t in self.file.tensors),
        )
        if self.architecture == "qwen2":
            return transformers.Qwen2Config(**shared)
        if self.architecture != "gemma3":
            raise ValueError(f"no reference for {self.architecture}")
        head_dim = self.number("attention.key_length")
        # The file names neither the local RoPE base, the pattern of layers nor the scale: these are the family's.
        return transformers.Gemma3TextConfig(
            **shared,
            head_dim=head_dim,
            query_pre_attn_scalar=head_dim,
            sliding_window=self.number("attention.sliding_window"),
            sliding_window_pattern=6,
            rope_local_base_freq=10000.0,
            hidden_activation="gelu_pytorch_tanh",
        )

    def model(self):
        """The model with dequantised weights, in float32 and eager attention."""
        config = self.config()
        config.pad_token_id = None
        kind = transformers.Qwen2ForCausalLM if self.architecture == "qwen2" else transformers.Gemma3ForCausalLM
        config._attn_implementation = "eager"
        with torch.device("meta"):
            model = kind(config)
        stored = {tensor.name: tensor for tensor in self.file.tensors}
        named, weights = config.to_dict(), {}
        for name, parameter in model.named_parameters():
            tensor = stored.pop(gguf_name(name, named))
            value = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32).reshape(parameter.shape)
            if self.architecture == "gemma3" and name.endswith("norm.weight"):
                value = value - np.float32(1)
            weights[name] = torch.from_numpy(np.ascontiguousarray(value))
        assert not stored, f"tensors without a place: {sorted(stored)}"
        if config.tie_word_embeddings:
            weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
        model.load_state_dict(weights, assign=True)
        model.tie_weights()
        # What is computed and not stored was made without memory above; a small model of the same class makes it anew.
        small = config.to_dict() | dict(num_hidden_layers=1, vocab_size=8, layer_types=None, tie_word_embeddings=True)
        fresh = kind(type(config)(**small))
        for part in ("rotary_emb", "rotary_emb_local"):
            if hasattr(model.model, part):
                setattr(model.model, part, getattr(fresh.model, part))
        if self.architecture == "gemma3":
            model.model.embed_tokens.embed_scale = fresh.model.embed_tokens.embed_scale
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        assert not any(b.is_meta for b in model.buffers()) and not any(p.is_meta for p in model.parameters())
        return model.eval()

    @functools.cached_property
    def tokenizer(self):
        """What turns text into ids."""
        return ByteLevel(self) if self.field("tokenizer.ggml.model") == "gpt2" else SentencePiece(self)


class ByteLevel:
    """Byte-level BPE from a file's tokens and merges, with Qwen2's splitting rule; no normalisation, no first token."""

    def __init__(self, model):
        tokens, types = model.field("tokenizer.ggml.tokens"), model.field("tokenizer.ggml.token_type")
        assert model.field("tokenizer.ggml.pre") == "qwen2"
        merges = [tuple(merge.split(" ")) for merge in model.field("tokenizer.ggml.merges")]
        self.tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
        self.tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(QWEN_2), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        self.tokenizer.decoder = decoders.ByteLevel()
        added = [(t, kind) for t, kind in zip(tokens, types) if kind in (CONTROL, USER_DEFINED)]
        self.tokenizer.add_tokens([AddedToken(t, normalized=False, special=kind == CONTROL) for t, kind in added])
        assert self.tokenizer.get_vocab_size() == len(tokens)

    def ids(self, text, normalized=False):
        """Ids of a text; the publisher's tokenizer.json normalises to NFC first, which a GGUF file does not say."""
        return self.tokenizer.encode(NFC().normalize_str(text) if normalized else text).ids

    def text(self, ids):
        """The text of ids, special tokens included."""
        return self.tokenizer.decode(ids, skip_special_tokens=False)


class SentencePiece:
    """The file's pieces and scores in the sentencepiece library itself; control tokens are recognised in text."""

    def __init__(self, model):
        self.pieces = model.field("tokenizer.ggml.tokens")
        types, scores = (model.field(f"tokenizer.ggml.{name}") for name in ("token_type", "scores"))
        unknown = model.field("tokenizer.ggml.unknown_token_id")
        proto = sentencepiece_model_pb2.ModelProto()
        for i, (piece, kind, score) in enumerate(zip(self.pieces, types, scores)):
            if kind == USER_DEFINED:
                # llama.cpp's converter writes these with spaces; the library looks for them after spaces are escaped.
                piece = piece.replace(" ", "▁")
            proto.pieces.add(piece=piece, score=score, type=UNKNOWN if i == unknown else kind)
        proto.trainer_spec.model_type = proto.trainer_spec.BPE
        proto.trainer_spec.vocab_size = len(self.pieces)
        proto.trainer_spec.byte_fallback = True
        proto.trainer_spec.unk_id = unknown
        proto.trainer_spec.unk_piece = self.pieces[unknown]
        for name in ("bos", "eos", "padding"):
            short = name.replace("padding", "pad")
            at = model.field(f"tokenizer.ggml.{name}_token_id")
            setattr(proto.trainer_spec, f"{short}_id", at)
            setattr(proto.trainer_spec, f"{short}_piece", self.pieces[at])
        proto.normalizer_spec.name = "identity"
        proto.normalizer_spec.add_dummy_prefix = model.field("tokenizer.ggml.add_space_prefix", True)
        proto.normalizer_spec.remove_extra_whitespaces = False
        proto.normalizer_spec.escape_whitespaces = True
        self.processor = sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
        special = [(p, i) for i, (p, kind) in enumerate(zip(self.pieces, types)) if kind == CONTROL]
        self.special = dict(special)
        self.pattern = re.compile("|".join(re.escape(p) for p in sorted(self.special, key=len, reverse=True)))
        self.first = model.field("tokenizer.ggml.bos_token_id")

    def ids(self, text, normalized=False):
        """Ids of a text, without the token that begins it."""
        found, at = [], 0
        for match in self.pattern.finditer(text):
            found += self.processor.encode(text[at : match.start()]) + [self.special[match.group()]]
            at = match.end()
        return found + self.processor.encode(text[at:])

    def text(self, ids):
        """The text of ids; control tokens become nothing."""
        return self.processor.decode(ids)
