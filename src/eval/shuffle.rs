//! Order by chance, the same for the same seed on every machine.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;

/// Puts `items` in an order of chance.
pub(super) fn shuffle<T>(items: &mut [T], rng: &mut ChaCha8Rng) {
    for last in (1..items.len()).rev() {
        // The high half of the product is uniform to within n / 2^32, without a division.
        let place = (u64::from(rng.next_u32()) * (last as u64 + 1)) >> 32;
        items.swap(last, place as usize);
    }
}
