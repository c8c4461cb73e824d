//! The per-layer table that ends `kvprof hitrate`.

use std::io::{self, Write};
use std::path::Path;

use kvprof::eval::hit_rate::{HitRates, Observation, WindowRates};
use serde_json::{Value, json};

use super::hitrate::next_command;

/// Most windows of one observation that the table shows.
const SHOWN: usize = 5;

/// Prints the hit rates of a finished run.
pub fn report(rates: &HitRates, folder: &Path, quiet: bool, json: bool) -> anyhow::Result<()> {
    let prompt = rates.rates(Observation::Prompt)?;
    let generated = rates.rates(Observation::Generated)?;
    let mut out = io::stdout().lock();
    if json {
        let value = json!({
            "hitrate": folder, "meta": rates.meta,
            "prompt": prompt.iter().map(window_json).collect::<Vec<_>>(),
            "generated": generated.iter().map(window_json).collect::<Vec<_>>(),
        });
        writeln!(out, "{}", serde_json::to_string_pretty(&value)?)?;
    } else if !quiet {
        write_table(&mut out, &columns(&prompt, &generated), rates)?;
        let meta = &rates.meta;
        let prompts = match meta.prompts {
            1 => "1 prompt".to_owned(),
            n => format!("{n} prompts"),
        };
        writeln!(
            out,
            "\nPer cent, over {prompts} of {}, written to {}",
            meta.dataset,
            folder.display()
        )?;
        writeln!(out, "Next: {}", next_command(folder))?;
    }
    Ok(())
}

/// One list per measure, a value per layer; `null` where no step has an important key.
fn window_json(window: &WindowRates) -> Value {
    json!({
        "hit_rate": window.all, "hit_rate_beyond_sinks": window.beyond_sinks, "overlap": window.overlap,
    })
}

/// A column of the table: two lines of heading, and a value per layer.
struct TableColumn<'r> {
    group: &'static str,
    name: String,
    values: &'r [f64],
}

/// Some of the prompt's windows, counted from its end, then the generated ones.
fn columns<'r>(prompt: &'r [WindowRates], generated: &'r [WindowRates]) -> Vec<TableColumn<'r>> {
    let mut columns = Vec::new();
    for w in spread(prompt.len()) {
        columns.push(TableColumn {
            group: "hit rate of prompt window",
            name: format!("-{}", prompt.len() - w),
            values: &prompt[w].all,
        });
    }
    if let Some(last) = prompt.last() {
        columns.push(TableColumn {
            group: "no sinks",
            name: "-1".to_owned(),
            values: &last.beyond_sinks,
        });
    }
    for w in spread(generated.len()) {
        columns.push(TableColumn {
            group: "-1 in generated window",
            name: format!("{}", w + 1),
            values: &generated[w].all,
        });
    }
    for w in spread(generated.len()) {
        columns.push(TableColumn {
            group: "its vote shared by",
            name: format!("{}", w + 1),
            values: &generated[w].overlap,
        });
    }
    columns
}

/// First, last, and some between.
fn spread(count: usize) -> Vec<usize> {
    let shown = count.min(SHOWN);
    (0..shown)
        .map(|i| i * count.saturating_sub(1) / shown.saturating_sub(1).max(1))
        .collect()
}

fn write_table(
    out: &mut impl Write,
    columns: &[TableColumn<'_>],
    rates: &HitRates,
) -> io::Result<()> {
    let mut groups: Vec<(&str, usize)> = Vec::new();
    for column in columns {
        match groups.last_mut() {
            Some((name, count)) if *name == column.group => *count += 1,
            _ => groups.push((column.group, 1)),
        }
    }
    // Every column takes six places; a group is at least as wide as its heading.
    let widths: Vec<usize> = groups
        .iter()
        .map(|(name, count)| (6 * count).max(name.len() + 2))
        .collect();
    write!(out, "     ")?;
    for ((name, _), width) in groups.iter().zip(&widths) {
        write!(out, "{name:>width$}")?;
    }
    let row = |out: &mut dyn Write, name: &str, cell: &dyn Fn(&TableColumn<'_>) -> String| {
        write!(out, "\n{name:>5}")?;
        let mut rest = columns;
        for ((_, count), width) in groups.iter().zip(&widths) {
            let (mine, others) = rest.split_at(*count);
            let cells: String = mine.iter().map(|c| format!("{:>6}", cell(c))).collect();
            write!(out, "{cells:>width$}")?;
            rest = others;
        }
        Ok::<(), io::Error>(())
    };
    row(out, "layer", &|column| column.name.clone())?;
    for layer in 0..rates.meta.num_layers {
        row(out, &layer.to_string(), &|column| {
            percent(column.values.get(layer).copied().unwrap_or(f64::NAN))
        })?;
    }
    row(out, "mean", &|column| percent(mean(column.values)))?;
    writeln!(out)
}

fn percent(share: f64) -> String {
    match share.is_finite() {
        true => format!("{:.1}", 100.0 * share),
        false => "-".to_owned(),
    }
}

/// Mean over the layers that have a value.
fn mean(values: &[f64]) -> f64 {
    let counted = values.iter().filter(|v| v.is_finite());
    counted.clone().sum::<f64>() / counted.count() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_and_last_windows_are_always_shown() {
        assert_eq!(spread(20), [0, 4, 9, 14, 19]);
        assert_eq!(spread(4), [0, 1, 2, 3]);
        assert_eq!(spread(1), [0]);
        assert_eq!(spread(0), [0usize; 0]);
    }

    #[test]
    fn layers_without_important_keys_do_not_spoil_the_mean() {
        assert_eq!(mean(&[0.5, f64::NAN, 1.0]), 0.75);
        assert_eq!(percent(f64::NAN), "-");
        assert_eq!(percent(0.123), "12.3");
    }
}
