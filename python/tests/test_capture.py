"""What is captured, against what unpatched models compute."""

from __future__ import annotations

import io
import json
import struct
import sys
import tempfile
import unittest
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load, load_file

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import kvprof_capture
from kvprof_capture import capture
from tiny_models import FAMILIES, LAYERS, family, token_ids

PROMPTS = [token_ids(20, 1), token_ids(9, 2)]


def own_outputs(model, ids):
    """What every attention module of an unpatched model gives, `(tokens, hidden)`."""
    found, handles = {}, []

    def keep(module, _, output):
        found[module.layer_idx] = output[0][0]

    for module in model.modules():
        if hasattr(module, "o_proj"):
            handles.append(module.register_forward_hook(keep))
    with torch.no_grad():
        model(input_ids=torch.tensor([ids]))
    for handle in handles:
        handle.remove()
    return found


def recomputed(tensors, output, window, scale):
    """Attention times W_o of the captured rows, in loops over query heads."""
    queries, keys, values = (tensors[name].double() for name in ("queries", "keys", "values"))
    heads, rows, _ = queries.shape
    tokens = keys.shape[1]
    group = heads // keys.shape[0]
    mixed = []
    for head in range(heads):
        logits = scale * queries[head] @ keys[head // group].T
        for row in range(rows):
            position = tokens - rows + row
            logits[row, position + 1 :] = -torch.inf
            if window is not None:
                logits[row, : max(0, position - window + 1)] = -torch.inf
        mixed.append(logits.softmax(-1) @ values[head // group])
    return torch.cat(mixed, dim=1) @ output.double().T


def streamed(content):
    """The header and the tensors of a stream, cut by what its files say of their lengths."""
    line, _, rest = content.partition(b"\n")
    files = []
    while rest:
        (length,) = struct.unpack("<Q", rest[:8])
        header = json.loads(rest[8 : 8 + length])
        metadata = header.pop("__metadata__")
        end = 8 + length + max(tensor["data_offsets"][1] for tensor in header.values())
        files.append((metadata, load(rest[:end])))
        rest = rest[end:]
    return json.loads(line), files


class CaptureTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name) / "capture"
        torch.set_num_threads(1)

    def header(self):
        return json.loads((self.folder / "capture.json").read_text())

    def layer(self, prompt, layer):
        return load_file(self.folder / f"prompt-{prompt:05}" / f"layer-{layer:03}.safetensors")

    def output(self, layer):
        return load_file(self.folder / f"output-{layer:03}.safetensors")["output"]

    def check_against_unpatched(self, name, attention, window):
        truth = FAMILIES[name]
        capture(family(name), PROMPTS, self.folder, window=window, attention=attention)
        layers = self.header()["model"]["layers"]
        self.assertEqual([layer["window"] for layer in layers], list(truth.windows))
        for prompt, ids in enumerate(PROMPTS):
            expected = own_outputs(family(name, "eager"), ids)
            rows = len(ids) if window is None else min(window, len(ids))
            for layer in range(LAYERS):
                self.assertAlmostEqual(layers[layer]["scale"], truth.scale)
                tensors = self.layer(prompt, layer)
                self.assertEqual(tensors["queries"].shape, (4, rows, truth.head_dim))
                self.assertEqual(tensors["keys"].shape, (2, len(ids), truth.head_dim))
                got = recomputed(tensors, self.output(layer), truth.windows[layer], layers[layer]["scale"])
                torch.testing.assert_close(got.float(), expected[layer][-rows:], rtol=1e-5, atol=1e-5)

    def test_captured_tensors_give_what_unpatched_attention_gives(self):
        for name in FAMILIES:
            for attention in ("sdpa", "eager"):
                for window in (5, 12, None):
                    with self.subTest(name, attention=attention, window=window):
                        self.folder = self.folder.with_name(f"{name}-{attention}-{window}")
                        self.check_against_unpatched(name, attention, window)

    def test_the_comparison_sees_a_wrong_window_a_wrong_scale_and_a_wrong_row(self):
        capture(family("gemma3"), PROMPTS, self.folder, window=5)
        expected = own_outputs(family("gemma3", "eager"), PROMPTS[0])[0]
        tensors, output, scale = self.layer(0, 0), self.output(0), 10**-0.5
        wrong = {
            "window": (recomputed(tensors, output, 7, scale), expected[-5:]),
            "no window": (recomputed(tensors, output, None, scale), expected[-5:]),
            "scale": (recomputed(tensors, output, 6, 0.25), expected[-5:]),
            "row": (recomputed(tensors, output, 6, scale), expected[-6:-1]),
        }
        for name, (got, true) in wrong.items():
            with self.subTest(name):
                self.assertFalse(torch.allclose(got.float(), true, rtol=1e-5, atol=1e-5))

    def test_watching_changes_no_bit_and_leaves_the_model_as_it_was(self):
        for attention in ("sdpa", "eager"):
            for name in FAMILIES:
                with self.subTest(name, attention=attention):
                    model, seen = family(name, attention), []
                    ids = torch.tensor([PROMPTS[0]])
                    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
                    with torch.no_grad():
                        before = model(**inputs).logits
                    model.train()
                    handle = model.lm_head.register_forward_hook(lambda _m, _i, logits, seen=seen: seen.append(logits))
                    capture(model, PROMPTS[:1], io.BytesIO(), attention=attention)
                    handle.remove()
                    self.assertTrue(model.training)
                    self.assertEqual(model.config._attn_implementation, attention)
                    # The first look comes before the prompt; the last token alone has logits.
                    self.assertEqual(seen[-1].shape[1], 1)
                    last = family(name, attention).lm_head.weight
                    self.assertTrue(torch.equal(last, model.lm_head.weight))
                    self.assertTrue(torch.allclose(seen[-1][0, -1], before[0, -1], rtol=1e-4, atol=1e-4))
                    with torch.no_grad():
                        self.assertTrue(torch.equal(model.eval()(**inputs).logits, before))

    def test_logits_inside_the_watch_are_those_outside_bit_for_bit(self):
        from kvprof_capture.attention import captured_attention

        for name in FAMILIES:
            for attention in ("sdpa", "eager"):
                with self.subTest(name, attention=attention), torch.no_grad():
                    model, ids = family(name, attention), torch.tensor([PROMPTS[0]])
                    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
                    before = model(**inputs).logits
                    with captured_attention(model, attention):
                        self.assertTrue(torch.equal(model(**inputs).logits, before))

    def test_folder_and_stream_hold_the_same(self):
        capture(family("qwen2"), PROMPTS, self.folder, window=5)
        stream = io.BytesIO()
        capture(family("qwen2"), PROMPTS, stream, window=5)
        header, files = streamed(stream.getvalue())
        self.assertEqual(header, self.header())
        places = [(prompt, layer) for prompt in range(len(PROMPTS)) for layer in range(LAYERS)]
        self.assertEqual(
            [metadata for metadata, _ in files], [{"prompt": str(p), "layer": str(layer)} for p, layer in places]
        )
        for (prompt, layer), (_, tensors) in zip(places, files, strict=True):
            expected = {**self.layer(prompt, layer), "output": self.output(layer)}
            self.assertEqual(tensors.keys(), expected.keys())
            for name, tensor in tensors.items():
                self.assertTrue(torch.equal(tensor, expected[name]), name)

    def test_files_say_what_they_are(self):
        capture(family("llama"), PROMPTS, self.folder)
        with safe_open(self.folder / "prompt-00001/layer-002.safetensors", "pt") as file:
            self.assertEqual(file.metadata(), {"prompt": "1", "layer": "2"})
        with safe_open(self.folder / "output-002.safetensors", "pt") as file:
            self.assertEqual(file.metadata(), {"layer": "2"})
        names = sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())
        expected = [f"prompt-{p:05}/layer-{layer:03}.safetensors" for p in range(2) for layer in range(LAYERS)]
        outputs = [f"output-{layer:03}.safetensors" for layer in range(LAYERS)]
        self.assertEqual(names, sorted(["capture.json", *outputs, *expected]))

    def test_the_header_says_what_was_captured(self):
        prompts = [{"id": "first", "ids": PROMPTS[0]}, {"ids": PROMPTS[1]}, torch.tensor(PROMPTS[1])]
        capture(family("qwen3"), prompts, self.folder, window=None, name="tiny", source="here", sha256="ab")
        header = self.header()
        self.assertEqual(
            list(header),
            ["format", "version", "byte_order", "made_by", "device", "dtype", "window", "model", "data", "prompts"],
        )
        self.assertEqual((header["format"], header["version"], header["byte_order"]), ("kvprof-capture", 1, "little"))
        self.assertIn(f"kvprof_capture {kvprof_capture.__version__}, transformers ", header["made_by"])
        self.assertEqual((header["device"], header["dtype"], header["window"]), ("cpu", "f32", None))
        layers = header["model"].pop("layers")
        self.assertEqual(layers, [{"window": None, "scale": 0.25}] * LAYERS)
        expected = {"name": "tiny", "source": "here", "sha256": "ab", "architecture": "qwen3", "num_heads": 4}
        expected |= {"num_kv_heads": 2, "head_dim": 16, "hidden_size": 32}
        self.assertEqual(header["model"], expected)
        self.assertEqual(header["data"], {"name": "prompts", "sha256": ""})
        ids = [("first", PROMPTS[0]), ("1", PROMPTS[1]), ("2", PROMPTS[1])]
        self.assertEqual(header["prompts"], [{"id": name, "ids": given} for name, given in ids])

    def test_half_types_are_kept(self):
        for dtype, name in ((torch.bfloat16, "bf16"), (torch.float16, "f16")):
            with self.subTest(name):
                self.folder = self.folder.with_name(name)
                capture(family("llama", dtype=dtype), PROMPTS, self.folder)
                self.assertEqual(self.header()["dtype"], name)
                tensors = {**self.layer(0, 1), "output": self.output(1)}
                self.assertEqual({tensor.dtype for tensor in tensors.values()}, {dtype})
                expected = own_outputs(family("llama", "eager", dtype), PROMPTS[0])[1].float()
                got = recomputed(tensors, tensors["output"], None, 8**-0.5).float()
                self.assertLess((got - expected).abs().max() / expected.abs().max(), 0.03)

    def test_weights_that_accelerate_keeps_elsewhere_are_brought(self):
        from accelerate import cpu_offload

        capture(family("llama"), PROMPTS, self.folder)
        model = cpu_offload(family("llama"), execution_device="cpu")
        self.assertTrue(model.model.layers[0].self_attn.o_proj.weight.is_meta)
        stream = io.BytesIO()
        capture(model, PROMPTS, stream)
        for metadata, tensors in streamed(stream.getvalue())[1]:
            self.assertTrue(torch.equal(tensors["output"], self.output(int(metadata["layer"]))))
            expected = self.layer(int(metadata["prompt"]), int(metadata["layer"]))
            self.assertTrue(torch.equal(tensors["keys"], expected["keys"]))

    def test_resume_writes_what_is_missing_and_nothing_else(self):
        capture(family("llama"), PROMPTS, self.folder)
        paths = [path for path in self.folder.rglob("*") if path.is_file()]
        whole = {path: path.read_bytes() for path in paths}
        missing = self.folder / "prompt-00001/layer-001.safetensors"
        output = self.folder / "output-000.safetensors"
        for path in (missing, output):
            path.unlink()
        missing.with_name(missing.name + ".tmp").write_bytes(b"half")
        kept = self.folder / "prompt-00000/layer-000.safetensors"
        before = kept.stat().st_ino
        capture(family("llama"), PROMPTS, self.folder, resume=True)
        self.assertEqual(kept.stat().st_ino, before)
        found = {path: path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}
        self.assertEqual(found.keys(), whole.keys())
        self.assertEqual([path for path in whole if found[path] != whole[path]], [])

    def test_resume_begins_where_nothing_is(self):
        capture(family("llama"), PROMPTS, self.folder, resume=True)
        self.assertTrue((self.folder / "prompt-00001/layer-002.safetensors").is_file())


if __name__ == "__main__":
    unittest.main()
