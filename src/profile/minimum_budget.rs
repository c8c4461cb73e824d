//! MBA: the smallest number of keys that keeps a share of a vector's attention mass.

/// The keys of an attention vector in the order in which a budget keeps them.
///
/// Paper: ZigZagKV, arXiv 2412.09036 (MBA). Differs: sums in float64, ties by lower key index.
/// Shapes: T keys.
pub struct Ranked {
    /// Key indices, largest attention first.
    pub order: Vec<u32>,
    /// Attention in that order.
    pub sorted: Vec<f64>,
    /// Running sums of `sorted`.
    pub cumulative: Vec<f64>,
}

impl Ranked {
    /// Ranks a non-negative vector.
    pub fn new(attention: &[f64]) -> Self {
        // Bits of non-negative floats order as the floats do; inverting them sorts downwards.
        let keys = attention.iter().enumerate();
        let mut keys: Vec<(u64, u32)> = keys.map(|(i, a)| (!a.to_bits(), i as u32)).collect();
        keys.sort_unstable();
        let sorted: Vec<f64> = keys.iter().map(|k| f64::from_bits(!k.0)).collect();
        Self {
            order: keys.iter().map(|k| k.1).collect(),
            cumulative: running_sums(&sorted),
            sorted,
        }
    }

    /// Sum of the vector.
    pub fn total(&self) -> f64 {
        self.cumulative.last().copied().unwrap_or(0.0)
    }

    /// The smallest b whose b largest entries hold `threshold` of the total.
    ///
    /// Units: keys, 1 to T; 0 only for an empty vector.
    pub fn minimum_budget(&self, threshold: f64) -> usize {
        first_reaching(&self.cumulative, threshold * self.total())
    }

    /// Share of the total that the `budget` largest entries hold.
    pub fn retained_mass(&self, budget: usize) -> f64 {
        match budget.min(self.cumulative.len()) {
            0 => 0.0,
            b => self.cumulative[b - 1] / self.total(),
        }
    }
}

fn running_sums(sorted: &[f64]) -> Vec<f64> {
    let mut sum = 0.0;
    let add = |a: &f64| {
        sum += a;
        sum
    };
    sorted.iter().map(add).collect()
}

/// Number of ascending `sums` below `target`, plus one; never more than there are.
fn first_reaching(sums: &[f64], target: f64) -> usize {
    (sums.partition_point(|&s| s < target) + 1).min(sums.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mba(attention: &[f64], threshold: f64) -> usize {
        Ranked::new(attention).minimum_budget(threshold)
    }

    #[test]
    fn uniform_row_needs_its_share_of_keys() {
        assert_eq!(mba(&[0.1; 10], 0.9), 9);
        assert_eq!(mba(&[0.125; 8], 0.5), 4);
        assert_eq!(mba(&[0.125; 8], 1.0), 8);
        assert_eq!(mba(&[0.125; 8], 0.51), 5);
    }

    #[test]
    fn one_hot_row_needs_one_key() {
        assert_eq!(mba(&[0.0, 0.0, 1.0, 0.0], 0.99), 1);
        assert_eq!(mba(&[1.0], 0.9), 1);
        assert_eq!(mba(&[], 0.9), 0);
    }

    #[test]
    fn mass_is_relative_to_the_rows_own_sum() {
        assert_eq!(mba(&[5.0, 3.0, 2.0], 0.8), 2);
        assert_eq!(mba(&[5.0, 3.0, 2.0], 0.81), 3);
        assert_eq!(mba(&[5.0, 3.0, 2.0], 0.0), 1);
    }

    #[test]
    fn ties_go_to_the_lower_key() {
        let ranked = Ranked::new(&[0.2, 0.3, 0.2, 0.3]);
        assert_eq!(ranked.order, [1, 3, 0, 2]);
        assert_eq!(ranked.retained_mass(0), 0.0);
        assert!((ranked.retained_mass(2) - 0.6).abs() < 1e-15);
        assert_eq!(ranked.retained_mass(9), 1.0);
    }
}
