//! Eviction while decoding: over the budget, the least important tokens of a KV head leave.

use std::fmt;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::judgement::{CrowdedHead, Judgement};
use super::recent_queries::RecentQueries;
use super::{DecodeBudget, FirstCache};
use crate::budget::{Floor, TokenBudgets};
use crate::error::{Error, Result};
use crate::model::attention::AttentionView;
use crate::model::cache::{HeadCache, KvCache};
use crate::model::residency::{Residency, Sight};

/// Attention of the newest queries of a KV head's group.
pub(super) struct HeadRows<'a> {
    /// `(G, n, S)`.
    pub rows: &'a [f32],
    /// S.
    pub held: usize,
    /// G · n.
    pub queries: usize,
    /// n.
    pub positions: usize,
}

impl HeadRows<'_> {
    /// What a slot receives from each position, oldest first: the mean over the group's query heads.
    pub fn received(&self, slot: usize) -> impl Iterator<Item = f64> + '_ {
        let group = self.queries / self.positions.max(1);
        (0..self.positions).map(move |position| {
            let of_head = |g: usize| self.rows[(g * self.positions + position) * self.held + slot];
            (0..group).map(|g| f64::from(of_head(g))).sum::<f64>() / group as f64
        })
    }
}

/// What makes a token worth keeping, step by step; see [`Judgement`] for what is asked only when tokens must leave.
pub(super) trait Importance: fmt::Debug + Send + Sync {
    /// Whether it looks at attention; rows are computed only then.
    fn reads_rows(&self) -> bool;

    /// Brings the importance of every slot of a KV head up to date; slots of new tokens come as 0.
    fn update(&self, importance: &mut [f64], positions: &[u32], rows: Option<&HeadRows<'_>>);
}

/// The parameters that all eviction while decoding has.
///
/// Units: tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct EvictionOptions {
    /// The most rows of a KV head at any step.
    pub budget: DecodeBudget,
    /// Steps from one eviction to the next; as many leave together.
    pub every: usize,
    /// First tokens of the text that never leave; those of the method if absent.
    pub sinks: Option<usize>,
    /// Newest tokens that do not leave; those of the method if absent.
    pub window: Option<usize>,
    /// What the budget bounds.
    #[serde(skip)]
    pub bound: Bound,
}

/// What a budget bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Bound {
    /// The rows at every step: what is over it after the prompt's cut leaves at once, and room is left for what comes until
    /// the next eviction.
    #[default]
    EveryStep,
    /// The rows right after an eviction; the first comes as many steps after the prompt as lie between two.
    AfterEviction,
}

impl Default for EvictionOptions {
    fn default() -> Self {
        Self::of(&DecodeBudget::default(), 1)
    }
}

impl EvictionOptions {
    /// With sinks and window of the method, and a budget for every step.
    pub fn of(budget: &DecodeBudget, every: usize) -> Self {
        Self {
            budget: budget.clone(),
            every,
            sinks: None,
            window: None,
            bound: Bound::default(),
        }
    }

    /// Tokens that come until the next eviction and find room under the budget.
    fn coming(&self) -> usize {
        if self.bound == Bound::EveryStep {
            self.every
        } else {
            0
        }
    }

    /// What stays in any case.
    fn floor(&self, method: &Floor) -> Floor {
        let sinks = self.sinks.unwrap_or(method.sinks);
        Floor {
            whole_windows: method.whole_windows,
            ..Floor::of(sinks, self.window.unwrap_or(method.window))
        }
    }

    /// Refuses a bound that leaves nothing to choose.
    ///
    /// Errors: [`Error::Invalid`] for budgets below sinks, window and the tokens between two evictions.
    pub fn check(&self, tokens: usize, method: &Floor) -> Result<()> {
        self.check_steps()?;
        match self.budget.fewest(tokens)? {
            Some(rows) => self.check_rows(rows, &self.floor(method)),
            None => Ok(()),
        }
    }

    fn check_steps(&self) -> Result<()> {
        if self.every > 0 {
            return Ok(());
        }
        let bound = "tokens leave after every step (1) or every so many";
        Err(Error::invalid("steps between evictions", 0, bound))
    }

    fn check_rows(&self, rows: usize, floor: &Floor) -> Result<()> {
        let least = floor.tokens.saturating_add(self.coming());
        if rows >= least {
            return Ok(());
        }
        let is_bound = self.bound == Bound::EveryStep;
        let what = if is_bound {
            "decode budget"
        } else {
            "target of a cut while decoding"
        };
        let between = if is_bound {
            format!(
                ", window ({}) and what comes between two evictions ({})",
                floor.window, self.every
            )
        } else {
            format!(" and window ({})", floor.window)
        };
        let bound = format!(
            "sinks ({}){between} alone take {least}: allow more, or lower them",
            floor.sinks
        );
        let given = format!("{rows} rows of a KV head");
        Err(Error::invalid(what, given, bound))
    }

