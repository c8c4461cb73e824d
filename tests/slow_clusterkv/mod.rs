//! ClusterKV written down as its rules are said, slowly and by positions, to hold the one that is used against.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use kvprof::error::Result;
use kvprof::model::attention::AttentionView;
use kvprof::model::cache::{HeadCache, KvCache};
use kvprof::model::residency::{RecallStep, Residency, Sight};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// What a run is asked for.
#[derive(Clone, Debug)]
pub struct Rules {
    pub tokens: usize,
    pub budget: usize,
    pub sinks: usize,
    pub tokens_per_cluster: f64,
    pub every: usize,
    pub new: usize,
    pub full_layers: usize,
    pub seed: u64,
}

/// Rows that were seen, of all KV heads together, step by step.
pub type Seen = Arc<Mutex<Vec<usize>>>;

/// A cluster: mean key and positions.
type Cluster = (Vec<f32>, BTreeSet<u32>);

/// The tokens that a KV head may choose from, and those that it chose.
type Choice = (BTreeSet<u32>, BTreeSet<u32>);

#[derive(Debug)]
pub struct SlowClusterKv {
    rules: Rules,
    /// `[layer][kv_head]`.
    clusters: Vec<Vec<Vec<Cluster>>>,
    batches: u64,
    generated: usize,
    /// Of this step and of the one before, in the order of layers and KV heads.
    now: Vec<(Choice, Option<f64>)>,
    before: Option<Vec<Choice>>,
    steps: Vec<RecallStep>,
    seen: Seen,
}

impl SlowClusterKv {
    pub fn new(rules: Rules, seen: Seen) -> Self {
        Self {
            rules,
            clusters: Vec::new(),
            batches: 0,
            generated: 0,
            now: Vec::new(),
            before: None,
            steps: Vec::new(),
            seen,
        }
    }

    fn cluster(&mut self, cache: &KvCache, count: usize) {
        if self.clusters.is_empty() {
            let heads = cache.layer(0).heads.len();
            self.clusters = vec![vec![Vec::new(); heads]; cache.num_layers()];
        }
        for l in self.rules.full_layers..cache.num_layers() {
            let heads = &cache.layer(l).heads;
            for (h, head) in heads.iter().enumerate() {
                let own = &mut self.clusters[l][h];
                let known: BTreeSet<u32> = own
                    .iter()
                    .flat_map(|(_, members)| members.clone())
                    .collect();
                let keys: Vec<(u32, Vec<f64>)> = keys_of(head)
                    .into_iter()
                    .filter(|(p, _)| *p as usize >= self.rules.sinks && !known.contains(p))
                    .collect();
                let mut random = ChaCha8Rng::seed_from_u64(self.rules.seed + self.batches);
                random.set_stream((l * heads.len() + h) as u64);
                own.extend(k_means(&keys, count, &mut random));
            }
        }
        self.batches += 1;
    }

    /// What a KV head chooses for a mean query.
    fn chosen(&self, layer: usize, h: usize, head: &HeadCache, query: &[f64]) -> Choice {
        let clusters = &self.clusters[layer][h];
        let all: BTreeSet<u32> = clusters
            .iter()
            .flat_map(|(_, members)| members.clone())
            .collect();
        let sinks = head
            .positions()
            .iter()
            .filter(|p| (**p as usize) < self.rules.sinks)
            .count();
        let room = if self.rules.budget >= self.rules.tokens {
            all.len()
        } else {
            self.rules.budget - sinks
        };
        let mut left: Vec<usize> = (0..clusters.len()).collect();
        let mut chosen = BTreeSet::new();
        while chosen.len() < room && !left.is_empty() {
            let mut best = 0;
            for i in 1..left.len() {
                let score = |i: usize| {
                    let centroid = &clusters[left[i]].0;
                    let mut sum = 0.0;
                    for (q, c) in query.iter().zip(centroid) {
                        sum += q * f64::from(*c);
                    }
                    sum
                };
                if score(i) > score(best) {
                    best = i;
                }
            }
            let cluster = left.remove(best);
            let some = clusters[cluster].1.iter().take(room - chosen.len());
            chosen.extend(some.copied().collect::<Vec<_>>());
        }
        (all, chosen)
    }
}

/// Positions and keys of all held tokens.
fn keys_of(head: &HeadCache) -> Vec<(u32, Vec<f64>)> {
    let keys = head
        .keys()
        .unwrap()
        .to_dtype(candle_core::DType::F64)
        .unwrap();
    let keys = keys.to_vec2::<f64>().unwrap();
    head.positions().iter().copied().zip(keys).collect()
}

fn uniform(random: &mut ChaCha8Rng) -> f64 {
    (random.next_u64() >> 11) as f64 * 2f64.powi(-53)
}

fn draw(weights: &[f64], random: &mut ChaCha8Rng) -> usize {
    let u = uniform(random);
    let mut total = 0.0;
    for weight in weights {
        total += weight;
    }
    let mut sum = 0.0;
    for (i, weight) in weights.iter().enumerate() {
        sum += weight;
        if sum > u * total {
            return i;
        }
    }
    weights.len() - 1
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let (mut dot, mut of_a, mut of_b) = (0.0, 0.0, 0.0);
    for (x, y) in a.iter().zip(b) {
        dot += x * y;
        of_a += x * x;
        of_b += y * y;
    }
    if of_a == 0.0 || of_b == 0.0 {
        return 0.0;
    }
    dot / (of_a.sqrt() * of_b.sqrt())
}

