//! Numbers as the tables of a report show and sort them.

use serde::Serialize;

use crate::error::Result;
use crate::eval::{self, Direction, Metric, Results, probability_words};

/// What stands where nothing was measured.
const ABSENT: &str = "\u{2013}";

/// What stands in a cell, and what the column is sorted by; without a number it goes last.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Cell {
    text: String,
    sort: Option<f64>,
}

/// A line of a table.
#[derive(Debug, Serialize)]
pub(super) struct TableLine {
    /// The method, which heads the line.
    method: String,
    cells: Vec<Cell>,
}

/// A table with its words.
#[derive(Debug, Serialize)]
pub(super) struct SortableTable {
    /// Column of `results.parquet`, and the table's place on the page.
    name: String,
    title: String,
    caption: String,
    columns: Vec<&'static str>,
    rows: Vec<TableLine>,
}

fn text(text: impl Into<String>) -> Cell {
    Cell {
        text: text.into(),
        sort: None,
    }
}

fn sorted(text: String, by: f64) -> Cell {
    Cell {
        text,
        sort: Some(by),
    }
}

fn number(value: f64, decimals: usize) -> Cell {
    if !value.is_finite() {
        return text(ABSENT);
    }
    let shown = format!("{value:.decimals$}").replace('-', "\u{2212}");
    sorted(shown, value)
}

fn budget(typed: &str) -> Cell {
    Cell {
        text: typed.to_owned(),
        // The full cache is above every number of tokens.
        sort: match typed {
            "full" => Some(f64::MAX),
            _ => typed.trim_end_matches('%').parse().ok(),
        },
    }
}

/// What is said of a comparison with the baseline.
const COMPARED: [&str; 5] = [
    "Difference",
    "95 % interval",
    "Verdict",
    "Sign test p",
    "Pairs",
];

/// A table per metric of quality that was measured.
pub(super) fn tables(rows: &[eval::Row], baseline: &str) -> Vec<SortableTable> {
    let held = |row: &eval::Row| {
        let same = |r: &&eval::Row| r.method == row.method && r.budget == row.budget;
        let bytes = rows
            .iter()
            .filter(same)
            .find(|r| r.metric.name == "kv_bytes");
        bytes.map_or(f64::NAN, |r| r.mean)
    };
    let of = |metric: &'static Metric| -> Vec<(&eval::Row, f64)> {
        let own = rows.iter().filter(|row| row.metric == metric && row.n > 0);
        own.map(|row| (row, held(row))).collect()
    };
    let all = Metric::of_quality().map(|metric| (metric, of(metric)));
    all.filter(|(_, rows)| !rows.is_empty())
        .map(|(metric, rows)| table(metric, &rows, baseline))
        .collect()
}

fn table(metric: &Metric, rows: &[(&eval::Row, f64)], baseline: &str) -> SortableTable {
    let compared = rows.iter().any(|(row, _)| row.paired.is_some());
    // What is asked for first comes first: a phone shows the left columns.
    let mut columns = vec!["Budget", "Mean", "n"];
    if compared {
        columns.extend(COMPARED);
    }
    columns.push("Held (MB)");
    let better = match metric.direction {
        Direction::Lower => "lower is better",
        _ => "higher is better",
    };
    let unit = metric.shown_unit();
    let counted = if rows.iter().any(|(row, _)| row.n < row.prompts) {
        "n needles, or contexts, each the mean of its prompts,"
    } else {
        "n prompts"
    };
    let against = if compared {
        format!(" Differences are from {baseline} at the same budget, paired over the n.")
    } else {
        String::new()
    };
    SortableTable {
        name: metric.name.to_owned(),
        title: metric.axis_name(),
        caption: format!("Mean over {counted} in {unit}; {better}.{against}"),
        columns,
        rows: (rows.iter())
            .map(|(row, held)| line(row, *held, compared))
            .collect(),
    }
}

