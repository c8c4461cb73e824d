//! What an evaluation showed, for the terminal: a block per budget, a line per method.

use std::io::{self, Write};

use kvprof::eval::{METRICS, Row, Verdict, probability_words};

/// Metrics that are compared; the others are only means.
const COLUMNS: [&str; 7] = ["kl", "top1", "nll", "f1", "em", "contains", "evidence"];

/// Writes all blocks; `baseline` is what differences are taken against.
pub fn write(out: &mut impl Write, rows: &[Row], baseline: &str) -> io::Result<()> {
    let columns: Vec<&str> = (COLUMNS.into_iter())
        .filter(|c| rows.iter().any(|r| r.metric.name == *c))
        .collect();
    let width = rows
        .iter()
        .map(|r| r.method.len())
        .max()
        .unwrap_or(6)
        .max(8);
    let mut budget = "";
    for (i, row) in rows.iter().enumerate() {
        if row.budget != budget {
            budget = &row.budget;
            writeln!(out, "\nBudget {budget}")?;
            write!(out, "{:<width$}  {:>3}", "method", "n")?;
            columns.iter().try_for_each(|c| write!(out, " {c:>9}"))?;
            write!(out, " {:>7}", "MB")?;
            writeln!(out)?;
        }
        let earlier = &rows[..i];
        if earlier
            .iter()
            .any(|r| r.budget == row.budget && r.method == row.method)
        {
            continue;
        }
        let own: Vec<&Row> = (rows.iter())
            .filter(|r| r.budget == row.budget && r.method == row.method)
            .collect();
        let n = own.iter().map(|r| r.n).max().unwrap_or(0);
        write!(out, "{:<width$}  {n:>3}", row.method)?;
        for column in &columns {
            let cell = own.iter().find(|r| r.metric.name == *column);
            write!(
                out,
                " {:>9}",
                cell.map_or("-".to_owned(), |r| cell_of(r, n))
            )?;
        }
        let held = own.iter().find(|r| r.metric.name == "kv_bytes");
        write!(out, " {:>7.2}", held.map_or(f64::NAN, |r| r.mean / 1e6))?;
        match row.failed {
            0 => writeln!(out)?,
            failed => writeln!(out, "  {failed} failed")?,
        }
    }
    writeln!(
        out,
        "\n+ better, - worse than {baseline} at the same budget: the 95 % interval of the paired difference \
         excludes 0;\n= no difference shown; ? too few prompts, or too few that differ, to tell; (n) over fewer prompts than the line's n. Intervals of every\nmetric: --json or kvprof report."
    )?;
    if let Some(row) = rows.iter().find(|r| r.n < r.prompts) {
        writeln!(
            out,
            "n counts needles: prompts of one needle are not independent and are averaged first ({} prompts, n = {}).",
            row.prompts, row.n
        )?;
    }
    let about = METRICS.iter().filter(|m| columns.contains(&m.name));
    for metric in about {
        writeln!(out, "{:<9} {}", metric.name, metric.about)?;
    }
    Ok(())
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
    let of = match counted == n {
        true => String::new(),
        false => format!("({counted})"),
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
    let width = rows
        .iter()
        .map(|r| r.method.len())
        .max()
        .unwrap_or(6)
        .max(8);
    writeln!(
        out,
        "\nPaired differences of {metric}, method - {baseline}:"
    )?;
    writeln!(
        out,
        "{:<width$}  {:>7}  {:>10}  {:>21}  {:>9}  {:>3}",
        "method", "budget", "difference", "95 % interval", "sign test", "n"
    )?;
    for row in rows.iter().filter(|r| r.metric.name == metric) {
        let Some(paired) = row.paired.filter(|p| p.n > 0) else {
            continue;
        };
        let interval = (paired.interval.as_ref()).map_or("-".to_owned(), |i| {
            format!("{:+.4} to {:+.4}", i.low, i.high)
        });
        let verdict = row.verdict.map_or("", |v| v.words());
        writeln!(
            out,
            "{:<width$}  {:>7}  {:>+10.4}  {interval:>21}  {:>9}  {:>3}  {verdict}",
            row.method,
            row.budget,
            paired.difference,
            probability_words(paired.sign_test_p),
            paired.n
        )?;
    }
    Ok(())
}
