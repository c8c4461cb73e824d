//! The columns of a profile's tables, filled from the measures of one prompt.

use super::budget_grid::budget_grid;
use super::measures::{LayerMeasures, MinimumBudgets, mean};
use super::needs::CurveMeasure;
use super::options::MeasureOptions;
use super::query::{Query, Vector};
use super::threshold_name;
use crate::error::{Error, Result};
use crate::table::{Rows, Table};

/// A prompt as tables name it.
#[derive(Clone, Debug, Default, PartialEq)]
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

/// Measures of consecutive layers of a model.
#[derive(Clone, Copy, Debug)]
pub struct LayerSpan<'a> {
    /// Number of the first, counted from 0.
    pub first: usize,
    /// The measures, in layer order.
    pub layers: &'a [LayerMeasures],
    /// Whether any layer of the model, measured here or not, has a window.
    pub windowed: bool,
}

impl<'a> LayerSpan<'a> {
    /// All layers of a model.
    pub fn whole(layers: &'a [LayerMeasures]) -> Self {
        Self {
            first: 0,
            layers,
            windowed: layers.iter().any(|layer| layer.window.is_some()),
        }
    }

    fn numbered(&self) -> impl Iterator<Item = (usize, &'a LayerMeasures)> + use<'a> {
        (self.first..).zip(self.layers)
    }
}

/// Turns the measures of all layers of one prompt into rows.
///
/// Shapes: L layers -> heads (L·H_q rows), kv_heads (L·H_kv), layers (L), curves (L·H_q·grid).
pub fn prompt_tables(
    label: &PromptLabel,
    layers: &[LayerMeasures],
    options: &MeasureOptions,
) -> PromptTables {
    span_tables(label, LayerSpan::whole(layers), options)
}

fn span_tables(label: &PromptLabel, span: LayerSpan<'_>, options: &MeasureOptions) -> PromptTables {
    let thresholds = options.attention_thresholds();
    [
        heads(label, span, &thresholds),
        kv_heads(label, span, &thresholds),
        layer_rows(label, span, &thresholds, options),
        curves(label, span),
    ]
}

/// All tables that a profile has of some layers of one prompt, in the order of its parts.
pub fn all_tables(
    label: &PromptLabel,
    span: LayerSpan<'_>,
    options: &MeasureOptions,
) -> Vec<Table> {
    let mut tables = Vec::from(span_tables(label, span, options));
    if !options.quantise.is_empty() {
        tables.push(quantisation_table(label, span));
    }
    tables
}

/// Adds the rows of a layer to those of the layers before it, none at the first.
///
/// Errors: those of [`Table::append`]; [`Error::Invalid`] for another number of tables.
pub(super) fn append_tables(tables: &mut Vec<Table>, of_layer: Vec<Table>) -> Result<()> {
    if tables.is_empty() {
        *tables = of_layer;
        return Ok(());
    }
    if tables.len() != of_layer.len() {
        let bound = format!("the layers before have {}", tables.len());
        return Err(Error::invalid("number of tables", of_layer.len(), bound));
    }
    let mut pairs = tables.iter_mut().zip(of_layer);
    pairs.try_for_each(|(all, layer)| all.append(layer))
}

/// What types of the cache cost, a row per layer and type.
fn quantisation_table(label: &PromptLabel, span: LayerSpan<'_>) -> Table {
    let mut rows = Rows::default();
    for (l, layer) in span.numbered() {
        for output in &layer.quantised {
            rows.label(label, l);
            rows.text("cache", &output.held_as.to_string());
            rows.number("cos_pooled", output.cosine);
            rows.number("l2_pooled", output.relative_l2);
            rows.number("bytes_per_token", output.bytes_per_token);
        }
    }
    rows.finish()
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
            for (query, whole) in [("last", &budgets.last), ("pooled", &budgets.pooled)] {
                if let Some(&budget) = whole.get(i) {
                    self.count(format!("mba_{query}_{name}"), budget as usize);
                }
            }
            if let Some(&mean) = budgets.rows.get(i) {
                self.number(format!("mba_rows_{name}"), mean);
            }
        }
    }
}

