//! The architecture is a test: modules import downwards only, and fences hold.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// Lowest first. Modules on one line do not import each other.
const LAYERS: &[&[&str]] = &[
    &["error"],
    &["files"],
    &["registry"],
    &["table"],
    &["model", "dataset"],
    &["run"],
    &["profile"],
    &["budget"],
    &["select"],
    &["generate"],
    &["eval"],
    &["bench"],
    &["plot"],
    &["report"],
];

/// Crates that only some modules may name.
const FENCES: &[(&str, &[&str])] = &[
    ("polars", &["error", "table"]),
    (
        "candle_core",
        &[
            "error", "model", "run", "profile", "select", "generate", "eval", "cli",
        ],
    ),
    ("plotters", &["plot"]),
    ("clap", &["main", "cli"]),
];

/// Names that say nothing.
const BANNED: &[&str] = &["utils", "helpers", "common", "manager", "misc"];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// Every source file with the top-level module it belongs to.
fn files() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    sources(&root, &mut found);
    found
        .into_iter()
        .map(|path| {
            let relative = path.strip_prefix(&root).unwrap().with_extension("");
            let module = relative.iter().next().unwrap().to_str().unwrap().to_owned();
            let text = fs::read_to_string(&path).unwrap();
            (module, path, text)
        })
        .collect()
}

fn rank(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// Code without comment lines.
fn code(text: &str) -> String {
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Top-level modules that a source text reaches through `crate::`.
fn imports(text: &str) -> Vec<String> {
    let word = |text: &str| -> String {
        text.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    let code = code(text);
    let mut found = Vec::new();
    for (at, prefix) in code.match_indices("crate::") {
        let rest = &code[at + prefix.len()..];
        match rest.strip_prefix('{') {
            None => found.push(word(rest)),
            Some(list) => {
                let mut depth = 0;
                let mut item = String::new();
                for c in list.chars() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => found.push(word(std::mem::take(&mut item).trim())),
                        _ if depth == 0 => item.push(c),
                        _ => {}
                    }
                }
                found.push(word(item.trim()));
            }
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

#[test]
fn modules_import_downwards_only() {
    let mut wrong = Vec::new();
    for (module, path, text) in files() {
        let Some(own) = rank(&module) else {
            assert!(
                ["lib", "main", "cli"].contains(&module.as_str()),
                "{module} is in no layer"
            );
            continue;
        };
        for other in imports(&text) {
            if other != module && rank(&other).is_some_and(|r| r >= own) {
                wrong.push(format!("{}: {module} -> {other}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "imports against the layers: {wrong:#?}");
}

#[test]
fn crates_stay_behind_their_fences() {
    let mut wrong = Vec::new();
    for (module, path, text) in files() {
        for (name, allowed) in FENCES {
            let used = code(&text).contains(&format!("{name}::"));
            if used && !allowed.contains(&module.as_str()) {
                wrong.push(format!("{} names {name}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn file_names_say_something() {
    for (_, path, _) in files() {
        let stem = path.file_stem().unwrap().to_str().unwrap();
        assert!(!BANNED.contains(&stem), "{}", path.display());
    }
}

#[test]
fn both_spellings_of_an_import_are_read() {
    let text = "use crate::{error::{Error, Result}, profile::Profile, table};\nlet x = crate::plot::go();\n// crate::never\n";
    assert_eq!(imports(text), ["error", "profile", "table", "plot"]);
}
