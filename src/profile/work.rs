//! What is done in a prefill for what was asked.

use super::needs::{BudgetMeasure, CurveMeasure, LayerNumber};
use super::options::MeasureOptions;
use super::query::{Query, Vector};
use super::threshold_name;

/// What is done for one layer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Work {
    /// Thresholds of budgets of attention.
    pub(super) thresholds: Vec<f64>,
    /// The row of the last token.
    pub(super) last: VectorWork,
    /// The mean of the window's rows.
    pub(super) pooled: VectorWork,
    /// Budgets of every row of the window.
    pub(super) rows: bool,
    /// How the mean of the window's rows lies over its keys.
    pub(super) spreads: bool,
    /// How far attention turns the residual stream.
    pub(super) residuals: bool,
}

/// What is done with one vector of every head.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct VectorWork {
    /// Budgets of query heads.
    pub(super) heads: bool,
    /// Budgets of KV heads.
    pub(super) kv_heads: bool,
    /// Retained mass of query heads.
    pub(super) mass: bool,
    /// Output curves, renormalised and raw, each with the thresholds that decide which budgets are evaluated.
    pub(super) outputs: [Option<Vec<f64>>; 2],
}

impl Work {
    pub(super) fn of(options: &MeasureOptions) -> Self {
        let needs = options.asked();
        let mut work = Self {
            spreads: options.needs.is_none() || needs.numbers.contains(&LayerNumber::PooledEntropy),
            residuals: needs.numbers.contains(&LayerNumber::ResidualCosine),
            ..Self::default()
        };
        for budget in &needs.budgets {
            work.add_budget(*budget, options);
        }
        for curve in &needs.curves {
            work.add_curve(*curve);
        }
        let asked: Vec<String> = (needs.budgets.iter())
            .filter_map(|budget| budget.attention_threshold().map(threshold_name))
            .collect();
        // Which weights of a single row are left out, and hence the last bits of its sums, depends on all thresholds.
        let is_asked = |t: &f64| work.rows || asked.contains(&threshold_name(*t));
        let thresholds = options.thresholds.iter().copied().filter(is_asked);
        work.thresholds = thresholds.collect();
        work
    }

    fn add_budget(&mut self, budget: BudgetMeasure, options: &MeasureOptions) {
        let (query, by_kv_head) = match budget {
            BudgetMeasure::Layers { query, .. } => (query, false),
            BudgetMeasure::KvHeads { query, .. } => (query, true),
            BudgetMeasure::Outputs { vector, raw, .. } => {
                // The last bits of a product depend on how many budgets are evaluated in it, and hence on all thresholds.
                let thresholds = options.output_thresholds.clone();
                self.vector(vector).outputs[usize::from(raw)] = Some(thresholds);
                return;
            }
        };
        let vector = match query {
            Query::Last => Vector::Last,
            Query::Pooled => Vector::Pooled,
            Query::Rows => {
                self.rows = true;
                return;
            }
        };
        let vector = self.vector(vector);
        vector.heads |= !by_kv_head;
        vector.kv_heads |= by_kv_head;
    }

    fn add_curve(&mut self, curve: CurveMeasure) {
        match curve {
            CurveMeasure::Mass(vector) => self.vector(vector).mass = true,
            CurveMeasure::Output { vector, raw, .. } => {
                self.vector(vector).outputs[usize::from(raw)].get_or_insert_default();
            }
        }
    }

    fn vector(&mut self, vector: Vector) -> &mut VectorWork {
        match vector {
            Vector::Last => &mut self.last,
            Vector::Pooled => &mut self.pooled,
        }
    }

    /// Whether nothing is asked for.
    pub(super) fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Whether outputs are looked at.
    pub(super) fn has_outputs(&self) -> bool {
        self.last.has_outputs() || self.pooled.has_outputs()
    }

    /// Whether the mean of the window's rows is looked at.
    pub(super) fn pools(&self) -> bool {
        self.spreads || self.pooled.is_some()
    }
}

impl VectorWork {
    /// Whether the vector is looked at.
    pub(super) fn is_some(&self) -> bool {
        *self != Self::default()
    }

    /// Whether query heads are ranked, each for itself.
    pub(super) fn ranks_heads(&self) -> bool {
        self.heads || self.mass || self.has_outputs()
    }

    /// Whether the layer's output is looked at.
    pub(super) fn has_outputs(&self) -> bool {
        self.outputs.iter().any(Option::is_some)
    }
}
