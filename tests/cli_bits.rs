//! Bits on the command line: measured by `profile`, spent by `allocate`, held by `generate`.
#![allow(clippy::unwrap_used)]

mod binary;
mod tiny_model;

use std::fs;

use binary::{allocate, json, printed, profile, refusal, short_prompts};
use kvprof::budget::BudgetPlan;
use kvprof::model::cache::Representation;
use serde_json::Value;
use tiny_model::tiny_model;

/// L x H_kv and the longest prompt of the shipped profile.
const CELLS: usize = 90;
const LONGEST: usize = 2038;

/// Bytes of a layer's KV head in float32, per token.
const FULL: usize = 512;

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn bytes_of(plan: &BudgetPlan) -> usize {
    plan.layer_bytes(Representation::FLOAT32).iter().sum()
}

#[test]
fn bits_are_measured_spent_and_held() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let data = short_prompts(path);
    let types = "f16;q8(residual=0,group=8)";
    let measure = [
        "profile",
        "--data",
        &data,
        "--window",
        "8",
        "--out",
        "p",
        "--quantise",
        types,
        "--quantise",
        "q2(residual=0,group=8)",
        "--jobs",
        "2",
    ];
    let said = printed(path, &measure);
    assert!(said.contains("q2(group=8,residual=0): 0."), "{said}");
    // Asked again it is the same run; without types it is another.
    printed(path, &[&measure[..], &["--resume"]].concat());
    let other = refusal(path, &[&measure[..7], &["--resume"]].concat(), 1);
    assert!(other.contains("another quantise"), "{other}");

    let room = ["--sinks", "1", "--window", "4", "--budget", "20%bytes"];
    let more = [&room[..], &["--out", "plan.json", "--json"]].concat();
    let report = parsed(&printed(path, &allocate("p", "bits-and-tokens", &more)));
    let report = &report["plans"][0];
    let plan = BudgetPlan::read(&path.join("plan.json")).unwrap();
    let full = 42 * CELLS * FULL;
    assert!(bytes_of(&plan) <= full / 5 && bytes_of(&plan) > full / 6);
    assert_eq!(report["bytes"], bytes_of(&plan));
    let layers = report["layers"].as_array().unwrap().iter();
    let sum: u64 = layers.map(|layer| layer["bytes"].as_u64().unwrap()).sum();
    assert_eq!(sum as usize, bytes_of(&plan));
    let error = |of: &str| report["predicted"]["plan"][of].as_f64().unwrap();
    assert!(error("relative_l2_with_types") >= error("relative_l2"));
    let table = printed(path, &allocate("p", "bits-and-tokens", &room));
    assert!(
        table.contains("held in") && table.contains("what the types cost"),
        "{table}"
    );

    let run = [
        "generate",
        "--data",
        &data,
        "--index",
        "2",
        "--plan",
        "plan.json",
        "--json",
        "--max-new-tokens",
        "2",
    ];
    let made = parsed(&printed(path, &run));
    let cached = made["cache_bytes"].as_u64().unwrap() as usize;
    assert_eq!(cached, bytes_of(&plan), "as many bytes as the plan says");
    let said = refusal(path, &["convert", "plan.json", "--out", "ratios.json"], 1);
    assert!(said.contains("held in"), "{said}");
}

#[test]
fn budgets_in_bytes_give_as_many_tokens_as_fit() {
    let (folder, profile) = (tempfile::tempdir().unwrap(), profile());
    let full = LONGEST * CELLS * FULL;
    for (strategy, budget, limit) in [
        ("uniform", "12%bytes", full * 12 / 100),
        ("zigzag", "5MB", 5_000_000),
        ("output-optimal", "5MB", 5_000_000),
    ] {
        for held_as in [None, Some("q8_0"), Some("k=q8,v=q4")] {
            let mut more = vec!["--budget", budget, "--out", "plan.json", "--force"];
            more.extend(
                held_as
                    .iter()
                    .flat_map(|held_as| ["--cache-dtype", held_as]),
            );
            printed(folder.path(), &allocate(&profile, strategy, &more));
            let plan = BudgetPlan::read(&folder.path().join("plan.json")).unwrap();
            let bytes = bytes_of(&plan);
            // What is left is less than another token of every KV head takes.
            assert!(
                bytes <= limit && bytes + CELLS * FULL > limit,
                "{strategy} {held_as:?}"
            );
            let types: Vec<String> = plan
                .held_as
                .concat()
                .iter()
                .map(ToString::to_string)
                .collect();
            match held_as {
                None => assert!(types.is_empty()),
                Some(one) => assert_eq!(types, vec![one; CELLS]),
            }
        }
    }
    let names = ["--budgets", "12%bytes,5MB,128", "--out", "plan.json"];
    printed(folder.path(), &allocate(&profile, "uniform", &names));
    for name in ["plan-12pctbytes.json", "plan-5MB.json", "plan-128.json"] {
        assert_eq!(json(folder.path().join(name))["schema"], 1);
    }
}

#[test]
fn what_no_cache_holds_and_no_profile_knows_is_refused_before_anything_is_read() {
    let (folder, profile) = (tempfile::tempdir().unwrap(), profile());
    let path = folder.path();
    fs::write(path.join("tiny.gguf"), tiny_model(4, 2, |_, t| t)).unwrap();
    fs::write(path.join("ids.jsonl"), r#"{"id": "a", "ids": [1, 2, 3]}"#).unwrap();
    let measured = |types: &str| {
        let model = ["profile", "--model", "tiny.gguf", "--data", "ids.jsonl"];
        refusal(
            path,
            &[&model[..], &["--out", "p", "--quantise", types]].concat(),
            1,
        )
    };
    assert!(measured("q8;q4_0").contains("head dimension is 4"));
    assert!(measured("q8;q4;q8").contains("named once"));
    let refused = |more: &[&str]| refusal(path, &allocate(&profile, "bits-and-tokens", more), 1);
    assert!(refused(&["--budget", "5MB"]).contains("--quantise"));
    assert!(refused(&["--budget", "128"]).contains("spends bytes"));
    assert!(refused(&["--budget", "5MB", "--cache-dtype", "q8"]).contains("--set 'types="));
    assert!(refused(&["--budget", "5MB", "--granularity", "head"]).contains("by layer"));
    let said = refused(&["--budget", "5MB", "--set", "types=q8;q3"]);
    assert!(said.contains("q3"), "{said}");
    let unknown = refusal(path, &allocate(&profile, "bits", &["--budget", "5MB"]), 1);
    assert!(unknown.contains("bits-and-tokens"), "{unknown}");
    let few = refusal(
        path,
        &allocate(&profile, "uniform", &["--budget", "1MB"]),
        1,
    );
    assert!(few.contains("fewest tokens"), "{few}");
    let narrow = ["--budget", "5MB", "--cache-dtype", "q4_0-hadamard"];
    printed(path, &allocate(&profile, "uniform", &narrow));
}
