//! Means over a profile's prompts, as weights of layers and KV heads.

use super::geometry::Granularity;
use super::readable_number::readable_number;
use super::request::Request;
use crate::error::{Error, Result};
use crate::profile::{BudgetMeasure, Query};

/// The minimum budgets of attention: by layer LMBA, by head the MBA of KV heads.
pub(super) fn attention_budgets(
    query: Query,
    threshold: f64,
    granularity: Granularity,
) -> BudgetMeasure {
    match granularity {
        Granularity::Layer => BudgetMeasure::Layers { query, threshold },
        Granularity::Head => BudgetMeasure::KvHeads { query, threshold },
    }
}

/// u: shares of minimum budgets, one per KV head in layer order, summing to 1.
pub(super) fn shares(request: &Request<'_>, measure: &BudgetMeasure) -> Result<Vec<f64>> {
    let measures = request.measured()?;
    let budgets = measures.budgets(measure)?;
    let mean = if request.geometry.windows.is_empty() {
        prompt_mean(budgets, measures.prompt_lengths())
    } else {
        mean_of_spans(request, budgets, measures.prompt_lengths())
    };
    let column = measure.column();
    match measure {
        BudgetMeasure::KvHeads { .. } => normalised(&mean, &column),
        _ => normalised(&request.geometry.repeated(&mean), &column),
    }
}

/// Mean over prompts of a measure with as many values for every prompt.
///
/// Where the prompts' lengths differ, every value is first divided by its own T: only the proportions between
/// layers matter, and a long prompt should not weigh more than a short one.
fn prompt_mean(values: &[Vec<f64>], tokens: &[usize]) -> Vec<f64> {
    let differ = tokens.windows(2).any(|pair| pair[0] != pair[1]);
    let prompts = values.len() as f64;
    let mut mean = vec![0.0; values.first().map_or(0, Vec::len)];
    for (values, &t) in values.iter().zip(tokens) {
        let length = if differ { t.max(1) as f64 } else { 1.0 };
        for (mean, value) in mean.iter_mut().zip(values) {
            *mean += value / length / prompts;
        }
    }
    mean
}

/// The same for models whose layers differ in what they see: every value is divided by the keys that its layer's rows can
/// see in its prompt, and multiplied by those that they can see in the reference prompt.
fn mean_of_spans(request: &Request<'_>, values: &[Vec<f64>], tokens: &[usize]) -> Vec<f64> {
    let geometry = &request.geometry;
    let prompts = values.len() as f64;
    let count = values.first().map_or(0, Vec::len);
    let per_layer = (count / geometry.layers.max(1)).max(1);
    let mut mean = vec![0.0; count];
    for (values, &t) in values.iter().zip(tokens) {
        for (place, (mean, value)) in mean.iter_mut().zip(values).enumerate() {
            let span = |tokens| geometry.span(place / per_layer, tokens).max(1) as f64;
            *mean += value / span(t) * span(request.tokens) / prompts;
        }
    }
    mean
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
