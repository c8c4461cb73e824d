//! What the optimal strategies share: how far curves reach, what there is to spend, and a layer's tokens over its heads.

use super::curve::Curve;
use super::measures::Measures;
use super::request::{Request, Targets};
use super::spend::{Purse, best_amounts};
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

/// The best targets by curves that `heads` KV heads share each: evenly, with what is left over to the lower ones.
pub(super) fn best_targets(request: &Request<'_>, curves: &[Curve], heads: usize) -> Targets {
    let purse = Purse {
        total: request.total(),
        floor: request.lowest(),
        cap: request.tokens,
        heads,
    };
    let amounts = best_amounts(curves, purse).into_iter();
    let of_heads = |n: usize| (0..heads).map(move |h| n / heads + usize::from(h < n % heads));
    request.targets(amounts.flat_map(of_heads).map(|n| n as f64).collect())
}
