//! Rotary embedding of one run of positions.

use std::ops::Range;

use candle_core::{D, DType, Device, Tensor};
use candle_nn::rotary_emb::rope;

use super::config::Rope;
use crate::error::Result;

/// Cosines and sines of the positions of one run, `(n, pairs)`.
pub(super) struct Rotation {
    cos: Tensor,
    sin: Tensor,
}

impl Rotation {
    /// Of positions in a text that began with so many tokens, which decides between two sets of frequencies.
    pub(super) fn new(
        by: &Rope,
        begun_for: usize,
        positions: Range<usize>,
        device: &Device,
        dtype: DType,
    ) -> Result<Self> {
        let frequencies = by.frequencies_for(begun_for);
        let shape = (positions.len(), frequencies.len());
        let angles: Vec<f64> = positions
            // The product is rounded to float32, as the models were trained and as references do.
            .flat_map(|p| frequencies.iter().map(move |f| f64::from(p as f32 * f)))
            .collect();
        let tensor = |f: fn(f64) -> f64| -> Result<Tensor> {
            let values: Vec<f32> = (angles.iter())
                .map(|&angle| f(angle) as f32 * by.magnitude)
                .collect();
            Ok(Tensor::from_vec(values, shape, device)?.to_dtype(dtype)?)
        };
        Ok(Self {
            cos: tensor(f64::cos)?,
            sin: tensor(f64::sin)?,
        })
    }

    /// `(heads, n, D)` -> the same, rotated; dimensions behind the pairs stay as they are.
    pub(super) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let rotated = 2 * self.cos.dim(D::Minus1)?;
        let d = x.dim(D::Minus1)?;
        let rotate = |x: &Tensor| rope(&x.unsqueeze(0)?, &self.cos, &self.sin)?.squeeze(0);
        if rotated == d {
            return Ok(rotate(x)?);
        }
        let turned = rotate(&x.narrow(D::Minus1, 0, rotated)?.contiguous()?)?;
        let rest = x.narrow(D::Minus1, rotated, d - rotated)?;
        Ok(Tensor::cat(&[&turned, &rest], D::Minus1)?)
    }
}
