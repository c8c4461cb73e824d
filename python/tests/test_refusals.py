"""Everything that cannot be captured, or is asked for wrongly, is refused by what was found."""

from __future__ import annotations

import io
import os
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import torch
import transformers
from transformers.models.llama import modeling_llama
from transformers.models.mistral import modeling_mistral

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from kvprof_capture import CaptureError, capture
from tiny_models import LAYERS, built, configured, family, token_ids

IDS = token_ids(12)


class RefusalTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name) / "capture"
        transformers.logging.set_verbosity_error()

    def refused(self, message, model, prompts=(IDS,), **options):
        with self.assertRaisesRegex(CaptureError, message):
            capture(model, list(prompts), options.pop("out", io.BytesIO()), **options)

    def test_models_by_their_attention(self):
        refusals = {
            "soft-capped logits": configured("Gemma2Config", head_dim=8),
            "values 6 wide and keys 12 wide": configured(
                "DeepseekV3Config",
                num_key_value_heads=4,
                qk_nope_head_dim=8,
                qk_rope_head_dim=4,
                v_head_dim=6,
                kv_lora_rank=8,
                q_lora_rank=8,
                first_k_dense_replace=LAYERS,
            ),
            "c_proj of type Conv1D": transformers.GPT2Config(n_embd=32, n_head=4, n_layer=2, vocab_size=64),
            "not causal": configured("Gemma3TextConfig", head_dim=8, use_bidirectional_attention=True),
            "chunked_attention": configured(
                "Llama4TextConfig", head_dim=8, intermediate_size_mlp=16, moe_layers=[], no_rope_layers=[1, 1, 1]
            ),
        }
        for message, config in refusals.items():
            with self.subTest(message):
                self.refused(message, built(config))

    def test_attention_sinks_and_models_without_sdpa(self):
        config = configured("GptOssConfig", head_dim=8, num_local_experts=2, num_experts_per_tok=1)
        self.refused("attention sinks", built(config, "eager"), attention="eager")
        self.refused("does not take sdpa attention", built(config, "eager"))

    def test_layers_that_do_not_go_through_the_interface(self):
        bloom = transformers.BloomConfig(hidden_size=32, n_head=4, n_layer=2, vocab_size=64)
        self.refused("does not go through", built(bloom, "eager"))
        hybrid = configured(
            "Qwen3NextConfig",
            head_dim=8,
            layer_types=["linear_attention", "linear_attention", "full_attention"],
            linear_num_value_heads=2,
            linear_num_key_heads=2,
            linear_key_head_dim=8,
            linear_value_head_dim=8,
            num_experts=2,
            num_experts_per_tok=1,
            moe_intermediate_size=16,
            shared_expert_intermediate_size=16,
        )
        self.refused("changes its heads", built(hybrid))
        hybrid = configured("Lfm2Config", layer_types=["conv", "full_attention", "conv"])
        self.refused("1 of 3 layers computed .* layer 0 is the first", built(hybrid))

    def test_encoder_decoders_and_other_objects(self):
        config = transformers.T5Config(d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2, vocab_size=64)
        self.refused("encoder and a decoder", transformers.T5ForConditionalGeneration(config))
        self.refused("no model of transformers", torch.nn.Linear(2, 2))

    def test_types_that_captures_do_not_hold(self):
        self.refused("float64", family("llama", dtype=torch.float64))

    def test_values_that_are_no_numbers(self):
        model = family("llama")
        with torch.no_grad():
            # The first look sees eight tokens; the one that has no number comes later.
            model.model.embed_tokens.weight[0] = torch.inf
        self.refused("infinite or not numbers", model, [[*range(1, 11), 0, 5]])

    def test_a_formula_that_nobody_named(self):
        eager = modeling_llama.eager_attention_forward

        def biased(module, query, key, value, mask, **options):
            output, weights = eager(module, query, key, value, mask, **options)
            return output + 0.01 * value.abs().max(), weights

        with mock.patch.object(modeling_llama, "eager_attention_forward", biased):
            self.refused("does not compute softmax", family("llama", "eager"), attention="eager")

    def test_heads_that_are_changed_before_the_output_projection(self):
        model = family("llama")
        model.model.layers[1].self_attn.o_proj.register_forward_pre_hook(lambda _, inputs: (inputs[0] * 2,))
        self.refused("layer 1 .* changes its heads", model)

    def test_a_window_that_is_not_masked(self):
        ids = token_ids(20)
        with mock.patch.object(
            modeling_mistral, "create_sliding_window_causal_mask", modeling_mistral.create_causal_mask
        ):
            self.refused("declares a window of 6", family("mistral"), [ids])
            self.refused("not causal with a window of 6", family("mistral", "eager"), [ids], attention="eager")

    def test_a_mask_that_is_missing(self):
        with mock.patch.object(modeling_llama, "create_causal_mask", lambda **_: None):
            self.refused("not causal", family("llama", "eager"), attention="eager")

    def test_output_projections_that_are_not_plain(self):
        model = family("llama")
        model.model.layers[0].self_attn.o_proj = torch.nn.Sequential(model.model.layers[0].self_attn.o_proj)
        self.refused("o_proj of type Sequential", model)

    def test_prompts(self):
        model = family("llama")
        self.refused("token 64; the vocabulary is 0 to 63", model, [[1, 64]])
        self.refused("token -1", model, [[1, -1]])
        self.refused("empty prompt", model, [[]])
        self.refused("no prompt", model, [])
        self.refused("needs a tokenizer", model, ["text"])
        self.refused("12 tokens, more than --max-prompt-tokens 11", model, max_prompt_tokens=11)
        self.refused('"ids" that are not', model, [{"ids": [1.5]}])
        self.refused("neither", model, [{"id": "a"}])
        self.refused("has the id '1' of", model, [{"id": "1", "ids": IDS}, IDS])
        self.refused("window of 0", model, window=0)
        self.refused("'flash' is not known", model, attention="flash")

    def test_folders_that_are_in_use(self):
        model = family("llama")
        self.folder.mkdir()
        other = self.folder / "notes.txt"
        other.write_text("mine")
        for resume in (False, True):
            self.refused("holds notes.txt", model, out=self.folder, resume=resume)
        other.unlink()
        capture(model, [IDS], self.folder)
        self.refused("holds a capture", model, out=self.folder)
        self.refused("its window is 32, this one's is 5", model, out=self.folder, resume=True, window=5)
        self.refused("its prompts is", model, [IDS[:-1]], out=self.folder, resume=True)
        self.refused("its model.name is", model, out=self.folder, resume=True, name="other")
        self.refused("its made_by is", model, out=self.folder, resume=True, attention="eager")
        (self.folder / "capture.json").write_text('{"format": "other"}')
        self.refused("is not the capture.json", model, out=self.folder, resume=True)
        self.refused("is not a folder", model, out=self.folder / "capture.json")

    def test_nothing_half_written_is_left(self):
        replace, count = os.replace, 0

        def failing(source, target):
            nonlocal count
            count += 1
            if count == LAYERS + 3:
                raise OSError("disk full")
            replace(source, target)

        model = family("llama")
        with mock.patch("os.replace", failing), self.assertRaisesRegex(OSError, "disk full"):
            capture(model, [IDS], self.folder)
        self.assertEqual(list(self.folder.rglob("*.tmp")), [])
        self.assertTrue((self.folder / "prompt-00000/layer-000.safetensors").is_file())
        self.assertFalse((self.folder / "prompt-00000/layer-001.safetensors").exists())
        self.assertEqual(model.config._attn_implementation, "sdpa")
        capture(model, [IDS], self.folder, resume=True)
        self.assertTrue((self.folder / "prompt-00000/layer-002.safetensors").is_file())


if __name__ == "__main__":
    unittest.main()
