//! The scores of a layer, where they were made.

use candle_core::{DType, Device, Tensor};

use super::FirstStage;
use crate::error::{Error, Result};

/// How much every token matters to every KV head of a layer.
///
/// Differs: a scorer of two stages says here what its first one chooses by; see [`FirstStage`].
/// Shapes: `(H_kv, T)`, float64, contiguous, on the device of [`place_of_scores`].
#[derive(Clone, Debug)]
pub struct LayerScores {
    scores: Tensor,
    first: Option<FirstStage>,
}

impl LayerScores {
    /// Scores that a scorer computed.
    ///
    /// Errors: [`Error::Invalid`] for another shape or element type.
    pub fn new(scores: Tensor) -> Result<Self> {
        if scores.rank() != 2 || scores.dtype() != DType::F64 {
            let found = format!("{:?} of {:?}", scores.dims(), scores.dtype());
            let bound = "float64 numbers for every KV head and token are needed";
            return Err(Error::invalid("scores of a layer", found, bound));
        }
        Ok(Self {
            scores: scores.contiguous()?,
            first: None,
        })
    }

    /// Scores by which a budget's rest is spent, once a first stage has chosen.
    ///
    /// Errors: as [`LayerScores::new`]; [`Error::Invalid`] for a first stage of another shape or without a meaning.
    pub fn in_two_stages(first: FirstStage, scores: Tensor) -> Result<Self> {
        let scores = Self::new(scores)?.scores;
        if !first.fits(scores.dims2()?)? {
            let found = format!("{:?} over {:?}", first.count, first.scores.dims());
            let bound = format!(
                "a share from 0 to 1, or a count for every KV head, of scores {:?} is needed",
                scores.dims()
            );
            return Err(Error::invalid(
                "first stage of a layer's scores",
                found,
                bound,
            ));
        }
        Ok(Self {
            scores,
            first: Some(FirstStage {
                scores: first.scores.contiguous()?,
                count: first.count,
            }),
        })
    }

    /// Scores that were made on the CPU, head by head, brought to a device.
    ///
    /// Errors: as [`LayerScores::new`]; [`Error::Candle`] where they do not fit.
    pub fn of_heads(scores: Vec<f64>, kv_heads: usize, device: &Device) -> Result<Self> {
        let tokens = scores.len() / kv_heads.max(1);
        Self::new(Tensor::from_vec(scores, (kv_heads, tokens), device)?)
    }

    /// The same scores for every KV head, from those of all, `(1, T)`.
    ///
    /// Errors: as [`LayerScores::new`].
    pub fn alike(scores: &Tensor, kv_heads: usize) -> Result<Self> {
        let (_, tokens) = scores.dims2()?;
        Self::new(scores.broadcast_as((kv_heads, tokens))?)
    }

    /// Those of the tokens from `first` on.
    ///
    /// Errors: [`Error::Candle`] for a token that there is not.
    pub(super) fn starting_at(&self, first: usize) -> Result<Self> {
        if first == 0 {
            return Ok(self.clone());
        }
        let (_, tokens) = self.scores.dims2()?;
        let rest = self.scores.narrow(1, first, tokens.saturating_sub(first))?;
        let stage = self.first.as_ref();
        Ok(Self {
            scores: rest.contiguous()?,
            first: stage.map(|stage| stage.starting_at(first)).transpose()?,
        })
    }

    /// The scores, `(H_kv, T)`.
    pub fn tensor(&self) -> &Tensor {
        &self.scores
    }

    /// What chooses before these scores do, if anything does.
    pub fn first_stage(&self) -> Option<&FirstStage> {
        self.first.as_ref()
    }

    /// The scores on the CPU, `[kv_head][token]`, to look at; nothing that is chosen needs them.
    ///
    /// Errors: [`Error::Candle`].
    pub fn to_rows(&self) -> Result<Vec<Vec<f64>>> {
        Ok(self.scores.to_vec2()?)
    }
}

/// Where a model's scores are made, kept and ranked: on its own device.
///
/// Differs: Metal computes no float64, in which all scores are; there attention and keys come to the CPU, and scores
/// are made and ranked on it.
pub fn place_of_scores(device: &Device) -> Device {
    if device.is_metal() {
        Device::Cpu
    } else {
        device.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_float64_per_head_and_token() {
        let tensor = |dtype| Tensor::zeros((2, 3), dtype, &Device::Cpu).unwrap();
        assert!(LayerScores::new(tensor(DType::F32)).is_err());
        assert!(LayerScores::new(tensor(DType::F64).flatten_all().unwrap()).is_err());
        let turned = LayerScores::new(tensor(DType::F64).t().unwrap()).unwrap();
        assert!(turned.tensor().is_contiguous());
        let one = Tensor::new(&[[1.0, 2.0]], &Device::Cpu).unwrap();
        let alike = LayerScores::alike(&one, 3).unwrap();
        assert_eq!(alike.to_rows().unwrap(), [[1.0, 2.0]; 3]);
    }
}
