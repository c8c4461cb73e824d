//! All workloads of a length in turns, repeat after repeat.

use serde::Serialize;

use super::clock::{Seconds, watched};
use super::limits::Limits;
use super::options::BenchOptions;
use super::prompt;
use super::stage::Stage;
use super::workload::Workload;
use crate::error::Result;
use crate::model::Model;

/// One repeat of one workload.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measurement {
    /// T.
    pub length: usize,
    /// Name in the table of workloads.
    pub workload: &'static str,
    /// Counted from 0.
    pub repeat: usize,
    /// How long it took.
    pub seconds: Seconds,
    /// The most memory of the process meanwhile, without the cache that the bench keeps for decoding; `None`
    /// where the system cannot forget an earlier peak, or the work is on a GPU.
    ///
    /// Units: bytes.
    pub peak_bytes: Option<usize>,
}

/// Everything that was measured.
#[derive(Clone, Debug, Default)]
pub struct BenchMeasurements {
    /// Every repeat of every workload.
    pub measurements: Vec<Measurement>,
    /// The limits of machine or device, once in every repeat.
    pub limits: Vec<Limits>,
}

/// What a run says while it goes on.
pub enum Turn<'a> {
    /// A length is being prepared.
    Prepares(usize),
    /// A measurement is there.
    Measured(&'a Measurement),
}

/// Measures every workload at every length.
///
/// Within a repeat all workloads of a length take turns, in opposite order in every other one, the machine's
/// limits before them: whatever else the machine is doing meets them alike.
/// Errors: those of the workloads.
pub fn measure(
    model: &Model,
    options: &BenchOptions,
    say: &mut dyn FnMut(Turn<'_>),
) -> Result<BenchMeasurements> {
    let mut run = BenchMeasurements::default();
    for &length in &options.lengths {
        say(Turn::Prepares(length));
        let workloads: Vec<_> = options.of_length(length).collect();
        let decodes = workloads.iter().any(|w| w.work.decodes());
        let case = prompt::case(model, length)?;
        let stage = Stage::prepare(model, case, decodes.then_some(options.steps))?;
        for repeat in 0..options.repeats {
            run.limits.push(Limits::measure(&model.decoder)?);
            for workload in turns(&workloads, repeat) {
                let measurement = once(&stage, workload, length, repeat)?;
                say(Turn::Measured(&measurement));
                run.measurements.push(measurement);
            }
        }
    }
    Ok(run)
}

/// The order of a repeat: that of the table, then backwards, and so on.
fn turns<'w>(workloads: &[&'w Workload], repeat: usize) -> Vec<&'w Workload> {
    let mut turns = workloads.to_vec();
    if repeat % 2 == 1 {
        turns.reverse();
    }
    turns
}

fn once(
    stage: &Stage<'_>,
    workload: &Workload,
    length: usize,
    repeat: usize,
) -> Result<Measurement> {
    let (seconds, peak) = watched(|| workload.work.run(stage))?;
    let on_cpu = stage.model.decoder.device().is_cpu();
    let kept = stage.decoding.as_ref().map_or(0, |d| d.held_bytes());
    Ok(Measurement {
        length,
        workload: workload.name,
        repeat,
        seconds,
        peak_bytes: peak.filter(|_| on_cpu).map(|p| p.saturating_sub(kept)),
    })
}

#[cfg(test)]
mod tests {
    use super::super::workload::WORKLOADS;
    use super::*;

    #[test]
    fn every_other_repeat_goes_backwards() {
        let all: Vec<_> = WORKLOADS.iter().take(3).collect();
        let order = |repeat| -> Vec<_> { turns(&all, repeat).iter().map(|w| w.name).collect() };
        assert_eq!(order(0), ["prefill", "profile-32", "profile-128"]);
        assert_eq!(order(1), ["profile-128", "profile-32", "prefill"]);
        assert_eq!(order(2), order(0));
    }
}
