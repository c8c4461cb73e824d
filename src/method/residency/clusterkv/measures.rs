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

    /// Ends the step of the token at `position`; no layer chooses where all are left alone.
    pub fn end_step(&mut self, position: usize) {
        let (_, choices) = std::mem::take(&mut self.current);
        let heads = || choices.values().flatten();
        let all = heads().count() as f64;
        let returned = self.choices.last().filter(|_| all > 0.0).map(|before| {
            let pairs = heads().zip(before.values().flatten());
            let returned = pairs.filter(|(now, before)| now.returns_since(before));
            returned.count() as f64 / all
        });
        let hits = || heads().filter_map(|head| head.hit_rate);
        self.steps.push(RecallStep {
            position,
            hit_rate: hits().sum::<f64>() / hits().count() as f64,
            returned,
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

#[cfg(test)]
mod tests {
    use super::*;

    /// One sink, then clusters {1, 4} and {2, 3}.
    fn head() -> HeadClusters {
        HeadClusters::written(1, &[[1.0, 0.0], [0.0, 1.0]], &[&[1, 4], &[2, 3]])
    }

    fn choice(taken: &[(u32, u32)], rows: &[f32]) -> HeadChoice {
        HeadChoice::of(&head(), &taken.to_vec(), Some(rows), 6)
    }

    /// The mean of two query heads over six held tokens: .3, .1, .15, .15, .2, .1. Sink and the token behind the
    /// clusters do not count, so 4 comes first, then 3 (the later of equals), 2 and 1.
    #[test]
    fn hits_are_among_the_largest_of_what_is_clustered() {
        let rows = [0.2, 0.1, 0.2, 0.1, 0.3, 0.1, 0.4, 0.1, 0.1, 0.2, 0.1, 0.1];
        // {1, 4} against {4, 3}: a half. {2} against {4}: none. {1, 4, 2} against {4, 3, 2}: two thirds.
        for (taken, want) in [
            (&[(0, 2)][..], Some(0.5)),
            (&[(1, 1)], Some(0.0)),
            (&[(0, 2), (1, 1)], Some(2.0 / 3.0)),
            (&[(1, 2)], Some(0.5)),
            (&[(1, 2), (0, 2)], Some(1.0)),
            (&[], None),
        ] {
            assert_eq!(choice(taken, &rows).hit_rate, want, "{taken:?}");
        }
    }

    /// A head takes one token of the second cluster, then both: its second token, 3, comes back. Taking fewer brings
    /// nothing back, nor does a cluster that was not there before.
    #[test]
    fn what_was_left_out_and_is_seen_returns() {
        let rows = [1.0 / 6.0; 12];
        let some = choice(&[(0, 2), (1, 1)], &rows);
        let all = choice(&[(0, 2), (1, 2)], &rows);
        let other = choice(&[(1, 2)], &rows);
        assert!(all.returns_since(&some) && !some.returns_since(&all));
        assert!(some.returns_since(&other) && !other.returns_since(&all));
        let before_it_was_there = HeadChoice {
            clusters: 1,
            ..choice(&[(0, 2)], &rows)
        };
        assert!(!all.returns_since(&before_it_was_there));
    }

    /// Two layers of one head each. The first step has no step before; at the second the head of layer 5 gets a token
    /// back, at the third neither.
    #[test]
    fn steps_are_means_over_heads_and_go_back() {
        let rows = [0.2, 0.1, 0.2, 0.1, 0.3, 0.1, 0.4, 0.1, 0.1, 0.2, 0.1, 0.1];
        let mut meter = RecallMeter::default();
        let step = |meter: &mut RecallMeter, position, second: &[(u32, u32)]| {
            meter.chose(position, 3, vec![choice(&[(0, 2)], &rows)]);
            meter.chose(position, 5, vec![choice(second, &rows)]);
            meter.end_step(position);
        };
        step(&mut meter, 10, &[(1, 1)]);
        step(&mut meter, 11, &[(1, 2)]);
        step(&mut meter, 12, &[(1, 1)]);
        let steps = meter.steps().to_vec();
        let shares: Vec<_> = steps
            .iter()
            .map(|s| (s.hit_rate, s.returned, s.recalled))
            .collect();
        assert_eq!(
            shares,
            [
                (0.25, None, 1.5),
                (0.5, Some(0.5), 2.0),
                (0.25, Some(0.0), 1.5)
            ]
        );
        assert!(steps.iter().all(|s| s.clustered == 4.0));
        // Back to 11, the step at 10 is what the next one is compared with.
        meter.rewind(11);
        assert_eq!(meter.steps(), &steps[..1]);
        step(&mut meter, 11, &[(1, 2)]);
        assert_eq!(meter.steps(), &steps[..2]);
        meter.rewind(0);
        step(&mut meter, 10, &[(1, 2)]);
        assert_eq!(meter.steps()[0].returned, None);
    }
}
