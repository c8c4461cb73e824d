//! `kvprof eval --method-file`: scores and kept tokens of other programs, with a tiny model from end to end.
#![allow(clippy::unwrap_used)]

mod binary;
mod tiny_model;

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use binary::{printed, refusal};
use candle_core::{DType, Device, Tensor};
use kvprof::eval::Results;
use tiny_model::{LAYERS, tiny_model};

const KV_HEADS: usize = 2;

/// A folder with the tiny model and two prompts of 40 and 43 token ids.
fn model_and_prompts() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("tiny.gguf"),
        tiny_model(4, KV_HEADS, |_, t| t),
    )
    .unwrap();
    let lines = [40, 43].map(|tokens| {
        let ids: Vec<u32> = (0..tokens).map(|i| (i * i + tokens) % 12).collect();
        serde_json::json!({"id": format!("of {tokens}"), "ids": ids}).to_string()
    });
    fs::write(folder.path().join("data.jsonl"), lines.join("\n")).unwrap();
    folder
}

fn eval<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let start = [
        "eval",
        "--model",
        "tiny.gguf",
        "--data",
        "data.jsonl",
        "--window",
        "8",
        "--max-new-tokens",
        "12",
        "--resamples",
        "100",
        "--budgets",
        "16,24",
        "--quiet",
    ];
    [&start[..], more].concat()
}

/// Token ids as `--write-prompts` gives them.
fn prompts(path: &Path) -> Vec<Vec<u32>> {
    printed(path, &eval(&["--write-prompts", "prompts.jsonl"]));
    let text = fs::read_to_string(path.join("prompts.jsonl")).unwrap();
    let line = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        serde_json::from_value(value["ids"].clone()).unwrap()
    };
    text.lines().map(line).collect()
}

/// A file for every prompt, with a tensor of what `value` gives for a token of so many.
fn write(
    folder: &Path,
    name: &str,
    dtype: DType,
    prompts: &[Vec<u32>],
    value: fn(usize, usize) -> f32,
) {
    fs::create_dir_all(folder).unwrap();
    for (place, ids) in prompts.iter().enumerate() {
        let row: Vec<f32> = (0..ids.len()).map(|t| value(t, ids.len())).collect();
        let row = Tensor::new(row, &Device::Cpu).unwrap();
        let all = row.broadcast_as((LAYERS, KV_HEADS, ids.len())).unwrap();
        let all = all.contiguous().unwrap().to_dtype(dtype).unwrap();
        let ids: Vec<i64> = ids.iter().map(|id| i64::from(*id)).collect();
        let ids = Tensor::new(ids, &Device::Cpu).unwrap();
        let tensors = HashMap::from([(name, all), ("ids", ids)]);
        // What a file is called is not read.
        let path = folder.join(format!("any-{}.safetensors", 9 - place));
        candle_core::safetensors::save(&tensors, path).unwrap();
    }
}

/// Every number of a method at a budget, prompt by prompt.
fn numbers(path: &Path, method: &str, budget: &str) -> Vec<Vec<f64>> {
    let table = Results::load(path).unwrap().results;
    assert!(table.texts("error").unwrap().iter().all(String::is_empty));
    let (methods, budgets) = (
        table.texts("method").unwrap(),
        table.texts("budget").unwrap(),
    );
    let rows = (0..table.rows()).filter(|&r| methods[r] == method && budgets[r] == budget);
    let columns = ["kl", "top1", "kv_bytes", "budget_tokens"].map(|c| table.numbers(c).unwrap());
    rows.map(|r| columns.iter().map(|c| c[r]).collect())
        .collect()
}

