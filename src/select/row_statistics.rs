//! What single rows of the window say of every token, for allocators: contributions to entropy and variance.

use serde_json::Value;

use super::{LayerObservation, LayerScores, Needs, Scorer, WindowRows};
use crate::error::Result;
use crate::profile::TokenMeasure;

/// The measure of every token, made as scores are, though nothing is ranked by it.
///
/// Shapes: `(H_kv, T)`, summed over the query heads of a group and the rows of the window.
/// Differs: rows are those of the attention itself, not renormalised over the tokens that compete.
impl Scorer for TokenMeasure {
    fn parameters(&self) -> Value {
        Value::Null
    }

    fn needs(&self, window: usize) -> Needs {
        Needs {
            window_rows: window.max(1),
            ..Needs::default()
        }
    }

    fn score(&self, observation: &LayerObservation<'_>) -> Result<LayerScores> {
        let rows = observation.window_rows()?;
        let (tokens, group) = (observation.tokens, observation.group);
        let of_head: fn(WindowRows<'_>, usize, &mut [f64]) = match self {
            Self::RowEntropy => add_entropies,
            Self::RowVariance => add_variances,
        };
        let mut sums = vec![0.0; observation.kv_heads * tokens];
        for (kv_head, sums) in sums.chunks_mut(tokens.max(1)).enumerate() {
            for head in kv_head * group..(kv_head + 1) * group {
                of_head(rows, head, sums);
            }
        }
        LayerScores::of_heads(sums, observation.kv_heads, observation.device)
    }
}

/// −p ln p of every row.
fn add_entropies(rows: WindowRows<'_>, head: usize, sums: &mut [f64]) {
    for row in rows.of_head(head) {
        for (sum, p) in sums.iter_mut().zip(row).filter(|(_, p)| **p > 0.0) {
            let p = f64::from(*p);
            *sum -= p * p.ln();
        }
    }
}

/// The unbiased variance over the rows, 0 for a single one.
fn add_variances(rows: WindowRows<'_>, head: usize, sums: &mut [f64]) {
    let count = rows.rows() as f64;
    let mut means = vec![0.0; sums.len()];
    for row in rows.of_head(head) {
        let terms = means.iter_mut().zip(row);
        terms.for_each(|(mean, p)| *mean += f64::from(*p) / count);
    }
    let divisor = (count - 1.0).max(1.0);
    for row in rows.of_head(head) {
        let terms = sums.iter_mut().zip(row).zip(&means);
        terms.for_each(|((sum, p), mean)| *sum += (f64::from(*p) - mean).powi(2) / divisor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn tokens_by_hand() {
        // Two query heads of one KV head, two rows, two tokens.
        let values = [0.5, 0.5, 1.0, 0.0, 0.25, 0.75, 0.25, 0.75_f32];
        let rows = WindowRows::new(&values, 2, 2, 2);
        let observation = LayerObservation {
            window_rows: Some(rows),
            ..LayerObservation::of(2, 2, 1, &Device::Cpu)
        };
        let of = |measure: TokenMeasure| measure.score(&observation).unwrap().to_rows().unwrap();
        let half = 0.5 * 2f64.ln();
        let quarter = 0.25 * 4f64.ln();
        let rest = -0.75 * 0.75f64.ln();
        let entropies = of(TokenMeasure::RowEntropy);
        for (found, want) in entropies[0]
            .iter()
            .zip([half + 2.0 * quarter, half + 2.0 * rest])
        {
            assert!((found - want).abs() < 1e-12);
        }
        // 0.5 and 1 have the variance 1/8, 0.5 and 0 too; the second head does not move.
        assert_eq!(of(TokenMeasure::RowVariance), [[0.125, 0.125]]);
    }
}
