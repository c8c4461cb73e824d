//! Recall as a user runs it: `kvprof eval` and `kvprof generate` with ClusterKV, on a tiny model.
#![allow(clippy::unwrap_used)]

mod binary;
mod family_models;

use std::fs;
use std::path::Path;

use binary::{printed, refusal};
use kvprof::eval::Results;
use serde_json::{Value, json};

/// Recall for prompts of forty tokens and a model of two layers.
const SHORT: &str = "sinks=2,tokens_per_cluster=5,every=3,new=2,full_layers=1";

/// Three prompts of 40, 41 and 42 token ids, with answers.
fn prompts(folder: &Path) -> String {
    let lines: Vec<String> = (0..3)
        .map(|p| {
            let ids: Vec<u32> = (0..40 + p).map(|i| (i * 37 + p) % 290).collect();
            json!({"id": format!("p{p}"), "ids": ids, "answers": ["river"]}).to_string()
        })
        .collect();
    fs::write(folder.join("short.jsonl"), lines.join("\n")).unwrap();
    "short.jsonl".to_owned()
}

fn model() -> String {
    family_models::folder()
        .join("llama")
        .to_str()
        .unwrap()
        .to_owned()
}

fn eval<'a>(model: &'a str, methods: &'a str, out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let start = [
        "eval",
        "--model",
        model,
        "--data",
        "short.jsonl",
        "--methods",
        methods,
        "--out",
        out,
        "--window",
        "4",
        "--sinks",
        "2",
        "--max-new-tokens",
        "9",
        "--resamples",
        "100",
    ];
    [&start[..], more].concat()
}

#[test]
fn recall_is_a_row_at_every_budget_and_resumes_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (path, model) = (folder.path(), model());
    prompts(path);
    let methods = format!(
        "full,snapkv,full+clusterkv({SHORT}),full+clusterkv(budget=11,{SHORT}),snapkv+clusterkv(budget=7,{SHORT})"
    );
    let budgets = ["--budgets", "10,100%"];
    let said = printed(
        path,
        &eval(&model, &methods, "a", &[&budgets[..], &["--json"]].concat()),
    );
    let said: Value = serde_json::from_str(&said).unwrap();
    let results = Results::load(&path.join("a")).unwrap();
    let table = &results.results;
    // Full and the one with a budget of its own once, the others at both budgets.
    assert_eq!(table.rows(), 3 * (1 + 2 + 2 + 1 + 2));
    assert!(table.texts("error").unwrap().iter().all(String::is_empty));
    let (names, spent) = (
        table.texts("method").unwrap(),
        table.texts("budget").unwrap(),
    );
    let spends = format!("full+clusterkv({SHORT})");
    let (kl, bytes) = (
        table.numbers("kl").unwrap(),
        table.numbers("kv_bytes").unwrap(),
    );
    let full = table.numbers("full_bytes").unwrap();
    for row in (0..table.rows()).filter(|&row| names[row] == spends) {
        let is_whole = spent[row] == "100%";
        assert!(is_whole || spent[row] == "10");
        assert_eq!(kl[row] < 1e-6, is_whole, "{}", kl[row]);
        assert_eq!(bytes[row] < full[row], !is_whole);
    }
    // It is compared with the baseline at its own budget.
    let compared = said["comparisons"].as_array().unwrap();
    let own = |row: &&Value| row["method"] == spends.as_str() && row["metric"] == "kl";
    let against: Vec<&Value> = compared
        .iter()
        .filter(own)
        .map(|row| &row["baseline_budget"])
        .collect();
    assert_eq!(against, ["10", "100%"]);

    let recall = results.recall.unwrap();
    let steps = recall.counts("step").unwrap();
    let returned = recall.numbers("returned").unwrap();
    assert!(
        recall.rows() > 0
            && steps
                .iter()
                .zip(&returned)
                .all(|(s, r)| (*s == 0) == r.is_nan())
    );
    let hits = recall.numbers("hit_rate").unwrap();
    assert!(hits.iter().all(|hit| (0.0..=1.0).contains(hit)));
    for (row, budget) in recall.texts("budget").unwrap().iter().enumerate() {
        let whole = budget == "100%" && recall.texts("method").unwrap()[row] == spends;
        assert!(!whole || hits[row] == 1.0);
    }
    let summaries = said["recall"].as_array().unwrap();
    assert_eq!(summaries.len(), 2 + 1 + 2);
    assert!(
        summaries
            .iter()
            .all(|s| s["hit_rate"].is_number() && s["steps_with_return"].is_number())
    );

    // What a killed run leaves: its settings and the parts of two prompts.
    printed(
        path,
        &eval(
            &model,
            &methods,
            "b",
            &[&budgets[..], &["--quiet"]].concat(),
        ),
    );
    let parts = path.join("b/.parts");
    fs::create_dir(&parts).unwrap();
    fs::rename(path.join("b/meta.json"), parts.join("meta.json")).unwrap();
    for table in ["results", "evidence", "timings", "residency", "recall"] {
        fs::remove_file(path.join(format!("b/{table}.parquet"))).unwrap();
    }
    let resumed = [&budgets[..], &["--resume"]].concat();
    let shown = printed(path, &eval(&model, &methods, "b", &resumed));
    assert!(shown.contains("steps with a return"), "{shown}");
    for table in ["results", "evidence", "residency", "recall"] {
        let bytes = |run: &str| fs::read(path.join(format!("{run}/{table}.parquet"))).unwrap();
        assert_eq!(bytes("a"), bytes("b"), "{table}");
    }
    // Where nothing recalls there is no table, and nothing is said.
    let shown = printed(path, &eval(&model, "full,snapkv", "c", &budgets));
    assert!(!path.join("c/recall.parquet").exists() && !shown.contains("steps with a return"));
}

