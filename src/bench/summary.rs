//! From repeats to medians, ratios and rates.

use serde::Serialize;

use super::arithmetic::{Arithmetic, Shape};
use super::limits::Limits;
use super::run::Measurement;
use super::workload::{WORKLOADS, Workload};
use crate::eval::RepeatSpread;

/// One workload at one length.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WorkloadRow {
    /// T.
    pub length: usize,
    /// Its name.
    pub workload: &'static str,
    /// What it is divided by, `times` over.
    pub base: &'static str,
    /// How many of those.
    pub times: usize,
    /// Seconds on the wall.
    pub wall: RepeatSpread,
    /// CPU seconds.
    pub cpu: RepeatSpread,
    /// Wall seconds over those of the base in the same repeat.
    pub ratio: RepeatSpread,
    /// CPU seconds likewise.
    pub cpu_ratio: RepeatSpread,
    /// The most memory of any repeat; `None` where it is not known.
    ///
    /// Units: bytes.
    pub peak_bytes: Option<usize>,
    /// Bytes of weights and cache, which the work cannot do without.
    pub needed_bytes: usize,
    /// `None` where the arithmetic is not counted.
    pub rates: Option<Rates>,
    /// Every repeat.
    pub repeats: Vec<Measurement>,
}

/// What was done in the median time, against what the machine can do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rates {
    /// What was counted.
    #[serde(flatten)]
    pub arithmetic: Arithmetic,
    /// Whether tokens went through the model one by one.
    pub decodes: bool,
    /// Tokens per second.
    pub tokens_per_s: f64,
    /// Floating-point operations per second.
    pub flops_per_s: f64,
    /// Bytes per second.
    pub bytes_per_s: f64,
    /// Whether memory, not arithmetic, is the limit that binds; `None` where no limit was measured.
    pub memory_binds: Option<bool>,
    /// Seconds at that limit over the median on the wall.
    pub share_of_limit: Option<f64>,
    /// The same of CPU seconds, which another program's load changes less.
    pub cpu_share_of_limit: Option<f64>,
}

/// One row for every length and workload, in the order of lengths and table.
///
/// `shape_of` knows what a prompt of some tokens is worked on with.
pub fn summarise<'s>(
    measurements: &[Measurement],
    shape_of: &dyn Fn(usize) -> Shape<'s>,
    limits: Option<&Limits>,
) -> Vec<WorkloadRow> {
    let mut lengths: Vec<usize> = measurements.iter().map(|m| m.length).collect();
    lengths.sort_unstable();
    lengths.dedup();
    let cells = lengths
        .iter()
        .flat_map(|&length| WORKLOADS.iter().map(move |workload| (length, workload)));
    let row = |(length, workload): (usize, &Workload)| {
        let of = |name: &str| -> Vec<Measurement> {
            let mut found: Vec<_> = measurements
                .iter()
                .filter(|m| m.length == length && m.workload == name)
                .cloned()
                .collect();
            found.sort_by_key(|m| m.repeat);
            found
        };
        let (own, base) = (of(workload.name), of(workload.base));
        let shape = shape_of(length);
        let cache = workload.work.cache_tokens(&shape);
        let (wall, cpu) = (
            RepeatSpread::of(own.iter().map(|m| m.seconds.wall))?,
            RepeatSpread::of(own.iter().map(|m| m.seconds.cpu))?,
        );
        let counted = workload.work.arithmetic(&shape);
        let rates = |arithmetic| {
            let seconds = (wall.median, cpu.median);
            Rates::of(arithmetic, workload.work.decodes(), seconds, limits)
        };
        Some(WorkloadRow {
            length,
            workload: workload.name,
            base: workload.base,
            times: workload.times,
            wall,
            cpu,
            ratio: ratio(&own, &base, workload.times, |m| m.seconds.wall)?,
            cpu_ratio: ratio(&own, &base, workload.times, |m| m.seconds.cpu)?,
            peak_bytes: own.iter().filter_map(|m| m.peak_bytes).max(),
            needed_bytes: shape.weights.held + shape.config.cache_bytes(cache, shape.cache),
            rates: counted.map(rates),
            repeats: own,
        })
    };
    cells.filter_map(row).collect()
}

