//! `kvprof generate`, as a user runs it.
#![allow(clippy::unwrap_used)]

mod binary;
mod tiny_model;

use std::fs;

use binary::{allocate, kvprof, profile, refusal, short_prompts};
use candle_core::{DType, Device, Tensor};

#[test]
fn generation_repeats_itself_and_ends_at_its_limit() {
    let folder = tempfile::tempdir().unwrap();
    let run = |seed: &str| -> serde_json::Value {
        let arguments = [
            "generate",
            "--prompt",
            "Name a river.",
            "--max-new-tokens",
            "8",
            "--temperature",
            "0.9",
            "--top-p",
            "0.95",
            "--seed",
            seed,
            "--json",
        ];
        let output = kvprof(folder.path()).args(arguments).assert().success();
        let value: serde_json::Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
        value["ids"].clone()
    };
    let first = run("3");
    assert!((1..=8).contains(&first.as_array().unwrap().len()));
    assert_eq!(first, run("3"));
}

#[test]
fn a_cut_cache_is_compared_with_the_full_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let data = short_prompts(path);
    let run = |more: &[&str]| -> serde_json::Value {
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
        let output = kvprof(path).args(base).args(more).assert().success();
        serde_json::from_slice(&output.get_output().stdout).unwrap()
    };
    let full = run(&[]);
    assert_eq!(full["prompt_tokens"], 42);
    assert_eq!(full["cache_bytes"], full["full_cache_bytes"]);
    // A budget of T changes nothing at all.
    let all = [
        "--strategy",
        "uniform",
        "--budget",
        "100%",
        "--window",
        "8",
        "--compare",
    ];
    let whole = run(&all);
    assert_eq!(whole["ids"], full["ids"]);
    assert_eq!(whole["comparison"]["kl"], 0.0);
    assert_eq!(whole["comparison"]["top1"], 1.0);
    assert!(whole["comparison"]["parting_token"].is_null());
    // Half of it is half of it, to the token, for every strategy and split.
    for strategy in [
        "uniform",
        "zigzag",
        "pyramid",
        "mass-optimal",
        "output-optimal",
    ] {
        for split in ["per-head", "pooled:0.2"] {
            let half = run(&[
                "--strategy",
                strategy,
                "--budget",
                "21",
                "--window",
                "8",
                "--split",
                split,
                "--compare",
            ]);
            let kept = half["kept"].as_array().unwrap().iter();
            let total: u64 = kept
                .flat_map(|layer| layer.as_array().unwrap())
                .map(|n| n.as_u64().unwrap())
                .sum();
            assert_eq!(total, 21 * 90, "{strategy} {split}");
            assert_eq!(
                half["cache_bytes"],
                21 * 90 * 64 * 2 * 4,
                "{strategy} {split}"
            );
            assert!(half["comparison"]["kl"].as_f64().unwrap() > 0.0);
        }
    }
    let profile = ["profile", "--data", &data, "--quiet", "--out", "p"];
    kvprof(path).args(profile).assert().success();
    let allocate = [
        "allocate",
        "--profile",
        "p",
        "--strategy",
        "zigzag",
        "--budget",
        "21",
        "--window",
        "8",
        "--out",
        "plan.json",
        "--quiet",
    ];
    kvprof(path).args(allocate).assert().success();
    let served = run(&["--plan", "plan.json"]);
    assert_eq!(served["cache_bytes"], 21 * 90 * 64 * 2 * 4);
}

