//! NumPy's `.npy`: one array of floats behind a short text header.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result};
use crate::files;

/// The first bytes of every `.npy` file.
const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// Header and magic together end on a multiple of this.
const ALIGNMENT: usize = 64;

/// Whether a file begins as every `.npy` file does; a file that cannot be read does not.
pub fn is_npy(path: &Path) -> bool {
    let mut start = [0; MAGIC.len()];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start == *MAGIC
}

/// Writes an array of 64-bit floats in C order.
///
/// Errors: [`Error::Io`]; [`Error::Invalid`] for a shape that does not hold the values.
pub fn write_npy(path: &Path, shape: &[usize], values: &[f64]) -> Result<()> {
    if elements(shape) != Some(values.len()) {
        let bound = format!("{} values are to be written", values.len());
        let shape = format!("{shape:?}");
        return Err(Error::invalid("shape of the array", shape, bound));
    }
    let comma = if shape.len() == 1 { "," } else { "" };
    let lengths: Vec<String> = shape.iter().map(usize::to_string).collect();
    let lengths = lengths.join(", ");
    let mut header =
        format!("{{'descr': '<f8', 'fortran_order': False, 'shape': ({lengths}{comma}), }}");
    let used = MAGIC.len() + 4 + header.len() + 1;
    header.push_str(&" ".repeat(used.next_multiple_of(ALIGNMENT) - used));
    header.push('\n');
    let length = u16::try_from(header.len())
        .map_err(|_| Error::invalid("shape of the array", shape.len(), "it has too many axes"))?;
    files::replace(path, |file| {
        use std::io::Write;
        file.write_all(MAGIC)?;
        file.write_all(&[1, 0])?;
        file.write_all(&length.to_le_bytes())?;
        file.write_all(header.as_bytes())?;
        values
            .iter()
            .try_for_each(|v| file.write_all(&v.to_le_bytes()))
    })
}

/// Reads an array of 32-bit or 64-bit floats in C order, with its shape.
///
/// Errors: [`Error::Io`]; [`Error::Format`] for what is no such array.
pub fn read_npy(path: &Path) -> Result<(Vec<usize>, Vec<f64>)> {
    let bytes = std::fs::read(path).map_err(|e| Error::io("read", path, e))?;
    parse(&bytes).map_err(|problem| Error::format(path, problem))
}

fn parse(bytes: &[u8]) -> Result<(Vec<usize>, Vec<f64>), String> {
    let rest = bytes
        .strip_prefix(MAGIC)
        .ok_or("is not a .npy file: save the array with numpy.save")?;
    let cut_short = "ends inside its header: save the array again";
    let ([major, minor], rest) = rest.split_first_chunk().ok_or(cut_short)?;
    let size = match (major, minor) {
        (1, 0) => 2,
        // These have room for a longer header.
        (2 | 3, 0) => 4,
        _ => {
            return Err(format!(
                "has version {major}.{minor} of the format; 1.0, 2.0 and 3.0 are read: save the array with numpy.save"
            ));
        }
    };
    let (length, rest) = rest.split_at_checked(size).ok_or(cut_short)?;
    let length = (length.iter().rev()).fold(0usize, |n, &b| n << 8 | usize::from(b));
    let (header, data) = rest.split_at_checked(length).ok_or(cut_short)?;
    let header = std::str::from_utf8(header).map_err(|_| "has a header that is no text")?;
    match plain_value(header_value(header, "fortran_order")?) {
        "False" => {}
        "True" => return Err("is in Fortran order: save numpy.ascontiguousarray(array)".into()),
        other => {
            return Err(format!(
                "has the order {other:?} in its header: save the array again"
            ));
        }
    }
    let shape = shape_of(header)?;
    let count = elements(&shape).ok_or("has a shape beyond all memory")?;
    let width = match quoted(header_value(header, "descr")?) {
        Some("<f4") => 4,
        Some("<f8") => 8,
        other => {
            let found = other.map_or("a structure".to_owned(), |name| format!("{name:?}"));
            return Err(format!(
                "holds the type {found}: save array.astype('<f8'), little-endian floats"
            ));
        }
    };
    if count.checked_mul(width) != Some(data.len()) {
        return Err(format!(
            "has {} bytes of data where its shape {shape:?} needs {count} times {width}",
            data.len()
        ));
    }
    let value = |chunk: &[u8]| match *chunk {
        [a, b, c, d] => f64::from(f32::from_le_bytes([a, b, c, d])),
        [a, b, c, d, e, f, g, h] => f64::from_le_bytes([a, b, c, d, e, f, g, h]),
        _ => f64::NAN,
    };
    Ok((shape, data.chunks(width).map(value).collect()))
}

