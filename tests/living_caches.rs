//! Caches that change while they live: residencies against slow and obvious ones, on tiny and real models.
#![allow(clippy::unwrap_used)]

mod real_model;
mod tiny_model;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use candle_core::Device;
use kvprof::budget::{Budget, Floor};
use kvprof::error::Result;
use kvprof::method::residency::FirstCache;
use kvprof::method::{LiveCache, Method, RESIDENCIES, observe};
use kvprof::model::attention::{AttentionView, NoProbe};
use kvprof::model::cache::{KvCache, Representation};
use kvprof::model::config::ModelConfig;
use kvprof::model::decoder::Decoder;
use kvprof::model::gguf::Gguf;
use kvprof::model::precision::Precision;
use kvprof::model::residency::{Residency, Sight};
use kvprof::registry;
use kvprof::select::Slots;
use real_model::{model, prompt_ids};
use serde_json::json;
use tiny_model::{LAYERS, tiny_model};

const FLOOR: Floor = Floor {
    whole_windows: false,
    tokens: 5,
    sinks: 2,
    window: 3,
};

/// Query heads and KV heads.
const GEOMETRIES: [(usize, usize); 4] = [(2, 1), (4, 2), (3, 3), (1, 1)];

/// T; the tiny model's context is 64.
const T: usize = 24;

fn decoder(heads: usize, kv_heads: usize) -> Decoder {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    std::fs::write(&path, tiny_model(heads, kv_heads, |_, t| t)).unwrap();
    let mut gguf = Gguf::open(&path).unwrap();
    let config = ModelConfig::from_gguf(&mut gguf).unwrap();
    Decoder::load(&mut gguf, config, &Device::Cpu, Precision::FLOAT32).unwrap()
}

fn prompt() -> Vec<u32> {
    (0..T).map(|i| ((i * 7 + i * i) % 12) as u32).collect()
}

/// The whole prompt's cache, and every slot of it.
fn prefilled(decoder: &Decoder, ids: &[u32]) -> (KvCache, Vec<Slots>) {
    let mut cache = decoder.new_cache(ids.len()).unwrap();
    decoder.prefill(ids, &mut cache, 16, &mut NoProbe).unwrap();
    let every = |held: &usize| (0..*held as u32).collect();
    let layers = cache.lengths();
    let layers = layers.iter().map(|heads| heads.iter().map(every).collect());
    let kept = layers.collect();
    (cache, kept)
}

fn living(cache: &KvCache, kept: &[Slots], name: &str, parameters: serde_json::Value) -> LiveCache {
    let rule = registry::build("residency", RESIDENCIES, name, parameters).unwrap();
    let first = FirstCache::new(kept, cache.next_position(), FLOOR);
    let cut = cache.cut(kept, 8).unwrap();
    LiveCache::new(cut, rule.start(&first).unwrap()).unwrap()
}

/// Parameters under which a residency changes nothing that is seen.
fn without_a_bound(name: &str) -> serde_json::Value {
    let rule = registry::build("residency", RESIDENCIES, name, json!({})).unwrap();
    if rule.recalls() {
        return json!({
            "budget": "100%", "sinks": 2, "tokens_per_cluster": 4, "every": 5, "new": 2, "full_layers": 0,
        });
    }
    if rule.parameters().get("target").is_some() {
        return json!({"target": "none", "every": 2});
    }
    json!({"budget": "none"})
}

/// Positions of every KV head, sorted.
fn positions(cache: &KvCache) -> Vec<Vec<Vec<u32>>> {
    let head = |positions: &[u32]| {
        let mut sorted = positions.to_vec();
        sorted.sort_unstable();
        sorted
    };
    (0..cache.num_layers())
        .map(|l| {
            cache
                .layer(l)
                .heads
                .iter()
                .map(|h| head(h.positions()))
                .collect()
        })
        .collect()
}

fn numbers(logits: &candle_core::Tensor) -> Vec<f32> {
    logits.to_vec1().unwrap()
}

/// Sees a fixed set of the prompt's slots, and all that came later.
#[derive(Debug)]
struct FixedSight(Vec<Slots>, usize);

