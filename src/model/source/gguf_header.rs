//! Where the header of a GGUF file ends, found while it is read; what it says is judged by the reader that opens it.

use std::io::{self, Read};

use crate::model::gguf_walk::{Walk, no_header};

/// The parts of a GGUF file that say what the model is.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct HeaderExtent {
    /// Bytes of the header.
    pub(super) bytes: u64,
    /// Start and length of the small tensors that hold factors of rotary positions, which belong to the configuration.
    pub(super) factors: Vec<(u64, u64)>,
}

/// Tensors that are read with the configuration.
const FACTORS: [&[u8]; 3] = [
    b"rope_freqs.weight",
    b"rope_factors_long.weight",
    b"rope_factors_short.weight",
];
/// Larger ones are no such factors: 1 MiB.
const MAX_FACTORS: u64 = 1 << 20;
/// Dimensions of a tensor, at most.
const MAX_DIMENSIONS: u64 = 8;

/// Reads a header to its end and no further.
///
/// Errors: those of the reader; [`io::ErrorKind::InvalidData`] for what is no header of version 2 or 3.
pub(super) fn read_header(reader: &mut impl Read) -> io::Result<HeaderExtent> {
    let mut walk = Walk::new(reader);
    let version = walk.begin()?;
    if !(2..=3).contains(&version) {
        return Err(no_header(&format!(
            "its version is {version}, only 2 and 3 are known"
        )));
    }
    let (tensors, entries) = (walk.length()?, walk.length()?);
    let mut alignment = 32;
    for _ in 0..entries {
        alignment = walk.entry()?.unwrap_or(alignment);
    }
    let mut factors = Vec::new();
    for _ in 0..tensors {
        let name = walk.name()?;
        let (offset, bytes) = walk.tensor()?;
        if FACTORS.contains(&name.as_slice()) {
            factors.extend(bytes.map(|bytes| (offset, bytes)));
        }
    }
    let header = walk.position;
    let data = header.checked_next_multiple_of(alignment.max(1));
    let place = |(offset, bytes)| Some((data?.checked_add(offset)?, bytes));
    Ok(HeaderExtent {
        bytes: header,
        factors: factors.into_iter().filter_map(place).collect(),
    })
}

impl<R: Read> Walk<'_, R> {
    /// Offset of a tensor's data, and their length where they are few numbers in two or four bytes each.
    fn tensor(&mut self) -> io::Result<(u64, Option<u64>)> {
        let dimensions = self.number(4)?;
        if dimensions > MAX_DIMENSIONS {
            return Err(no_header(&format!(
                "it has a tensor of {dimensions} dimensions"
            )));
        }
        let mut elements = Some(1u64);
        for _ in 0..dimensions {
            let size = self.number(8)?;
            elements = elements.and_then(|n| n.checked_mul(size));
        }
        let width = match self.number(4)? {
            0 => Some(4),
            1 => Some(2),
            _ => None,
        };
        let bytes = elements
            .zip(width)
            .and_then(|(n, width)| n.checked_mul(width));
        Ok((self.number(8)?, bytes.filter(|bytes| *bytes <= MAX_FACTORS)))
    }
}
