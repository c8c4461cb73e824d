//! Work that shows what a device can do at best: a matrix product, and copying memory.

use candle_core::{DType, Device, Tensor};

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

    /// On a device, the product of an element type.
    ///
    /// Errors: [`crate::error::Error::Candle`] where the device has no room for it.
    pub fn prepare(device: &Device, dtype: DType) -> Result<Self> {
        let random = || Tensor::rand(-0.5f32, 0.5, (SIDE, SIDE), device)?.to_dtype(dtype);
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
