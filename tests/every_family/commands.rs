//! Commands on models with windows, as a user runs them.

use std::fs;
use std::path::Path;

use kvprof::budget::BudgetPlan;
use serde_json::{Value, json};

use crate::binary::{json, printed, refusal};
use crate::family_models;

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

fn kept(said: &Value) -> Vec<Vec<usize>> {
    serde_json::from_value(said["kept"].clone()).unwrap()
}

/// Layers, KV heads, head dimension and the layers that see everything.
struct Shape {
    name: &'static str,
    kv_heads: usize,
    head_dim: usize,
    windows: &'static [Option<usize>],
}

const SHAPES: [Shape; 2] = [
    Shape {
        name: "gemma3",
        kv_heads: 2,
        head_dim: 12,
        windows: &[Some(16), Some(16), None, Some(16)],
    },
    Shape {
        name: "mistral",
        kv_heads: 2,
        head_dim: 8,
        windows: &[Some(24), Some(24)],
    },
];

#[test]
fn profile_allocate_generate_and_eval_spend_on_what_layers_see() {
    for shape in SHAPES {
        let folder = tempfile::tempdir().unwrap();
        let (path, data) = (folder.path(), prompts(folder.path()));
        let model = family_models::folder().join(shape.name);
        let model = model.to_str().unwrap();
        let layers = shape.windows.len();
        printed(
            path,
            &[
                "profile", "--model", model, "--data", &data, "--quiet", "--out", "p",
            ],
        );
        let run = |more: &[&str]| -> Value {
            let base = [
                "generate",
                "--model",
                model,
                "--data",
                &data,
                "--index",
                "2",
                "--max-new-tokens",
                "20",
                "--json",
            ];
            serde_json::from_str(&printed(path, &[&base[..], more].concat())).unwrap()
        };
        let row = shape.head_dim * 2 * 4;
        let span = |window: &Option<usize>| window.unwrap_or(42);
        let spans: usize = shape.windows.iter().map(span).sum();
        let full = run(&[]);
        assert_eq!(full["full_cache_bytes"], spans * shape.kv_heads * row);
        let all = [
            "--strategy",
            "uniform",
            "--budget",
            "100%",
            "--window",
            "4",
            "--compare",
        ];
        let whole = run(&all);
        assert_eq!(whole["ids"], full["ids"], "{}", shape.name);
        assert_eq!(whole["comparison"]["kl"], 0.0, "{}", shape.name);
        for strategy in [
            "uniform",
            "zigzag",
            "pyramid",
            "mass-optimal",
            "output-optimal",
        ] {
            let what = format!("{} {strategy}", shape.name);
            let few = [
                "--budget",
                "9",
                "--window",
                "4",
                "--sinks",
                "2",
                "--compare",
            ];
            let said = run(&[&["--strategy", strategy], &few[..]].concat());
            let total: usize = kept(&said).concat().iter().sum();
            assert_eq!(total, 9 * layers * shape.kv_heads, "{what}");
            assert_eq!(said["cache_bytes"], total * row, "{what}");
            let arguments = [
                "allocate",
                "--profile",
                "p",
                "--strategy",
                strategy,
                "--budget",
                "9",
                "--floor",
                "6",
                "--sinks",
                "2",
                "--window",
                "4",
                "--force",
                "--out",
                "plan.json",
            ];
            printed(path, &arguments);
            let plan = BudgetPlan::read(&path.join("plan.json")).unwrap();
            assert_eq!(plan.geometry.windows, shape.windows, "{what}");
            assert_eq!(plan.spent(), 9 * layers * shape.kv_heads, "{what}");
            let said = run(&["--plan", "plan.json"]);
            assert_eq!(kept(&said), plan.tokens_at(42).unwrap(), "{what}");
        }
        let few = [
            "--strategy",
            "zigzag",
            "--budget",
            "9",
            "--window",
            "4",
            "--sinks",
            "2",
        ];
        let whole_windows = [&few[..], &["--whole-windows"]].concat();
        if shape.windows.contains(&None) {
            let said = run(&whole_windows);
            for (layer, window) in kept(&said).iter().zip(shape.windows) {
                let want = window.map_or(9 * shape.kv_heads, |window| window * shape.kv_heads);
                assert_eq!(layer.iter().sum::<usize>(), want, "{}", shape.name);
            }
        } else {
            let base = [
                "generate", "--model", model, "--data", &data, "--index", "2",
            ];
            let said = refusal(path, &[&base[..], &whole_windows].concat(), 1);
            assert!(said.contains("none is left for the budget"), "{said}");
        }
        let arguments = [
            "eval",
            "--model",
            model,
            "--data",
            &data,
            "--out",
            "r",
            "--methods",
            "full,snapkv,zigzag,snapkv+evict-h2o(budget=12)",
            "--budgets",
            "9,100%",
            "--window",
            "4",
            "--sinks",
            "2",
            "--max-new-tokens",
            "6",
            "--resamples",
            "100",
            "--json",
        ];
        printed(path, &arguments);
        assert!(json(path.join("r/meta.json")).is_object());
        // A plan for windows of another size is refused with both.
        let other = if shape.name == "gemma3" {
            "mistral"
        } else {
            "gemma3"
        };
        let other = family_models::folder().join(other);
        let arguments = [
            "generate",
            "--model",
            other.to_str().unwrap(),
            "--data",
            &data,
            "--plan",
            "plan.json",
        ];
        let said = refusal(path, &arguments, 1);
        assert!(
            said.contains("with a window of 16") && said.contains("with a window of 24"),
            "{said}"
        );
    }
}
