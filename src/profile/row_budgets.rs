//! MBA of rows as attention gives them, without ranking their keys.

use super::minimum_budget::Ranked;
use crate::compute::lanes::{LANES, Lanes, widest};

/// MBA of float32 rows at several thresholds, without ranking them.
///
/// Weights too small to matter are left out, the others counted and added up by the leading bits of their
/// value; only the buckets in which a threshold is reached are sorted.
/// Differs: equal to [`super::Ranked::minimum_budget`] on the same row, but for sums that reach a threshold
/// to the last bits.
pub struct RowBudgets {
    /// Thresholds with their places, ascending.
    thresholds: Vec<(f64, usize)>,
    /// Where they are reached in the row at hand.
    reached: Vec<Reached>,
    /// Weights that are not too small.
    packed: Vec<f32>,
    /// Count and sum of the weights of each bucket; see [`Scale`].
    buckets: [Vec<u64>; 2],
    /// Where the buckets lie in which thresholds are reached, and their weights.
    bounds: Vec<[f32; 2]>,
    sorted: Vec<f32>,
}

/// Keys of the longest row whose counts fit beside its sums; longer ones are ranked.
const MOST_KEYS: usize = (1 << (u64::BITS - Scale::BITS)) - 1;

/// Weights that are sorted at once.
const FEW: usize = 48;

/// At most so many buckets.
const BUCKETS: u32 = 256;

/// A threshold's bucket, and what the larger weights of the row come to.
#[derive(Clone, Copy, Default)]
struct Reached {
    bucket: usize,
    kept: u32,
    sum: f64,
    /// Weights of other buckets that are sorted before its own.
    skipped: usize,
}

/// Buckets by the bits of a weight above those of the smallest.
#[derive(Clone, Copy)]
struct Buckets {
    lowest: u32,
    shift: u32,
    count: usize,
}

/// Numbers as integers: their value in the lower bits, one in the upper ones.
///
/// The unit is below 2^-45 of the total: weights above 2^-22 of it, of float32's 24 bits, lose nothing, and
/// smaller ones less than a row's sum in float64 would feel.
#[derive(Clone, Copy)]
struct Scale(f64);

impl RowBudgets {
    /// For rows that are measured at `thresholds`, each above 0 and below 1.
    pub fn new(thresholds: &[f64]) -> Self {
        let mut thresholds: Vec<_> = thresholds.iter().copied().zip(0..).collect();
        thresholds.sort_by(|a, b| a.0.total_cmp(&b.0));
        Self {
            reached: vec![Reached::default(); thresholds.len()],
            thresholds,
            packed: Vec::new(),
            buckets: [0, 1].map(|_| vec![0; BUCKETS as usize]),
            bounds: Vec::new(),
            sorted: Vec::new(),
        }
    }

    /// The budgets of one row of non-negative attention, one per threshold; none if it is not finite.
    ///
    /// Units: keys.
    pub fn measure(&mut self, row: &[f32]) -> Option<Vec<u32>> {
        let mut found = vec![0; self.thresholds.len()];
        if row.len() > MOST_KEYS {
            let ranked = Ranked::new(&row.iter().map(|&p| f64::from(p)).collect::<Vec<_>>());
            for (threshold, place) in &self.thresholds {
                found[*place] = ranked.minimum_budget(*threshold) as u32;
            }
            return ranked.total().is_finite().then_some(found);
        }
        let mut finite = true;
        measure(self, row, &mut found, &mut finite);
        finite.then_some(found)
    }
}

fn measure(budgets: &mut RowBudgets, row: &[f32], found: &mut [u32], finite: &mut bool) {
    widest!(measure_lanes(
        budgets: &mut RowBudgets,
        row: &[f32],
        found: &mut [u32],
        finite: &mut bool
    ));
}

