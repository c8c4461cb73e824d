//! A cache under LeanKV while it lives: at most one token of a KV head loses precision, or leaves, per step.

use super::levels::PromptLevels;
use super::{FirstCache, LeanKv};
use crate::error::Result;
use crate::model::attention::AttentionView;
use crate::model::cache::{HeadCache, KvCache, LevelSlots, leave, move_down};
use crate::model::residency::{Residency, Sight};

/// The residency itself.
#[derive(Debug)]
pub(super) struct Living {
    prune: f64,
    demote: f64,
    window: usize,
    /// `[layer][kv_head][slot]`, in the order of the cache's slots.
    received: Vec<Vec<Vec<Received>>>,
}

/// The attention that a token has received.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Received {
    sum: f64,
    rows: f64,
}

impl Received {
    fn score(self) -> f64 {
        self.sum / self.rows
    }
}

impl Living {
    pub fn of(rule: &LeanKv, first: &FirstCache<'_>, levels: PromptLevels) -> Result<Self> {
        let tokens = first.prompt_tokens;
        let of_head = |slots: &LevelSlots, scores: &[f64]| -> Vec<Received> {
            let slots = slots.low.iter().chain(&slots.high);
            let received = slots.map(|&slot| {
                let rows = (tokens - slot as usize) as f64;
                let sum = scores[slot as usize] * rows;
                Received { sum, rows }
            });
            received.collect()
        };
        let layers = levels.kept.iter().zip(&first.prompt_scores);
        let received = layers.map(|(heads, scores)| {
            let heads = heads.iter().zip(scores);
            heads
                .map(|(slots, scores)| of_head(slots, scores))
                .collect()
        });
        Ok(Self {
            prune: rule.prune * levels.scale,
            demote: rule.demote * levels.scale,
            window: rule.window,
            received: received.collect(),
        })
    }

    /// The slot of least score among some, the earlier position of equals.
    fn lowest(
        received: &[Received],
        positions: &[u32],
        slots: impl Iterator<Item = usize>,
    ) -> Option<(usize, f64)> {
        let scored = slots.map(|slot| (slot, received[slot].score()));
        scored.min_by(|(a, x), (b, y)| x.total_cmp(y).then(positions[*a].cmp(&positions[*b])))
    }

    /// What happens to a KV head after the step whose token came last before `now`.
    fn victim(&self, head: &HeadCache, received: &[Received], now: usize) -> Change {
        let (low, positions) = (head.low_tokens(), head.positions());
        let is_old = |slot: &usize| positions[*slot] as usize + self.window < now;
        let high = Self::lowest(received, positions, (low..head.len()).filter(is_old));
        let Some((slot, score)) = high else {
            return Change::Nothing;
        };
        let lowest_low = Self::lowest(received, positions, 0..low);
        let [prune, demote] = [self.prune, self.demote].map(|x| x / now as f64);
        if score < prune && lowest_low.is_none_or(|(_, least)| score < least) {
            Change::Leaves(slot)
        } else if score < demote {
            let replaced = lowest_low.filter(|(_, least)| *least < prune);
            Change::Demoted(slot, replaced.map(|(slot, _)| slot))
        } else {
            Change::Nothing
        }
    }
}

/// What happens to a KV head after a step.
enum Change {
    Nothing,
    Leaves(usize),
    /// A token moves to the low level, and perhaps one of that level leaves.
    Demoted(usize, Option<usize>),
}

impl Residency for Living {
    fn before_attention(&mut self, view: &AttentionView<'_>) -> Result<Sight> {
        let (query_heads, positions, _) = view.queries.dims3()?;
        let rows = view.rows_of_heads()?;
        let group = query_heads / view.cache.heads.len().max(1);
        for ((received, head), rows) in (self.received[view.layer].iter_mut())
            .zip(&view.cache.heads)
            .zip(&rows)
        {
            let held = head.len();
            received.resize(held, Received::default());
            for (slot, received) in received.iter_mut().enumerate() {
                for position in 0..positions {
                    let paid = |g: usize| f64::from(rows[(g * positions + position) * held + slot]);
                    received.sum += (0..group).map(paid).fold(0.0, f64::max);
                    received.rows += 1.0;
                }
            }
        }
        Ok(Sight::Held)
    }

    fn after_step(&mut self, cache: &mut KvCache) -> Result<()> {
        let now = cache.next_position();
        for layer in 0..cache.num_layers() {
            for h in 0..cache.layer(layer).heads.len() {
                let head = &cache.layer(layer).heads[h];
                let low = head.low_tokens();
                let change = self.victim(head, &self.received[layer][h], now);
                let received = &mut self.received[layer][h];
                match change {
                    Change::Nothing => (),
                    Change::Leaves(slot) => {
                        cache.let_go(layer, h, slot)?;
                        leave(received, slot, low);
                    }
                    Change::Demoted(slot, replaced) => {
                        cache.demote(layer, h, slot)?;
                        move_down(received, slot, low);
                        if let Some(gone) = replaced {
                            cache.let_go(layer, h, gone)?;
                            leave(received, gone, low + 1);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn can_rewind(&self) -> bool {
        false
    }

    fn at_once(&self) -> usize {
        1
    }
}
