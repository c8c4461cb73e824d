//! What numbers are multiplied as where many activations meet packed weights.

use std::fmt;
use std::str::FromStr;

/// A kind of product.
///
/// Differs: it holds for more than 16 activations at a time and for quantised matrices on a CPU; everything else is
/// multiplied as float32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Products {
    /// Float32 weights and activations.
    #[default]
    Float32,
    /// The file's integer weights; activations rounded to 16 bits in groups of 32.
    Int16,
    /// The file's integer weights; activations rounded to 8 bits in groups of 32.
    Int8,
}

impl Products {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Float32, Self::Int16, Self::Int8];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Float32 => "f32",
            Self::Int16 => "i16",
            Self::Int8 => "i8",
        }
    }
}

impl fmt::Display for Products {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Products {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = Self::ALL.into_iter();
        let found = all.clone().find(|products| products.name() == text);
        let names: Vec<&str> = all.map(Self::name).collect();
        found.ok_or_else(|| format!("expected one of {}", names.join(", ")))
    }
}