#[inline(always)]
fn measure_lanes<L: Lanes>(
    budgets: &mut RowBudgets,
    row: &[f32],
    found: &mut [u32],
    finite: &mut bool,
) {
    let left = budgets.thresholds.last().map_or(0.0, |(t, _)| 1.0 - t);
    let packed = &mut budgets.packed;
    packed.resize(packed.len().max(row.len() + LANES), 0.0);
    // Weights below this together hold less than the highest threshold leaves; attention adds up to one.
    let too_small = |total: f64| (left * total / row.len() as f64 * 0.999) as f32;
    let least = too_small(0.999);
    let mut seen = pack_at_least::<L>(row, least, packed);
    *finite = seen.total.is_finite();
    if !*finite || row.is_empty() {
        return;
    }
    let mut lowest = least;
    if least > too_small(seen.total) || seen.total > 2.0 {
        lowest = too_small(seen.total);
        seen = pack_at_least::<L>(row, lowest, packed);
    }
    if seen.length <= FEW {
        budgets.reached.fill(Reached::default());
        budgets.sorted.clear();
        budgets.sorted.extend(&budgets.packed[..seen.length]);
    } else {
        let buckets = Buckets::new(lowest, seen.largest);
        let scale = Scale::new(seen.total);
        budgets.count::<L>(seen.length, buckets, scale);
        budgets.locate(seen.total, buckets, scale);
        budgets.collect::<L>(seen.length, buckets);
    }
    budgets.settle(seen.total, found);
}

impl RowBudgets {
    /// Counts and adds up the packed weights by bucket.
    #[inline(always)]
    fn count<L: Lanes>(&mut self, length: usize, buckets: Buckets, scale: Scale) {
        let [even, odd] = &mut self.buckets;
        even[..buckets.count].fill(0);
        odd[..buckets.count].fill(0);
        let (vectors, rest) = self.packed[..length].as_chunks::<LANES>();
        for weights in vectors {
            let (mut places, mut numbers) = ([0u32; LANES], [0u64; LANES]);
            for (place, &weight) in places.iter_mut().zip(weights) {
                *place = buckets.place(weight);
            }
            for (number, &weight) in numbers.iter_mut().zip(weights) {
                *number = scale.number(weight);
            }
            // In turns, so that neighbours in one bucket need not wait for each other.
            let pairs = places
                .as_chunks::<2>()
                .0
                .iter()
                .zip(numbers.as_chunks::<2>().0);
            for (places, numbers) in pairs {
                even[places[0] as usize % BUCKETS as usize] += numbers[0];
                odd[places[1] as usize % BUCKETS as usize] += numbers[1];
            }
        }
        for &weight in rest {
            even[buckets.place(weight) as usize % BUCKETS as usize] += scale.number(weight);
        }
    }

    /// Finds the bucket of every threshold.
    fn locate(&mut self, total: f64, buckets: Buckets, scale: Scale) {
        let [even, odd] = &self.buckets;
        let mut bucket = buckets.count - 1;
        let mut larger = 0;
        let mut skipped = 0;
        let mut before: Option<Reached> = None;
        for (reached, (threshold, _)) in self.reached.iter_mut().zip(&self.thresholds) {
            let target = scale.whole(threshold * total);
            let mut own = even[bucket] + odd[bucket];
            while bucket > 0 && Scale::sum_of(larger + own) < target {
                larger += own;
                bucket -= 1;
                own = even[bucket] + odd[bucket];
            }
            if let Some(before) = before.filter(|before| before.bucket != bucket) {
                let other = even[before.bucket] + odd[before.bucket];
                skipped += Scale::count_of(other) as usize;
            }
            *reached = Reached {
                bucket,
                kept: Scale::count_of(larger),
                sum: scale.float(Scale::sum_of(larger)),
                skipped,
            };
            before = Some(*reached);
        }
    }

    /// Sorts the weights of the buckets in which thresholds are reached, the largest first.
    #[inline(always)]
    fn collect<L: Lanes>(&mut self, length: usize, buckets: Buckets) {
        self.sorted
            .resize(self.sorted.len().max(length + LANES), 0.0);
        let wanted = self.reached.iter().map(|reached| reached.bucket);
        self.bounds.clear();
        self.bounds.extend(wanted.map(|b| buckets.bounds(b)));
        self.bounds.dedup();
        let (vectors, rest) = self.packed[..length].as_chunks::<LANES>();
        let mut last = [0.0; LANES];
        last[..rest.len()].copy_from_slice(rest);
        let mut found = 0;
        for x in vectors.iter().chain([&last]) {
            let x = L::load(x);
            let mut mask = 0;
            for &[low, high] in &self.bounds {
                mask |= L::at_least(x, L::splat(low)) & !L::at_least(x, L::splat(high));
            }
            if let Some(to) = self.sorted[found..].first_chunk_mut() {
                L::pack(x, mask, to);
            }
            found += mask.count_ones() as usize;
        }
        self.sorted.truncate(found);
    }

