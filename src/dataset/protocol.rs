//! When the question comes: with the context, or after the cache of the context was cut.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// What a cache is cut from: the whole prompt, or its context alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// Context and question are prefilled together, and what is cut has seen both.
    #[default]
    QuestionKnown,
    /// The context alone is prefilled and cut; question and template tail are fed to what is left, and stay whole.
    ///
    /// One cut serves every question that is asked about the same context.
    QuestionAfter,
}

impl Protocol {
    /// Both, in the order of their names in help and errors.
    pub const ALL: [Self; 2] = [Self::QuestionKnown, Self::QuestionAfter];

    /// Name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::QuestionKnown => "question-known",
            Self::QuestionAfter => "question-after",
        }
    }

    /// Its name in files, where the protocol that needs no name has none.
    pub fn in_files(self) -> Option<String> {
        (self != Self::default()).then(|| self.name().to_owned())
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Protocol {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|p| p.name() == text);
        found.ok_or_else(|| Error::unknown("protocol", text, Self::ALL.map(Self::name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for protocol in Protocol::ALL {
            assert_eq!(protocol.to_string().parse::<Protocol>().unwrap(), protocol);
        }
        assert_eq!(Protocol::default().in_files(), None);
        let problem = "question-later".parse::<Protocol>().unwrap_err();
        assert!(problem.to_string().contains("question-after"));
    }
}
