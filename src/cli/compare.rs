//! `kvprof compare`: what another device, element type or quantisation does to the measures.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use kvprof::profile::{ColumnDifference, Profile, compare, threshold_name};

use super::summary::nearest;
use super::text_table::text_table;

/// Arguments of `kvprof compare`.
#[derive(Debug, clap::Args)]
pub struct CompareArguments {
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

impl CompareArguments {
    pub fn run(self) -> anyhow::Result<()> {
        let read = |folder: &PathBuf| Profile::load(folder).context("reading profiles");
        let (first, second) = (read(&self.first)?, read(&self.second)?);
        let differences = compare(&first, &second)?;
        if self.json {
            let side = |folder: &PathBuf, profile: &Profile| {
                let model = &profile.meta.model;
                serde_json::json!({
                    "profile": folder, "model": model.name, "device": model.device, "dtype": model.dtype,
                })
            };
            return super::print_json(&serde_json::json!({
                "first": side(&self.first, &first),
                "second": side(&self.second, &second),
                "columns": differences,
            }));
        }
        let mut out = std::io::stdout().lock();
        for (which, profile) in [("first", &first), ("second", &second)] {
            let model = &profile.meta.model;
            let (name, dtype, device) = (&model.name, &model.dtype, &model.device);
            writeln!(out, "{which:<7} {name} in {dtype} on {device}")?;
        }
        let central = central_endings(&first);
        let shown = differences
            .iter()
            .filter(|d| self.all || is_central(&d.column, &central));
        writeln!(
            out,
            "\n{}\n\nDifferences are second less first; |diff| is the mean of their absolute values over rows",
            table(shown)
        )?;
        Ok(())
    }
}

/// How the columns end that are measured at the thresholds nearest to 0.9: those of mass, and those of outputs.
fn central_endings(profile: &Profile) -> [String; 2] {
    let measures = &profile.meta.settings.measures;
    let name = |thresholds: &[f64]| threshold_name(nearest(thresholds, 0.9));
    [
        format!("_{}", name(&measures.thresholds)),
        format!("_{}_first", name(&measures.output_thresholds)),
    ]
}

/// Whether a column is one that a reader looks for first.
fn is_central(column: &str, endings: &[String; 2]) -> bool {
    let [mass, output] = endings;
    if column.starts_with("lmbo_") {
        return column.ends_with(output.as_str()) && !column.contains("_raw_");
    }
    let whole = ["entropy", "sink_mass", "window_mass"].contains(&column);
    column.ends_with(mass.as_str()) || whole
}

fn table<'d>(differences: impl Iterator<Item = &'d ColumnDifference>) -> String {
    let headings = "<table, <column, rows, equal, mean, difference, |diff|, largest";
    let mut table = text_table(headings.split(", "));
    for d in differences {
        let share = 100.0 * d.equal as f64 / d.rows.max(1) as f64;
        let names = [d.table.to_owned(), d.column.clone()];
        let counts = [d.rows.to_string(), format!("{share:.1} %")];
        let measured = [d.mean, d.difference, d.mean_absolute, d.largest].map(number);
        table.add_row(names.into_iter().chain(counts).chain(measured));
    }
    table.trim_fmt()
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
