//! What an evaluation showed, for the terminal: a block per budget, a line per method.

use std::io::{self, Write};

use kvprof::eval::{
    METRICS, RecallSummary, ResidencySummary, Results, Row, Verdict, probability_words,
};

use super::text_table::{cell, text_table};

/// Metrics that are compared; the others are only means.
const COLUMNS: [&str; 7] = ["kl", "top1", "nll", "f1", "em", "contains", "evidence"];

/// Writes all blocks; `baseline` is what differences are taken against.
pub fn write(out: &mut impl Write, rows: &[Row], baseline: &str) -> io::Result<()> {
    let columns: Vec<&str> = (COLUMNS.into_iter())
        .filter(|c| rows.iter().any(|r| r.metric.name == *c))
        .collect();
    for of_budget in rows.chunk_by(|a, b| a.budget == b.budget) {
        let headings = ["<method", "n"].iter().chain(&columns);
        let mut table = text_table(headings.chain(&["MB", "<"]));
        for own in of_budget.chunk_by(|a, b| a.method == b.method) {
            let n = own.iter().map(|r| r.n).max().unwrap_or(0);
            let of_metric = |name: &str| own.iter().find(|r| r.metric.name == name);
            let cells = columns.iter().map(|column| of_metric(column));
            let cells = cells.map(|row| row.map_or("-".to_owned(), |r| cell_of(r, n)));
            let held = of_metric("kv_bytes").map_or(f64::NAN, |r| r.mean / 1e6);
            let failed = match own[0].failed {
                0 => String::new(),
                failed => format!("{failed} failed"),
            };
            let start = [own[0].method.clone(), n.to_string()].into_iter();
            table.add_row(start.chain(cells).chain([format!("{held:.2}"), failed]));
        }
        let budget = &of_budget[0].budget;
        writeln!(out, "\nBudget {budget}\n{}", table.trim_fmt())?;
    }
    writeln!(
        out,
        "\n+ better, - worse than {baseline} at the same budget: the 95 % interval of the paired difference \
         excludes 0;\n= no difference shown; ? too few prompts, or too few that differ, to tell; (n) over fewer prompts than the line's n. Intervals of every\nmetric: --json or kvprof report."
    )?;
    if let Some(row) = rows.iter().find(|r| r.n < r.prompts) {
        writeln!(
            out,
            "n counts needles, or contexts: prompts of one are not independent and are averaged first ({} prompts, n = {}).",
            row.prompts, row.n
        )?;
    }
    let about = METRICS.iter().filter(|m| columns.contains(&m.name));
    for metric in about {
        writeln!(out, "{:<9} {}", metric.name, metric.about)?;
    }
    Ok(())
}

/// Writes what was cut, and who was looked from, where that was not the whole prompt.
pub fn write_protocol(out: &mut impl Write, results: &Results) -> io::Result<()> {
    let Some(protocol) = &results.meta.data.protocol else {
        return Ok(());
    };
    let source = results.meta.settings.observed_from.as_deref();
    writeln!(
        out,
        "\n{protocol}: contexts were prefilled and cut alone; questions and template tails came uncut, on top of the budget.\n\
         Scorers that look from a window looked from: {}.",
        source.unwrap_or("the context's end")
    )
}

