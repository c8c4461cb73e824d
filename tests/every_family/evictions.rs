//! Eviction while decoding against a slow one that is written as the papers say it, also in layers with a window.

use std::cell::Cell;
use std::collections::BTreeMap;

use kvprof::error::Result;
use kvprof::method::LiveCache;
use kvprof::model::attention::AttentionView;
use kvprof::model::cache::KvCache;
use kvprof::model::residency::{Residency, Sight};
use kvprof::select::Slots;
use serde_json::json;

use crate::caches::{adding_up, living};
use crate::family_models::{assert_close, each, numbers, prompt};
use crate::{FLOOR, T, prefilled};

/// Importance by position, of every layer and KV head; after every step a cache is cut anew.
#[derive(Debug)]
struct Slow {
    policy: &'static str,
    budget: usize,
    importance: Vec<Vec<BTreeMap<u32, f64>>>,
    /// Rows that left, those that a window passed not among them.
    left: usize,
}

impl Residency for Slow {
    fn before_attention(&mut self, view: &AttentionView<'_>) -> Result<Sight> {
        // The heads of a layer are equally long.
        let rows = view.probabilities(view.rows.clone())?.to_vec3::<f32>()?;
        let group = rows.len() / view.cache.heads.len();
        for (h, head) in view.cache.heads.iter().enumerate() {
            let own = &mut self.importance[view.layer][h];
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
        let now = cache.next_position();
        let left = Cell::new(self.left);
        let layers = 0..cache.num_layers();
        let kept = layers.map(|l| {
            let (layer, importance) = (cache.layer(l), &self.importance[l]);
            let heads = layer.heads.iter().zip(importance);
            let heads = heads.map(|(head, importance)| {
                // The next token, at `now`, sees no further than its window.
                let seen = |p: &u32| layer.window().is_none_or(|w| *p as usize + w > now);
                let held: Vec<u32> = head.positions().iter().copied().filter(seen).collect();
                let may_leave =
                    |p: &&u32| **p as usize >= FLOOR.sinks && (**p as usize) + FLOOR.window < now;
                let mut order: Vec<u32> = held.iter().filter(may_leave).copied().collect();
                let worth = |p: &u32| importance.get(p).copied().unwrap_or(0.0);
                order.sort_by(|a, b| worth(a).total_cmp(&worth(b)).then(a.cmp(b)));
                order.truncate(held.len().saturating_sub(self.budget - 1));
                left.set(left.get() + order.len());
                let stays = |p: &u32| held.contains(p) && !order.contains(p);
                let slots = head.positions().iter().enumerate();
                let slots = slots.filter(|(_, p)| stays(p));
                slots.map(|(slot, _)| slot as u32).collect()
            });
            heads.collect()
        });
        let kept: Vec<Slots> = kept.collect();
        self.left = left.get();
        cache.retain(&kept, 4)
    }

    fn rows_left(&self) -> Option<usize> {
        Some(self.left)
    }

    fn can_rewind(&self) -> bool {
        false
    }
}

fn positions(cache: &KvCache) -> Vec<Vec<Vec<u32>>> {
    let sorted = |positions: &[u32]| {
        let mut sorted = positions.to_vec();
        sorted.sort_unstable();
        sorted
    };
    let layer = |l| cache.layer(l).heads.iter().map(|h| sorted(h.positions()));
    (0..cache.num_layers())
        .map(|l| layer(l).collect())
        .collect()
}

#[test]
fn eviction_in_place_keeps_what_cutting_anew_keeps() {
    each(|name, model| {
        let cache = prefilled(&model.decoder, &prompt(T));
        let kept = cache.slots();
        let heads = model.decoder.config().num_key_value_heads;
        for policy in adding_up() {
            for budget in [11, 20] {
                let mut live = living(&cache, &kept, policy, json!({"budget": budget}));
                let slow = Slow {
                    policy,
                    budget,
                    importance: vec![vec![BTreeMap::new(); heads]; kept.len()],
                    left: 0,
                };
                let mut slow = LiveCache::new(cache.copy(4).unwrap(), Box::new(slow)).unwrap();
                for step in 0..22u32 {
                    let what = format!("{name}, {policy} of {budget}, step {step}");
                    assert_eq!(positions(live.cache()), positions(slow.cache()), "{what}");
                    let id = step * 43 % 290;
                    let a = numbers(&live.step(&model.decoder, id).unwrap());
                    let b = numbers(&slow.step(&model.decoder, id).unwrap());
                    assert_close(&a, &b, 1e-4, &what);
                }
                assert_eq!(live.held(), slow.held(), "{name}, {policy}");
            }
        }
    });
}
