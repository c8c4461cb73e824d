//! The tensors of a GGUF file, whose own names are those that are asked for.

use std::collections::HashSet;
use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::TensorSource;
use crate::compute::linear::Matrix;
use crate::error::Result;
use crate::model::config::{Family, RopePairs};
use crate::model::gguf::{Gguf, WeightMemory};

/// Factors of the rotary embedding, which are read with the geometry.
const ROPE_FACTORS: [&str; 3] = [
    "rope_freqs.weight",
    "rope_factors_long.weight",
    "rope_factors_short.weight",
];

impl TensorSource for Gguf {
    fn has(&self, name: &str) -> bool {
        self.has_tensor(name)
    }

    fn tensor(
        &mut self,
        name: &str,
        shape: &[usize],
        device: &Device,
        dtype: DType,
    ) -> Result<Tensor> {
        Self::tensor(self, name, shape, device, dtype)
    }

    fn matrix(
        &mut self,
        name: &str,
        rows: usize,
        width: usize,
        device: &Device,
        dtype: DType,
    ) -> Result<Matrix> {
        Self::matrix(self, name, rows, width, device, dtype)
    }

    fn rope_pairs(&self, family: &Family) -> RopePairs {
        family.rope_pairs
    }

    fn place(&self) -> &Path {
        self.path()
    }

    fn leftovers(&self, taken: &HashSet<String>) -> Vec<String> {
        let names = self.tensor_names().into_iter();
        let left = |name: &&str| !taken.contains(*name) && !ROPE_FACTORS.contains(name);
        names.filter(left).map(str::to_owned).collect()
    }

    fn remember_finite(&mut self) {
        Self::remember_finite(self);
    }

    fn weight_memory(&self, device: &Device, dtype: DType) -> WeightMemory {
        Self::weight_memory(self, device, dtype)
    }

    fn inventory(&self) -> Vec<(String, u64, u64)> {
        Self::inventory(self)
    }
}
