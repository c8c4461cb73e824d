//! Means over a profile's prompts, as weights of layers and KV heads.

use super::geometry::Granularity;
use super::readable_number::readable_number;
use super::request::Request;
use crate::error::{Error, Result};
use crate::profile::{Profile, Query, threshold_name};
use crate::table::Table;

/// u: shares of the minimum attention budgets, one per KV head in layer order, summing to 1.
///
/// By layer from LMBA (`layers.parquet`), by head from the MBA of KV heads (`kv_heads.parquet`).
pub(super) fn attention_shares(
    request: &Request<'_>,
    query: Query,
    threshold: f64,
) -> Result<Vec<f64>> {
    let profile = request.measured()?;
    let suffix = known(threshold, &profile.meta.settings.measures.thresholds)?;
    let query = query.name();
    match request.granularity {
        Granularity::Layer => layer_shares(request, &format!("lmba_{query}_{suffix}")),
        Granularity::Head => {
            let column = format!("mba_{query}_{suffix}");
            let cells = request.geometry.cells();
            normalised(&prompt_mean(&profile.kv_heads, &column, cells)?, &column)
        }
    }
}

/// Shares of a column of `layers.parquet`, one per KV head in layer order, summing to 1.
pub(super) fn layer_shares(request: &Request<'_>, column: &str) -> Result<Vec<f64>> {
    let profile = request.measured()?;
    let layers = prompt_mean(&profile.layers, column, request.geometry.layers)?;
    normalised(&request.geometry.repeated(&layers), column)
}

/// A threshold as columns name it.
///
/// Errors: [`Error::UnknownName`], listing the thresholds that were measured.
pub(super) fn known(threshold: f64, measured: &[f64]) -> Result<String> {
    let name = threshold_name(threshold);
    if measured.iter().any(|t| threshold_name(*t) == name) {
        return Ok(name);
    }
    let measured: Vec<String> = measured.iter().map(f64::to_string).collect();
    let list = measured.iter().map(String::as_str);
    Err(Error::unknown("threshold", &threshold.to_string(), list))
}

/// The longest prompt of a profile: the reference length at which nothing measured is cut off.
///
/// Errors: [`Error::Invalid`] for a profile without prompts.
pub fn longest_prompt(profile: &Profile) -> Result<usize> {
    let longest = profile.layers.counts("tokens")?.iter().max();
    longest.map(|&t| t as usize).ok_or_else(|| {
        let bound = "at least one is needed: profile a data set that has prompts";
        Error::invalid("number of prompts in the profile", 0, bound)
    })
}

/// Mean over prompts of a column with `rows` rows per prompt.
///
/// Where the prompts' lengths differ, every value is first divided by its own T, which is what the
/// `_of_t` columns hold: only the proportions between layers matter, and a long prompt should not weigh
/// more than a short one.
fn prompt_mean(table: &Table, column: &str, rows: usize) -> Result<Vec<f64>> {
    let values = table.numbers(column)?;
    let tokens = table.counts("tokens")?;
    let differ = tokens.windows(2).any(|pair| pair[0] != pair[1]);
    let prompts = values.len() / rows.max(1);
    if prompts == 0 || values.len() != prompts * rows || values.len() != tokens.len() {
        let bound =
            format!("a multiple of {rows} is expected, {rows} for every prompt: profile again");
        return Err(Error::invalid(
            format!("rows of column {column}"),
            values.len(),
            bound,
        ));
    }
    let mut mean = vec![0.0; rows];
    for (i, (value, &t)) in values.iter().zip(tokens).enumerate() {
        let length = if differ { f64::from(t.max(1)) } else { 1.0 };
        mean[i % rows] += value / length / prompts as f64;
    }
    Ok(mean)
}

fn normalised(values: &[f64], column: &str) -> Result<Vec<f64>> {
    let sum: f64 = values.iter().sum();
    if !sum.is_finite() {
        return Err(Error::NotFinite {
            place: format!("column {column}, or its sum over layers,"),
            advice: "minimum budgets are positive numbers of keys: profile again".into(),
        });
    }
    let bound = "minimum budgets are positive numbers of keys: profile again";
    if let Some(bad) = values.iter().find(|v| **v < 0.0) {
        let what = format!("mean over prompts in column {column}");
        return Err(Error::invalid(what, readable_number(*bad), bound));
    }
    if sum <= 0.0 {
        let what = format!("sum over layers of column {column}");
        return Err(Error::invalid(what, readable_number(sum), bound));
    }
    Ok(values.iter().map(|v| v / sum).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minimum_budgets_that_cannot_be_are_called_what_they_are() {
        let refused = |values: &[f64]| {
            normalised(values, "lmba_pooled_90")
                .unwrap_err()
                .to_string()
        };
        assert!(refused(&[1.0, f64::NAN]).contains("not finite"));
        assert!(refused(&[f64::MAX, f64::MAX]).contains("not finite"));
        assert!(refused(&[5.0, -2.5]).contains("column lmba_pooled_90 is -2.5"));
        assert!(refused(&[0.0, 0.0]).contains("column lmba_pooled_90 is 0,"));
        assert_eq!(
            normalised(&[0.0, 2.0, 6.0], "c").unwrap(),
            [0.0, 0.25, 0.75]
        );
    }
}
