//! One real KV head under every cache that lives, against an independent NumPy implementation of the same rules
//! (tests/fixtures/living/one_head.json, scripts/living): what attention gives at every step, and every choice.

use candle_core::{Device, Tensor};
use serde::Deserialize;
use serde_json::{Value, json};

use super::*;
use crate::compute::linear::Matrix;
use crate::model::attention::{AttentionView, attend};
use crate::model::cache::{KvCache, Representations};
use crate::model::config::{FAMILIES, LayerKind, ModelConfig};
use crate::model::residency::{Sight, Unchanging};
use crate::registry;

/// What float32 may move an output of attention by; outputs are below 2.
const CLOSE: f64 = 4e-6;

#[derive(Deserialize)]
struct File {
    one_head: OneHead,
}

#[derive(Deserialize)]
pub(super) struct OneHead {
    pub tokens: usize,
    pub steps: usize,
    /// `[query head][token][D]`
    queries: Vec<Vec<Vec<f32>>>,
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
    scores: Vec<f64>,
    configurations: Vec<Value>,
}

const D: usize = 64;

impl OneHead {
    pub fn read() -> Self {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/fixtures/living/one_head.json"
        );
        let text = std::fs::read_to_string(path).unwrap();
        serde_json::from_str::<File>(&text).unwrap().one_head
    }

    fn rows(&self, rows: &[Vec<f32>]) -> Tensor {
        let numbers: Vec<f32> = rows.iter().flatten().copied().collect();
        Tensor::from_vec(numbers, (1, rows.len(), D), &Device::Cpu).unwrap()
    }

    fn queries_at(&self, position: usize) -> Tensor {
        let heads = self.queries.iter().flat_map(|head| head[position].clone());
        let numbers: Vec<f32> = heads.collect();
        Tensor::from_vec(numbers, (self.queries.len(), 1, D), &Device::Cpu).unwrap()
    }

    pub fn prompt(&self) -> KvCache {
        let config = ModelConfig {
            family: FAMILIES[0],
            vocab_size: 8,
            hidden_size: D,
            intermediate_size: 8,
            layers: vec![LayerKind::GLOBAL; 1],
            num_attention_heads: self.queries.len(),
            num_key_value_heads: 1,
            head_dim: D,
            max_position_embeddings: 1024,
            rms_norm_eps: 1e-5,
            ropes: vec![],
            attention_scale: None,
            tie_word_embeddings: true,
        };
        let (keys, values) = (&self.keys[..self.tokens], &self.values[..self.tokens]);
        KvCache::filled(&config, &self.rows(keys), &self.rows(values)).unwrap()
    }

    /// The cache of a configuration when decoding begins, and how it lives.
    fn start(&self, configuration: &Value) -> (KvCache, Box<dyn Residency>) {
        let full = self.prompt();
        let kept = vec![vec![(0..self.tokens as u32).collect()]];
        let rule = |name: &str, parameters: Value| {
            registry::build("residency", RESIDENCIES, name, parameters).unwrap()
        };
        let first = FirstCache {
            head_dim: D,
            prompt_scores: vec![vec![self.scores.clone()]],
            ..FirstCache::new(&kept, self.tokens, Floor::of(0, 1))
        };
        let text = |name: &str| configuration[name].as_str().unwrap().to_owned();
        let held_as = match &*text("kind") {
            "residual" => {
                let side = |name: &str| {
                    format!(
                        "q{}(residual={})",
                        configuration[name], configuration["residual"]
                    )
                };
                format!("k={},v={}", side("k_bits"), side("v_bits"))
            }
            "ggml" => {
                let rotated = configuration["rotated"].as_bool().unwrap();
                let end = if rotated { "-hadamard" } else { "" };
                format!("k={}{end},v={}{end}", text("k"), text("v"))
            }
            "clusters" => {
                let rule = rule(
                    "clusterkv",
                    json!({
                        "budget": configuration["budget"], "every": configuration["every"],
                        "new": configuration["new"], "seed": configuration["seed"], "full_layers": 0,
                    }),
                );
                let mut residency = rule.start(&first).unwrap();
                let mut cache = full.copy(32).unwrap();
                residency.after_step(&mut cache).unwrap();
                residency.measure_recall(true);
                return (cache, residency);
            }
            "two_levels" => {
                let parameters = json!({
                    "prune": configuration["prune"], "demote": configuration["demote"], "fixed": true,
                });
                let rule = rule("leankv", parameters);
                let cut = rule.levels(&first).unwrap().unwrap();
                let residency = rule.start(&first).unwrap();
                return (full.cut_levels(&cut.kept, cut.held_as).unwrap(), residency);
            }
            other => panic!("{other}"),
        };
        let held_as: Representation = held_as.parse().unwrap();
        let cache = full
            .cut_as(&kept, 32, &Representations::from(held_as))
            .unwrap();
        (cache, Box::new(Unchanging))
    }

    /// The newest queries of the prompt.
    pub fn last_queries(&self, most: usize) -> RecentQueries {
        let mut queries = RecentQueries::up_to(most);
        for position in 0..self.tokens {
            let rows = self.queries.iter().map(|head| &*head[position]);
            queries.push(position, rows.collect::<Vec<_>>().concat());
        }
        queries
    }

    /// Attention of a step, `(H_q, D)`, and the slots that were seen.
    pub fn step(
        &self,
        cache: &mut KvCache,
        residency: &mut dyn Residency,
        step: usize,
    ) -> (Vec<f32>, Sight) {
        let at = self.tokens + step;
        cache
            .come(
                &self.rows(&self.keys[at..at + 1]),
                &self.rows(&self.values[at..at + 1]),
            )
            .unwrap();
        let queries = self.queries_at(at);
        let projection =
            Matrix::Dense(Tensor::zeros((1, 1), candle_core::DType::F32, &Device::Cpu).unwrap());
        let held = cache.layer(0);
        let view = AttentionView::of_step(&queries, held, at, &projection);
        let sight = residency.before_attention(&view).unwrap();
        let output = match &sight {
            Sight::Held => attend(&queries, held, at, &[]),
            Sight::Slots(slots) => attend(&queries, &held.seen(slots).unwrap(), at, &[]),
        };
        let output = output.unwrap().flatten_all().unwrap().to_vec1().unwrap();
        cache.pass().unwrap();
        residency.after_step(cache).unwrap();
        (output, sight)
    }
}

