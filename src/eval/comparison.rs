//! Every method at every budget against the baseline at the same budget, metric by metric.

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde::{Serialize, Serializer};

use super::bootstrap::{Bootstrap, Interval};
use super::clusters::Clusters;
use super::metric::{Direction, METRICS, Metric};
use super::statistics::{Paired, Verdict, mean, paired};
use crate::error::{Error, Result};
use crate::table::Table;

/// Budget of a cache that nothing was cut from.
pub const FULL: &str = "full";

/// Fewest resamples that give the tails of an interval.
pub const FEWEST_RESAMPLES: usize = 100;

/// One metric of one method at one budget.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Budget as it was asked for.
    pub budget: String,
    /// Method.
    pub method: String,
    /// The metric, in JSON its name.
    #[serde(serialize_with = "metric_name")]
    pub metric: &'static Metric,
    /// Independent prompts with a value; prompts of one cluster (a needle) are averaged and count once.
    pub n: usize,
    /// Prompts with a value, those of a cluster one by one.
    pub prompts: usize,
    /// Prompts whose run ended in an error; they count nowhere else.
    pub failed: usize,
    /// Mean over the n; NaN (JSON: null) where there is none.
    pub mean: f64,
    /// 95 % interval of the mean; none where n is below 2.
    pub interval: Option<Interval>,
    /// Budget of the baseline that is compared with; none where there is no comparison.
    pub baseline_budget: Option<String>,
    /// Comparison with the baseline; none for the baseline itself, for neutral metrics, and where the
    /// baseline did not run at this budget.
    pub paired: Option<Paired>,
    /// What the comparison shows.
    pub verdict: Option<Verdict>,
}

fn metric_name<S: Serializer>(
    metric: &&'static Metric,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_str(metric.name)
}

/// Compares every method of a results table with `baseline` at the same budget.
///
/// Rows come by budget, then method, both in the order of their first row in the table, then metric in the
/// order of [`METRICS`]; a metric that the table lacks or never has a value of is left out. A baseline that
/// ran only at the budget "full" stands for every budget. A row with an `error` is counted as failed and
/// its numbers are not read. Where the table names clusters, each is averaged and counts once.
///
/// The same seed gives the same numbers, whichever other methods are in the table.
///
/// Errors: [`Error::UnknownName`] for a missing column or a baseline that is no method of the table;
/// [`Error::Invalid`] for fewer than [`FEWEST_RESAMPLES`] resamples or a prompt that occurs twice for one method and
/// budget; [`Error::NotFinite`] for an infinite value.
pub fn compare(table: &Table, baseline: &str, seed: u64, resamples: usize) -> Result<Vec<Row>> {
    if resamples < FEWEST_RESAMPLES {
        let bound = format!("at least {FEWEST_RESAMPLES} are needed; 10000 is the default");
        return Err(Error::invalid("number of resamples", resamples, bound));
    }
    let runs = runs(table)?;
    if !runs.iter().any(|run| run.method == baseline) {
        let mut known: Vec<&str> = Vec::new();
        for run in &runs {
            if !known.contains(&run.method) {
                known.push(run.method);
            }
        }
        return Err(Error::unknown("baseline method", baseline, known));
    }
    let metrics = measured(table)?;
    let clusters = Clusters::of(table)?;
    let bootstrap = Bootstrap { seed, resamples };
    let mut tasks = Vec::new();
    for run in in_order_of_budgets(&runs) {
        let baseline = baseline_of(&runs, run, baseline);
        tasks.extend(metrics.iter().map(|column| (run, baseline, column)));
    }
    let row = |(run, baseline, column): (&MethodRun, Option<&MethodRun>, &Measured)| {
        row(run, baseline, column, &clusters, bootstrap)
    };
    Ok(tasks.into_par_iter().map(row).collect())
}

/// The rows of one method at one budget.
struct MethodRun<'t> {
    budget: &'t str,
    method: &'t str,
    /// Table row of every prompt, failed ones as none.
    prompts: BTreeMap<u32, Option<usize>>,
}

/// A metric's column.
struct Measured {
    metric: &'static Metric,
    values: Vec<f64>,
}

/// The table's runs in the order of their first rows.
fn runs(table: &Table) -> Result<Vec<MethodRun<'_>>> {
    let prompts = table.counts("prompt")?;
    let (methods, budgets) = (table.texts("method")?, table.texts("budget")?);
    let errors = table.texts("error")?;
    let mut places: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut runs: Vec<MethodRun<'_>> = Vec::new();
    let rows = prompts.iter().zip(methods).zip(budgets).zip(errors);
    for (index, (((&prompt, method), budget), error)) in rows.enumerate() {
        let place = *places.entry((method, budget)).or_insert(runs.len());
        if place == runs.len() {
            runs.push(MethodRun {
                budget,
                method,
                prompts: BTreeMap::new(),
            });
        }
        let row = error.is_empty().then_some(index);
        if runs[place].prompts.insert(prompt, row).is_some() {
            let what = format!("prompt of method {method} at budget {budget}");
            let bound = "it occurs twice; every prompt counts once";
            return Err(Error::invalid(what, prompt, bound));
        }
    }
    Ok(runs)
}

