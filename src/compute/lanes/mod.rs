//! Sixteen lanes of numbers on every instruction set: what weights are unpacked and attention computed with.
//!
//! Written out instead of left to the compiler, which vectorises such short loops two lanes wide.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

use half::{bf16, f16};

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
pub(crate) use portable::Portable;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{has_256, has_512, has_bf16_products};

/// Lanes of a vector.
pub(crate) const LANES: usize = 16;

/// A vector in memory.
pub(crate) type Vector = [f32; LANES];

/// A format whose weights follow from four bits each, and from numbers that they share.
pub(crate) trait Nibble {
    /// The weights of the codes 0 to 15.
    fn weights<L: Lanes>(codes: L::Float, scale: L::Float, minimum: L::Float) -> L::Float;
}

/// Operations on [`LANES`] numbers at once.
///
/// The implementations for processors are only called from functions compiled for those. All round
/// alike, but for the portable one, which rounds a multiplication before it adds.
pub(crate) trait Lanes: Sized {
    /// Float32 numbers.
    type Float: Copy;
    /// 32-bit integers.
    type Integer: Copy;
    /// Whether there are registers for two dozen vectors, not for eight.
    const MANY: bool;

    /// The value of a float16 given by its bits; exact.
    fn half(bits: u16) -> f32;
    fn splat(x: f32) -> Self::Float;
    fn load(x: &Vector) -> Self::Float;
    fn store(x: Self::Float, to: &mut Vector);
    /// Float16 numbers, widened; exact.
    fn load_f16(x: &[f16; LANES]) -> Self::Float;
    /// Bfloat16 numbers, widened; exact.
    fn load_bf16(x: &[bf16; LANES]) -> Self::Float;
    /// Bytes without a sign.
    fn unsigned(bytes: &[u8; LANES]) -> Self::Integer;
    /// Bytes with a sign.
    fn signed(bytes: &[u8; LANES]) -> Self::Integer;
    /// The lowest 16 bits of a word, the lowest first.
    fn bits(word: u32) -> Self::Integer;
    /// The nibbles of two words, the lowest first.
    fn nibbles(words: [u32; 2]) -> Self::Integer;
    /// The pairs of bits of a word, the lowest first.
    fn pairs(word: u32) -> Self::Integer;
    /// `x >> by`, zeros from above.
    fn shift_right(x: Self::Integer, by: u32) -> Self::Integer;
    /// `low | high << by`.
    fn join(low: Self::Integer, high: Self::Integer, by: u32) -> Self::Integer;
    fn mask(x: Self::Integer, mask: i32) -> Self::Integer;
    fn float(x: Self::Integer) -> Self::Float;
    /// Writes `x - less`, which 16 bits with a sign must hold.
    fn store_short(x: Self::Integer, less: i32, to: &mut [i16; LANES]);
    /// The weights of the lowest four bits of every lane.
    #[inline(always)]
    fn of_nibbles<N: Nibble>(
        codes: Self::Integer,
        scale: Self::Float,
        minimum: Self::Float,
    ) -> Self::Float {
        N::weights::<Self>(Self::float(Self::mask(codes, 15)), scale, minimum)
    }
    fn add(a: Self::Float, b: Self::Float) -> Self::Float;
    fn subtract(a: Self::Float, b: Self::Float) -> Self::Float;
    fn multiply(a: Self::Float, b: Self::Float) -> Self::Float;
    /// `a * b + c`.
    fn multiply_add(a: Self::Float, b: Self::Float, c: Self::Float) -> Self::Float;
    fn maximum(a: Self::Float, b: Self::Float) -> Self::Float;
    /// Lane i of vector j becomes lane j of vector i.
    #[inline(always)]
    fn transpose(x: [Self::Float; LANES]) -> [Self::Float; LANES] {
        let mut lines = [[0.0; LANES]; LANES];
        for (line, x) in lines.iter_mut().zip(x) {
            Self::store(x, line);
        }
        let mut turned = x;
        for (i, turned) in turned.iter_mut().enumerate() {
            let mut line = [0.0; LANES];
            for (x, from) in line.iter_mut().zip(&lines) {
                *x = from[i];
            }
            *turned = Self::load(&line);
        }
        turned
    }
    /// Whether each lane of `x` is at least that of `least`: the lowest bit for the first lane.
    fn at_least(x: Self::Float, least: Self::Float) -> u32;
    /// Writes the lanes whose bit in `mask` is set one after another and anything after them.
    fn pack(x: Self::Float, mask: u32, to: &mut Vector);
    /// `x * 2^n`, for `n` given as `1.5 * 2^23 + n`; zero where `at` is not above `least`.
    fn scale_above(
        x: Self::Float,
        n: Self::Float,
        at: Self::Float,
        least: Self::Float,
    ) -> Self::Float;
    /// The sum of the lanes, halves added to halves.
    fn sum(x: Self::Float) -> f32;
    /// The sums of four vectors.
    fn sums(x: [Self::Float; 4]) -> [f32; 4];
    /// The largest number.
    fn largest(x: Self::Float) -> f32;
}

/// Calls `$kernel::<L>($arguments)` with the widest [`Lanes`] that this processor has.
macro_rules! widest {
    ($kernel:ident($($argument:ident: $type:ty),* $(,)?)) => {{
        #[cfg(target_arch = "x86_64")]
        {
            #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma,f16c,popcnt")]
            fn wide($($argument: $type),*) {
                $kernel::<crate::compute::lanes::Avx512>($($argument),*);
            }
            #[target_feature(enable = "avx2,fma,f16c,popcnt")]
            fn middle($($argument: $type),*) {
                $kernel::<crate::compute::lanes::Avx2>($($argument),*);
            }
            if crate::compute::lanes::has_512() {
                // SAFETY: the instructions were just detected.
                return unsafe { wide($($argument),*) };
            }
            if crate::compute::lanes::has_256() {
                // SAFETY: the instructions were just detected.
                return unsafe { middle($($argument),*) };
            }
        }
        $kernel::<crate::compute::lanes::Portable>($($argument),*);
    }};
}
pub(crate) use widest;