    /// Walks through the sorted weights to every threshold.
    fn settle(&mut self, total: f64, found: &mut [u32]) {
        self.sorted.sort_unstable_by_key(|weight| !weight.to_bits());
        let thresholds = self.reached.iter().zip(&self.thresholds);
        for (reached, (threshold, place)) in thresholds {
            let (mut kept, mut sum) = (reached.kept, reached.sum);
            for weight in &self.sorted[reached.skipped..] {
                if kept > 0 && sum >= threshold * total {
                    break;
                }
                sum += f64::from(*weight);
                kept += 1;
            }
            found[*place] = kept;
        }
    }
}

impl Buckets {
    /// For weights from `lowest` to `highest`.
    fn new(lowest: f32, highest: f32) -> Self {
        // Adding zero makes a zero of either sign the one whose bits are 0.
        let (lowest, highest) = ((lowest + 0.0).to_bits(), (highest + 0.0).to_bits());
        let span = highest.saturating_sub(lowest);
        let shift = (BUCKETS.leading_zeros() + 1).saturating_sub(span.leading_zeros());
        Self {
            lowest,
            shift,
            count: (span >> shift) as usize + 1,
        }
    }

    #[inline(always)]
    fn place(self, weight: f32) -> u32 {
        weight.to_bits().wrapping_sub(self.lowest) >> self.shift
    }

    /// The smallest weight of a bucket, and the smallest of the next.
    fn bounds(self, bucket: usize) -> [f32; 2] {
        [bucket, bucket + 1].map(|b| {
            let bits = u64::from(self.lowest) + ((b as u64) << self.shift);
            f32::from_bits(bits.min(u64::from(f32::INFINITY.to_bits())) as u32)
        })
    }
}

impl Scale {
    /// Bits of the sum; the others count.
    const BITS: u32 = 47;

    /// For weights that add up to `total`.
    fn new(total: f64) -> Self {
        // A power of two, so that scaling is exact: the total becomes less than 2^46.
        let exponent = (total.to_bits() >> 52) as i32 - 1023;
        Self(f64::from(Self::BITS as i32 - 2 - exponent).exp2())
    }

    #[inline(always)]
    fn number(self, weight: f32) -> u64 {
        // Adding 2^52 leaves the rounded number in the lower bits.
        const WHOLE: f64 = 4_503_599_627_370_496.0;
        let whole = f64::from(weight) * self.0 + WHOLE;
        whole
            .to_bits()
            .wrapping_sub(WHOLE.to_bits() - (1 << Self::BITS))
    }

    /// The smallest integer that is not below a sum of weights.
    fn whole(self, sum: f64) -> u64 {
        (sum * self.0).ceil() as u64
    }

    fn float(self, number: u64) -> f64 {
        number as f64 / self.0
    }

    fn count_of(number: u64) -> u32 {
        (number >> Self::BITS) as u32
    }

    fn sum_of(number: u64) -> u64 {
        number & ((1 << Self::BITS) - 1)
    }
}

/// What is seen of a row when its larger weights are taken out.
struct Packed {
    length: usize,
    largest: f32,
    /// Of all weights, in float64.
    total: f64,
}

