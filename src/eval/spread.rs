//! Repeats of one measurement: the middle one, and how far they lie apart.

use serde::{Deserialize, Serialize};

/// Several values of one thing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RepeatSpread {
    /// The middle one, or the mean of the middle two.
    pub median: f64,
    /// The smallest.
    pub least: f64,
    /// The largest.
    pub most: f64,
}

impl RepeatSpread {
    /// `None` of nothing.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let upper = *values.get(values.len() / 2)?;
        let lower = match values.len() % 2 {
            1 => upper,
            _ => values[values.len() / 2 - 1],
        };
        Some(Self {
            median: (lower + upper) / 2.0,
            least: *values.first()?,
            most: *values.last()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_by_hand() {
        let spread = RepeatSpread::of([4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!((spread.median, spread.least, spread.most), (2.5, 1.0, 4.0));
        assert_eq!(RepeatSpread::of([7.0]).unwrap().median, 7.0);
        assert!(RepeatSpread::of([]).is_none());
    }
}
