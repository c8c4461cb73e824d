//! What recall brings back, measured step by step.

use std::collections::BTreeMap;

use super::head::{HeadClusters, Taken};
use crate::model::residency::RecallStep;

/// What a KV head chose in a step.
#[derive(Clone, Debug)]
pub(super) struct HeadChoice {
    /// Clusters that there were.
    clusters: usize,
    taken: Taken,
    /// Tokens that were chosen.
    chosen: usize,
    /// Tokens that were chosen from.
    clustered: usize,
    /// Share of the chosen number's tokens of largest attention that are among the chosen; `None` where none is chosen.
    hit_rate: Option<f64>,
}

/// The choices of one step, by layer.
type StepChoices = BTreeMap<usize, Vec<HeadChoice>>;

/// Steps that were measured, and what they chose.
#[derive(Debug, Default)]
pub(super) struct RecallMeter {
    steps: Vec<RecallStep>,
    /// One for each of `steps`.
    choices: Vec<StepChoices>,
    /// Position and choices of the step that is going on.
    current: (usize, StepChoices),
}

impl HeadChoice {
    /// `rows` are the group's attention of a step that sees all `held` tokens, `(G, held)`; none where all that is
    /// clustered was taken.
    pub fn of(head: &HeadClusters, taken: &Taken, rows: Option<&[f32]>, held: usize) -> Self {
        let chosen = head.slots(taken);
        let clustered = head.clustered();
        let hit_rate = match rows {
            _ if chosen.is_empty() => None,
            _ if chosen.len() == clustered => Some(1.0),
            None => None,
            Some(rows) => Some(hit_rate(head, &chosen, rows, held)),
        };
        Self {
            clusters: head.clusters(),
            taken: taken.clone(),
            chosen: chosen.len(),
            clustered,
            hit_rate,
        }
    }

    /// Whether it takes a token that the step before could have taken and did not.
    ///
    /// Of every cluster the earliest tokens are taken, so that more of a cluster that was there is what came back.
    fn returns_since(&self, before: &Self) -> bool {
        let taken_before = |cluster: u32| {
            let found = before.taken.iter().find(|(known, _)| *known == cluster);
            found.map_or(0, |(_, tokens)| *tokens)
        };
        self.taken.iter().any(|&(cluster, tokens)| {
            (cluster as usize) < before.clusters && tokens > taken_before(cluster)
        })
    }
}

/// Share of the tokens of largest attention, as many as were chosen, that are among the chosen.
fn hit_rate(head: &HeadClusters, chosen: &[u32], rows: &[f32], held: usize) -> f64 {
    let received = |slot: usize| {
        let group = rows.chunks_exact(held.max(1));
        group.fold(0.0, |sum, row| sum + f64::from(row[slot]))
    };
    let mut order: Vec<(f64, u32)> = head
        .clustered_slots()
        .map(|slot| (received(slot), slot as u32))
        .collect();
    // The later token of equals first.
    order.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)));
    order.truncate(chosen.len());
    let hits = order
        .iter()
        .filter(|(_, slot)| chosen.binary_search(slot).is_ok());
    hits.count() as f64 / chosen.len() as f64
}

impl RecallMeter {
    /// Hears what the KV heads of a layer chose for the token at `position`.
    pub fn chose(&mut self, position: usize, layer: usize, heads: Vec<HeadChoice>) {
        if self.current.0 != position {
            self.current = (position, StepChoices::new());
        }
        self.current.1.insert(layer, heads);
    }

    /// Ends the step.
    pub fn end_step(&mut self) {
        let (position, choices) = std::mem::take(&mut self.current);
        let heads = || choices.values().flatten();
        let all = heads().count() as f64;
        let before = self.choices.last();
        let before = before
            .map(|step| step.values().flatten())
            .into_iter()
            .flatten();
        let returned = heads()
            .zip(before)
            .filter(|(now, before)| now.returns_since(before));
        let hits = || heads().filter_map(|head| head.hit_rate);
        self.steps.push(RecallStep {
            position,
            hit_rate: hits().sum::<f64>() / hits().count() as f64,
            returned: returned.count() as f64 / all,
            recalled: heads().map(|head| head.chosen).sum::<usize>() as f64 / all,
            clustered: heads().map(|head| head.clustered).sum::<usize>() as f64 / all,
        });
        self.choices.push(choices);
    }

    /// Forgets the steps from `position` on.
    pub fn rewind(&mut self, position: usize) {
        let kept = self.steps.partition_point(|step| step.position < position);
        self.steps.truncate(kept);
        self.choices.truncate(kept);
        self.current = Default::default();
    }

    /// What was measured.
    pub fn steps(&self) -> &[RecallStep] {
        &self.steps
    }
}
