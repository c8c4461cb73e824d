//! Hand-computed ids of toy vocabularies, and metadata that must not panic.

mod damaged;
mod json;

use std::io::Cursor;
use std::path::PathBuf;

use candle_core::quantized::gguf_file::{self, Value};

use super::*;

type Metadata = Vec<(String, Value)>;

/// A GGUF file with metadata and no tensors.
struct Toy {
    folder: tempfile::TempDir,
}

impl Toy {
    fn new(metadata: &Metadata) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = Cursor::new(Vec::new());
        let pairs: Vec<_> = metadata
            .iter()
            .map(|(key, value)| (key.as_str(), value))
            .collect();
        gguf_file::write(&mut bytes, &pairs, &[]).ok()?;
        std::fs::write(folder.path().join("toy.gguf"), bytes.into_inner()).unwrap();
        Some(Self { folder })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn open(&self) -> Gguf {
        Gguf::open(&self.path("toy.gguf")).unwrap()
    }
}

fn tokenizer(metadata: &Metadata) -> Result<Tokenizer> {
    Tokenizer::from_gguf(&Toy::new(metadata).unwrap().open())
}

fn message(metadata: &Metadata) -> String {
    tokenizer(metadata).unwrap_err().to_string()
}

fn texts<'a>(items: impl IntoIterator<Item = &'a str>) -> Value {
    Value::Array(
        items
            .into_iter()
            .map(|s| Value::String(s.to_owned()))
            .collect(),
    )
}

fn set(metadata: &Metadata, key: &str, value: Value) -> Metadata {
    let mut changed = without(metadata, key);
    changed.push((key.to_owned(), value));
    changed
}

fn without(metadata: &Metadata, key: &str) -> Metadata {
    metadata
        .iter()
        .filter(|(name, _)| name != key)
        .cloned()
        .collect()
}

const BYTE_LEVEL: &[(&str, i32)] = &[
    ("<|endoftext|>", 3),
    ("<|im_start|>", 3),
    ("<|im_end|>", 3),
    ("<tag>", 4),
    ("a", 1),
    ("b", 1),
    ("c", 1),
    ("Ġ", 1),
    ("1", 1),
    ("2", 1),
    ("ab", 1),
    ("abc", 1),
    ("Ġab", 1),
    ("Ã", 1),
    ("©", 1),
    ("12", 1),
];

