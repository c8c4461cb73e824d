//! LeanKV on cases that are worked out by hand.

use candle_core::{Device, Tensor};
use serde_json::{Value, json};

use super::levels::{LevelBits, Prompt};
use super::living::Living;
use super::*;
use crate::budget::Budget;
use crate::model::cache::{KvCache, LevelSlots};
use crate::model::config::{FAMILIES, LayerKind, ModelConfig};
use crate::model::residency::Residency;

const D: usize = 16;

fn rule(parameters: Value) -> LeanKv {
    serde_json::from_value(parameters).unwrap()
}

/// Ten tokens of one KV head.
fn first(scores: &[f64], kept: &'static [Vec<Vec<u32>>]) -> FirstCache<'static> {
    FirstCache {
        prompt_scores: vec![vec![scores.to_vec()]],
        head_dim: D,
        ..FirstCache::new(kept, scores.len(), Floor::of(0, 1))
    }
}

fn all_kept(tokens: u32) -> &'static [Vec<Vec<u32>>] {
    Box::leak(vec![vec![(0..tokens).collect()]].into_boxed_slice())
}

/// In units of 1/10: what is attended to evenly has 1.
const SCORES: [f64; 10] = [0.5, 0.001, 0.05, 0.1, 0.02, 0.0005, 0.3, 0.0, 0.0, 0.0];

#[test]
fn thresholds_are_of_even_attention_and_the_newest_stay() {
    let rule = rule(json!({"prune": 0.02, "demote": 1.0, "window": 2}));
    let first = first(&SCORES, all_kept(10));
    // Below 0.002 a token is gone, below 0.1 low; tokens 8 and 9 are new.
    let levels = Prompt::of(&rule, &first).unwrap().levels(1.0);
    let want = LevelSlots {
        low: vec![2, 4],
        high: vec![0, 3, 6, 8, 9],
    };
    assert_eq!(levels.kept, [[want]]);
    // Twice as high: below 0.004 gone, below 0.2 low.
    let levels = Prompt::of(&rule, &first).unwrap().levels(2.0);
    let want = LevelSlots {
        low: vec![2, 3, 4],
        high: vec![0, 6, 8, 9],
    };
    assert_eq!(levels.kept, [[want]]);
}

#[test]
fn budgets_scale_the_thresholds_to_the_last_byte() {
    let rule = rule(json!({"window": 2}));
    let first = first(&SCORES, all_kept(10));
    let prompt = Prompt::of(&rule, &first).unwrap();
    // A high token takes 16 + 4 and 8 + 8 bytes, a low one 8 + 8 and 4 + 16.
    let (high, low) = (36, 8 + 8 + 4 + 16);
    assert_eq!(rule.high.keys.bytes(D) + rule.high.values.bytes(D), high);
    assert_eq!(rule.low.keys.bytes(D) + rule.low.values.bytes(D), low);
    let all = prompt.levels_within(10 * high).unwrap();
    assert_eq!((all.scale, all.kept[0][0].high.len()), (0.0, 10));
    // Both levels take the same for heads as narrow: tokens must leave, those of least attention first.
    for tokens in (2..10).rev() {
        let levels = prompt.levels_within(tokens * high + high - 1).unwrap();
        let kept = &levels.kept[0][0];
        let mut slots = [&kept.low[..], &kept.high[..]].concat();
        slots.sort_unstable();
        assert!(
            slots.len() <= tokens && slots.ends_with(&[8, 9]),
            "{slots:?}"
        );
        let least = slots
            .iter()
            .filter(|s| **s < 8)
            .map(|s| SCORES[*s as usize]);
        let least = least.fold(1.0, f64::min);
        let gone = (0..8).filter(|s| !slots.contains(s));
        assert!(
            gone.into_iter().all(|s| SCORES[s as usize] < least),
            "{slots:?}"
        );
    }
    let said = prompt.levels_within(2 * high - 1).unwrap_err().to_string();
    assert!(said.contains("71") && said.contains("takes 72"), "{said}");
}

/// A cache of one head whose first tokens are at the low level; keys of token t are all t.
fn cache(low: &[u32], high: &[u32]) -> KvCache {
    let config = ModelConfig {
        family: FAMILIES[0],
        vocab_size: 8,
        hidden_size: D,
        intermediate_size: 8,
        layers: vec![LayerKind::GLOBAL; 1],
        num_attention_heads: 1,
        num_key_value_heads: 1,
        head_dim: D,
        max_position_embeddings: 64,
        rms_norm_eps: 1e-5,
        ropes: vec![],
        attention_scale: None,
        tie_word_embeddings: true,
    };
    let tokens = 1 + low.iter().chain(high).max().copied().unwrap_or(0) as usize;
    let numbers: Vec<f32> = (0..tokens * D).map(|i| (i / D) as f32).collect();
    let rows = Tensor::from_vec(numbers, (1, tokens, D), &Device::Cpu).unwrap();
    let full = KvCache::filled(&config, &rows, &rows).unwrap();
    let kept = LevelSlots {
        low: low.to_vec(),
        high: high.to_vec(),
    };
    full.cut_levels(&[vec![kept]], LeanKv::default().held_as())
        .unwrap()
}

