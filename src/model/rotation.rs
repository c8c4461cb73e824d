//! Rotary embedding of one run of positions.

use std::ops::Range;

use candle_core::{D, DType, Device, Tensor};
use candle_nn::rotary_emb::rope;

use super::config::Rope;
use crate::error::Result;

/// How one layer turns the queries and keys of a text by their positions.
#[derive(Clone, Copy, Debug)]
pub struct TextRotation<'a> {
    frequencies: &'a [f32],
    magnitude: f32,
}

impl<'a> TextRotation<'a> {
    /// Of a text that began with so many tokens, which decides between two sets of frequencies.
    pub(super) fn new(by: &'a Rope, begun_for: usize) -> Self {
        Self {
            frequencies: by.frequencies_for(begun_for),
            magnitude: by.magnitude,
        }
    }

    /// None at all: every row stays what it is.
    pub fn none() -> Self {
        Self {
            frequencies: &[],
            magnitude: 1.0,
        }
    }

    /// Pairs of dimensions that are turned, i and i + pairs; the rest stay.
    pub fn pairs(&self) -> usize {
        self.frequencies.len()
    }

    /// Cosine and sine of every pair at a position, magnitude included.
    ///
    /// Shapes: `(pairs)`.
    pub fn at(&self, position: usize) -> impl Iterator<Item = [f32; 2]> + use<'a> {
        let magnitude = self.magnitude;
        let turns = angles(self.frequencies, position);
        turns.map(move |angle| {
            [
                angle.cos() as f32 * magnitude,
                angle.sin() as f32 * magnitude,
            ]
        })
    }

    /// Cosine and sine of every pair in the mean over `positions`.
    ///
    /// Differs: what turns a row by them is no rotation but the mean of several.
    /// Shapes: `(pairs)`.
    pub fn mean(&self, positions: Range<usize>) -> Vec<[f64; 2]> {
        let count = positions.len().max(1) as f64;
        let mut sums = vec![[0.0; 2]; self.pairs()];
        for position in positions {
            for (sum, [cos, sin]) in sums.iter_mut().zip(self.at(position)) {
                *sum = [sum[0] + f64::from(cos), sum[1] + f64::from(sin)];
            }
        }
        sums.iter().map(|[c, s]| [c / count, s / count]).collect()
    }
}

/// Takes a row back to what it was before it was turned by the cosines and sines of [`TextRotation::at`].
///
/// Differs: in float64; behind the pairs nothing was turned.
/// Panics: for a row that is shorter than what was turned.
pub fn turn_back(turns: &[[f32; 2]], row: &mut [f64]) {
    let pairs = turns.len();
    for (i, turn) in turns.iter().enumerate() {
        let [cos, sin] = turn.map(f64::from);
        let (x, y, squares) = (row[i], row[i + pairs], cos * cos + sin * sin);
        row[i] = (x * cos + y * sin) / squares;
        row[i + pairs] = (y * cos - x * sin) / squares;
    }
}

/// The angle of every pair at a position.
fn angles(frequencies: &[f32], position: usize) -> impl Iterator<Item = f64> + use<'_> {
    // The product is rounded to float32, as the models were trained and as references do.
    let at = position as f32;
    frequencies.iter().map(move |f| f64::from(at * f))
}

/// Cosines and sines of the positions of one run, `(n, pairs)`.
pub(super) struct Rotation {
    cos: Tensor,
    sin: Tensor,
}

impl Rotation {
    /// Of positions in a text that began with so many tokens, which decides between two sets of frequencies.
    pub(super) fn new(
        by: &Rope,
        begun_for: usize,
        positions: Range<usize>,
        device: &Device,
        dtype: DType,
    ) -> Result<Self> {
        let frequencies = by.frequencies_for(begun_for);
        let shape = (positions.len(), frequencies.len());
        let angles: Vec<f64> = positions.flat_map(|p| angles(frequencies, p)).collect();
        let tensor = |f: fn(f64) -> f64| -> Result<Tensor> {
            let values: Vec<f32> = (angles.iter())
                .map(|&angle| f(angle) as f32 * by.magnitude)
                .collect();
            Ok(Tensor::from_vec(values, shape, device)?.to_dtype(dtype)?)
        };
        Ok(Self {
            cos: tensor(f64::cos)?,
            sin: tensor(f64::sin)?,
        })
    }

    /// `(heads, n, D)` -> the same, rotated; dimensions behind the pairs stay as they are.
    pub(super) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let rotated = 2 * self.cos.dim(D::Minus1)?;
        let d = x.dim(D::Minus1)?;
        let rotate = |x: &Tensor| rope(&x.unsqueeze(0)?, &self.cos, &self.sin)?.squeeze(0);
        if rotated == d {
            return Ok(rotate(x)?);
        }
        let turned = rotate(&x.narrow(D::Minus1, 0, rotated)?.contiguous()?)?;
        let rest = x.narrow(D::Minus1, rotated, d - rotated)?;
        Ok(Tensor::cat(&[&turned, &rest], D::Minus1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rope(magnitude: f32) -> Rope {
        Rope {
            frequencies: vec![1.0, 0.01],
            long: None,
            magnitude,
        }
    }

    #[test]
    fn what_was_turned_comes_back_whatever_stays_and_is_magnified() {
        let rope = rope(1.19);
        // Six dimensions, of which the last two are not turned.
        let row = [0.5f32, -2.0, 3.0, 0.25, 7.0, -1.0];
        let rows = Tensor::from_slice(&row, (1, 1, 6), &Device::Cpu).unwrap();
        let at = Rotation::new(&rope, 9, 8..9, &Device::Cpu, DType::F32).unwrap();
        let turned = at.apply(&rows).unwrap().flatten_all().unwrap();
        let mut turned: Vec<f64> = (turned.to_vec1::<f32>().unwrap().iter())
            .map(|x| f64::from(*x))
            .collect();
        assert!((turned[0] - 0.5).abs() > 0.5);
        let turns: Vec<[f32; 2]> = TextRotation::new(&rope, 9).at(8).collect();
        turn_back(&turns, &mut turned);
        for (back, was) in turned.iter().zip(row) {
            assert!((back - f64::from(was)).abs() < 1e-6, "{back} {was}");
        }
    }

    #[test]
    fn the_mean_over_positions_is_the_mean_of_cosines_and_sines() {
        let rope = rope(2.0);
        let mean = TextRotation::new(&rope, 4).mean(3..5);
        let want = |f: fn(f64) -> f64| f(3.0) + f(4.0);
        assert!((mean[0][0] - want(f64::cos)).abs() < 1e-6);
        assert!((mean[0][1] - want(f64::sin)).abs() < 1e-6);
        assert!((mean[1][0] - ((0.03f64).cos() + (0.04f64).cos())).abs() < 1e-6);
        assert!(TextRotation::none().mean(0..9).is_empty());
    }
}
