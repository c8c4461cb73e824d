//! The two vectors of a layer, ranked and evaluated where a device has them.

use candle_core::{D, DType, IndexOp, Tensor};

use super::measures::SINKS;
use super::output_budget::{OutputCurve, OutputCurves, compared};
use super::vectors::{Spread, Vectors};
use super::work::{VectorWork, Work};
use crate::compute::device::{falling_order, prefix_sums, running_sums};
use crate::error::Result;
use crate::model::attention::AttentionView;
use crate::model::footprint::BUDGETS;

/// Ranks the last rows and the pooled vectors and evaluates every budget, all on their device.
///
/// Differs: every budget is evaluated, since a device does in a product what a CPU must leave out; prefix sums
/// are rounded to float32. What comes back are the measures, and the layer's curves.
/// Shapes: both `(H_q, T)`, float64. Errors: [`crate::error::Error::Candle`].
pub(super) fn on_device(
    view: &AttentionView<'_>,
    [last, pooled]: [Option<Tensor>; 2],
    work: &Work,
    grid: &[usize],
) -> Result<[Vectors; 2]> {
    let kv_heads = view.cache.heads.len();
    let projection =
        || -> Result<Tensor> { Ok(view.output_projection()?.to_dtype(DType::F32)?.t()?) };
    let projection = work.has_outputs().then(projection).transpose()?;
    let ranked = |vectors: Option<Tensor>, own: &VectorWork| -> Result<Vectors> {
        let mut measured = Vectors::default();
        let Some(vectors) = vectors else {
            return Ok(measured);
        };
        let (heads, tokens) = vectors.dims2()?;
        if own.ranks_heads() {
            let ranking = Ranking::of(&vectors)?;
            if own.heads || own.mass {
                let masses = ranking.masses()?;
                if own.heads {
                    measured.budgets = masses.budgets(&work.thresholds)?;
                }
                if own.mass {
                    measured.mass = masses.retained(grid)?;
                }
            }
            if let Some(projection) = projection.as_ref().filter(|_| own.has_outputs()) {
                measured.output = ranking.output_curves(view, projection, own)?;
            }
        }
        if own.kv_heads {
            let groups = vectors.reshape((kv_heads, heads / kv_heads, tokens))?;
            let masses = Ranking::of(&groups.mean(1)?)?.masses()?;
            measured.kv_budgets = masses.budgets(&work.thresholds)?;
        }
        Ok(measured)
    };
    Ok([ranked(last, &work.last)?, ranked(pooled, &work.pooled)?])
}

/// Entropy and shares of vectors `(H, T)` whose window begins at a key, head by head.
///
/// Errors: [`crate::error::Error::Candle`].
pub(super) fn spreads(vectors: &Tensor, window: usize) -> Result<Vec<Spread>> {
    let tokens = vectors.dim(1)?;
    let total = vectors.sum_keepdim(1)?;
    let p = vectors.broadcast_div(&total)?;
    // What is nothing adds nothing, whatever its logarithm.
    let terms = (&p * p.maximum(f64::MIN_POSITIVE)?.log()?)?;
    let on = |from: usize, end: usize| -> Result<Vec<f64>> {
        let part = vectors.narrow(1, from, end - from)?.sum_keepdim(1)?;
        Ok(part.broadcast_div(&total)?.flatten_all()?.to_vec1()?)
    };
    let entropy = terms.sum(1)?.neg()?.to_vec1::<f64>()?;
    let sinks = on(0, SINKS.min(tokens))?.into_iter();
    let heads = entropy.into_iter().zip(sinks.zip(on(window, tokens)?));
    let spread = |(entropy, (sink_mass, window_mass)): (f64, (f64, f64))| Spread {
        entropy: entropy.max(0.0),
        sink_mass,
        window_mass,
    };
    Ok(heads.map(spread).collect())
}

/// What every number of best keys holds.
struct Masses {
    /// `(H, T)`, float64.
    sums: Tensor,
    /// `(H, 1)`.
    total: Tensor,
}

impl Masses {
    /// MBA of every head at thresholds.
    fn budgets(&self, thresholds: &[f64]) -> Result<Vec<Vec<u32>>> {
        let (heads, keys) = self.sums.dims2()?;
        let mut budgets = vec![Vec::with_capacity(thresholds.len()); heads];
        for &threshold in thresholds {
            let target = (&self.total * threshold)?;
            let below = self.sums.broadcast_lt(&target)?.to_dtype(DType::U32)?;
            for (own, below) in budgets.iter_mut().zip(below.sum(1)?.to_vec1::<u32>()?) {
                own.push((below + 1).min(keys as u32));
            }
        }
        Ok(budgets)
    }

