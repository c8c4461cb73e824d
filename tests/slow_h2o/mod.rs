//! H2O written down as its paper says it, slowly, to hold the one that evicts in place against.

use std::collections::BTreeMap;

use kvprof::error::Result;
use kvprof::model::attention::{AttentionProbe, AttentionView};
use kvprof::model::cache::KvCache;
use kvprof::model::residency::{Residency, Sight};
use kvprof::select::Slots;

use crate::tiny_model::HEAD_DIM;

/// Importance by position, of every layer and KV head.
pub type ByPosition = Vec<Vec<BTreeMap<u32, f64>>>;

/// What every prompt token has received from all rows, from whole attention matrices.
pub struct Received(pub ByPosition);

impl AttentionProbe for Received {
    fn observe(&mut self, view: &AttentionView<'_>) -> Result<()> {
        let rows = view.probabilities(view.rows.clone())?.to_vec3::<f32>()?;
        let group = rows.len() / self.0[view.layer].len();
        for (query_head, rows) in rows.iter().enumerate() {
            let own = &mut self.0[view.layer][query_head / group];
            for row in rows {
                for (key, p) in row.iter().enumerate() {
                    *own.entry(key as u32).or_insert(0.0) += f64::from(*p) / group as f64;
                }
            }
        }
        Ok(())
    }
}

/// The mean over a group of its softmax rows for one position, in float64 from keys and queries as they lie.
fn received(view: &AttentionView<'_>, kv_head: usize) -> Vec<f64> {
    let keys = view.cache.heads[kv_head]
        .keys()
        .unwrap()
        .to_vec2::<f32>()
        .unwrap();
    let queries = view.queries.to_vec3::<f32>().unwrap();
    let group = queries.len() / view.cache.heads.len();
    let mut mean = vec![0.0; keys.len()];
    for g in 0..group {
        let query = &queries[kv_head * group + g][0];
        let logit = |key: &Vec<f32>| {
            let products = query
                .iter()
                .zip(key)
                .map(|(q, k)| f64::from(*q) * f64::from(*k));
            products.sum::<f64>() / (HEAD_DIM as f64).sqrt()
        };
        let logits: Vec<f64> = keys.iter().map(logit).collect();
        let top = logits.iter().copied().fold(f64::MIN, f64::max);
        let sum: f64 = logits.iter().map(|l| (l - top).exp()).sum();
        for (mean, logit) in mean.iter_mut().zip(&logits) {
            *mean += (logit - top).exp() / sum / group as f64;
        }
    }
    mean
}

/// H2O as its paper says it, for heads of any length, each with a bound of its own; the cache is cut anew.
#[derive(Debug)]
pub struct SlowH2o {
    pub importance: ByPosition,
    pub budgets: Vec<Vec<usize>>,
    pub every: usize,
    pub steps: usize,
}

impl Residency for SlowH2o {
    fn before_attention(&mut self, view: &AttentionView<'_>) -> Result<Sight> {
        for (h, own) in self.importance[view.layer].iter_mut().enumerate() {
            let paid = received(view, h);
            for (position, paid) in view.cache.heads[h].positions().iter().zip(paid) {
                *own.entry(*position).or_insert(0.0) += paid;
            }
        }
        Ok(Sight::Held)
    }

    fn after_step(&mut self, cache: &mut KvCache) -> Result<()> {
        self.steps += 1;
        if !(self.steps - 1).is_multiple_of(self.every) {
            return Ok(());
        }
        let now = cache.next_position() as u32;
        let kept = (0..cache.num_layers()).map(|l| {
            let heads = cache.layer(l).heads.iter().enumerate();
            let heads = heads.map(|(h, head)| {
                let worth = |p: &u32| (self.importance[l][h][p], *p);
                let mut order: Vec<(f64, u32)> = (head.positions().iter())
                    .filter(|p| **p >= 2 && **p + 3 < now)
                    .map(worth)
                    .collect();
                order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                let excess = head.len().saturating_sub(self.budgets[l][h] - self.every);
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
