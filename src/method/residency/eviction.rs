//! Eviction while decoding: over the budget, the least important tokens of a KV head leave.

use std::fmt;

use serde::{Deserialize, Serialize};

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

/// What makes a token worth keeping.
pub(super) trait Importance: fmt::Debug + Send {
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
}

impl Default for EvictionOptions {
    fn default() -> Self {
        Self {
            budget: DecodeBudget::default(),
            every: 1,
            sinks: None,
            window: None,
        }
    }
}

impl EvictionOptions {
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
        if self.every == 0 {
            let bound = "tokens leave after every step (1) or every so many";
            return Err(Error::invalid("steps between evictions", 0, bound));
        }
        match self.budget.fewest(tokens)? {
            Some(rows) => self.check_rows(rows, method),
            None => Ok(()),
        }
    }

    fn check_rows(&self, rows: usize, method: &Floor) -> Result<()> {
        let floor = self.floor(method);
        let least = floor.tokens.saturating_add(self.every);
        if rows >= least {
            return Ok(());
        }
        let bound = format!(
            "sinks ({}), window ({}) and what comes between two evictions ({}) alone take {least}: allow more, or \
             lower them",
            floor.sinks, floor.window, self.every
        );
        Err(Error::invalid(
            "decode budget",
            format!("{rows} rows of a KV head"),
            bound,
        ))
    }

    /// The residency of a cache.
    ///
    /// Errors: as [`EvictionOptions::check`].
    pub fn start(
        &self,
        first: &FirstCache<'_>,
        rule: Box<dyn Importance>,
    ) -> Result<Box<dyn Residency>> {
        self.check(first.prompt_tokens, &first.floor)?;
        let budgets = self.budget.rows(first.prompt_tokens, first.kept)?;
        for &rows in budgets.iter().flatten() {
            self.check_rows(rows, &first.floor)?;
        }
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
        Ok(Box::new(Eviction {
            importance: importance.collect(),
            rule,
            budgets,
            every: self.every,
            floor: self.floor(&first.floor),
            evicted_at: None,
        }))
    }
}

/// The residency itself.
#[derive(Debug)]
struct Eviction {
    rule: Box<dyn Importance>,
    budgets: TokenBudgets,
    every: usize,
    floor: Floor,
    /// `[layer][kv_head][slot]`.
    importance: Vec<Vec<Vec<f64>>>,
    /// The next position at the last eviction.
    evicted_at: Option<usize>,
}

impl Residency for Eviction {
    fn before_attention(&mut self, view: &AttentionView<'_>) -> Result<Sight> {
        let rows = if self.rule.reads_rows() {
            Some(view.rows_of_heads()?)
        } else {
            None
        };
        let (query_heads, positions, _) = view.queries.dims3()?;
        let heads = &view.cache.heads;
        let queries = query_heads / heads.len().max(1) * positions;
        for (h, (head, importance)) in heads
            .iter()
            .zip(&mut self.importance[view.layer])
            .enumerate()
        {
            importance.resize(head.len(), 0.0);
            let rows = rows.as_ref().map(|rows| HeadRows {
                rows: &rows[h],
                held: head.len(),
                queries,
                positions,
            });
            self.rule
                .update(importance, head.positions(), rows.as_ref());
        }
        Ok(Sight::Held)
    }

    /// Leaves room for the tokens that come until the next eviction, so that no step ever sees more than the budget.
    fn after_step(&mut self, cache: &mut KvCache) -> Result<()> {
        let now = cache.next_position();
        if (self.evicted_at).is_some_and(|then| now.saturating_sub(then) < self.every) {
            return Ok(());
        }
        self.evicted_at = Some(now);
        for layer in 0..cache.num_layers() {
            let own = cache.layer(layer);
            let heads = own.heads.iter().zip(&self.importance[layer]).enumerate();
            let leaving: Vec<Vec<u32>> = heads
                .zip(&self.budgets[layer])
                .map(|((h, (head, importance)), &budget)| {
                    // What the next token will not see is of no use to anybody.
                    let passed = own.in_sight(h, now + 1).start;
                    // What a window passes before tokens can leave again makes room by itself.
                    let last = own.in_sight(h, now.saturating_add(self.every));
                    let coming = own.window().map_or(self.every, |w| w.min(self.every));
                    let is_whole = self.floor.whole_windows && own.window().is_some();
                    let excess = match budget {
                        _ if is_whole => 0,
                        usize::MAX => 0,
                        rows => last.len().saturating_sub(rows - coming),
                    };
                    let mut leaving: Vec<u32> = (0..passed as u32).collect();
                    let (from, floor) = (last.start, &self.floor);
                    leaving.extend(least_important(head, importance, from, excess, now, floor));
                    leaving
                })
                .collect();
            for (importance, slots) in self.importance[layer].iter_mut().zip(&leaving) {
                own.without(slots, importance);
            }
            cache.evict(layer, &leaving)?;
        }
        Ok(())
    }

    fn at_once(&self) -> usize {
        1
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
