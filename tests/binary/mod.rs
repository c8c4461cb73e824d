//! Runs of the binary inside a folder.
// Every test binary uses its own part of this.
#![allow(dead_code)]

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use serde_json::Value;

/// The shipped profile, in the repository.
pub const PROFILE: &str = "profiles/smollm2-135m-wikimqa-style-2k";

/// The binary, inside `folder`.
pub fn kvprof(folder: &Path) -> Command {
    let mut command = Command::cargo_bin("kvprof").unwrap();
    command.current_dir(folder);
    command
}

/// Runs and expects a failure with this exit code; gives what was said.
pub fn refusal(folder: &Path, arguments: &[&str], code: i32) -> String {
    let output = kvprof(folder).args(arguments).assert().code(code);
    String::from_utf8_lossy(&output.get_output().stderr).into_owned()
}

/// The shipped profile's folder.
pub fn profile() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PROFILE);
    path.to_str().unwrap().to_owned()
}

/// Arguments of `allocate` on a profile.
pub fn allocate<'a>(profile: &'a str, strategy: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let start = ["allocate", "--profile", profile, "--strategy", strategy];
    [&start[..], more].concat()
}

/// Runs, expects success, and gives what was printed.
pub fn printed(folder: &Path, arguments: &[&str]) -> String {
    let run = kvprof(folder).args(arguments).assert().success();
    String::from_utf8(run.get_output().stdout.clone()).unwrap()
}

/// A file as JSON.
pub fn json(path: PathBuf) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Three prompts of 40, 41 and 42 token ids.
pub fn short_prompts(folder: &Path) -> String {
    let lines: Vec<String> = (0..3)
        .map(|p| {
            let ids: Vec<u32> = (0..40 + p).map(|i| 300 + (i * 37 + p) % 1000).collect();
            serde_json::json!({"id": format!("p{p}"), "ids": ids}).to_string()
        })
        .collect();
    fs::write(folder.join("short.jsonl"), lines.join("\n")).unwrap();
    "short.jsonl".to_owned()
}
