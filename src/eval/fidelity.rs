//! How far a compressed cache's predictions are from the full cache's.

use std::time::Instant;

use rayon::prelude::*;

use crate::error::Result;
use crate::method::LiveCache;
use crate::model::decoder::Decoder;

/// Logits after each of `ids` when exactly these are fed to a cache one by one, and the seconds they took.
///
/// Shapes: `(ids, vocab)`. Errors: those of the decoder.
pub fn teacher_forced(
    decoder: &Decoder,
    live: &mut LiveCache,
    ids: &[u32],
) -> Result<(Vec<Vec<f32>>, f64)> {
    let start = Instant::now();
    let rows = ids
        .iter()
        .map(|&id| Ok(live.step(decoder, id)?.to_vec1::<f32>()?));
    let rows = rows.collect::<Result<_>>()?;
    Ok((rows, start.elapsed().as_secs_f64()))
}

/// How far a compressed cache's predictions are from the full cache's; NaN where nothing was predicted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fidelity {
    /// Mean KL(full ‖ compressed), in nats.
    pub kl: f64,
    /// Share of steps with the same most likely token.
    pub top1: f64,
}

/// Compares logits after the same tokens, step by step.
///
/// Where the question was prefilled, the logits of the prompt itself are no step: they come from the prefill, whatever
/// is cut afterwards.
/// Paper: none: house definition. Units: nats; a share.
pub fn fidelity<R: AsRef<[f32]> + Sync>(full: &[R], compressed: &[R]) -> Fidelity {
    let steps = full.len().min(compressed.len()) as f64;
    let (divergences, agreed): (Vec<f64>, Vec<bool>) = full
        .par_iter()
        .zip(compressed)
        .map(|(f, c)| (f.as_ref(), c.as_ref()))
        .map(|(f, c)| (divergence(f, c), most_likely(f) == most_likely(c)))
        .unzip();
    Fidelity {
        kl: divergences.iter().sum::<f64>() / steps,
        top1: agreed.iter().filter(|a| **a).count() as f64 / steps,
    }
}

/// The id of the largest logit; the lowest of equals.
pub fn most_likely(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (id, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = id;
        }
    }
    best as u32
}

/// −ln p(id) under a row of logits, in nats.
pub fn surprise(logits: &[f32], id: u32) -> f64 {
    let own = logits
        .get(id as usize)
        .copied()
        .unwrap_or(f32::NEG_INFINITY);
    log_normaliser(logits) - f64::from(own)
}

/// ln Σ exp of a row of logits.
fn log_normaliser(logits: &[f32]) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&v| f64::from(v - max).exp()).sum();
    f64::from(max) + sum.ln()
}

/// KL(p ‖ q) of two rows of logits, in nats.
fn divergence(p: &[f32], q: &[f32]) -> f64 {
    let (zp, zq) = (log_normaliser(p), log_normaliser(q));
    let terms = p.iter().zip(q).map(|(&a, &b)| {
        let (log_p, log_q) = (f64::from(a) - zp, f64::from(b) - zq);
        log_p.exp() * (log_p - log_q)
    });
    terms.sum::<f64>().max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_by_hand() {
        // p = (1/2, 1/2), q = (1/4, 3/4): KL = ln 2 - (ln 3) / 2.
        let (p, q) = ([0.0f32, 0.0], [1f32.ln(), 3f32.ln()]);
        assert!((divergence(&p, &q) - (2f64.ln() - 3f64.ln() / 2.0)).abs() < 1e-6);
        assert_eq!(divergence(&q, &q), 0.0);
        // Adding a constant to logits changes nothing.
        assert!((divergence(&[5.0, 5.0], &q) - divergence(&p, &q)).abs() < 1e-6);
    }

    #[test]
    fn fidelity_is_a_mean_over_steps() {
        let full = vec![vec![0.0, 1.0], vec![2.0, 0.0]];
        let same = fidelity(&full, &full);
        assert_eq!((same.kl, same.top1), (0.0, 1.0));
        assert!(
            fidelity::<Vec<f32>>(&[], &[]).kl.is_nan(),
            "nothing was predicted"
        );
        let half = fidelity(&full, &[vec![0.0, 1.0], vec![0.0, 2.0]]);
        assert_eq!(half.top1, 0.5);
        assert!(half.kl > 0.0);
    }

    #[test]
    fn the_lowest_of_equal_logits_wins() {
        assert_eq!(most_likely(&[1.0, 3.0, 3.0]), 1);
    }
}
