//! Tokenizer, chat template and what ends a text.

use std::fs;

use serde_json::{Value, json};

use crate::{Folder, assert_says};

fn with(file: &str, change: impl FnOnce(&mut Value)) -> String {
    let folder = Folder::of("llama");
    folder.json(file, change);
    folder.error()
}

#[test]
fn tokenizers_that_do_not_fit_the_weights_are_refused() {
    let folder = Folder::of("llama");
    fs::remove_file(folder.path("tokenizer.json")).unwrap();
    let path = folder.0.path().display().to_string();
    assert_says(
        &folder.error(),
        &[&path, "tokenizer.json", "save_pretrained"],
    );
    let more = with("tokenizer.json", |all| {
        let vocab = all["model"]["vocab"].as_object_mut().unwrap();
        for id in 300..310 {
            vocab.insert(format!("new{id}"), json!(id));
        }
    });
    assert_says(&more, &["tokenizer.json", "embed 300", "another model"]);
    let wild = with("tokenizer.json", |all| {
        all["model"]["vocab"]["a"] = json!(u32::MAX)
    });
    assert_says(&wild, &["tokenizer.json", "4294967295"]);
    // Ids of special tokens that the weights do not have are never written by a text, and so allowed.
    let folder = Folder::of("llama");
    folder.json("tokenizer.json", |all| {
        let mut image = all["added_tokens"][0].clone();
        image["id"] = json!(300);
        image["content"] = json!("<image>");
        all["added_tokens"].as_array_mut().unwrap().push(image);
    });
    folder.run().unwrap();
}

#[test]
fn damaged_tokenizers_are_refused() {
    let folder = Folder::of("llama");
    let whole = fs::read(folder.path("tokenizer.json")).unwrap();
    for bytes in [
        &b""[..],
        b"{}",
        b"[]",
        b"null",
        b"\xff\xff",
        &whole[..whole.len() - 2],
    ] {
        folder.write("tokenizer.json", bytes);
        assert_says(&folder.error(), &["tokenizer.json"]);
    }
    for (place, value) in [
        ("/model/type", json!("Unheard")),
        ("/model/vocab", json!({})),
        ("/model/vocab", json!(3)),
        ("/model/vocab/a", json!(-1)),
        ("/model/merges/0", json!("a")),
        ("/model/merges/0", json!(["q", "x", "z"])),
        ("/model/merges/0", json!(7)),
        ("/model", json!(null)),
        ("/decoder", json!(null)),
        ("/decoder/type", json!("WordPiece")),
        ("/pre_tokenizer/type", json!("Unheard")),
        (
            "/pre_tokenizer/pretokenizers/0/pattern",
            json!({"Regex": "(((("}),
        ),
        ("/added_tokens", json!(7)),
        ("/added_tokens/0/id", json!("none")),
        ("/post_processor", json!({"type": "Unheard"})),
        (
            "/normalizer",
            json!({"type": "Replace", "pattern": {"Regex": "(("}, "content": ""}),
        ),
    ] {
        let said = with("tokenizer.json", |all| {
            *all.pointer_mut(place).unwrap() = value
        });
        assert_says(&said, &["tokenizer"]);
    }
}

#[test]
fn what_ends_a_text_is_understood_or_refused() {
    for (bytes, part) in [
        (&b"{"[..], "not valid JSON"),
        (b"[]", "not a JSON object"),
        (b"\"eos\"", "not a JSON object"),
        (br#"{"eos_token_id": "</s>"}"#, "eos_token_id = \"</s>\""),
        (br#"{"eos_token_id": -1}"#, "eos_token_id = -1"),
        (br#"{"eos_token_id": 2.5}"#, "eos_token_id = 2.5"),
        (br#"{"eos_token_id": [298, "x"]}"#, "eos_token_id"),
        (br#"{"eos_token_id": {}}"#, "eos_token_id = {}"),
        (br#"{"eos_token_id": 4294967296}"#, "eos_token_id"),
        (br#"{"bos_token_id": [[1]]}"#, "bos_token_id"),
    ] {
        let folder = Folder::of("llama");
        folder.write("generation_config.json", bytes);
        assert_says(&folder.error(), &["generation_config.json", part]);
    }
    let folder = Folder::of("llama");
    folder.write(
        "generation_config.json",
        br#"{"eos_token_id": [298, 99999]}"#,
    );
    assert_says(&folder.error(), &["99999"]);
    folder.write(
        "generation_config.json",
        br#"{"eos_token_id": null, "else": [{}]}"#,
    );
    folder.run().unwrap();
    fs::remove_file(folder.path("generation_config.json")).unwrap();
    folder.run().unwrap();
    let said = with("tokenizer_config.json", |all| {
        all["add_bos_token"] = json!("yes")
    });
    assert_says(&said, &["tokenizer_config.json", "add_bos_token = \"yes\""]);
    let said = with("tokenizer_config.json", |all| *all = json!([]));
    assert_says(&said, &["tokenizer_config.json", "not a JSON object"]);
}

#[test]
fn templates_that_are_no_templates_name_their_file_and_line() {
    let broken = "{{ a }}\n{% for x in %}";
    let folder = Folder::of("qwen3");
    folder.write("chat_template.jinja", broken);
    assert_says(
        &folder.error(),
        &["chat_template.jinja", "line 2", "syntax"],
    );
    folder.write("chat_template.jinja", b"\xff\xfe");
    assert_says(&folder.error(), &["chat_template.jinja"]);
    let said = with("tokenizer_config.json", |all| {
        all["chat_template"] = json!(broken)
    });
    assert_says(&said, &["tokenizer_config.json", "chat_template", "line 2"]);
    let said = with("tokenizer_config.json", |all| {
        all["chat_template"] = json!(7)
    });
    assert_says(&said, &["tokenizer_config.json", "chat_template = 7"]);
}
