//! Lanes as arrays, for any processor.

use std::array::from_fn;

use half::{bf16, f16};

use super::{LANES, Lanes, Vector};

pub(crate) struct Portable;

impl Lanes for Portable {
    type Float = Vector;
    type Integer = [u32; LANES];
    const MANY: bool = false;

    #[inline(always)]
    fn half(bits: u16) -> f32 {
        const TWO_TO_112: f32 = f32::from_bits(0x7780_0000);
        let magnitude = u32::from(bits & 0x7fff) << 13;
        let sign = u32::from(bits & 0x8000) << 16;
        let value = if magnitude >= 0x0f80_0000 {
            f32::from_bits(magnitude | 0x7f80_0000) // infinity or no number
        } else {
            f32::from_bits(magnitude) * TWO_TO_112 // another bias of the exponent
        };
        f32::from_bits(value.to_bits() | sign)
    }
    #[inline(always)]
    fn splat(x: f32) -> Self::Float {
        [x; LANES]
    }
    #[inline(always)]
    fn load(x: &Vector) -> Self::Float {
        *x
    }
    #[inline(always)]
    fn store(x: Self::Float, to: &mut Vector) {
        *to = x;
    }
    #[inline(always)]
    fn load_f16(x: &[f16; LANES]) -> Self::Float {
        from_fn(|j| Self::half(x[j].to_bits()))
    }
    #[inline(always)]
    fn load_bf16(x: &[bf16; LANES]) -> Self::Float {
        from_fn(|j| f32::from_bits(u32::from(x[j].to_bits()) << 16))
    }
    #[inline(always)]
    fn unsigned(bytes: &[u8; LANES]) -> Self::Integer {
        bytes.map(u32::from)
    }
    #[inline(always)]
    fn signed(bytes: &[u8; LANES]) -> Self::Integer {
        bytes.map(|b| i32::from(b as i8) as u32)
    }
    #[inline(always)]
    fn bits(word: u32) -> Self::Integer {
        from_fn(|j| word >> j & 1)
    }
    #[inline(always)]
    fn nibbles(words: [u32; 2]) -> Self::Integer {
        from_fn(|j| words[j / 8] >> (4 * (j % 8)) & 15)
    }
    #[inline(always)]
    fn pairs(word: u32) -> Self::Integer {
        from_fn(|j| word >> (2 * j) & 3)
    }
    #[inline(always)]
    fn shift_right(x: Self::Integer, by: u32) -> Self::Integer {
        x.map(|x| x >> by)
    }
    #[inline(always)]
    fn join(low: Self::Integer, high: Self::Integer, by: u32) -> Self::Integer {
        from_fn(|j| low[j] | high[j] << by)
    }
    #[inline(always)]
    fn mask(x: Self::Integer, mask: i32) -> Self::Integer {
        x.map(|x| x & mask as u32)
    }
    #[inline(always)]
    fn float(x: Self::Integer) -> Self::Float {
        x.map(|x| x as i32 as f32)
    }
    #[inline(always)]
    fn store_short(x: Self::Integer, less: i32, to: &mut [i16; LANES]) {
        *to = x.map(|x| (x as i32 - less) as i16);
    }
    #[inline(always)]
    fn add(a: Self::Float, b: Self::Float) -> Self::Float {
        from_fn(|j| a[j] + b[j])
    }
    #[inline(always)]
    fn subtract(a: Self::Float, b: Self::Float) -> Self::Float {
        from_fn(|j| a[j] - b[j])
    }
    #[inline(always)]
    fn multiply(a: Self::Float, b: Self::Float) -> Self::Float {
        from_fn(|j| a[j] * b[j])
    }
    #[inline(always)]
    fn multiply_add(a: Self::Float, b: Self::Float, c: Self::Float) -> Self::Float {
        from_fn(|j| a[j] * b[j] + c[j])
    }
    // Inlined, the tree of sums would make the compiler pair lanes in the loop before it.
    #[inline(never)]
    fn sum(x: Self::Float) -> f32 {
        let eight: [f32; 8] = from_fn(|j| x[j] + x[j + 8]);
        let four: [f32; 4] = from_fn(|j| eight[j] + eight[j + 4]);
        (four[0] + four[2]) + (four[1] + four[3])
    }
    #[inline(always)]
    fn maximum(a: Self::Float, b: Self::Float) -> Self::Float {
        from_fn(|j| if a[j] > b[j] { a[j] } else { b[j] })
    }
    #[inline(always)]
    fn at_least(x: Self::Float, least: Self::Float) -> u32 {
        (0..LANES).fold(0, |mask, j| mask | u32::from(x[j] >= least[j]) << j)
    }
    #[inline(always)]
    fn pack(x: Self::Float, mask: u32, to: &mut Vector) {
        let mut count = 0;
        for (j, x) in x.into_iter().enumerate() {
            to[count] = x; // overwritten by the next unless it stays
            count += (mask >> j & 1) as usize;
            count = count.min(LANES - 1);
        }
    }
    #[inline(always)]
    fn scale_above(
        x: Self::Float,
        n: Self::Float,
        at: Self::Float,
        least: Self::Float,
    ) -> Self::Float {
        from_fn(|j| {
            if at[j] > least[j] {
                f32::from_bits((n[j].to_bits() << 23).wrapping_add(x[j].to_bits()))
            } else {
                0.0
            }
        })
    }
    #[inline(always)]
    fn sums(x: [Self::Float; 4]) -> [f32; 4] {
        x.map(|x| x.iter().sum())
    }
    #[inline(always)]
    fn largest(x: Self::Float) -> f32 {
        x.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
}
