//! Rows of an evaluation as charts need them: one metric, failed configurations left out.

use super::axis::number;
use crate::error::{Error, Result};
use crate::eval::Results;

pub(super) use crate::eval::FULL;

/// Bytes of a megabyte.
const MEGABYTE: f64 = 1e6;

/// One prompt, method and budget that was measured without an error.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Outcome<'r> {
    /// Index of the prompt.
    pub(super) prompt: u32,
    /// Name of the method.
    pub(super) method: &'r str,
    /// The budget as it was typed.
    pub(super) budget: &'r str,
    /// Bytes held, in MB.
    pub(super) held: f64,
    /// Bytes of the full cache, in MB.
    pub(super) full: f64,
    /// The metric as it is shown; never NaN.
    pub(super) value: f64,
    /// Length of the haystack in tokens, else NaN.
    pub(super) length: f64,
    /// Depth of the needle in per cent, else NaN.
    pub(super) depth: f64,
}

/// The rows of `results` that have a value of the column `metric`, times `factor`.
///
/// Errors: [`Error::UnknownName`] for a column that is not there, [`Error::Invalid`] for columns of
/// different lengths or no row with a value.
pub(super) fn outcomes<'r>(
    results: &'r Results,
    metric: &str,
    factor: f64,
) -> Result<Vec<Outcome<'r>>> {
    let table = &results.results;
    let prompts = table.counts("prompt")?;
    let [methods, budgets, errors] = ["method", "budget", "error"].map(|name| table.texts(name));
    let (methods, budgets, errors) = (methods?, budgets?, errors?);
    let numbers = [metric, "kv_bytes", "full_bytes", "length", "depth"].map(|n| table.numbers(n));
    let [values, held, full, lengths, depths] = numbers;
    let (values, held, full, lengths, depths) = (values?, held?, full?, lengths?, depths?);
    let mut rows = Vec::new();
    for (row, prompt) in prompts.iter().enumerate() {
        let number = |column: &[f64]| column.get(row).copied().unwrap_or(f64::NAN);
        let (Some(method), Some(budget)) = (methods.get(row), budgets.get(row)) else {
            continue;
        };
        if errors.get(row).is_some_and(String::is_empty) && number(&values).is_finite() {
            rows.push(Outcome {
                prompt: *prompt,
                method,
                budget,
                held: number(&held) / MEGABYTE,
                full: number(&full) / MEGABYTE,
                value: number(&values) * factor,
                length: number(&lengths),
                depth: number(&depths),
            });
        }
    }
    if rows.is_empty() {
        let bound = "a chart needs at least one: name another metric, or evaluate again with data that has it";
        let what = format!(
            "number of rows with {metric} in the evaluation of {}",
            results.meta.model
        );
        return Err(Error::invalid(what, 0, bound));
    }
    Ok(rows)
}

/// Different names, in the order of their first row.
pub(super) fn distinct<'n>(names: impl IntoIterator<Item = &'n str>) -> Vec<&'n str> {
    let mut found: Vec<&str> = Vec::new();
    for name in names {
        if !found.contains(&name) {
            found.push(name);
        }
    }
    found
}

/// The budget that was asked for, or the first of `budgets`, which is the smallest where they were typed in order.
///
/// Errors: [`Error::UnknownName`], listing the budgets there are; [`Error::Invalid`] for none.
pub(super) fn chosen_budget<'b>(budgets: &[&'b str], asked: Option<&str>) -> Result<&'b str> {
    let found = match asked {
        None => budgets.first(),
        Some(asked) => budgets.iter().find(|budget| **budget == asked),
    };
    found.copied().ok_or_else(|| match asked {
        Some(asked) if !budgets.is_empty() => {
            Error::unknown("budget", asked, budgets.iter().copied())
        }
        _ => Error::invalid(
            "number of budgets below the full cache",
            0,
            "this chart shows one: evaluate a method other than full",
        ),
    })
}

/// A budget in words.
pub(super) fn budget_words(budget: &str) -> String {
    match budget.parse::<f64>() {
        Ok(tokens) => format!("B = {} tokens per KV head", number(tokens)),
        Err(_) => format!("B = {budget} of T"),
    }
}

/// How many prompts stand behind means, as a figure says it.
pub(super) fn count_words(counts: impl Iterator<Item = usize> + Clone) -> String {
    let (low, high) = (counts.clone().min().unwrap_or(0), counts.max().unwrap_or(0));
    match low == high {
        true => format!("n = {low}"),
        false => format!("n = {low}\u{2013}{high}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_chosen_and_put_in_words() {
        assert_eq!(chosen_budget(&["64", "12%"], None).unwrap(), "64");
        assert_eq!(chosen_budget(&["64", "12%"], Some("12%")).unwrap(), "12%");
        let error = chosen_budget(&["64", "12%"], Some("65"))
            .unwrap_err()
            .to_string();
        assert_eq!(error, "unknown budget '65'; known: 64, 12%");
        assert!(chosen_budget(&[], None).is_err());
        assert_eq!(budget_words("1024"), "B = 1,024 tokens per KV head");
        assert_eq!(budget_words("12%"), "B = 12% of T");
        assert_eq!(count_words([3, 5, 4].into_iter()), "n = 3–5");
    }
}
