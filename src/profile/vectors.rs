//! The two vectors of a layer that curves are made of: the last row and the window's mean.

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use super::measures::{SINKS, entropy, share};
use super::minimum_budget::Ranked;
use super::options::MeasureOptions;
use super::output_budget::{OutputCurves, Projection, output_curves};
use crate::error::Result;
use crate::model::attention::AttentionView;

/// What is measured of one vector of every head.
pub(super) struct Vectors {
    /// MBA at the thresholds, per query head.
    pub(super) budgets: Vec<Vec<u32>>,
    /// MBA at the thresholds of the mean over the query heads of each KV head.
    pub(super) kv_budgets: Vec<Vec<u32>>,
    /// Retained mass at the budgets of the grid, per query head.
    pub(super) mass: Vec<Vec<f64>>,
    /// Output curves of the layer.
    pub(super) output: OutputCurves,
}

/// How a vector lies over its keys.
pub(super) struct Spread {
    /// Nats.
    pub(super) entropy: f64,
    /// Share on the first keys.
    pub(super) sink_mass: f64,
    /// Share on the window's keys.
    pub(super) window_mass: f64,
}

impl Spread {
    /// Of a vector whose window begins at a key.
    pub(super) fn of(vector: &[f64], window: usize) -> Self {
        let tokens = vector.len();
        Self {
            entropy: entropy(vector),
            sink_mass: share(vector, 0..SINKS.min(tokens)),
            window_mass: share(vector, window..tokens),
        }
    }
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
        let budgets = |ranked: &Ranked| at_thresholds(ranked, &options.thresholds);
        let mass = |r: &Ranked| grid.iter().map(|&b| r.retained_mass(b)).collect();
        Ok(Vectors {
            budgets: ranked.iter().map(budgets).collect(),
            kv_budgets: (groups.map(|group| budgets(&Ranked::new(&mean_of(group))))).collect(),
            mass: ranked.iter().map(mass).collect(),
            output: output_curves(&ranked, &values, head_dim, &projection, thresholds, grid)?,
        })
    };
    let [last, pooled] = vectors;
    Ok([ranked(last)?, ranked(pooled)?])
}

fn at_thresholds(ranked: &Ranked, thresholds: &[f64]) -> Vec<u32> {
    thresholds
        .iter()
        .map(|&t| ranked.minimum_budget(t) as u32)
        .collect()
}

fn mean_of(vectors: &[Vec<f64>]) -> Vec<f64> {
    let mut mean = vectors[0].clone();
    for vector in &vectors[1..] {
        mean.iter_mut().zip(vector).for_each(|(m, v)| *m += v);
    }
    mean.iter_mut().for_each(|m| *m /= vectors.len() as f64);
    mean
}