#[test]
fn scores_of_a_file_are_a_method_like_any_other() {
    let folder = model_and_prompts();
    let path = folder.path();
    let prompts = prompts(path);
    assert_eq!(prompts.iter().map(Vec::len).collect::<Vec<_>>(), [40, 43]);
    write(
        &path.join("late"),
        "scores",
        DType::F32,
        &prompts,
        |t, _| t as f32,
    );
    // What streaming keeps at 16: four sinks and the twelve latest.
    write(&path.join("cut"), "kept", DType::U8, &prompts, |t, n| {
        f32::from(u8::from(t < 4 || t + 12 >= n))
    });
    let more = [
        "--methods",
        "full,snapkv,streaming,late,pyramid+late+pooled,late+cache(f16)",
        "--method-file",
        "late=late",
        "--method-file",
        "cut@16=cut",
        "--out",
        "r",
    ];
    printed(path, &eval(&more));
    let of = |method, budget| numbers(&path.join("r"), method, budget);
    for budget in ["16", "24"] {
        assert_eq!(of("late", budget).len(), 2);
        assert_eq!(of("late", budget), of("streaming", budget));
        assert_eq!(of("pyramid+late+pooled", budget).len(), 2);
        let half: Vec<f64> = of("late+cache(f16)", budget)
            .iter()
            .map(|r| 2.0 * r[2])
            .collect();
        assert_eq!(
            half,
            of("late", budget).iter().map(|r| r[2]).collect::<Vec<_>>()
        );
    }
    assert!(of("late", "16")[0][0] > 0.0, "the cut changes something");
    assert_ne!(of("late", "16"), of("snapkv", "16"));
    // The kept tokens are compared at their own budget alone.
    assert_eq!(of("cut", "16"), of("streaming", "16"));
    assert!(of("cut", "24").is_empty());
    let meta = binary::json(path.join("r/meta.json"));
    let methods = meta["methods"].as_array().unwrap();
    let cut = methods.iter().find(|m| m["name"] == "cut").unwrap();
    assert_eq!(cut["scorer_parameters"]["imported"], "kept");
    assert_eq!(cut["scorer_parameters"]["budget"], "16");
    assert_eq!(
        cut["scorer_parameters"]["sha256"].as_str().unwrap().len(),
        64
    );
}

#[test]
fn files_of_other_prompts_models_and_shapes_are_refused() {
    let folder = model_and_prompts();
    let path = folder.path();
    let own = prompts(path);
    let mut other = own.clone();
    other[1][30] = (other[1][30] + 1) % 12;
    write(&path.join("other"), "scores", DType::F32, &other, |t, _| {
        t as f32
    });
    write(&path.join("kept"), "kept", DType::U8, &own, |_, _| 1.0);
    write(&path.join("none"), "kept", DType::U8, &own, |_, _| 0.0);
    write(&path.join("nan"), "scores", DType::F32, &own, |_, _| {
        f32::NAN
    });
    write(
        &path.join("mixed"),
        "scores",
        DType::F16,
        &own[..1],
        |_, _| 1.0,
    );
    write(&path.join("nothing"), "score", DType::F16, &own, |_, _| 1.0);
    fs::create_dir(path.join("empty")).unwrap();
    for (file, words) in [
        (
            "mine=other",
            "prompt is of 43, but no file of other is of its 43 tokens; the nearest",
        ),
        ("mine=other", "differs from token 30 on"),
        ("mine=kept", "mine@128=kept"),
        ("mine@32=kept", "not among --budgets"),
        ("mine@16=mixed", "leave @16 out"),
        ("mine@16=none", "keeps no token of a KV head of layer 0"),
        ("mine=nan", "not finite"),
        ("mine=mixed", "no file of mixed is of its 43 tokens"),
        ("mine=nothing", "has no tensor 'scores'"),
        ("mine=empty", "without a .safetensors file"),
        ("mine=nowhere", "nowhere"),
        ("mine", "no NAME=PATH"),
        (
            "snapkv=mixed",
            "a method, scorer, strategy or residency has it",
        ),
        ("my+name=mixed", "letters, digits"),
    ] {
        let said = refusal(
            path,
            &eval(&[
                "--methods",
                "full,snapkv",
                "--method-file",
                file,
                "--out",
                "r",
            ]),
            1,
        );
        assert!(said.contains(words), "{file}: {said}");
        assert!(!path.join("r").exists(), "{file}");
    }
    let more = [
        "--methods",
        "full,snapkv,zigzag+mine",
        "--method-file",
        "mine@16=kept",
    ];
    let said = refusal(path, &eval(&more), 1);
    assert!(said.contains("no strategy or split can change"), "{said}");
}
