//! What a user is told of a bad folder: one message, and an exit code of 1.

use std::fs;

use serde_json::json;

use crate::Folder;
use crate::binary::{printed, refusal};

/// Both commands on a folder, which must say the same things.
fn refused(folder: &Folder, parts: &[&str]) {
    let path = folder.0.path().to_str().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    for command in [
        &["inspect", path][..],
        &[
            "generate",
            "--model",
            path,
            "--prompt",
            "x",
            "--max-new-tokens",
            "2",
        ],
    ] {
        let said = refusal(elsewhere.path(), command, 1);
        for part in parts {
            assert!(said.contains(part), "'{part}' is missing: {said}");
        }
        assert_eq!(said.matches("error").count(), 1, "{said}");
        assert!(
            !said.contains("panicked") && said.trim().lines().count() <= 2,
            "{said}"
        );
    }
}

#[test]
fn both_commands_refuse_bad_folders_with_one_message() {
    let elsewhere = tempfile::tempdir().unwrap();
    let sound = Folder::of("llama");
    let path = sound.0.path().to_str().unwrap();
    printed(elsewhere.path(), &["inspect", path]);
    let generate = [
        "generate",
        "--model",
        path,
        "--prompt",
        "x",
        "--max-new-tokens",
        "2",
    ];
    printed(elsewhere.path(), &generate);

    let folder = Folder::of("llama");
    for file in fs::read_dir(folder.0.path()).unwrap() {
        fs::remove_file(file.unwrap().path()).unwrap();
    }
    refused(&folder, &["no .safetensors file"]);
    let folder = Folder::of("qwen2_sharded");
    fs::remove_file(folder.path("model-00001-of-00002.safetensors")).unwrap();
    refused(
        &folder,
        &["model-00001-of-00002.safetensors", "download it"],
    );
    let folder = Folder::of("llama");
    folder.json("config.json", |config| {
        config["model_type"] = json!("mixtral")
    });
    refused(&folder, &["mixtral", "mixture of experts"]);
    let folder = Folder::of("llama");
    fs::remove_file(folder.path("tokenizer.json")).unwrap();
    refused(&folder, &["tokenizer.json"]);
    let folder = Folder::of("llama");
    folder.write("config.json", "{");
    refused(&folder, &["config.json", "line 1"]);
    let folder = Folder::of("llama");
    let mut bytes = fs::read(folder.path("model.safetensors")).unwrap();
    bytes[7] = 0x80;
    folder.write("model.safetensors", bytes);
    refused(&folder, &["model.safetensors", "header"]);
    let folder = Folder::of("llama3");
    folder.json("config.json", |config| {
        config["rope_scaling"]["rope_type"] = json!("ntk")
    });
    refused(&folder, &["config.json", "ntk", "yarn"]);
    let folder = Folder::of("llama");
    folder.write("generation_config.json", "{\"eos_token_id\": \"x\"}");
    refused(&folder, &["generation_config.json", "eos_token_id"]);
}
