//! What an allocation reads of a measured prompt: single measures, and sets of them.

use super::measures::{LayerMeasures, mean};
use super::options::MeasureOptions;
use super::query::{Crossing, OutputMeasure, Query, Vector};
use super::threshold_name;
use crate::error::{Error, Result};

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

/// The measures that an allocation reads, or several of them together; none for static strategies.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Needs {
    /// Minimum budgets, each once.
    pub budgets: Vec<BudgetMeasure>,
    /// Curves, each once.
    pub curves: Vec<CurveMeasure>,
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

    /// The place of its threshold among `measured`, and how it is called there.
    ///
    /// Errors: [`Error::UnknownName`], listing the thresholds that were measured.
    fn place(&self, measured: &[f64]) -> Result<usize> {
        let (Self::Layers { threshold, .. }
        | Self::KvHeads { threshold, .. }
        | Self::Outputs { threshold, .. }) = self;
        let name = threshold_name(*threshold);
        let place = measured.iter().position(|t| threshold_name(*t) == name);
        place.ok_or_else(|| {
            let measured: Vec<String> = measured.iter().map(f64::to_string).collect();
            let known = measured.iter().map(String::as_str);
            Error::unknown("threshold", &threshold.to_string(), known)
        })
    }

    /// Refuses a threshold that is not among those of a profile.
    ///
    /// Errors: [`Error::UnknownName`], listing the thresholds that were measured.
    pub fn check(&self, measured: &MeasureOptions) -> Result<()> {
        let thresholds = match self {
            Self::Outputs { .. } => &measured.output_thresholds,
            _ => &measured.thresholds,
        };
        self.place(thresholds).map(drop)
    }

    /// The budgets of one layer, one or one per KV head; `None` where they were not measured.
    ///
    /// Units: keys.
    pub fn of_layer(&self, layer: &LayerMeasures, measured: &MeasureOptions) -> Option<Vec<f64>> {
        let attention = measured.attention_thresholds();
        match *self {
            Self::Layers { query, .. } => {
                let place = self.place(&attention).ok()?;
                Some(vec![mean(&layer.budgets(query, place)?)])
            }
            Self::KvHeads { query, .. } => {
                let place = self.place(&attention).ok()?;
                let heads = layer.kv_heads.iter();
                heads.map(|head| head.of(query, place)).collect()
            }
            Self::Outputs {
                vector,
                crossing,
                raw,
                ..
            } => {
                let place = self.place(&measured.output_thresholds).ok()?;
                let curve = layer.output(vector).curve(raw);
                let threshold = measured.output_thresholds[place];
                let budget = match crossing {
                    Crossing::First => curve.first(threshold),
                    Crossing::Stable => curve.stable(threshold),
                };
                (!curve.budgets.is_empty()).then(|| vec![budget as f64])
            }
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

    /// The curves of one layer, one or one per query head, at the budgets of `grid`; `None` where they were not
    /// measured.
    pub fn of_layer(&self, layer: &LayerMeasures, grid: &[usize]) -> Option<Vec<Points>> {
        match *self {
            Self::Mass(vector) => {
                let curve = |head: &super::HeadMeasures| {
                    let mass = head.mass(vector);
                    let points = grid.iter().copied().zip(mass.iter().copied());
                    (mass.len() == grid.len()).then(|| points.collect())
                };
                layer.heads.iter().map(curve).collect()
            }
            Self::Output {
                vector,
                measure,
                raw,
            } => {
                let curve = layer.output(vector).curve(raw);
                let value = |budget: usize| {
                    let [cosine, relative_l2] = curve.at(budget);
                    match measure {
                        OutputMeasure::Cosine => cosine,
                        OutputMeasure::RelativeL2 => relative_l2,
                    }
                };
                let points = grid.iter().map(|&budget| (budget, value(budget)));
                (!curve.budgets.is_empty()).then(|| vec![points.collect()])
            }
        }
    }
}

impl Needs {
    /// Everything that an allocation can read of a profile.
    pub fn all(measured: &MeasureOptions) -> Self {
        let mut all = Self::default();
        for (&threshold, query) in (measured.thresholds.iter())
            .flat_map(|threshold| Query::ALL.map(|query| (threshold, query)))
        {
            all.budgets.push(BudgetMeasure::Layers { query, threshold });
            all.budgets
                .push(BudgetMeasure::KvHeads { query, threshold });
        }
        for (vector, raw) in Vector::ALL
            .into_iter()
            .flat_map(|v| [(v, false), (v, true)])
        {
            for (&threshold, crossing) in (measured.output_thresholds.iter())
                .flat_map(|threshold| Crossing::ALL.map(|crossing| (threshold, crossing)))
            {
                all.budgets.push(BudgetMeasure::Outputs {
                    vector,
                    threshold,
                    crossing,
                    raw,
                });
            }
            all.curves
                .extend(OutputMeasure::ALL.map(|measure| CurveMeasure::Output {
                    vector,
                    measure,
                    raw,
                }));
        }
        all.curves.extend(Vector::ALL.map(CurveMeasure::Mass));
        all
    }

    /// Whether nothing is read.
    pub fn is_empty(&self) -> bool {
        self.budgets.is_empty() && self.curves.is_empty()
    }

    /// Adds what others need.
    pub fn join(&mut self, others: Self) {
        for measure in others.budgets {
            if !self.budgets.contains(&measure) {
                self.budgets.push(measure);
            }
        }
        for measure in others.curves {
            if !self.curves.contains(&measure) {
                self.curves.push(measure);
            }
        }
    }

    /// Refuses thresholds that are not among those of a profile.
    ///
    /// Errors: [`Error::UnknownName`], listing the thresholds that were measured.
    pub fn check(&self, measured: &MeasureOptions) -> Result<()> {
        self.budgets.iter().try_for_each(|m| m.check(measured))
    }
}

impl From<BudgetMeasure> for Needs {
    fn from(measure: BudgetMeasure) -> Self {
        Self {
            budgets: vec![measure],
            curves: Vec::new(),
        }
    }
}

impl From<CurveMeasure> for Needs {
    fn from(measure: CurveMeasure) -> Self {
        Self {
            budgets: Vec::new(),
            curves: vec![measure],
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
