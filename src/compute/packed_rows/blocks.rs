//! Blocks of 32 columns as llama.cpp lays them out: its types of a quantised cache.

use std::ops::Range;

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use half::f16;

use crate::compute::lanes::{LANES, Lanes};
use crate::compute::linear::blocks::{Block, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
use crate::error::{Error, Result};

/// A type of llama.cpp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockFormat {
    /// 8 bits and a scale: 34 bytes.
    Q8_0,
    /// 5 bits, a scale and a minimum: 24 bytes.
    Q5_1,
    /// 5 bits and a scale: 22 bytes.
    Q5_0,
    /// 4 bits, a scale and a minimum: 20 bytes.
    Q4_1,
    /// 4 bits and a scale: 18 bytes.
    Q4_0,
}

/// Columns of a block.
pub(crate) const BLOCK: usize = 32;

impl BlockFormat {
    /// All of them, most bits first.
    pub const ALL: [Self; 5] = [Self::Q8_0, Self::Q5_1, Self::Q5_0, Self::Q4_1, Self::Q4_0];

    /// Its name in llama.cpp.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q8_0 => "q8_0",
            Self::Q5_1 => "q5_1",
            Self::Q5_0 => "q5_0",
            Self::Q4_1 => "q4_1",
            Self::Q4_0 => "q4_0",
        }
    }

    fn of_ggml(self) -> GgmlDType {
        match self {
            Self::Q8_0 => GgmlDType::Q8_0,
            Self::Q5_1 => GgmlDType::Q5_1,
            Self::Q5_0 => GgmlDType::Q5_0,
            Self::Q4_1 => GgmlDType::Q4_1,
            Self::Q4_0 => GgmlDType::Q4_0,
        }
    }

    /// Bytes of a row.
    pub(super) fn bytes(self, width: usize) -> usize {
        width.div_ceil(BLOCK) * self.of_ggml().type_size()
    }

    /// Codes rows, a multiple of [`BLOCK`] numbers, behind what is there.
    pub(super) fn pack(self, rows: &[f32], to: &mut Vec<u8>) -> Result<()> {
        let reach = f32::from(f16::MAX);
        if !rows.iter().all(|x| x.abs() <= reach) {
            return Err(Error::NotFinite {
                place: "a row to be held in few bits".into(),
                advice: "its scales are float16, which ends at 65504: hold keys and values in bf16 or f32".into(),
            });
        }
        let rows = Tensor::from_slice(rows, rows.len(), &Device::Cpu)?;
        to.extend_from_slice(&QTensor::quantize(&rows, self.of_ggml())?.data()?);
        Ok(())
    }

    #[inline(always)]
    pub(super) fn unpack<L: Lanes>(
        self,
        packed: &[u8],
        width: usize,
        rows: Range<usize>,
        to: &mut [f32],
    ) {
        let size = self.bytes(width);
        let packed = &packed[rows.start * size..rows.end * size];
        match self {
            Self::Q8_0 => unpack::<L, Q8_0>(packed, to),
            Self::Q5_1 => unpack::<L, Q5_1>(packed, to),
            Self::Q5_0 => unpack::<L, Q5_0>(packed, to),
            Self::Q4_1 => unpack::<L, Q4_1>(packed, to),
            Self::Q4_0 => unpack::<L, Q4_0>(packed, to),
        }
    }
}

#[inline(always)]
fn unpack<L: Lanes, B: Block>(packed: &[u8], to: &mut [f32]) {
    let (vectors, _) = to.as_chunks_mut::<LANES>();
    for (block, pair) in packed
        .chunks_exact(B::BYTES)
        .zip(vectors.chunks_exact_mut(2))
    {
        let [low, high] = B::unpack::<L>(block, 0);
        L::store(low, &mut pair[0]);
        L::store(high, &mut pair[1]);
    }
}
