//! `kvprof compare`: what another device, element type or quantisation does to the measures.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use kvprof::profile::{ColumnDifference, Profile, compare, threshold_name};

use super::summary::nearest;

/// Arguments of `kvprof compare`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Profile folder that the other is compared with
    first: PathBuf,
    /// Profile folder of the same prompts
    second: PathBuf,
    /// Every column, not only those at the threshold nearest to 0.9
    #[arg(long)]
    all: bool,
    /// Print every column as JSON
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub fn run(self) -> anyhow::Result<()> {
        let read = |folder: &PathBuf| Profile::load(folder).context("reading profiles");
        let (first, second) = (read(&self.first)?, read(&self.second)?);
        let differences = compare(&first, &second)?;
        let mut out = std::io::stdout().lock();
        if self.json {
            let side = |folder: &PathBuf, profile: &Profile| {
                let meta = &profile.meta;
                serde_json::json!({
                    "profile": folder, "model": meta.model, "device": meta.device, "dtype": meta.dtype,
                })
            };
            let value = serde_json::json!({
                "first": side(&self.first, &first),
                "second": side(&self.second, &second),
                "columns": differences,
            });
            writeln!(out, "{}", serde_json::to_string_pretty(&value)?)?;
            return Ok(());
        }
        for (which, profile) in [("first", &first), ("second", &second)] {
            let meta = &profile.meta;
            writeln!(
                out,
                "{which:<7} {} in {} on {}",
                meta.model, meta.dtype, meta.device
            )?;
        }
        let central = central_endings(&first);
        let shown = differences
            .iter()
            .filter(|d| self.all || is_central(&d.column, &central));
        write_table(&mut out, &shown.collect::<Vec<_>>())
    }
}

/// How the columns end that are measured at the thresholds nearest to 0.9: those of mass, and those of outputs.
fn central_endings(profile: &Profile) -> [String; 2] {
    let meta = &profile.meta;
    let name = |thresholds: &[f64]| threshold_name(nearest(thresholds, 0.9));
    [
        format!("_{}", name(&meta.thresholds)),
        format!("_{}_first", name(&meta.output_thresholds)),
    ]
}

/// Whether a column is one that a reader looks for first.
fn is_central(column: &str, endings: &[String; 2]) -> bool {
    let [mass, output] = endings;
    match column.starts_with("lmbo_") {
        true => column.ends_with(output.as_str()) && !column.contains("_raw_"),
        false => {
            let whole = ["entropy", "sink_mass", "window_mass"].contains(&column);
            column.ends_with(mass.as_str()) || whole
        }
    }
}

fn write_table(out: &mut impl Write, differences: &[&ColumnDifference]) -> anyhow::Result<()> {
    writeln!(
        out,
        "\n{:<9} {:<22} {:>7} {:>8} {:>10} {:>10} {:>10} {:>10}",
        "table", "column", "rows", "equal", "mean", "difference", "|diff|", "largest"
    )?;
    for d in differences {
        let share = 100.0 * d.equal as f64 / d.rows.max(1) as f64;
        writeln!(
            out,
            "{:<9} {:<22} {:>7} {:>6.1} % {:>10} {:>10} {:>10} {:>10}",
            d.table,
            d.column,
            d.rows,
            share,
            number(d.mean),
            number(d.difference),
            number(d.mean_absolute),
            number(d.largest)
        )?;
    }
    writeln!(
        out,
        "\nDifferences are second less first; |diff| is the mean of their absolute values over rows"
    )?;
    Ok(())
}

/// Four significant digits, without an exponent where that is short.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 0.01 => {
            let digits = (3 - size.log10().floor() as i32).max(0) as usize;
            format!("{value:.digits$}")
        }
        _ => format!("{value:.1e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_four_digits() {
        for (value, text) in [
            (0.0, "0"),
            (12345.6, "12346"),
            (123.456, "123.5"),
            (-1.23456, "-1.235"),
            (0.0123456, "0.01235"),
            (3.21e-7, "3.2e-7"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}
