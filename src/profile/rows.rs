//! The columns of a profile's tables, filled from the measures of one prompt.

use super::budget_grid::budget_grid;
use super::measures::{LayerMeasures, MinimumBudgets};
use super::options::MeasureOptions;
use super::output_budget::OutputCurves;
use super::threshold_name;
use crate::table::{Rows, Table};

/// A prompt as tables name it.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptLabel {
    /// Number in the run, counted from 0.
    pub index: usize,
    /// The data set's own name for it.
    pub id: String,
    /// T.
    pub tokens: usize,
}

/// The four tables of one prompt, in the order of [`super::TABLES`].
pub type PromptTables = [Table; 4];

/// Turns the measures of one prompt into rows.
///
/// Shapes: `layers` in layer order -> heads (L·H_q rows), kv_heads (L·H_kv), layers (L),
/// curves (L·H_q·grid).
pub fn prompt_tables(
    label: &PromptLabel,
    layers: &[LayerMeasures],
    options: &MeasureOptions,
) -> PromptTables {
    [
        heads(label, layers, options),
        kv_heads(label, layers, options),
        layer_rows(label, layers, options),
        curves(label, layers),
    ]
}

impl Rows {
    /// Adds what identifies a row: prompt, its id and T, layer.
    pub fn label(&mut self, label: &PromptLabel, layer: usize) {
        self.count("prompt", label.index);
        self.text("prompt_id", &label.id);
        self.count("tokens", label.tokens);
        self.count("layer", layer);
    }

    fn budgets(&mut self, budgets: &MinimumBudgets, thresholds: &[f64]) {
        for (i, name) in thresholds.iter().map(|t| threshold_name(*t)).enumerate() {
            self.count(format!("mba_last_{name}"), budgets.last[i] as usize);
            self.count(format!("mba_pooled_{name}"), budgets.pooled[i] as usize);
            self.number(format!("mba_rows_{name}"), budgets.rows[i]);
        }
    }
}

fn heads(label: &PromptLabel, layers: &[LayerMeasures], options: &MeasureOptions) -> Table {
    let mut rows = Rows::default();
    for (l, layer) in layers.iter().enumerate() {
        let group = layer.heads.len() / layer.kv_heads.len().max(1);
        for (h, head) in layer.heads.iter().enumerate() {
            rows.label(label, l);
            rows.count("head", h);
            rows.count("kv_head", h / group.max(1));
            rows.budgets(&head.budgets, &options.thresholds);
            rows.number("entropy", head.entropy);
            rows.number("sink_mass", head.sink_mass);
            rows.number("window_mass", head.window_mass);
        }
    }
    rows.finish()
}

fn kv_heads(label: &PromptLabel, layers: &[LayerMeasures], options: &MeasureOptions) -> Table {
    let mut rows = Rows::default();
    for (l, layer) in layers.iter().enumerate() {
        for (h, budgets) in layer.kv_heads.iter().enumerate() {
            rows.label(label, l);
            rows.count("kv_head", h);
            rows.budgets(budgets, &options.thresholds);
        }
    }
    rows.finish()
}

fn layer_rows(label: &PromptLabel, layers: &[LayerMeasures], options: &MeasureOptions) -> Table {
    let mut rows = Rows::default();
    for (l, layer) in layers.iter().enumerate() {
        rows.label(label, l);
        for (i, threshold) in options.thresholds.iter().enumerate() {
            let of_heads = |budget: &dyn Fn(&MinimumBudgets) -> f64| -> Vec<f64> {
                layer.heads.iter().map(|h| budget(&h.budgets)).collect()
            };
            for (query, budgets) in [
                ("last", of_heads(&|b| f64::from(b.last[i]))),
                ("pooled", of_heads(&|b| f64::from(b.pooled[i]))),
                ("rows", of_heads(&|b| b.rows[i])),
            ] {
                let mean = budgets.iter().sum::<f64>() / budgets.len().max(1) as f64;
                let max = budgets.iter().copied().fold(0.0, f64::max);
                let name = format!("lmba_{query}_{}", threshold_name(*threshold));
                rows.number(name.clone(), mean);
                rows.number(format!("{name}_max"), max);
                rows.number(format!("{name}_of_t"), mean / label.tokens.max(1) as f64);
            }
        }
        for (query, curves) in [
            ("last", &layer.output_last),
            ("pooled", &layer.output_pooled),
        ] {
            output_budgets(&mut rows, query, curves, &options.output_thresholds);
        }
    }
    rows.finish()
}

fn output_budgets(rows: &mut Rows, query: &str, curves: &OutputCurves, thresholds: &[f64]) {
    for (kind, curve) in [("", &curves.renormalised), ("raw_", &curves.raw)] {
        for threshold in thresholds {
            let name = format!("lmbo_{query}_{kind}{}", threshold_name(*threshold));
            rows.count(format!("{name}_first"), curve.first(*threshold));
            rows.count(format!("{name}_stable"), curve.stable(*threshold));
        }
    }
    rows.number(format!("output_norm_{query}"), curves.norm);
}

fn curves(label: &PromptLabel, layers: &[LayerMeasures]) -> Table {
    let mut rows = Rows::default();
    let grid = budget_grid(label.tokens);
    for (l, layer) in layers.iter().enumerate() {
        for (h, head) in layer.heads.iter().enumerate() {
            for (i, &budget) in grid.iter().enumerate() {
                rows.label(label, l);
                rows.count("head", h);
                rows.count("budget", budget);
                rows.number("mass_last", head.mass_last[i]);
                rows.number("mass_pooled", head.mass_pooled[i]);
                for (query, c) in [
                    ("last", &layer.output_last),
                    ("pooled", &layer.output_pooled),
                ] {
                    for (kind, curve) in [("", &c.renormalised), ("raw_", &c.raw)] {
                        let [cosine, relative_l2] = curve.at(budget);
                        rows.number(format!("cos_{kind}{query}"), cosine);
                        rows.number(format!("l2_{kind}{query}"), relative_l2);
                    }
                }
            }
        }
    }
    rows.finish()
}
