//! The columns of a trace's tables.

use super::measure::Step;
use crate::table::{Column, Rows, Table};

/// One row per step of a method; its columns are there even without one.
pub fn steps_table(method: &str, budget: &str, steps: &[Step]) -> Table {
    let (text, count, number) = (
        Column::Text(Vec::new()),
        Column::Count(Vec::new()),
        Column::Number(Vec::new()),
    );
    let mut rows = Rows::of_columns([
        ("method", text.clone()),
        ("budget", text),
        ("step", count.clone()),
        ("position", count.clone()),
        ("token", count.clone()),
        ("resident_bytes", number.clone()),
        ("offloaded_bytes", number.clone()),
        ("mean_rows", number),
        ("peak_rows", count),
    ]);
    for (index, step) in steps.iter().enumerate() {
        rows.text("method", method);
        rows.text("budget", budget);
        rows.count("step", index);
        rows.count("position", step.position);
        rows.count("token", step.token as usize);
        rows.number("resident_bytes", step.bytes.resident as f64);
        rows.number("offloaded_bytes", step.bytes.offloaded as f64);
        rows.number("mean_rows", step.mean_rows);
        rows.count("peak_rows", step.peak_rows);
    }
    rows.finish()
}

/// One row per step of a method in one repeat.
pub fn times_table(method: &str, repeat: usize, ms: &[f64]) -> Table {
    let mut rows = Rows::default();
    for (step, ms) in ms.iter().enumerate() {
        rows.text("method", method);
        rows.count("repeat", repeat);
        rows.count("step", step);
        rows.number("ms", *ms);
    }
    rows.finish()
}
