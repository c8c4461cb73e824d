//! Retained mass and lost direction of the output against the budget, a line per layer.

use super::chart::Chart;
use super::curve_data::{LayerCurves, visible};
use super::figure::{Axis, ColourBar, Description, GREY, Gaps, Key, Panel, Pen, Shape, depth};
use super::figure::{figure_width, is_page, label_count, labels_up, name_room};
use super::layer_windows::{has_window, words};
use super::options::{ChartOption as Opt, ChartOptions};
use super::over_layers::about_models;
use super::profiles::{facts, output_query};
use super::source::{Source, SourceKind};
use crate::error::{Error, Result};
use crate::profile::Profile;

const HEIGHT: f64 = 106.0;
const GAPS: Gaps = Gaps {
    top: 2.0,
    row: 6.0,
    column: Some(6.0),
};
/// Room that a budget's label needs on its axis, in points.
const BUDGET_LABEL: f64 = 22.0;
const LINE_POINTS: f64 = 0.8;
/// Radius of a curve that is a single point, in points.
const DOT_POINTS: f64 = 1.5;

/// Losses below are not drawn: LMBO's strictest usual cosine, 0.999, lies a decade above.
const LEAST_LOSS: f64 = 1e-4;

/// Two panels: retained mass, and 1 − cos of the layer's output, both against the budget.
///
/// Lines are means over prompts (mass: over query heads too), coloured by depth, and dashed for layers that see a window
/// only. Prompts of different
/// length are brought onto the budgets of the shortest, linear in the logarithm of the budget, so that
/// every prompt counts at every point; the axis therefore ends at the shortest prompt.
/// Units: tokens per head, per cent of the attention mass.
/// Errors: as the other charts; [`Error::Invalid`] for a layer that the model has not.
pub(super) const CHART: Chart = Chart {
    name: "curves",
    about: "retained mass and 1 - cos of the output against the budget, a line per layer",
    needs: "curves: mass_QUERY, cos_QUERY, of 1 profile",
    reads: &[Opt::Query, Opt::Raw, Opt::Layers],
    takes: SourceKind::Profiles,
    describe,
};

fn describe(all: &[&dyn Source], options: &ChartOptions) -> Result<Description> {
    let profile: &Profile = CHART.only(all)?;
    let query = output_query(options.query)?;
    let layers = shown_layers(profile, options)?;
    let data = LayerCurves::read(profile, query, options.raw)?;
    let width = figure_width(options.width)?;
    let shown = layers.iter().filter_map(|&layer| data.loss.get(layer));
    let most = shown.flatten().copied().fold(0.0, f64::max);
    let least = if most > 10.0 * LEAST_LOSS || most <= 0.0 {
        LEAST_LOSS
    } else {
        most / 100.0
    };
    let [first, last] = [data.budgets.first(), data.budgets.last()];
    let [first, last] = [first, last].map(|end| end.copied().unwrap_or(1.0));
    let x = Axis::log_between(first, last, label_count(name_room(width), BUDGET_LABEL));
    let x = x.called("Budget (tokens per head)");
    let raw = if options.raw { " raw" } else { "" };
    let mass = Axis::from_zero(100.0, 5).called(format!("Retained mass, {query} (%)"));
    let loss = Axis::log(
        least,
        if most > least { most } else { 1.0 },
        labels_up(HEIGHT),
    );
    let loss = loss.called(format!("1 − cos(y, ŷ){raw}, {query}"));
    let count = data.mass.len();
    let model = &profile.meta.model;
    let windows = &model.windows[..];
    let broken = Pen::plain(GREY, LINE_POINTS).broken();
    let entry = words("dashed", [windows]).map(|words| (Key::Line(broken), words));
    let about = about_models(&[model], "dashed lines");
    let panel = |y: &Axis, curves: &[Vec<f64>], floor: f64| {
        let lines = layers.iter().flat_map(|&layer| {
            let full = Pen::plain(depth(layer, count), LINE_POINTS);
            let pen = if has_window(windows, layer) {
                full.broken()
            } else {
                full
            };
            let curve = curves.get(layer).map_or(&[][..], Vec::as_slice);
            let pieces = visible(&data.budgets, curve, floor).into_iter();
            pieces.map(move |piece| Shape::Line(pen, piece, DOT_POINTS))
        });
        Panel::alone((&x, y), HEIGHT, lines.collect())
    };
    let panels = [
        panel(&mass, &data.mass, f64::NEG_INFINITY),
        panel(&loss, &data.loss, loss.low()),
    ];
    Ok(Description {
        facts: facts(profile),
        entries: entry.into_iter().collect(),
        panels: panels.concat(),
        columns: if is_page(width) { 2 } else { 1 },
        gaps: Some(GAPS),
        bars: vec![ColourBar::of_lines("Layer", count, 9, 0..2)],
        ..Description::new(
            format!("Retained mass and output against the budget{about}"),
            width,
        )
    })
}

fn shown_layers(profile: &Profile, options: &ChartOptions) -> Result<Vec<usize>> {
    let count = profile.meta.model.num_layers;
    let asked = options.layers.clone();
    let layers = asked.unwrap_or_else(|| (0..count).collect());
    let Some(layer) = layers.iter().find(|&&layer| layer >= count) else {
        return Ok(layers);
    };
    let (model, last) = (&profile.meta.model.name, count.saturating_sub(1));
    let bound = format!("{model} has layers 0 to {last}");
    Err(Error::invalid("layer", layer, bound))
}