impl Residency for FixedSight {
    fn before_attention(&mut self, view: &AttentionView<'_>) -> Result<Sight> {
        let heads = self.0[view.layer].iter().zip(&view.cache.heads);
        let with_new = heads.map(|(kept, head)| {
            let new = self.1 as u32..head.len() as u32;
            kept.iter().copied().chain(new).collect()
        });
        Ok(Sight::Slots(with_new.collect()))
    }
}

#[test]
fn slots_that_are_chosen_are_seen_as_if_the_rest_had_been_cut() {
    let ids = prompt();
    for (heads, kv_heads) in GEOMETRIES {
        let decoder = decoder(heads, kv_heads);
        let (cache, _) = prefilled(&decoder, &ids);
        let head = |l: usize, h: usize| {
            (0..T as u32).filter(move |s| !(s + l as u32 + h as u32).is_multiple_of(3))
        };
        let kept: Vec<Slots> = (0..LAYERS)
            .map(|l| (0..kv_heads).map(|h| head(l, h).collect()).collect())
            .collect();
        let mut cut = LiveCache::keeping(cache.cut(&kept, 8).unwrap());
        let sight = Box::new(FixedSight(kept, T));
        let mut whole = LiveCache::new(cache.copy(8).unwrap(), sight).unwrap();
        for id in [3, 5, 7, 11] {
            let a = numbers(&cut.step(&decoder, id).unwrap());
            let b = numbers(&whole.step(&decoder, id).unwrap());
            assert_eq!(a, b);
        }
        assert_eq!(whole.held().peak, T + 4);
        assert!(whole.can_rewind());
        whole.rewind(T).unwrap();
    }
}

#[test]
fn without_a_bound_nothing_leaves_and_no_bit_changes() {
    let ids = prompt();
    // One that holds two levels of precision has no bound of rows; tests/fewer_bits.rs has its own.
    let has_bound = |name| {
        let rule = registry::build("residency", RESIDENCIES, name, json!({})).unwrap();
        rule.holds_as().is_none()
    };
    let unbounded = RESIDENCIES
        .iter()
        .filter(|r| r.name != "keep" && has_bound(r.name));
    for rule in unbounded {
        for (heads, kv_heads) in GEOMETRIES {
            let decoder = decoder(heads, kv_heads);
            let (cache, kept) = prefilled(&decoder, &ids);
            let mut plain = LiveCache::keeping(cache.copy(8).unwrap());
            let mut live = living(&cache, &kept, rule.name, without_a_bound(rule.name));
            for id in 0..12 {
                let a = numbers(&plain.step(&decoder, id).unwrap());
                let b = numbers(&live.step(&decoder, id).unwrap());
                let same = a.iter().zip(&b).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{} at token {id}", rule.name);
            }
            assert_eq!(positions(plain.cache()), positions(live.cache()));
            let (a, b) = (plain.held(), live.held());
            assert_eq!((a.steps, a.mean(), a.peak), (b.steps, b.mean(), b.peak));
        }
    }
}

/// What the slow twin of a policy keeps for its next step: importance by position, of every layer and KV head.
type Shared = Arc<Mutex<Vec<Vec<BTreeMap<u32, f64>>>>>;

/// A policy written down as the papers say it: importance by position, and a cache that is cut anew by `retain`.
#[derive(Debug)]
struct Slow {
    policy: &'static str,
    budget: usize,
    every: usize,
    importance: Shared,
    steps: usize,
}

impl Residency for Slow {
    fn before_attention(&mut self, view: &AttentionView<'_>) -> Result<Sight> {
        let mut importance = self.importance.lock().unwrap();
        // Heads of one length, so that the rows of a whole layer come from a product of their own.
        let rows = view.probabilities(view.rows.clone())?.to_vec3::<f32>()?;
        let group = rows.len() / view.cache.heads.len();
        for (h, head) in view.cache.heads.iter().enumerate() {
            let own = &mut importance[view.layer][h];
            for (slot, &position) in head.positions().iter().enumerate() {
                let of_group = (0..group).map(|g| f64::from(rows[h * group + g][0][slot]));
                let received = of_group.sum::<f64>() / group as f64;
                let value = own.entry(position).or_insert(0.0);
                *value = match self.policy {
                    "evict-h2o" => *value + received,
                    "evict-tova" => received,
                    _ => f64::from(position),
                };
            }
        }
        Ok(Sight::Held)
    }

