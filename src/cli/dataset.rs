//! `kvprof dataset`: prompts of our own, as JSONL.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::Subcommand;
use kvprof::dataset::wikimqa_style::{self, Options};
use kvprof::dataset::{Dataset, needle, write_jsonl};
use serde_json::{Map, Value};

use super::load;
use super::needle_grid::NeedleArguments;
use super::output_file::{check_writable, refuse_to_overwrite};

/// Arguments of `kvprof dataset`.
#[derive(Debug, clap::Args)]
pub struct DatasetArguments {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, Subcommand)]
enum Kind {
    /// Multi-hop questions over passages about an invented world, in LongBench's fields
    WikimqaStyle(WikimqaStyle),
    /// Needles in haystacks: a pass code to be found at every depth of prompts of every length
    Needle(Needle),
}

#[derive(Debug, clap::Args)]
struct Needle {
    #[command(flatten)]
    grid: NeedleArguments,
    /// Seed of the first needle; same seed, same bytes
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Model whose tokenizer and chat template count
    #[arg(long, default_value = kvprof::model::source::MODELS[0].name)]
    model: String,
    #[command(flatten)]
    terms: load::AcceptedTerms,
    /// Count without the model's chat template
    #[arg(long)]
    raw: bool,
    #[command(flatten)]
    output: Output,
}

/// Where records go.
#[derive(Debug, clap::Args)]
struct Output {
    /// JSONL file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Overwrite another file
    #[arg(long)]
    force: bool,
    /// No notices
    #[arg(long)]
    quiet: bool,
}

#[derive(Debug, clap::Args)]
struct WikimqaStyle {
    /// Number of questions; the four types take turns
    #[arg(long, default_value_t = 12)]
    questions: usize,
    /// Size of each message in tokens, before the chat wrapper
    #[arg(long, default_value_t = 2008)]
    tokens: usize,
    /// Same seed, same bytes
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Model whose tokenizer counts
    #[arg(long, default_value = kvprof::model::source::MODELS[0].name)]
    model: String,
    #[command(flatten)]
    terms: load::AcceptedTerms,
    #[command(flatten)]
    output: Output,
}

impl DatasetArguments {
    pub fn run(self) -> anyhow::Result<()> {
        match self.kind {
            Kind::WikimqaStyle(arguments) => arguments.run(),
            Kind::Needle(arguments) => arguments.run(),
        }
    }
}

impl WikimqaStyle {
    fn run(self) -> anyhow::Result<()> {
        check_writable(&self.output.out)?;
        let options = Options {
            questions: self.questions,
            tokens: self.tokens,
            seed: self.seed,
        };
        let tokenizer = load::tokenizer(&self.model, &self.terms, self.output.quiet)?;
        let count = |text: &str| tokenizer.encode(text).map(|ids| ids.len());
        let records = wikimqa_style::generate(&options, &count).context("generating prompts")?;
        self.output.write(&records)
    }
}

impl Needle {
    fn run(self) -> anyhow::Result<()> {
        check_writable(&self.output.out)?;
        let count = load::message_counter(&self.model, &self.terms, self.raw, self.output.quiet)?;
        let records =
            needle::build(&self.grid.options(self.seed)?, &count).context("building needles")?;
        self.output.write(&records)
    }
}

impl Output {
    fn write(&self, records: &[Map<String, Value>]) -> anyhow::Result<()> {
        self.refuse_to_overwrite(records)?;
        write_jsonl(&self.out, records)?;
        if !self.quiet {
            let mut out = std::io::stdout().lock();
            writeln!(out, "{} prompts in {}", records.len(), self.out.display())?;
        }
        Ok(())
    }

    /// Somebody's file is not lost to a mistyped name; the same prompts may be made again.
    fn refuse_to_overwrite(&self, records: &[Map<String, Value>]) -> anyhow::Result<()> {
        refuse_to_overwrite(&self.out, self.force, || {
            Dataset::open(&self.out.to_string_lossy()).is_ok_and(|old| {
                let pairs = old.records.iter().zip(records);
                old.records.len() == records.len()
                    && pairs.into_iter().all(|(old, new)| old.columns == *new)
            })
        })
    }
}
