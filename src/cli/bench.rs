//! `kvprof bench`: what everything costs, as ratios within one run.

use std::io::Write;
use std::path::PathBuf;

use kvprof::bench::{self, BenchOptions, BenchReport, Machine, Turn, WORKLOADS};

use super::bench_table;
use super::load::ModelArguments;
use super::long_run::progress_bar;
use super::output_file::{check_writable, refuse_to_overwrite};

/// Arguments of `kvprof bench`.
#[derive(Debug, clap::Args)]
pub struct BenchArguments {
    #[command(flatten)]
    model: ModelArguments,
    /// Prompt lengths in tokens
    #[arg(long, value_delimiter = ',', default_values_t = [1024, 2048, 4096])]
    lengths: Vec<usize>,
    /// Workloads to measure, and those that they are taken against; `kvprof list workloads` names them all
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    only: Vec<String>,
    /// How often every workload is measured, in turns
    #[arg(long, default_value_t = 3)]
    repeats: usize,
    /// Decoding steps that a repeat times
    #[arg(long, default_value_t = 16)]
    steps: usize,
    /// Folder to write bench.json to, every repeat in it
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Overwrite a bench.json that is there
    #[arg(long)]
    force: bool,
    /// No progress and no table
    #[arg(long)]
    quiet: bool,
    /// Print everything as JSON
    #[arg(long)]
    json: bool,
}

impl BenchArguments {
    pub fn run(self) -> anyhow::Result<()> {
        let options = self.options()?;
        options.check()?;
        let file = self.out.as_ref().map(|folder| folder.join("bench.json"));
        if let Some(file) = &file {
            check_writable(file)?;
            refuse_to_overwrite(file, self.force, || false)?;
        }
        let model = self.model.load_checked(self.quiet, |header| {
            options.check_context(header.config.max_position_embeddings)?;
            Ok(options.lengths.last().copied().unwrap_or(0))
        })?;
        let machine = Machine::here();
        let bar = progress_bar(options.measurements(), "measurements", self.quiet);
        let run = bench::measure(&model, &options, &mut |turn| match turn {
            Turn::Prepares(length) => bar.set_message(format!("{length} tokens")),
            Turn::Measured(_) => bar.inc(1),
        })?;
        bar.finish_and_clear();
        model.check_files()?;
        let command = super::command_line(&["--quiet", "--json", "--force"]);
        let report = BenchReport::of(&model, &options, &run, machine, command);
        if let Some(file) = &file {
            report.write(file)?;
        }
        if self.json {
            return super::print_json(&report);
        }
        if !self.quiet {
            let mut out = std::io::stdout().lock();
            bench_table::write(&mut out, &report)?;
            if let Some(file) = &file {
                writeln!(out, "\nWritten to {}", file.display())?;
            }
        }
        Ok(())
    }

    fn options(&self) -> anyhow::Result<BenchOptions> {
        Ok(BenchOptions {
            lengths: super::sorted(&self.lengths),
            workloads: if self.only.is_empty() {
                WORKLOADS.iter().collect()
            } else {
                bench::named(&self.only)?
            },
            named: !self.only.is_empty(),
            repeats: self.repeats,
            steps: self.steps,
        })
    }
}
