"""Prefill and decoding of PyTorch (transformers, sdpa, bfloat16) on a GPU, printed as JSON.

    python3 scripts/gpu_torch.py 1024 4096 8000

The model has SmolLM2-135M's geometry and random weights: how long a product takes does not depend on its numbers.

Units: seconds for a prefill; milliseconds per token for decoding.
"""

import json
import statistics
import sys
import time

import torch
from transformers import LlamaConfig, LlamaForCausalLM

REPEATS = 3
STEPS = 32


def network():
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        attn_implementation="sdpa",
    )
    return LlamaForCausalLM(config).to("cuda", torch.bfloat16).eval()


def timed(work):
    torch.cuda.synchronize()
    start = time.perf_counter()
    result = work()
    torch.cuda.synchronize()
    return result, time.perf_counter() - start


def measure(model, length):
    ids = torch.tensor([[100 + 7 * i % 3000 for i in range(length)]], device="cuda")
    prefills, steps = [], []
    for _ in range(REPEATS + 1):  # the first warms up
        out, seconds = timed(lambda: model(ids, use_cache=True, logits_to_keep=1))
        prefills.append(seconds)

        def decode(out=out):
            for _ in range(STEPS):
                next_id = out.logits[:, -1:].argmax(-1)
                out = model(next_id, past_key_values=out.past_key_values, use_cache=True)

        steps.append(timed(decode)[1] / STEPS * 1e3)
    middle = statistics.median
    return {"length": length, "prefill_s": middle(prefills[1:]), "decode_ms": middle(steps[1:])}


def main():
    model = network()
    with torch.inference_mode():
        rows = [measure(model, int(length)) for length in sys.argv[1:]]
    print(json.dumps({"torch": torch.__version__, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
