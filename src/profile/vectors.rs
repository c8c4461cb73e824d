//! The two vectors of a layer that curves are made of: the last row and the window's mean.

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use super::minimum_budget::Ranked;
use super::options::MeasureOptions;
use super::output_budget::{OutputCurves, Projection, output_curves};
use crate::error::Result;
use crate::model::attention::AttentionView;

/// One vector of every head, ranked, and what a layer gives with the best keys of each.
pub(super) struct Vectors {
    /// `[query head][key]`.
    pub(super) plain: Vec<Vec<f64>>,
    /// One per query head.
    pub(super) ranked: Vec<Ranked>,
    /// Means over the query heads of each KV head.
    pub(super) kv_ranked: Vec<Ranked>,
    /// Output curves of the layer.
    pub(super) output: OutputCurves,
}

/// Ranks the last rows and the pooled vectors on the CPU.
///
/// Shapes: both `[query head][key]`. Errors: [`crate::error::Error::Candle`].
pub(super) fn on_host(
    view: &AttentionView<'_>,
    vectors: [Vec<Vec<f64>>; 2],
    options: &MeasureOptions,
    grid: &[usize],
) -> Result<[Vectors; 2]> {
    let (_, _, head_dim) = view.queries.dims3()?;
    let local =
        |t: &Tensor| -> Result<Tensor> { Ok(t.to_dtype(DType::F32)?.to_device(&Device::Cpu)?) };
    let heads = view.cache.heads.iter();
    let values: Vec<Vec<f32>> = heads
        .map(|head| Ok(local(&head.values()?)?.flatten_all()?.to_vec1::<f32>()?))
        .collect::<Result<_>>()?;
    let values: Vec<&[f32]> = values.iter().map(Vec::as_slice).collect();
    let projection = Projection::new(&local(&view.output_projection()?)?, head_dim)?;
    let thresholds = &options.output_thresholds;
    let ranked = |plain: Vec<Vec<f64>>| -> Result<Vectors> {
        let ranked: Vec<Ranked> = plain.par_iter().map(|v| Ranked::new(v)).collect();
        let groups = plain.chunks((plain.len() / values.len()).max(1));
        Ok(Vectors {
            kv_ranked: groups.map(|group| Ranked::new(&mean_of(group))).collect(),
            output: output_curves(&ranked, &values, head_dim, &projection, thresholds, grid)?,
            plain,
            ranked,
        })
    };
    let [last, pooled] = vectors;
    Ok([ranked(last)?, ranked(pooled)?])
}

fn mean_of(vectors: &[Vec<f64>]) -> Vec<f64> {
    let mut mean = vectors[0].clone();
    for vector in &vectors[1..] {
        mean.iter_mut().zip(vector).for_each(|(m, v)| *m += v);
    }
    mean.iter_mut().for_each(|m| *m /= vectors.len() as f64);
    mean
}
