//! Rows of an evaluation as charts need them: one metric, failed configurations left out.

use std::collections::BTreeMap;

use super::figure::{Words, number};
use super::over_prompts::mean;
use crate::error::{Error, Result};
use crate::eval::{CLUSTER, Metric, Results};

pub(super) use crate::eval::FULL;

/// Methods besides the full cache that a chart shows at most.
const MOST_METHODS: usize = 24;

/// Bytes of a megabyte.
const MEGABYTE: f64 = 1e6;

/// One prompt, method and budget that was measured without an error.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Outcome<'r> {
    /// Index of the prompt.
    pub(super) prompt: u32,
    /// What is independent of the others: the prompt, or the first one of its cluster (a needle).
    pub(super) sample: u32,
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

/// The rows of `results` that have a value of `metric`, as charts show it.
///
/// Errors: [`Error::UnknownName`] for a column that is not there, [`Error::Invalid`] for columns of
/// different lengths or no row with a value.
pub(super) fn outcomes<'r>(results: &'r Results, metric: &Metric) -> Result<Vec<Outcome<'r>>> {
    let table = &results.results;
    let prompts = table.counts("prompt")?;
    let (methods, budgets) = (table.texts("method")?, table.texts("budget")?);
    let errors = table.texts("error")?;
    let (values, held) = (table.numbers(metric.name)?, table.numbers("kv_bytes")?);
    let full = table.numbers("full_bytes")?;
    let (lengths, depths) = (table.numbers("length")?, table.numbers("depth")?);
    let clusters = match table.column(CLUSTER) {
        Some(_) => table.texts(CLUSTER)?,
        None => &[],
    };
    let mut samples: BTreeMap<&str, u32> = BTreeMap::new();
    let mut rows = Vec::new();
    for (row, prompt) in prompts.iter().enumerate() {
        let number = |column: &[f64]| column.get(row).copied().unwrap_or(f64::NAN);
        let (Some(method), Some(budget)) = (methods.get(row), budgets.get(row)) else {
            continue;
        };
        if errors.get(row).is_some_and(String::is_empty) && number(&values).is_finite() {
            let cluster = clusters.get(row);
            rows.push(Outcome {
                prompt: *prompt,
                sample: cluster.map_or(*prompt, |c| *samples.entry(c).or_insert(*prompt)),
                method,
                budget,
                held: number(&held) / MEGABYTE,
                full: number(&full) / MEGABYTE,
                value: number(&values) * metric.factor(),
                length: number(&lengths),
                depth: number(&depths),
            });
        }
    }
    if rows.is_empty() {
        let bound = "a chart needs at least one: name another metric, or evaluate again with data that has it";
        let what = format!(
            "number of rows with {} in the evaluation of {}",
            metric.name, results.meta.model.name
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

/// The methods that were asked for, in that order, or all of `held`.
///
/// `asked` is a list separated by commas, which names of methods may hold as well: at every place the longest
/// name that is held counts.
/// Errors: [`Error::UnknownName`], listing the methods there are; [`Error::Invalid`] for one named twice.
fn chosen_methods<'h>(held: &[&'h str], asked: Option<&str>) -> Result<Vec<&'h str>> {
    let Some(asked) = asked else {
        return Ok(held.to_vec());
    };
    let mut chosen: Vec<&str> = Vec::new();
    let mut rest = Some(asked);
    while let Some(text) = rest {
        let text = text.trim_start();
        let after = |name: &str| {
            let after = text.strip_prefix(name)?.trim_start();
            (after.is_empty() || after.starts_with(',')).then_some(after)
        };
        let found = held.iter().filter_map(|name| Some((*name, after(name)?)));
        let Some((name, after)) = found.max_by_key(|(name, _)| name.len()) else {
            let unknown = text.split(',').next().unwrap_or(text).trim_end();
            return Err(Error::unknown("method", unknown, held.iter().copied()));
        };
        if chosen.contains(&name) {
            return Err(Error::invalid("method", name, "it is named twice"));
        }
        chosen.push(name);
        rest = after.strip_prefix(',');
    }
    Ok(chosen)
}

