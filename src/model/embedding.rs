//! Token ids as rows of the residual stream.

use candle_core::Tensor;

use super::config::ModelConfig;
use super::weights::Weights;
use crate::compute::linear::Matrix;
use crate::error::Result;

/// The embedding of a model.
pub struct Embedding {
    pub(super) matrix: Matrix,
    /// What its rows are multiplied by, in families that do.
    scale: Option<f64>,
}

impl Embedding {
    /// Takes it out of the files.
    ///
    /// Errors: as [`Weights::matrix`].
    pub(super) fn load(weights: &mut Weights<'_>, c: &ModelConfig) -> Result<Self> {
        let scaled = c.family.scaled_embedding;
        Ok(Self {
            matrix: weights.matrix("token_embd.weight", c.vocab_size, c.hidden_size)?,
            scale: scaled.then(|| (c.hidden_size as f64).sqrt()),
        })
    }

    /// The residual stream before the first layer.
    ///
    /// Shapes: `(ids, hidden)`, of the activations' type. Errors: [`crate::error::Error::Candle`].
    pub fn rows_of(&self, ids: &[u32]) -> Result<Tensor> {
        let rows = self.matrix.select(ids)?;
        match self.scale {
            Some(scale) => Ok((rows * scale)?),
            None => Ok(rows),
        }
    }
}
