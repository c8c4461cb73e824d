//! Taking a decoder's tensors out of a GGUF file, every one of them.

use std::collections::HashSet;

use candle_core::{DType, Device, Tensor};

use super::gguf::{Gguf, dense_type};
use crate::compute::linear::{Linear, Matrix};
use crate::error::{Error, Result};

/// Reads the tensors of a model and remembers which were taken.
pub(super) struct Weights<'a> {
    gguf: &'a mut Gguf,
    device: &'a Device,
    dtype: DType,
    /// That of activations, and so of what is added to them or multiplied with them by element.
    activations: DType,
    taken: HashSet<String>,
}

impl<'a> Weights<'a> {
    pub(super) fn new(gguf: &'a mut Gguf, device: &'a Device, dtype: DType) -> Self {
        Self {
            gguf,
            device,
            dtype,
            activations: dense_type(device, dtype),
            taken: HashSet::new(),
        }
    }

    pub(super) fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.taken.insert(name.to_owned());
        (self.gguf).tensor(name, shape, self.device, self.activations)
    }

    pub(super) fn matrix(&mut self, name: &str, rows: usize, width: usize) -> Result<Matrix> {
        self.taken.insert(name.to_owned());
        (self.gguf).matrix(name, rows, width, self.device, self.dtype)
    }

    pub(super) fn linear(&mut self, name: &str, out: usize, width: usize) -> Result<Linear> {
        let matrix = self.matrix(&format!("{name}.weight"), out, width)?;
        let bias_name = format!("{name}.bias");
        let bias = if self.gguf.has_tensor(&bias_name) {
            Some(self.tensor(&bias_name, &[out])?)
        } else {
            None
        };
        Ok(Linear { matrix, bias })
    }

    /// A projection whose bias must be there.
    pub(super) fn biased(&mut self, name: &str, out: usize, width: usize) -> Result<Linear> {
        let matrix = self.matrix(&format!("{name}.weight"), out, width)?;
        let bias = Some(self.tensor(&format!("{name}.bias"), &[out])?);
        Ok(Linear { matrix, bias })
    }

    /// A tensor that nobody asked for would be a part of the model that is silently left out.
    pub(super) fn refuse_leftovers(&self) -> Result<()> {
        let leftovers: Vec<_> = (self.gguf.tensor_names().into_iter())
            .filter(|name| !self.taken.contains(*name) && *name != "rope_freqs.weight")
            .take(4)
            .collect();
        if leftovers.is_empty() {
            return Ok(());
        }
        Err(Error::Unsupported {
            what: "tensor",
            found: leftovers.join(", "),
            supported: "the tensors of a plain decoder of this family".into(),
        })
    }
}
