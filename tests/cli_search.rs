//! `kvprof search` and `kvprof utility`, with a tiny model from end to end.
#![allow(clippy::unwrap_used)]

mod binary;
mod tiny_model;

use std::fs;
use std::path::Path;

use binary::{json, printed, refusal};
use kvprof::budget::BudgetPlan;
use kvprof::budget::interchange::BudgetCurve;
use serde_json::Value;
use tiny_model::{LAYERS, tiny_model};

const KV_HEADS: usize = 2;

/// A folder with the tiny model and six prompts of 40 to 45 token ids.
fn model_and_prompts() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("tiny.gguf"),
        tiny_model(4, KV_HEADS, |_, t| t),
    )
    .unwrap();
    let lines = (40..46).map(|tokens: usize| {
        let ids: Vec<usize> = (0..tokens).map(|i| (i * i + tokens) % 12).collect();
        serde_json::json!({"id": format!("of {tokens}"), "ids": ids}).to_string()
    });
    let text: Vec<String> = lines.collect();
    fs::write(folder.path().join("data.jsonl"), text.join("\n")).unwrap();
    folder
}

fn with<'a>(verb: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let start = [
        verb,
        "--model",
        "tiny.gguf",
        "--data",
        "data.jsonl",
        "--window",
        "8",
        "--quiet",
    ];
    [&start[..], more].concat()
}

fn search<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let own = [
        "--budget",
        "16",
        "--groups",
        "2",
        "--most",
        "12",
        "--max-new-tokens",
        "9",
    ];
    with("search", &[&own[..], more].concat())
}

#[test]
fn a_search_is_never_worse_than_its_starts_and_repeats() {
    let folder = model_and_prompts();
    let path = folder.path();
    let found: Value =
        serde_json::from_str(&printed(path, &search(&["--json", "--out", "a.json"]))).unwrap();
    let searched = &found["searched"];
    let number = |value: &Value| value.as_f64().unwrap();
    let starts = searched["starts"].as_array().unwrap();
    assert_eq!(starts.len(), 5);
    let best = starts
        .iter()
        .map(|s| number(&s["kl"]))
        .fold(f64::INFINITY, f64::min);
    let calibration = &searched["calibration"];
    assert_eq!(number(&calibration["start_kl"]), best);
    assert!(number(&calibration["kl"]) <= best);
    assert_eq!(calibration["contexts"], 3);
    assert!(searched["tried"].as_u64().unwrap() <= 12);
    let held_out = &searched["held_out"];
    assert_eq!(held_out["contexts"], 3);
    let difference = number(&held_out["kl"]) - number(&held_out["start_kl"]);
    assert!((number(&held_out["difference"]) - difference).abs() < 1e-12);
    // The plan spends its total to the token, at its own length and at others.
    let plan = BudgetPlan::read(&path.join("a.json")).unwrap();
    assert_eq!(plan.strategy, "search");
    assert_eq!(plan.spent(), 16 * LAYERS * KV_HEADS);
    let shorter: usize = plan.tokens_at(30).unwrap().concat().iter().sum();
    assert_eq!(shorter, 16 * LAYERS * KV_HEADS);
    assert_eq!(plan.parameters["start"], searched["start"]);
    printed(path, &search(&["--out", "b.json"]));
    assert!(
        BudgetPlan::read(&path.join("b.json"))
            .unwrap()
            .allocates_like(&plan)
    );
    // What was found is what an evaluation finds: the plan is served as any other.
    printed(
        path,
        &[
            "generate",
            "--model",
            "tiny.gguf",
            "--data",
            "data.jsonl",
            "--plan",
            "a.json",
            "--max-new-tokens",
            "4",
        ],
    );
}

#[test]
fn searches_that_cannot_be_are_refused_before_they_begin() {
    let folder = model_and_prompts();
    let path = folder.path();
    for (more, words) in [
        (&["--budget", "5MB"][..], "in bytes"),
        (&["--start", "oracle"], "oracle"),
        (&["--start", "zigzag@profile"], "@profile"),
        (&["--rank", "oracle"], "look ahead"),
        (&["--start", "full"], "full"),
        (&["--step", "0.01"], "least-step"),
        (&["--held-out", "20%"], "held out"),
        (&["--groups", "40"], "--groups is 40: between 2 and"),
        (&["--step", "800"], "least-step"),
        (&["--start", "uniform,uniform"], "twice"),
        (&["--budget", "9"], "sinks"),
        (&["--max-new-tokens", "60"], "lower --max-new-tokens"),
        (&["--limit", "1"], "searched on"),
    ] {
        let own = ["--groups", "2", "--max-new-tokens", "9", "--out", "no.json"];
        let budget = if more[0] == "--budget" {
            &[][..]
        } else {
            &["--budget", "16"]
        };
        let pairs = own.chunks(2).filter(|pair| pair[0] != more[0]);
        let given: Vec<&str> = pairs.flatten().copied().collect();
        let said = refusal(
            path,
            &with("search", &[&given[..], budget, more].concat()),
            1,
        );
        assert!(said.contains(words), "{more:?}: {said}");
        assert!(!path.join("no.json").exists());
    }
}

#[test]
fn utilities_become_a_curve_and_a_plan() {
    let folder = model_and_prompts();
    let path = folder.path();
    let own = ["--rank", "snapkv", "--horizon", "6", "--out", "curve.npy"];
    let text = printed(path, &with("utility", &[&own[..], &["--json"]].concat()));
    let found: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(found["prompts"], 6);
    let heads = found["utilities"].as_array().unwrap();
    assert_eq!(heads.len(), LAYERS);
    for head in heads.iter().flat_map(|layer| layer.as_array().unwrap()) {
        let values: Vec<f64> = (head.as_array().unwrap().iter())
            .map(|point| point[1].as_f64().unwrap())
            .collect();
        // Keeping more is worth more, and all that is kept is at most a row of attention.
        assert!(values.is_sorted() && values[0] >= 0.0);
        assert!(*values.last().unwrap() <= 1.0 + 1e-6 && *values.last().unwrap() > 0.1);
    }
    let curve = BudgetCurve::read(&path.join("curve.npy")).unwrap();
    assert_eq!(curve.shape(), (LAYERS, KV_HEADS));
    for percent in [10, 50] {
        let removed = curve.at(percent).unwrap().concat();
        let mean = removed.iter().sum::<f64>() / removed.len() as f64;
        assert!((mean - percent as f64 / 100.0).abs() < 0.01, "{mean}");
    }
    printed(
        path,
        &[
            "convert",
            "curve.npy",
            "--budget",
            "50%",
            "--model",
            "tiny.gguf",
            "--tokens",
            "45",
            "--window",
            "8",
            "--out",
            "plan.json",
        ],
    );
    assert!(BudgetPlan::read(&path.join("plan.json")).is_ok());
    let said = refusal(path, &with("utility", &["--rank", "oracle"]), 1);
    assert!(said.contains("valued by"), "{said}");
    assert!(Path::new(&path.join("curve.npy")).exists());
    let again = with("utility", &own);
    assert!(refusal(path, &again, 1).contains("--force"));
    printed(path, &[&again[..], &["--force"]].concat());
    let split = with("utility", &["--rank", "snapkv+pooled"]);
    assert!(refusal(path, &split, 1).contains("names a split"));
    let far = with("utility", &["--horizon", "60"]);
    assert!(refusal(path, &far, 1).contains("lower --horizon"));
    assert_eq!(json(path.join("plan.json"))["schema"], 1);
}
