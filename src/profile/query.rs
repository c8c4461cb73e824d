//! The words that column names are made of.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Which query's attention a measurement is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Query {
    /// The last prompt token.
    Last,
    /// The mean over the observation window.
    #[default]
    Pooled,
    /// Every row of the window by itself, averaged afterwards.
    Rows,
}

impl Query {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Last, Self::Pooled, Self::Rows];

    /// The name in column names and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Last => "last",
            Self::Pooled => "pooled",
            Self::Rows => "rows",
        }
    }
}

impl FromStr for Query {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let known = Self::ALL.map(Self::name);
        let found = Self::ALL.into_iter().find(|q| q.name() == name);
        found.ok_or_else(|| Error::unknown("query", name, known))
    }
}

/// One of the two vectors of every head that curves and outputs are measured for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vector {
    /// The row of the last prompt token.
    Last,
    /// The mean over the observation window.
    Pooled,
}

impl Vector {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Last, Self::Pooled];

    /// The name in column names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Last => Query::Last.name(),
            Self::Pooled => Query::Pooled.name(),
        }
    }
}

/// How an output with some keys is compared with the output with all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutputMeasure {
    /// 1 − cos(y, ŷ).
    #[default]
    Cosine,
    /// ‖y − ŷ‖ / ‖y‖.
    RelativeL2,
}

impl OutputMeasure {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Cosine, Self::RelativeL2];

    /// The name in column names: that of the stored value, cos or the relative L2 error.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cosine => "cos",
            Self::RelativeL2 => "l2",
        }
    }
}

/// Which crossing of the cosine threshold counts as LMBO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Crossing {
    /// The smallest budget that reaches it.
    #[default]
    First,
    /// The smallest budget from which on it is never lost again.
    Stable,
}

impl Crossing {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::First, Self::Stable];

    /// The name in column names and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Stable => "stable",
        }
    }
}

impl FromStr for Crossing {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let known = Self::ALL.map(Self::name);
        let found = Self::ALL.into_iter().find(|c| c.name() == name);
        found.ok_or_else(|| Error::unknown("crossing", name, known))
    }
}
