//! Terms that somebody must accept before a model is fetched for the first time.

use super::FetchOptions;
use crate::error::{Error, Result};

/// Terms of use of a model's weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The word that accepts them.
    pub key: &'static str,
    /// What they are called.
    pub name: &'static str,
    /// Where they can be read.
    pub address: &'static str,
}

/// The variable with the accepted terms, separated by commas.
const ACCEPTED: &str = "KVPROF_ACCEPT_TERMS";

/// Google's terms for all Gemma models.
pub(super) const GEMMA: Terms = Terms {
    key: "gemma",
    name: "Gemma Terms of Use",
    address: "https://ai.google.dev/gemma/terms",
};

/// Shows the terms of a model that is about to be fetched.
///
/// Errors: [`Error::TermsNotAccepted`].
pub(super) fn check(
    model: &str,
    terms: Option<Terms>,
    options: &FetchOptions,
    progress: &mut dyn FnMut(&str),
) -> Result<()> {
    let Some(terms) = terms else {
        return Ok(());
    };
    let from_environment = std::env::var(ACCEPTED).unwrap_or_default();
    let mut accepted = (options.accepted_terms.iter().map(String::as_str))
        .chain(from_environment.split(','))
        .map(str::trim);
    if !accepted.any(|key| key == terms.key) {
        return Err(Error::TermsNotAccepted {
            model: model.to_owned(),
            terms: terms.name.to_owned(),
            address: terms.address.to_owned(),
            key: terms.key.to_owned(),
        });
    }
    let (terms, address) = (terms.name, terms.address);
    progress(&format!(
        "{model} comes under the {terms} ({address}), which you accept"
    ));
    Ok(())
}
