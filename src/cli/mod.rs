//! Verbs and their arguments; one file per verb.

mod dataset;
mod generate;
mod list;
mod load;
mod plot;
mod profile;
mod summary;

use clap::{Parser, Subcommand};

/// Measure how much KV cache each layer and head of a language model needs.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Prefill prompts and measure every head: MBA, LMBA, LMBO, curves
    Profile(Box<profile::Arguments>),
    /// Draw a chart from one or several profiles, as SVG and PNG
    Plot(plot::Arguments),
    /// Answer a prompt from the full cache
    Generate(Box<generate::Arguments>),
    /// Generate prompts of our own
    Dataset(dataset::Arguments),
    /// List what can be named on the command line
    List(list::Arguments),
}

impl Arguments {
    /// Runs the verb.
    pub fn run(self) -> anyhow::Result<()> {
        match self.verb {
            Verb::Profile(arguments) => arguments.run(),
            Verb::Plot(arguments) => arguments.run(),
            Verb::Generate(arguments) => arguments.run(),
            Verb::Dataset(arguments) => arguments.run(),
            Verb::List(arguments) => arguments.run(),
        }
    }
}
