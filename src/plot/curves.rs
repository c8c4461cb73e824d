//! Retained mass and lost direction of the output against the budget, a line per layer.

use plotters::prelude::{Circle, DrawingBackend, PathElement, RGBColor};
use plotters::style::Color;

use super::axis::Axis;
use super::canvas::{Drawing, Drawn, Sheet, figure_width, inches, label_count, name_room, points};
use super::colour_bar::ColourBar;
use super::curve_data::{LayerCurves, visible};
use super::facts;
use super::figure::{Figure, render};
use super::frame::{Frame, Panel};
use super::layer_series::HEIGHT_OF_LABEL;
use super::legend::{HEADING_MARGIN, Heading};
use super::options::ChartOptions;
use super::pen::{depth, stroke};
use super::series::{only, output_query};
use super::text;
use crate::error::{Error, Result};
use crate::profile::Profile;

const PANEL_POINTS: f64 = 106.0;
const BAR_GAP: f64 = 6.0;
const PANEL_GAP: f64 = 6.0;
const BOTTOM_POINTS: f64 = 1.5;
/// Room that a budget's label needs on its axis, in points.
const BUDGET_LABEL: f64 = 22.0;
const LINE_POINTS: f64 = 0.8;

/// Losses below are not drawn: LMBO's strictest usual cosine, 0.999, lies a decade above.
const LEAST_LOSS: f64 = 1e-4;

struct Curves {
    size: (i32, i32),
    heading: Heading,
    data: LayerCurves,
    layers: Vec<usize>,
    x: Axis,
    mass: Axis,
    loss: Axis,
    depth: Axis,
    x_name: String,
    mass_name: String,
    loss_name: String,
}

/// Draws two panels: retained mass, and 1 − cos of the layer's output, both against the budget.
///
/// Lines are means over prompts (mass: over query heads too), coloured by depth. Prompts of different
/// length are brought onto the budgets of the shortest, linear in the logarithm of the budget, so that
/// every prompt counts at every point; the axis therefore ends at the shortest prompt.
/// Units: tokens per head, per cent of the attention mass.
/// Errors: as the other charts; [`Error::Invalid`] for a layer that the model has not.
pub(super) fn draw(profiles: &[Profile], options: &ChartOptions, record: &str) -> Result<Figure> {
    render(
        &Curves::read(profiles, options)?,
        "Retained mass and output against the budget",
        record,
    )
}

impl Curves {
    fn read(profiles: &[Profile], options: &ChartOptions) -> Result<Self> {
        let profile = only("curves", profiles)?;
        let query = output_query(options.query)?;
        let layers = shown_layers(profile, options)?;
        let data = LayerCurves::read(profile, query, options.raw)?;
        let width = figure_width(options.width)?;
        let room = width - points(HEADING_MARGIN);
        let facts = facts::of_profile(profile, room);
        let heading = Heading::new(options.title.as_deref(), facts, Vec::new(), room);
        let shown = || {
            layers
                .iter()
                .filter_map(|&l| data.loss.get(l))
                .flatten()
                .copied()
        };
        let most = shown().fold(0.0, f64::max);
        let least = if most > 10.0 * LEAST_LOSS || most <= 0.0 {
            LEAST_LOSS
        } else {
            most / 100.0
        };
        let top = if most > least { most } else { 1.0 };
        let last = data.budgets.last().copied().unwrap_or(1.0);
        let first = data.budgets.first().copied().unwrap_or(1.0);
        let raw = if options.raw { " raw" } else { "" };
        let height = points(PANEL_POINTS);
        let x = Axis::log_between(first, last, label_count(name_room(width), BUDGET_LABEL));
        let loss = Axis::log(least, top, label_count(height, HEIGHT_OF_LABEL));
        let loss_name = format!("1 − cos(y, ŷ){raw}, {query}");
        let mut chart = Self {
            size: (width, 0),
            heading,
            layers,
            x_name: x.named("Budget (tokens per head)", name_room(width)),
            x,
            mass: Axis::from_zero(100.0, 5),
            loss_name: loss.named(&loss_name, height),
            loss,
            depth: Axis::indices(profile.meta.model.num_layers, 0.5, 9),
            mass_name: format!("Retained mass, {query} (%)"),
            data,
        };
        let rows = if chart.side_by_side() { 1 } else { 2 };
        chart.size.1 = chart.heading.height()
            + rows * chart.panel_height()
            + (rows - 1) * (points(PANEL_GAP) + chart.frames(false)[0].bottom_room())
            + chart.frames(true)[1].bottom_room()
            + points(BOTTOM_POINTS + 2.0);
        Ok(chart)
    }

