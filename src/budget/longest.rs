//! The longest prompt that was measured.

use crate::error::{Error, Result};
use crate::profile::Profile;

/// The longest prompt of a profile: the reference length at which nothing measured is cut off.
///
/// Errors: [`Error::Invalid`] for a profile without prompts.
pub fn longest_prompt(profile: &Profile) -> Result<usize> {
    let tokens = profile.layers.counts("tokens")?.iter();
    longest(tokens.map(|&t| t as usize))
}

pub(super) fn longest(prompts: impl Iterator<Item = usize>) -> Result<usize> {
    prompts.max().ok_or_else(|| {
        let bound = "at least one is needed: profile a data set that has prompts";
        Error::invalid("number of prompts in the profile", 0, bound)
    })
}