fn byte_level() -> Metadata {
    let tokens = BYTE_LEVEL.iter().map(|(text, _)| *text);
    let kinds = BYTE_LEVEL
        .iter()
        .map(|(_, kind)| Value::I32(*kind))
        .collect();
    [
        ("tokenizer.ggml.model", Value::String("gpt2".into())),
        ("tokenizer.ggml.pre", Value::String("smollm".into())),
        ("tokenizer.ggml.tokens", texts(tokens)),
        ("tokenizer.ggml.token_type", Value::Array(kinds)),
        (
            "tokenizer.ggml.merges",
            texts(["a b", "ab c", "Ġ ab", "1 2"]),
        ),
        ("tokenizer.ggml.bos_token_id", Value::U32(1)),
        ("tokenizer.ggml.eos_token_id", Value::U32(2)),
        ("tokenizer.ggml.add_bos_token", Value::Bool(false)),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .to_vec()
}

/// Three marks, 256 bytes, and from id 259 on these pieces.
const PIECES: &[(&str, f32, i32)] = &[
    ("▁", -4.0, 1),       // 259
    ("a", -5.0, 1),       // 260
    ("b", -6.0, 1),       // 261
    ("ab", -1.0, 1),      // 262
    ("▁ab", -2.0, 1),     // 263
    ("c", -7.0, 1),       // 264
    ("bc", -3.0, 1),      // 265
    ("<|end|>", 0.0, 4),  // 266
    ("<|user|>", 0.0, 3), // 267
];

fn sentence_piece() -> Metadata {
    let mut tokens = vec!["<unk>".to_owned(), "<s>".to_owned(), "</s>".to_owned()];
    let mut kinds = vec![Value::I32(2), Value::I32(3), Value::I32(3)];
    let mut scores = vec![Value::F32(0.0); 3];
    for byte in 0..=255u8 {
        tokens.push(format!("<0x{byte:02X}>"));
        kinds.push(Value::I32(6));
        scores.push(Value::F32(0.0));
    }
    for (text, score, kind) in PIECES {
        tokens.push((*text).to_owned());
        kinds.push(Value::I32(*kind));
        scores.push(Value::F32(*score));
    }
    [
        ("tokenizer.ggml.model", Value::String("llama".into())),
        (
            "tokenizer.ggml.tokens",
            texts(tokens.iter().map(String::as_str)),
        ),
        ("tokenizer.ggml.token_type", Value::Array(kinds)),
        ("tokenizer.ggml.scores", Value::Array(scores)),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .to_vec()
}

#[test]
fn byte_level_ids() {
    let toy = tokenizer(&byte_level()).unwrap();
    for (text, ids) in [
        ("", &[][..]),
        ("abc ab", &[11, 12]),
        // "a b" merges before "b c" could, and " ab" is a word of its own.
        ("cab", &[6, 10]),
        ("12", &[8, 9]),
        ("é", &[13, 14]),
        ("a<|im_end|>b<tag>c", &[4, 2, 5, 3, 6]),
        ("<|im_start|>ab", &[1, 10]),
    ] {
        assert_eq!(toy.encode(text).unwrap(), ids, "{text:?}");
        assert_eq!(toy.decode(ids).unwrap(), text);
    }
    assert_eq!(toy.decode_plain(&[1, 10, 3, 2]).unwrap(), "ab<tag>");
    assert_eq!(toy.stop_ids(), [0, 2]);
    assert_eq!(
        (toy.bos_id(), toy.eos_id(), toy.adds_bos()),
        (Some(1), Some(2), false)
    );
    assert_eq!(toy.encode_with_bos("ab").unwrap(), [10]);
    assert_eq!(
        (toy.vocab_size(), toy.token(12), toy.id("Ġab")),
        (16, Some("Ġab"), Some(12))
    );
    assert_eq!(toy.token(16), None);
    assert!(toy.decode(&[16]).is_err());
}

#[test]
fn pre_tokenizer_decides_about_digits() {
    let pre = |name: &str| {
        set(
            &byte_level(),
            "tokenizer.ggml.pre",
            Value::String(name.into()),
        )
    };
    assert_eq!(
        tokenizer(&pre("gpt-2")).unwrap().encode("12").unwrap(),
        [15]
    );
    // Llama 3 adds a beginning unless the metadata says otherwise, as they do here.
    assert!(!tokenizer(&pre("llama-bpe")).unwrap().adds_bos());
    assert!(
        tokenizer(&without(&pre("llama-bpe"), "tokenizer.ggml.add_bos_token"))
            .unwrap()
            .adds_bos()
    );
    let unknown = message(&pre("smolllm"));
    assert!(
        unknown.contains("smolllm") && unknown.contains("smollm,"),
        "{unknown}"
    );
    // An absent name is llama.cpp's "default".
    assert_eq!(
        tokenizer(&without(&pre("x"), "tokenizer.ggml.pre"))
            .unwrap()
            .encode("12")
            .unwrap(),
        [15]
    );
}

#[test]
fn whole_words_ignore_merges() {
    let pre = set(
        &byte_level(),
        "tokenizer.ggml.pre",
        Value::String("llama3".into()),
    );
    let no_merges = set(&pre, "tokenizer.ggml.merges", texts(["1 2"]));
    let toy = tokenizer(&no_merges).unwrap();
    assert_eq!(toy.encode("abc").unwrap(), [11]);
    assert_eq!(toy.encode("abca").unwrap(), [4, 5, 6, 4]);
}

#[test]
fn sentence_piece_ids() {
    let toy = tokenizer(&sentence_piece()).unwrap();
    for (text, ids) in [
        ("", &[][..]),
        ("ab", &[263]),
        // "ab" has the best score, so "bc" never forms.
        ("abc", &[263, 264]),
        ("bc", &[259, 265]),
        // Two bytes, C3 and A9, at 3 + their value.
        ("é", &[259, 198, 172]),
        ("a b", &[259, 260, 259, 261]),
    ] {
        assert_eq!(toy.encode(text).unwrap(), ids, "{text:?}");
        assert_eq!(toy.decode(ids).unwrap(), text);
    }
    assert_eq!(toy.encode("a</s>b").unwrap(), [259, 260, 2, 259, 261]);
    assert_eq!(toy.encode("<s>ab").unwrap(), [1, 263]);
    assert_eq!(toy.encode_with_bos("ab").unwrap(), [1, 263]);
    assert_eq!(toy.encode_with_bos("<s>ab").unwrap(), [1, 263]);
    assert_eq!(toy.decode_plain(&[1, 263, 2]).unwrap(), "ab");
    // The first two are what the format means when it is silent; the marker is found by its text.
    assert_eq!(
        (toy.bos_id(), toy.eos_id(), toy.stop_ids()),
        (Some(1), Some(2), &[2, 266][..])
    );
}

#[test]
fn sentence_piece_flags() {
    let plain = set(
        &sentence_piece(),
        "tokenizer.ggml.add_space_prefix",
        Value::Bool(false),
    );
    let plain = set(&plain, "tokenizer.ggml.add_bos_token", Value::Bool(false));
    let toy = tokenizer(&plain).unwrap();
    assert_eq!(toy.encode_with_bos("ab ab").unwrap(), [262, 263]);
    assert_eq!(toy.decode(&[263]).unwrap(), " ab");
    // Phi-3's marks swallow the white space after them.
    assert_eq!(toy.encode("<|user|>\nab").unwrap(), [267, 3 + 10, 262]);
    let phi = set(&plain, "general.name", Value::String("Phi-3 mini".into()));
    assert_eq!(
        tokenizer(&phi).unwrap().encode("<|user|>\nab").unwrap(),
        [267, 262]
    );
}

#[test]
fn scores_decide_between_merges() {
    let mut metadata = sentence_piece();
    for (key, value) in &mut metadata {
        if let ("tokenizer.ggml.scores", Value::Array(scores)) = (key.as_str(), value) {
            scores[265] = Value::F32(-0.5);
        }
    }
    assert_eq!(
        tokenizer(&metadata).unwrap().encode("abc").unwrap(),
        [259, 260, 265]
    );
}

#[test]
fn streams_hold_back_incomplete_characters() {
    let toy = tokenizer(&sentence_piece()).unwrap();
    let mut stream = toy.stream(false);
    let mut parts = Vec::new();
    // " ab", "é" in two bytes, a lone first byte and an "a", the end mark, a first byte.
    for id in [263, 198, 172, 198, 260, 2, 198] {
        parts.push(stream.push(id).unwrap());
    }
    assert_eq!(parts, [" ab", "", "é", "", "\u{fffd}a", "", ""]);
    assert_eq!(stream.finish(), "\u{fffd}");
    assert!(toy.stream(true).push(9999).is_err());
}

#[test]
fn contradictions_are_errors() {
    let base = byte_level();
    let with = |key: &str, value| message(&set(&base, key, value));
    for (text, part) in [
        (
            with("tokenizer.ggml.model", Value::String("bert".into())),
            "gpt2 (byte-level BPE)",
        ),
        (
            with("tokenizer.ggml.tokens", texts(["a", "b", "a"])),
            "\"a\" occurs twice, as ids 0 and 2",
        ),
        (with("tokenizer.ggml.tokens", texts([])), "empty vocabulary"),
        (
            with("tokenizer.ggml.tokens", Value::U32(3)),
            "tokenizer.ggml.tokens (an array of strings)",
        ),
        (
            with("tokenizer.ggml.merges", texts(["a z"])),
            "refers to \"z\"",
        ),
        // Both parts exist, but not the union, which is longer than every token.
        (
            with(
                "tokenizer.ggml.merges",
                texts(["<|endoftext|> <|im_start|>"]),
            ),
            "not in the vocabulary",
        ),
        (
            with("tokenizer.ggml.merges", texts(["ab"])),
            "two tokens with a space",
        ),
        (
            with(
                "tokenizer.ggml.token_type",
                Value::Array(vec![Value::I32(1)]),
            ),
            "1 types for 16 tokens",
        ),
        (
            with(
                "tokenizer.ggml.token_type",
                Value::Array(vec![Value::I32(9); 16]),
            ),
            "no token type",
        ),
        (
            with("tokenizer.ggml.eos_token_id", Value::U32(16)),
            "is 16, but the vocabulary has 16",
        ),
        (
            with("tokenizer.ggml.eos_token_id", Value::String("x".into())),
            "not the id of a token",
        ),
        (
            with("tokenizer.ggml.add_bos_token", Value::U32(1)),
            "not true or false",
        ),
        (with("tokenizer.ggml.pre", Value::U32(1)), "not a string"),
    ] {
        assert!(text.contains(part), "{text}");
    }
    let base = sentence_piece();
    let scores = |scores| message(&set(&base, "tokenizer.ggml.scores", scores));
    assert!(message(&without(&base, "tokenizer.ggml.scores")).contains("needs this array"));
    assert!(scores(Value::Array(vec![Value::F32(f32::NAN); 300])).contains("not a finite float"));
    assert!(scores(Value::Array(vec![Value::F32(0.0); 2])).contains("2 scores"));
}

#[test]
fn minus_one_means_no_token() {
    let toy = tokenizer(&set(
        &byte_level(),
        "tokenizer.ggml.bos_token_id",
        Value::U32(u32::MAX),
    ))
    .unwrap();
    assert_eq!(toy.bos_id(), None);
}

#[test]
fn tool_calls_make_end_a_part_of_a_turn() {
    let tokens = ["<|return|>", "<|call|>", "<|end|>", "a"];
    let base = set(&byte_level(), "tokenizer.ggml.tokens", texts(tokens));
    let base = set(
        &base,
        "tokenizer.ggml.token_type",
        Value::Array(vec![Value::I32(3); 4]),
    );
    let base = set(&base, "tokenizer.ggml.merges", texts([]));
    let base = set(&base, "tokenizer.ggml.eos_token_id", Value::U32(0));
    assert_eq!(tokenizer(&base).unwrap().stop_ids(), [0, 1]);
}
