//! VaSE while decoding: large values stay, and of the rest attention decides by lot.

use candle_core::Tensor;
use rand_chacha::rand_core::Rng;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::eviction::EvictionOptions;
use super::judgement::{CrowdedHead, Judgement, finite, mean_rows};
use super::{DecodeBudget, FirstCache, ResidencyRule};
use crate::budget::{BudgetPlan, CacheBudget, Floor};
use crate::compute::device::{GroupReduce, Order, Pooling, RowPooling, pool_rows};
use crate::error::Result;
use crate::model::residency::Residency;
use crate::registry::{Entry, described, parse};

/// Over the budget, the tokens stay whose values span the widest range; the rest is drawn, without replacement, with the
/// attention of the newest queries as chances.
///
/// Paper: arXiv:2606.03928 (VaSE). Differs: the budget is the most rows at any step, so that the published B, of which
/// `ranges` are chosen by range, is what is left after an eviction: `budget` − `every`; evictions are counted from the
/// prompt's end, where what is over it leaves at once, not by total length; draws are ChaCha8's, a stream for every
/// eviction and KV head, so that a seed gives the same tokens again.
///
/// Units: tokens, where not said otherwise.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct EvictVase {
    /// The most rows of a KV head at any step.
    budget: DecodeBudget,
    /// Steps from one eviction to the next.
    every: usize,
    /// First tokens of the text that never leave.
    sinks: usize,
    /// Newest tokens that do not leave, and whose queries are looked from.
    window: usize,
    /// Share of what is left that is chosen by range, sinks among it; 0 to 1.
    ranges: f64,
    /// Neighbours over which chances are averaged, odd.
    kernel: usize,
    /// Seed of the draws.
    seed: u64,
}

impl Default for EvictVase {
    fn default() -> Self {
        Self {
            budget: DecodeBudget::default(),
            every: 64,
            sinks: 4,
            window: 64,
            ranges: 0.25,
            kernel: 5,
            seed: 0,
        }
    }
}

pub(super) const ENTRY: Entry<dyn ResidencyRule> = Entry {
    name: "evict-vase",
    paper: "arXiv:2606.03928 (VaSE)",
    about: "every 64 tokens, a quarter stays by the range of its values, the rest by lot with attention as chances",
    differs: "the budget holds at every step, so that the published one is budget - every; what is over it after the prompt \
              leaves at once; seeded",
    build: |p| {
        let rule = parse::<EvictVase>(p)?;
        if !(0.0..=1.0).contains(&rule.ranges) {
            return Err(serde::de::Error::custom(
                "ranges must be a share from 0 to 1 of what is left",
            ));
        }
        if rule.kernel.is_multiple_of(2) {
            return Err(serde::de::Error::custom(
                "kernel must be odd, to be centred on a token",
            ));
        }
        Ok(Box::new(rule))
    },
};

impl EvictVase {
    fn options(&self) -> EvictionOptions {
        EvictionOptions {
            sinks: Some(self.sinks),
            window: Some(self.window),
            ..EvictionOptions::of(&self.budget, self.every)
        }
    }

    fn rule(&self) -> ByRangeAndLot {
        ByRangeAndLot {
            queries: self.window.max(1),
            ranges: self.ranges,
            kernel: self.kernel,
            seed: self.seed,
        }
    }
}

impl ResidencyRule for EvictVase {
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

/// What spans a wide range, then what is drawn.
#[derive(Debug)]
struct ByRangeAndLot {
    queries: usize,
    ranges: f64,
    kernel: usize,
    seed: u64,
}

impl Judgement for ByRangeAndLot {
    fn looks_back(&self) -> usize {
        self.queries
    }