    /// The residency of a cache, by what is added up step by step.
    ///
    /// Errors: as [`EvictionOptions::check`].
    pub fn start(
        &self,
        first: &FirstCache<'_>,
        rule: Box<dyn Importance>,
    ) -> Result<Box<dyn Residency>> {
        let importance = first.kept.iter().enumerate().map(|(l, layer)| {
            let heads = layer.iter().enumerate().map(|(h, slots)| {
                let scores = first.prompt_scores.get(l).and_then(|layer| layer.get(h));
                let score = |slot: &u32| scores.and_then(|s| s.get(*slot as usize)).copied();
                slots
                    .iter()
                    .map(|slot| score(slot).unwrap_or(0.0))
                    .collect()
            });
            heads.collect()
        });
        let importance = importance.collect();
        self.start_by(first, Rule::StepByStep { rule, importance })
    }

    /// The residency of a cache, by what is asked when tokens must leave.
    ///
    /// Errors: as [`EvictionOptions::check`].
    pub fn start_judging(
        &self,
        first: &FirstCache<'_>,
        rule: Box<dyn Judgement>,
    ) -> Result<Box<dyn Residency>> {
        let most = rule.looks_back();
        let queries = (0..first.kept.len()).map(|layer| {
            let of_prompt = first.last_queries.get(layer);
            of_prompt.map_or_else(|| RecentQueries::up_to(most), |held| held.newest(most))
        });
        let queries = queries.collect();
        self.start_by(first, Rule::WhenSomeLeave { rule, queries })
    }

    fn start_by(&self, first: &FirstCache<'_>, rule: Rule) -> Result<Box<dyn Residency>> {
        self.check_steps()?;
        let budgets = self.budget.rows(first.prompt_tokens, first.kept)?;
        let floor = self.floor(&first.floor);
        let heads = first.kept.iter().flatten().zip(budgets.iter().flatten());
        for (kept, &rows) in heads {
            // Of first tokens that stay, those that the cut left take room.
            let held = kept.iter().filter(|slot| (**slot as usize) < floor.sinks);
            let sinks = held.count();
            let held = Floor {
                sinks,
                tokens: sinks.saturating_add(floor.window),
                ..floor
            };
            self.check_rows(rows, &held)?;
        }
        Ok(Box::new(Eviction {
            rule,
            budgets,
            every: self.every,
            coming: self.coming(),
            bound: self.bound,
            floor,
            evicted_at: None,
            rows_left: 0,
        }))
    }
}

/// What says which tokens leave, and what it remembers.
#[derive(Debug)]
enum Rule {
    /// `importance` is `[layer][kv_head][slot]`.
    StepByStep {
        rule: Box<dyn Importance>,
        importance: Vec<Vec<Vec<f64>>>,
    },
    /// `queries` is `[layer]`.
    WhenSomeLeave {
        rule: Box<dyn Judgement>,
        queries: Vec<RecentQueries>,
    },
}

/// The residency itself.
#[derive(Debug)]
struct Eviction {
    rule: Rule,
    budgets: TokenBudgets,
    every: usize,
    /// Tokens that find room under the budget until the next eviction.
    coming: usize,
    bound: Bound,
    floor: Floor,
    /// The next position at the last eviction.
    evicted_at: Option<usize>,
    /// Of all KV heads together.
    rows_left: usize,
}

impl Eviction {
    /// Slots of a KV head that leave, ascending.
    fn leaving(
        &self,
        cache: &KvCache,
        (layer, head): (usize, usize),
        place: usize,
    ) -> Result<Vec<u32>> {
        let (own, now) = (cache.layer(layer), cache.next_position());
        // What the next token will not see is of no use to anybody.
        let passed = own.in_sight(head, now + 1).start;
        let next = if self.coming > 0 { self.every } else { 1 };
        // What a window passes before tokens can leave again makes room by itself.
        let last = own.in_sight(head, now.saturating_add(next));
        let coming = own.window().map_or(self.coming, |w| w.min(self.coming));
        let is_whole = self.floor.whole_windows && own.window().is_some();
        let excess = match self.budgets[layer][head] {
            _ if is_whole => 0,
            usize::MAX => 0,
            rows => last.len().saturating_sub(rows - coming),
        };
        let mut leaving: Vec<u32> = (0..passed as u32).collect();
        if excess == 0 {
            return Ok(leaving);
        }
        let (held, from, floor) = (&own.heads[head], last.start, &self.floor);
        let least =
            |importance: &[f64]| least_important(held, importance, from, excess, now, floor);
        match &self.rule {
            Rule::StepByStep { importance, .. } => leaving.extend(least(&importance[layer][head])),
            Rule::WhenSomeLeave { rule, queries } => {
                let crowded = CrowdedHead::of(
                    (own, head),
                    place,
                    (from, excess),
                    &queries[layer],
                    now,
                    *floor,
                );
                let worth = rule.worth(&crowded)?;
                let mut by_slot = vec![0.0; held.len()];
                for (slot, worth) in crowded.slots.iter().zip(worth) {
                    by_slot[*slot as usize] = worth;
                }
                leaving.extend(least(&by_slot));
            }
        }
        Ok(leaving)
    }
}

