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