fn heads(label: &PromptLabel, span: LayerSpan<'_>, thresholds: &[f64]) -> Table {
    let mut rows = Rows::default();
    for (l, layer) in span.numbered() {
        let group = layer.heads.len() / layer.kv_heads.len().max(1);
        for (h, head) in layer.heads.iter().enumerate() {
            rows.label(label, l);
            rows.count("head", h);
            rows.count("kv_head", h / group.max(1));
            rows.budgets(&head.budgets, thresholds);
            rows.number("entropy", head.entropy);
            rows.number("sink_mass", head.sink_mass);
            rows.number("window_mass", head.window_mass);
        }
    }
    rows.finish()
}

fn kv_heads(label: &PromptLabel, span: LayerSpan<'_>, thresholds: &[f64]) -> Table {
    let mut rows = Rows::default();
    for (l, layer) in span.numbered() {
        for (h, budgets) in layer.kv_heads.iter().enumerate() {
            rows.label(label, l);
            rows.count("kv_head", h);
            rows.budgets(budgets, thresholds);
        }
    }
    rows.finish()
}

fn layer_rows(
    label: &PromptLabel,
    span: LayerSpan<'_>,
    thresholds: &[f64],
    options: &MeasureOptions,
) -> Table {
    let mut rows = Rows::default();
    for (l, layer) in span.numbered() {
        rows.label(label, l);
        // Where all layers see everything, there is nothing to tell.
        if span.windowed {
            let (kind, window) = match layer.window {
                Some(window) => ("window", window),
                None => ("global", label.tokens),
            };
            rows.text("kind", kind);
            rows.count("span", window.min(label.tokens));
        }
        for (i, threshold) in thresholds.iter().enumerate() {
            for query in Query::ALL {
                let Some(budgets) = layer.budgets(query, i) else {
                    continue;
                };
                let mean = mean(&budgets);
                let max = budgets.iter().copied().fold(0.0, f64::max);
                let name = format!("lmba_{}_{}", query.name(), threshold_name(*threshold));
                rows.number(name.clone(), mean);
                rows.number(format!("{name}_max"), max);
                rows.number(format!("{name}_of_t"), mean / label.tokens.max(1) as f64);
            }
        }
        for vector in Vector::ALL {
            let (query, curves) = (vector.name(), layer.output(vector));
            for (kind, curve) in curves.named() {
                for &threshold in &options.output_thresholds {
                    let name = format!("lmbo_{query}_{kind}{}", threshold_name(threshold));
                    rows.count(format!("{name}_first"), curve.first(threshold));
                    rows.count(format!("{name}_stable"), curve.stable(threshold));
                }
            }
            rows.number(format!("output_norm_{query}"), curves.norm);
        }
    }
    rows.finish()
}

fn curves(label: &PromptLabel, span: LayerSpan<'_>) -> Table {
    let mut rows = Rows::default();
    let grid = budget_grid(label.tokens);
    for (l, layer) in span.numbered() {
        for (h, head) in layer.heads.iter().enumerate() {
            for (i, &budget) in grid.iter().enumerate() {
                rows.label(label, l);
                rows.count("head", h);
                rows.count("budget", budget);
                for vector in Vector::ALL {
                    if let Some(&mass) = head.mass(vector).get(i) {
                        rows.number(CurveMeasure::Mass(vector).column(), mass);
                    }
                }
                for vector in Vector::ALL {
                    for (kind, curve) in layer.output(vector).named() {
                        let [cosine, relative_l2] = curve.at(budget);
                        rows.number(format!("cos_{kind}{}", vector.name()), cosine);
                        rows.number(format!("l2_{kind}{}", vector.name()), relative_l2);
                    }
                }
            }
        }
    }
    rows.finish()
}
