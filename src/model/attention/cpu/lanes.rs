//! Sixteen float32 numbers at once, written out for each instruction set and chosen at run time.

/// Numbers in a vector.
pub(super) const LANES: usize = 16;

/// A vector in memory.
pub(super) type Vector = [f32; LANES];

/// Operations on [`LANES`] numbers.
///
/// The implementations for processors are only called from functions compiled for those. All give the
/// same numbers but the portable one, which rounds a product before it adds.
pub(super) trait Lanes {
    /// A vector in registers.
    type Float: Copy;
    /// Whether there are registers for two dozen vectors, not for eight.
    const MANY: bool;

    fn splat(x: f32) -> Self::Float;
    fn load(x: &Vector) -> Self::Float;
    fn store(x: Self::Float, to: &mut Vector);
    fn add(a: Self::Float, b: Self::Float) -> Self::Float;
    fn subtract(a: Self::Float, b: Self::Float) -> Self::Float;
    fn multiply(a: Self::Float, b: Self::Float) -> Self::Float;
    /// `a * b + c`.
    fn multiply_add(a: Self::Float, b: Self::Float, c: Self::Float) -> Self::Float;
    fn maximum(a: Self::Float, b: Self::Float) -> Self::Float;
    /// `x * 2^n`, for `n` given as `1.5 * 2^23 + n`; zero where `at` is not above [`SMALLEST`].
    fn scale_above(x: Self::Float, n: Self::Float, at: Self::Float) -> Self::Float;
    /// The sum of the numbers of each vector.
    fn sums(x: [Self::Float; 4]) -> [f32; 4];
    /// The largest number.
    fn largest(x: Self::Float) -> f32;
}

/// Exponents up to which the exponential is zero, that of a key out of sight among them.
pub(super) const SMALLEST: f32 = -87.3;

/// `e^x` for `x <= 0`, within two units in the last place; zero up to [`SMALLEST`].
///
/// Paper: range reduction by ln 2 in two parts and a degree-6 polynomial, as in the Cephes library.
#[inline(always)]
pub(super) fn exponential<L: Lanes>(x: L::Float) -> L::Float {
    let c = L::splat;
    let round = c(12_582_912.0); // 1.5 * 2^23: adding it rounds to an integer
    let shifted = L::multiply_add(x, c(std::f32::consts::LOG2_E), round);
    let n = L::subtract(shifted, round);
    let r = L::multiply_add(n, c(-0.693_359_4), x);
    let r = L::multiply_add(n, c(2.121_944_4e-4), r);
    let p = L::multiply_add(c(1.987_569_1e-4), r, c(1.398_199_9e-3));
    let p = L::multiply_add(p, r, c(8.333_452e-3));
    let p = L::multiply_add(p, r, c(4.166_579_6e-2));
    let p = L::multiply_add(p, r, c(1.666_666_5e-1));
    let p = L::multiply_add(p, r, c(0.5));
    let fraction = L::add(L::multiply_add(p, L::multiply(r, r), r), c(1.0));
    L::scale_above(fraction, shifted, x)
}

/// Plain arithmetic, sixteen times.
pub(super) struct Portable;

macro_rules! portable {
    ($i:ident => $element:expr) => {{
        let mut out = [0.0; LANES];
        for ($i, out) in out.iter_mut().enumerate() {
            *out = $element;
        }
        out
    }};
}

impl Lanes for Portable {
    type Float = Vector;
    const MANY: bool = false;