fn line(row: &eval::Row, held: f64, compared: bool) -> TableLine {
    let metric = row.metric;
    let decimals = if metric.is_share() { 1 } else { 4 };
    let shown = |value: f64| number(value * metric.factor(), decimals);
    let mut cells = vec![
        budget(&row.budget),
        shown(row.mean),
        number(row.n as f64, 0),
    ];
    match &row.paired {
        Some(paired) => cells.extend([
            shown(paired.difference),
            paired.interval.map_or(text(ABSENT), |interval| {
                let [low, high] = [interval.low, interval.high].map(|end| shown(end).text);
                sorted(format!("{low} to {high}"), interval.low)
            }),
            text(row.verdict.map_or(ABSENT, |verdict| verdict.words())),
            sorted(probability_words(paired.sign_test_p), paired.sign_test_p),
            number(paired.n as f64, 0),
        ]),
        None if compared => cells.extend(COMPARED.map(|_| text(ABSENT))),
        None => {}
    }
    cells.push(number(held / 1e6, 2));
    TableLine {
        method: row.method.clone(),
        cells,
    }
}

/// What every method and budget took, mean over prompts; none where nothing was timed.
pub(super) fn costs(results: &Results) -> Result<Option<SortableTable>> {
    let table = &results.timings;
    if table.rows() == 0 {
        return Ok(None);
    }
    let (methods, budgets) = (table.texts("method")?, table.texts("budget")?);
    let (prefill, cut) = (table.numbers("prefill_s")?, table.numbers("cut_s")?);
    // Prompts, and seconds of prefill and cut, by method and budget in the order of their first row.
    let mut costs: Vec<((&str, &str), [f64; 3])> = Vec::new();
    let keys = methods.iter().zip(budgets);
    for ((method, typed), (prefill, cut)) in keys.zip(prefill.into_iter().zip(cut)) {
        if !prefill.is_finite() || !cut.is_finite() {
            continue;
        }
        let key = (method.as_str(), typed.as_str());
        match costs.iter_mut().find(|(known, _)| *known == key) {
            Some((_, [n, before, after])) => {
                (*n, *before, *after) = (*n + 1.0, *before + prefill, *after + cut);
            }
            None => costs.push((key, [1.0, prefill, cut])),
        }
    }
    let row = |((method, typed), [n, prefill, cut]): &((&str, &str), [f64; 3])| TableLine {
        method: (*method).to_owned(),
        cells: vec![
            budget(typed),
            number(*n, 0),
            number(prefill / n, 2),
            number(1000.0 * cut / n, 1),
        ],
    };
    Ok((!costs.is_empty()).then(|| SortableTable {
        name: "cost".to_owned(),
        title: "Time".to_owned(),
        caption:
            "Mean over n prompts. One prefill of a prompt serves every method and budget; the \
                  machine may have done other work meanwhile. Decoding is timed by kvprof speed."
                .to_owned(),
        columns: vec!["Budget", "n", "Prefill, shared (s)", "Cut (ms)"],
        rows: costs.iter().map(row).collect(),
    }))
}

/// Configurations that failed, with their errors; none where all went well.
pub(super) fn failures(results: &Results) -> Result<Option<SortableTable>> {
    let table = &results.results;
    let (methods, budgets) = (table.texts("method")?, table.texts("budget")?);
    let mut found: Vec<((&str, &str, &str), usize)> = Vec::new();
    for ((method, typed), error) in methods.iter().zip(budgets).zip(table.texts("error")?) {
        if error.is_empty() {
            continue;
        }
        let key = (method.as_str(), typed.as_str(), error.as_str());
        match found.iter_mut().find(|(known, _)| *known == key) {
            Some((_, count)) => *count += 1,
            None => found.push((key, 1)),
        }
    }
    let row = |((method, typed, error), count): &((&str, &str, &str), usize)| TableLine {
        method: (*method).to_owned(),
        cells: vec![budget(typed), number(*count as f64, 0), text(*error)],
    };
    Ok((!found.is_empty()).then(|| SortableTable {
        name: "failures".to_owned(),
        title: "Failed".to_owned(),
        caption: "Configurations that are missing from the means above.".to_owned(),
        columns: vec!["Budget", "Prompts", "Error"],
        rows: found.iter().map(row).collect(),
    }))
}
