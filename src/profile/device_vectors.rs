//! The two vectors of a layer, ranked and evaluated where a device has them.

use candle_core::{D, DType, IndexOp, Tensor};

use super::minimum_budget::Ranked;
use super::output_budget::{OutputCurve, OutputCurves, compared};
use super::vectors::Vectors;
use crate::error::Result;
use crate::model::attention::AttentionView;
use crate::model::device::{key_order, running_sums};
use crate::model::footprint::BUDGETS;

/// Ranks the last rows and the pooled vectors and evaluates every budget, all on their device.
///
/// Differs: every budget is evaluated, since a device does in a product what a CPU must leave out; prefix sums
/// are rounded to float32. What comes back is linear in the prompt: sorted vectors and the curves.
/// Shapes: both `(H_q, T)`, float64. Errors: [`crate::error::Error::Candle`].
pub(super) fn on_device(view: &AttentionView<'_>, vectors: [Tensor; 2]) -> Result<[Vectors; 2]> {
    let projection = view.output_projection()?.to_dtype(DType::F32)?.t()?;
    let kv_heads = view.cache.heads.len();
    let ranked = |vectors: Tensor| -> Result<Vectors> {
        let (heads, tokens) = vectors.dims2()?;
        let ranking = Ranking::of(&vectors)?;
        let groups = vectors.reshape((kv_heads, heads / kv_heads, tokens))?;
        Ok(Vectors {
            plain: vectors.to_vec2()?,
            ranked: ranking.bring()?,
            kv_ranked: Ranking::of(&groups.mean(1)?)?.bring()?,
            output: ranking.output_curves(view, &projection)?,
        })
    };
    let [last, pooled] = vectors;
    Ok([ranked(last)?, ranked(pooled)?])
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
        let order = key_order(vectors)?;
        let sorted = vectors.contiguous()?.gather(&order, D::Minus1)?;
        Ok(Self { order, sorted })
    }

    fn bring(&self) -> Result<Vec<Ranked>> {
        let (orders, sorted) = (self.order.to_vec2()?, self.sorted.to_vec2()?);
        let pairs = orders.into_iter().zip(sorted);
        Ok(pairs
            .map(|(order, sorted)| Ranked::of_sorted(order, sorted))
            .collect())
    }

    /// Sums of the kept keys' values, `(T, H_q * D)`, and of their weights, `(T, H_q, 1)`, for every budget.
    fn kept(&self, view: &AttentionView<'_>) -> Result<[Tensor; 2]> {
        let heads = self.order.dim(0)?;
        let group = heads / view.cache.heads.len();
        let mut outputs = Vec::with_capacity(heads);
        for h in 0..heads {
            let values = view.cache.heads[h / group].values()?;
            let values = values
                .index_select(&self.order.i(h)?, 0)?
                .to_dtype(DType::F32)?;
            let weights = self.sorted.i(h)?.to_dtype(DType::F32)?.unsqueeze(1)?;
            outputs.push(running_sums(&values.broadcast_mul(&weights)?)?);
        }
        let weights = self.sorted.t()?.to_dtype(DType::F32)?.contiguous()?; // (T, H_q)
        let masses = running_sums(&weights)?.unsqueeze(2)?;
        Ok([Tensor::cat(&outputs, 1)?, masses])
    }

    fn output_curves(&self, view: &AttentionView<'_>, projection: &Tensor) -> Result<OutputCurves> {
        let [kept, masses] = self.kept(view)?;
        let (tokens, width) = kept.dims2()?;
        let heads = masses.dim(1)?;
        let full = kept
            .i(tokens - 1..)?
            .matmul(projection)?
            .to_dtype(DType::F64)?; // (1, hidden)
        let norm = full.sqr()?.sum_all()?.to_scalar::<f64>()?.sqrt();
        let budgets: Vec<u32> = (1..=tokens as u32).collect();
        let curve = || OutputCurve {
            budgets: budgets.clone(),
            ..OutputCurve::default()
        };
        let mut curves = [curve(), curve()];
        for start in (0..tokens).step_by(BUDGETS) {
            let rows = BUDGETS.min(tokens - start);
            let raw = kept.narrow(0, start, rows)?;
            let masses = masses.narrow(0, start, rows)?;
            let divided = raw
                .reshape((rows, heads, width / heads))?
                .broadcast_div(&masses)?;
            let divided = divided.reshape((rows, width))?;
            for (curve, kept) in curves.iter_mut().zip([&divided, &raw]) {
                let outputs = kept.matmul(projection)?.to_dtype(DType::F64)?;
                let dots = outputs.broadcast_mul(&full)?.sum(1)?.to_vec1::<f64>()?;
                let norms = outputs.sqr()?.sum(1)?.to_vec1::<f64>()?;
                let distances = outputs
                    .broadcast_sub(&full)?
                    .sqr()?
                    .sum(1)?
                    .to_vec1::<f64>()?;
                for ((dot, squared), distance) in dots.into_iter().zip(norms).zip(distances) {
                    let [cosine, relative] = compared(dot, squared.sqrt(), distance, norm);
                    curve.cosine.push(cosine);
                    curve.relative_l2.push(relative);
                }
            }
        }
        let [renormalised, raw] = curves;
        Ok(OutputCurves {
            renormalised,
            raw,
            norm,
        })
    }
}
