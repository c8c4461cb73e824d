"""A byte-level BPE vocabulary of 300 tokens that all tiny models share, and the files that describe it.

Families differ in how text is split into words before merging and in whether a text begins with a token of its own.
"""

import json

from tokenizers import Tokenizer

# Merges in order of rank. Those of digits and of several spaces tell the splitting rules apart.
MERGES = """
Ġ t|h e|i n|a n|e r|o n|r e|Ġt he|Ġ a|i s|o r|a t|e n|Ġ s|Ġ w|Ġ c|Ġ o|o u|in g|an d|Ġ and|Ġ in|Ġo f|l l|e s|k e|Ġ f
1 9|8 4|19 84|Ġ 19|Ġ Ġ|ĠĠ ĠĠ|Ċ Ċ|Ã ©|Ð ¿|' s|( )|= =|Ġ ke
""".strip().replace("\n", "|").split("|")
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin|>"]

GPT_2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_2 = LLAMA_3.replace("{1,3}", "")
# Named as tokenizer.ggml.pre names them.
SPLITS = {"gpt-2": [GPT_2], "smollm": [r"\p{N}", GPT_2], "llama-bpe": [LLAMA_3], "qwen2": [QWEN_2]}

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
MESSAGES = [
    {"role": "system", "content": "Answer in one word."},
    {"role": "user", "content": "What is the key of 1984?"},
]
STRINGS = [
    "",
    " ",
    "Hello, world!",
    "In 1984, it's the key and 19 of 84; 1,984 == 0x7c0().",
    "  four    spaces\n\nand\ttabs \r\n end\n",
    "café naïve — “quoted” Привет 今天 🎉",
    "<|im_start|>user\nthe thing<|im_end|>\nover<|endoftext|> and <|not_special|>",
    "I'm you're DON'T they'd O'Neil's",
    "snake_case camelCase x**2+y==3 1234567890",
]
TEXT = (
    "In 1984 the keeper of the lighthouse wrote: “No key is lost; it is only kept where nobody looks.” A café in Étretat"
    " still shows his list — 19 names, 84 ships (one of them twice), and a sum: 7 * 12 == 84.\n\n  def kept(x):\n"
    "\treturn x[-32:] + [0.25, 1e-3]  # ¿qué? Да, 今天!\nSince then the tide has taken {half} of it & the wind the other;"
    " what remains is the question who needs all of it, and for how long?"
)


def byte_letters():
    """The printable letter that stands for each byte in a byte-level vocabulary."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters, extra = {}, 0x100
    for byte in range(256):
        if byte in printable:
            letters[byte] = chr(byte)
        else:
            letters[byte], extra = chr(extra), extra + 1
    return printable + [b for b in range(256) if b not in printable], letters


def vocabulary():
    """All tokens by id: bytes, merged words, special tokens."""
    order, letters = byte_letters()
    tokens = [letters[byte] for byte in order] + [merge.replace(" ", "") for merge in MERGES] + SPECIAL
    assert len(tokens) == len(set(tokens)) == 300, len(set(tokens))
    return tokens


def tokenizer_json(pre, begins, whole_words, normalizer):
    """The content of tokenizer.json for one splitting rule."""
    tokens = vocabulary()
    first = len(tokens) - len(SPECIAL)
    added = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    split = lambda p: dict(type="Split", pattern={"Regex": p}, behavior="Isolated", invert=False)
    byte_level = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=False)
    begin = tokens.index("<|begin|>")
    template = dict(
        type="TemplateProcessing",
        single=[{"SpecialToken": {"id": "<|begin|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        pair=[{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        special_tokens={"<|begin|>": {"id": "<|begin|>", "ids": [begin], "tokens": ["<|begin|>"]}},
    )
    return dict(
        version="1.0",
        truncation=None,
        padding=None,
        added_tokens=[dict(id=first + i, content=token, **added) for i, token in enumerate(SPECIAL)],
        normalizer=normalizer and {"type": normalizer},
        pre_tokenizer=dict(type="Sequence", pretokenizers=[*map(split, SPLITS[pre]), byte_level]),
        post_processor=template if begins else byte_level,
        decoder=dict(type="ByteLevel", add_prefix_space=True, trim_offsets=True, use_regex=True),
        model=dict(
            type="BPE",
            dropout=None,
            unk_token=None,
            continuing_subword_prefix=None,
            end_of_word_suffix=None,
            fuse_unk=False,
            byte_fallback=False,
            ignore_merges=whole_words,
            vocab={token: i for i, token in enumerate(tokens[:first])},
            merges=[merge.split(" ") for merge in MERGES],
        ),
    )


def write(folder, pre, begins, tokenizer_class, chat, template_file):
    """Writes tokenizer.json, tokenizer_config.json and, if asked, chat_template.jinja. Returns the tokenizer."""
    normalizer = "NFC" if pre == "qwen2" else None
    content = tokenizer_json(pre, begins, pre == "llama-bpe", normalizer)
    (folder / "tokenizer.json").write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")))
    config = dict(
        add_bos_token=begins,
        bos_token="<|begin|>" if begins else None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
        model_max_length=256,
        tokenizer_class=tokenizer_class,
    )
    if chat and template_file:
        (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    elif chat:
        config["chat_template"] = CHAT_TEMPLATE
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n")
    return Tokenizer.from_str(json.dumps(content))


def prompt(tokenizer, length, start):
    """A stretch of TEXT that is exactly so many tokens long: (text, ids)."""
    for end in range(start + 1, len(TEXT) + 1):
        text = TEXT[start:end]
        ids = tokenizer.encode(text).ids
        if len(ids) == length:
            return text, ids
    raise ValueError(f"no stretch of the text has {length} tokens")
