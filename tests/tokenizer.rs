//! The default model's tokenizer and chat template, from the real file (fetched into the cache on first use).
#![allow(clippy::unwrap_used)]

use std::sync::OnceLock;

use kvprof::model::chat::{ChatTemplate, Message};
use kvprof::model::gguf::Gguf;
use kvprof::model::source::{self, CacheFolder};
use kvprof::model::tokenizer::Tokenizer;
use serde::Deserialize;

#[derive(Deserialize)]
struct Goldens {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
}

/// Canonical ids of SmolLM2, nothing added, special tokens recognised.
fn cases() -> Vec<Case> {
    let text = include_str!("fixtures/tokenizer_goldens.json");
    let goldens: Goldens = serde_json::from_str(text).unwrap();
    goldens.cases
}

fn model() -> &'static (Tokenizer, ChatTemplate) {
    static MODEL: OnceLock<(Tokenizer, ChatTemplate)> = OnceLock::new();
    MODEL.get_or_init(|| {
        let cache = CacheFolder::from_env().unwrap();
        let files =
            source::resolve("smollm2-135m", &cache, &mut |line| eprintln!("{line}")).unwrap();
        assert_eq!(files.name, "smollm2-135m");
        let expected = source::MODELS[0].sha256;
        assert_eq!(files.sha256, expected);
        let gguf = Gguf::open(&files.weights).unwrap();
        let tokenizer = Tokenizer::from_gguf(&gguf).unwrap();
        let template = ChatTemplate::of_gguf(&gguf, &tokenizer).unwrap().unwrap();
        (tokenizer, template)
    })
}

#[test]
fn ids_are_the_canonical_ones() {
    let (tokenizer, _) = model();
    let cases = cases();
    assert_eq!(cases.len(), 24);
    for case in &cases {
        assert_eq!(
            tokenizer.encode(&case.text).unwrap(),
            case.ids,
            "{:?}",
            case.text
        );
        assert_eq!(tokenizer.encode_with_bos(&case.text).unwrap(), case.ids);
    }
}

#[test]
fn decoding_gives_the_text_back() {
    let (tokenizer, _) = model();
    for case in cases() {
        assert_eq!(tokenizer.decode(&case.ids).unwrap(), case.text);
        let mut stream = tokenizer.stream(true);
        let mut text: String = case
            .ids
            .iter()
            .map(|id| stream.push(*id).unwrap())
            .collect();
        assert!(!text.contains('\u{fffd}'));
        text.push_str(&stream.finish());
        assert_eq!(text, case.text);
    }
}

#[test]
fn special_tokens() {
    let (tokenizer, _) = model();
    assert_eq!(tokenizer.vocab_size(), 49_152);
    assert_eq!(
        (tokenizer.bos_id(), tokenizer.eos_id(), tokenizer.adds_bos()),
        (Some(1), Some(2), false)
    );
    let stops: Vec<_> = tokenizer
        .stop_ids()
        .iter()
        .map(|id| tokenizer.token(*id).unwrap())
        .collect();
    assert_eq!(stops, ["<|endoftext|>", "<|im_end|>"]);
    assert_eq!(
        tokenizer.decode_plain(&[1, 4093, 198, 1780, 2]).unwrap(),
        "user\nWhat"
    );
}

#[test]
fn the_template_adds_a_system_message() {
    let (tokenizer, template) = model();
    let text = template
        .render(&[Message::new("user", "What is 2+2?")], true)
        .unwrap();
    let system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face";
    assert_eq!(
        text,
        format!(
            "<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\nWhat is 2+2?<|im_end|>\n\
             <|im_start|>assistant\n"
        )
    );
    let ids = tokenizer.encode(&text).unwrap();
    assert!(ids.ends_with(&[
        1, 4093, 198, 1780, 314, 216, 34, 27, 34, 47, 2, 198, 1, 520, 9531, 198
    ]));
}
