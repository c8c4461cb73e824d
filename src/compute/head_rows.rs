//! Rows of all heads taken apart into the rows of every head.

use candle_core::{CpuStorage, Device, Storage, Tensor};
use rayon::prelude::*;

use crate::error::Result;

/// How the dimensions of a head lie in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadLayout {
    /// As they are meant.
    Plain,
    /// The two of every pair side by side, which are meant to lie half a head apart.
    PairsTogether,
}

/// `(n, heads * D)` -> `(heads, n, D)`, contiguous.
///
/// Errors: [`crate::error::Error::Candle`] for another shape.
pub fn rows_of_heads(x: &Tensor, head_dim: usize, layout: HeadLayout) -> Result<Tensor> {
    let (n, width) = x.dims2()?;
    let heads = width / head_dim;
    if layout == HeadLayout::Plain {
        let x = x.reshape((n, heads, head_dim))?;
        return Ok(x.transpose(0, 1)?.contiguous()?);
    }
    let x = x.contiguous()?;
    let (storage, place) = x.storage_and_layout();
    if let (Storage::Cpu(CpuStorage::F32(numbers)), Some((start, end))) =
        (&*storage, place.contiguous_offsets())
    {
        let apart = pairs_apart(&numbers[start..end], [heads, head_dim]);
        return Ok(Tensor::from_vec(apart, (heads, n, head_dim), &Device::Cpu)?);
    }
    drop(storage);
    let pairs = x.reshape((n, heads, head_dim / 2, 2))?;
    let halves = pairs.permute((1, 0, 3, 2))?.contiguous()?;
    Ok(halves.reshape((heads, n, head_dim))?)
}

/// The same of numbers in memory, which candle copies one by one through their strides.
fn pairs_apart(x: &[f32], [heads, head_dim]: [usize; 2]) -> Vec<f32> {
    let width = heads * head_dim;
    let rows = x.len().checked_div(width).unwrap_or(0);
    let mut apart = vec![0f32; x.len()];
    let lines = apart.par_chunks_exact_mut(head_dim.max(1)).enumerate();
    lines.with_min_len(64).for_each(|(line, to)| {
        let (head, row) = (line / rows, line % rows);
        let from = &x[row * width + head * head_dim..][..head_dim];
        let (first, second) = to.split_at_mut(head_dim / 2);
        let (pairs, _) = from.as_chunks::<2>();
        for ((pair, first), second) in pairs.iter().zip(first).zip(second) {
            [*first, *second] = *pair;
        }
    });
    apart
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_lie_half_a_head_apart() {
        let x = Tensor::arange(0f32, 2.0 * 3.0 * 8.0, &Device::Cpu).unwrap();
        let x = x.reshape((2, 24)).unwrap();
        let rows = |layout| -> Vec<Vec<Vec<f32>>> {
            let rows = rows_of_heads(&x, 8, layout).unwrap();
            assert!(rows.is_contiguous());
            rows.to_vec3().unwrap()
        };
        let plain = rows(HeadLayout::Plain);
        assert_eq!(
            plain[1][1],
            [32.0, 33.0, 34.0, 35.0, 36.0, 37.0, 38.0, 39.0]
        );
        let apart = rows(HeadLayout::PairsTogether);
        assert_eq!(
            apart[1][1],
            [32.0, 34.0, 36.0, 38.0, 33.0, 35.0, 37.0, 39.0]
        );
        // Another type goes another way.
        let other = x.to_dtype(candle_core::DType::F64).unwrap();
        let other = rows_of_heads(&other, 8, HeadLayout::PairsTogether).unwrap();
        let other = other.to_dtype(candle_core::DType::F32).unwrap();
        assert_eq!(other.to_vec3::<f32>().unwrap(), apart);
    }

    #[test]
    fn no_rows_and_a_part_of_a_tensor() {
        let x = Tensor::arange(0f32, 32.0, &Device::Cpu).unwrap();
        let x = x.reshape((4, 8)).unwrap();
        let last = x.narrow(0, 3, 1).unwrap();
        let rows = rows_of_heads(&last, 4, HeadLayout::PairsTogether).unwrap();
        assert_eq!(
            rows.to_vec3::<f32>().unwrap(),
            [[[24.0, 26.0, 25.0, 27.0]], [[28.0, 30.0, 29.0, 31.0]]]
        );
    }
}
