//! The two vectors of a layer that curves are made of: the last row and the window's mean.

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use super::measures::{SINKS, entropy, share};
use super::minimum_budget::Ranked;
use super::output_budget::{OutputCurves, Projection, asked_output_curves};
use super::work::{VectorWork, Work};
use crate::error::Result;
use crate::model::attention::AttentionView;

/// What is measured of one vector of every head; nothing where it was not asked for.
#[derive(Default)]
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
    /// Of a vector that nothing was asked of.
    pub(super) const UNKNOWN: Self = Self {
        entropy: f64::NAN,
        sink_mass: f64::NAN,
        window_mass: f64::NAN,
    };

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
    [last, pooled]: [&[Vec<f64>]; 2],
    work: &Work,
    grid: &[usize],
) -> Result<[Vectors; 2]> {
    let layer = work.has_outputs().then(|| HostLayer::of(view));
    let layer = layer.transpose()?;
    let kv_heads = view.cache.heads.len();
    let ranked = |plain: &[Vec<f64>], own: &VectorWork| -> Result<Vectors> {
        let ranked: Vec<Ranked> = if own.ranks_heads() {
            plain.par_iter().map(|v| Ranked::new(v)).collect()
        } else {
            Vec::new()
        };
        let budgets = |ranked: &Ranked| at_thresholds(ranked, &work.thresholds);
        let mass = |r: &Ranked| grid.iter().map(|&b| r.retained_mass(b)).collect();
        let mut vectors = Vectors::default();
        if own.heads {
            vectors.budgets = ranked.iter().map(budgets).collect();
        }
        if own.kv_heads {
            let groups = plain.chunks((plain.len() / kv_heads).max(1));
            let groups = groups.map(|group| budgets(&Ranked::new(&mean_of(group))));
            vectors.kv_budgets = groups.collect();
        }
        if own.mass {
            vectors.mass = ranked.iter().map(mass).collect();
        }
        if let Some(layer) = layer.as_ref().filter(|_| own.has_outputs()) {
            vectors.output = layer.output_curves(&ranked, own, grid)?;
        }
        Ok(vectors)
    };
    Ok([ranked(last, &work.last)?, ranked(pooled, &work.pooled)?])
}

/// Values and output projection of a layer on the CPU.
struct HostLayer {
    /// `(T, D)` per KV head.
    values: Vec<Vec<f32>>,
    head_dim: usize,
    projection: Projection,
}

impl HostLayer {
    fn of(view: &AttentionView<'_>) -> Result<Self> {
        let (_, _, head_dim) = view.queries.dims3()?;
        let local =
            |t: &Tensor| -> Result<Tensor> { Ok(t.to_dtype(DType::F32)?.to_device(&Device::Cpu)?) };
        let heads = view.cache.heads.iter();
        let values =
            heads.map(|head| Ok(local(&head.values()?)?.flatten_all()?.to_vec1::<f32>()?));
        Ok(Self {
            values: values.collect::<Result<_>>()?,
            head_dim,
            projection: Projection::new(&local(&view.output_projection()?)?, head_dim)?,
        })
    }

    fn output_curves(
        &self,
        heads: &[Ranked],
        work: &VectorWork,
        grid: &[usize],
    ) -> Result<OutputCurves> {
        let values: Vec<&[f32]> = self.values.iter().map(Vec::as_slice).collect();
        let [renormalised, raw] = &work.outputs;
        let asked = [renormalised.as_deref(), raw.as_deref()];
        asked_output_curves(heads, &values, self.head_dim, &self.projection, asked, grid)
    }
}

fn at_thresholds(ranked: &Ranked, thresholds: &[f64]) -> Vec<u32> {
    let budget = |&t: &f64| ranked.minimum_budget(t) as u32;
    thresholds.iter().map(budget).collect()
}

fn mean_of(vectors: &[Vec<f64>]) -> Vec<f64> {
    let mut mean = vectors[0].clone();
    for vector in &vectors[1..] {
        mean.iter_mut().zip(vector).for_each(|(m, v)| *m += v);
    }
    mean.iter_mut().for_each(|m| *m /= vectors.len() as f64);
    mean
}