/// The methods besides the full cache that `chart` shows: those that were asked for, or all of `held`, whose names may
/// repeat.
///
/// Errors: those of [`chosen_methods`]; [`Error::Invalid`] for no method, and for more than a chart can show.
pub(super) fn shown_methods<'h>(
    chart: &str,
    held: impl IntoIterator<Item = &'h str>,
    asked: Option<&str>,
) -> Result<Vec<&'h str>> {
    let mut methods = chosen_methods(&distinct(held), asked)?;
    methods.retain(|method| *method != FULL);
    let number = methods.len();
    if (1..=MOST_METHODS).contains(&number) {
        return Ok(methods);
    }
    let what = format!("number of methods for {chart}");
    let bound = format!(
        "it must lie between 1 and {MOST_METHODS}, the full cache not counted: choose with --methods"
    );
    Err(Error::invalid(what, number, bound))
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
        Err(_) => match budget.strip_suffix("bytes") {
            Some(share) => format!("B = {share} of the full cache’s bytes"),
            None if budget.ends_with('%') => format!("B = {budget} of T"),
            None => format!("B = {budget}"),
        },
    }
}

/// The mean of every sample, in the order of the first prompts.
pub(super) fn sample_means<'o>(rows: impl Iterator<Item = &'o Outcome<'o>>) -> Vec<f64> {
    let mut samples: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
    for row in rows {
        samples.entry(row.sample).or_default().push(row.value);
    }
    samples.values().map(|values| mean(values)).collect()
}

/// What samples are called: "prompts", or "needles" or "contexts" where several prompts share one.
pub(super) fn sample_noun(rows: &[Outcome<'_>]) -> &'static str {
    if rows.iter().all(|row| row.sample == row.prompt) {
        "prompts"
    } else if rows.iter().any(|row| row.length.is_finite()) {
        "needles"
    } else {
        "contexts"
    }
}

/// How many prompts stand behind means, as a figure says it.
pub(super) fn count_words(counts: &[usize]) -> String {
    let [low, high] = [counts.iter().min(), counts.iter().max()].map(|n| n.copied().unwrap_or(0));
    if low == high {
        format!("n = {low}")
    } else {
        format!("n = {low}\u{2013}{high}")
    }
}

/// What a figure says of an evaluation: its model and data.
pub(super) fn facts(results: &Results) -> Vec<Words> {
    let meta = &results.meta;
    let protocol = meta.data.protocol.as_ref();
    let protocol = protocol.map_or(String::new(), |protocol| format!(", {protocol}"));
    let source = meta.settings.observed_from.as_ref();
    let source = source.map_or(String::new(), |source| format!(" (scored from {source})"));
    let (model, data) = (&meta.model.name, &meta.data.name);
    vec![format!("{model}, {data}{protocol}{source}").into()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_of_one_needle_are_one_sample() {
        let row = |prompt: u32, sample: u32, value: f64| Outcome {
            prompt,
            sample,
            method: "snapkv",
            budget: "64",
            held: 1.0,
            full: 2.0,
            value,
            length: 1024.0,
            depth: f64::NAN,
        };
        let rows = [row(0, 0, 1.0), row(1, 1, 5.0), row(2, 0, 2.0)];
        assert_eq!(sample_means(rows.iter()), [1.5, 5.0]);
        assert_eq!(sample_noun(&rows), "needles");
        assert_eq!(sample_noun(&rows[..2]), "prompts");
        let of_contexts = rows.map(|row| Outcome {
            length: f64::NAN,
            ..row
        });
        assert_eq!(sample_noun(&of_contexts), "contexts");
    }

    #[test]
    fn methods_are_chosen_in_the_order_asked_for() {
        let held = ["snapkv", "zigzag(floor=4,threshold=0.9)", "zigzag(floor=4"];
        let chosen = |asked| chosen_methods(&held, asked).map_err(|e| e.to_string());
        assert_eq!(chosen(None).unwrap(), held);
        assert_eq!(
            chosen(Some("zigzag(floor=4,threshold=0.9), snapkv ")).unwrap(),
            [held[1], held[0]]
        );
        assert_eq!(
            chosen(Some("snapkv,snap")).unwrap_err(),
            "unknown method 'snap'; known: snapkv, zigzag(floor=4,threshold=0.9), zigzag(floor=4"
        );
        assert!(chosen(Some("snapkv,")).unwrap_err().contains("method ''"));
        let twice = chosen(Some("snapkv,snapkv")).unwrap_err();
        assert_eq!(twice, "method is snapkv, but it is named twice");
    }

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
        assert_eq!(
            budget_words("12%bytes"),
            "B = 12% of the full cache’s bytes"
        );
        assert_eq!(budget_words("5MB"), "B = 5MB");
        assert_eq!(count_words(&[3, 5, 4]), "n = 3–5");
    }
}