/// Calls `$work($arguments)` as it is compiled for the widest instruction set that this processor has.
///
/// Differs: from [`widest`], how many lanes the work takes is left to the compiler; it rounds alike on all.
macro_rules! vectorised {
    ($work:ident($($argument:ident: $type:ty),* $(,)?) $(-> $returned:ty)?) => {{
        #[cfg(target_arch = "x86_64")]
        {
            #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
            fn wide($($argument: $type),*) $(-> $returned)? {
                $work($($argument),*)
            }
            #[target_feature(enable = "avx2,fma")]
            fn middle($($argument: $type),*) $(-> $returned)? {
                $work($($argument),*)
            }
            if crate::compute::lanes::has_512() {
                // SAFETY: the instructions were just detected.
                return unsafe { wide($($argument),*) };
            }
            if crate::compute::lanes::has_256() {
                // SAFETY: the instructions were just detected.
                return unsafe { middle($($argument),*) };
            }
        }
        $work($($argument),*)
    }};
}
pub(crate) use vectorised;

#[cfg(test)]
mod tests {
    use super::*;

    fn check_places<L: Lanes>() {
        let lines: [Vector; LANES] =
            std::array::from_fn(|j| std::array::from_fn(|i| (j * LANES + i) as f32));
        for (i, turned) in L::transpose(lines.map(|line| L::load(&line)))
            .into_iter()
            .enumerate()
        {
            let mut got = [0.0; LANES];
            L::store(turned, &mut got);
            assert_eq!(got, std::array::from_fn(|j| (j * LANES + i) as f32));
        }
        for seed in 0..1000u32 {
            let x: Vector =
                std::array::from_fn(|i| (seed.wrapping_mul(2_654_435_761) >> i & 7) as f32);
            let mask = L::at_least(L::load(&x), L::splat(3.0));
            let want: Vec<f32> = x.into_iter().filter(|x| *x >= 3.0).collect();
            assert_eq!(mask.count_ones() as usize, want.len());
            let mut got = [9.0; LANES];
            L::pack(L::load(&x), mask, &mut got);
            assert_eq!(got[..want.len()], want);
        }
    }

    #[test]
    fn lanes_change_places_alike_on_every_instruction_set() {
        check_places::<Portable>();
        #[cfg(target_arch = "x86_64")]
        {
            if has_256() {
                check_places::<Avx2>();
            }
            if has_512() {
                check_places::<Avx512>();
            }
        }
    }

    fn check_narrowing<L: Lanes>() {
        for seed in 0..16u8 {
            let bytes: [u8; LANES] = std::array::from_fn(|i| seed * 16 + i as u8);
            let mut got = [0; LANES];
            L::store_short(L::unsigned(&bytes), 32, &mut got);
            assert_eq!(got, bytes.map(|b| i16::from(b) - 32));
            L::store_short(L::signed(&bytes), 0, &mut got);
            assert_eq!(got, bytes.map(|b| i16::from(b as i8)));
        }
    }

    #[test]
    fn integers_narrow_in_their_order_on_every_instruction_set() {
        check_narrowing::<Portable>();
        #[cfg(target_arch = "x86_64")]
        {
            if has_256() {
                check_narrowing::<Avx2>();
            }
            if has_512() {
                check_narrowing::<Avx512>();
            }
        }
    }

    fn check_widening<L: Lanes>() {
        for first in (0..=u16::MAX).step_by(LANES) {
            let bits: [u16; LANES] = std::array::from_fn(|i| first + i as u16);
            let mut got = [[0.0; LANES]; 2];
            L::store(L::load_f16(&bits.map(f16::from_bits)), &mut got[0]);
            L::store(L::load_bf16(&bits.map(bf16::from_bits)), &mut got[1]);
            for (i, bits) in bits.into_iter().enumerate() {
                let want = [
                    by_definition(bits) as f32,
                    f32::from_bits(u32::from(bits) << 16),
                ];
                for (got, want) in [got[0][i], got[1][i]].into_iter().zip(want) {
                    let same = got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan());
                    assert!(same, "{bits:#06x}: {got} {want}");
                }
            }
        }
    }

    #[test]
    fn all_half_precision_values_widen_exactly_on_every_instruction_set() {
        check_widening::<Portable>();
        #[cfg(target_arch = "x86_64")]
        {
            if has_256() {
                check_widening::<Avx2>();
            }
            if has_512() {
                check_widening::<Avx512>();
            }
        }
    }

    /// Powers of two times integers, from the definition of the format.
    fn by_definition(bits: u16) -> f64 {
        let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
        let magnitude = match exponent {
            0 => fraction * 2f64.powi(-24),
            31 if fraction == 0.0 => f64::INFINITY,
            31 => f64::NAN,
            e => (1024.0 + fraction) * 2f64.powi(e - 25),
        };
        if bits >> 15 == 1 {
            -magnitude
        } else {
            magnitude
        }
    }

    #[test]
    fn all_float16_values_convert_exactly() {
        for bits in 0..=u16::MAX {
            let want = by_definition(bits) as f32;
            let got = Portable::half(bits);
            let same = got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan());
            assert!(same, "{bits:#06x}: {got} {want}");
            #[cfg(target_arch = "x86_64")]
            if is_x86_feature_detected!("f16c") {
                let got = Avx2::half(bits);
                let same = got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan());
                assert!(same, "{bits:#06x}: {got} {want}");
            }
        }
    }
}
