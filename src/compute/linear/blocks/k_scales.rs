//! The six-bit scales and minima of Q4_K and Q5_K: eight of each in twelve bytes.

/// Scale and minimum of group `group`.
#[inline(always)]
pub(super) fn scale_and_minimum(packed: &[u8], group: usize) -> (f32, f32) {
    let (scale, minimum) = if group < 4 {
        (packed[group] & 63, packed[group + 4] & 63)
    } else {
        // The later four lie in nibbles, their upper two bits above the earlier ones.
        (
            packed[group + 4] & 15 | packed[group - 4] >> 6 << 4,
            packed[group + 4] >> 4 | packed[group] >> 6 << 4,
        )
    };
    (f32::from(scale), f32::from(minimum))
}