/// The metrics that the table holds a value of.
fn measured(table: &Table) -> Result<Vec<Measured>> {
    let errors = table.texts("error")?;
    let mut found = Vec::new();
    for metric in METRICS {
        if table.column(metric.name).is_none() {
            continue;
        }
        let values = table.numbers(metric.name)?;
        let mut valid = values.iter().zip(errors).filter(|(_, e)| e.is_empty());
        if valid.clone().any(|(value, _)| value.is_infinite()) {
            return Err(Error::NotFinite {
                place: format!("column {} of the results", metric.name),
                advice: "a mean would say nothing; look at the rows that hold it".to_owned(),
            });
        }
        if valid.any(|(value, _)| !value.is_nan()) {
            found.push(Measured { metric, values });
        }
    }
    Ok(found)
}

/// All runs, those of one budget together.
fn in_order_of_budgets<'r, 't>(runs: &'r [MethodRun<'t>]) -> Vec<&'r MethodRun<'t>> {
    let first = |budget: &str| runs.iter().position(|run| run.budget == budget);
    let mut ordered: Vec<_> = runs.iter().collect();
    ordered.sort_by_key(|run| first(run.budget));
    ordered
}

/// What `run` is compared with: the baseline at its budget, or the only one there is if that is the full cache.
fn baseline_of<'r, 't>(
    runs: &'r [MethodRun<'t>],
    run: &MethodRun<'_>,
    name: &str,
) -> Option<&'r MethodRun<'t>> {
    if run.method == name {
        return None;
    }
    let candidates = || runs.iter().filter(|other| other.method == name);
    candidates()
        .find(|other| other.budget == run.budget)
        .or_else(|| {
            candidates()
                .next()
                .filter(|_| candidates().all(|other| other.budget == FULL))
        })
}

