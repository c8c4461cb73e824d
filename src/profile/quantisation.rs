//! What few bits cost: a layer's output from coded keys and values beside that from those that are held.

use candle_core::{DType, Device, Tensor};

use super::output_budget::compared;
use super::projection::projected;
use crate::error::Result;
use crate::model::attention::{AttentionView, attend};
use crate::model::cache::{LayerCache, Representation};

/// How far a layer's output moves where its keys and values are held in another type.
///
/// Paper: none: house definition. Differs: cosine and relative L2 as the curves have them, of the pooled query: y is W_o
/// times the mean over the window's rows of attention's output with keys and values as they are held, ŷ the same with
/// all of them cut into the type.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantisedOutput {
    /// The type.
    pub held_as: Representation,
    /// cos(y, ŷ).
    pub cosine: f64,
    /// ‖y − ŷ‖ / ‖y‖.
    pub relative_l2: f64,
    /// Bytes of one more token of a KV head that holds many.
    pub bytes_per_token: f64,
}

/// The queries of the observation window, as the runs of a prompt bring them.
pub(super) struct WindowQueries {
    first: usize,
    blocks: Vec<Tensor>,
}

impl WindowQueries {
    /// For the rows from `first` on.
    pub(super) fn from(first: usize) -> Self {
        Self {
            first,
            blocks: Vec::new(),
        }
    }

    /// Takes those of a run.
    pub(super) fn take(&mut self, view: &AttentionView<'_>) -> Result<()> {
        let from = self.first.max(view.rows.start);
        if from < view.rows.end {
            let own = view
                .queries
                .narrow(1, from - view.rows.start, view.rows.end - from)?;
            // A view would keep the whole run.
            self.blocks.push(own.contiguous()?);
        }
        Ok(())
    }

    /// All of them, `(H_q, rows, D)`, once the prompt has ended.
    pub(super) fn joined(&self) -> Result<Tensor> {
        Ok(Tensor::cat(&self.blocks, 1)?)
    }

    /// Compares the types once the prompt has ended.
    ///
    /// Errors: [`crate::error::Error::NotFinite`] for keys or values that have no code; as [`LayerCache::cut`].
    pub(super) fn measure(
        self,
        view: &AttentionView<'_>,
        types: &[Representation],
    ) -> Result<Vec<QuantisedOutput>> {
        let layer = PooledLayer {
            queries: self.joined()?,
            first: self.first,
            projection: local(&view.output_projection()?)?,
        };
        let (_, _, head_dim) = view.queries.dims3()?;
        let heads = view.cache.heads.iter();
        let slots: Vec<Vec<u32>> = heads.map(|head| (0..head.len() as u32).collect()).collect();
        let full = layer.output(view.cache)?;
        let of_type = |&held_as: &Representation| {
            let coded = view.cache.cut(&slots, 0, &vec![held_as; slots.len()])?;
            let [cosine, relative_l2] = distance(&layer.output(&coded)?, &full);
            Ok(QuantisedOutput {
                held_as,
                cosine,
                relative_l2,
                bytes_per_token: held_as.bytes_per_token(head_dim),
            })
        };
        types.iter().map(of_type).collect()
    }
}

/// A layer's pooled query and its W_o.
struct PooledLayer {
    queries: Tensor,
    first: usize,
    projection: Tensor,
}

impl PooledLayer {
    /// y from the keys and values of a cache: the output is linear in the rows, so that their mean is projected.
    fn output(&self, cache: &LayerCache) -> Result<Vec<f64>> {
        let attended = attend(&self.queries, cache, self.first, &[])?;
        let (rows, width) = attended.dims2()?;
        let attended: Vec<f32> = local(&attended)?.flatten_all()?.to_vec1()?;
        let mut sums = vec![0f64; width];
        for row in attended.chunks(width) {
            sums.iter_mut()
                .zip(row)
                .for_each(|(s, &x)| *s += f64::from(x));
        }
        let mean: Vec<f32> = sums.iter().map(|s| (s / rows as f64) as f32).collect();
        let (hidden, _) = self.projection.dims2()?;
        let weights: Vec<f32> = self.projection.flatten_all()?.to_vec1()?;
        let output = projected(&weights, [hidden, width], &mean);
        Ok(output.into_iter().map(f64::from).collect())
    }
}

fn local(tensor: &Tensor) -> Result<Tensor> {
    Ok(tensor.to_dtype(DType::F32)?.to_device(&Device::Cpu)?)
}

/// Cosine and relative distance of an output from the full one.
fn distance(output: &[f64], full: &[f64]) -> [f64; 2] {
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let gap: Vec<f64> = output.iter().zip(full).map(|(o, f)| o - f).collect();
    let norm = |x: &[f64]| product(x, x).sqrt();
    compared(
        product(output, full),
        norm(output),
        product(&gap, &gap),
        norm(full),
    )
}
