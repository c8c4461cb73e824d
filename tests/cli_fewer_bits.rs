//! Types of few bits and budgets in bytes, as a user meets them.
#![allow(clippy::unwrap_used)]

mod binary;

use std::path::Path;

use binary::{printed, refusal, short_prompts};
use kvprof::eval::Results;
use kvprof::table::Column;
use serde_json::Value;

fn generated(folder: &Path, more: &[&str]) -> Value {
    let data = short_prompts(folder);
    let base = [
        "generate",
        "--data",
        &data,
        "--index",
        "2",
        "--max-new-tokens",
        "6",
        "--json",
    ];
    serde_json::from_str(&printed(folder, &[&base[..], more].concat())).unwrap()
}

#[test]
fn answers_come_from_caches_of_every_type() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    // 42 tokens of 90 KV heads: all of them in float16 as long as there are fewer than 96.
    for (cache, bytes) in [
        ("f16", 42 * 90 * 256),
        ("q4", 42 * 90 * 256),
        ("q8_0", 42 * 90 * 2 * 68),
        ("q8,q4_0-hadamard", 42 * 90 * (128 + 36)),
        (
            "k=q4(group=8,residual=0),v=f32",
            40 * 90 * 64 * (4 + 4) / 8 + 2 * 90 * 128 + 42 * 90 * 256,
        ),
    ] {
        let answer = generated(path, &["--cache-dtype", cache]);
        assert_eq!(answer["cache_bytes"], bytes, "{cache}");
        assert_eq!(answer["full_cache_bytes"], bytes, "{cache}");
    }
    let cut = [
        "--method",
        "snapkv+cache(k=q8_0,v=q4_0)",
        "--budget",
        "10%bytes",
        "--window",
        "4",
    ];
    let answer = generated(path, &cut);
    let limit = 42 * 90 * 512 / 10;
    // 208 bytes a token of a KV head: 20 of each, and some more.
    let bytes = answer["cache_bytes"].as_u64().unwrap();
    assert!(bytes <= limit && limit - bytes < 208, "{bytes} of {limit}");
    assert_eq!(answer["full_cache_bytes"], 42 * 90 * 512);
}

#[test]
fn a_sweep_spends_the_same_bytes_on_tokens_bits_and_rows() {
    let folder = tempfile::tempdir().unwrap();
    let (path, data) = (folder.path(), short_prompts(folder.path()));
    let arguments = [
        "eval",
        "--data",
        &data,
        "--out",
        "r",
        "--window",
        "4",
        "--max-new-tokens",
        "4",
        "--json",
        "--cache-dtype",
        "f16",
        "--budgets",
        "60%bytes,500kB,24",
        "--methods",
        "full,snapkv,zigzag+snapkv+cache(q8_0),full+cache(q4_0),leankv,full+clusterkv(budget=20)",
    ];
    let said: Value = serde_json::from_str(&printed(path, &arguments)).unwrap();
    assert!(said["comparisons"].as_array().unwrap().len() > 10);
    let results = Results::load(&path.join("r")).unwrap();
    let table = &results.results;
    let texts = |name: &str| match table.column(name) {
        Some(Column::Text(values)) => values.clone(),
        other => panic!("{name}: {other:?}"),
    };
    let (methods, budgets, errors) = (texts("method"), texts("budget"), texts("error"));
    let (held, full) = (
        table.numbers("kv_bytes").unwrap(),
        table.numbers("full_bytes").unwrap(),
    );
    // Three prompts: full, q4_0 and recall once, three budgets of the others.
    assert_eq!(table.rows(), 3 * (3 + 3 * 3));
    for row in 0..table.rows() {
        let what = format!("{} at {}", methods[row], budgets[row]);
        assert_eq!(errors[row], "", "{what}");
        let limit = match &*budgets[row] {
            "60%bytes" => 0.6 * full[row],
            "500kB" => 500_000.0,
            "24" if methods[row] == "snapkv" => 24.0 * 90.0 * 256.0,
            _ => f64::INFINITY,
        };
        assert!(held[row] <= limit, "{what}: {} above {limit}", held[row]);
        if methods[row] == "snapkv" && limit.is_finite() {
            assert!(
                limit - held[row] < 256.0,
                "{what}: {} of {limit}",
                held[row]
            );
        }
    }
    let again = [&arguments[..4], &["again"], &arguments[5..]].concat();
    printed(path, &again);
    let bytes = |folder: &str| std::fs::read(path.join(folder).join("results.parquet")).unwrap();
    assert_eq!(bytes("r"), bytes("again"));
    let picture = ["plot", "frontier", "--results", "r", "--out", "frontier"];
    printed(path, &picture);
    assert!(path.join("frontier.png").exists());
}