    #[inline(always)]
    fn splat(x: f32) -> Vector {
        [x; LANES]
    }
    #[inline(always)]
    fn load(x: &Vector) -> Vector {
        *x
    }
    #[inline(always)]
    fn store(x: Vector, to: &mut Vector) {
        *to = x;
    }
    #[inline(always)]
    fn add(a: Vector, b: Vector) -> Vector {
        portable!(i => a[i] + b[i])
    }
    #[inline(always)]
    fn subtract(a: Vector, b: Vector) -> Vector {
        portable!(i => a[i] - b[i])
    }
    #[inline(always)]
    fn multiply(a: Vector, b: Vector) -> Vector {
        portable!(i => a[i] * b[i])
    }
    #[inline(always)]
    fn multiply_add(a: Vector, b: Vector, c: Vector) -> Vector {
        portable!(i => a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn maximum(a: Vector, b: Vector) -> Vector {
        portable!(i => if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn scale_above(x: Vector, n: Vector, at: Vector) -> Vector {
        portable!(i => match at[i] > SMALLEST {
            true => f32::from_bits((n[i].to_bits() << 23).wrapping_add(x[i].to_bits())),
            false => 0.0,
        })
    }
    #[inline(always)]
    fn sums(x: [Vector; 4]) -> [f32; 4] {
        let mut sums = [0.0; 4];
        for (sum, x) in sums.iter_mut().zip(&x) {
            *sum = x.iter().sum();
        }
        sums
    }
    #[inline(always)]
    fn largest(x: Vector) -> f32 {
        x.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Lanes, SMALLEST, Vector};
    use std::arch::x86_64::*;

    /// AVX2 and FMA: two registers of eight.
    pub(in super::super) struct Avx2;

    /// AVX-512 F and DQ: one register.
    pub(in super::super) struct Avx512;

    macro_rules! halves {
        ($operation:ident, $($x:expr),+) => {
            // SAFETY: only called where the instructions were detected.
            unsafe { [$operation($($x[0]),+), $operation($($x[1]),+)] }
        };
    }

    macro_rules! whole {
        ($operation:ident, $($x:expr),+) => {
            // SAFETY: only called where the instructions were detected.
            unsafe { $operation($($x),+) }
        };
    }

    /// The sums of four registers of eight.
    #[inline(always)]
    fn sums_of_eight(x: [__m256; 4]) -> [f32; 4] {
        // SAFETY: only called where the instructions were detected.
        unsafe {
            let pairs = _mm256_hadd_ps(_mm256_hadd_ps(x[0], x[1]), _mm256_hadd_ps(x[2], x[3]));
            let (low, high) = (
                _mm256_castps256_ps128(pairs),
                _mm256_extractf128_ps(pairs, 1),
            );
            let mut sums = [0.0; 4];
            _mm_storeu_ps(sums.as_mut_ptr(), _mm_add_ps(low, high));
            sums
        }
    }

    impl Lanes for Avx2 {
        type Float = [__m256; 2];
        const MANY: bool = false;

        #[inline(always)]
        fn splat(x: f32) -> Self::Float {
            halves!(_mm256_set1_ps, [x, x])
        }
        #[inline(always)]
        fn load(x: &Vector) -> Self::Float {
            let (x, _) = x.as_chunks::<8>();
            halves!(_mm256_loadu_ps, [x[0].as_ptr(), x[1].as_ptr()])
        }
        #[inline(always)]
        fn store(x: Self::Float, to: &mut Vector) {
            let (to, _) = to.as_chunks_mut::<8>();
            halves!(
                _mm256_storeu_ps,
                [to[0].as_mut_ptr(), to[1].as_mut_ptr()],
                x
            );
        }
        #[inline(always)]
        fn add(a: Self::Float, b: Self::Float) -> Self::Float {
            halves!(_mm256_add_ps, a, b)
        }
        #[inline(always)]
        fn subtract(a: Self::Float, b: Self::Float) -> Self::Float {
            halves!(_mm256_sub_ps, a, b)
        }
        #[inline(always)]
        fn multiply(a: Self::Float, b: Self::Float) -> Self::Float {
            halves!(_mm256_mul_ps, a, b)
        }
        #[inline(always)]
        fn multiply_add(a: Self::Float, b: Self::Float, c: Self::Float) -> Self::Float {
            halves!(_mm256_fmadd_ps, a, b, c)
        }
        #[inline(always)]
        fn maximum(a: Self::Float, b: Self::Float) -> Self::Float {
            halves!(_mm256_max_ps, a, b)
        }
        #[inline(always)]
        fn scale_above(x: Self::Float, n: Self::Float, at: Self::Float) -> Self::Float {
            let mut scaled = x;
            for (scaled, (n, at)) in scaled.iter_mut().zip(n.into_iter().zip(at)) {
                // SAFETY: only called where the instructions were detected.
                unsafe {
                    let exponent = _mm256_slli_epi32(_mm256_castps_si256(n), 23);
                    let sum = _mm256_add_epi32(exponent, _mm256_castps_si256(*scaled));
                    let above = _mm256_cmp_ps(at, _mm256_set1_ps(SMALLEST), _CMP_GT_OQ);
                    *scaled = _mm256_and_ps(_mm256_castsi256_ps(sum), above);
                }
            }
            scaled
        }
        #[inline(always)]
        fn sums(x: [Self::Float; 4]) -> [f32; 4] {
            // SAFETY: only called where the instructions were detected.
            sums_of_eight(unsafe {
                [
                    _mm256_add_ps(x[0][0], x[0][1]),
                    _mm256_add_ps(x[1][0], x[1][1]),
                    _mm256_add_ps(x[2][0], x[2][1]),
                    _mm256_add_ps(x[3][0], x[3][1]),
                ]
            })
        }
        #[inline(always)]
        fn largest(x: Self::Float) -> f32 {
            let mut all = [0.0; 16];
            Self::store(x, &mut all);
            all.into_iter().fold(f32::NEG_INFINITY, f32::max)
        }
    }

    impl Lanes for Avx512 {
        type Float = __m512;
        const MANY: bool = true;

        #[inline(always)]
        fn splat(x: f32) -> __m512 {
            whole!(_mm512_set1_ps, x)
        }
        #[inline(always)]
        fn load(x: &Vector) -> __m512 {
            whole!(_mm512_loadu_ps, x.as_ptr())
        }
        #[inline(always)]
        fn store(x: __m512, to: &mut Vector) {
            whole!(_mm512_storeu_ps, to.as_mut_ptr(), x)
        }
        #[inline(always)]
        fn add(a: __m512, b: __m512) -> __m512 {
            whole!(_mm512_add_ps, a, b)
        }
        #[inline(always)]
        fn subtract(a: __m512, b: __m512) -> __m512 {
            whole!(_mm512_sub_ps, a, b)
        }
        #[inline(always)]
        fn multiply(a: __m512, b: __m512) -> __m512 {
            whole!(_mm512_mul_ps, a, b)
        }
        #[inline(always)]
        fn multiply_add(a: __m512, b: __m512, c: __m512) -> __m512 {
            whole!(_mm512_fmadd_ps, a, b, c)
        }
        #[inline(always)]
        fn maximum(a: __m512, b: __m512) -> __m512 {
            whole!(_mm512_max_ps, a, b)
        }
        #[inline(always)]
        fn scale_above(x: __m512, n: __m512, at: __m512) -> __m512 {
            // SAFETY: only called where the instructions were detected.
            unsafe {
                let exponent = _mm512_slli_epi32(_mm512_castps_si512(n), 23);
                let sum = _mm512_add_epi32(exponent, _mm512_castps_si512(x));
                let above = _mm512_cmp_ps_mask(at, _mm512_set1_ps(SMALLEST), _CMP_GT_OQ);
                _mm512_maskz_mov_ps(above, _mm512_castsi512_ps(sum))
            }
        }
        #[inline(always)]
        fn sums(x: [__m512; 4]) -> [f32; 4] {
            let mut halves = [whole!(_mm256_set1_ps, 0.0); 4];
            for (half, x) in halves.iter_mut().zip(x) {
                // SAFETY: only called where the instructions were detected.
                *half = unsafe {
                    _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1))
                };
            }
            sums_of_eight(halves)
        }
        #[inline(always)]
        fn largest(x: __m512) -> f32 {
            whole!(_mm512_reduce_max_ps, x)
        }
    }
}

/// Calls `$kernel::<L>($arguments)` with the widest [`Lanes`] that this processor has.
macro_rules! widest {
    ($kernel:ident($($argument:ident: $type:ty),* $(,)?)) => {{
        #[cfg(target_arch = "x86_64")]
        {
            #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
            fn wide($($argument: $type),*) {
                $kernel::<crate::model::attention::cpu::lanes::Avx512>($($argument),*);
            }
            #[target_feature(enable = "avx2,fma")]
            fn middle($($argument: $type),*) {
                $kernel::<crate::model::attention::cpu::lanes::Avx2>($($argument),*);
            }
            let fma = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            if fma && crate::model::attention::softmax::has_512() {
                // SAFETY: the instructions were just detected.
                return unsafe { wide($($argument),*) };
            }
            if fma {
                // SAFETY: the instructions were just detected.
                return unsafe { middle($($argument),*) };
            }
        }
        $kernel::<crate::model::attention::cpu::lanes::Portable>($($argument),*);
    }};
}
pub(super) use widest;
