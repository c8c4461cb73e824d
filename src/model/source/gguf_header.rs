//! Where the header of a GGUF file ends, found while it is read; what it says is judged by the reader that opens it.

use std::io::{self, Read};

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
/// Names of tensors and entries are no longer.
const MAX_NAME: u64 = 1 << 16;
/// Arrays inside arrays, at most.
const DEPTH: usize = 64;
/// Dimensions of a tensor, at most.
const MAX_DIMENSIONS: u64 = 8;

/// Reads a header to its end and no further.
///
/// Errors: those of the reader; [`io::ErrorKind::InvalidData`] for what is no header of version 2 or 3.
pub(super) fn read_header(reader: &mut impl Read) -> io::Result<HeaderExtent> {
    let mut walk = Walk {
        reader,
        position: 0,
    };
    if &walk.bytes::<4>()? != b"GGUF" {
        return Err(no_header("it does not start with the letters GGUF"));
    }
    let version = walk.number(4)?;
    if !(2..=3).contains(&version) {
        return Err(no_header(&format!(
            "its version is {version}, only 2 and 3 are known"
        )));
    }
    let (tensors, entries) = (walk.number(8)?, walk.number(8)?);
    let mut alignment = 32;
    for _ in 0..entries {
        let key = walk.name()?;
        let kind = walk.number(4)?;
        match width_of(kind) {
            Some(width) if key == b"general.alignment" => alignment = walk.number(width)?,
            _ => walk.skip_value(kind, DEPTH)?,
        }
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

fn no_header(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Bytes of a scalar of this type; `None` for text, arrays and unknown types.
fn width_of(kind: u64) -> Option<usize> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

struct Walk<'a, R> {
    reader: &'a mut R,
    position: u64,
}

impl<R: Read> Walk<'_, R> {
    fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes)?;
        self.position += N as u64;
        Ok(bytes)
    }

    fn number(&mut self, width: usize) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.reader.read_exact(&mut bytes[..width])?;
        self.position += width as u64;
        Ok(u64::from_le_bytes(bytes))
    }

    fn name(&mut self) -> io::Result<Vec<u8>> {
        let length = self.number(8)?;
        if length > MAX_NAME {
            return Err(no_header(&format!("it has a name of {length} bytes")));
        }
        let mut name = vec![0; length as usize];
        self.reader.read_exact(&mut name)?;
        self.position += length;
        Ok(name)
    }

    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let skipped = io::copy(&mut self.reader.by_ref().take(bytes), &mut io::sink())?;
        self.position += skipped;
        if skipped < bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    fn skip_value(&mut self, kind: u64, depth: usize) -> io::Result<()> {
        if let Some(width) = width_of(kind) {
            return self.skip(width as u64);
        }
        match kind {
            8 => {
                let length = self.number(8)?;
                self.skip(length)
            }
            9 if depth > 0 => {
                let element = self.number(4)?;
                let count = self.number(8)?;
                if let Some(width) = width_of(element) {
                    let bytes = count.checked_mul(width as u64);
                    return self.skip(bytes.ok_or_else(|| no_header("an array has no end"))?);
                }
                (0..count).try_for_each(|_| self.skip_value(element, depth - 1))
            }
            _ => Err(no_header(&format!(
                "it has a value of the unknown type {kind}"
            ))),
        }
    }

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
