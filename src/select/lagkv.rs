//! LagKV: tokens whose keys and values stand out beside those of the next chunk.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::host_rows::host_rows;
use super::{LayerObservation, LayerScores, Needs, Scorer};
use crate::error::Result;
use crate::registry::{Entry, described, parse};

/// Rank of a token within its chunk by how unevenly its key and value fill the range of the next chunk's.
///
/// Behind the first `skip` tokens the prompt is cut into chunks of `lag`. Channels of a row are placed in the range of
/// the same channels in the next chunk; a softmax over the chunk of the standard deviations of these places, in the mean
/// of keys and values, ranks its tokens.
/// Paper: arXiv:2504.04704 (LagKV), section 3. Differs: tokens of one rank in several chunks, which kvpress leaves to
/// chance, go by that mean; the first tokens score as the largest rank, and the last chunk with what is left behind it
/// above it, since no next chunk says anything of them. A prompt of fewer than two chunks goes by recency.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LagKv {
    /// Tokens of a chunk.
    pub lag: usize,
    /// First tokens, which belong to no chunk.
    pub skip: usize,
    /// Whether tokens of several chunks are compared by what ranks them, not by their ranks.
    pub cross: bool,
}

impl Default for LagKv {
    fn default() -> Self {
        Self {
            lag: 128,
            skip: 4,
            cross: false,
        }
    }
}

pub(super) const ENTRY: Entry<dyn Scorer> = Entry {
    name: "lagkv",
    paper: "arXiv:2504.04704 (LagKV), section 3",
    about: "rank within a chunk of 128 tokens, by how keys and values fill the range of the next chunk's",
    differs: "equal ranks of several chunks go by the score that ranks; the last chunk stays first of all",
    build: |p| {
        let scorer = parse::<LagKv>(p)?;
        if scorer.lag < 2 {
            return Err(serde::de::Error::custom(
                "lag must be at least 2 tokens, or no range is left",
            ));
        }
        Ok(Box::new(scorer))
    },
};

impl Scorer for LagKv {
    fn parameters(&self) -> Value {
        described(self)
    }

    fn needs(&self, _: usize) -> Needs {
        Needs {
            keys: true,
            values: true,
            ..Needs::default()
        }
    }

    fn score(&self, observation: &LayerObservation<'_>) -> Result<LayerScores> {
        let tokens = observation.tokens;
        let skip = self.skip.max(observation.first_in_sight);
        let chunks = tokens.saturating_sub(skip) / self.lag;
        let mut scores = Vec::with_capacity(observation.kv_heads * tokens);
        for (keys, values) in observation.keys()?.iter().zip(observation.values()?) {
            if chunks < 2 {
                scores.extend((0..tokens).map(|i| i as f64 / tokens as f64));
                continue;
            }
            let (_, width) = keys.dims2()?;
            let [keys, values] = [host_rows(keys)?, host_rows(values)?]
                .map(|rows| self.shares(&rows[skip * width..][..chunks * self.lag * width], width));
            scores.extend(std::iter::repeat_n(1.0, skip));
            for (keys, values) in keys.iter().zip(&values) {
                scores.extend(self.chunk_scores(keys, values));
            }
            let rest = tokens - skip - (chunks - 1) * self.lag;
            scores.extend(std::iter::repeat_n(2.0, rest));
        }
        LayerScores::of_heads(scores, observation.kv_heads, observation.device)
    }
}

impl LagKv {
    /// Softmax over every chunk but the last of how its rows fill the range of the next.
    fn shares(&self, rows: &[f32], width: usize) -> Vec<Vec<f64>> {
        let chunks: Vec<&[f32]> = rows.chunks((self.lag * width).max(1)).collect();
        let pairs = chunks.windows(2);
        pairs
            .map(|pair| softmax(&deviations(pair[0], pair[1], width)))
            .collect()
    }

