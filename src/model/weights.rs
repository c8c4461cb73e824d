//! Taking a decoder's tensors out of a GGUF file, every one of them.

use std::collections::HashSet;

use candle_core::{DType, Device, Tensor};

use super::config::RopePairs;
use super::gguf::Gguf;
use crate::error::{Error, Result};

/// A matrix `(out, in)` applied to rows of activations, with an optional bias.
pub(super) struct Linear {
    pub(super) weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = x.matmul(&self.weight.t()?)?;
        Ok(match &self.bias {
            Some(bias) => y.broadcast_add(bias)?,
            None => y,
        })
    }
}

/// Reads the tensors of a model and remembers which were taken.
pub(super) struct Weights<'a> {
    gguf: &'a mut Gguf,
    device: &'a Device,
    dtype: DType,
    taken: HashSet<String>,
}

impl<'a> Weights<'a> {
    pub(super) fn new(gguf: &'a mut Gguf, device: &'a Device, dtype: DType) -> Self {
        Self {
            gguf,
            device,
            dtype,
            taken: HashSet::new(),
        }
    }

    pub(super) fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.taken.insert(name.to_owned());
        self.gguf.tensor(name, shape, self.device, self.dtype)
    }

    pub(super) fn linear(&mut self, name: &str, out: usize, width: usize) -> Result<Linear> {
        let weight = self.tensor(&format!("{name}.weight"), &[out, width])?;
        let bias_name = format!("{name}.bias");
        let bias = match self.gguf.has_tensor(&bias_name) {
            true => Some(self.tensor(&bias_name, &[out])?),
            false => None,
        };
        Ok(Linear { weight, bias })
    }

    /// A tensor that nobody asked for would be a part of the model that is silently left out.
    pub(super) fn refuse_leftovers(&self) -> Result<()> {
        let left: Vec<_> = (self.gguf.tensor_names().into_iter())
            .filter(|name| !self.taken.contains(*name) && *name != "rope_freqs.weight")
            .take(4)
            .collect();
        if left.is_empty() {
            return Ok(());
        }
        Err(Error::Unsupported {
            what: "tensor",
            found: left.join(", "),
            supported: "the tensors of a plain Llama decoder".into(),
        })
    }
}

/// Reorders the rows of a query or key projection so that RoPE pairs dimension i with i + D/2.
///
/// Shapes: rows `(heads, D/2, 2)` -> `(heads, 2, D/2)`. Attention is unchanged by it.
pub(super) fn to_halves(linear: Linear, pairs: RopePairs, head_dim: usize) -> Result<Linear> {
    if pairs == RopePairs::Halves {
        return Ok(linear);
    }
    let reorder = |x: &Tensor| -> Result<Tensor> {
        let rows = x.dim(0)?;
        let width = x.elem_count() / rows;
        let y = x.reshape((rows / head_dim, head_dim / 2, 2, width))?;
        Ok(y.transpose(1, 2)?.contiguous()?.reshape(x.shape())?)
    };
    Ok(Linear {
        weight: reorder(&linear.weight)?,
        bias: linear.bias.as_ref().map(reorder).transpose()?,
    })
}
