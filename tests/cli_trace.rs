//! `kvprof trace` as a stranger meets it: a run, its tables, its figure, its refusals, on a tiny model.
#![allow(clippy::unwrap_used)]

mod binary;
mod family_models;

use std::fs;
use std::path::Path;

use binary::{kvprof, printed, refusal};
use kvprof::eval::trace::Trace;
use kvprof::table::Table;
use serde_json::{Value, json};

/// Methods of every kind; those that recall have groups small enough for forty tokens.
const METHODS: &str = "full,snapkv,snapkv+evict-tova,full+cache(bf16),full+clusterkv(sinks=2,tokens_per_cluster=5,every=3,\
                       new=2,full_layers=1)";
const NAMES: usize = 5;
const NEW: usize = 12;

/// Three prompts of 40, 41 and 42 token ids of the tiny model.
fn short_prompts(folder: &Path) {
    let line = |p: u32| {
        let ids: Vec<u32> = (0..40 + p).map(|i| (i * 37 + p) % 290).collect();
        json!({"id": format!("p{p}"), "ids": ids}).to_string()
    };
    let lines: Vec<String> = (0..3).map(line).collect();
    fs::write(folder.join("short.jsonl"), lines.join("\n")).unwrap();
}

fn model() -> String {
    let folder = family_models::folder().join("llama");
    folder.to_str().unwrap().to_owned()
}

fn trace<'a>(model: &'a str, out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let start = [
        "trace",
        "--model",
        model,
        "--data",
        "short.jsonl",
        "--index",
        "1",
        "--out",
        out,
    ];
    let sizes = [
        "--sinks",
        "2",
        "--window",
        "4",
        "--new-tokens",
        "12",
        "--repeats",
        "2",
    ];
    [&start[..], &sizes, more].concat()
}

fn run<'a>(model: &'a str, out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let spent = ["--methods", METHODS, "--budget", "10"];
    trace(model, out, &[&spent[..], more].concat())
}

fn bytes(folder: &Path, table: &str) -> Vec<u8> {
    fs::read(folder.join(format!("{table}.parquet"))).unwrap()
}

#[test]
fn a_trace_has_a_row_for_every_step_and_repeats_byte_by_byte() {
    let folder = tempfile::tempdir().unwrap();
    let (path, model) = (folder.path(), model());
    short_prompts(path);
    let said = printed(path, &run(&model, "a", &["--json"]));
    let said: Value = serde_json::from_str(&said).unwrap();
    let read = Trace::load(&path.join("a")).unwrap();
    assert_eq!(read.methods.len(), NAMES);
    let [full, snapkv, evict, half, recall] = &read.methods[..] else {
        panic!("{NAMES} methods")
    };
    let spent: Vec<&str> = read.methods.iter().map(|m| &*m.budget).collect();
    assert_eq!(spent, ["full", "10", "10", "full", "10"]);
    for method in &read.methods {
        let positions: Vec<usize> = method.steps.iter().map(|s| s.position).collect();
        assert_eq!(
            positions,
            (41..41 + NEW).collect::<Vec<_>>(),
            "{}",
            method.name
        );
        assert_eq!(method.ms.len(), 2);
        assert!(method.ms.iter().flatten().all(|ms| *ms > 0.0));
        // The first token follows from the prompt's own prefill.
        assert_eq!(method.steps[0].token, full.steps[0].token);
    }
    // The full cache grows by a row per step, from the prompt's; a row has the same bytes throughout.
    let row = full.steps[0].bytes.resident / 42;
    for (step, own) in full.steps.iter().enumerate() {
        assert_eq!(
            (own.mean_rows, own.peak_rows),
            (42.0 + step as f64, 42 + step)
        );
        assert_eq!(
            (own.bytes.resident, own.bytes.offloaded),
            (row * (42 + step), 0)
        );
        assert_eq!(half.steps[step].bytes.resident * 2, own.bytes.resident);
        assert_eq!(snapkv.steps[step].bytes.resident, row * (11 + step));
        // What evicts stays within what the cut kept; what recalls keeps the rest elsewhere.
        assert_eq!(evict.steps[step].bytes.resident, row * 10);
        assert_eq!(evict.steps[step].peak_rows, 10);
        let recalled = recall.steps[step];
        assert!(recalled.bytes.offloaded > 0 && recalled.mean_rows < own.mean_rows);
    }
    let rows = said["summary"].as_array().unwrap();
    assert_eq!(rows.len(), NAMES);
    assert_eq!(rows[0]["shared_tokens"], NEW);
    assert_eq!(rows[1]["last_bytes"], row * (10 + NEW));
    assert_eq!(said["meta"], binary::json(path.join("a/meta.json")));

    // Another run says the same, and so does one that lost a part of each repeat.
    printed(path, &run(&model, "b", &["--quiet"]));
    assert_eq!(
        bytes(&path.join("a"), "steps"),
        bytes(&path.join("b"), "steps")
    );
    let times = Table::read(&path.join("b/step_times.parquet")).unwrap();
    assert_eq!(times.rows(), 2 * NAMES * NEW);
    assert!(times.names().eq(["method", "repeat", "step", "ms"]));
    let steps = Table::read(&path.join("b/steps.parquet")).unwrap();
    assert_eq!(steps.rows(), NAMES * NEW, "no row of the second repeat");
}