impl Residency for Eviction {
    fn before_attention(&mut self, view: &AttentionView<'_>) -> Result<Sight> {
        let (rule, importance) = match &mut self.rule {
            Rule::StepByStep { rule, importance } => (rule, &mut importance[view.layer]),
            Rule::WhenSomeLeave { queries, .. } => {
                queries[view.layer].keep(view)?;
                return Ok(Sight::Held);
            }
        };
        let rows = if rule.reads_rows() {
            Some(view.rows_of_heads()?)
        } else {
            None
        };
        let (query_heads, positions, _) = view.queries.dims3()?;
        let heads = &view.cache.heads;
        let queries = query_heads / heads.len().max(1) * positions;
        for (h, (head, importance)) in heads.iter().zip(importance).enumerate() {
            importance.resize(head.len(), 0.0);
            let rows = rows.as_ref().map(|rows| HeadRows {
                rows: &rows[h],
                held: head.len(),
                queries,
                positions,
            });
            rule.update(importance, head.positions(), rows.as_ref());
        }
        Ok(Sight::Held)
    }

    /// Under a bound for every step, leaves room for the tokens that come until the next eviction, so that no step ever
    /// sees more.
    fn after_step(&mut self, cache: &mut KvCache) -> Result<()> {
        let now = cache.next_position();
        if (self.evicted_at).is_some_and(|then| now.saturating_sub(then) < self.every) {
            return Ok(());
        }
        let is_first = self.evicted_at.replace(now).is_none();
        if is_first && self.bound == Bound::AfterEviction {
            return Ok(());
        }
        let heads = |layer: usize| (0..cache.layer(layer).heads.len()).map(move |h| (layer, h));
        let heads: Vec<(usize, usize)> = (0..cache.num_layers()).flat_map(heads).collect();
        let of_head = |(place, head): (usize, &(usize, usize))| self.leaving(cache, *head, place);
        let lists: Vec<Vec<u32>> = match &self.rule {
            Rule::StepByStep { .. } => heads
                .iter()
                .enumerate()
                .map(of_head)
                .collect::<Result<_>>()?,
            // Judging reads all that a head holds.
            Rule::WhenSomeLeave { .. } => {
                let heads = heads.par_iter().enumerate();
                heads.map(of_head).collect::<Result<_>>()?
            }
        };
        let mut lists = lists.into_iter();
        for layer in 0..cache.num_layers() {
            let own = cache.layer(layer);
            let leaving: Vec<Vec<u32>> = lists.by_ref().take(own.heads.len()).collect();
            for (head, slots) in leaving.iter().enumerate() {
                self.rows_left += slots.len() - own.in_sight(head, now + 1).start;
            }
            if let Rule::StepByStep { importance, .. } = &mut self.rule {
                for (importance, slots) in importance[layer].iter_mut().zip(&leaving) {
                    own.without(slots, importance);
                }
            }
            cache.evict(layer, &leaving)?;
        }
        Ok(())
    }

    fn at_once(&self) -> usize {
        1
    }

    fn rows_left(&self) -> Option<usize> {
        let mut budgets = self.budgets.iter().flatten();
        let is_bounded = budgets.any(|rows| *rows != usize::MAX);
        is_bounded.then_some(self.rows_left)
    }

    fn can_rewind(&self) -> bool {
        false
    }
}

/// The `count` slots of least importance from slot `from` on, ascending, outside sinks and the newest tokens; of equals
/// the earlier leave.
fn least_important(
    head: &HeadCache,
    importance: &[f64],
    from: usize,
    count: usize,
    now: usize,
    floor: &Floor,
) -> Vec<u32> {
    if count == 0 {
        return Vec::new();
    }
    let positions = head.positions();
    let may_leave = |slot: &u32| {
        let position = positions[*slot as usize] as usize;
        position >= floor.sinks && now.saturating_sub(position) > floor.window
    };
    let mut slots: Vec<u32> = (from as u32..positions.len() as u32)
        .filter(may_leave)
        .collect();
    let order = |a: &u32, b: &u32| {
        let by_importance = importance[*a as usize].total_cmp(&importance[*b as usize]);
        by_importance.then(positions[*a as usize].cmp(&positions[*b as usize]))
    };
    if count < slots.len() {
        slots.select_nth_unstable_by(count, order);
        slots.truncate(count);
    }
    slots.sort_unstable();
    slots
}
