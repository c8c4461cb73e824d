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
        let mut keys: Vec<(u64, u32)> = attention
            .iter()
            .enumerate()
            .map(|(i, a)| (!a.to_bits(), i as u32))
            .collect();
        keys.sort_unstable();
        let order: Vec<u32> = keys.iter().map(|k| k.1).collect();
        let sorted: Vec<f64> = keys.iter().map(|k| f64::from_bits(!k.0)).collect();
        let cumulative = running_sums(&sorted);
        Self {
            order,
            sorted,
            cumulative,
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
    sorted
        .iter()
        .map(|a| {
            sum += a;
            sum
        })
        .collect()
}

/// Number of ascending `sums` below `target`, plus one; never more than there are.
fn first_reaching(sums: &[f64], target: f64) -> usize {
    (sums.partition_point(|&s| s < target) + 1).min(sums.len())
}

/// MBA of float32 rows at several thresholds, without ranking them.
///
/// Attention is counted and added up by the leading bits of its value: the bucket in which a threshold is
/// reached is the only one whose keys are sorted.
/// Differs: equal to [`Ranked::minimum_budget`] on the same row, but for sums that reach a threshold to the
/// last bits.
pub struct RowBudgets {
    /// Thresholds with their places, ascending.
    thresholds: Vec<(f64, usize)>,
    counts: Vec<u32>,
    sums: Vec<f64>,
    bucket: Vec<u32>,
}

/// Bits of a float that do not choose its bucket: sign, exponent and three bits of the mantissa do.
const WITHIN_BUCKET: u32 = 20;

/// Buckets of the non-negative floats.
const BUCKETS: usize = 1 << (31 - WITHIN_BUCKET);

impl RowBudgets {
    /// For rows that are measured at `thresholds`.
    pub fn new(thresholds: &[f64]) -> Self {
        let mut thresholds: Vec<_> = thresholds.iter().copied().zip(0..).collect();
        thresholds.sort_by(|a, b| a.0.total_cmp(&b.0));
        Self {
            thresholds,
            counts: vec![0; BUCKETS],
            sums: vec![0.0; BUCKETS],
            bucket: Vec::new(),
        }
    }

    /// The budgets of one row of finite, non-negative attention, one per threshold.
    ///
    /// Units: keys.
    pub fn measure(&mut self, row: &[f32]) -> Vec<u32> {
        self.counts.fill(0);
        self.sums.fill(0.0);
        for &a in row {
            let place = bucket(a);
            self.counts[place] += 1;
            self.sums[place] += f64::from(a);
        }
        let total: f64 = self.sums.iter().sum();
        let mut budgets = vec![0; self.thresholds.len()];
        let (mut place, mut kept, mut sum) = (BUCKETS - 1, 0, 0.0);
        for &(threshold, index) in &self.thresholds {
            let target = threshold * total;
            while place > 0 && (self.counts[place] == 0 || sum + self.sums[place] < target) {
                kept += self.counts[place];
                sum += self.sums[place];
                place -= 1;
            }
            let own = row.iter().filter(|a| bucket(**a) == place);
            self.bucket.clear();
            self.bucket.extend(own.map(|a| !a.to_bits()));
            self.bucket.sort_unstable();
            budgets[index] = reached(kept, sum, target, &self.bucket);
        }
        budgets
    }
}

fn bucket(attention: f32) -> usize {
    (attention.to_bits() >> WITHIN_BUCKET) as usize & (BUCKETS - 1)
}

/// Keys until `target`, of which `kept` give `sum` and the rest follow, largest first, as inverted bits.
fn reached(mut kept: u32, mut sum: f64, target: f64, rest: &[u32]) -> u32 {
    for bits in rest {
        if kept > 0 && sum >= target {
            break;
        }
        sum += f64::from(f32::from_bits(!bits));
        kept += 1;
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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

    #[test]
    fn rows_of_zeros_do_not_hang() {
        let mut rows = RowBudgets::new(&[0.9]);
        assert_eq!(rows.measure(&[0.0; 4]), [1]);
        assert_eq!(rows.measure(&[]), [0]);
        assert_eq!(rows.measure(&[0.0, 3e38, -0.0]), [1]);
    }

    proptest! {
        #[test]
        fn the_fast_row_equals_the_ranked_row(
            row in prop::collection::vec(prop_oneof![0.0f32..1.0, 0.0f32..1e-6, Just(0.25f32)], 1..300),
            threshold in 0.0f64..1.0,
        ) {
            let wide: Vec<f64> = row.iter().map(|&a| f64::from(a)).collect();
            let ranked = Ranked::new(&wide);
            let thresholds = [0.99, threshold, 0.5];
            let mut rows = RowBudgets::new(&thresholds);
            rows.measure(&[0.5; 9]);
            for (t, b) in thresholds.iter().zip(rows.measure(&row)) {
                let want = ranked.minimum_budget(*t);
                // A sum that lands on the target to the last bit may fall on either side.
                let margin = (ranked.cumulative[want - 1] - t * ranked.total()).abs() / ranked.total();
                prop_assert!(b as usize == want || margin < 1e-14, "{t}: {b} against {want}");
            }
        }
    }
}
