//! What caches held while they lived, over all prompts of an evaluation.

use serde::Serialize;

use super::results::Results;
use crate::error::Result;
use crate::table::Table;

/// One configuration: peaks are the largest over prompts, everything else means; `None` where no prompt has any.
///
/// Units: rows of a KV head; bytes of the whole cache.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ResidencySummary {
    /// The method's name.
    pub method: String,
    /// The budget as it was asked for.
    pub budget: String,
    /// In what keys and values lie.
    pub cache: String,
    /// Rows at a step, the new token's among them.
    pub mean_rows: Option<f64>,
    /// The most rows of any head at any step.
    pub peak_rows: Option<f64>,
    /// What a step may read when decoding begins.
    pub resident_bytes: Option<f64>,
    /// The most of that at any step.
    pub peak_bytes: Option<f64>,
    /// What lies elsewhere when decoding begins.
    pub offloaded_bytes: Option<f64>,
    /// The most rows of all heads together that were let go since the cut, on any prompt; `None` where none can be, and
    /// for folders of before it was counted.
    pub left_rows: Option<f64>,
}

impl ResidencySummary {
    /// One for every configuration, in the order of the table; none for folders of before it was kept.
    ///
    /// Errors: [`crate::error::Error::UnknownName`] for a table without its columns.
    pub fn of(results: &Results) -> Result<Vec<Self>> {
        let Some(table) = &results.residency else {
            return Ok(Vec::new());
        };
        let (methods, budgets) = (table.texts("method")?, table.texts("budget")?);
        let mut configurations: Vec<Vec<usize>> = Vec::new();
        for row in 0..table.rows() {
            let same = |rows: &&mut Vec<usize>| {
                methods[rows[0]] == methods[row] && budgets[rows[0]] == budgets[row]
            };
            match configurations.iter_mut().find(same) {
                Some(rows) => rows.push(row),
                None => configurations.push(vec![row]),
            }
        }
        let summaries = configurations.iter().map(|rows| Self::of_rows(table, rows));
        summaries.collect()
    }

    fn of_rows(table: &Table, rows: &[usize]) -> Result<Self> {
        let first = rows[0];
        let finite = |name: &str| -> Result<Vec<f64>> {
            let values = table.numbers(name)?;
            let values = rows.iter().map(|&row| values[row]);
            Ok(values.filter(|value| value.is_finite()).collect())
        };
        let mean = |name: &str| -> Result<Option<f64>> {
            let values = finite(name)?;
            let sum: f64 = values.iter().sum();
            Ok((!values.is_empty()).then(|| sum / values.len() as f64))
        };
        let most =
            |name: &str| -> Result<Option<f64>> { Ok(finite(name)?.into_iter().reduce(f64::max)) };
        Ok(Self {
            method: table.texts("method")?[first].clone(),
            budget: table.texts("budget")?[first].clone(),
            cache: table.texts("cache")?[first].clone(),
            mean_rows: mean("mean_rows")?,
            peak_rows: most("peak_rows")?,
            resident_bytes: mean("resident_bytes")?,
            peak_bytes: most("peak_bytes")?,
            offloaded_bytes: mean("offloaded_bytes")?,
            left_rows: table
                .column("left_rows")
                .map_or(Ok(None), |_| most("left_rows"))?,
        })
    }
}