/// Writes what caches held while they lived, where any of them is another than a full one or one that was cut once.
pub fn write_residencies(
    out: &mut impl Write,
    results: &Results,
    summaries: &[ResidencySummary],
) -> io::Result<()> {
    let mut all = results.meta.settings.methods.iter();
    let lives = all.any(|m| m.get("residency").is_some() || m.get("cache").is_some());
    if summaries.is_empty() || !lives {
        return Ok(());
    }
    let headings = "<method, budget, <cache, mean rows, peak rows, MB cut, MB peak, MB away";
    let mut shown = text_table(headings.split(", "));
    for one in summaries {
        let megabytes = |bytes: Option<f64>| cell(bytes.map(|bytes| bytes / 1e6), 2);
        shown.add_row([
            one.method.clone(),
            one.budget.clone(),
            one.cache.clone(),
            cell(one.mean_rows, 1),
            cell(one.peak_rows, 1),
            megabytes(one.resident_bytes),
            megabytes(one.peak_bytes),
            megabytes(one.offloaded_bytes),
        ]);
    }
    writeln!(
        out,
        "\nWhile they were fed the full cache's continuation: rows of a KV head, bytes of the whole cache (peaks over all\nprompts, else means):\n{}",
        shown.trim_fmt()
    )?;
    let idle = summaries.iter().filter(|one| one.left_rows == Some(0.0));
    let idle: Vec<String> = idle
        .map(|one| format!("{} at {}", one.method, one.budget))
        .collect();
    if idle.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "No row was let go after the cut, on any prompt, by {}: these\nsay what they say without their residency. Let more \
         be said (--max-new-tokens), or spell a shorter interval, as evict-r-kv(budget=kept,every=8).",
        idle.join(", ")
    )
}

/// Writes what steps brought back, where a method recalls.
pub fn write_recall(out: &mut impl Write, recall: &[RecallSummary]) -> io::Result<()> {
    if recall.is_empty() {
        return Ok(());
    }
    let headings = "<method, budget, steps, hit rate, returned, steps with a return";
    let mut shown = text_table(headings.split(", "));
    for row in recall {
        let shares = [row.hit_rate, row.returned, row.steps_with_return];
        let start = [
            row.method.clone(),
            row.budget.clone(),
            row.steps.to_string(),
        ];
        shown.add_row(start.into_iter().chain(shares.map(|share| cell(share, 3))));
    }
    writeln!(
        out,
        "\nRecall in the same steps: share of the tokens of largest attention, as many as were recalled, that were among them;\nshare of KV heads to which a token came back that the step before had left out; share of steps with any such:\n{}",
        shown.trim_fmt()
    )
}

/// A mean and what its comparison shows, over the same prompts; those are named where they are not all `n`.
fn cell_of(row: &Row, n: usize) -> String {
    let (mean, counted) = match &row.paired {
        Some(paired) => (paired.mean, paired.n),
        None => (row.mean, row.n),
    };
    if mean.is_nan() {
        return "-".to_owned();
    }
    let mark = match row.verdict {
        Some(Verdict::Better) => "+",
        Some(Verdict::Worse) => "-",
        Some(Verdict::NoDifferenceShown) => "=",
        Some(Verdict::TooFewPrompts) => "?",
        None => " ",
    };
    let of = if counted == n {
        String::new()
    } else {
        format!("({counted})")
    };
    format!("{:.*}{mark}{of}", row.metric.decimals, mean)
}

/// Writes every paired difference with its interval, sign test and number of prompts.
pub fn write_differences(
    out: &mut impl Write,
    rows: &[Row],
    metric: &str,
    baseline: &str,
) -> io::Result<()> {
    let headings = "<method, budget, difference, 95 % interval, sign test, n, <";
    let mut table = text_table(headings.split(", "));
    for row in rows.iter().filter(|r| r.metric.name == metric) {
        let Some(paired) = row.paired.filter(|p| p.n > 0) else {
            continue;
        };
        let interval = (paired.interval.as_ref()).map_or("-".to_owned(), |i| {
            format!("{:+.4} to {:+.4}", i.low, i.high)
        });
        table.add_row([
            row.method.clone(),
            row.budget.clone(),
            format!("{:+.4}", paired.difference),
            interval,
            probability_words(paired.sign_test_p),
            paired.n.to_string(),
            row.verdict.map_or("", |v| v.words()).to_owned(),
        ]);
    }
    writeln!(
        out,
        "\nPaired differences of {metric}, method - {baseline}:\n{}",
        table.trim_fmt()
    )
}
