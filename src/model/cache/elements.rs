//! How the numbers of a key or of a value lie in memory.

use std::fmt;
use std::str::FromStr;

use candle_core::DType;

use super::side::Side;
use crate::compute::packed_rows::{BLOCK, Bits, BlockFormat, Packing};
use crate::error::{Error, Result};

/// How the numbers of a key or of a value lie in memory.
///
/// Differs: every count of bytes asks it, so that a format of fewer bits is one more case here and a file of its own
/// where it is packed (`src/compute/packed_rows/`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elements {
    /// Four bytes a number.
    Float32,
    /// Two bytes, the exponents of float32.
    Bfloat16,
    /// Two bytes, eleven significant bits.
    Float16,
    /// Groups of few bits behind the newest tokens.
    Grouped(Grouped),
    /// Blocks of llama.cpp, every token by itself.
    Blocks(BlockFormat),
    /// The same, of rows that a Hadamard matrix has rotated.
    RotatedBlocks(BlockFormat),
    /// Every token by itself, at one of two levels.
    Levels(Levels),
}

/// Bits of a token's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenBits {
    /// Float16.
    Sixteen,
    /// Codes; the fewer bits, the fewer numbers share a scale.
    Few(Bits),
}

impl TokenBits {
    /// 256 levels.
    pub const EIGHT: Self = Self::Few(Bits::Eight);
    /// 16 levels.
    pub const FOUR: Self = Self::Few(Bits::Four);
    /// 4 levels.
    pub const TWO: Self = Self::Few(Bits::Two);

    /// What so many bits are; `None` for a number that no level has.
    pub fn of(count: usize) -> Option<Self> {
        let few = || Bits::ALL.into_iter().find(|bits| bits.count() == count);
        match count {
            16 => Some(Self::Sixteen),
            _ => few().map(Self::Few),
        }
    }

    /// How many.
    pub fn count(self) -> usize {
        match self {
            Self::Sixteen => 16,
            Self::Few(bits) => bits.count(),
        }
    }

    /// Bytes of a row.
    pub fn bytes(self, width: usize) -> usize {
        self.packing(width).bytes(width)
    }

    /// Scales for a whole row at 8 bits, for halves of it at 4, for quarters at 2.
    fn packing(self, width: usize) -> Packing {
        match self {
            Self::Sixteen => Packing::Halves,
            Self::Few(bits) => Packing::ByRow(bits, width.div_ceil(8 / bits.count())),
        }
    }
}

/// Two levels of precision, between which a cache moves its tokens while it lives.
///
/// Paper: arXiv:2412.03131 (LeanKV), and the code of DiffKV, which continues it: 1, 2 and 4 scales a row at 8, 4 and 2
/// bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    /// Of new tokens, and of those that matter.
    pub high: TokenBits,
    /// Of the others.
    pub low: TokenBits,
}

/// Codes of few bits with scales and zero points: keys by channel, values by token; the newest tokens in float16.
///
/// Paper: arXiv:2402.02750 (KIVI), section 3. Differs: keys and values are coded `group` tokens at a time once
/// `residual + group` are held in float16, so that the newest `residual` of both always are; KIVI holds 0 to 127 of the
/// keys and 128 of the values so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grouped {
    /// Of a code.
    pub bits: Bits,
    /// Tokens of a key's channel that share a scale, and channels of a value.
    pub group: usize,
    /// The newest tokens, which are held in float16.
    pub residual: usize,
}

impl Grouped {
    /// The usual group and residual.
    pub const fn of(bits: Bits) -> Self {
        Self {
            bits,
            group: 32,
            residual: 64,
        }
    }

    /// Tokens of so many that are coded: whole groups of all but the newest.
    pub fn coded(self, tokens: usize) -> usize {
        tokens.saturating_sub(self.residual) / self.group * self.group
    }
}

/// The largest group and residual.
const LARGEST: usize = 4096;

impl Elements {
    /// All of them, with the usual parameters.
    pub fn all() -> Vec<Self> {
        let mut all = vec![Self::Float32, Self::Bfloat16, Self::Float16];
        all.extend(Bits::ALL.map(|bits| Self::Grouped(Grouped::of(bits))));
        all.extend(BlockFormat::ALL.map(Self::Blocks));
        all.extend(BlockFormat::ALL.map(Self::RotatedBlocks));
        all
    }

    /// The element type of the tensors that hold it; `None` where it is packed.
    pub fn dtype(self) -> Option<DType> {
        match self {
            Self::Float32 => Some(DType::F32),
            Self::Bfloat16 => Some(DType::BF16),
            Self::Float16 => Some(DType::F16),
            Self::Grouped(_) | Self::Blocks(_) | Self::RotatedBlocks(_) | Self::Levels(_) => None,
        }
    }

    /// What holds numbers of a tensor's type.
    ///
    /// Errors: [`Error::UnknownName`] for a type that no cache has.
    pub fn of(dtype: DType) -> Result<Self> {
        dtype.as_str().parse()
    }