fn row(
    run: &MethodRun<'_>,
    baseline: Option<&MethodRun<'_>>,
    column: &Measured,
    clusters: &Clusters<'_>,
    bootstrap: Bootstrap,
) -> Row {
    let value = |run: &MethodRun<'_>, prompt: &u32| {
        let row = run.prompts.get(prompt).copied().flatten();
        row.map_or(f64::NAN, |row| column.values[row])
    };
    let values = || run.prompts.keys().map(|p| (*p, value(run, p)));
    let own = clusters.values(values());
    let sample = mean(&own, bootstrap);
    let direction = column.metric.direction;
    let baseline = baseline.filter(|_| direction != Direction::Neutral);
    let comparison = baseline.map(|baseline| {
        let lonely = baseline.prompts.keys();
        let lonely = lonely.filter(|prompt| !run.prompts.contains_key(prompt));
        let all = run.prompts.keys().chain(lonely);
        let pairs = all.map(|p| (*p, (value(run, p), value(baseline, p))));
        paired(&clusters.pairs(pairs), bootstrap)
    });
    Row {
        budget: run.budget.to_owned(),
        method: run.method.to_owned(),
        metric: column.metric,
        n: sample.n,
        prompts: values().filter(|(_, value)| value.is_finite()).count(),
        failed: run.prompts.values().filter(|row| row.is_none()).count(),
        mean: sample.mean,
        interval: sample.interval,
        baseline_budget: baseline.map(|baseline| baseline.budget.to_owned()),
        verdict: comparison.and_then(|c| c.verdict(direction)),
        paired: comparison,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Column;
    use approx::assert_abs_diff_eq;

    /// A line of a results table: prompt, method, budget, f1, kl, bytes, error.
    type Line<'a> = (u32, &'a str, &'a str, f64, f64, f64, &'a str);

    fn table(lines: &[Line<'_>]) -> Table {
        let text = |of: fn(&Line<'_>) -> String| Column::Text(lines.iter().map(of).collect());
        let number = |of: fn(&Line<'_>) -> f64| Column::Number(lines.iter().map(of).collect());
        let mut table = Table::default();
        table.push("prompt", Column::Count(lines.iter().map(|l| l.0).collect()));
        table.push("method", text(|l| l.1.to_owned()));
        table.push("budget", text(|l| l.2.to_owned()));
        table.push("kv_bytes", number(|l| l.5));
        table.push("kl", number(|l| l.4));
        table.push("f1", number(|l| l.3));
        table.push("nll", number(|_| f64::NAN));
        table.push("error", text(|l| l.6.to_owned()));
        table
    }

    /// Two methods at two budgets and the full cache, ten prompts; zigzag is better at 64 and equal at 128.
    fn results() -> Table {
        let mut lines = Vec::new();
        for p in 0..10 {
            let f = f64::from(p % 5) / 10.0;
            lines.push((p, "full", "full", f + 0.4, 0.0, 8000.0, ""));
            for (budget, gain, bytes) in [("128", 0.0, 1024.0), ("64", 0.1, 512.0)] {
                lines.push((p, "snapkv", budget, f, 0.5 + f, bytes, ""));
                lines.push((p, "zigzag", budget, f + gain, 0.5 + f - gain, bytes, ""));
            }
        }
        table(&lines)
    }

    fn only<'r>(rows: &'r [Row], budget: &str, method: &str, metric: &str) -> &'r Row {
        let mut found = rows
            .iter()
            .filter(|r| r.budget == budget && r.method == method && r.metric.name == metric);
        let row = found.next().unwrap();
        assert!(found.next().is_none());
        row
    }

    #[test]
    fn every_method_is_compared_at_its_own_budget() {
        let rows = compare(&results(), "snapkv", 1, 1000).unwrap();
        // Three metrics have values; nll has none.
        let names: Vec<String> = rows
            .iter()
            .map(|r| format!("{} {} {}", r.budget, r.method, r.metric.name))
            .collect();
        let mut expected = Vec::new();
        for run in [
            "full full",
            "128 snapkv",
            "128 zigzag",
            "64 snapkv",
            "64 zigzag",
        ] {
            expected.extend(["kl", "f1", "kv_bytes"].map(|metric| format!("{run} {metric}")));
        }
        assert_eq!(names, expected);

        let better = only(&rows, "64", "zigzag", "f1");
        let paired = better.paired.unwrap();
        assert_eq!(
            (better.n, better.failed, paired.n, paired.dropped),
            (10, 0, 10, 0)
        );
        assert_abs_diff_eq!(better.mean, 0.3, epsilon = 1e-12);
        assert_abs_diff_eq!(paired.baseline, 0.2, epsilon = 1e-12);
        assert_abs_diff_eq!(paired.difference, 0.1, epsilon = 1e-12);
        assert_abs_diff_eq!(paired.sign_test_p, 2.0 / 1024.0, epsilon = 1e-12);
        assert_eq!(better.verdict, Some(Verdict::Better));
        assert_eq!(better.baseline_budget.as_deref(), Some("64"));
        // Less divergence is better, too.
        let kl = only(&rows, "64", "zigzag", "kl");
        assert!(kl.paired.unwrap().difference < 0.0);
        assert_eq!(kl.verdict, Some(Verdict::Better));
        let equal = only(&rows, "128", "zigzag", "f1");
        assert_eq!(equal.verdict, Some(Verdict::NoDifferenceShown));
        assert_eq!(equal.paired.unwrap().ties, 10);
    }

    #[test]
    fn what_cannot_be_compared_has_a_mean_and_no_verdict() {
        let rows = compare(&results(), "snapkv", 1, 1000).unwrap();
        for row in [
            only(&rows, "64", "snapkv", "f1"),
            only(&rows, "64", "zigzag", "kv_bytes"),
            only(&rows, "full", "full", "f1"),
        ] {
            assert!(row.paired.is_none() && row.verdict.is_none() && row.baseline_budget.is_none());
            assert_eq!(row.n, 10);
        }
        assert_eq!(only(&rows, "64", "zigzag", "kv_bytes").mean, 512.0);
        assert_abs_diff_eq!(only(&rows, "full", "full", "f1").mean, 0.6, epsilon = 1e-12);
    }

    #[test]
    fn the_full_cache_can_be_the_baseline_of_every_budget() {
        let rows = compare(&results(), "full", 1, 1000).unwrap();
        for (budget, method, difference) in [("64", "zigzag", -0.3), ("128", "snapkv", -0.4)] {
            let row = only(&rows, budget, method, "f1");
            assert_abs_diff_eq!(row.paired.unwrap().difference, difference, epsilon = 1e-12);
            assert_eq!(row.baseline_budget.as_deref(), Some(FULL));
            assert_eq!(row.verdict, Some(Verdict::Worse));
        }
    }

    #[test]
    fn failures_and_gaps_leave_pairs_out_and_are_counted() {
        let nan = f64::NAN;
        let rows = compare(
            &table(&[
                (0, "snapkv", "64", 0.5, nan, 1.0, ""),
                (1, "snapkv", "64", 0.5, nan, 1.0, ""),
                (2, "snapkv", "64", nan, nan, 1.0, ""),
                (3, "snapkv", "64", 0.5, nan, 1.0, ""),
                // In another order, as a resumed run may leave it.
                (3, "zigzag", "64", 0.9, nan, 1.0, ""),
                (0, "zigzag", "64", 0.7, nan, 1.0, ""),
                (1, "zigzag", "64", f64::INFINITY, nan, nan, "out of memory"),
                (2, "zigzag", "64", 0.1, nan, 1.0, ""),
                (4, "zigzag", "64", 0.3, nan, 1.0, ""),
            ]),
            "snapkv",
            1,
            1000,
        )
        .unwrap();
        let row = only(&rows, "64", "zigzag", "f1");
        assert_eq!((row.n, row.failed), (4, 1));
        assert_abs_diff_eq!(row.mean, 0.5, epsilon = 1e-12);
        let paired = row.paired.unwrap();
        assert_eq!((paired.n, paired.dropped), (2, 3));
        assert_abs_diff_eq!(paired.mean, 0.8, epsilon = 1e-12);
        assert_abs_diff_eq!(paired.difference, 0.3, epsilon = 1e-12);
        assert_eq!(row.verdict, Some(Verdict::TooFewPrompts));
        assert!(rows.iter().all(|row| row.metric.name != "kl"));
        assert_eq!(only(&rows, "64", "snapkv", "f1").n, 3);
    }

    #[test]
    fn another_method_changes_no_number() {
        let mut lines = Vec::new();
        for p in 0..12 {
            let f = f64::from(p * p % 7);
            lines.push((p, "snapkv", "64", f, 0.0, 1.0, ""));
            lines.push((p, "zigzag", "64", f + f64::from(p % 3) - 0.5, 0.0, 1.0, ""));
        }
        let two = compare(&table(&lines), "snapkv", 3, 1000).unwrap();
        lines.extend((0..12).map(|p| (p, "pyramid", "64", 0.0, 1.0, 1.0, "")));
        let three = compare(&table(&lines), "snapkv", 3, 1000).unwrap();
        let zigzag = only(&three, "64", "zigzag", "f1");
        assert_eq!(only(&two, "64", "zigzag", "f1"), zigzag);
        let other_seed = compare(&table(&lines), "snapkv", 4, 1000).unwrap();
        assert_ne!(only(&other_seed, "64", "zigzag", "f1"), zigzag);
    }

    /// Twelve prompts of three needles are three, of which nothing can be said.
    #[test]
    fn prompts_of_a_cluster_count_once() {
        let mut lines = Vec::new();
        for p in 0..12 {
            let f = f64::from(p) / 10.0;
            lines.push((p, "snapkv", "64", f, 0.0, 1.0, ""));
            lines.push((p, "zigzag", "64", f + 0.1, 0.0, 1.0, ""));
        }
        let mut results = table(&lines);
        let alone = compare(&results, "snapkv", 1, 1000).unwrap();
        let clusters = lines.iter().map(|line| (line.0 % 3).to_string());
        results.push("cluster", Column::Text(clusters.collect()));
        let rows = compare(&results, "snapkv", 1, 1000).unwrap();
        let (alone, row) = (
            only(&alone, "64", "zigzag", "f1"),
            only(&rows, "64", "zigzag", "f1"),
        );
        assert_eq!((alone.n, alone.prompts), (12, 12));
        assert_eq!((row.n, row.prompts), (3, 12));
        assert_abs_diff_eq!(row.mean, alone.mean, epsilon = 1e-12);
        assert_eq!(row.paired.unwrap().n, 3);
        assert_eq!(alone.verdict, Some(Verdict::Better));
        assert_eq!(row.verdict, Some(Verdict::TooFewPrompts));
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let refused = |table: &Table, baseline: &str, resamples| {
            compare(table, baseline, 1, resamples)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            refused(&results(), "uniform", 1000),
            "unknown baseline method 'uniform'; known: full, snapkv, zigzag"
        );
        assert!(refused(&results(), "snapkv", 10).contains("at least 100"));
        let line = (7, "snapkv", "64", 0.5, 0.0, 1.0, "");
        assert!(refused(&table(&[line, line]), "snapkv", 1000).contains("twice"));
        let infinite = (7, "snapkv", "64", f64::INFINITY, 0.0, 1.0, "");
        assert!(refused(&table(&[infinite]), "snapkv", 1000).contains("column f1"));
        let empty = Table::default();
        assert!(refused(&empty, "snapkv", 1000).contains("'prompt'"));
    }

    #[test]
    fn json_names_the_metric_and_leaves_unknown_numbers_null() {
        let rows = compare(&results(), "snapkv", 1, 1000).unwrap();
        let json = serde_json::to_value(only(&rows, "128", "zigzag", "f1")).unwrap();
        assert_eq!(json["metric"], "f1");
        assert_eq!(json["verdict"], "no_difference_shown");
        assert_eq!(json["paired"]["interval"]["low"], 0.0);
        let own = serde_json::to_value(only(&rows, "full", "full", "f1")).unwrap();
        assert!(own["paired"].is_null() && own["interval"]["high"].is_number());
    }
}
