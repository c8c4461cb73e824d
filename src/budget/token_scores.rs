//! A prompt's scores as plain numbers, for allocators that spend by what a method's own scorer says.

use crate::error::{Error, Result};

/// How much every token of a prompt matters to every KV head, by the scorer that ranks it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenScores {
    /// `[layer][kv_head][token]`.
    layers: Vec<Vec<Vec<f64>>>,
    /// The first token of every layer that later ones see.
    firsts: Vec<usize>,
}

impl TokenScores {
    /// Takes scores over, with the first token of every layer that later ones see.
    ///
    /// Shapes: `[layer][kv_head][token]`, `[layer]`. Errors: [`Error::NotFinite`].
    pub fn new(layers: Vec<Vec<Vec<f64>>>, firsts: Vec<usize>) -> Result<Self> {
        let mut all = layers.iter().flatten().flatten();
        if all.any(|score| !score.is_finite()) {
            return Err(Error::NotFinite {
                place: "a token's score".into(),
                advice: "attention or keys hold NaN; the weights may be damaged".into(),
            });
        }
        Ok(Self { layers, firsts })
    }

    /// Those of some layers, as if the model had no others.
    pub(super) fn of_layers(&self, layers: &[usize]) -> Self {
        let scores = layers.iter().filter_map(|&l| self.layers.get(l).cloned());
        let firsts = layers.iter().filter_map(|&l| self.firsts.get(l).copied());
        Self {
            layers: scores.collect(),
            firsts: firsts.collect(),
        }
    }

    /// What competes for a budget: `[layer][kv_head]`, without the first `sinks` and the last `window` tokens, and what is
    /// out of sight.
    pub fn competing(&self, sinks: usize, window: usize) -> Vec<Vec<&[f64]>> {
        let layers = self.layers.iter().zip(&self.firsts);
        layers
            .map(|(heads, &first)| {
                let heads = heads.iter();
                let from = first.max(sinks);
                heads.map(|head| competing(head, from, window)).collect()
            })
            .collect()
    }
}

fn competing(scores: &[f64], from: usize, window: usize) -> &[f64] {
    let end = scores.len().saturating_sub(window);
    &scores[from.min(end)..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_always_stays_does_not_compete() {
        let layers = vec![vec![vec![1.0, 2.0, 3.0, 4.0]], vec![vec![5.0, 6.0]]];
        let scores = TokenScores::new(layers, vec![0, 1]).unwrap();
        assert_eq!(scores.competing(1, 1), [[&[2.0, 3.0][..]], [&[][..]]]);
        assert_eq!(scores.competing(0, 0)[1], [&[6.0][..]]);
        assert_eq!(scores.of_layers(&[1]).competing(0, 0), [[&[6.0][..]]]);
        assert!(TokenScores::new(vec![vec![vec![f64::NAN]]], vec![0]).is_err());
    }
}
