//! Verbs and their arguments; one file per verb.

mod allocate;
mod bench;
mod bench_table;
mod certified_plan;
mod certify;
mod certify_report;
mod compare;
mod compress;
mod convert;
mod cut_short;
mod dataset;
mod eval;
mod eval_table;
mod eval_work;
mod generate;
mod generate_report;
mod hitrate;
mod hitrate_table;
mod inspect;
mod inspect_table;
mod inspection;
mod jobs;
mod list;
mod load;
mod long_run;
mod measure;
mod measure_options;
mod memory_need;
mod method_files;
mod needle_grid;
mod one_prompt;
mod output_file;
mod parameters;
mod plan_report;
mod plan_table;
mod plot;
mod profile;
mod profile_estimate;
mod profile_estimate_table;
mod profile_need;
mod profile_need_table;
mod profile_report;
mod profile_work;
mod prompts;
mod query_source;
mod reference;
mod report;
mod search;
mod search_report;
mod speed;
mod summary;
mod text_table;
mod trace;
mod trace_table;
mod utility;

use std::collections::BTreeSet;
use std::io::Write;

use clap::{Parser, Subcommand, ValueEnum};
use serde::Serialize;

/// Measure how much KV cache each layer and head of a language model needs.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
pub struct CommandLine {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Prefill prompts and measure every head: MBA, LMBA, LMBO, curves
    Profile(Box<profile::ProfileArguments>),
    /// Measure attention that was captured elsewhere, as a profile
    Measure(Box<measure::CapturedArguments>),
    /// Spread a budget over layers and KV heads, as a plan
    Allocate(Box<allocate::AllocateArguments>),
    /// Read and write the budgets of kvpress, LU-KV and HeadKV
    Convert(Box<convert::ConvertArguments>),
    /// Draw a chart from profiles, plans or measurements, as SVG and PNG
    Plot(plot::PlotArguments),
    /// Compare two profiles of the same prompts: another device, element type or quantisation
    Compare(compare::CompareArguments),
    /// Put an evaluation on one self-contained HTML page
    Report(report::ReportArguments),
    /// Answer a prompt, from the full cache or from a cut one
    Generate(Box<generate::GenerateArguments>),
    /// Try methods and budgets on a data set: one prefill per prompt, paired statistics
    Eval(Box<eval::EvalArguments>),
    /// Search for the plan that changes least what the model says next, and see how much of the gain holds elsewhere
    Search(Box<search::SearchArguments>),
    /// Measure what keeping more of every KV head is worth, as LU-KV's budget curve
    Utility(Box<utility::UtilityArguments>),
    /// Find the smallest budget at which what a method loses is bounded on new prompts
    Certify(certify::CertifyArguments),
    /// Test SnapKV's two observations: which keys will matter is known before generation, and stays so
    Hitrate(Box<hitrate::HitRateArguments>),
    /// Time decoding and count bytes: no cache, the full one, and budgets
    Speed(Box<speed::SpeedArguments>),
    /// Follow methods step by step through a long text: bytes, rows, and time per token
    Trace(Box<trace::TraceArguments>),
    /// Time prefill, profiling, decoding and a grid, as ratios within one run and against the machine's limits
    Bench(bench::BenchArguments),
    /// Tell what a model is and what its cache takes, from its header alone
    Inspect(inspect::InspectArguments),
    /// Generate prompts of our own
    Dataset(dataset::DatasetArguments),
    /// List what can be named on the command line
    List(list::ListArguments),
}

impl CommandLine {
    /// Runs the verb.
    pub fn run(self) -> anyhow::Result<()> {
        match self.verb {
            Verb::Profile(arguments) => arguments.run(),
            Verb::Measure(arguments) => arguments.run(),
            Verb::Allocate(arguments) => arguments.run(),
            Verb::Convert(arguments) => arguments.run(),
            Verb::Plot(arguments) => arguments.run(),
            Verb::Compare(arguments) => arguments.run(),
            Verb::Report(arguments) => arguments.run(),
            Verb::Generate(arguments) => arguments.run(),
            Verb::Eval(arguments) => arguments.run(),
            Verb::Search(arguments) => arguments.run(),
            Verb::Utility(arguments) => arguments.run(),
            Verb::Certify(arguments) => arguments.run(),
            Verb::Hitrate(arguments) => arguments.run(),
            Verb::Speed(arguments) => arguments.run(),
            Verb::Trace(arguments) => arguments.run(),
            Verb::Bench(arguments) => arguments.run(),
            Verb::Inspect(arguments) => arguments.run(),
            Verb::Dataset(arguments) => arguments.run(),
            Verb::List(arguments) => arguments.run(),
        }
    }
}

/// The command line that was typed, fit to be typed again, without the flags of `left_out`.
fn command_line(left_out: &[&str]) -> String {
    let words = std::env::args_os().skip(1);
    let words = words.map(|word| word.to_string_lossy().into_owned());
    let kept = words.filter(|word| !left_out.contains(&word.as_str()));
    kept.fold("kvprof".to_owned(), |line, word| {
        format!("{line} {}", quoted(&word))
    })
}

/// Numbers in ascending order, each once.
fn sorted(numbers: &[usize]) -> Vec<usize> {
    let all: BTreeSet<usize> = numbers.iter().copied().collect();
    all.into_iter().collect()
}

/// Prints a value as indented JSON.
fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    Ok(writeln!(std::io::stdout().lock(), "{text}")?)
}

/// The name of a value on the command line.
fn name_of(value: &impl ValueEnum) -> String {
    let value = value.to_possible_value();
    value.map_or(String::new(), |value| value.get_name().to_owned())
}

/// "1 prompt", "12 prompts".
pub fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// A word as a POSIX shell reads it back.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@+%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_would_split_them() {
        assert_eq!(quoted("plots/lmba-0.9"), "plots/lmba-0.9");
        assert_eq!(quoted("my file"), "'my file'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
        assert_eq!(quoted(""), "''");
    }
}
