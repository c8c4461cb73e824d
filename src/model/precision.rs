//! In which types a model computes, and in which it holds keys and values.

use std::fmt;

use candle_core::{DType, Device};

use super::cache::Representation;
use crate::compute::linear::{Products, multiplies_bfloat16_pairs};
use crate::error::{Error, Result};

/// The type that a model computes in, that of products and that of the cache, which need not be the same.
///
/// Differs: written `f32` where they are the same, `f32, products i16, cache bf16` where they are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Precision {
    /// What the model computes in. On the CPU sums, activations and norms are float32 in any case.
    pub dtype: DType,
    /// What quantised matrices and many activations are multiplied as on a CPU.
    pub products: Products,
    /// The elements of keys and values.
    pub cache: Representation,
}

impl Precision {
    /// Float32 throughout.
    pub const FLOAT32: Self = Self {
        dtype: DType::F32,
        products: Products::Float32,
        cache: Representation::FLOAT32,
    };

    /// A cache of the type that is computed in.
    ///
    /// Errors: as [`Representation::of`].
    pub fn of(dtype: DType) -> Result<Self> {
        Ok(Self {
            dtype,
            products: Products::Float32,
            cache: Representation::of(dtype)?,
        })
    }

    /// Refuses integer products where they are not computed.
    ///
    /// Errors: [`Error::Unsupported`] on another device than a CPU and with another type than float32.
    pub(crate) fn check_products(self, device: &Device) -> Result<()> {
        let are_computed = device.is_cpu() && self.dtype == DType::F32;
        if self.products == Products::Float32 || are_computed {
            return Ok(());
        }
        Err(Error::Unsupported {
            what: "--products",
            found: format!("{} in {}", self.products, self.dtype.as_str()),
            supported:
                "f32 on a GPU and with --dtype bf16 or f16; integers with --device cpu --dtype f32"
                    .into(),
        })
    }

    /// Refuses what a device does not do, so that a type means the same everywhere.
    ///
    /// Errors: [`Error::Unsupported`] for products in float16 on a CPU or in bfloat16 on one that does not multiply its
    /// pairs, for integer products on another device or in another type than float32, and for a cache of another type than
    /// products on every other device.
    pub fn check(self, device: &Device) -> Result<()> {
        let refuse = |what: &'static str, found: String, supported: String| {
            Err(Error::Unsupported {
                what,
                found,
                supported,
            })
        };
        self.check_products(device)?;
        if !device.is_cpu() {
            if self.cache == Representation::of(self.dtype)? {
                return Ok(());
            }
            let only = format!(
                "{} there, the type of --dtype; other caches with --device cpu",
                self.dtype.as_str()
            );
            return refuse("--cache-dtype on a GPU", self.cache.to_string(), only);
        }
        match self.dtype {
            DType::F32 => Ok(()),
            DType::BF16 if multiplies_bfloat16_pairs() => Ok(()),
            other => refuse(
                "--dtype on this CPU",
                other.as_str().to_owned(),
                format!(
                    "f32; hold keys and values in less with --cache-dtype {}",
                    other.as_str()
                ),
            ),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.dtype.as_str())?;
        if self.products != Products::Float32 {
            write!(f, ", products {}", self.products)?;
        }
        if Representation::of(self.dtype).is_ok_and(|same| same == self.cache) {
            return Ok(());
        }
        write!(f, ", cache {}", self.cache)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_said_once_where_they_are_one() {
        assert_eq!(Precision::FLOAT32.to_string(), "f32");
        assert_eq!(Precision::of(DType::BF16).unwrap().to_string(), "bf16");
        let cache = "k=bf16,v=f16".parse().unwrap();
        let mixed = Precision {
            cache,
            ..Precision::FLOAT32
        };
        assert_eq!(mixed.to_string(), "f32, cache k=bf16,v=f16");
        mixed.check(&Device::Cpu).unwrap();
        let integers = Precision {
            products: Products::Int16,
            ..mixed
        };
        assert_eq!(
            integers.to_string(),
            "f32, products i16, cache k=bf16,v=f16"
        );
        integers.check(&Device::Cpu).unwrap();
    }

    #[test]
    fn integer_products_take_float32() {
        let half = Precision {
            products: Products::Int8,
            ..Precision::of(DType::BF16).unwrap()
        };
        let said = half.check(&Device::Cpu).unwrap_err().to_string();
        assert!(said.contains("--products") && said.contains("i8"), "{said}");
    }

    #[test]
    fn products_that_a_cpu_does_not_do_are_refused_with_the_cache_type() {
        let half = Precision::of(DType::F16).unwrap();
        let said = half.check(&Device::Cpu).unwrap_err().to_string();
        assert!(said.contains("--cache-dtype f16"), "{said}");
        let brain = Precision::of(DType::BF16).unwrap();
        assert_eq!(
            brain.check(&Device::Cpu).is_ok(),
            multiplies_bfloat16_pairs()
        );
    }
}
