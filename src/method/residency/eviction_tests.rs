//! One real KV head from which tokens leave, against an independent NumPy implementation of the same rules, and against
//! kvpress's own DecodingPress (tests/fixtures/living/evictions.json, scripts/make_evictions.py).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::reference_tests::OneHead;
use super::*;
use crate::registry;

#[derive(Deserialize)]
struct Followed {
    residency: String,
    parameters: Value,
    /// Positions that are held before the first step, and after each that lets tokens leave.
    kept: BTreeMap<usize, Vec<u32>>,
}

#[test]
fn every_eviction_keeps_what_the_reference_keeps() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/living/evictions.json"
    );
    let text = std::fs::read_to_string(path).unwrap();
    let all: Vec<Followed> = serde_json::from_str(&text).unwrap();
    let one = OneHead::read();
    assert_eq!(all.len(), 10);
    for followed in all {
        let what = format!("{} {}", followed.residency, followed.parameters);
        let rule = registry::build(
            "residency",
            RESIDENCIES,
            &followed.residency,
            followed.parameters,
        );
        let rule = rule.unwrap();
        let full = one.prompt();
        let kept = full.slots();
        let floor = Floor::of(0, 1);
        let first = FirstCache {
            last_queries: vec![one.last_queries(rule.looks_back(&floor))],
            ..FirstCache::new(&kept, one.tokens, floor)
        };
        let mut residency = rule.start(&first).unwrap();
        let mut cache = full.copy(32).unwrap();
        residency.after_step(&mut cache).unwrap();
        let mut want: Vec<u32> = (0..one.tokens as u32).collect();
        for step in 0..=one.steps {
            if step > 0 {
                one.step(&mut cache, &mut *residency, step - 1);
                want.push((one.tokens + step - 1) as u32);
            }
            if let Some(kept) = followed.kept.get(&step) {
                want.clone_from(kept);
            }
            let mut held = cache.layer(0).heads[0].positions().to_vec();
            held.sort_unstable();
            assert_eq!(held, want, "{what}, step {step}");
        }
        let evictions = followed.kept.len();
        assert!(evictions >= 3, "{what}: {evictions}");
    }
}
