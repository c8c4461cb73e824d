//! Weights that change or are cut short while they are read: an error that names them, and nothing half-written.
#![allow(clippy::unwrap_used)]

mod family_models;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use kvprof::model::source;

fn kvprof(folder: &Path, arguments: &[&str]) -> Child {
    Command::new(assert_cmd::cargo::cargo_bin("kvprof"))
        .current_dir(folder)
        .env("KVPROF_CACHE", folder.join("cache"))
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Expects a failure with exit code 1; gives what was said.
fn refusal(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{:?} {said}", output.status);
    said
}

#[test]
fn a_run_stops_before_it_writes_what_other_weights_gave() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    fs::create_dir(&model).unwrap();
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        let file = family_models::folder().join("llama").join(name);
        fs::copy(file, model.join(name)).unwrap();
    }
    const PROMPTS: usize = 3000;
    let line = |p: usize| {
        let ids: Vec<usize> = (0..40).map(|i| (i * 37 + p) % 290).collect();
        serde_json::json!({"id": format!("p{p}"), "ids": ids}).to_string()
    };
    let lines: Vec<String> = (0..PROMPTS).map(line).collect();
    fs::write(folder.path().join("many.jsonl"), lines.join("\n")).unwrap();
    let profile = [
        "profile",
        "--model",
        "model",
        "--data",
        "many.jsonl",
        "--out",
        "p",
    ];
    let options = ["--window", "4", "--quiet"];
    let arguments = [&profile[..], &options].concat();
    let mut child = kvprof(folder.path(), &arguments);
    let parts = folder.path().join("p/.parts");
    while !parts.join("meta.json").is_file() {
        assert!(child.try_wait().unwrap().is_none(), "{}", refusal(child));
        thread::sleep(Duration::from_millis(1));
    }
    let weights = model.join("model.safetensors");
    let mut file = File::options().append(true).open(&weights).unwrap();
    file.write_all(b"more").unwrap();
    let said = refusal(child);
    assert!(
        said.contains("model.safetensors: changed while it was read: it had"),
        "{said}"
    );
    let kept = fs::read_dir(&parts).unwrap();
    let kept = kept.map(|e| e.unwrap().file_name());
    let kept: Vec<_> = kept.filter(|name| name != ".kvprof-lock").collect();
    assert_eq!(kept, ["meta.json"]);
    assert!(!folder.path().join("p/meta.json").exists());
}

#[cfg(unix)]
#[test]
fn weights_that_are_cut_short_under_the_map_end_in_an_error() {
    let cache = source::CacheFolder::from_env().unwrap();
    let files = source::resolve("smollm2-135m", &cache, &mut |_| ()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy.gguf");
    fs::copy(&files.weights, &copy).unwrap();
    let mut child = kvprof(
        folder.path(),
        &[
            "generate",
            "--model",
            "copy.gguf",
            "--prompt",
            "Count from 1 to 1000, one number on every line.",
            "--max-new-tokens",
            "4000",
            "--quiet",
        ],
    );
    // When the first letter is there all weights have been read once, and will be for every token that follows.
    let mut first = [0];
    let stdout = child.stdout.as_mut().unwrap();
    stdout.read_exact(&mut first).unwrap();
    let file = File::options().write(true).open(&copy).unwrap();
    file.set_len(1 << 20).unwrap();
    let said = refusal(child);
    assert!(
        said.contains("error: copy.gguf: was cut short, or its disk failed"),
        "{said}"
    );
}
