//! Rounding that makes sums exact, and so the same in any order.

/// What rounds a number from 0 to 1, added and subtracted, so that sums of at most `count` of them are exact.
pub fn rounding_for_sums(count: usize) -> f64 {
    // Sums stay below 2^b, so their last exact bit is 2^(b - 52); 1.5 x 2^52 times that rounds to it.
    let bits = count.max(1).next_power_of_two().ilog2() as i32;
    1.5 * f64::from(bits).exp2()
}
