//! What the optimal strategies share: what there is to spend on curves, and a layer's tokens over its heads.

use super::geometry::Geometry;
use super::request::Request;
use super::spend::Purse;

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