    /// How rows are coded when they come, or when they are no longer among the newest; `None` where they are not.
    pub fn packing(self, side: Side, width: usize) -> Option<Packing> {
        match self {
            Self::Float32 | Self::Bfloat16 | Self::Float16 => None,
            Self::Grouped(Grouped { bits, group, .. }) => Some(match side {
                Side::Keys => Packing::ByChannel(bits, group),
                Side::Values => Packing::ByRow(bits, group),
            }),
            Self::Blocks(format) | Self::RotatedBlocks(format) => Some(Packing::Blocks(format)),
            Self::Levels(levels) => Some(levels.high.packing(width)),
        }
    }

    /// How the stretches of its rows are packed, of which the last takes new rows; none where it is not packed.
    pub(super) fn stretches(self, side: Side, width: usize) -> Vec<Packing> {
        let last = match self {
            Self::Grouped(_) => Some(Packing::Halves),
            Self::Levels(levels) => {
                return vec![levels.low.packing(width), levels.high.packing(width)];
            }
            _ => None,
        };
        self.packing(side, width).into_iter().chain(last).collect()
    }

    /// Size of the Hadamard matrix that rotates keys and queries, or values and outputs.
    ///
    /// Paper: llama.cpp, pull request 21038: for keys the largest power of two, at least 64, that divides D; 64 for
    /// values.
    pub fn rotation(self, side: Side, width: usize) -> Option<usize> {
        match (self, side) {
            (Self::RotatedBlocks(_), Side::Keys) => Some(1 << width.trailing_zeros()),
            (Self::RotatedBlocks(_), Side::Values) => Some(ROTATED),
            _ => None,
        }
    }

    /// Bytes of `rows` keys or values of `width` numbers.
    pub fn bytes(self, side: Side, rows: usize, width: usize) -> usize {
        match (self, self.dtype(), self.packing(side, width)) {
            (Self::Grouped(grouped), _, Some(packing)) => {
                let coded = grouped.coded(rows);
                let codes = (coded / packing.rows()).saturating_mul(packing.bytes(width));
                let newest = (rows - coded).saturating_mul(Packing::Halves.bytes(width));
                codes.saturating_add(newest)
            }
            (_, Some(dtype), _) => rows.saturating_mul(width * dtype.size_in_bytes()),
            (_, None, packing) => rows.saturating_mul(packing.map_or(0, |p| p.bytes(width))),
        }
    }

    /// Bytes of a row among many.
    pub fn bytes_per_row(self, side: Side, width: usize) -> f64 {
        match self.packing(side, width) {
            Some(packing) => packing.bytes(width) as f64 / packing.rows() as f64,
            None => self.bytes(side, 1, width) as f64,
        }
    }

    /// Whether every row is held by itself.
    pub fn is_alone(self) -> bool {
        !matches!(self, Self::Grouped(_))
    }

    /// Rows that are coded together; 1 where every row is by itself.
    pub fn coded_together(self) -> usize {
        match self {
            Self::Grouped(grouped) => grouped.group,
            _ => 1,
        }
    }

    /// Rows that may come behind `rows` before some are coded together.
    pub fn until_coded(self, rows: usize) -> usize {
        match self {
            Self::Grouped(grouped) => grouped.coded(rows) + grouped.residual + grouped.group - rows,
            _ => usize::MAX,
        }
    }

    /// Refuses rows that blocks or rotations do not divide.
    ///
    /// Errors: [`Error::Invalid`].
    pub fn check_width(self, width: usize) -> Result<()> {
        let least = match self {
            Self::Blocks(_) => BLOCK,
            Self::RotatedBlocks(_) => ROTATED,
            _ => 1,
        };
        if width.is_multiple_of(least) {
            return Ok(());
        }
        let bound = format!(
            "{self} works on {least} numbers at a time: hold this model's cache in q8, q4, bf16 or f16"
        );
        Err(Error::invalid("head dimension", width, bound))
    }
}

/// Numbers that are rotated together, at least.
const ROTATED: usize = 64;

impl fmt::Display for Elements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Float32 | Self::Bfloat16 | Self::Float16 => {
                f.write_str(self.dtype().map_or("", |dtype| dtype.as_str()))
            }
            Self::Grouped(grouped) => {
                write!(f, "q{}", grouped.bits.count())?;
                let usual = Grouped::of(grouped.bits);
                let mut given = Vec::new();
                if grouped.group != usual.group {
                    given.push(format!("group={}", grouped.group));
                }
                if grouped.residual != usual.residual {
                    given.push(format!("residual={}", grouped.residual));
                }
                if given.is_empty() {
                    return Ok(());
                }
                write!(f, "({})", given.join(","))
            }
            Self::Blocks(format) => f.write_str(format.name()),
            Self::RotatedBlocks(format) => write!(f, "{}{HADAMARD}", format.name()),
            Self::Levels(levels) => write!(f, "{}|{}", levels.high.count(), levels.low.count()),
        }
    }
}

