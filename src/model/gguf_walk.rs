//! Walking through the header of a GGUF file without keeping what it says.

use std::io::{self, Read};

/// Names of tensors and entries are no longer.
const MAX_NAME: u64 = 1 << 16;
/// Arrays inside arrays, at most.
const DEPTH: usize = 64;

/// What is no header, and why.
pub(in crate::model) fn no_header(why: &str) -> io::Error {
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

/// A place in a header.
pub(in crate::model) struct Walk<'a, R> {
    reader: &'a mut R,
    /// Bytes that were passed.
    pub(in crate::model) position: u64,
    /// Bytes of a length: eight from version 2 on.
    length_width: usize,
}

impl<'a, R: Read> Walk<'a, R> {
    /// At the beginning of a file.
    pub(in crate::model) fn new(reader: &'a mut R) -> Self {
        Self {
            reader,
            position: 0,
            length_width: 8,
        }
    }

    /// Passes what every header begins with, and gives its version.
    ///
    /// Errors: those of the reader; [`io::ErrorKind::InvalidData`] for other letters than GGUF.
    pub(in crate::model) fn begin(&mut self) -> io::Result<u64> {
        let mut magic = [0; 4];
        self.reader.read_exact(&mut magic)?;
        self.position += 4;
        if &magic != b"GGUF" {
            return Err(no_header("it does not start with the letters GGUF"));
        }
        let version = self.number(4)?;
        self.length_width = if version > 1 { 8 } else { 4 };
        Ok(version)
    }

    /// A length or a count.
    pub(in crate::model) fn length(&mut self) -> io::Result<u64> {
        self.number(self.length_width)
    }

    /// Passes an entry of the metadata; gives the number that it holds if it is `general.alignment`.
    pub(in crate::model) fn entry(&mut self) -> io::Result<Option<u64>> {
        let key = self.name()?;
        let kind = self.number(4)?;
        match width_of(kind) {
            Some(width) if key == b"general.alignment" => self.number(width).map(Some),
            _ => self.skip_value(kind, DEPTH).map(|()| None),
        }
    }

    /// A whole number of so many bytes.
    pub(in crate::model) fn number(&mut self, width: usize) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.reader.read_exact(&mut bytes[..width])?;
        self.position += width as u64;
        Ok(u64::from_le_bytes(bytes))
    }

    /// The name of an entry or a tensor.
    pub(in crate::model) fn name(&mut self) -> io::Result<Vec<u8>> {
        let length = self.length()?;
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
                let length = self.length()?;
                self.skip(length)
            }
            9 if depth > 0 => {
                let element = self.number(4)?;
                let count = self.length()?;
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
}
