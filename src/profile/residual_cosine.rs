//! How far a layer's attention turns the residual stream.

use candle_core::{DType, Tensor};

use crate::error::{Error, Result};

/// Sum over a prompt's tokens of the cosine between the residual stream before a layer's attention and after it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ResidualCosine {
    sum: f64,
    tokens: usize,
}

impl ResidualCosine {
    /// Adds the tokens of a run.
    ///
    /// Shapes: `(n, hidden)` both. Errors: [`Error::NotFinite`]; [`Error::Candle`].
    pub(super) fn add(&mut self, before: &Tensor, after: &Tensor) -> Result<()> {
        let rows = |t: &Tensor| -> Result<Vec<Vec<f64>>> { Ok(t.to_dtype(DType::F64)?.to_vec2()?) };
        for (before, after) in rows(before)?.iter().zip(rows(after)?.iter()) {
            self.sum += cosine(before, after);
            self.tokens += 1;
        }
        if self.sum.is_finite() {
            return Ok(());
        }
        Err(Error::NotFinite {
            place: "the residual stream".into(),
            advice: "the weights are damaged, or --dtype is too narrow for them: try f32".into(),
        })
    }

    /// The mean over all tokens.
    pub(super) fn mean(&self) -> f64 {
        self.sum / self.tokens.max(1) as f64
    }
}

/// The cosine of two vectors; 1 where one of them is 0, since nothing was turned.
fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let product = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    let norms = (product(a, a) * product(b, b)).sqrt();
    if norms == 0.0 {
        1.0
    } else {
        product(a, b) / norms
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn tokens_are_averaged_over_runs() {
        let rows = |rows: &[[f32; 2]]| {
            Tensor::from_vec(rows.concat(), (rows.len(), 2), &Device::Cpu).unwrap()
        };
        let mut cosine = ResidualCosine::default();
        cosine
            .add(
                &rows(&[[1.0, 0.0], [2.0, 0.0]]),
                &rows(&[[3.0, 0.0], [0.0, 1.0]]),
            )
            .unwrap();
        cosine
            .add(&rows(&[[1.0, 1.0]]), &rows(&[[-2.0, -2.0]]))
            .unwrap();
        // 1, 0 and -1.
        assert!(cosine.mean().abs() < 1e-15);
        assert!(
            cosine
                .add(&rows(&[[f32::NAN, 0.0]]), &rows(&[[1.0, 0.0]]))
                .is_err()
        );
    }

    #[test]
    fn a_stream_of_nothing_is_not_turned() {
        assert_eq!(super::cosine(&[0.0, 0.0], &[1.0, 2.0]), 1.0);
    }
}
