//! Counting how many of a step's important keys a vote had named.

use super::vote::Vote;
use crate::profile::SINKS;

/// Steps of one query head compared with one vote; all fields add up over heads and steps.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HitCounts {
    /// Sum over the counted steps of |important ∩ named| / |important|.
    pub hits: f64,
    /// Steps with at least one important key.
    pub steps: usize,
    /// Steps without one, which are left out of the hit rate.
    pub skipped: usize,
    /// Important keys of all steps together.
    pub important: usize,
}

impl HitCounts {
    /// The hit rate, NaN where no step has an important key.
    pub fn rate(&self) -> f64 {
        self.hits / self.steps as f64
    }

    /// Counts another head or step.
    pub fn add(&mut self, other: &Self) {
        self.hits += other.hits;
        self.steps += other.steps;
        self.skipped += other.skipped;
        self.important += other.important;
    }

    fn step(&mut self, important: usize, named: usize) {
        match important {
            0 => self.skipped += 1,
            _ => {
                self.hits += named as f64 / important as f64;
                self.steps += 1;
                self.important += important;
            }
        }
    }
}

/// One query head's steps against one window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WindowHits {
    /// Over all important keys.
    pub all: HitCounts,
    /// Over those beyond the prompt's first [`SINKS`] tokens, which every window names anyway.
    pub beyond_sinks: HitCounts,
    /// Share of the window's named keys that the last prompt window names too.
    pub overlap: f64,
}

/// One query head's hits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeadHits {
    /// All generated steps against the vote of each prompt window, in the order of the text.
    pub prompt: Vec<WindowHits>,
    /// The steps of each generated window against the vote of the last prompt window.
    pub generated: Vec<WindowHits>,
}

impl WindowHits {
    /// Counts a step whose important keys are `important`, ascending, against the vote of a window.
    pub(super) fn step(&mut self, important: &[usize], head: usize, vote: &Vote) {
        let named = |keys: &[usize]| keys.iter().filter(|k| vote.names(head, **k)).count();
        let sinks = important.partition_point(|key| *key < SINKS);
        let beyond = &important[sinks..];
        self.all.step(important.len(), named(important));
        self.beyond_sinks.step(beyond.len(), named(beyond));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::hit_rate::vote::Voting;

    #[test]
    fn hits_by_hand() {
        // The window names keys 0 and 5 of six.
        let mut voting = Voting::new(1, 6, 1, 2);
        voting.add(|_| &[0.5, 0.0, 0.0, 0.1, 0.0, 0.4]).unwrap();
        let votes = voting.finish();
        let mut hits = WindowHits::default();
        for important in [vec![0, 5], vec![0, 4, 5], vec![0], vec![], vec![4]] {
            hits.step(&important, 0, &votes[0]);
        }
        // 1 + 2/3 + 1 + 0 over four steps; beyond the sinks {5}, {4, 5} and {4}: 1 + 1/2 + 0 over three.
        assert_eq!(
            (hits.all.steps, hits.all.skipped, hits.all.important),
            (4, 1, 7)
        );
        assert!((hits.all.rate() - (2.0 + 2.0 / 3.0) / 4.0).abs() < 1e-15);
        assert_eq!((hits.beyond_sinks.steps, hits.beyond_sinks.skipped), (3, 2));
        assert_eq!(hits.beyond_sinks.rate(), 0.5);
        let mut both = hits.all;
        both.add(&hits.all);
        assert_eq!((both.steps, both.rate()), (8, hits.all.rate()));
        assert!(HitCounts::default().rate().is_nan());
    }
}
