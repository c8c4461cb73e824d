//! Finds `general.alignment` in a GGUF header before anything divides by it.

use std::io::{BufReader, Read, Seek};

/// Arrays inside arrays, at most; deeper ones are refused by the reader that follows.
const DEPTH: usize = 64;

/// The alignment that the header declares, if it declares one and can be walked that far.
///
/// Differs: judges nothing else; a header that breaks off gives `None`.
pub(super) fn declared<R: Read + Seek>(reader: &mut BufReader<R>) -> Option<u64> {
    let mut walk = Walk { reader, wide: true };
    walk.skip(4)?; // magic
    walk.wide = walk.uint(4)? > 1;
    walk.length()?; // tensors
    let entries = walk.length()?;
    let mut found = None;
    for _ in 0..entries {
        let key = walk.length()?;
        let is_alignment = match key {
            17 => {
                let mut name = [0u8; 17];
                walk.reader.read_exact(&mut name).ok()?;
                &name == b"general.alignment"
            }
            other => {
                walk.skip(other)?;
                false
            }
        };
        let kind = walk.uint(4)?;
        match scalar_width(kind) {
            // The last entry of a name is the one that counts.
            Some(width) if is_alignment => found = Some(walk.uint(width)?),
            _ => walk.skip_value(kind, DEPTH)?,
        }
    }
    found
}

/// Bytes of a scalar of this type; `None` for text, arrays and unknown types.
fn scalar_width(kind: u64) -> Option<usize> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

struct Walk<'a, R> {
    reader: &'a mut BufReader<R>,
    /// Lengths take 8 bytes, as from version 2 on.
    wide: bool,
}

impl<R: Read + Seek> Walk<'_, R> {
    fn uint(&mut self, width: usize) -> Option<u64> {
        let mut bytes = [0u8; 8];
        self.reader.read_exact(&mut bytes[..width]).ok()?;
        Some(u64::from_le_bytes(bytes))
    }

    fn length(&mut self) -> Option<u64> {
        self.uint(if self.wide { 8 } else { 4 })
    }

    fn skip(&mut self, bytes: u64) -> Option<()> {
        self.reader.seek_relative(i64::try_from(bytes).ok()?).ok()
    }

    fn skip_value(&mut self, kind: u64, depth: usize) -> Option<()> {
        match (kind, scalar_width(kind)) {
            (_, Some(width)) => self.skip(width as u64),
            (8, _) => {
                let length = self.length()?;
                self.skip(length)
            }
            (9, _) if depth > 0 => {
                let element = self.uint(4)?;
                let count = self.length()?;
                if let Some(width) = scalar_width(element) {
                    return self.skip(count.checked_mul(width as u64)?);
                }
                for _ in 0..count {
                    self.skip_value(element, depth - 1)?;
                }
                Some(())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn header(entries: &[(&str, u32, &[u8])]) -> Vec<u8> {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend(0u64.to_le_bytes());
        bytes.extend((entries.len() as u64).to_le_bytes());
        for (key, kind, value) in entries {
            bytes.extend((key.len() as u64).to_le_bytes());
            bytes.extend(key.as_bytes());
            bytes.extend(kind.to_le_bytes());
            bytes.extend(*value);
        }
        bytes
    }

    fn alignment(bytes: Vec<u8>) -> Option<u64> {
        declared(&mut BufReader::new(Cursor::new(bytes)))
    }

    #[test]
    fn it_is_found_behind_every_kind_of_value() {
        let text = [2u64.to_le_bytes().as_slice(), b"ab"].concat();
        let numbers = [4u32.to_le_bytes().as_slice(), &2u64.to_le_bytes(), &[0; 8]].concat();
        let texts = [8u32.to_le_bytes().as_slice(), &1u64.to_le_bytes(), &text].concat();
        let entries = [
            ("a", 0, [7].as_slice()),
            ("general.alignmenT", 4, &[9, 0, 0, 0]),
            ("b", 8, &text),
            ("c", 9, &numbers),
            ("d", 9, &texts),
            ("general.alignment", 4, &[64, 0, 0, 0]),
        ];
        assert_eq!(alignment(header(&entries)), Some(64));
        assert_eq!(alignment(header(&entries[..5])), None);
        assert_eq!(
            alignment(header(&[("general.alignment", 2, &[0, 0])])),
            Some(0)
        );
    }

    #[test]
    fn broken_headers_give_nothing() {
        let whole = header(&[("general.alignment", 4, &[64, 0, 0, 0])]);
        for end in 0..whole.len() {
            assert_eq!(alignment(whole[..end].to_vec()), None, "{end}");
        }
        let endless = header(&[(
            "x",
            9,
            &[9, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 127],
        )]);
        assert_eq!(alignment(endless), None);
    }
}