/// What stands behind the name of a type of llama.cpp whose rows are rotated.
const HADAMARD: &str = "-hadamard";

impl FromStr for Elements {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        let (name, parameters) = match text.split_once('(') {
            Some((name, rest)) => (name.trim_end(), Some(rest)),
            None => (text, None),
        };
        let mut known = Self::all().into_iter();
        let Some(found) = known.find(|elements| elements.to_string() == name) else {
            let names: Vec<String> = Self::all().iter().map(Self::to_string).collect();
            let names = names.iter().map(String::as_str);
            return Err(Error::unknown("type of a cache", name, names));
        };
        match (found, parameters) {
            (_, None) => Ok(found),
            (Self::Grouped(usual), Some(parameters)) => {
                usual.with(parameters, text).map(Self::Grouped)
            }
            (_, Some(_)) => {
                let bound = "only q8, q4 and q2 have parameters: q4(group=32,residual=64)";
                Err(Error::invalid(
                    "type of a cache",
                    format!("'{text}'"),
                    bound,
                ))
            }
        }
    }
}

impl Grouped {
    /// The same with `parameters)` of the user's.
    fn with(mut self, parameters: &str, text: &str) -> Result<Self> {
        let shape = || {
            let bound = "parameters are written q4(group=32,residual=64)";
            Error::invalid("type of a cache", format!("'{text}'"), bound)
        };
        let inside = parameters.trim_end().strip_suffix(')').ok_or_else(shape)?;
        let mut given = Vec::new();
        for pair in inside.split(',') {
            let (key, value) = pair.split_once('=').ok_or_else(shape)?;
            if given.contains(&key.trim()) {
                return Err(shape());
            }
            given.push(key.trim());
            let number: usize = value.trim().parse().map_err(|_| shape())?;
            let (least, field) = match key.trim() {
                "group" => (1, &mut self.group),
                "residual" => (0, &mut self.residual),
                _ => return Err(shape()),
            };
            if !(least..=LARGEST).contains(&number) {
                let bound = format!("it must be between {least} and {LARGEST}");
                let what = "group or residual of a cache's type";
                return Err(Error::invalid(what, format!("{number} in '{text}'"), bound));
            }
            *field = number;
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_groups_are_codes_scales_zero_points_and_the_newest() {
        let four = Elements::Grouped(Grouped::of(Bits::Four));
        // 95 tokens: none is coded yet; 96: 32 are.
        assert_eq!(four.bytes(Side::Keys, 95, 64), 95 * 128);
        let keys = 32 * 32 + 64 * 4;
        assert_eq!(four.bytes(Side::Keys, 96, 64), keys + 64 * 128);
        let values = 32 * (32 + 2 * 4);
        assert_eq!(four.bytes(Side::Values, 130, 64), 2 * values + 66 * 128);
        assert_eq!(four.bytes_per_row(Side::Values, 64), 40.0);
        assert_eq!(four.bytes_per_row(Side::Keys, 64), 40.0);
        assert_eq!(four.until_coded(95), 1);
        assert_eq!(four.until_coded(96), 32);
        assert_eq!(four.until_coded(0), 96);
    }

    #[test]
    fn bytes_of_blocks_are_those_of_llama_cpp() {
        for (name, block) in [
            ("q8_0", 34),
            ("q5_1", 24),
            ("q5_0", 22),
            ("q4_1", 20),
            ("q4_0", 18),
        ] {
            let elements: Elements = name.parse().unwrap();
            assert_eq!(elements.bytes(Side::Keys, 7, 128), 7 * 4 * block, "{name}");
        }
    }

    #[test]
    fn rotations_are_as_large_as_llama_cpp_has_them() {
        let rotated: Elements = "q4_0-hadamard".parse().unwrap();
        for (width, keys) in [(64, 64), (128, 128), (192, 64), (256, 256)] {
            assert_eq!(rotated.rotation(Side::Keys, width), Some(keys));
            assert_eq!(rotated.rotation(Side::Values, width), Some(64));
        }
        assert!(rotated.check_width(96).is_err() && rotated.check_width(192).is_ok());
        let plain: Elements = "q4_0".parse().unwrap();
        assert!(plain.rotation(Side::Keys, 64).is_none() && plain.check_width(96).is_ok());
        assert!(
            plain
                .check_width(80)
                .unwrap_err()
                .to_string()
                .contains("32 numbers")
        );
    }

    #[test]
    fn parameters_are_checked() {
        let said = |text: &str| text.parse::<Elements>().unwrap_err().to_string();
        assert!(said("q4(group=0)").contains("between 1 and"));
        assert!(said("q4(group=9999)").contains("9999"));
        assert!(said("q4(groups=8)").contains("q4(group=32,residual=64)"));
        assert!(said("q4(group=8").contains("q4(group=32,residual=64)"));
        assert!(said("q4(group=8,group=8)").contains("q4(group=32,residual=64)"));
        assert!(said("q4_0(group=8)").contains("only q8"));
        assert!(said("q6").contains("q5_1"), "{}", said("q6"));
    }
}