#[test]
fn what_cannot_be_held_or_spent_is_refused_with_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let (path, data) = (folder.path(), short_prompts(folder.path()));
    let generate = |more: &[&str], code: i32| {
        let base = ["generate", "--data", &data, "--max-new-tokens", "3"];
        refusal(path, &[&base[..], more].concat(), code)
    };
    for (more, code, part) in [
        (&["--cache-dtype", "q3"][..], 2, "q4_0"),
        (&["--cache-dtype", "q4,q4,q4"], 2, "k=TYPE,v=TYPE"),
        (&["--cache-dtype", "q4(group=0)"], 2, "between 1 and"),
        (
            &["--cache-dtype", "q4", "--decode-budget", "40"],
            1,
            "one by one",
        ),
        (
            &[
                "--method",
                "snapkv+evict-h2o+cache(q4)",
                "--budget",
                "24",
                "--window",
                "4",
            ],
            1,
            "one by one",
        ),
        (
            &["--method", "leankv+cache(f16)", "--budget", "24"],
            1,
            "leave cache() out",
        ),
        (&["--method", "leankv"], 1, "--budget"),
        (
            &["--method", "clusterkv", "--budget", "40", "--sinks", "3"],
            1,
            "no --sinks or --window",
        ),
        (
            &["--method", "full+leankv(fixed=true,prune=3)"],
            1,
            "at most demote",
        ),
        (
            &["--method", "full+leankv(high=k9v4)", "--budget", "24"],
            1,
            "k8v4",
        ),
        (
            &["--strategy", "uniform", "--budget", "9kB", "--window", "4"],
            1,
            "fewer bits",
        ),
        (&["--strategy", "uniform", "--budget", "5XB"], 2, "12%bytes"),
        (
            &["--strategy", "uniform", "--budget", "0%bytes"],
            2,
            "above 0%",
        ),
    ] {
        let said = generate(more, code);
        assert!(said.contains(part), "{more:?}: {said}");
    }
    let eval = [
        "eval",
        "--data",
        &data,
        "--methods",
        "full,snapkv,oracle",
        "--cache-dtype",
        "q4",
        "--out",
        "r",
        "--window",
        "4",
        "--budgets",
        "12",
    ];
    let said = refusal(path, &eval, 1);
    assert!(said.contains("leave oracle out"), "{said}");
    assert!(!path.join("r").join("results.parquet").exists());
}

#[test]
fn inspect_counts_every_type() {
    let folder = tempfile::tempdir().unwrap();
    let said = printed(
        folder.path(),
        &["inspect", "smollm2-135m", "--lengths", "1024"],
    );
    for (name, bytes) in [
        ("q8 ", "13.0 kB"),
        ("q4 ", "7.20 kB"),
        ("q2 ", "4.32 kB"),
        ("q8_0 ", "12.2 kB"),
        ("q4_0 ", "6.48 kB"),
    ] {
        let line = said
            .lines()
            .find(|line| line.trim_start().starts_with(name));
        let line = line.unwrap_or_else(|| panic!("{name}: {said}"));
        assert!(line.contains(bytes), "{line}");
    }
}
