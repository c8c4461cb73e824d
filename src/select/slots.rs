//! Slots of a cache's heads, and how they come from a device.

use crate::error::{Error, Result};

/// Slots to keep, ascending.
///
/// Shapes: `[kv_head][kept]`.
pub type Slots = Vec<Vec<u32>>;

/// The slots of one layer from what [`crate::compute::device::largest_entries`] found among those from `first` on.
pub(super) fn slots_of(found: &[u32], heads: usize, first: usize) -> Result<Slots> {
    let (head, mut slots) = found.split_at(1 + heads);
    if head[0] != 0 {
        return Err(Error::NotFinite {
            place: "a token's score".into(),
            advice: "attention or keys hold NaN; the weights may be damaged".into(),
        });
    }
    let of_head = |&count: &u32| {
        let (own, after) = slots.split_at(count as usize);
        slots = after;
        own.iter().map(|slot| slot + first as u32).collect()
    };
    Ok(head[1..].iter().map(of_head).collect())
}