#[test]
fn compressions_that_cannot_be_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let data = short_prompts(path);
    let with = |more: &[&str], code: i32| {
        let arguments = [&["generate", "--data", &data], more].concat();
        refusal(path, &arguments, code)
    };
    let low = with(&["--strategy", "zigzag", "--budget", "20"], 1);
    assert!(low.contains("20") && low.contains("36"), "{low}");
    let long = with(
        &["--strategy", "zigzag", "--budget", "90", "--window", "80"],
        1,
    );
    assert!(long.contains("window of 80"), "{long}");
    assert!(with(&["--strategy", "zagzig", "--budget", "64"], 1).contains("known: uniform"));
    assert!(with(&["--strategy", "zigzag", "--budget", "-3"], 2).contains("budget"));
    assert!(with(&["--strategy", "zigzag"], 2).contains("--budget"));
    let scorer = ["--strategy", "zigzag", "--budget", "64", "--scorer", "luck"];
    assert!(with(&scorer, 1).contains("known: snapkv"));
    let kernel = [
        "--strategy",
        "uniform",
        "--budget",
        "40",
        "--window",
        "4",
        "--scorer-set",
        "kernel=4",
    ];
    assert!(with(&kernel, 1).contains("odd"));
    assert!(with(&["--index", "3"], 1).contains("last of 3 records"));
    // Nothing that cuts is ignored where nothing is cut.
    for option in [
        ["--compare"].as_slice(),
        &["--scorer", "tova"],
        &["--window", "7"],
        &["--split", "pooled"],
    ] {
        assert!(with(option, 2).contains("--strategy"), "{option:?}");
    }
    // Policies with sinks and window of their own read none, and evict as seldom as their papers say.
    let policy = |name, rows| ["--decode-policy", name, "--decode-budget", rows];
    let floor = with(
        &[&policy("vase", "192")[..], &["--window", "8"]].concat(),
        1,
    );
    assert!(
        floor.contains("full+evict-vase(sinks=..,window=..)"),
        "{floor}"
    );
    assert!(with(&policy("r-kv", "135"), 1).contains("take 136"));
    let every = with(
        &[&policy("r-kv", "23")[..], &["--evict-every", "16"]].concat(),
        1,
    );
    assert!(every.contains("take 24"), "{every}");
    assert!(with(&policy("luck", "64"), 1).contains("random"));
    let scorer = ["--method", "full+compress-every(scorer=h2o)"];
    assert!(with(&scorer, 1).contains("choose another"));
    let silent = [
        "--strategy",
        "zigzag",
        "--budget",
        "64",
        "--compare",
        "--quiet",
    ];
    assert!(with(&silent, 1).contains("--json"));
    fs::write(
        path.join("plan.json"),
        "{\"schema\": 1, \"surprise\": true}",
    )
    .unwrap();
    assert!(with(&["--plan", "plan.json"], 1).contains("plan.json"));
}

/// A model whose header can be read, and whose weights cannot.
fn broken_model() -> Vec<u8> {
    tiny_model::tiny_model(2, 1, |name, tensor| match name {
        "blk.1.ffn_down.weight" => Tensor::zeros((7, 16), DType::F32, &Device::Cpu).unwrap(),
        _ => tensor,
    })
}

/// Prompts are looked at before weights: a model whose weights cannot be read is never reached.
#[test]
fn what_a_prompt_rules_out_is_said_before_weights_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::write(path.join("broken.gguf"), broken_model()).unwrap();
    let record = |id: &str, ids: &[u32]| serde_json::json!({"id": id, "ids": ids}).to_string();
    let lines = [
        record("short", &[1, 2, 3, 4]),
        record("long", &[1; 65]),
        record("strange", &[1, 12]),
    ];
    fs::write(path.join("ids.jsonl"), lines.join("\n")).unwrap();
    let with = |more: &[&str]| {
        let base = ["generate", "--model", "broken.gguf", "--data", "ids.jsonl"];
        refusal(path, &[&base, more].concat(), 1)
    };
    assert!(with(&[]).contains("ffn_down"), "{}", with(&[]));
    for (more, words) in [
        (
            &[
                "--strategy",
                "uniform",
                "--budget",
                "50%",
                "--window",
                "4",
                "--sinks",
                "0",
            ][..],
            &["has 4 tokens", "window of 4"][..],
        ),
        (
            &[
                "--strategy",
                "uniform",
                "--budget",
                "50%",
                "--window",
                "2",
                "--sinks",
                "1",
            ],
            &["50%", "the floor is 3"],
        ),
        (
            &[
                "--strategy",
                "zigzag",
                "--budget",
                "2",
                "--window",
                "1",
                "--sinks",
                "1",
            ],
            &["2 tokens per KV head", "the floor is 3"],
        ),
        (&["--index", "1"], &["65 tokens", "context of 64"]),
        (&["--index", "2"], &["token id 12", "12 tokens"]),
    ] {
        let said = with(more);
        assert!(words.iter().all(|w| said.contains(w)), "{more:?}: {said}");
    }
}

#[test]
fn a_plan_for_another_geometry_is_refused_before_weights_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let profile = profile();
    let plan = ["--budget", "128", "--out", "plan.json", "--quiet"];
    kvprof(path)
        .args(allocate(&profile, "zigzag", &plan))
        .assert()
        .success();
    fs::write(path.join("broken.gguf"), broken_model()).unwrap();
    let arguments = [
        "generate",
        "--model",
        "broken.gguf",
        "--prompt",
        "t1",
        "--plan",
        "plan.json",
    ];
    let said = refusal(path, &arguments, 1);
    assert!(
        said.contains("30 layers") && said.contains("2 layers"),
        "{said}"
    );
}
