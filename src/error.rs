//! Every way a library call can fail, worded for the person at the terminal.

use std::path::{Path, PathBuf};

/// Result of a library call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, with the value, the bound and the way out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused a file operation.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done: "read", "create", "rename".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's own reason.
        source: std::io::Error,
    },
    /// A file's content breaks its format.
    #[error("{}{}: {problem}", path.display(), line.map(|n| format!(", line {n}")).unwrap_or_default())]
    Format {
        /// The file.
        path: PathBuf,
        /// 1-based line, where lines mean something.
        line: Option<usize>,
        /// What is wrong and what was expected.
        problem: String,
    },
    /// A name that no registry knows.
    #[error("unknown {kind} '{name}'; known: {known}")]
    UnknownName {
        /// Kind of thing: "model", "chart".
        kind: &'static str,
        /// What was asked for.
        name: String,
        /// The names that exist, comma-separated.
        known: String,
    },
    /// Something real that this program does not handle.
    #[error("{what} '{found}' is not supported; supported: {supported}")]
    Unsupported {
        /// Kind of thing: "architecture", "tensor type".
        what: &'static str,
        /// What was found.
        found: String,
        /// What would work.
        supported: String,
    },
    /// An argument outside its bounds.
    #[error("{what} is {value}, but {bound}")]
    Invalid {
        /// The argument, as the user knows it.
        what: String,
        /// The value given.
        value: String,
        /// The bound, and the way out.
        bound: String,
    },
    /// A prompt that the model's context cannot hold.
    #[error(
        "prompt {prompt} has {tokens} tokens, more than the model's context of {context}; \
         cut long prompts in the middle with --max-prompt-tokens {context}"
    )]
    PromptTooLong {
        /// Index or id of the prompt.
        prompt: String,
        /// Its length.
        tokens: usize,
        /// The model's limit.
        context: usize,
    },
    /// Output that already exists and does not belong to this run.
    #[error("{} {problem}", path.display())]
    OutputExists {
        /// The output folder or file.
        path: PathBuf,
        /// Why it is in the way, and the way out.
        problem: String,
    },
    /// A model that could not be fetched.
    #[error("cannot fetch {what}: {problem}")]
    Fetch {
        /// The model, as the user named it.
        what: String,
        /// Reason and way out.
        problem: String,
    },
    /// A model whose terms of use nobody has accepted.
    #[error(
        "{model} comes under the {terms} ({address}), which must be accepted before it is fetched; read them, \
         then pass --accept-terms {key} or set KVPROF_ACCEPT_TERMS={key}"
    )]
    TermsNotAccepted {
        /// The model, as the user named it.
        model: String,
        /// What the terms are called.
        terms: String,
        /// Where they can be read.
        address: String,
        /// The word that accepts them.
        key: String,
    },
    /// A number that should be finite is not.
    #[error("{place} holds a value that is not finite (NaN or infinity): {advice}")]
    NotFinite {
        /// Where it was found.
        place: String,
        /// Likely cause and way out.
        advice: String,
    },
    /// A chart could not be drawn or encoded.
    #[error("cannot draw the chart: {problem}")]
    Drawing {
        /// The drawing library's reason.
        problem: String,
    },
    /// A tensor operation failed.
    #[error("tensor operation failed: {0}")]
    Candle(#[from] candle_core::Error),
    /// A table could not be built, read or written.
    #[error("{}: {source}", path.display())]
    Table {
        /// The Parquet file.
        path: PathBuf,
        /// Polars' reason.
        source: polars::error::PolarsError,
    },
}

impl Error {
    /// An [`Error::Io`] for `action` on `path`.
    pub fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }

    /// An [`Error::Format`] without a line.
    pub fn format(path: &Path, problem: impl Into<String>) -> Self {
        Self::Format {
            path: path.to_owned(),
            line: None,
            problem: problem.into(),
        }
    }

    /// An [`Error::Format`] at a 1-based line.
    pub fn format_at(path: &Path, line: usize, problem: impl Into<String>) -> Self {
        Self::Format {
            path: path.to_owned(),
            line: Some(line),
            problem: problem.into(),
        }
    }

    /// An [`Error::Invalid`].
    pub fn invalid(
        what: impl Into<String>,
        value: impl ToString,
        bound: impl Into<String>,
    ) -> Self {
        Self::Invalid {
            what: what.into(),
            value: value.to_string(),
            bound: bound.into(),
        }
    }

    /// An [`Error::UnknownName`] listing `known`.
    pub fn unknown<'a>(
        kind: &'static str,
        name: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let known: Vec<_> = known.into_iter().collect();
        Self::UnknownName {
            kind,
            name: name.to_owned(),
            known: known.join(", "),
        }
    }
}