fn k_means(keys: &[(u32, Vec<f64>)], count: usize, random: &mut ChaCha8Rng) -> Vec<Cluster> {
    let count = count.min(keys.len());
    if count == 0 {
        return Vec::new();
    }
    let mut centres = vec![keys[draw(&vec![1.0; keys.len()], random)].1.clone()];
    while centres.len() < count {
        let mut weights = Vec::new();
        for (_, key) in keys {
            let mut closest = f64::NEG_INFINITY;
            for centre in &centres {
                closest = closest.max(cosine(key, centre));
            }
            weights.push((1.0 - closest).max(0.0));
        }
        if weights.iter().all(|w| *w == 0.0) {
            weights.fill(1.0);
        }
        centres.push(keys[draw(&weights, random)].1.clone());
    }
    let mut assigned: Vec<usize> = Vec::new();
    for _ in 0..20 {
        let mut next = Vec::new();
        for (_, key) in keys {
            let mut best = 0;
            for c in 1..count {
                if cosine(key, &centres[c]) > cosine(key, &centres[best]) {
                    best = c;
                }
            }
            next.push(best);
        }
        if next == assigned {
            break;
        }
        assigned = next;
        for (c, centre) in centres.iter_mut().enumerate() {
            let own: Vec<&Vec<f64>> = (keys.iter().zip(&assigned))
                .filter(|(_, to)| **to == c)
                .map(|((_, key), _)| key)
                .collect();
            if own.is_empty() {
                continue;
            }
            for (d, x) in centre.iter_mut().enumerate() {
                let mut sum = 0.0;
                for key in &own {
                    sum += key[d];
                }
                *x = sum / own.len() as f64;
            }
        }
    }
    let mut clusters = Vec::new();
    for (c, centre) in centres.iter().enumerate() {
        let own = keys.iter().zip(&assigned).filter(|(_, to)| **to == c);
        let members: BTreeSet<u32> = own.map(|((position, _), _)| *position).collect();
        if !members.is_empty() {
            clusters.push((centre.iter().map(|x| *x as f32).collect(), members));
        }
    }
    clusters
}

impl Residency for SlowClusterKv {
    fn before_attention(&mut self, view: &AttentionView<'_>) -> Result<Sight> {
        let heads = &view.cache.heads;
        if view.layer < self.rules.full_layers {
            let held: usize = heads.iter().map(HeadCache::len).sum();
            *self.seen.lock().unwrap().last_mut().unwrap() += held;
            return Ok(Sight::Held);
        }
        let queries = view
            .queries
            .to_dtype(candle_core::DType::F64)?
            .to_vec3::<f64>()?;
        let group = queries.len() / heads.len();
        let rows = view.rows_of_heads()?;
        let mut sight = Vec::new();
        for (h, head) in heads.iter().enumerate() {
            let width = queries[0][0].len();
            let mut query = vec![0.0; width];
            for d in 0..width {
                for g in 0..group {
                    query[d] += queries[h * group + g][0][d];
                }
                query[d] /= group as f64;
            }
            let (all, chosen) = self.chosen(view.layer, h, head, &query);
            let mut worth: Vec<(f64, u32)> = Vec::new();
            let mut slots = Vec::new();
            for (slot, p) in head.positions().iter().enumerate() {
                if !all.contains(p) || chosen.contains(p) {
                    slots.push(slot as u32);
                }
                if all.contains(p) {
                    let of_group = (0..group).map(|g| f64::from(rows[h][g * head.len() + slot]));
                    worth.push((of_group.sum::<f64>() / group as f64, *p));
                }
            }
            worth.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)));
            let top = worth.iter().take(chosen.len());
            let hits = top.filter(|(_, p)| chosen.contains(p)).count() as f64;
            let hit_rate = (!chosen.is_empty()).then(|| hits / chosen.len() as f64);
            self.now.push(((all, chosen), hit_rate));
            *self.seen.lock().unwrap().last_mut().unwrap() += slots.len();
            sight.push(slots);
        }
        Ok(Sight::Slots(sight))
    }

    fn after_step(&mut self, cache: &mut KvCache) -> Result<()> {
        self.seen.lock().unwrap().push(0);
        if self.batches == 0 {
            let count = (self.rules.tokens as f64 / self.rules.tokens_per_cluster + 0.5).floor();
            self.cluster(cache, (count as usize).max(1));
            return Ok(());
        }
        let now = std::mem::take(&mut self.now);
        let heads = now.len() as f64;
        let mut returned = 0.0;
        for (i, ((_, chosen), _)) in now.iter().enumerate() {
            let came_back = |(all, before): &Choice| {
                chosen
                    .iter()
                    .any(|p| all.contains(p) && !before.contains(p))
            };
            if self
                .before
                .as_ref()
                .is_some_and(|before| came_back(&before[i]))
            {
                returned += 1.0;
            }
        }
        let hits: Vec<f64> = now.iter().filter_map(|(_, hit)| *hit).collect();
        let mean = |of: fn(&Choice) -> usize| {
            now.iter().map(|(choice, _)| of(choice)).sum::<usize>() as f64 / heads
        };
        self.steps.push(RecallStep {
            position: cache.next_position() - 1,
            hit_rate: hits.iter().sum::<f64>() / hits.len() as f64,
            returned: (self.before.is_some() && heads > 0.0).then_some(returned / heads),
            recalled: mean(|(_, chosen)| chosen.len()),
            clustered: mean(|(all, _)| all.len()),
        });
        self.before = Some(now.into_iter().map(|(choice, _)| choice).collect());
        self.generated += 1;
        if self.generated == self.rules.every {
            self.cluster(cache, self.rules.new);
            self.generated = 0;
        }
        Ok(())
    }

    fn at_once(&self) -> usize {
        1
    }

    fn recalled(&self) -> &[RecallStep] {
        &self.steps
    }
}