    fn chunk_scores(&self, keys: &[f64], values: &[f64]) -> Vec<f64> {
        let mean: Vec<f64> = keys
            .iter()
            .zip(values)
            .map(|(k, v)| (k + v) / 2.0)
            .collect();
        if self.cross {
            return mean;
        }
        let mut order: Vec<usize> = (0..mean.len()).collect();
        order.sort_by(|a, b| mean[*a].total_cmp(&mean[*b]));
        let mut scores = vec![0.0; mean.len()];
        // A mean is below 1, so that it never reaches the next rank.
        for (rank, &token) in order.iter().enumerate() {
            scores[token] = (rank as f64 + mean[token].min(0.999)) / mean.len() as f64;
        }
        scores
    }
}

/// For every row the standard deviation of its channels' places in the range of the reference's.
fn deviations(rows: &[f32], reference: &[f32], width: usize) -> Vec<f64> {
    let mut ranges = vec![[f64::INFINITY, f64::NEG_INFINITY]; width];
    for row in reference.chunks(width.max(1)) {
        for (range, x) in ranges.iter_mut().zip(row) {
            let x = f64::from(*x);
            *range = [range[0].min(x), range[1].max(x)];
        }
    }
    let place = |(x, [low, high]): (&f32, &[f64; 2])| {
        // A channel that never moves says nothing.
        if high > low {
            (f64::from(*x) - low) / (high - low)
        } else {
            0.0
        }
    };
    let deviation = |row: &[f32]| {
        let places: Vec<f64> = row.iter().zip(&ranges).map(place).collect();
        let mean = places.iter().sum::<f64>() / width as f64;
        let squares: f64 = places.iter().map(|p| (p - mean).powi(2)).sum();
        (squares / (width as f64 - 1.0).max(1.0)).sqrt()
    };
    rows.chunks(width.max(1)).map(deviation).collect()
}

fn softmax(numbers: &[f64]) -> Vec<f64> {
    let largest = numbers.iter().fold(f64::NEG_INFINITY, |m, x| m.max(*x));
    let exponentials: Vec<f64> = numbers.iter().map(|x| (x - largest).exp()).collect();
    let total: f64 = exponentials.iter().sum();
    exponentials.iter().map(|e| e / total).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor};

    fn scores(scorer: &LagKv, rows: &[[f32; 2]]) -> Vec<f64> {
        let shape = (rows.len(), 2);
        let keys = [Tensor::from_vec(rows.concat(), shape, &Device::Cpu).unwrap()];
        let observation = LayerObservation {
            keys: Some(&keys),
            values: Some(&keys),
            ..LayerObservation::of(rows.len(), 1, 1, &Device::Cpu)
        };
        scorer
            .score(&observation)
            .unwrap()
            .to_rows()
            .unwrap()
            .remove(0)
    }

    #[test]
    fn rows_that_fill_the_next_chunks_range_unevenly_rank_highest() {
        // Places of the first chunk in the ranges 0..2 and 0..4 of the second: (0.5, 0.25), (1, 0), (0.25, 0.25).
        let rows = [
            [9.0, 9.0],
            [1.0, 1.0],
            [2.0, 0.0],
            [0.5, 1.0],
            [0.0, 4.0],
            [2.0, 0.0],
            [1.0, 1.0],
            [7.0, 7.0],
        ];
        let scorer = |cross| LagKv {
            lag: 3,
            skip: 1,
            cross,
        };
        let half = 0.5f64.sqrt();
        let exponentials = [0.25 * half, half, 0.0].map(f64::exp);
        let shares = exponentials.map(|e| e / exponentials.iter().sum::<f64>());
        let want = [1.0, shares[0], shares[1], shares[2], 2.0, 2.0, 2.0, 2.0];
        for (got, want) in scores(&scorer(true), &rows).iter().zip(want) {
            assert!((got - want).abs() < 1e-12, "{got} {want}");
        }
        let ranked = scores(&scorer(false), &rows);
        for (got, rank) in ranked[1..4].iter().zip([1.0, 2.0, 0.0]) {
            assert!((rank / 3.0..(rank + 1.0) / 3.0).contains(got), "{ranked:?}");
        }
    }

    #[test]
    fn short_prompts_go_by_recency_and_still_channels_say_nothing() {
        let scorer = LagKv::default();
        assert_eq!(scores(&scorer, &[[1.0, 2.0], [0.0, 5.0]]), [0.0, 0.5]);
        assert_eq!(deviations(&[1.0, 3.0], &[2.0, 2.0], 2), [0.0]);
    }
}