/// What follows `'key':` in the header, a Python dictionary that numpy writes with plain values.
fn header_value<'a>(header: &'a str, key: &str) -> Result<&'a str, String> {
    ["'", "\""]
        .iter()
        .find_map(|quote| header.split_once(&format!("{quote}{key}{quote}")))
        .and_then(|(_, rest)| rest.trim_start().strip_prefix(':'))
        .map(str::trim_start)
        .ok_or_else(|| format!("has no '{key}' in its header"))
}

/// A text of Python's at the start of `rest`; `None` where something else stands there.
fn quoted(rest: &str) -> Option<&str> {
    let quote = rest.chars().next().filter(|c| "'\"".contains(*c))?;
    rest[1..].split_once(quote).map(|(text, _)| text)
}

/// What stands before the next comma or the end of the dictionary.
fn plain_value(rest: &str) -> &str {
    rest.split([',', '}']).next().unwrap_or_default().trim()
}

fn shape_of(header: &str) -> Result<Vec<usize>, String> {
    let bad = || "has a shape that cannot be read".to_owned();
    let list = header_value(header, "shape")?;
    let (list, _) = list
        .strip_prefix('(')
        .and_then(|list| list.split_once(')'))
        .ok_or_else(bad)?;
    list.split(',')
        .map(str::trim)
        .filter(|length| !length.is_empty())
        .map(|length| length.parse().map_err(|_| bad()))
        .collect()
}

fn elements(shape: &[usize]) -> Option<usize> {
    let mut lengths = shape.iter();
    lengths.try_fold(1usize, |n, &length| n.checked_mul(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `numpy.save` of `numpy.arange(3, dtype='<f4').reshape(1, 3)`, byte for byte.
    fn of_numpy() -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3), }";
        bytes.extend(format!("{header:<117}\n").bytes());
        [0f32, 1.0, 2.0]
            .iter()
            .for_each(|v| bytes.extend(v.to_le_bytes()));
        bytes
    }

    #[test]
    fn arrays_read_back_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        for shape in [vec![2, 3], vec![6], vec![1, 2, 3]] {
            let values: Vec<f64> = (0..6).map(|i| f64::from(i) / 7.0).collect();
            write_npy(&path, &shape, &values).unwrap();
            assert_eq!(read_npy(&path).unwrap(), (shape, values));
            assert!(is_npy(&path) && !is_npy(folder.path()));
            let bytes = std::fs::read(&path).unwrap();
            assert_eq!((bytes.len() - 48) % ALIGNMENT, 0);
            assert_eq!(bytes[bytes.len() - 49], b'\n');
        }
        assert!(write_npy(&path, &[2, 2], &[1.0]).is_err());
    }

    #[test]
    fn files_of_numpy_are_read() {
        let want = (vec![1, 3], vec![0.0, 1.0, 2.0]);
        assert_eq!(parse(&of_numpy()).unwrap(), want);
        // Version 2 has four bytes of header length.
        let mut second = b"\x93NUMPY\x02\x00\x76\x00\x00\x00".to_vec();
        second.extend(&of_numpy()[10..]);
        assert_eq!(parse(&second).unwrap(), want);
    }

    #[test]
    fn every_damage_is_named_and_none_panics() {
        let whole = of_numpy();
        for cut in 0..whole.len() {
            assert!(parse(&whole[..cut]).is_err());
        }
        let changed = |from: &str, to: &str| {
            let text: Vec<u8> = whole.clone();
            let at = text
                .windows(from.len())
                .position(|w| w == from.as_bytes())
                .unwrap();
            let mut text = text;
            text.splice(at..at + from.len(), to.bytes());
            parse(&text).unwrap_err()
        };
        assert!(changed("False", "True ").contains("Fortran"));
        assert!(changed("False", "Maybe").contains("\"Maybe\""));
        // The whole name of the type decides, and is shown.
        for name in ["<i4", ">f4", "<f2", "<f80", "<f16", "", "f4"] {
            let text = changed("<f4", name);
            assert!(
                text.contains(&format!("type {name:?}: save array.astype")),
                "{text}"
            );
        }
        let structure = changed("'<f4'", "[('a', '<f4')]");
        assert!(structure.contains("type a structure"), "{structure}");
        let mut ninth = whole.clone();
        ninth[6] = 9;
        let text = parse(&ninth).unwrap_err();
        assert!(
            text.contains("version 9.0") && text.contains("1.0, 2.0 and 3.0"),
            "{text}"
        );
        assert!(changed("(1, 3)", "(1, 4)").contains("needs 4 times 4"));
        assert!(changed("(1, 3)", "(1, x)").contains("shape"));
        assert!(changed("'shape'", "'shade'").contains("'shape'"));
    }
}
