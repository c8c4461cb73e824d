//! R-KV while decoding: what little attention goes to, and what others say already, leaves.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::eviction::EvictionOptions;
use super::judgement::{CrowdedHead, Judgement, finite, mean_rows, softmax};
use super::{DecodeBudget, FirstCache, ResidencyRule};
use crate::budget::{BudgetPlan, CacheBudget, Floor};
use crate::compute::device::{GroupReduce, Order, Pooling, RowPooling, pool_rows};
use crate::compute::product::{Operand, Threads, multiply};
use crate::error::Result;
use crate::model::residency::Residency;
use crate::registry::{Entry, described, parse};

/// Over the budget, the tokens leave whose attention is small beside what their keys repeat of others.
///
/// Z = λ I − (1 − λ) S. I is the attention of the newest queries to what is older than they are: the largest logit of the
/// group, softmax, mean over the queries, the largest of 7 neighbours. S is the softmax of a key's mean cosine with all
/// keys, its own left out, and of every row the last cosine above 0.5, so that the newest of alike tokens stays.
///
/// Paper: arXiv:2505.24133 (R-KV), section 3. Differs: λ is the code's 0.07, where its README has 0.1; the budget is the
/// most rows at any step, so that the published B is what is left after an eviction, `budget` − `every`; neighbours, and
/// the last of a row, are those by position; evictions are counted from the prompt's end, not by total length. As in
/// the code, a row without such a cosine gives up its first one.
///
/// Units: tokens, where not said otherwise. Costs S² D products for every KV head and eviction.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct EvictRKv {
    /// The most rows of a KV head at any step.
    budget: DecodeBudget,
    /// Steps from one eviction to the next.
    every: usize,
    /// First tokens of the text that never leave.
    sinks: usize,
    /// Newest tokens that do not leave, and whose queries are looked from.
    window: usize,
    /// λ, the share of attention in what a token is worth, 0 to 1.
    lambda: f64,
}

impl Default for EvictRKv {
    fn default() -> Self {
        Self {
            budget: DecodeBudget::default(),
            every: 128,
            sinks: 0,
            window: 8,
            lambda: 0.07,
        }
    }
}

pub(super) const ENTRY: Entry<dyn ResidencyRule> = Entry {
    name: "evict-r-kv",
    paper: "arXiv:2505.24133 (R-KV), section 3",
    about: "every 128 tokens, those of little attention whose keys repeat others leave their KV head",
    differs: "lambda 0.07 as the code has it; the budget holds at every step, so that the published one is budget - every; \
              neighbours are those by position",
    build: |p| {
        let rule = parse::<EvictRKv>(p)?;
        if (0.0..=1.0).contains(&rule.lambda) {
            Ok(Box::new(rule))
        } else {
            Err(serde::de::Error::custom(
                "lambda must be a share from 0 (redundancy alone) to 1 (attention alone)",
            ))
        }
    },
};

impl EvictRKv {
    fn options(&self) -> EvictionOptions {
        EvictionOptions {
            sinks: Some(self.sinks),
            window: Some(self.window),
            ..EvictionOptions::of(&self.budget, self.every)
        }
    }

    fn rule(&self) -> Redundancy {
        Redundancy {
            queries: self.window.max(1),
            lambda: self.lambda,
        }
    }
}

impl ResidencyRule for EvictRKv {
    fn parameters(&self) -> Value {
        described(self)
    }

    fn can_rewind(&self) -> bool {
        false
    }

    fn has_own_floor(&self) -> bool {
        true
    }

    fn looks_back(&self, _: &Floor) -> usize {
        self.rule().looks_back()
    }

    fn plan(&self) -> Option<&BudgetPlan> {
        self.budget.plan()
    }

    fn check(&self, tokens: usize, floor: &Floor, _: Option<CacheBudget>) -> Result<()> {
        self.options().check(tokens, floor)
    }

    fn start(&self, first: &FirstCache<'_>) -> Result<Box<dyn Residency>> {
        self.options().start_judging(first, Box::new(self.rule()))
    }
}

/// Rows of cosines that are worked on at a time.
const ROWS: usize = 64;

/// Cosines above this are of tokens that say the same.
const ALIKE: f32 = 0.5;

/// Neighbours that share the largest attention among them.
const KERNEL: usize = 7;

/// Attention less redundancy.
#[derive(Debug)]
struct Redundancy {
    queries: usize,
    lambda: f64,
}

impl Judgement for Redundancy {
    fn looks_back(&self) -> usize {
        self.queries
    }

    fn worth(&self, head: &CrowdedHead<'_>) -> Result<Vec<f64>> {
        let keys = head.keys()?;
        let attention = self.attention(head, &keys)?;
        let (tokens, d) = keys.dims2()?;
        let alike = redundancy(keys.flatten_all()?.to_vec1()?, tokens, d);
        // What is newer than the prefix stays anyway.
        let attention = attention.into_iter().chain(std::iter::repeat(0.0));
        let pairs = attention.zip(&alike);
        let worth = pairs.map(|(i, s)| self.lambda * i - (1.0 - self.lambda) * s);
        finite(worth.collect(), ENTRY.name)
    }
}

