"""The command line: what it writes, what it refuses, and that a stream holds nothing else."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import torch
from safetensors.torch import load_file

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from kvprof_capture.__main__ import main
from kvprof_capture.identity import model_sha256
from kvprof_capture.prompts import entries_of, read_prompts, tokenized
from tiny_models import LAYERS, family, token_ids

PACKAGE = Path(__file__).parent.parent
LINES = [{"id": "a", "ids": token_ids(12, 1)}, {"ids": token_ids(7, 2)}]


class Tokenizer:
    """Letters by their place; the template says who speaks."""

    chat_template = "given"

    def __call__(self, text):
        return {"input_ids": [ord(letter) % 64 for letter in text]}

    def apply_chat_template(self, messages, *, add_generation_prompt, tokenize, return_dict):
        assert tokenize and not return_dict
        (message,) = messages
        return [1, *self(message["role"] + message["content"])["input_ids"], *([2] if add_generation_prompt else [])]


class CommandTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.owned = tempfile.TemporaryDirectory()
        cls.model = Path(cls.owned.name) / "tiny-llama"
        family("llama").save_pretrained(cls.model)

    @classmethod
    def tearDownClass(cls):
        cls.owned.cleanup()

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.prompts = self.written("prompts.jsonl", "\n".join(json.dumps(line) for line in LINES))

    def written(self, name, text):
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return path

    def run_main(self, *arguments):
        """The exit code and what was said on standard error."""
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            try:
                code = main([str(argument) for argument in arguments])
            except SystemExit as end:
                code = end.code
        return code, said.getvalue()

    def refused(self, message, *arguments, code=1):
        got, said = self.run_main(*arguments)
        self.assertEqual(got, code, said)
        self.assertRegex(said, message)
        if code == 1:
            self.assertEqual(said.count("\n"), 1, said)
            self.assertTrue(said.startswith("kvprof_capture: error: "))

    def test_a_folder_by_the_command(self):
        out = self.folder / "out"
        code, said = self.run_main(self.model, "--prompts", self.prompts, "--out", out, "--window", "4")
        self.assertEqual(code, 0, said)
        self.assertIn("prompt 1 of 2: a, 12 tokens\nprompt 2 of 2: 1, 7 tokens\n", said)
        header = json.loads((out / "capture.json").read_text())
        self.assertEqual(header["window"], 4)
        self.assertEqual((header["model"]["name"], header["model"]["source"]), ("tiny-llama", str(self.model)))
        self.assertEqual(header["model"]["sha256"], model_sha256(str(self.model), None))
        self.assertEqual(header["data"]["name"], "prompts")
        self.assertEqual(header["data"]["sha256"], self.sum_of(self.prompts))
        self.assertEqual([prompt["id"] for prompt in header["prompts"]], ["a", "1"])

        again = self.folder / "again"
        arguments = ("--prompts", out / "capture.json", "--out", again, "--window", "4", "--limit", "1", "--quiet")
        self.assertEqual(self.run_main(self.model, *arguments), (0, ""))
        self.assertEqual(json.loads((again / "capture.json").read_text())["data"]["name"], "prompts")
        for layer in range(LAYERS):
            name = f"prompt-00000/layer-{layer:03}.safetensors"
            self.assertEqual((again / name).read_bytes(), (out / name).read_bytes())
        self.assertFalse((again / "prompt-00001").exists())
        self.refused("holds a capture", self.model, *arguments)
        self.assertEqual(self.run_main(self.model, *arguments, "--resume"), (0, ""))

    def test_all_rows_in_another_type_by_device_map(self):
        out = self.folder / "out"
        arguments = ("--window", "all", "--dtype", "bfloat16", "--device-map", "auto", "--attention", "eager")
        code, said = self.run_main(self.model, "--prompts", self.prompts, "--out", out, *arguments)
        self.assertEqual(code, 0, said)
        queries = load_file(out / "prompt-00000/layer-001.safetensors")["queries"]
        self.assertEqual((queries.shape[1], queries.dtype), (12, torch.bfloat16))

    def test_a_stream_holds_nothing_else(self):
        out = self.folder / "out"
        self.assertEqual(self.run_main(self.model, "--prompts", self.prompts, "--out", out, "--quiet"), (0, ""))
        command = [sys.executable, "-m", "kvprof_capture", self.model, "--prompts", self.prompts, "--stream", "--quiet"]
        done = subprocess.run(
            command, capture_output=True, check=True, env={**os.environ, "PYTHONPATH": str(PACKAGE)}, timeout=120
        )
        self.assertEqual(done.stderr, b"")
        line, _, rest = done.stdout.partition(b"\n")
        self.assertEqual(line + b"\n", (out / "capture.json").read_bytes())
        files = 0
        while rest:
            length = int.from_bytes(rest[:8], "little")
            tensors = {k: v for k, v in json.loads(rest[8 : 8 + length]).items() if k != "__metadata__"}
            self.assertEqual(tensors.keys(), {"queries", "keys", "values", "output"})
            rest = rest[8 + length + max(tensor["data_offsets"][1] for tensor in tensors.values()) :]
            files += 1
        self.assertEqual(files, len(LINES) * LAYERS)

    def test_a_reader_that_goes_away(self):
        command = [sys.executable, "-m", "kvprof_capture", self.model, "--prompts", self.prompts, "--stream", "--quiet"]
        environment = {**os.environ, "PYTHONPATH": str(PACKAGE)}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
        process.stdout.close()
        said = process.stderr.read().decode()
        process.stderr.close()
        self.assertEqual(process.wait(120), 1)
        self.assertEqual(said, "kvprof_capture: error: the reader closed the stream before the capture was whole\n")

    def test_prompts_that_are_wrong(self):
        out = self.folder / "out"

        def check(message, text):
            self.refused(message, self.model, "--prompts", self.written("bad.jsonl", text), "--out", out)

        self.refused("cannot read the prompts of .*No such file", self.model, "--prompts", "nowhere", "--out", out)
        check("line 2 of .* is not JSON", '{"ids": [1]}\n{"ids": [1\n')
        check("line 1 of .* is not a JSON object", "[1, 2]")
        check('line 2 of .* has neither "ids" nor "prompt"', '{"ids": [1]}\n{"text": "x"}')
        check("line 1 of .* has an empty prompt", '{"ids": []}')
        check("line 1 of .* has an empty prompt", '{"prompt": ""}')
        check("holds no prompt", "\n\n")
        check("the token 64; the vocabulary is 0 to 63", '{"ids": [1, 64]}')
        check("not a list of whole numbers", '{"ids": [true]}')
        check('"prompt" that is not text', '{"prompt": 7}')
        check('"id" that is neither', '{"id": [1], "ids": [1]}')
        check("has the id 'a' of line 1", '{"id": "a", "ids": [1]}\n{"id": "a", "ids": [2]}')
        check("version 2", '{"format": "kvprof-capture", "version": 2}')
        (self.folder / "latin.jsonl").write_bytes(b'{"prompt": "\xe9"}')
        self.refused("is not UTF-8", self.model, "--prompts", self.folder / "latin.jsonl", "--out", out)
        self.refused(
            "12 tokens, more than", self.model, "--prompts", self.prompts, "--out", out, "--max-prompt-tokens", 11
        )
        self.assertFalse(out.exists())

    def test_models_devices_and_usage_that_are_wrong(self):
        out = ("--prompts", self.prompts, "--out", self.folder / "out")
        self.refused("cannot load /nowhere", "/nowhere", *out)
        self.refused("cannot load .*nonsense", self.model, *out, "--device", "nonsense")
        self.refused("required: MODEL, --prompts", code=2)
        self.refused("one of the arguments --out --stream", self.model, "--prompts", self.prompts, code=2)
        self.refused("not allowed with", self.model, *out, "--stream", code=2)
        self.refused("window", self.model, *out, "--window", "some", code=2)
        self.refused("0 is not 1 or more", self.model, *out, "--window", "0", code=2)
        self.refused("invalid choice", self.model, *out, "--dtype", "int8", code=2)
        self.refused("say the same thing", self.model, *out, "--device", "cpu", "--device-map", "auto", code=2)
        self.assertFalse((self.folder / "out").exists())

    def test_texts_become_ids(self):
        given = [("line 1", "0", {"prompt": "ab"}), ("line 2", "1", {"ids": [5]}), ("line 3", "2", "c")]
        entries = entries_of(given)
        self.assertEqual([prompt.ids for prompt in tokenized(entries, Tokenizer(), chat=False)], [[33, 34], [5], [35]])
        wrapped = [1, *(ord(letter) % 64 for letter in "userab"), 2]
        self.assertEqual([prompt.ids for prompt in tokenized(entries[:2], Tokenizer(), chat=True)], [wrapped, [5]])

    def test_lines_are_numbered_as_they_stand_and_limited(self):
        path = self.written(
            "lines.jsonl", '\ufeff{"prompt": "a"}\n\n{"id": 7, "prompt": "b\u2028"}\n{"prompt": "c"}\n{'
        )
        found = read_prompts(path, 3)
        self.assertEqual(
            [(entry.id, entry.content) for entry in found.entries], [("0", "a"), ("7", "b\u2028"), ("3", "c")]
        )
        self.assertEqual((found.name, found.sha256), ("lines", self.sum_of(path)))

    def test_the_digest_of_a_folder_is_that_of_sha256sum(self):
        names = ("config.json", "generation_config.json", "model.safetensors")
        lines = sorted(f"{self.sum_of(self.model / name)}  {name}\n" for name in names)
        path = self.written("sums", "".join(lines))
        self.assertEqual(model_sha256(str(self.model), None), self.sum_of(path))
        self.assertEqual(model_sha256(str(self.model), "config.json"), self.sum_of(self.model / "config.json"))
        self.assertEqual(model_sha256(str(self.folder), None), "")

    def sum_of(self, path):
        done = subprocess.run(["sha256sum", path], capture_output=True, check=True, text=True)
        return done.stdout.split()[0]


if __name__ == "__main__":
    unittest.main()
