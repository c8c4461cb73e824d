//! The Hadamard rotation: numbers of a row are mixed so that no single one stands out.

/// Rotates consecutive blocks of `size` numbers, a power of two, by Sylvester's matrix over its root.
///
/// Differs: the matrix is symmetric and its own inverse, so that rotating twice gives the numbers back but for
/// rounding. Shapes: `numbers` of any length that `size` divides.
pub(crate) fn rotate(numbers: &mut [f32], size: usize) {
    let factor = 1.0 / (size as f32).sqrt();
    for block in numbers.chunks_exact_mut(size.max(1)) {
        let mut half = 1;
        while half < size {
            for pair in block.chunks_exact_mut(2 * half) {
                let (low, high) = pair.split_at_mut(half);
                for (a, b) in low.iter_mut().zip(high) {
                    (*a, *b) = (*a + *b, *a - *b);
                }
            }
            half *= 2;
        }
        block.iter_mut().for_each(|x| *x *= factor);
    }
}

#[cfg(test)]
mod tests {
    use super::rotate;

    /// From the definition: the sign of entry (i, j) is the parity of the bits that i and j share.
    #[test]
    fn rotations_equal_the_matrix() {
        for size in [1, 2, 64, 128] {
            let numbers: Vec<f32> = (0..2 * size)
                .map(|i| ((i * 37 % 11) as f32) - 4.5)
                .collect();
            let mut got = numbers.clone();
            rotate(&mut got, size);
            for (block, got) in numbers.chunks(size).zip(got.chunks(size)) {
                for (i, got) in got.iter().enumerate() {
                    let signed = |(j, x): (usize, &f32)| match (i & j).count_ones() % 2 {
                        0 => f64::from(*x),
                        _ => -f64::from(*x),
                    };
                    let want: f64 = block.iter().enumerate().map(signed).sum();
                    let want = want / (size as f64).sqrt();
                    assert!((f64::from(*got) - want).abs() < 1e-5, "{size} {i}");
                }
            }
            rotate(&mut got, size);
            for (a, b) in got.iter().zip(&numbers) {
                assert!((a - b).abs() < 1e-5);
            }
        }
    }
}