impl Redundancy {
    /// I of every token of the prefix; 0 where no query is known.
    fn attention(&self, head: &CrowdedHead<'_>, keys: &Tensor) -> Result<Vec<f64>> {
        let (prefix, n) = (head.prefix(), head.queries(self.queries));
        if prefix == 0 || n == 0 {
            return Ok(vec![0.0; prefix]);
        }
        let logits = head.logits(keys, self.queries, prefix)?;
        let (largest, others) = logits.split_at(n * prefix);
        let mut largest = largest.to_vec();
        for of_head in others.chunks(n * prefix) {
            let pairs = largest.iter_mut().zip(of_head);
            pairs.for_each(|(most, x)| *most = most.max(*x));
        }
        largest.chunks_mut(prefix).for_each(softmax);
        let mean = mean_rows(&largest, n, prefix)?;
        let pooling = RowPooling {
            rows: 1,
            group: GroupReduce::Mean,
            prefix,
            pooling: Pooling::Max,
            kernel: KERNEL,
            order: Order::PoolFirst,
        };
        Ok(pool_rows(&mean, pooling)?.flatten_all()?.to_vec1()?)
    }
}

/// S of every key.
fn redundancy(mut keys: Vec<f32>, tokens: usize, d: usize) -> Vec<f64> {
    for key in keys.chunks_mut(d.max(1)) {
        let square: f32 = key.iter().map(|x| x * x).sum();
        let length = square.sqrt() + 1e-8;
        key.iter_mut().for_each(|x| *x /= length);
    }
    let mut sums = vec![0.0; tokens];
    let mut cosines = vec![0f32; ROWS.min(tokens) * tokens];
    for first in (0..tokens).step_by(ROWS) {
        let count = ROWS.min(tokens - first);
        multiply(
            [count, tokens, d],
            Operand::rows(&keys[first * d..], d),
            Operand::transposed(&keys, d),
            &mut cosines,
            tokens,
            Threads::One,
        );
        for (i, row) in cosines.chunks_mut(tokens).take(count).enumerate() {
            row[first + i] = 0.0;
            let last = row.iter().rposition(|x| *x > ALIKE).unwrap_or(0);
            row[last] = 0.0;
            let sums = sums.iter_mut().zip(row);
            sums.for_each(|(sum, x)| *sum += f64::from(*x));
        }
    }
    let means = sums.iter().map(|sum| sum / tokens as f64);
    let largest = means.clone().fold(f64::NEG_INFINITY, f64::max);
    let exponentials: Vec<f64> = means.map(|mean| (mean - largest).exp()).collect();
    let total: f64 = exponentials.iter().sum();
    exponentials.iter().map(|x| x / total).collect()
}

#[cfg(test)]
mod tests {
    use super::super::judgement::tests::crowded;
    use super::*;

    #[test]
    fn of_alike_keys_the_newest_is_no_repetition() {
        // The first, third and fourth say the same; the second says nothing of them.
        let keys = vec![1.0, 0.0, 0.0, 2.0, 3.0, 0.0, 1.0, 0.0];
        // Rows (0, 0, 1, 1), (0, 0, 0, 0), (1, 0, 0, 1), (1, 0, 1, 0): the last 1 of each goes.
        let means = [2.0 / 4.0, 0.0, 1.0 / 4.0, 0.0];
        let total: f64 = means.iter().map(|x: &f64| x.exp()).sum();
        for (got, mean) in redundancy(keys, 4, 2).iter().zip(means) {
            assert!((got - mean.exp() / total).abs() < 1e-7, "{got} {mean}");
        }
    }

    #[test]
    fn a_row_without_repetition_gives_up_its_first_cosine() {
        // Cosines of 0.28 with the first key alone; the second and third are at right angles.
        let keys = vec![0.28, 0.28, 0.918_259, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0];
        let got = redundancy(keys, 3, 3);
        // Rows (0, 0.28, 0.28), (0.28, 0, 0), (0.28, 0, 0): the first number of each is set to 0.
        let means = [0.0, 0.28 / 3.0, 0.28 / 3.0];
        let total: f64 = means.iter().map(|x: &f64| x.exp()).sum();
        for (got, mean) in got.iter().zip(means) {
            assert!((got - mean.exp() / total).abs() < 1e-5, "{got} {mean}");
        }
    }

    /// One dimension, so that scores are products; two query heads whose largest logit counts.
    #[test]
    fn attention_is_the_groups_largest_spread_over_neighbours() {
        let rule = |lambda| Redundancy { queries: 1, lambda };
        let mut keys = [0f32; 12];
        keys[1] = 1.0;
        keys[10] = 2.0;
        // The newest token is the window; queries 0.5 and -1 give logits 0.5 and -1 at the second token.
        let worth = crowded(&keys, &keys, &[&[0.5, -1.0]], (0, 1), 1, |head| {
            rule(1.0).worth(head).unwrap()
        });
        let weights: Vec<f64> = (0..11)
            .map(|i| f64::from(0.5 * keys[i]).max(f64::from(-keys[i])).exp())
            .collect();
        let total: f64 = weights.iter().sum();
        for (i, got) in worth[..11].iter().enumerate() {
            let near = weights[i.saturating_sub(3)..(i + 4).min(11)].iter();
            let want = near.fold(0.0, |m: f64, x| m.max(*x)) / total;
            assert!((got - want).abs() < 1e-6, "{i}: {got} {want}");
        }
        // Of redundancy alone the two keys that say the same are worth least, the newer of them more.
        let worth = crowded(&keys, &keys, &[&[0.5, -1.0]], (0, 1), 1, |head| {
            rule(0.0).worth(head).unwrap()
        });
        assert!(worth.iter().all(|x| *x < 0.0) && worth[1] <= worth[2]);
    }
}
