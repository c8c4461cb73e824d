//! Float32 matrix products on slices: the one guarded door to the gemm kernels.

/// A matrix in memory, with the elements from one row, and from one column, to the next.
#[derive(Clone, Copy)]
pub struct Operand<'a> {
    /// Its numbers.
    pub values: &'a [f32],
    /// From row to row.
    pub row: usize,
    /// From column to column.
    pub column: usize,
}

impl<'a> Operand<'a> {
    /// Row after row.
    pub fn rows(values: &'a [f32], width: usize) -> Self {
        Self {
            values,
            row: width,
            column: 1,
        }
    }

    /// The transpose of what lies row after row.
    pub fn transposed(values: &'a [f32], width: usize) -> Self {
        Self {
            values,
            row: 1,
            column: width,
        }
    }

    fn holds(&self, rows: usize, columns: usize) -> bool {
        columns == 0 || self.values.len() > (rows - 1) * self.row + (columns - 1) * self.column
    }
}

/// Which threads work on a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// The caller's.
    One,
    /// Those of the pool that the caller is in.
    All,
}

/// `c = a b` for a `(m, k)` and b `(k, n)`; rows of c are `stride` elements apart.
///
/// Differs: the order of a sum may depend on m, never on how the rows of b are split over calls.
/// Panics: for slices that are too short, which only this crate's own code could pass.
pub fn multiply(
    [m, n, k]: [usize; 3],
    a: Operand<'_>,
    b: Operand<'_>,
    c: &mut [f32],
    stride: usize,
    threads: Threads,
) {
    if m == 0 || n == 0 {
        return;
    }
    assert!(
        a.holds(m, k) && (k == 0 || b.holds(k, n)),
        "operands too short for {m} x {n} x {k}"
    );
    assert!(
        stride >= n && c.len() >= (m - 1) * stride + n,
        "product needs {m} rows of {n}, {stride} apart"
    );
    let parallelism = match (threads, rayon::current_num_threads()) {
        (Threads::One, _) | (_, 1) => gemm::Parallelism::None,
        (Threads::All, count) => gemm::Parallelism::Rayon(count),
    };
    // SAFETY: the assertions keep every element that the strides reach inside its slice.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            stride as isize,
            false,
            a.values.as_ptr(),
            a.column as isize,
            a.row as isize,
            b.values.as_ptr(),
            b.column as isize,
            b.row as isize,
            0.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_by_hand() {
        // (1 2; 3 4; 5 6) times (1 0 2; 0 1 3), into rows four apart.
        let a = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let b = [1.0, 0.0, 2.0, 0.0, 1.0, 3.0];
        for threads in [Threads::One, Threads::All] {
            let mut c = [9.0; 11];
            let (a, b) = (Operand::rows(&a, 2), Operand::rows(&b, 3));
            multiply([3, 3, 2], a, b, &mut c, 4, threads);
            let want = [1.0, 2.0, 8.0, 9.0, 3.0, 4.0, 18.0, 9.0, 5.0, 6.0, 28.0];
            assert_eq!(c, want);
        }
        let mut c = [0.0; 4];
        let (a, b) = (Operand::rows(&a[..4], 2), Operand::transposed(&a[..4], 2));
        multiply([2, 2, 2], a, b, &mut c, 2, Threads::One);
        assert_eq!(c, [5.0, 11.0, 11.0, 25.0]);
        multiply([0, 2, 2], a, b, &mut [], 2, Threads::One);
    }

    #[test]
    #[should_panic(expected = "too short")]
    fn short_operands_are_caught() {
        let a = Operand::rows(&[1.0; 3], 2);
        multiply([2, 1, 2], a, a, &mut [0.0; 2], 1, Threads::One);
    }
}
