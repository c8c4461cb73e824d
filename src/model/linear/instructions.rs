//! The two scalar operations whose best instruction differs between processors.

/// What a kernel is compiled for: the same code, other instructions.
pub(super) trait Instructions {
    /// The float32 value of a float16 given by its bits; exact.
    fn half(bits: u16) -> f32;
    /// `a * b + c`, rounded once where the processor can.
    fn multiply_add(a: f32, b: f32, c: f32) -> f32;
}

/// Any processor.
pub(super) struct Portable;

impl Instructions for Portable {
    #[inline(always)]
    fn half(bits: u16) -> f32 {
        const TWO_TO_112: f32 = f32::from_bits(0x7780_0000);
        let magnitude = u32::from(bits & 0x7fff) << 13;
        let sign = u32::from(bits & 0x8000) << 16;
        let value = match magnitude >= 0x0f80_0000 {
            true => f32::from_bits(magnitude | 0x7f80_0000), // infinity or no number
            false => f32::from_bits(magnitude) * TWO_TO_112, // the exponent's other bias, subnormals too
        };
        f32::from_bits(value.to_bits() | sign)
    }

    #[inline(always)]
    fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
        a * b + c
    }
}

/// x86-64 with FMA and F16C.
#[cfg(target_arch = "x86_64")]
pub(super) struct Fused;

#[cfg(target_arch = "x86_64")]
impl Instructions for Fused {
    #[inline(always)]
    fn half(bits: u16) -> f32 {
        use std::arch::x86_64::{_mm_cvtph_ps, _mm_cvtsi32_si128, _mm_cvtss_f32};
        // SAFETY: only functions compiled with F16C, and called after detecting it, name this type.
        unsafe { _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(bits)))) }
    }

    #[inline(always)]
    fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
                let got = Fused::half(bits);
                let same = got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan());
                assert!(same, "{bits:#06x}: {got} {want}");
            }
        }
    }
}