/// Writes the weights of at least `least` one after another.
#[inline(always)]
fn pack_at_least<L: Lanes>(row: &[f32], least: f32, to: &mut [f32]) -> Packed {
    let limit = L::splat(least);
    let mut largest = L::splat(0.0);
    let mut sums = [0f64; LANES];
    let mut length = 0;
    let (vectors, rest) = row.as_chunks::<LANES>();
    let mut last = [0.0; LANES];
    last[..rest.len()].copy_from_slice(rest);
    let lanes = std::iter::repeat_n(u32::MAX, vectors.len()).chain([(1 << rest.len()) - 1]);
    // A loop and no closure: that would not be compiled for the instructions of its caller.
    for (x, lanes) in vectors.iter().chain([&last]).zip(lanes) {
        for (sum, &x) in sums.iter_mut().zip(x) {
            *sum += f64::from(x);
        }
        let x = L::load(x);
        largest = L::maximum(largest, x);
        let mask = L::at_least(x, limit) & lanes;
        if let Some(to) = to[length..].first_chunk_mut() {
            L::pack(x, mask, to);
        }
        length += mask.count_ones() as usize;
    }
    Packed {
        length,
        largest: L::largest(largest),
        total: sums.iter().sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::lanes::Portable;
    use proptest::prelude::*;

    #[test]
    fn rows_of_zeros_do_not_hang() {
        let mut rows = RowBudgets::new(&[0.9]);
        assert_eq!(rows.measure(&[0.0; 4]), Some(vec![1]));
        assert_eq!(rows.measure(&[0.0; 400]), Some(vec![1]));
        assert_eq!(rows.measure(&[]), Some(vec![0]));
        assert_eq!(rows.measure(&[0.0, 3e38, -0.0]), Some(vec![1]));
    }

    #[test]
    fn rows_that_are_not_finite_are_refused() {
        let mut rows = RowBudgets::new(&[0.5, 0.9]);
        let mut row = vec![0.01; 100];
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 50, 99] {
                let good = std::mem::replace(&mut row[at], bad);
                assert_eq!(rows.measure(&row), None);
                row[at] = good;
            }
        }
        row[3] = f32::INFINITY;
        row[4] = f32::NEG_INFINITY;
        assert_eq!(rows.measure(&row), None);
    }

    #[test]
    fn many_thresholds_of_long_rows_equal_the_ranked_row() {
        let thresholds: Vec<f64> = (1..40)
            .map(|i| f64::from(i) / 40.0)
            .chain([0.9999])
            .collect();
        for (keys, steepness) in [
            (5000, 12.0),
            (20_000, 3.0),
            (131_071, 0.1),
            (131_072, 30.0),
            (200_000, 0.01),
            (4096, 0.0),
        ] {
            let weight =
                |i: u32| (-steepness * f64::from(i.wrapping_mul(2_654_435_761)) / 4.3e9).exp();
            let row: Vec<f32> = (0..keys)
                .map(|i| (weight(i) / f64::from(keys)) as f32)
                .collect();
            let wide: Vec<f64> = row.iter().map(|&p| f64::from(p)).collect();
            let ranked = Ranked::new(&wide);
            let found = RowBudgets::new(&thresholds).measure(&row).unwrap();
            for (threshold, found) in thresholds.iter().zip(found) {
                let want = ranked.minimum_budget(*threshold);
                assert_eq!(found as usize, want, "{threshold} of {keys}");
            }
        }
    }

    fn with_lanes<L: Lanes>(thresholds: &[f64], row: &[f32]) -> Vec<u32> {
        let mut budgets = RowBudgets::new(thresholds);
        let mut found = vec![0; thresholds.len()];
        measure_lanes::<L>(&mut budgets, row, &mut found, &mut true);
        found
    }

    proptest! {
        #[test]
        fn the_fast_row_equals_the_ranked_row(
            row in prop::collection::vec(prop_oneof![
                4 => 0.0f32..1.0,
                2 => 0.0f32..1e-6,
                2 => (-40.0f32..0.0).prop_map(f32::exp),
                1 => Just(0.25f32),
                1 => Just(0.0f32),
            ], 1..600),
            threshold in 0.001f64..0.999,
        ) {
            let wide: Vec<f64> = row.iter().map(|&a| f64::from(a)).collect();
            let ranked = Ranked::new(&wide);
            let thresholds = [0.99, threshold, 0.5];
            let mut rows = RowBudgets::new(&thresholds);
            let found = rows.measure(&row).unwrap();
            prop_assert_eq!(&found, &with_lanes::<Portable>(&thresholds, &row));
            #[cfg(target_arch = "x86_64")]
            if crate::compute::lanes::has_256() {
                let narrow = with_lanes::<crate::compute::lanes::Avx2>(&thresholds, &row);
                prop_assert_eq!(&found, &narrow);
            }
            for (t, b) in thresholds.iter().zip(found) {
                let want = ranked.minimum_budget(*t);
                // A sum that lands on the target to the last bit may fall on either side.
                let margin = (ranked.cumulative[want - 1] - t * ranked.total()).abs() / ranked.total();
                prop_assert!(b as usize == want || margin < 1e-14, "{t}: {b} against {want}");
            }
        }
    }
}
