//! Whose rows say what of a context matters, where the question comes after it.

use std::fmt;

/// Whose attention the scorers of a run look from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum QuerySource {
    /// The last rows of what is prefilled, whatever they are.
    #[default]
    Context,
    /// A question that nobody asked, fed behind the context and taken back.
    Dummy {
        /// As it was written.
        text: String,
        /// Its tokens.
        ids: Vec<u32>,
    },
    /// The very question that will be asked: nothing can be served so, it says what a right guess would be worth.
    Question,
}

impl fmt::Display for QuerySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Context => f.write_str("context"),
            Self::Dummy { text, .. } => write!(f, "dummy: {}", text.trim()),
            Self::Question => f.write_str("question"),
        }
    }
}
