//! Chance that gives the same picks from the same seed on every machine and in every version.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A seeded source of picks.
#[derive(Clone, Debug)]
pub(super) struct Dice(ChaCha8Rng);

impl Dice {
    /// Picks for question `stream` of `seed`, independent of all other questions.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Self(rng)
    }

    /// A number from 0 to `bound - 1`; 0 if `bound` is 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        // The high half of the product is uniform to within bound / 2^64, without a division.
        ((u128::from(self.0.next_u64()) * bound as u128) >> 64) as usize
    }

    /// A number from `low` to `high`, both included.
    pub(super) fn between(&mut self, low: i32, high: i32) -> i32 {
        let width = usize::try_from(i64::from(high) - i64::from(low) + 1).unwrap_or(1);
        low + i32::try_from(self.below(width)).unwrap_or(0)
    }

    /// Whether something that happens `percent` times in a hundred happens.
    pub(super) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of the words of a list written in this program; no dice are thrown for a single one.
    pub(super) fn word(&mut self, words: &[&'static str]) -> &'static str {
        match words {
            [] => "",
            [only] => only,
            _ => words[self.below(words.len())],
        }
    }

    /// One of `items`, if there is any.
    pub(super) fn pick<T: Copy>(&mut self, items: &[T]) -> Option<T> {
        items.get(self.below(items.len())).copied()
    }

    /// Puts `items` in random order.
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Dice;

    #[test]
    fn picks_are_the_same_everywhere() {
        let mut dice = Dice::new(1, 0);
        let picks: Vec<_> = (0..8).map(|_| dice.below(100)).collect();
        assert_eq!(picks, PICKS);
        let mut other = Dice::new(1, 1);
        assert_ne!((0..8).map(|_| other.below(100)).collect::<Vec<_>>(), PICKS);
    }

    const PICKS: [usize; 8] = [40, 8, 59, 21, 28, 71, 46, 15];

    #[test]
    fn bounds_hold() {
        let mut dice = Dice::new(7, 3);
        assert_eq!(dice.below(0), 0);
        for _ in 0..1000 {
            assert!((-2..=3).contains(&dice.between(-2, 3)));
            assert!(!dice.chance(0) && dice.chance(100));
        }
        let mut items: Vec<_> = (0..50).collect();
        dice.shuffle(&mut items);
        assert_ne!(items, (0..50).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..50).collect::<Vec<_>>());
    }
}
