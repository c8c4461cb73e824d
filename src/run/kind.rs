//! What a kind of run leaves behind, and how messages call it.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Result;

/// One kind of run: a line for each verb that fills a folder.
#[derive(Debug)]
pub struct RunKind {
    /// What the folder is: "profile".
    pub noun: &'static str,
    /// The command that makes one: "kvprof profile".
    pub made_with: &'static str,
    /// Other commands that make one.
    pub or_made_with: &'static [&'static str],
    /// The command that draws one, to be followed by the folder.
    pub drawn_with: &'static str,
    /// File names of its tables, without ending; see [`RunSettings::tables`] for those of one run.
    pub tables: &'static [&'static str],
    /// Version of the folder's layout; readers refuse others.
    pub schema: u32,
    /// Fields of its `meta.json` in order; those that end on `?` may be missing.
    pub fields: &'static str,
}

impl RunKind {
    /// Whether a command makes one.
    pub(super) fn is_made_by(&self, command: &str) -> bool {
        self.made_with == command || self.or_made_with.contains(&command)
    }

    /// The noun after its article.
    pub(super) fn a(&self) -> String {
        let vowel = self.noun.starts_with(['a', 'e', 'i', 'o']);
        format!("{} {}", if vowel { "an" } else { "a" }, self.noun)
    }

    /// Names of the fields of `meta.json` in order, and whether each must be there.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&'static str, bool)> {
        let words = self.fields.split_whitespace();
        words.map(|word| match word.strip_suffix('?') {
            Some(name) => (name, false),
            None => (word, true),
        })
    }
}

/// The settings of one kind of run: what its record holds beside maker, model and data.
pub trait RunSettings: Clone + Debug + Default + Serialize + DeserializeOwned {
    /// The kind.
    const KIND: &'static RunKind;

    /// File names of the tables that a run with these settings fills, without ending.
    fn tables(&self) -> &'static [&'static str] {
        Self::KIND.tables
    }

    /// Refuses settings that no run can have.
    ///
    /// Errors: those of the settings.
    fn check(&self) -> Result<()> {
        Ok(())
    }
}
