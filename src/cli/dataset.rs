//! `kvprof dataset`: prompts of our own, as JSONL.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::Subcommand;
use kvprof::dataset::wikimqa_style::{self, Options};
use kvprof::dataset::{Dataset, write_jsonl};
use serde_json::{Map, Value};

use super::load;
use super::output_file::refuse_to_overwrite;

/// Arguments of `kvprof dataset`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, Subcommand)]
enum Kind {
    /// Multi-hop questions over passages about an invented world, in LongBench's fields
    WikimqaStyle(WikimqaStyle),
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

impl Arguments {
    pub fn run(self) -> anyhow::Result<()> {
        match self.kind {
            Kind::WikimqaStyle(arguments) => arguments.run(),
        }
    }
}

impl WikimqaStyle {
    fn run(self) -> anyhow::Result<()> {
        let options = Options {
            questions: self.questions,
            tokens: self.tokens,
            seed: self.seed,
        };
        let tokenizer = load::tokenizer(&self.model, self.quiet)?;
        let count = |text: &str| tokenizer.encode(text).map(|ids| ids.len());
        let records = wikimqa_style::generate(&options, &count).context("generating prompts")?;
        self.refuse_to_overwrite(&records)?;
        write_jsonl(&self.out, &records)?;
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