    fn after_step(&mut self, cache: &mut KvCache) -> Result<()> {
        self.steps += 1;
        if self.steps > 1 && !(self.steps - 1).is_multiple_of(self.every) {
            return Ok(());
        }
        let importance = self.importance.lock().unwrap();
        let now = cache.next_position() as u32;
        let kept = (0..cache.num_layers()).map(|l| {
            let heads = cache.layer(l).heads.iter().enumerate();
            let heads = heads.map(|(h, head)| {
                let mut order: Vec<(f64, u32)> = (head.positions().iter())
                    .filter(|p| **p >= 2 && **p + 3 < now)
                    .map(|p| (importance[l][h].get(p).copied().unwrap_or(0.0), *p))
                    .collect();
                order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                let excess = head.len().saturating_sub(self.budget - self.every);
                let gone: Vec<u32> = order.iter().take(excess).map(|(_, p)| *p).collect();
                let slots = head.positions().iter().enumerate();
                let slots = slots.filter(|(_, p)| !gone.contains(p));
                slots.map(|(slot, _)| slot as u32).collect()
            });
            heads.collect()
        });
        let kept: Vec<Slots> = kept.collect();
        cache.retain(&kept, 8)
    }

    fn can_rewind(&self) -> bool {
        false
    }
}

#[test]
fn eviction_in_place_keeps_what_cutting_anew_keeps() {
    let ids = prompt();
    for (policy, every) in [
        ("evict-h2o", 1),
        ("evict-h2o", 5),
        ("evict-tova", 1),
        ("evict-tova", 3),
        ("evict-streaming", 1),
        ("evict-streaming", 4),
    ] {
        for (heads, kv_heads) in GEOMETRIES {
            let decoder = decoder(heads, kv_heads);
            let (cache, kept) = prefilled(&decoder, &ids);
            let parameters = json!({"budget": 14, "every": every});
            let mut live = living(&cache, &kept, policy, parameters);
            let slow = Slow {
                policy,
                budget: 14,
                every,
                importance: Arc::new(Mutex::new(vec![vec![BTreeMap::new(); kv_heads]; LAYERS])),
                steps: 0,
            };
            // Where every token is as important as the next, the first to leave are the earliest in both.
            let mut reference = LiveCache::new(cache.copy(8).unwrap(), Box::new(slow)).unwrap();
            assert_eq!(
                positions(live.cache()),
                positions(reference.cache()),
                "{policy} at once"
            );
            for step in 0..36u32 {
                let id = step * 7 % 12;
                let a = numbers(&live.step(&decoder, id).unwrap());
                let b = numbers(&reference.step(&decoder, id).unwrap());
                let close = a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-4);
                assert!(close, "{policy} every {every}: step {step}");
                let (ours, theirs) = (positions(live.cache()), positions(reference.cache()));
                assert_eq!(ours, theirs, "{policy} every {every}: step {step}");
            }
            assert_eq!(live.held().peak, 14, "{policy} every {every}");
            assert!(live.held().mean() <= 14.0 && live.held().mean() > 14.0 - every as f64);
        }
    }
}

#[test]
fn a_moving_window_holds_the_first_and_the_newest_tokens() {
    let (decoder, ids) = (decoder(4, 2), prompt());
    let (cache, kept) = prefilled(&decoder, &ids);
    let mut live = living(&cache, &kept, "evict-streaming", json!({"budget": 12}));
    for id in 0..30u32 {
        let id = id % 12;
        live.step(&decoder, id).unwrap();
    }
    let want: Vec<u32> = [0, 1].into_iter().chain(45..54).collect();
    assert!(
        positions(live.cache())
            .iter()
            .flatten()
            .all(|head| *head == want)
    );
    assert_eq!(live.cache().next_position(), 54);
}

#[test]
fn what_left_cannot_be_brought_back() {
    let (decoder, ids) = (decoder(4, 2), prompt());
    let (cache, kept) = prefilled(&decoder, &ids);
    let mut live = living(&cache, &kept, "evict-h2o", json!({"budget": 12}));
    assert!(!live.can_rewind());
    assert!(
        live.rewind(T)
            .unwrap_err()
            .to_string()
            .contains("cannot be brought back")
    );
    live.step(&decoder, 3).unwrap();
    let mut cache = live.into_cache();
    let said = cache.rewind(T).unwrap_err().to_string();
    assert!(said.contains("25"), "{said}");
    decoder.decode(5, &mut cache).unwrap();
    cache.rewind(T + 1).unwrap();
}

