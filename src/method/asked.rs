//! Scorers that methods ask for, each once, with what they said of a prompt.

use serde_json::Value;

use super::definition::Method;
use crate::profile::TokenMeasure;
use crate::select::{LayerScores, Scorer};

/// A scorer that some method asks for; each scores a prompt once, however many methods use it.
pub(super) struct Asked<'a> {
    name: &'a str,
    parameters: Value,
    pub(super) scorer: &'a dyn Scorer,
    pub(super) scores: Vec<LayerScores>,
    /// Seconds of passes that are its own.
    pub(super) seconds: f64,
    /// Why such passes could not be made, where they could not.
    pub(super) problem: Option<String>,
}

impl<'a> Asked<'a> {
    pub(super) fn of(name: &'a str, scorer: &'a dyn Scorer) -> Self {
        Self {
            name,
            parameters: scorer.parameters(),
            scorer,
            scores: Vec::new(),
            seconds: 0.0,
            problem: None,
        }
    }

    /// All that `methods` ask for, each once.
    pub(super) fn by(methods: &'a [Method]) -> Vec<Self> {
        let rankings = methods.iter().filter_map(|m| m.cut.as_ref());
        let rankings = rankings.map(|cut| (cut.ranking.name.as_str(), &*cut.ranking.scorer));
        let residencies = methods.iter().filter_map(|m| m.residency.prompt_scorer());
        let measures = methods.iter().flat_map(|m| m.own_needs().token_measures);
        let measures = measures.map(|measure| (measure.name(), token_scorer(measure)));
        let mut asked: Vec<Self> = Vec::new();
        for (name, scorer) in rankings.chain(residencies).chain(measures) {
            let one = Self::of(name, scorer);
            if !asked.iter().any(|known| known.scores_like(&one)) {
                asked.push(one);
            }
        }
        asked
    }

    /// How a layer's budget is split is no part of the score.
    pub(super) fn scores_like(&self, other: &Self) -> bool {
        self.name == other.name && self.parameters == other.parameters
    }

    pub(super) fn looks_ahead(&self, window: usize) -> bool {
        self.scorer.needs(window).continuation
    }

    /// Whether the prefill is what it scores by.
    pub(super) fn is_of_prefill(&self, window: usize) -> bool {
        let needs = self.scorer.needs(window);
        !needs.continuation && needs.replay.is_none() && self.scorer.imported().is_none()
    }
}

/// What makes a measure of tokens, as scorers are held.
pub(super) fn token_scorer(measure: TokenMeasure) -> &'static dyn Scorer {
    match measure {
        TokenMeasure::RowEntropy => &TokenMeasure::RowEntropy,
        TokenMeasure::RowVariance => &TokenMeasure::RowVariance,
    }
}
