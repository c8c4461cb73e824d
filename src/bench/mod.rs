//! Bench: what everything costs, as ratios within one run, against the limits of the machine.
//!
//! A [`Workload`] is one line of [`WORKLOADS`] and a [`Work`] in a file of its own. [`measure`] lets all
//! workloads of a length take turns, and the machine's own [`limits`] with them; [`summarise`] turns the
//! repeats into medians and ratios; [`growth()`] says how prefill grows with the prompt. [`BenchReport`] is all of it,
//! written to `bench.json`; [`Bench`] is that read back.
//!
//! Paper: none: house definition.

mod arithmetic;
mod clock;
mod decode;
mod grid;
mod growth;
pub mod limits;
mod options;
mod prefill;
mod prompt;
mod report;
mod run;
mod saved;
mod stage;
mod summary;
mod work;
mod workload;

pub use arithmetic::{Arithmetic, Shape};
pub use clock::{Seconds, timed};
pub use growth::{Growth, GrowthPoint, growth};
pub use limits::{Least, LimitSpreads, Limits, Rate};
pub use options::BenchOptions;
pub use prompt::case;
pub use report::{BenchModel, BenchReport, LeftOut, Machine, Measured, SCHEMA, cpu_name};
pub use run::{BenchMeasurements, Measurement, Turn, measure};
pub use saved::{Bench, SavedRow};
pub use stage::Stage;
pub use summary::{Rates, WorkloadRow, summarise};
pub use work::Work;
pub use workload::{WORKLOADS, Workload, named};