#[test]
fn bounds_that_leave_nothing_to_choose_are_refused() {
    let floor = Floor::of(4, 32);
    let check = |parameters: serde_json::Value| {
        let rule = registry::build("residency", RESIDENCIES, "evict-h2o", parameters)?;
        rule.check(1000, &floor, None)
    };
    check(json!({"budget": 37})).unwrap();
    check(json!({"budget": "12%"})).unwrap();
    for (parameters, part) in [
        (json!({"budget": 36}), "take 37"),
        (json!({"budget": 40, "every": 5}), "take 41"),
        (json!({"budget": "1%"}), "10 rows"),
        (json!({"budget": 100, "every": 0}), "every so many"),
        (json!({"budget": "lots"}), "kept"),
        (json!({"budget": 64, "evry": 2}), "every"),
    ] {
        let said = check(parameters).unwrap_err().to_string();
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn a_cache_of_other_types_is_rounded_once_and_smaller() {
    let (decoder, ids) = (decoder(4, 2), prompt());
    let (cache, kept) = prefilled(&decoder, &ids);
    let logits = |representation: Representation| {
        let cut = cache.cut_as(&kept, 8, &representation.into()).unwrap();
        let share = cut.bytes() as f64 / cache.bytes() as f64;
        let mut live = LiveCache::keeping(cut);
        let rows = live.feed(&decoder, &[3, 5, 7]).unwrap();
        (share, rows.concat())
    };
    let (whole, exact) = logits(Representation::FLOAT32);
    assert_eq!(whole, 1.0);
    let of = |text: &str| logits(text.parse().unwrap());
    for (text, share) in [("bf16", 0.5), ("k=bf16,v=f32", 0.75), ("k=f32,v=f16", 0.75)] {
        let (found, rounded) = of(text);
        assert_eq!(found, share, "{text}");
        let off = exact.iter().zip(&rounded).map(|(a, b)| (a - b).abs());
        let off = off.fold(0f32, f32::max);
        assert!(off > 0.0 && off < 0.1, "{text}: {off}");
    }
    // Rounding keys alone and values alone are different things.
    assert_ne!(of("k=bf16,v=f32").1, of("k=f32,v=bf16").1);
}

/// The real model: a bound on every head from a plan that differs by layer, held at every step, in flat memory.
#[test]
fn a_real_cache_stays_within_its_bytes() {
    let (model, ids) = (model(), prompt_ids("synth512"));
    let methods = Method::parse_list("zigzag+snapkv+evict-h2o,zigzag+snapkv").unwrap();
    let floor = Floor::of(4, 32);
    let observed = observe(model, &ids, 0, &methods, floor).unwrap();
    let budget = Some(Budget::TokensPerHead(96.0).into());
    let kept = observed.kept(&methods[0], budget).unwrap();
    assert_eq!(kept, observed.kept(&methods[1], budget).unwrap());
    let mut live = observed.cut(&methods[0], &kept, budget, 8).unwrap();
    let most: Vec<Vec<usize>> = kept
        .iter()
        .map(|l| l.iter().map(Vec::len).collect())
        .collect();
    let fewer = |lengths: &[Vec<usize>]| -> Vec<Vec<usize>> {
        lengths
            .iter()
            .map(|l| l.iter().map(|n| n - 1).collect())
            .collect()
    };
    assert_eq!(live.cache().lengths(), fewer(&most));
    let (bytes, allocated) = (live.bytes().resident, live.cache().allocated_bytes());
    for step in 0..150u32 {
        live.step(&model.decoder, 100 + step * 13 % 900).unwrap();
        assert_eq!(live.cache().lengths(), fewer(&most));
        assert_eq!(live.bytes().resident, bytes);
        assert_eq!(live.cache().allocated_bytes(), allocated);
    }
    assert_eq!(live.cache().next_position(), ids.len() + 150);
    assert_eq!(live.held().peak, *most.iter().flatten().max().unwrap());
    assert_eq!(live.held().mean(), 96.0);
    // Tokens of the prompt and generated ones are among what is held, and the last ones always.
    let newest = ids.len() as u32 + 149;
    let all = positions(live.cache());
    assert!(
        all.iter()
            .flatten()
            .all(|head| head.contains(&newest) && head.contains(&0))
    );
}
