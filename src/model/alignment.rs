//! Finds `general.alignment` in a GGUF header before anything divides by it.

use std::io::Read;

use super::gguf_walk::Walk;

/// The alignment that the header declares, if it declares one and can be walked that far.
///
/// Differs: judges nothing else; a header that breaks off gives `None`. The last entry of the name is the one that
/// counts.
pub(super) fn declared(reader: &mut impl Read) -> Option<u64> {
    let mut walk = Walk::new(reader);
    walk.begin().ok()?;
    let _tensors = walk.length().ok()?;
    let entries = walk.length().ok()?;
    let mut found = None;
    for _ in 0..entries {
        found = walk.entry().ok()?.or(found);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufReader, Cursor};

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
