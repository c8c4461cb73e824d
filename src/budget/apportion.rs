//! Whole tokens in proportion to weights: the largest-remainder rule, in integers.

/// Bits below the point to which ideal amounts are snapped.
const SNAP: u32 = 20;

/// Bits of a weight relative to the largest: with [`SNAP`], totals to 2^52 fit 128 bits.
const WEIGHT_BITS: i32 = 55;

/// Spreads `total` whole tokens by `weights`, none above its cap: see [`super::fit()`].
///
/// The sum is `total`, or the sum of the caps where that is less. Weights are finite and not negative.
pub(super) fn spread(weights: &[f64], total: u64, caps: &[u64]) -> Vec<u64> {
    let room: u64 = caps.iter().sum();
    if total >= room {
        return caps.to_vec();
    }
    let mut given = vec![0u64; weights.len()];
    let mut open: Vec<usize> = (0..weights.len()).filter(|&i| caps[i] > 0).collect();
    let mut left = total;
    loop {
        let ideal = ideal_amounts(weights, &open, left);
        let full = |k: usize| ideal[k] >= u128::from(caps[open[k]]) << SNAP;
        if !(0..open.len()).any(full) {
            round(&mut given, &open, &ideal, left);
            return given;
        }
        let mut still_open = Vec::with_capacity(open.len());
        for (k, &i) in open.iter().enumerate() {
            if full(k) {
                given[i] = caps[i];
                left -= caps[i];
            } else {
                still_open.push(i);
            }
        }
        open = still_open;
    }
}

/// `left` in proportion to the weights of the open cells, in units of 2^-SNAP tokens.
fn ideal_amounts(weights: &[f64], open: &[usize], left: u64) -> Vec<u128> {
    let largest = open.iter().map(|&i| weights[i]).fold(0.0, f64::max);
    // Scaled to the largest that is still open: next to a huge weight the others vanish, until it is full.
    let scale = 2f64.powi(WEIGHT_BITS);
    let whole = |&i: &usize| {
        if largest > 0.0 {
            (weights[i] / largest * scale).round() as u128
        } else {
            1
        }
    };
    let whole: Vec<u128> = open.iter().map(whole).collect();
    let sum: u128 = whole.iter().sum::<u128>().max(1);
    let ideal = |w: &u128| (((w * u128::from(left)) << SNAP) + sum / 2) / sum;
    whole.iter().map(ideal).collect()
}

/// Whole parts first, then one token each by largest remainder; see [`super::fit()`] for what a tie is.
fn round(given: &mut [u64], open: &[usize], ideal: &[u128], left: u64) {
    let mut missing = left;
    for (&i, amount) in open.iter().zip(ideal) {
        given[i] = (amount >> SNAP) as u64;
        missing = missing.saturating_sub(given[i]);
    }
    let remainder = |k: usize| ideal[k] & ((1 << SNAP) - 1);
    let mut order: Vec<usize> = (0..open.len()).collect();
    order.sort_by_key(|&k| std::cmp::Reverse(remainder(k)));
    let Some(last) = (missing as usize).checked_sub(1).and_then(|k| order.get(k)) else {
        return;
    };
    let tie = remainder(*last);
    let rank = |k: usize| match remainder(k) {
        r if r > tie + 1 => 0,
        r if r + 1 >= tie => 1,
        _ => 2,
    };
    order.sort_by_key(|&k| (rank(k), k));
    for k in order.into_iter().take(missing as usize) {
        given[open[k]] += 1;
    }
}
