//! Whether a tensor holds neither NaN nor infinity.

use candle_core::Tensor;

use crate::error::Result;

/// Whether every number is finite.
///
/// Differs: integers always are.
/// Errors: [`Error::Candle`](crate::error::Error::Candle).
pub(crate) fn all_finite(tensor: &Tensor) -> Result<bool> {
    // A finite number times zero is zero, NaN and infinity become NaN, so one sum shows them. A sum of the numbers
    // themselves could overflow though each of them is finite.
    let sum = tensor.affine(0.0, 0.0)?.sum_all()?;
    Ok(sum.to_dtype(candle_core::DType::F32)?.to_scalar::<f32>()? == 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn only_what_is_not_finite_is_refused() {
        let of = |numbers: &[f32]| {
            let tensor = Tensor::from_slice(numbers, numbers.len(), &Device::Cpu).unwrap();
            all_finite(&tensor).unwrap()
        };
        assert!(of(&[f32::MAX, f32::MAX, f32::MIN, 1e-45, -0.0]));
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut numbers = [1.0; 4099];
            assert!(of(&numbers));
            numbers[4098] = wrong;
            assert!(!of(&numbers), "{wrong}");
        }
    }
}
