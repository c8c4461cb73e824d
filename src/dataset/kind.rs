//! The formats of prompts, recognised from their columns.

use std::fmt;

use serde_json::{Map, Value};

/// The formats a record can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A question about a long context, with accepted answers.
    LongBench,
    /// A synthetic task whose `input` is the whole prompt.
    Ruler,
    /// A record of lines, one of which is asked for; `prompt` is the whole prompt.
    LongEval,
    /// A question about facts scattered in a book.
    Babilong,
    /// A prompt without an answer.
    Prompt,
    /// Token ids taken as they are.
    Ids,
}

impl Kind {
    /// Every format, in the order in which they are tried.
    pub const ALL: [Self; 6] = [
        Self::LongEval,
        Self::LongBench,
        Self::Ruler,
        Self::Babilong,
        Self::Ids,
        Self::Prompt,
    ];

    /// The columns that a record must have to be of this format.
    pub fn columns(self) -> &'static [&'static str] {
        match self {
            Self::LongBench => &["input", "context", "answers"],
            Self::Ruler => &["input", "outputs"],
            Self::LongEval => &["prompt", "expected_number"],
            Self::Babilong => &["input", "question", "target"],
            Self::Prompt => &["prompt"],
            Self::Ids => &["ids"],
        }
    }

    /// The first format whose columns are all among `columns`.
    pub fn recognise(columns: &Map<String, Value>) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.columns().iter().all(|c| columns.contains_key(*c)))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LongBench => "LongBench",
            Self::Ruler => "RULER",
            Self::LongEval => "LongEval",
            Self::Babilong => "BABILong",
            Self::Prompt => "prompt",
            Self::Ids => "token ids",
        })
    }
}
