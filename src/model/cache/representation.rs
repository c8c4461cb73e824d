//! In which elements a cache holds keys and values, and how many bytes that takes.

use std::fmt;
use std::str::FromStr;

use candle_core::DType;

use crate::error::{Error, Result};

/// How the numbers of a key or of a value lie in memory.
///
/// Differs: every count of bytes asks [`Elements::bytes`], so that a format of fewer bits is one more case here and a
/// file of its own where it is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elements {
    /// Four bytes a number.
    Float32,
    /// Two bytes, the exponents of float32.
    Bfloat16,
    /// Two bytes, eleven significant bits.
    Float16,
}

impl Elements {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Float32, Self::Bfloat16, Self::Float16];

    /// Its name on the command line and in files.
    pub fn name(self) -> &'static str {
        self.dtype().as_str()
    }

    /// The element type of the tensors that hold it.
    pub fn dtype(self) -> DType {
        match self {
            Self::Float32 => DType::F32,
            Self::Bfloat16 => DType::BF16,
            Self::Float16 => DType::F16,
        }
    }

    /// What holds numbers of a tensor's type.
    ///
    /// Errors: [`Error::UnknownName`] for a type that no cache has.
    pub fn of(dtype: DType) -> Result<Self> {
        Self::named(dtype.as_str())
    }

    fn named(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|e| e.name() == name);
        found.ok_or_else(|| {
            Error::unknown("type of a cache", name, Self::ALL.iter().map(|e| e.name()))
        })
    }

    /// Bytes of `rows` keys or values of `width` numbers.
    pub fn bytes(self, rows: usize, width: usize) -> usize {
        rows * width * self.dtype().size_in_bytes()
    }
}

/// The elements of keys and those of values.
///
/// Differs: written `bf16` where both are the same, `k=bf16,v=f32` where they are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Representation {
    /// Of keys.
    pub keys: Elements,
    /// Of values.
    pub values: Elements,
}

impl Representation {
    /// Float32 for both.
    pub const FLOAT32: Self = Self::both(Elements::Float32);

    /// The same for keys and values.
    pub const fn both(elements: Elements) -> Self {
        Self {
            keys: elements,
            values: elements,
        }
    }

    /// What holds keys and values of a tensor's type.
    ///
    /// Errors: as [`Elements::of`].
    pub fn of(dtype: DType) -> Result<Self> {
        Elements::of(dtype).map(Self::both)
    }

    /// Bytes of the keys and values of `tokens` of one KV head.
    pub fn bytes(self, tokens: usize, head_dim: usize) -> usize {
        self.keys.bytes(tokens, head_dim) + self.values.bytes(tokens, head_dim)
    }
}

impl fmt::Display for Representation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.keys == self.values {
            return f.write_str(self.keys.name());
        }
        write!(f, "k={},v={}", self.keys.name(), self.values.name())
    }
}

impl FromStr for Representation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (keys, values) = match text.split_once(',') {
            Some(both) => both,
            // Half of a pair is no type of its own.
            None if text.contains('=') => (text, ""),
            None => return Elements::named(text.trim()).map(Self::both),
        };
        let part = |text: &str, letter: &str| {
            let name = text.trim().strip_prefix(letter);
            name.and_then(|rest| rest.strip_prefix('='))
                .map(str::to_owned)
        };
        match (part(keys, "k"), part(values, "v")) {
            (Some(keys), Some(values)) => Ok(Self {
                keys: Elements::named(&keys)?,
                values: Elements::named(&values)?,
            }),
            _ => Err(Error::invalid(
                "type of the cache",
                text,
                "expected one type for both (bf16), or k=TYPE,v=TYPE (k=bf16,v=f32)",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_those_of_keys_and_of_values() {
        let mixed: Representation = "k=f32,v=bf16".parse().unwrap();
        assert_eq!(mixed.bytes(10, 64), 10 * 64 * (4 + 2));
        assert_eq!(Representation::FLOAT32.bytes(3, 8), 3 * 8 * 8);
    }

    #[test]
    fn spellings_are_read_back() {
        for keys in Elements::ALL {
            assert_eq!(Elements::of(keys.dtype()).unwrap(), keys);
            for values in Elements::ALL {
                let representation = Representation { keys, values };
                assert_eq!(
                    representation
                        .to_string()
                        .parse::<Representation>()
                        .unwrap(),
                    representation
                );
            }
        }
        assert_eq!("f16".parse::<Representation>().unwrap().to_string(), "f16");
    }

    #[test]
    fn what_no_cache_holds_is_refused_with_what_one_does() {
        let said = |text: &str| text.parse::<Representation>().unwrap_err().to_string();
        assert!(said("q8").contains("bf16"), "{}", said("q8"));
        assert!(said("bf16,f16").contains("k=TYPE,v=TYPE"));
        assert!(said("k=f16").contains("k=TYPE,v=TYPE"));
        assert!(said("v=bf16,k=f16").contains("k=TYPE,v=TYPE"));
        assert!(said("k=bf16,v=f64").contains("f64"));
        assert!(Elements::of(DType::U32).is_err());
    }
}
