//! KVzip against kvpress 0.5.5's press (fixtures/kvpress_kvzip.json and .parquet): the same texts, scores and kept tokens.
#![allow(clippy::unwrap_used)]

mod real_model;

use std::path::Path;

use candle_core::{DType, Device};
use kvprof::budget::{Budget, Floor};
use kvprof::method::{Method, observe};
use kvprof::model::Model;
use kvprof::select::Slots;
use kvprof::table::read_json_rows;
use real_model::{fixture, model, prompt_ids};
use serde_json::Value;

/// Float32 moves logits by about 1e-5, and a share's logarithm by as much.
const SCORES_WITHIN: f64 = 5e-5;

/// The default model without its chat template.
fn plain() -> Model {
    let files = model().files.clone();
    let mut plain = Model::load(files, &Device::Cpu, DType::F32).unwrap();
    plain.chat = None;
    plain
}

fn entries() -> Vec<Value> {
    let text = std::fs::read_to_string(fixture("kvpress_kvzip.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Kept slots, `[layer][kv_head]`.
fn theirs(prompt: &str, method: &str, keep: usize) -> Vec<Slots> {
    let rows = read_json_rows(Path::new(&fixture("kvpress_kvzip.parquet"))).unwrap();
    let mut kept = vec![vec![Vec::new(); 3]; 30];
    for row in rows {
        let number = |name: &str| row[name].as_u64().unwrap() as usize;
        if row["prompt"] != prompt || row["method"] != method || number("keep") != keep {
            continue;
        }
        let gaps = row["gaps"].as_array().unwrap().iter();
        let slots = gaps.scan(0, |slot, gap| {
            *slot += gap.as_u64().unwrap() as u32;
            Some(*slot)
        });
        kept[number("layer")][number("kv_head")] = slots.collect();
    }
    kept
}

fn check(entry: &Value, model: &Model) {
    let (prompt, run) = (
        entry["prompt"].as_str().unwrap(),
        entry["run"].as_str().unwrap(),
    );
    let chunk = if run == "kvzip_chunks" { 384 } else { 2048 };
    let scorer = format!("kvzip(chunk={chunk},norms={})", entry["plus"]);
    let splits = [("", "global"), ("_layerwise", "pooled:0")];
    let methods =
        splits.map(|(_, split)| Method::parse(&format!("uniform+{scorer}+{split}")).unwrap());
    let ids = prompt_ids(prompt);
    let observed = observe(model, &ids, 0, &methods, Floor::of(4, 0)).unwrap();
    assert_eq!(observed.cache.next_position(), ids.len());
    assert!(observed.replay_seconds(&methods[0]) > 0.0);
    let scores = observed.token_scores(&methods[0]).unwrap();
    for shown in entry["scores"].as_array().unwrap() {
        let number = |name: &str| shown[name].as_u64().unwrap() as usize;
        let ours = &scores[number("layer")][number("kv_head")];
        for (token, (a, b)) in ours
            .iter()
            .zip(shown["scores"].as_array().unwrap())
            .enumerate()
        {
            let b = b.as_f64().unwrap();
            let gap = (a - b).abs() / b.abs().max(1e-12);
            assert!(
                gap < SCORES_WITHIN,
                "{run} {prompt}: token {token} has {a}, kvpress {b}"
            );
        }
    }
    for (method, (ending, _)) in methods.iter().zip(splits) {
        for keep in [128, 256] {
            let budget = Budget::TokensPerHead(keep as f64);
            let ours = observed.kept(method, Some(budget.into())).unwrap();
            let theirs = theirs(prompt, &format!("{run}{ending}"), keep);
            let count = |kept: &[Slots]| kept.iter().flatten().map(Vec::len).sum::<usize>();
            assert_eq!(count(&ours), keep * 90);
            assert_eq!(count(&theirs), keep * 90);
            for (layer, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
                assert_eq!(
                    ours, theirs,
                    "{run}{ending} {prompt} at {keep}: layer {layer}"
                );
            }
        }
    }
}

#[test]
fn prompts_with_a_chat_template_are_read_again_as_kvpress_does() {
    for entry in entries().iter().filter(|e| e["template"] == true) {
        check(entry, model());
    }
}

#[test]
fn prompts_without_one_are_all_context() {
    let plain = plain();
    for entry in entries().iter().filter(|e| e["template"] == false) {
        check(entry, &plain);
    }
}

#[test]
fn a_prompt_that_cannot_be_read_again_fails_for_its_scorer_alone() {
    let ids = prompt_ids("synth4096");
    // The repetition would end beyond the context of 8,192 tokens.
    let methods = ["uniform+kvzip(chunk=8192)", "snapkv"].map(|name| Method::parse(name).unwrap());
    let plain = plain();
    let observed = observe(&plain, &ids, 0, &methods, Floor::of(4, 32)).unwrap();
    assert_eq!(observed.cache.next_position(), ids.len());
    let kept = |method| observed.kept(method, Some(Budget::TokensPerHead(64.0).into()));
    let said = kept(&methods[0]).unwrap_err().to_string();
    assert!(said.contains("chunk=") && said.contains("8192"), "{said}");
    assert_eq!(kept(&methods[1]).unwrap()[0][0].len(), 64);
}
