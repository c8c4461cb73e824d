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
    let kv_heads = view.cache.heads.len();
    let ranked = |vectors: &[Vec<f64>]| vectors.par_iter().map(|v| Ranked::new(v)).collect();
    let ranked: [Vec<Ranked>; 2] = [ranked(&vectors[0]), ranked(&vectors[1])];
    let outputs = outputs(view, [&ranked[0], &ranked[1]], options, grid)?;
    let parts = vectors.into_iter().zip(ranked).zip(outputs);
    let both = parts.map(|((plain, ranked), output)| Vectors {
        kv_ranked: (plain.chunks((plain.len() / kv_heads).max(1)))
            .map(|group| Ranked::new(&mean_of(group)))
            .collect(),
        plain,
        ranked,
        output,
    });
    both.collect::<Vec<_>>().try_into().map_err(|_| two())
}

/// Nothing that a caller could mend.
pub(super) fn two() -> crate::error::Error {
    crate::error::Error::Candle(candle_core::Error::msg("a layer has two vectors"))
}

/// Output curves of both queries, on values and W_o brought to the CPU in float32.
fn outputs(
    view: &AttentionView<'_>,
    queries: [&[Ranked]; 2],
    options: &MeasureOptions,
    grid: &[usize],
) -> Result<[OutputCurves; 2]> {
    let (_, _, head_dim) = view.queries.dims3()?;
    let local =
        |t: &Tensor| -> Result<Tensor> { Ok(t.to_dtype(DType::F32)?.to_device(&Device::Cpu)?) };
    let values: Vec<Vec<f32>> = view
        .cache
        .heads
        .iter()
        .map(|head| Ok(local(&head.values()?)?.flatten_all()?.to_vec1::<f32>()?))
        .collect::<Result<_>>()?;
    let values: Vec<&[f32]> = values.iter().map(Vec::as_slice).collect();
    let projection = Projection::new(&local(&view.output_projection()?)?, head_dim)?;
    let thresholds = &options.output_thresholds;
    let curves = |heads| output_curves(heads, &values, head_dim, &projection, thresholds, grid);
    let [last, pooled] = queries;
    Ok([curves(last)?, curves(pooled)?])
}

fn mean_of(vectors: &[Vec<f64>]) -> Vec<f64> {
    let mut mean = vectors[0].clone();
    for vector in &vectors[1..] {
        mean.iter_mut().zip(vector).for_each(|(m, v)| *m += v);
    }
    mean.iter_mut().for_each(|m| *m /= vectors.len() as f64);
    mean
}
