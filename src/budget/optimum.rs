//! What the optimal strategies share: how far curves reach, what there is to spend, and a layer's tokens over its heads.

use super::geometry::Geometry;
use super::measures::Measures;
use super::request::Request;
use super::spend::Purse;
use crate::error::{Error, Result};

/// The measurements, where their curves reach to the request's prompt length.
///
/// A curve is constant after its own prompt's length: an optimum beyond the longest would take further tokens for
/// worthless.
///
/// Errors: [`Error::Invalid`] with both lengths, and for an absent profile.
pub(super) fn measured_to_the_end<'a>(request: &Request<'a>) -> Result<&'a Measures> {
    let measures = request.measured()?;
    let longest = measures.longest_prompt()?;
    if request.tokens <= longest {
        return Ok(measures);
    }
    let bound = format!(
        "the profile's longest prompt has {longest} tokens and nothing is known beyond: profile longer \
         prompts, or lower --tokens (in eval, --max-prompt-tokens)"
    );
    let value = format!("{} tokens", request.tokens);
    Err(Error::invalid("prompt length", value, bound))
}

/// What a request leaves to spend on curves that `heads` KV heads share.
pub(super) fn purse(request: &Request<'_>, heads: usize) -> Purse {
    Purse {
        total: request.total(),
        floor: request.lowest(),
        cap: request.tokens,
        heads,
    }
}

/// Each layer's tokens over its KV heads, what is left over to the lower ones.
pub(super) fn evenly(geometry: &Geometry, layers: &[usize]) -> Vec<usize> {
    let heads = geometry.kv_heads;
    layers
        .iter()
        .flat_map(|n| (0..heads).map(move |h| n / heads + usize::from(h < n % heads)))
        .collect()
}
