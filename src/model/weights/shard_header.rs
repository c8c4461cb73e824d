//! What is wrong with the header of a safetensors file, said by the tensor that is at fault.

use std::collections::HashSet;
use std::fmt;

use safetensors::tensor::TensorInfo;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::Value;

/// Bytes before the header that say how long it is.
const LENGTH: usize = 8;

/// The entry that is no tensor.
const METADATA: &str = "__metadata__";

/// The entries of a header in their order, so that one that comes twice is seen.
struct Entries(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with an entry for every tensor")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Entries, M::Error> {
                let (mut names, mut all) = (HashSet::new(), Vec::new());
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if !names.insert(name.clone()) {
                        return Err(de::Error::custom(format!("the tensor {name} comes twice")));
                    }
                    all.push((name, value));
                }
                Ok(Entries(all))
            }
        }
        deserializer.deserialize_map(All)
    }
}

/// Refuses a header that does not fit its file: every tensor must take the bytes of its shape and type, one after
/// another from the header to the end of the file.
///
/// Differs: the safetensors crate makes the same checks, without the names; nothing is allocated by what the header
/// says.
pub(crate) fn check(file: &[u8]) -> Result<(), String> {
    let length = file.first_chunk::<LENGTH>().map(|n| u64::from_le_bytes(*n));
    let length = length.ok_or_else(|| format!("it has {} bytes", file.len()))?;
    let rest = &file[LENGTH..];
    let header = usize::try_from(length).ok().and_then(|n| rest.get(..n));
    let header = header.ok_or_else(|| {
        format!(
            "its header should have {length} bytes, but only {} are there",
            rest.len()
        )
    })?;
    check_places(header, rest.len() - header.len())
}

/// Refuses a header whose tensors do not lie one after another in the `data` bytes behind it.
pub(crate) fn check_places(header: &[u8], data: usize) -> Result<(), String> {
    let entries: Entries =
        serde_json::from_slice(header).map_err(|e| format!("its header cannot be read: {e}"))?;
    let entries = entries.0.into_iter().filter(|(name, _)| name != METADATA);
    let mut tensors = entries
        .map(|(name, value)| match TensorInfo::deserialize(value) {
            Ok(info) => Ok((name, info)),
            Err(e) => Err(format!("the entry of tensor {name} cannot be read: {e}")),
        })
        .collect::<Result<Vec<_>, _>>()?;
    tensors.sort_by_key(|(_, info)| info.data_offsets);
    check_order(&tensors, data)
}

/// Refuses tensors that do not lie one after another in `data` bytes.
fn check_order(tensors: &[(String, TensorInfo)], data: usize) -> Result<(), String> {
    let mut free = 0;
    for (name, info) in tensors {
        let (start, end) = info.data_offsets;
        let bits = (info.shape.iter())
            .try_fold(1usize, |n, &d| n.checked_mul(d))
            .and_then(|numbers| numbers.checked_mul(info.dtype.bitsize()));
        let shape = &info.shape;
        let bits =
            bits.ok_or_else(|| format!("tensor {name} has an impossible shape {shape:?}"))?;
        if start != free {
            return Err(format!(
                "tensor {name} begins at byte {start} of the data, where byte {free} is expected"
            ));
        }
        if end < start || end - start != bits.div_ceil(8) {
            return Err(format!(
                "tensor {name} of shape {shape:?} and type {} takes {} bytes, but lies at {start} to {end}",
                info.dtype,
                bits.div_ceil(8)
            ));
        }
        if end > data {
            return Err(format!(
                "tensor {name} ends at byte {end} of the data, of which there are {data}"
            ));
        }
        free = end;
    }
    if free < data {
        return Err(format!("{} bytes belong to no tensor", data - free));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: usize) -> Vec<u8> {
        let length = header.len() as u64;
        [&length.to_le_bytes(), header.as_bytes(), &vec![0; data]].concat()
    }

    /// One tensor of float32.
    fn tensor(name: &str, shape: &str, start: usize, end: usize) -> String {
        format!(r#""{name}":{{"dtype":"F32","shape":{shape},"data_offsets":[{start},{end}]}}"#)
    }

    fn refused(entries: &[String], data: usize) -> String {
        check(&file(&format!("{{{}}}", entries.join(",")), data)).unwrap_err()
    }

    #[test]
    fn sound_headers_pass() {
        let metadata = r#""__metadata__":{"format":"pt"}"#.to_owned();
        let all = [
            metadata,
            tensor("b", "[2]", 8, 16),
            tensor("a", "[1,2]", 0, 8),
        ]
        .join(",");
        check(&file(&format!("{{{all}}}  "), 16)).unwrap();
        check(&file("{}", 0)).unwrap();
    }

    #[test]
    fn the_tensor_at_fault_is_named() {
        let said = |entry: String, data| refused(&[entry], data);
        assert!(said(tensor("a", "[2]", 0, 4), 4).contains("tensor a of shape [2] and type F32"));
        assert!(said(tensor("a", "[2]", 8, 0), 8).contains("tensor a begins at byte 8"));
        assert!(said(tensor("a", "[2]", 0, 8), 7).contains("tensor a ends at byte 8"));
        assert!(said(tensor("a", "[2]", 0, 8), 9).contains("1 bytes belong to no tensor"));
        let huge = tensor("a", "[4294967296,4294967296]", 0, 0);
        assert!(said(huge, 8).contains("impossible shape"));
        let wild = tensor("a", "[1099511627776]", 0, 1 << 42);
        assert!(said(wild, 8).contains("ends at byte 4398046511104"));
        let (one, other) = (tensor("a", "[2]", 0, 8), tensor("b", "[2]", 4, 12));
        assert!(refused(&[one.clone(), other], 12).contains("tensor b begins at byte 4"));
        assert!(refused(&[one.clone(), one], 8).contains("tensor a comes twice"));
        let entry = r#""a":{"dtype":"F31","shape":[2],"data_offsets":[0,8]}"#;
        assert!(refused(&[entry.to_owned()], 8).contains("tensor a cannot be read"));
        let entry = r#""a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}"#;
        assert!(refused(&[entry.to_owned()], 8).contains("tensor a cannot be read"));
    }

    #[test]
    fn lengths_and_texts_that_cannot_be_are_refused() {
        assert!(check(b"1234").unwrap_err().contains("4 bytes"));
        for length in [3u64, 1 << 40, 1 << 63, u64::MAX] {
            let file = [&length.to_le_bytes()[..], b"{}"].concat();
            assert!(check(&file).unwrap_err().contains(&length.to_string()));
        }
        for text in ["", "[]", "{", "nonsense", "\u{7b}\u{fffd}"] {
            assert!(check(&file(text, 0)).is_err(), "{text}");
        }
    }
}
