//! What the machine can do at best: matrix products in cache, and reading memory.

use std::hint::black_box;
use std::time::{Duration, Instant};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::summary::Spread;

/// Rows and columns of the product: 12 MiB of matrices, most of which any last-level cache holds.
const SIDE: usize = 1024;

/// Bytes of the array that is read, far above any last-level cache.
const ARRAY: usize = 512 << 20;

/// How long each of the two is tried.
const TRIED: Duration = Duration::from_millis(150);

/// Rates that nothing on this machine exceeds, each the best of several tries.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Float32 matrix product on all threads.
    ///
    /// Units: floating-point operations per second.
    pub flops_per_s: f64,
    /// Reading memory on all threads.
    ///
    /// Units: bytes per second.
    pub bytes_per_s: f64,
}

impl Limits {
    /// Tries both.
    pub fn measure() -> Self {
        Self {
            flops_per_s: matrix_product(),
            bytes_per_s: memory_read(),
        }
    }

    /// Seconds that work takes at least, and whether memory is what binds it.
    pub fn least_seconds(&self, flops: f64, bytes: f64) -> (f64, bool) {
        let (computing, reading) = (flops / self.flops_per_s, bytes / self.bytes_per_s);
        (computing.max(reading), reading > computing)
    }
}

/// The limits of every turn of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LimitSpreads {
    /// Units: floating-point operations per second.
    pub flops_per_s: Spread,
    /// Units: bytes per second.
    pub bytes_per_s: Spread,
}

impl LimitSpreads {
    /// `None` where nothing was measured.
    pub fn of(limits: &[Limits]) -> Option<Self> {
        Some(Self {
            flops_per_s: Spread::of(limits.iter().map(|l| l.flops_per_s))?,
            bytes_per_s: Spread::of(limits.iter().map(|l| l.bytes_per_s))?,
        })
    }

    /// The best of all turns: what the machine could do when it was least disturbed.
    pub fn best(&self) -> Limits {
        Limits {
            flops_per_s: self.flops_per_s.most,
            bytes_per_s: self.bytes_per_s.most,
        }
    }
}

fn matrix_product() -> f64 {
    let fill = |step: usize| -> Vec<f32> {
        let value = |i: usize| (i * step % 31) as f32 / 31.0 - 0.5;
        (0..SIDE * SIDE).map(value).collect()
    };
    let (a, b, mut c) = (fill(7), fill(11), vec![0f32; SIDE * SIDE]);
    let seconds = fastest(|| {
        product(&a, &b, &mut c);
        black_box(&mut c);
    });
    2.0 * (SIDE * SIDE * SIDE) as f64 / seconds
}

/// `c = a b` of square matrices by rows, on all threads.
fn product(a: &[f32], b: &[f32], c: &mut [f32]) {
    assert!([a.len(), b.len(), c.len()] == [SIDE * SIDE; 3]);
    let row = SIDE as isize;
    // SAFETY: all three hold SIDE rows of SIDE numbers.
    unsafe {
        gemm::gemm(
            SIDE,
            SIDE,
            SIDE,
            c.as_mut_ptr(),
            1,
            row,
            false,
            a.as_ptr(),
            1,
            row,
            b.as_ptr(),
            1,
            row,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::Rayon(rayon::current_num_threads()),
        );
    }
}

fn memory_read() -> f64 {
    // Written once, so that every page is there.
    let array: Vec<u64> = (0..ARRAY / 8).into_par_iter().map(|i| i as u64).collect();
    let part = array.len().div_ceil(4 * rayon::current_num_threads());
    let seconds = fastest(|| {
        let sums = array.par_chunks(part);
        let sum = |part: &[u64]| part.iter().fold(0u64, |sum, x| sum.wrapping_add(*x));
        black_box(sums.map(sum).reduce(|| 0, u64::wrapping_add));
    });
    ARRAY as f64 / seconds
}

/// Seconds of the fastest try after one that is not counted.
fn fastest(mut work: impl FnMut()) -> f64 {
    work();
    let start = Instant::now();
    let mut least = f64::INFINITY;
    while start.elapsed() < TRIED || least.is_infinite() {
        let one = Instant::now();
        work();
        least = least.min(one.elapsed().as_secs_f64());
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slower_of_the_two_binds() {
        let limits = Limits {
            flops_per_s: 100.0,
            bytes_per_s: 10.0,
        };
        assert_eq!(limits.least_seconds(200.0, 10.0), (2.0, false));
        assert_eq!(limits.least_seconds(200.0, 50.0), (5.0, true));
    }

    #[test]
    fn the_best_turn_is_the_limit() {
        let limits = [(5.0, 2.0), (7.0, 1.0)].map(|(flops_per_s, bytes_per_s)| Limits {
            flops_per_s,
            bytes_per_s,
        });
        let best = LimitSpreads::of(&limits).unwrap().best();
        assert_eq!((best.flops_per_s, best.bytes_per_s), (7.0, 2.0));
        assert!(LimitSpreads::of(&[]).is_none());
    }

    #[test]
    fn the_product_is_a_product() {
        let identity: Vec<f32> = (0..SIDE * SIDE)
            .map(|i| f32::from(u8::from(i / SIDE == i % SIDE)))
            .collect();
        let a: Vec<f32> = (0..SIDE * SIDE).map(|i| (i % 97) as f32).collect();
        let mut c = vec![0f32; SIDE * SIDE];
        product(&a, &identity, &mut c);
        assert_eq!(c, a);
    }
}