#[test]
fn a_trace_is_resumed_printed_again_and_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let (path, model) = (folder.path(), model());
    short_prompts(path);
    let words = printed(path, &run(&model, "a", &[]));
    for part in [
        "snapkv+evict-tova",
        "12 new tokens behind a prompt of 41 tokens",
        "2 repeats",
        "residency --trace a",
    ] {
        assert!(words.contains(part), "{part}: {words}");
    }
    assert!(refusal(path, &run(&model, "a", &[]), 1).contains("--resume"));
    let before = bytes(&path.join("a"), "step_times");
    let again = printed(path, &run(&model, "a", &["--resume"]));
    assert_eq!(again, words, "nothing is measured anew");
    assert_eq!(bytes(&path.join("a"), "step_times"), before);
    let other = run(&model, "a", &["--resume", "--sinks", "3"]);
    assert!(!kvprof(path).args(other).output().unwrap().status.success());

    // As a run leaves its folder that was killed in the second repeat.
    let unfinished = path.join("c");
    let parts = unfinished.join(".parts");
    fs::create_dir_all(&parts).unwrap();
    fs::copy(path.join("a/meta.json"), parts.join("meta.json")).unwrap();
    for table in ["steps", "step_times"] {
        fs::write(parts.join(format!("000001.{table}.parquet")), b"half").unwrap();
    }
    assert!(refusal(path, &run(&model, "c", &[]), 1).contains("unfinished"));
    printed(path, &run(&model, "c", &["--resume", "--quiet"]));
    assert_eq!(bytes(&path.join("a"), "steps"), bytes(&unfinished, "steps"));

    printed(
        path,
        &["plot", "residency", "--trace", "a", "--out", "figure"],
    );
    let svg = fs::read_to_string(path.join("figure.svg")).unwrap();
    assert!(svg.contains("measured by kvprof") && svg.contains("offloaded"));
    let ms = [
        "plot",
        "residency",
        "--trace",
        "a",
        "--metric",
        "ms",
        "--out",
        "ms",
    ];
    printed(path, &ms);
    assert!(path.join("ms.png").is_file());
    let wrong = refusal(path, &["plot", "residency", "--speed", "a"], 1);
    assert!(wrong.contains("give --trace"), "{wrong}");
    fs::write(path.join("a/steps.parquet"), b"PAR1").unwrap();
    let damaged = refusal(path, &["plot", "residency", "--trace", "a"], 1);
    assert!(damaged.contains("steps.parquet"), "{damaged}");
}

#[test]
fn what_cannot_be_traced_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let (path, model) = (folder.path(), model());
    short_prompts(path);
    for (more, part) in [
        (&["--methods", "snapkv"][..], "give it with --budget"),
        (
            &["--methods", "full", "--budget", "10"],
            "leave --budget out",
        ),
        (
            &["--methods", "snapkv", "--budget", "5"],
            "the 6 tokens that sinks (2) and window (4)",
        ),
        (&["--methods", "oracle", "--budget", "10"], "kvprof eval"),
        (
            &["--methods", "zigzag@profile", "--budget", "10"],
            "@profile",
        ),
        (&["--methods", "full,full"], "named twice"),
        (
            &[
                "--methods",
                "full+clusterkv(full_layers=1)",
                "--budget",
                "16",
            ],
            "the 16 sinks",
        ),
        (&["--methods", "full+evict-h2o(budget=6)"], "full+evict-h2o"),
        (
            &["--methods", "full+evict-tova+cache(q4)"],
            "takes tokens one by one",
        ),
    ] {
        let said = refusal(path, &trace(&model, "x", more), 1);
        assert!(said.contains(part), "{more:?}: {said}");
        assert!(!path.join("x").exists(), "{more:?}");
    }
    let base = [
        "trace",
        "--model",
        &model,
        "--methods",
        "full",
        "--out",
        "x",
    ];
    let with = |more: &[&str], code: i32| refusal(path, &[&base[..], more].concat(), code);
    let data = ["--data", "short.jsonl"];
    for (more, part) in [
        (&["--new-tokens", "0"][..], "--new-tokens is 0"),
        (&["--repeats", "0"], "--repeats is 0"),
        (&["--new-tokens", "100000"], "leave room for"),
        (&["--index", "3"], "past the last of 3 records"),
    ] {
        let said = with(&[&data[..], more].concat(), 1);
        assert!(said.contains(part), "{more:?}: {said}");
    }
    assert!(with(&[], 2).contains("--data"), "no prompt at all");
    fs::create_dir(path.join("x")).unwrap();
    fs::write(path.join("x/notes.txt"), "mine").unwrap();
    assert!(with(&data, 1).contains("holds files that are not"));
}
