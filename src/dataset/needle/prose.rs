//! What haystacks and needles are made of: `datasets/needle.json`.

use std::path::Path;
use std::sync::LazyLock;

use serde::Deserialize;

use crate::error::{Error, Result};

const SOURCE: &str = include_str!("../../../datasets/needle.json");

static PROSE: LazyLock<serde_json::Result<Prose>> = LazyLock::new(|| serde_json::from_str(SOURCE));

/// Words and patterns, in the notation of [`crate::dataset::text::fill`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Prose {
    /// First and second halves of the names of places, and what has a pass code there.
    #[serde(borrow)]
    pub(super) first: Vec<&'static str>,
    pub(super) second: Vec<&'static str>,
    pub(super) holders: Vec<&'static str>,
    /// The needle, and the question that asks for it.
    pub(super) sentence: &'static str,
    pub(super) question: &'static str,
    /// Who does something, and when: the slots of scenes.
    pub(super) who: Vec<&'static str>,
    pub(super) when: Vec<&'static str>,
    /// Everyday scenes without names, numbers or codes; a paragraph stays within one of them.
    pub(super) scenes: Vec<Vec<&'static str>>,
}

impl Prose {
    pub(super) fn load() -> Result<&'static Self> {
        let problem = |e| Error::format(Path::new("datasets/needle.json"), format!("{e}"));
        PROSE.as_ref().map_err(problem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::text::slots;

    #[test]
    fn the_file_is_read_and_every_slot_is_known() {
        let prose = Prose::load().unwrap();
        let used = |text| slots(text).collect::<Vec<_>>();
        assert_eq!(used(prose.sentence), ["name", "code"]);
        assert_eq!(used(prose.question), ["name"]);
        for pattern in prose.scenes.iter().flatten() {
            assert!(
                used(pattern)
                    .iter()
                    .all(|slot| ["who", "when"].contains(slot)),
                "{pattern}"
            );
            assert_eq!(
                pattern.matches('{').count(),
                used(pattern).len(),
                "{pattern}"
            );
            assert_eq!(
                pattern.matches('[').count(),
                pattern.matches(']').count(),
                "{pattern}"
            );
        }
    }
}