    fn worth(&self, head: &CrowdedHead<'_>) -> Result<Vec<f64>> {
        let (sinks, prefix) = (head.sinks(), head.prefix());
        let chances = self.chances(head, prefix)?;
        let mut generator = head.generator(self.seed);
        // The largest of ln(u) / p are a draw without replacement whose chances are p.
        let lot = |p: &f64| {
            let unit = ((generator.next_u64() >> 11) + 1) as f64 / (1u64 << 53) as f64;
            if *p > 0.0 {
                unit.ln() / p
            } else {
                f64::NEG_INFINITY
            }
        };
        let mut worth: Vec<f64> = chances.iter().map(lot).collect();
        let widest = (self.ranges * head.stays as f64).floor() as usize;
        let ranges = ranges(&head.values()?.narrow(0, 0, prefix)?)?;
        let mut order: Vec<usize> = (sinks.min(prefix)..prefix).collect();
        order.sort_by(|a, b| ranges[*b].total_cmp(&ranges[*a]).then(b.cmp(a)));
        // No more than there are places for behind the sinks, or age would decide among them.
        let places = head
            .stays
            .saturating_sub(head.tokens() - prefix + sinks.min(prefix));
        let marked = widest.saturating_sub(sinks).min(places);
        for token in order.into_iter().take(marked) {
            worth[token] = f64::INFINITY;
        }
        worth.resize(head.tokens(), f64::INFINITY);
        Ok(worth)
    }
}

impl ByRangeAndLot {
    /// Attention of the newest queries to the tokens before them alone: its mean over the queries, over neighbours, and
    /// over the group; 0 where no query is known.
    fn chances(&self, head: &CrowdedHead<'_>, prefix: usize) -> Result<Vec<f64>> {
        let n = head.queries(self.queries);
        if prefix == 0 || n == 0 {
            return Ok(vec![0.0; prefix]);
        }
        let keys = head.keys()?;
        let rows = head.rows(&keys, self.queries, prefix)?;
        let pooling = RowPooling {
            rows: head.group(keys.dim(1)?),
            group: GroupReduce::Mean,
            prefix,
            pooling: Pooling::Avg,
            kernel: self.kernel,
            order: Order::PoolFirst,
        };
        let mean = mean_rows(&rows, n, prefix)?;
        let chances = pool_rows(&mean, pooling)?.flatten_all()?.to_vec1()?;
        finite(chances, ENTRY.name)
    }
}

/// The largest less the smallest number of every value.
fn ranges(values: &Tensor) -> Result<Vec<f32>> {
    if values.dim(0)? == 0 {
        return Ok(Vec::new());
    }
    Ok((values.max(1)? - values.min(1)?)?.to_vec1()?)
}

#[cfg(test)]
mod tests {
    use super::super::judgement::tests::crowded;
    use super::*;

    /// What stays of ten tokens beside the sink and the last: of seven in all, two by range and three by lot.
    fn kept(seed: u64, queries: &[&[f32]]) -> Vec<usize> {
        let rule = ByRangeAndLot {
            queries: 1,
            ranges: 0.5,
            kernel: 1,
            seed,
        };
        let keys = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 40.0, 0.0];
        // Two dimensions each: ranges 9, 0, 5, 1, 1, 7, 1, 1, 1, 1.
        let values = [
            9.0, 0.0, 3.0, 3.0, -2.0, 3.0, 0.0, 1.0, 1.0, 2.0, 0.0, -7.0, 4.0, 5.0, 0.0, 1.0, 0.0,
            1.0, 0.0, 1.0,
        ];
        let keys: Vec<f32> = keys.iter().flat_map(|x| [*x, 0.0]).collect();
        crowded(&keys, &values, queries, (1, 1), 2, |head| {
            assert_eq!((head.sinks(), head.prefix(), head.tokens()), (1, 9, 10));
            let worth = rule.worth(head).unwrap();
            let mut order: Vec<usize> = (1..9).collect();
            order.sort_by(|a, b| worth[*b].total_cmp(&worth[*a]).then(b.cmp(a)));
            order.truncate(head.stays - 2);
            order.sort_unstable();
            order.into_iter().map(|i| i as f64).collect()
        })
        .into_iter()
        .map(|i| i as usize)
        .collect()
    }

    #[test]
    fn wide_ranges_stay_and_attention_is_a_chance() {
        // All attention goes to the ninth token, which is drawn whatever the seed.
        let queries: [&[f32]; 1] = [&[1.0, 0.0]];
        let mut others = std::collections::BTreeSet::new();
        for seed in 0..40 {
            let kept = kept(seed, &queries);
            assert_eq!(kept.len(), 5);
            // Of the three by range the sink is one.
            assert!(
                [2, 5, 8].iter().all(|token| kept.contains(token)),
                "{kept:?}"
            );
            assert_eq!(kept, self::kept(seed, &queries));
            others.insert(kept);
        }
        assert!(others.len() > 3, "{others:?}");
    }

    /// Chances are shares: of two tokens with 0.8 and 0.2, the first is drawn first four times in five.
    #[test]
    fn a_draw_has_the_chances_of_attention() {
        let rule = |seed| ByRangeAndLot {
            queries: 1,
            ranges: 0.0,
            kernel: 1,
            seed,
        };
        let keys = [4f32.ln(), 0.0, 0.0];
        let first = |seed| {
            let worth = crowded(&keys, &keys, &[&[1.0]], (0, 1), 1, |head| {
                rule(seed).worth(head).unwrap()
            });
            worth[0] > worth[1]
        };
        let count = (0..2000).filter(|seed| first(*seed)).count();
        // Five standard deviations of 2,000 draws are 0.045.
        assert!((count as f64 / 2000.0 - 0.8).abs() < 0.045, "{count}");
    }
}