/// Positions at the low level and at the high one, and whether keys still are those of their positions.
fn held(cache: &KvCache) -> (Vec<u32>, Vec<u32>) {
    let head = &cache.layer(0).heads[0];
    for rows in [head.keys().unwrap(), head.values().unwrap()] {
        for (row, position) in rows.to_vec2::<f32>().unwrap().iter().zip(head.positions()) {
            assert!(
                row.iter().all(|x| *x == *position as f32),
                "{row:?} at {position}"
            );
        }
    }
    let (low, high) = head.positions().split_at(head.low_tokens());
    let (mut low, mut high) = (low.to_vec(), high.to_vec());
    low.sort_unstable();
    high.sort_unstable();
    (low, high)
}

/// One step after a prompt of ten tokens, of which `scores` are known, with thresholds that were not scaled.
fn stepped(
    scores: [f64; 10],
    low: &[u32],
    high: &[u32],
    parameters: Value,
) -> (Vec<u32>, Vec<u32>) {
    let rule = rule(parameters);
    let first = first(&scores, all_kept(10));
    let levels = levels::PromptLevels {
        scale: 1.0,
        kept: vec![vec![LevelSlots {
            low: low.to_vec(),
            high: high.to_vec(),
        }]],
    };
    let mut living = Living::of(&rule, &first, levels).unwrap();
    let mut cache = cache(low, high);
    living.after_step(&mut cache).unwrap();
    held(&cache)
}

#[test]
fn a_head_loses_at_most_one_token_or_its_precision_per_step() {
    let mut scores = [0.3; 10];
    scores[2] = 0.05;
    scores[5] = 0.001;
    scores[7] = 0.0;
    let fixed = json!({"prune": 0.02, "demote": 1.0, "window": 2});
    // Thresholds are 0.002 and 0.1. Token 5 is the least of the high ones, and no low one is lower: it leaves.
    let high = [0, 1, 2, 5, 8, 9];
    assert_eq!(
        stepped(scores, &[3], &high, fixed.clone()),
        (vec![3], vec![0, 1, 2, 8, 9])
    );
    // Token 7 is lower and low already: 5 loses precision instead, and 7, which is below the threshold, leaves.
    assert_eq!(
        stepped(scores, &[3, 7], &high, fixed.clone()),
        (vec![3, 5], vec![0, 1, 2, 8, 9])
    );
    // Token 2 loses precision; nothing leaves.
    assert_eq!(
        stepped(scores, &[3], &[0, 1, 2, 8, 9], fixed.clone()),
        (vec![2, 3], vec![0, 1, 8, 9])
    );
    // Nothing is below a threshold, but for what is new.
    let mut even = [0.3; 10];
    even[9] = 0.0;
    assert_eq!(
        stepped(even, &[3], &[0, 1, 2, 8, 9], fixed),
        (vec![3], vec![0, 1, 2, 8, 9])
    );
    // Of equals the earlier one.
    let wide = json!({"prune": 0.0, "demote": 9.0, "window": 2});
    assert_eq!(stepped([0.3; 10], &[], &[1, 4, 6, 8, 9], wide).0, vec![1]);
}

#[test]
fn what_cannot_be_is_refused_with_the_way_out() {
    let floor = Floor::of(4, 32);
    let check = |parameters: Value, budget: Option<CacheBudget>| {
        rule(parameters)
            .check(100, &floor, budget)
            .map_err(|e| e.to_string())
    };
    let some = Some(CacheBudget::Tokens(Budget::TokensPerHead(64.0)));
    check(json!({}), some).unwrap();
    check(json!({"fixed": true}), None).unwrap();
    for (parameters, budget, part) in [
        (json!({}), None, "fixed=true"),
        (json!({"prune": 2.0}), some, "at most demote"),
        (json!({"prune": -1.0}), some, "at least 0"),
        (json!({"prune": 0, "demote": 0}), some, "cannot be scaled"),
        (json!({"window": 0}), some, "1 or more"),
        (json!({"low": "k16v16"}), some, "high level, k8v4"),
        (json!({"low": "k4v8"}), some, "low level of leankv is k4v8"),
    ] {
        let said = check(parameters, budget).unwrap_err();
        assert!(said.contains(part), "{said}");
    }
    let said = |text: &str| text.parse::<LevelBits>().unwrap_err().to_string();
    for text in ["k8", "8v4", "k3v4", "k8v", "k8v4x"] {
        assert!(said(text).contains("k8v4"), "{text}");
    }
    for text in ["k8v4", "k16v16", "k4v2"] {
        assert_eq!(text.parse::<LevelBits>().unwrap().to_string(), text);
    }
}