    /// Shares of the total that budgets hold, head by head.
    fn retained(&self, grid: &[usize]) -> Result<Vec<Vec<f64>>> {
        let last: Vec<u32> = grid.iter().map(|&b| b as u32 - 1).collect();
        let last = Tensor::new(last, self.sums.device())?;
        let held = self.sums.index_select(&last, 1)?;
        Ok(held.broadcast_div(&self.total)?.to_vec2()?)
    }
}

/// Vectors with their keys in the order in which budgets keep them.
struct Ranking {
    /// `(H, T)`, u32.
    order: Tensor,
    /// `(H, T)`, float64.
    sorted: Tensor,
}

impl Ranking {
    fn of(vectors: &Tensor) -> Result<Self> {
        let order = falling_order(vectors)?;
        let sorted = vectors.contiguous()?.gather(&order, D::Minus1)?;
        Ok(Self { order, sorted })
    }

    fn masses(&self) -> Result<Masses> {
        let sums = prefix_sums(&self.sorted)?;
        let keys = sums.dim(1)?;
        Ok(Masses {
            total: sums.narrow(1, keys - 1, 1)?,
            sums,
        })
    }

    /// Sums of the kept keys' values, `(T, H_q * D)`, and of their weights, `(T, H_q, 1)`, for every budget.
    fn kept(&self, view: &AttentionView<'_>) -> Result<[Tensor; 2]> {
        let heads = self.order.dim(0)?;
        let group = heads / view.cache.heads.len();
        let mut outputs = Vec::with_capacity(heads);
        for h in 0..heads {
            let values = view.cache.heads[h / group].values()?;
            let values = values.index_select(&self.order.i(h)?, 0)?;
            let values = values.to_dtype(DType::F32)?;
            let weights = self.sorted.i(h)?.to_dtype(DType::F32)?.unsqueeze(1)?;
            outputs.push(running_sums(&values.broadcast_mul(&weights)?)?);
        }
        let weights = self.sorted.t()?.to_dtype(DType::F32)?.contiguous()?; // (T, H_q)
        let masses = running_sums(&weights)?.unsqueeze(2)?;
        Ok([Tensor::cat(&outputs, 1)?, masses])
    }

    fn output_curves(
        &self,
        view: &AttentionView<'_>,
        projection: &Tensor,
        work: &VectorWork,
    ) -> Result<OutputCurves> {
        let [kept, masses] = self.kept(view)?;
        let (tokens, width) = kept.dims2()?;
        let heads = masses.dim(1)?;
        let full = kept.i(tokens - 1..)?.matmul(projection)?; // (1, hidden)
        let full = full.to_dtype(DType::F64)?;
        let norm = full.sqr()?.sum_all()?.to_scalar::<f64>()?.sqrt();
        let budgets: Vec<u32> = (1..=tokens as u32).collect();
        let mut curves = [0, 1].map(|raw| {
            (work.outputs[raw].as_ref()).map(|_| OutputCurve {
                budgets: budgets.clone(),
                ..OutputCurve::default()
            })
        });
        for start in (0..tokens).step_by(BUDGETS) {
            let rows = BUDGETS.min(tokens - start);
            let raw = kept.narrow(0, start, rows)?;
            let masses = masses.narrow(0, start, rows)?;
            let divided = raw.reshape((rows, heads, width / heads))?;
            let divided = divided.broadcast_div(&masses)?.reshape((rows, width))?;
            let asked = curves.iter_mut().zip([&divided, &raw]);
            for (curve, kept) in asked.filter_map(|(c, kept)| Some((c.as_mut()?, kept))) {
                let outputs = kept.matmul(projection)?.to_dtype(DType::F64)?;
                let dots = outputs.broadcast_mul(&full)?.sum(1)?.to_vec1::<f64>()?;
                let norms = outputs.sqr()?.sum(1)?.to_vec1::<f64>()?;
                let distances = outputs.broadcast_sub(&full)?.sqr()?.sum(1)?;
                let distances = distances.to_vec1::<f64>()?;
                for ((dot, squared), distance) in dots.into_iter().zip(norms).zip(distances) {
                    let [cosine, relative] = compared(dot, squared.sqrt(), distance, norm);
                    curve.cosine.push(cosine);
                    curve.relative_l2.push(relative);
                }
            }
        }
        let [renormalised, raw] = curves.map(Option::unwrap_or_default);
        Ok(OutputCurves {
            renormalised,
            raw,
            norm,
        })
    }
}