/// Bytes and tokens at the high and the low level, as the reference counts them.
fn check_held(cache: &KvCache, want: &Value, what: &str) {
    if let Some(bytes) = want["bytes"].as_u64() {
        assert_eq!(cache.bytes() as u64, bytes, "{what}: bytes");
    }
    let head = &cache.layer(0).heads[0];
    if let Some(high) = want["high"].as_u64() {
        let low = want["low"].as_u64().unwrap() as usize;
        assert_eq!(
            (head.low_tokens(), head.len()),
            (low, low + high as usize),
            "{what}: levels"
        );
    }
}

#[test]
fn every_step_of_every_cache_is_the_references() {
    let one = OneHead::read();
    assert_eq!(one.configurations.len(), 10);
    for configuration in &one.configurations {
        let what = configuration["name"].as_str().unwrap();
        let (mut cache, mut residency) = one.start(configuration);
        check_held(&cache, &configuration["start"], what);
        for step in 0..one.steps {
            let (output, sight) = one.step(&mut cache, &mut *residency, step);
            let want = configuration["outputs"][step].as_array().unwrap().iter();
            let want =
                want.flat_map(|head| head.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()));
            for (i, (got, want)) in output.iter().zip(want).enumerate() {
                let off = (f64::from(*got) - want).abs();
                assert!(
                    off < CLOSE,
                    "{what}, step {step}, number {i}: {got} against {want}"
                );
            }
            if let Some(chosen) = configuration["chosen"].get(step) {
                check_chosen(&sight, chosen, &format!("{what}, step {step}"));
            }
        }
        check_held(&cache, &configuration["end"], what);
        for (step, recalled) in residency.recalled().iter().enumerate() {
            for (name, got) in [
                ("hit_rate", Some(recalled.hit_rate)),
                ("returned", recalled.returned),
            ] {
                let want = configuration[name][step].as_f64();
                assert!(
                    got == want
                        || got
                            .zip(want)
                            .is_some_and(|(got, want)| (got - want).abs() < 1e-12),
                    "{what}, {name} of step {step}: {got:?} against {want:?}"
                );
            }
        }
        if what.starts_with("clusters") {
            assert_eq!(residency.recalled().len(), one.steps);
        }
    }
}

/// Slots that were taken of clusters, without sinks and tokens that belong to none.
fn check_chosen(sight: &Sight, chosen: &Value, what: &str) {
    let Sight::Slots(slots) = sight else {
        panic!("{what}: everything is seen");
    };
    let mut chosen: Vec<u32> = serde_json::from_value(chosen.clone()).unwrap();
    chosen.sort_unstable();
    let seen = |slot: &u32| slots[0].contains(slot);
    assert!(chosen.iter().all(seen), "{what}: {chosen:?} of {slots:?}");
    let others: Vec<u32> = slots[0]
        .iter()
        .copied()
        .filter(|slot| !chosen.contains(slot))
        .collect();
    let (sinks, new) = others.split_at(16.min(others.len()));
    assert!(sinks.iter().copied().eq(0..16), "{what}: {sinks:?}");
    assert!(
        new.windows(2).all(|pair| pair[0] + 1 == pair[1]),
        "{what}: {new:?}"
    );
}
