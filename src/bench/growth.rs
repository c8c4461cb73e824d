//! How prefill grows with the prompt, against what its operations predict.

use serde::{Deserialize, Serialize};

use crate::model::config::ModelConfig;
use crate::model::operations::{head_flops, layer_flops, pair_flops};

/// Seconds of prefill as a·T + b·T², and the same of its operations at the machine's limit.
///
/// Paper: none: house definition. Differs: relative errors are squared, so that the longest prompt does not
/// decide alone; the output head, which runs once a prompt, is in neither coefficient.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Growth {
    /// a: seconds per token.
    pub linear: f64,
    /// b: seconds per token squared.
    pub quadratic: f64,
    /// a if the matrix product's limit were reached; `None` where no limit was measured.
    pub linear_at_limit: Option<f64>,
    /// b likewise.
    pub quadratic_at_limit: Option<f64>,
    /// The lengths that were fitted.
    pub points: Vec<GrowthPoint>,
}

/// One length of a fit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct GrowthPoint {
    /// T.
    pub tokens: usize,
    /// Measured.
    pub seconds: f64,
    /// What the fit gives.
    pub fitted: f64,
    /// Measured over fitted, less 1.
    pub residual: f64,
    /// Measured over what the operations take at the limit.
    pub of_limit: Option<f64>,
}

/// Fits seconds of bare prefill, on the wall or of CPU, at several T; `None` below three of them.
///
/// `flops_per_s` is the limit of the same kind of seconds.
pub fn growth(
    measured: &[(usize, f64)],
    config: &ModelConfig,
    flops_per_s: Option<f64>,
) -> Option<Growth> {
    let (linear, quadratic) = fit(measured)?;
    // T tokens make T (T + 1) / 2 pairs of query and key.
    let per_pair = pair_flops(config) / 2.0;
    let per_token = layer_flops(config) + per_pair;
    let at_limit = |flops: f64| flops_per_s.map(|rate| flops / rate);
    let point = |&(tokens, seconds): &(usize, f64)| {
        let t = tokens as f64;
        let fitted = linear * t + quadratic * t * t;
        let flops = per_token * t + per_pair * t * t + head_flops(config);
        GrowthPoint {
            tokens,
            seconds,
            fitted,
            residual: seconds / fitted - 1.0,
            of_limit: at_limit(flops).map(|least| seconds / least),
        }
    };
    Some(Growth {
        linear,
        quadratic,
        linear_at_limit: at_limit(per_token),
        quadratic_at_limit: at_limit(per_pair),
        points: measured.iter().map(point).collect(),
    })
}

/// a and b that minimise Σ ((s − a T − b T²) / s)².
fn fit(measured: &[(usize, f64)]) -> Option<(f64, f64)> {
    if measured.len() < 3 {
        return None;
    }
    let (mut xx, mut xy, mut yy, mut x1, mut y1) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for &(tokens, seconds) in measured {
        let t = tokens as f64;
        let (x, y) = (t / seconds, t * t / seconds);
        xx += x * x;
        xy += x * y;
        yy += y * y;
        x1 += x;
        y1 += y;
    }
    let determinant = xx * yy - xy * xy;
    let solved = (
        (x1 * yy - y1 * xy) / determinant,
        (y1 * xx - x1 * xy) / determinant,
    );
    (solved.0.is_finite() && solved.1.is_finite()).then_some(solved)
}

#[cfg(test)]
mod tests {
    use super::super::arithmetic::tests::small;
    use super::*;

    #[test]
    fn an_exact_parabola_is_found_again() {
        let exact = |t: usize| (t, 2e-3 * t as f64 + 5e-7 * (t * t) as f64);
        let found = growth(&[1024, 2048, 8192].map(exact), &small(), None).unwrap();
        assert!((found.linear - 2e-3).abs() < 1e-12);
        assert!((found.quadratic - 5e-7).abs() < 1e-15);
        assert!(found.points.iter().all(|p| p.residual.abs() < 1e-9));
        assert_eq!(found.linear_at_limit, None);
        assert_eq!(growth(&[1024, 2048].map(exact), &small(), None), None);
        // One length three times says nothing about growth.
        assert_eq!(growth(&[exact(64); 3], &small(), None), None);
    }

    #[test]
    fn the_limit_predicts_both_coefficients() {
        // 1140 operations a token in linear layers, 96 a pair, 110 in the head.
        let seconds = |t: usize| {
            let t = t as f64;
            2.0 * (1140.0 * t + 96.0 * t * (t + 1.0) / 2.0 + 110.0) / 1e3
        };
        let measured = [10, 20, 40].map(|t| (t, seconds(t)));
        let found = growth(&measured, &small(), Some(1e3)).unwrap();
        assert!((found.linear_at_limit.unwrap() - 1.188).abs() < 1e-12);
        assert!((found.quadratic_at_limit.unwrap() - 0.048).abs() < 1e-12);
        for point in &found.points {
            assert!((point.of_limit.unwrap() - 2.0).abs() < 1e-12, "{point:?}");
        }
        // A residual is what the fit leaves: here the head, felt most by the shortest prompt.
        assert!(found.points[0].residual.abs() < 0.01);
    }
}
