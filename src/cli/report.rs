//! `kvprof report`: an evaluation as one HTML page.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use kvprof::eval::{Results, compare};
use kvprof::{files, report};

use super::output_file::check_writable;

/// Arguments of `kvprof report`.
#[derive(Debug, clap::Args)]
pub struct ReportArguments {
    /// Results folder of `kvprof eval`
    #[arg(value_name = "RESULTS")]
    results: PathBuf,
    /// Method that the others are compared with, at the same budget; by default that of the evaluation
    #[arg(long)]
    baseline: Option<String>,
    /// Resamples of the bootstrap
    #[arg(long, default_value_t = 10_000)]
    resamples: usize,
    /// HTML file to write
    #[arg(long, value_name = "PATH", default_value = "report.html")]
    out: PathBuf,
}

impl ReportArguments {
    pub fn run(self) -> anyhow::Result<()> {
        check_writable(&self.out)?;
        let results = Results::load(&self.results).context("reading the evaluation")?;
        let meta = &results.meta;
        let baseline = self.baseline.as_ref().unwrap_or(&meta.settings.baseline);
        let rows = compare(
            &results.results,
            baseline,
            meta.settings.seed,
            self.resamples,
        )?;
        let page = report::page(&results, &rows, baseline, &super::command_line(&[]))
            .with_context(|| format!("reporting {}", self.results.display()))?;
        files::replace_with(&self.out, page.as_bytes())?;
        writeln!(std::io::stdout(), "{}", self.out.display())?;
        Ok(())
    }
}
