//! In which elements a cache holds keys and values, and how many bytes that takes.

use std::fmt;
use std::str::FromStr;

use candle_core::DType;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::elements::Elements;
use super::side::Side;
use crate::error::{Error, Result};

/// The elements of keys and those of values.
///
/// Differs: written `bf16` where both are the same, `k=q8,v=q4` where they are not.
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

    /// The same for keys and values, of all elements that hold heads of a dimension in a size of their own.
    pub fn that_hold(head_dim: usize) -> Vec<Self> {
        let all = Elements::all().into_iter().map(Self::both);
        let own = |held_as: &Self| !matches!(held_as.keys, Elements::RotatedBlocks(_));
        all.filter(|held_as| own(held_as) && held_as.check_width(head_dim).is_ok())
            .collect()
    }

    /// What holds keys and values of a tensor's type.
    ///
    /// Errors: as [`Elements::of`].
    pub fn of(dtype: DType) -> Result<Self> {
        Elements::of(dtype).map(Self::both)
    }

    /// Those of keys, or of values.
    pub fn of_side(self, side: Side) -> Elements {
        match side {
            Side::Keys => self.keys,
            Side::Values => self.values,
        }
    }

    fn sides(self) -> [(Side, Elements); 2] {
        [(Side::Keys, self.keys), (Side::Values, self.values)]
    }

    /// Bytes of the keys and values of `tokens` of one KV head.
    pub fn bytes(self, tokens: usize, head_dim: usize) -> usize {
        let bytes = |(side, elements): (Side, Elements)| elements.bytes(side, tokens, head_dim);
        self.sides().map(bytes).iter().sum()
    }

    /// Bytes of one more token of a KV head that holds many, averaged over the tokens that are coded together.
    pub fn bytes_per_token(self, head_dim: usize) -> f64 {
        let bytes = |(side, elements): (Side, Elements)| elements.bytes_per_row(side, head_dim);
        self.sides().map(bytes).iter().sum()
    }

    /// What holds the same numbers exactly, each by itself.
    pub fn widened(self) -> Self {
        let dense = |elements: Elements| match elements.dtype() {
            Some(_) => elements,
            None => Elements::Float32,
        };
        Self {
            keys: dense(self.keys),
            values: dense(self.values),
        }
    }

    /// Whether tokens are held at two levels of precision.
    pub fn has_levels(self) -> bool {
        self.sides()
            .iter()
            .all(|(_, elements)| matches!(elements, Elements::Levels(_)))
    }

    /// Whether keys and values are numbers of a tensor's type, and not coded.
    pub fn is_plain(self) -> bool {
        self.sides()
            .iter()
            .all(|(_, elements)| elements.dtype().is_some())
    }

    /// Whether a token can leave, or be forgotten, without any other that is held being touched.
    pub fn holds_tokens_alone(self) -> bool {
        self.sides().iter().all(|(_, elements)| elements.is_alone())
    }

    /// Tokens of a head that keys or values code together, in whole groups of both; 1 where every token is by itself.
    pub fn coded_together(self) -> usize {
        let [keys, values] = self.sides().map(|(_, elements)| elements.coded_together());
        let (mut a, mut b) = (keys, values);
        while b > 0 {
            (a, b) = (b, a % b);
        }
        keys / a.max(1) * values
    }

    /// Tokens that may come to a head that holds `tokens` before some are coded together.
    pub fn until_coded(self, tokens: usize) -> usize {
        let until = self
            .sides()
            .map(|(_, elements)| elements.until_coded(tokens));
        until[0].min(until[1])
    }

    /// Refuses elements that cannot hold heads of this dimension.
    ///
    /// Errors: [`Error::Invalid`] for blocks that do not divide it.
    pub fn check_width(self, head_dim: usize) -> Result<()> {
        let mut sides = self.sides().into_iter();
        sides.try_for_each(|(_, elements)| elements.check_width(head_dim))
    }
}

impl fmt::Display for Representation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.keys == self.values {
            return self.keys.fmt(f);
        }
        write!(f, "k={},v={}", self.keys, self.values)
    }
}

impl FromStr for Representation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parts = split_outside_parentheses(text).into_iter();
        let pair = (parts.next().unwrap_or_default(), parts.next(), parts.next());
        let named = |text: &str, letter: &str| {
            let name = text.trim().strip_prefix(letter);
            let name = name.and_then(|rest| rest.trim_start().strip_prefix('='));
            name.map(str::to_owned)
        };
        let bad = || {
            let bound = "expected one type for both (q4), two for keys and values (q8,q4), or k=TYPE,v=TYPE (k=q8,v=q4)";
            Error::invalid("type of the cache", format!("'{text}'"), bound)
        };
        match pair {
            // Half of a pair is no type of its own.
            (one, None, _) if named(one, "k").or(named(one, "v")).is_none() => {
                one.parse().map(Self::both)
            }
            (keys, Some(values), None) => match (named(keys, "k"), named(values, "v")) {
                (Some(keys), Some(values)) => Ok(Self {
                    keys: keys.parse()?,
                    values: values.parse()?,
                }),
                (None, None) if !keys.contains('=') || keys.contains('(') => Ok(Self {
                    keys: keys.parse()?,
                    values: values.parse()?,
                }),
                _ => Err(bad()),
            },
            _ => Err(bad()),
        }
    }
}

/// Files hold the spelling.
impl Serialize for Representation {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Representation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Parts between commas that stand in no parentheses.
fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let mut depth = 0usize;
    text.split(|c: char| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => (),
        }
        c == ',' && depth == 0
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_those_of_keys_and_of_values() {
        let mixed: Representation = "k=f32,v=bf16".parse().unwrap();
        assert_eq!(mixed.bytes(10, 64), 10 * 64 * (4 + 2));
        assert_eq!(Representation::FLOAT32.bytes(3, 8), 3 * 8 * 8);
        let packed: Representation = "k=q8_0,v=q4_0".parse().unwrap();
        assert_eq!(packed.bytes(10, 64), 10 * 2 * (34 + 18));
        assert_eq!(packed.bytes_per_token(64), 2.0 * (34.0 + 18.0));
    }

    #[test]
    fn spellings_are_read_back() {
        for keys in Elements::all() {
            for values in Elements::all() {
                let representation = Representation { keys, values };
                let text = representation.to_string();
                assert_eq!(text.parse::<Representation>().unwrap(), representation);
            }
        }
        let read = |text: &str| text.parse::<Representation>().unwrap().to_string();
        assert_eq!(read("f16"), "f16");
        assert_eq!(read("q8,q4"), "k=q8,v=q4");
        assert_eq!(read("bf16, bf16"), "bf16");
        assert_eq!(
            read("k=q4(residual=128,group=64), v=q2"),
            "k=q4(group=64,residual=128),v=q2"
        );
        assert_eq!(read("q4(residual=0),f16"), "k=q4(residual=0),v=f16");
    }

    #[test]
    fn what_no_cache_holds_is_refused_with_what_one_does() {
        let said = |text: &str| text.parse::<Representation>().unwrap_err().to_string();
        assert!(said("q3").contains("bf16"), "{}", said("q3"));
        assert!(said("bf16,f16,f32").contains("k=TYPE,v=TYPE"));
        assert!(said("k=f16").contains("k=TYPE,v=TYPE"));
        assert!(said("v=bf16,k=f16").contains("k=TYPE,v=TYPE"));
        assert!(said("k=bf16,f16").contains("k=TYPE,v=TYPE"));
        assert!(said("k=bf16,v=f64").contains("f64"));
        assert!(said("").contains("f32"));
    }
}