#[test]
fn generate_takes_any_method_and_says_what_is_kept_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let (path, model) = (folder.path(), model());
    prompts(path);
    let run = |more: &[&str]| -> Value {
        let start = [
            "generate",
            "--model",
            &model,
            "--data",
            "short.jsonl",
            "--max-new-tokens",
            "9",
            "--json",
        ];
        serde_json::from_str(&printed(path, &[&start[..], more].concat())).unwrap()
    };
    let full = run(&[]);
    let spelled = format!("full+clusterkv({SHORT})");
    let whole = run(&["--method", &spelled, "--budget", "100%", "--compare"]);
    assert_eq!(whole["ids"], full["ids"]);
    assert_eq!(whole["comparison"]["kl"], 0.0);
    let some = run(&["--method", &spelled, "--budget", "10"]);
    let rows = &some["rows_while_decoding"];
    // Two KV heads of the second layer have clustered 38 tokens of the prompt and what was generated in batches of three.
    let row = 8 * 2 * 4;
    let clustered = rows["offloaded_bytes"].as_u64().unwrap() / (2 * row);
    let steps = some["ids"].as_array().unwrap().len() as u64 - 1;
    assert_eq!(clustered, 38 + steps / 3 * 3);
    assert!(rows["mean"].as_f64().unwrap() < 45.0);
    assert_eq!(some["compression"]["residency_parameters"]["every"], 3);
    assert_eq!(some["compression"]["budget"]["tokens_per_head"], 10.0);
    // A method that cuts is what its axes say.
    let cut = ["--budget", "10", "--window", "4", "--sinks", "2"];
    let by_method = run(&[&["--method", "snapkv"], &cut[..]].concat());
    let by_axes = run(&[&["--strategy", "uniform"], &cut[..]].concat());
    assert_eq!(by_method["ids"], by_axes["ids"]);
    assert_eq!(by_method["compression"], by_axes["compression"]);
}

#[test]
fn what_cannot_recall_is_refused_before_weights_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let (path, model) = (folder.path(), model());
    prompts(path);
    for (methods, budgets, part) in [
        ("snapkv,clusterkv", "10", "the 16 sinks"),
        (
            "snapkv,full+clusterkv(budget=16)",
            "20",
            "16 tokens of a KV head",
        ),
        ("snapkv,full+clusterkv(every=0)", "20", "clustered together"),
        (
            "snapkv,full+clusterkv(new=0)",
            "20",
            "clusters of generated",
        ),
        (
            "snapkv,full+clusterkv(tokens_per_cluster=0)",
            "20",
            "tokens per cluster",
        ),
        ("snapkv,full+clusterkv(iterations=0)", "20", "iterations"),
        ("snapkv,clusterkv", "30%", "12 tokens of a KV head"),
    ] {
        let said = refusal(
            path,
            &eval(&model, methods, "x", &["--budgets", budgets]),
            1,
        );
        assert!(said.contains(part), "{methods}: {said}");
        assert!(!path.join("x").exists());
    }
    let generate = |more: &[&str], code: i32| {
        let start = ["generate", "--model", &model, "--data", "short.jsonl"];
        refusal(path, &[&start[..], more].concat(), code)
    };
    assert!(generate(&["--method", "clusterkv"], 1).contains("give it with --budget"));
    assert!(generate(&["--method", "snapkv"], 1).contains("give it with --budget"));
    let twice = ["--method", "full+clusterkv(budget=20)", "--budget", "20"];
    assert!(generate(&twice, 1).contains("leave --budget out"));
    let few = [
        "--method",
        "full+clusterkv(full_layers=1)",
        "--budget",
        "16",
    ];
    assert!(generate(&few, 1).contains("the 16 sinks"));
    let none = generate(&["--method", "clusterkv", "--budget", "20"], 1);
    assert!(none.contains("fewer of the 2 layers"), "{none}");
    assert!(generate(&["--method", "oracle", "--budget", "38"], 1).contains("kvprof eval"));
    assert!(generate(&["--method", "zigzag@profile", "--budget", "38"], 1).contains("@profile"));
    assert!(
        generate(
            &[
                "--method",
                "snapkv",
                "--strategy",
                "zigzag",
                "--budget",
                "38"
            ],
            2
        )
        .contains("--strategy")
    );
    assert!(
        generate(&["--method", "snapkv", "--decode-budget", "38"], 2).contains("--decode-budget")
    );
}
