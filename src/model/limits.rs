//! Work that shows what a device can do at best: a matrix product, and copying memory.

use candle_core::{DType, Tensor};

use super::decoder::Decoder;
use crate::error::Result;

/// Rows and columns of the product, enough to keep all units of a large device busy.
const SIDE: usize = 8192;

/// Bytes of the array that is copied, far above any cache.
const ARRAY: usize = 512 << 20;

/// A product and a copy on a device, ready to be timed.
pub struct DeviceWork {
    factors: [Tensor; 2],
    array: Tensor,
}

impl DeviceWork {
    /// Operations of the product.
    pub const FLOPS: f64 = 2.0 * (SIDE as f64) * (SIDE as f64) * (SIDE as f64);

    /// Bytes that the copy reads and writes.
    pub const BYTES: f64 = 2.0 * ARRAY as f64;

    /// On the device of a model, in the element type that its weights have there.
    ///
    /// Errors: [`crate::error::Error::Candle`] where the device has no room for it.
    pub fn prepare(decoder: &Decoder) -> Result<Self> {
        let device = decoder.device();
        let random = || {
            Tensor::rand(-0.5f32, 0.5, (SIDE, SIDE), device)?.to_dtype(decoder.precision().dtype)
        };
        Ok(Self {
            factors: [random()?, random()?],
            array: Tensor::zeros(ARRAY / 4, DType::F32, device)?,
        })
    }

    /// Multiplies once and waits for it.
    ///
    /// Errors: [`crate::error::Error::Candle`].
    pub fn multiply(&self) -> Result<()> {
        let [a, b] = &self.factors;
        a.matmul(b)?;
        Ok(a.device().synchronize()?)
    }

    /// Copies once and waits for it.
    ///
    /// Errors: [`crate::error::Error::Candle`].
    pub fn copy(&self) -> Result<()> {
        self.array.copy()?;
        Ok(self.array.device().synchronize()?)
    }
}