    fn side_by_side(&self) -> bool {
        self.size.0 >= inches(5.0)
    }

    fn panel_height(&self) -> i32 {
        let names = [&self.mass_name, &self.loss_name].map(|name| text::width(name));
        points(PANEL_POINTS).max(names[0]).max(names[1])
    }

    /// Both frames; `named` gives the first its own name of x.
    fn frames(&self, named: bool) -> [Frame<'_>; 2] {
        let frame = |y, y_name, named: bool| Frame {
            x: &self.x,
            y,
            x_name: named.then_some(&*self.x_name),
            y_name: Some(y_name),
            grid: true,
        };
        [
            frame(&self.mass, &self.mass_name, named),
            frame(&self.loss, &self.loss_name, true),
        ]
    }

    fn colour(&self, layer: usize) -> RGBColor {
        let last = self.data.mass.len().saturating_sub(1).max(1);
        depth(layer as f64 / last as f64)
    }

    fn draw_lines<DB: DrawingBackend>(
        &self,
        panel: &Panel<'_, DB>,
        curves: &[Vec<f64>],
        floor: f64,
    ) -> Drawn<DB> {
        for &layer in &self.layers {
            let Some(curve) = curves.get(layer) else {
                continue;
            };
            let colour = self.colour(layer);
            for piece in visible(&self.data.budgets, curve, floor) {
                let spots: Vec<_> = piece.iter().map(|&(b, v)| panel.at(b, v)).collect();
                if let [spot] = spots[..] {
                    panel
                        .sheet
                        .draw(&Circle::new(spot, points(1.5), colour.filled()))?;
                }
                panel
                    .sheet
                    .draw(&PathElement::new(spots, stroke(colour, LINE_POINTS)))?;
            }
        }
        Ok(())
    }
}

fn shown_layers(profile: &Profile, options: &ChartOptions) -> Result<Vec<usize>> {
    let count = profile.meta.model.num_layers;
    let layers = options
        .layers
        .clone()
        .unwrap_or_else(|| (0..count).collect());
    match layers.iter().find(|&&layer| layer >= count) {
        Some(layer) => {
            let bound = format!(
                "{} has layers 0 to {}",
                profile.meta.model.name,
                count.saturating_sub(1)
            );
            Err(Error::invalid("layer", layer, bound))
        }
        None => Ok(layers),
    }
}

impl Drawing for Curves {
    fn size(&self) -> (i32, i32) {
        self.size
    }

    fn paint<DB: DrawingBackend>(&self, sheet: &Sheet<DB>) -> Drawn<DB> {
        let colour = |layer: usize| self.colour(layer);
        let bar = ColourBar {
            axis: &self.depth,
            name: "Layer",
            patches: self.data.mass.len(),
            colour: &colour,
        };
        let [mass, loss] = self.frames(self.side_by_side());
        let left = mass.left_room().max(loss.left_room());
        let top = self.heading.height() + points(2.0);
        self.heading.draw(sheet, left)?;
        let width = self.size.0 - bar.room() - points(BAR_GAP);
        let (first, second) = if self.side_by_side() {
            let half = (width - points(PANEL_GAP)) / 2;
            let size = (half, self.panel_height() + mass.bottom_room());
            ((0, top, size), (half + points(PANEL_GAP), top, size))
        } else {
            let upper = self.panel_height() + mass.bottom_room();
            let lower = self.panel_height() + loss.bottom_room();
            (
                (0, top, (width, upper)),
                (0, top + upper + points(PANEL_GAP), (width, lower)),
            )
        };
        let upper = mass.draw(sheet, ((first.0, first.1), first.2), left)?;
        self.draw_lines(&upper, &self.data.mass, f64::NEG_INFINITY)?;
        let lower = loss.draw(sheet, ((second.0, second.1), second.2), left)?;
        self.draw_lines(&lower, &self.data.loss, self.loss.low())?;
        bar.draw(
            sheet,
            width + points(BAR_GAP),
            (upper.y_range().0, lower.y_range().1),
        )
    }
}
