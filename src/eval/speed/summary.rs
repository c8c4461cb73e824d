//! From repeats to medians with their spread.

use super::{Measurement, Mode};
use crate::eval::RepeatSpread;

/// All repeats of one mode on one prompt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Length that was asked for, in tokens.
    pub length: usize,
    /// T, the prompt's tokens.
    pub tokens: usize,
    /// What was kept.
    pub mode: Mode,
    /// Median of the repeats' milliseconds per token.
    pub median_ms: f64,
    /// The fastest repeat.
    pub least_ms: f64,
    /// The slowest repeat.
    pub most_ms: f64,
    /// Number of repeats.
    pub repeats: usize,
    /// Bytes of keys and values held.
    pub kv_bytes: usize,
    /// Seconds of the prompt's one prefill, scoring included.
    pub prefill_s: f64,
    /// Median growth of the process; `None` where it is not known.
    pub resident_bytes: Option<f64>,
}

/// One summary for every length and mode, in the order of their first measurement.
pub fn summarise(measurements: &[Measurement]) -> Vec<Summary> {
    let mut cells: Vec<Vec<&Measurement>> = Vec::new();
    for m in measurements {
        let same = |cell: &&mut Vec<&Measurement>| {
            cell.iter()
                .all(|other| (other.length, other.mode) == (m.length, m.mode))
        };
        match cells.iter_mut().find(same) {
            Some(cell) => cell.push(m),
            None => cells.push(vec![m]),
        }
    }
    cells.iter().filter_map(|cell| summary(cell)).collect()
}

fn summary(cell: &[&Measurement]) -> Option<Summary> {
    let first = cell.first()?;
    let times = RepeatSpread::of(cell.iter().map(|m| m.ms_per_token))?;
    let resident = cell.iter().filter_map(|m| m.resident_bytes);
    Some(Summary {
        length: first.length,
        tokens: first.tokens,
        mode: first.mode,
        median_ms: times.median,
        least_ms: times.least,
        most_ms: times.most,
        repeats: cell.len(),
        kv_bytes: first.kv_bytes,
        prefill_s: first.prefill_s,
        resident_bytes: RepeatSpread::of(resident.map(|b| b as f64)).map(|s| s.median),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(length: usize, mode: Mode, repeat: usize, ms: f64) -> Measurement {
        Measurement {
            length,
            tokens: length - 1,
            mode,
            repeat,
            ms_per_token: ms,
            kv_bytes: 10 * length,
            resident_bytes: (repeat > 0).then_some(100 * repeat),
            prefill_s: 0.5,
        }
    }

    #[test]
    fn repeats_become_medians_by_length_and_mode() {
        let full = [(0, 5.0), (1, 9.0), (2, 4.0), (3, 6.0)];
        let mut all: Vec<_> = full
            .map(|(r, ms)| measured(512, Mode::Full, r, ms))
            .to_vec();
        all.insert(1, measured(512, Mode::Budget(64), 0, 2.0));
        all.push(measured(512, Mode::Budget(128), 0, 3.0));
        all.push(measured(1024, Mode::Full, 0, 8.0));
        let cells = summarise(&all);
        let modes: Vec<_> = cells.iter().map(|c| (c.length, c.mode)).collect();
        let budgets = [64, 128].map(|b| (512, Mode::Budget(b)));
        assert_eq!(
            modes,
            [
                (512, Mode::Full),
                budgets[0],
                budgets[1],
                (1024, Mode::Full)
            ]
        );
        let first = cells[0];
        assert_eq!(
            (first.median_ms, first.least_ms, first.most_ms),
            (5.5, 4.0, 9.0)
        );
        assert_eq!((first.repeats, first.kv_bytes), (4, 5120));
        assert_eq!(first.resident_bytes, Some(200.0));
        assert_eq!((cells[1].median_ms, cells[1].resident_bytes), (2.0, None));
        assert!(summarise(&[]).is_empty());
    }
}
