//! A `tokenizer.json` beside the weights.

use super::*;

/// The toy byte-level vocabulary as a `tokenizer.json`.
fn json() -> serde_json::Value {
    let vocab: serde_json::Map<_, _> = BYTE_LEVEL
        .iter()
        .zip(0..)
        .map(|((text, _), id)| ((*text).to_owned(), id.into()))
        .collect();
    let added: Vec<_> = (BYTE_LEVEL
        .iter()
        .zip(0..)
        .filter(|((_, kind), _)| *kind > 1))
    .map(|((text, kind), id)| {
        serde_json::json!({"id": id, "content": text, "special": *kind == 3, "single_word": false,
                "lstrip": false, "rstrip": false, "normalized": false})
    })
    .collect();
    serde_json::json!({
        "version": "1.0", "truncation": {"direction": "Right", "max_length": 1,
            "strategy": "LongestFirst", "stride": 0},
        "padding": null, "normalizer": null, "post_processor": null, "added_tokens": added,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
            "use_regex": true},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": vocab, "merges": ["a b", "ab c", "Ġ ab", "1 2"]},
    })
}

#[test]
fn tokenizer_json_wins_and_takes_its_ids_from_beside() {
    let toy = Toy::new(&byte_level()).unwrap();
    let path = toy.path("tokenizer.json");
    std::fs::write(&path, json().to_string()).unwrap();
    let tokenizer = Tokenizer::from_file(&path, Some(&toy.open())).unwrap();
    // Its own rule keeps digits together, and its truncation to one token is ignored.
    assert_eq!(tokenizer.encode("12<|im_end|>é").unwrap(), [15, 2, 13, 14]);
    assert_eq!(tokenizer.decode_plain(&[15, 2, 13, 14]).unwrap(), "12é");
    assert_eq!(
        (tokenizer.bos_id(), tokenizer.stop_ids()),
        (Some(1), &[0, 2][..])
    );

    let alone = Tokenizer::from_file(&path, None).unwrap();
    assert_eq!((alone.eos_id(), alone.stop_ids()), (None, &[0, 2][..]));
    let config = r#"{"bos_token": {"content": "<|im_start|>"}, "eos_token": "<|im_end|>", "add_bos_token": true}"#;
    std::fs::write(toy.path("tokenizer_config.json"), config).unwrap();
    std::fs::write(
        toy.path("generation_config.json"),
        r#"{"eos_token_id": [2, 3]}"#,
    )
    .unwrap();
    let alone = Tokenizer::from_file(&path, None).unwrap();
    assert_eq!(
        (alone.eos_id(), alone.stop_ids()),
        (Some(2), &[0, 2, 3][..])
    );
    assert_eq!(alone.encode_with_bos("ab").unwrap(), [1, 10]);

    std::fs::write(
        toy.path("generation_config.json"),
        r#"{"eos_token_id": 99}"#,
    )
    .unwrap();
    assert!(
        Tokenizer::from_file(&path, None)
            .unwrap_err()
            .to_string()
            .contains("99")
    );
    std::fs::write(toy.path("generation_config.json"), "{\n,").unwrap();
    assert!(
        Tokenizer::from_file(&path, None)
            .unwrap_err()
            .to_string()
            .contains("line 2")
    );
}

#[test]
fn damaged_tokenizer_json_is_an_error() {
    let toy = Toy::new(&byte_level()).unwrap();
    let path = toy.path("tokenizer.json");
    let with = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut value = json();
        change(&mut value);
        std::fs::write(&path, value.to_string()).unwrap();
        Tokenizer::from_file(&path, Some(&toy.open()))
            .unwrap_err()
            .to_string()
    };
    let merge = with(&|v| v["model"]["merges"][0] = "<|endoftext|> <|im_start|>".into());
    assert!(merge.contains("merge 0"), "{merge}");
    let decoder = with(&|v| {
        v["decoder"] = serde_json::json!({"type": "WordPiece", "prefix": "#", "cleanup": true})
    });
    assert!(decoder.contains("ByteLevel, ByteFallback"), "{decoder}");
    let other = with(&|v| {
        v["model"]["merges"] = serde_json::json!([]);
        v["model"]["vocab"] = serde_json::json!({"x": 0, "y": 1});
        v["added_tokens"] = serde_json::json!([]);
    });
    assert!(other.contains("belongs to another model"), "{other}");
    let wild = with(&|v| v["model"]["vocab"]["ab"] = u32::MAX.into());
    assert!(wild.contains("has the id 4294967295"), "{wild}");
    std::fs::write(&path, "{").unwrap();
    assert!(Tokenizer::from_file(&path, None).is_err());
}