/// Repeat by repeat, so that what slows both down is no difference.
fn ratio(
    own: &[Measurement],
    base: &[Measurement],
    times: usize,
    of: fn(&Measurement) -> f64,
) -> Option<RepeatSpread> {
    let pairs = own.iter().zip(base);
    RepeatSpread::of(pairs.map(|(own, base)| of(own) / (times as f64 * of(base))))
}

impl Rates {
    fn of(
        arithmetic: Arithmetic,
        decodes: bool,
        (wall, cpu): (f64, f64),
        limits: Option<&Limits>,
    ) -> Self {
        let least = limits.map(|l| l.least(arithmetic.flops(), arithmetic.bytes));
        Self {
            arithmetic,
            decodes,
            tokens_per_s: arithmetic.tokens as f64 / wall,
            flops_per_s: arithmetic.flops() / wall,
            bytes_per_s: arithmetic.bytes / wall,
            memory_binds: least.map(|l| l.memory_binds),
            share_of_limit: least.map(|l| l.seconds.wall / wall),
            cpu_share_of_limit: least.map(|l| l.seconds.cpu / cpu),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::arithmetic::tests::{WEIGHTS, small};
    use super::super::clock::Seconds;
    use super::super::limits::Rate;
    use super::*;
    use crate::model::cache::Representation;

    fn measured(workload: &'static str, repeat: usize, wall: f64, peak: usize) -> Measurement {
        Measurement {
            length: 600,
            workload,
            repeat,
            seconds: Seconds {
                wall,
                cpu: 2.0 * wall,
            },
            peak_bytes: (peak > 0).then_some(peak),
        }
    }

    #[test]
    fn ratios_are_those_of_the_same_repeat() {
        let config = small();
        let shape_of = |tokens| Shape {
            config: &config,
            weights: WEIGHTS,
            cache: Representation::FLOAT32,
            tokens,
            steps: 2,
        };
        // The machine was twice as slow in the second repeat, which came backwards.
        let all = [
            measured("prefill", 0, 1.0, 5000),
            measured("grid", 0, 6.0, 0),
            measured("grid", 1, 12.0, 0),
            measured("prefill", 1, 2.0, 7000),
        ];
        let rate = |wall, cpu| Rate { wall, cpu };
        let limits = Limits {
            flops: rate(1e9, 5e8),
            bytes: rate(1e3, 500.0),
        };
        let rows = summarise(&all, &shape_of, Some(&limits));
        let names: Vec<_> = rows.iter().map(|r| r.workload).collect();
        assert_eq!(names, ["prefill", "grid"]);
        let (bare, grid) = (&rows[0], &rows[1]);
        assert_eq!((bare.ratio.median, bare.peak_bytes), (1.0, Some(7000)));
        assert_eq!(grid.ratio, RepeatSpread::of([0.25]).unwrap());
        assert_eq!(grid.cpu_ratio.median, 0.25);
        assert_eq!((grid.peak_bytes, &grid.rates), (None, &None));
        assert_eq!(bare.needed_bytes, 2600 + 600 * 96);
        let rates = bare.rates.as_ref().unwrap();
        assert_eq!(rates.tokens_per_s, 600.0 / 1.5);
        // 60,200 bytes at 1,000 a second, in 1.5 s on the wall and 3 CPU seconds at 500.
        assert_eq!(rates.memory_binds, Some(true));
        assert!((rates.share_of_limit.unwrap() - 60.2 / 1.5).abs() < 1e-9);
        assert!((rates.cpu_share_of_limit.unwrap() - 60.2 / 1.5).abs() < 1e-9);
        assert!(summarise(&[], &shape_of, None).is_empty());
    }
}
