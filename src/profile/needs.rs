//! What an allocation reads of a measured prompt: single measures, and sets of them.

use super::query::{Crossing, OutputMeasure, Query, Vector};
use super::threshold_name;

/// Minimum budgets at a threshold: one number per layer, or one per KV head.
#[derive(Clone, Copy, Debug)]
pub enum BudgetMeasure {
    /// LMBA: MBA, averaged over the layer's query heads.
    Layers {
        /// Whose attention.
        query: Query,
        /// Retained mass τ.
        threshold: f64,
    },
    /// MBA of every KV head.
    KvHeads {
        /// Whose attention.
        query: Query,
        /// Retained mass τ.
        threshold: f64,
    },
    /// LMBO.
    Outputs {
        /// Whose output.
        vector: Vector,
        /// Cosine τ_o.
        threshold: f64,
        /// Which crossing of it.
        crossing: Crossing,
        /// Of probabilities that are not renormalised.
        raw: bool,
    },
}

/// Curves over the budgets of the grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CurveMeasure {
    /// Retained mass of every query head.
    Mass(Vector),
    /// Cosine, or relative L2 error, of every layer's output.
    Output {
        /// Whose output.
        vector: Vector,
        /// How it is compared with the full one.
        measure: OutputMeasure,
        /// Of probabilities that are not renormalised.
        raw: bool,
    },
}

/// A number of every layer that is no budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerNumber {
    /// Entropy of the pooled vector, in the mean over query heads. Units: nats.
    PooledEntropy,
    /// Cosine between the residual stream before attention and after it, in the mean over the prompt's tokens; no profile holds
    /// it.
    ResidualCosine,
}

/// What single rows of the window say of every token, whichever scorer ranks; no profile holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenMeasure {
    /// −p ln p, summed over rows and query heads. Units: nats.
    RowEntropy,
    /// The unbiased variance over rows, summed over query heads.
    RowVariance,
}

/// The measures that an allocation reads, or several of them together; none for static strategies.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Needs {
    /// Minimum budgets, each once.
    pub budgets: Vec<BudgetMeasure>,
    /// Curves, each once.
    pub curves: Vec<CurveMeasure>,
    /// Numbers of layers, each once.
    pub numbers: Vec<LayerNumber>,
    /// What rows say of every token, each once.
    pub token_measures: Vec<TokenMeasure>,
    /// The scores by which a method ranks the prompt's own tokens; no profile holds them.
    pub scores: bool,
}

/// A curve's points: budgets in ascending order, and the value at each.
pub type Points = Vec<(usize, f64)>;

impl BudgetMeasure {
    /// Its name, which is also that of its column on disk.
    pub fn column(&self) -> String {
        match *self {
            Self::Layers { query, threshold } => {
                format!("lmba_{}_{}", query.name(), threshold_name(threshold))
            }
            Self::KvHeads { query, threshold } => {
                format!("mba_{}_{}", query.name(), threshold_name(threshold))
            }
            Self::Outputs {
                vector,
                threshold,
                crossing,
                raw,
            } => format!(
                "lmbo_{}_{}{}_{}",
                vector.name(),
                raw_prefix(raw),
                threshold_name(threshold),
                crossing.name()
            ),
        }
    }

    /// Retained mass of a measure of attention; none for one of outputs.
    pub(super) fn attention_threshold(&self) -> Option<f64> {
        match *self {
            Self::Layers { threshold, .. } | Self::KvHeads { threshold, .. } => Some(threshold),
            Self::Outputs { .. } => None,
        }
    }
}

/// Measures are the same where their columns are: thresholds to a millionth of a per cent.
impl PartialEq for BudgetMeasure {
    fn eq(&self, other: &Self) -> bool {
        self.column() == other.column()
    }
}

impl CurveMeasure {
    /// Its name, which is also that of its column on disk.
    pub fn column(&self) -> String {
        match *self {
            Self::Mass(vector) => format!("mass_{}", vector.name()),
            Self::Output {
                vector,
                measure,
                raw,
            } => format!("{}_{}{}", measure.name(), raw_prefix(raw), vector.name()),
        }
    }
}

impl LayerNumber {
    /// Its name, for messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::PooledEntropy => "entropy",
            Self::ResidualCosine => "residual cosine",
        }
    }
}

impl TokenMeasure {
    /// Its name, for messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::RowEntropy => "entropy of the window's rows",
            Self::RowVariance => "variance of the window's rows",
        }
    }
}

impl Needs {
    /// The scores of the prompt itself, and nothing that is measured.
    pub fn of_scores() -> Self {
        Self {
            scores: true,
            ..Self::default()
        }
    }

    /// Whether nothing is read.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether all that is read is in a profile, and not of the prompt's own prefill alone.
    pub fn is_in_profiles(&self) -> bool {
        let of_prompt = self.numbers.contains(&LayerNumber::ResidualCosine);
        !self.scores && self.token_measures.is_empty() && !of_prompt
    }

    /// Adds what others need.
    pub fn join(&mut self, others: Self) {
        fn add<T: PartialEq>(own: &mut Vec<T>, others: Vec<T>) {
            for one in others {
                if !own.contains(&one) {
                    own.push(one);
                }
            }
        }
        self.scores |= others.scores;
        add(&mut self.budgets, others.budgets);
        add(&mut self.curves, others.curves);
        add(&mut self.numbers, others.numbers);
        add(&mut self.token_measures, others.token_measures);
    }
}

impl From<BudgetMeasure> for Needs {
    fn from(measure: BudgetMeasure) -> Self {
        Self {
            budgets: vec![measure],
            ..Self::default()
        }
    }
}

impl From<CurveMeasure> for Needs {
    fn from(measure: CurveMeasure) -> Self {
        Self {
            curves: vec![measure],
            ..Self::default()
        }
    }
}

impl From<LayerNumber> for Needs {
    fn from(number: LayerNumber) -> Self {
        Self {
            numbers: vec![number],
            ..Self::default()
        }
    }
}

impl FromIterator<Self> for Needs {
    fn from_iter<I: IntoIterator<Item = Self>>(all: I) -> Self {
        let mut joined = Self::default();
        all.into_iter().for_each(|needs| joined.join(needs));
        joined
    }
}

fn raw_prefix(raw: bool) -> &'static str {
    if raw { "raw_" } else { "" }
}
