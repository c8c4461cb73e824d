//! The kvprof command line: parse, call the library, print, and an exit code.

mod cli;

use std::io::Write;
use std::process::ExitCode;

use clap::{Command, CommandFactory, FromArgMatches};

fn main() -> ExitCode {
    match arguments().run() {
        Ok(()) => ExitCode::SUCCESS,
        // A reader that has seen enough, such as `head`, is no failure.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell where this fails too.
            let _ = writeln!(std::io::stderr(), "error: {}", chain(&error));
            ExitCode::from(1)
        }
    }
}

/// The command line; `--limit -1` is a number out of range, not an option that nobody knows.
fn arguments() -> cli::CommandLine {
    let command = with_negative_numbers(cli::CommandLine::command());
    let parsed = command.clone().get_matches();
    cli::CommandLine::from_arg_matches(&parsed)
        .unwrap_or_else(|problem| problem.format(&mut command.clone()).exit())
}

fn with_negative_numbers(command: Command) -> Command {
    let command = command.mut_subcommands(with_negative_numbers);
    command.allow_negative_numbers(true)
}

/// All causes in one line, leaving out those that the text before them already says.
fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
    })
}
