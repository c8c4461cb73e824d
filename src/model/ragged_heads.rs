//! Where the keys and values of a layer's KV heads lie among its packed rows.

use candle_core::{Device, Tensor};

use crate::compute::device::size;
use crate::error::Result;

/// Where the keys and values of one KV head lie among the packed rows of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RaggedHead {
    /// Its first row.
    pub start: usize,
    /// Tokens held.
    pub length: usize,
}

/// The KV heads of a layer, and the pieces that their keys are cut into, on the device.
///
/// Differs: made once and good for as many tokens to come as it has room for, so that a step of decoding brings
/// nothing to the device.
pub struct RaggedHeads {
    pub(super) heads: Vec<RaggedHead>,
    pub(super) room: usize,
    pub(super) pieces: usize,
    /// Starts and lengths of heads; heads, first keys and ends of pieces; the first piece of every head.
    pub(super) table: Tensor,
}

impl RaggedHeads {
    /// For heads that hold what they hold and `room` more tokens to come.
    ///
    /// Errors: [`crate::error::Error::Candle`] when the device has no room; [`crate::error::Error::Invalid`] for sizes beyond 32 bits.
    pub fn new(heads: &[RaggedHead], room: usize, device: &Device) -> Result<Self> {
        let mut table = Vec::new();
        for head in heads {
            table.push(size("row of a cache", head.start)?);
            table.push(size("number of tokens", head.length + room)? - room as u32);
        }
        let mut firsts = vec![0];
        let mut pieces = 0;
        for (h, head) in heads.iter().enumerate() {
            let mut from = 0;
            while from < head.length + room {
                let end = end_of_piece(from);
                table.extend([h as u32, from as u32, size("number of tokens", end)?]);
                from = end;
                pieces += 1;
            }
            firsts.push(pieces as u32);
        }
        table.extend(firsts);
        Ok(Self {
            heads: heads.to_vec(),
            room,
            pieces,
            table: Tensor::from_slice(&table, table.len(), device)?,
        })
    }

    /// The table that kernels read.
    pub fn table(&self) -> &Tensor {
        &self.table
    }
}

/// The end of the piece of keys that begins at `from`: small ones first, so that short heads have several too.
///
/// It depends on nothing but the key: neither room nor other heads change how a head's sums are added up.
fn end_of_piece(from: usize) -> usize {
    let keys = match from {
        0..1024 => 64,
        1024..4096 => 128,
        4096..16_384 => 256,
        _ => 512,
    };
    from + keys
}
