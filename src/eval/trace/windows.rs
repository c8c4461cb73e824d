//! Times over windows of steps, so that noise does not hide the trend.

use super::super::bootstrap::percentile;
use super::store::MethodTrace;

/// Times of some steps in a row, over all repeats.
///
/// Units: milliseconds; steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TimeWindow {
    /// The middle of its steps, counted from 0.
    pub middle: f64,
    /// Median.
    pub median: f64,
    /// A quarter of the times are below it.
    pub lower: f64,
    /// A quarter of the times are above it.
    pub upper: f64,
}

impl MethodTrace {
    /// At most `most` windows of equally many steps, the last of which may be shorter.
    pub fn time_windows(&self, most: usize) -> Vec<TimeWindow> {
        let steps = self.steps.len();
        let size = steps.div_ceil(most.max(1)).max(1);
        let window = |first: usize| {
            let end = (first + size).min(steps);
            let own = self.ms.iter().filter_map(|ms| ms.get(first..end));
            let mut times: Vec<f64> = own.flatten().copied().collect();
            times.sort_by(f64::total_cmp);
            let at = |share| percentile(&times, share);
            (!times.is_empty()).then(|| TimeWindow {
                middle: (first + end - 1) as f64 / 2.0,
                median: at(0.5),
                lower: at(0.25),
                upper: at(0.75),
            })
        };
        (0..steps).step_by(size).filter_map(window).collect()
    }
}
