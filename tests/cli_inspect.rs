//! `kvprof inspect` as a stranger meets it, and plans of a model whose layers differ.
#![allow(clippy::unwrap_used)]

mod binary;

use std::path::Path;

use binary::{json, printed, refusal};
use serde_json::Value;

/// A tiny model of a family, as a folder.
fn model(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families");
    folder.join(name).to_str().unwrap().to_owned()
}

fn inspected(arguments: &[&str]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let text = printed(folder.path(), &[&["inspect", "--json"], arguments].concat());
    serde_json::from_str(&text).unwrap()
}

/// Gemma's four layers of two KV heads of 12 dimensions, of which layer 2 sees everything and the others 16 keys.
#[test]
fn bytes_follow_windows_and_budgets() {
    let folder = format!("{}/model.gguf", model("gemma3"));
    let told = inspected(&[&folder, "--lengths", "100,4096", "--budgets", "8,50%"]);
    let kinds: Vec<&str> = (told["layers"].as_array().unwrap().iter())
        .map(|layer| layer["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["window", "window", "global", "window"]);
    let of_token = 2 * 12 * 4; // keys and values of a KV head
    let f32 = &told["caches"][0];
    assert_eq!(f32["cache_dtype"], "f32");
    assert_eq!(f32["bytes_per_token"], 4 * 2 * of_token);
    assert_eq!(f32["bytes_per_token_beyond_windows"], 2 * of_token);
    for (place, tokens) in [(0, 100), (1, 4096)] {
        let held = 2 * (3 * 16 + tokens);
        assert_eq!(f32["full"][place]["bytes"], held * of_token);
        assert_eq!(
            told["caches"][1]["full"][place]["bytes"],
            held * of_token / 2
        );
        assert_eq!(told["budgets"][0]["at"][place]["held_tokens"], 8 * 8);
        assert_eq!(told["budgets"][1]["at"][place]["held_tokens"], held / 2);
    }
    let whole = inspected(&[
        &folder,
        "--lengths",
        "100",
        "--budgets",
        "8",
        "--whole-windows",
    ]);
    let held = 2 * 3 * 16 + 2 * 8;
    assert_eq!(whole["budgets"][0]["at"][0]["held_tokens"], held);
}

#[test]
fn folders_and_files_tell_the_same_of_one_model() {
    let folder = only_folder(&model("qwen2"));
    let file = format!("{}/model.gguf", model("qwen2"));
    let [mut folder, mut file] = [folder.path().to_str().unwrap(), &file].map(|m| inspected(&[m]));
    // What differs between the formats.
    for told in [&mut folder, &mut file] {
        for field in ["model", "source", "sha256", "file_bytes", "tensors"] {
            told[field] = Value::Null;
        }
    }
    assert_eq!(folder, file);
}

/// A folder's checkpoint alone: with a GGUF file in it, that would be the model.
fn only_folder(path: &str) -> tempfile::TempDir {
    let kept = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        if name != "model.gguf" {
            std::fs::copy(entry.path(), kept.path().join(name)).unwrap();
        }
    }
    kept
}

#[test]
fn the_table_says_what_one_would_ask() {
    let folder = tempfile::tempdir().unwrap();
    let text = printed(folder.path(), &["inspect", &model("mistral")]);
    for part in [
        "llama (Llama 1-3, Mistral",
        "2, 2 with a window of 24 tokens; none global",
        "4 query and 2 KV heads of 8 dimensions",
        "<|im_end|>",
        "* longer than the model's context",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let said = refusal(folder.path(), &["inspect", "nothing.gguf"], 1);
    assert!(said.contains("nothing.gguf"), "{said}");
    let said = refusal(
        folder.path(),
        &["inspect", &model("mistral"), "--lengths", "0"],
        1,
    );
    assert!(said.contains("--lengths"), "{said}");
}

/// Plans never give a layer more than it sees; layers that are kept whole are not part of the budget.
#[test]
fn plans_know_windows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let model = format!("{}/model.gguf", model("gemma3"));
    let allocate = |more: &[&str], out: &str| {
        let start = [
            "allocate",
            "--model",
            &model,
            "--tokens",
            "90",
            "--strategy",
            "uniform",
            "--sinks",
            "2",
            "--window",
            "4",
            "--out",
            out,
            "--quiet",
        ];
        printed(path, &[&start[..], more].concat());
        json(path.join(out))
    };
    let plan = allocate(&["--budget", "20"], "a.json");
    let window = vec![16; 2];
    // 20 tokens for each of 8 heads; what three layers cannot use goes to the fourth.
    let rest = vec![(20 * 8 - 6 * 16) / 2; 2];
    let tokens: Vec<Vec<usize>> = serde_json::from_value(plan["tokens"].clone()).unwrap();
    assert_eq!(
        tokens,
        [window.clone(), window.clone(), rest, window.clone()]
    );
    assert_eq!(
        plan["geometry"]["windows"],
        serde_json::json!([16, 16, null, 16])
    );
    let plan = allocate(&["--budget", "20", "--whole-windows"], "b.json");
    let tokens: Vec<Vec<usize>> = serde_json::from_value(plan["tokens"].clone()).unwrap();
    assert_eq!(
        tokens,
        [window.clone(), window.clone(), vec![20; 2], window]
    );
    assert_eq!(plan["whole_windows"], true);
    // A share is one of what the layers that take part can hold.
    let plan = allocate(&["--budget", "50%"], "c.json");
    let total: u64 = plan["tokens"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|layer| layer.as_array().unwrap())
        .map(|tokens| tokens.as_u64().unwrap())
        .sum();
    assert_eq!(total, (6 * 16 + 2 * 90) / 2);
    let shown = printed(
        path,
        &[
            "generate",
            "--model",
            &model,
            "--prompt",
            &"word ".repeat(30),
            "--raw",
            "--plan",
            "b.json",
            "--max-new-tokens",
            "20",
            "--json",
            "--quiet",
        ],
    );
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["ids"].as_array().unwrap().len().min(1), 1, "{shown}");
    let other = refusal(
        path,
        &[
            "generate",
            "--model",
            &format!("{}/model.gguf", self::model("qwen2")),
            "--prompt",
            "a",
            "--plan",
            "b.json",
        ],
        1,
    );
    assert!(other.contains("geometry of the plan"), "{other}");
}
