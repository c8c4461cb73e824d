//! `kvprof hitrate` as a stranger meets it: a run, its figure, its refusals.
#![allow(clippy::unwrap_used)]

mod binary;

use std::fs;
use std::path::Path;

use binary::{json, printed, refusal};
use kvprof::eval::hit_rate::{HitRates, Observation};

/// Windows that fit prompts of some sixty tokens.
const SMALL: [&str; 8] = [
    "--windows",
    "3",
    "--window",
    "8",
    "--generated-windows",
    "2",
    "--top",
    "0.1",
];

/// Two prompts of 60 and 61 token ids.
fn prompts(folder: &Path) -> String {
    let lines: Vec<String> = (0..2)
        .map(|p| {
            let ids: Vec<u32> = (0..60 + p).map(|i| 300 + (i * 37 + p) % 1000).collect();
            serde_json::json!({"id": format!("p{p}"), "ids": ids}).to_string()
        })
        .collect();
    fs::write(folder.join("short.jsonl"), lines.join("\n")).unwrap();
    "short.jsonl".to_owned()
}

#[test]
fn a_run_is_measured_resumed_and_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let data = prompts(path);
    let run = [&["hitrate", "--data", &data, "--out", "h"], &SMALL[..]].concat();
    let table = printed(path, &run);
    assert!(
        table.contains("layer") && table.contains("plot hitrate --hitrate h"),
        "{table}"
    );
    let rates = HitRates::load(&path.join("h")).unwrap();
    assert_eq!(rates.table.rows(), 2 * 30 * 9 * 5);
    assert_eq!(rates.answer_tokens().unwrap().len(), 2);
    let windows = rates.rates(Observation::Prompt).unwrap();
    assert!(windows[2].overlap.iter().all(|o| (o - 1.0).abs() < 1e-12));
    let counted = windows[0].all.counted.iter().sum::<f64>();
    assert!(counted > 1.0, "{counted}");

    // A finished run is printed again, not measured again, and never overwritten.
    let before = fs::read(path.join("h/hitrate.parquet")).unwrap();
    let again = [&run[..], &["--resume", "--json"]].concat();
    let value: serde_json::Value = serde_json::from_str(&printed(path, &again)).unwrap();
    assert_eq!(value["prompt"].as_array().unwrap().len(), 3);
    assert_eq!(value["generated"].as_array().unwrap().len(), 2);
    assert_eq!(
        value["generated"][0]["overlap"].as_array().unwrap().len(),
        30
    );
    assert_eq!(value["meta"], json(path.join("h/meta.json")));
    assert_eq!(fs::read(path.join("h/hitrate.parquet")).unwrap(), before);
    assert!(refusal(path, &run, 1).contains("--resume"));
    let other = [&run[..], &["--theta", "0.1", "--resume"]].concat();
    assert!(refusal(path, &other, 1).contains("another options"));

    printed(
        path,
        &["plot", "hitrate", "--hitrate", "h", "--out", "figure"],
    );
    let svg = fs::read_to_string(path.join("figure.svg")).unwrap();
    assert!(svg.contains("measured by kvprof") && path.join("figure.png").is_file());
    let wrong = refusal(path, &["plot", "hitrate", "--profile", "h"], 1);
    assert!(wrong.contains("--hitrate"), "{wrong}");
    fs::write(path.join("h/hitrate.parquet"), b"PAR1").unwrap();
    let damaged = refusal(path, &["plot", "hitrate", "--hitrate", "h"], 1);
    assert!(damaged.contains("hitrate.parquet"), "{damaged}");
}

#[test]
fn what_cannot_be_measured_is_refused_with_the_length_needed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let data = prompts(path);
    let with = |more: &[&str]| {
        let base = ["hitrate", "--data", &data, "--out", "o"];
        refusal(path, &[&base[..], more].concat(), 1)
    };
    let short = with(&[]);
    assert!(
        short.contains("p0") && short.contains("60 tokens") && short.contains("at least 2580"),
        "{short}"
    );
    let default = [
        "hitrate",
        "--data",
        "wikimqa-style-2k",
        "--limit",
        "1",
        "--out",
        "o",
    ];
    assert!(refusal(path, &default, 1).contains("at least 2580"));
    let cut = with(&["--max-prompt-tokens", "2579", "--model", "no-such-model"]);
    assert!(
        cut.contains("--max-prompt-tokens is 2579") && cut.contains("2580"),
        "{cut}"
    );
    let room = [
        "--windows",
        "3",
        "--window",
        "8",
        "--generated-windows",
        "1017",
    ];
    assert!(with(&room).contains("room for 56"), "{}", with(&room));
    for (option, value, said) in [
        ("--windows", "0", "--windows is 0"),
        ("--window", "0", "--window is 0"),
        ("--generated-windows", "0", "--generated-windows is 0"),
        ("--top", "1", "below 1"),
        ("--theta", "1.5", "below 1"),
        ("--limit", "0", "--limit is 0"),
        ("--windows", "100", "context ends at 8192"),
    ] {
        let refused = with(&[option, value]);
        assert!(refused.contains(said), "{option} {value}: {refused}");
    }
    assert!(refusal(path, &["plot", "hitrate", "--hitrate", "o"], 1).contains("kvprof hitrate"));
    assert!(!path.join("o").exists(), "a refused run leaves nothing");
}
