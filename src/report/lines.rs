//! What the tables of a report say: a line per metric, method and budget.

use crate::error::Result;
use crate::eval::{Results, compare};
use crate::plot::{METRICS, Metric};
use crate::table::{Column, Table};

/// A method at one budget, judged by one metric.
///
/// Units: values are those of `results.parquet`; the page shows shares in per cent.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// The metric.
    pub metric: &'static Metric,
    /// Name of the method.
    pub method: String,
    /// The budget as it was typed.
    pub budget: String,
    /// Bytes held, mean over prompts.
    pub kv_bytes: f64,
    /// Mean over prompts.
    pub mean: f64,
    /// Prompts behind the mean.
    pub prompts: usize,
    /// How it differs from the baseline at the same budget; none for the baseline itself.
    pub difference: Option<PairedDifference>,
}

/// A method against the baseline at the same budget, on the prompts that both have.
#[derive(Clone, Debug, PartialEq)]
pub struct PairedDifference {
    /// Name of the baseline.
    pub baseline: String,
    /// Prompts that both have a value for.
    pub pairs: usize,
    /// Mean of the method less the baseline.
    pub mean: f64,
    /// Lower end of the mean's 95 % interval.
    pub low: f64,
    /// Upper end of it.
    pub high: f64,
    /// Two-sided p of the sign test.
    pub sign_p: f64,
    /// In words: "better", "worse", "no difference shown".
    pub verdict: String,
}

/// Every metric, method and budget of an evaluation against `baseline` at the same budget.
///
/// Errors: those of [`compare`].
pub fn compared(results: &Results, baseline: &str, resamples: usize) -> Result<Vec<Line>> {
    let rows = compare(&results.results, baseline, results.meta.seed, resamples)?;
    let mut lines = means(results)?;
    for line in &mut lines {
        let row = rows.iter().find(|row| {
            row.metric.name == line.metric.name
                && row.method == line.method
                && row.budget == line.budget
        });
        let Some(paired) = row.and_then(|row| row.paired) else {
            continue;
        };
        let interval = paired.interval;
        line.difference = Some(PairedDifference {
            baseline: baseline.to_owned(),
            pairs: paired.n,
            mean: paired.difference,
            low: interval.map_or(f64::NAN, |i| i.low),
            high: interval.map_or(f64::NAN, |i| i.high),
            sign_p: paired.sign_test_p,
            verdict: row
                .and_then(|row| row.verdict)
                .map_or(String::new(), |verdict| verdict.words().to_owned()),
        });
    }
    Ok(lines)
}

/// The means of every metric, method and budget, in the order of the evaluation, compared with nothing.
///
/// Rows with an error and values that are not finite are left out of a mean.
///
/// Errors: [`crate::error::Error::UnknownName`] for a table without the columns of an evaluation.
pub fn means(results: &Results) -> Result<Vec<Line>> {
    let table = &results.results;
    let (methods, budgets) = (texts(table, "method")?, texts(table, "budget")?);
    let errors = texts(table, "error")?;
    let bytes = table.numbers("kv_bytes")?;
    let mut lines: Vec<Line> = Vec::new();
    for metric in METRICS {
        // An evaluation of another task may lack a metric altogether.
        let Ok(values) = table.numbers(metric.name) else {
            continue;
        };
        let first = lines.len();
        let rows = methods
            .iter()
            .zip(budgets)
            .zip(errors)
            .zip(bytes.iter().zip(&values));
        for (((method, budget), error), (bytes, value)) in rows {
            if !error.is_empty() || !value.is_finite() {
                continue;
            }
            let of_metric = &mut lines[first..];
            let known = of_metric
                .iter_mut()
                .find(|line| line.method == *method && line.budget == *budget);
            match known {
                Some(line) => {
                    line.prompts += 1;
                    line.mean += value;
                    line.kv_bytes += bytes;
                }
                None => lines.push(Line {
                    metric,
                    method: method.clone(),
                    budget: budget.clone(),
                    kv_bytes: *bytes,
                    mean: *value,
                    prompts: 1,
                    difference: None,
                }),
            }
        }
    }
    for line in &mut lines {
        line.mean /= line.prompts as f64;
        line.kv_bytes /= line.prompts as f64;
    }
    Ok(lines)
}

/// A text column.
pub(super) fn texts<'t>(table: &'t Table, name: &str) -> Result<&'t [String]> {
    match table.column(name) {
        Some(Column::Text(values)) => Ok(values),
        _ => Err(crate::error::Error::unknown("column", name, table.names())),
    }
}
