//! One layer's attention as another program captured it, shown to probes as a prefill would show it.

use candle_core::{DType, Tensor};

use super::attention::{self, AttentionProbe, AttentionRun, AttentionView};
use super::cache::LayerCache;
use super::rotation::TextRotation;
use crate::compute::linear::Matrix;
use crate::error::{Error, Result};

/// Tensors of one layer and one prompt.
///
/// Shapes: `queries` `(H_q, R, D)` of the last R tokens, `keys` and `values` `(H_kv, T, D)`, all after RoPE; `output`
/// `(hidden, H_q * D)`, which is W_o.
#[derive(Clone, Debug)]
pub struct CapturedTensors {
    /// Queries of the last tokens.
    pub queries: Tensor,
    /// Keys of all tokens.
    pub keys: Tensor,
    /// Values of all tokens.
    pub values: Tensor,
    /// W_o.
    pub output: Tensor,
}

/// One layer's attention over the end of one prompt.
///
/// Differs: keys, values and queries are what they were captured as; attention is computed again, in float32 on the CPU.
pub struct CapturedLayer {
    number: usize,
    queries: Tensor,
    cache: LayerCache,
    projection: Matrix,
    tokens: usize,
}

impl CapturedLayer {
    /// Layer `number`, in which a query sees the nearest `window` keys and products are multiplied by `scale`.
    ///
    /// Errors: [`Error::Candle`] for shapes that do not fit one another.
    pub fn new(
        number: usize,
        window: Option<usize>,
        scale: f64,
        tensors: &CapturedTensors,
    ) -> Result<Self> {
        let float32 = |t: &Tensor| -> Result<Tensor> { Ok(t.to_dtype(DType::F32)?.contiguous()?) };
        let (_, _, head_dim) = tensors.queries.dims3()?;
        let (_, tokens, _) = tensors.keys.dims3()?;
        let mut queries = float32(&tensors.queries)?;
        // Attention divides by the root of D.
        let factor = scale * (head_dim as f64).sqrt();
        if (factor - 1.0).abs() > 1e-7 {
            queries = (queries * factor)?;
        }
        let (keys, values) = (float32(&tensors.keys)?, float32(&tensors.values)?);
        Ok(Self {
            number,
            queries,
            cache: LayerCache::of_rows(&keys, &values, window)?,
            projection: Matrix::Dense(float32(&tensors.output)?),
            tokens,
        })
    }

    /// Computes the attention of the captured queries and shows it.
    ///
    /// Errors: [`Error::Invalid`] where there are more queries than tokens, or none; whatever the probe returns.
    pub fn show(&self, probe: &mut dyn AttentionProbe) -> Result<()> {
        let (query_heads, rows, _) = self.queries.dims3()?;
        let first = self.tokens.checked_sub(rows).filter(|_| rows > 0);
        let first = first.ok_or_else(|| {
            let bound = format!("between 1 and the prompt's {} are possible", self.tokens);
            Error::invalid("rows of captured queries", rows, bound)
        })?;
        let run = AttentionRun {
            layer: self.number,
            rows: first..self.tokens,
            prompt_tokens: self.tokens,
            query_heads,
            kv_heads: self.cache.heads.len(),
        };
        let mut watches = Vec::new();
        probe.watch(&run, &mut watches)?;
        attention::attend(&self.queries, &self.cache, first, &watches)?;
        probe.observe(&AttentionView {
            layer: self.number,
            rows: run.rows,
            prompt_tokens: self.tokens,
            queries: &self.queries,
            cache: &self.cache,
            projection: &self.projection,
            rotation: TextRotation::none(),
            as_on_device: false,
        })
    }
}
