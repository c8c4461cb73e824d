//! Budgets per layer: how many tokens a plan lets the KV heads of each layer keep.

use plotters::prelude::DrawingBackend;

use super::axis::Axis;
use super::canvas::{Drawing, Drawn, Sheet, figure_width, label_count, part, points};
use super::figure::{Figure, render};
use super::frame::Frame;
use super::legend::{HEADING_MARGIN, Heading, Key};
use super::lmba::{LAYER_LABEL, draw_series};
use super::options::ChartOptions;
use super::pen::{PENS, Pen};
use super::plan_names::plan_names;
use super::series::at_most;
use super::spread::{Spread, mean};
use super::text;
use crate::budget::{BudgetPlan, Granularity};
use crate::error::Result;

const PANEL_POINTS: f64 = 125.0;
const BOTTOM_POINTS: f64 = 1.5;

/// Largest over smallest budget from which on a linear axis would press the small ones together.
const WIDE: f64 = 12.0;

struct Budgets {
    size: (i32, i32),
    heading: Heading,
    x: Axis,
    y: Axis,
    y_name: &'static str,
    series: Vec<(Pen, Spread)>,
}

/// Draws the mean budget of a layer's KV heads against the layer, a line with markers per plan.
///
/// The band of a plan by head is the range of its KV heads. The axis is logarithmic where budgets differ
/// more than twelvefold, or where [`ChartOptions::log`] asks for it.
///
/// Units: tokens per KV head, or per cent of the plan's own T where [`ChartOptions::relative`] is set.
/// Errors: [`crate::error::Error::Invalid`] for too many plans or a width out of its bounds.
pub(super) fn draw(plans: &[BudgetPlan], options: &ChartOptions, record: &str) -> Result<Figure> {
    render(&Budgets::read(plans, options)?, "Budget per layer", record)
}

impl Budgets {
    fn read(plans: &[BudgetPlan], options: &ChartOptions) -> Result<Self> {
        at_most(PENS.len(), "budgets", plans)?;
        let spreads = plans.iter().map(|plan| over_heads(plan, options.relative));
        let series: Vec<(Pen, Spread)> = PENS.into_iter().zip(spreads).collect();
        let width = figure_width(options.width)?;
        let room = width - points(HEADING_MARGIN);
        let keys = series.iter().map(|(pen, _)| Key::Series(*pen));
        let words = plan_names(plans);
        let words = words.iter().map(|name| text::printable(name));
        let mut entries: Vec<(Key, String)> = keys.zip(words).collect();
        if series.iter().any(|(_, s)| s.low != s.high) {
            entries.push((Key::Band, "min\u{2013}max of KV heads".to_owned()));
        }
        let layers = series.iter().map(|(_, s)| s.mean.len()).max().unwrap_or(0);
        let y_name = match options.relative {
            true => "Budget (% of T)",
            false => "Budget (tokens per KV head)",
        };
        let mut chart = Self {
            size: (width, 0),
            heading: Heading::new(options.title.as_deref(), entries, room),
            x: Axis::layers(layers, label_count(room, LAYER_LABEL)),
            y: height_axis(&series, options.log),
            y_name,
            series,
        };
        chart.size.1 = chart.heading.height()
            + points(PANEL_POINTS).max(text::width(chart.y_name))
            + points(BOTTOM_POINTS)
            + chart.frame().bottom_room();
        Ok(chart)
    }

    fn frame(&self) -> Frame<'_> {
        Frame {
            x: &self.x,
            y: &self.y,
            x_name: Some("Layer"),
            y_name: Some(self.y_name),
            grid: true,
        }
    }
}

/// Mean over KV heads, with their range where a plan means them to differ.
fn over_heads(plan: &BudgetPlan, relative: bool) -> Spread {
    let factor = match relative {
        true => 100.0 / plan.reference_tokens.max(1) as f64,
        false => 1.0,
    };
    let by_head = plan.granularity == Granularity::Head;
    let mut spread = Spread {
        mean: Vec::new(),
        low: Vec::new(),
        high: Vec::new(),
    };
    for layer in &plan.tokens {
        let values: Vec<f64> = layer.iter().map(|&t| t as f64 * factor).collect();
        let middle = mean(&values);
        let (low, high) = match by_head {
            true => (
                values.iter().copied().fold(f64::INFINITY, f64::min),
                values.iter().copied().fold(0.0, f64::max),
            ),
            // The token that a total leaves over is no spread.
            false => (middle, middle),
        };
        spread.mean.push(middle);
        spread.low.push(low);
        spread.high.push(high);
    }
    spread
}

fn height_axis(series: &[(Pen, Spread)], log: bool) -> Axis {
    let fold = |start: f64, f: fn(&Spread) -> f64, pick: fn(f64, f64) -> f64| {
        series.iter().map(|(_, s)| f(s)).fold(start, pick)
    };
    let top = fold(0.0, Spread::top, f64::max);
    let bottom = fold(f64::INFINITY, Spread::bottom, f64::min);
    if bottom > 0.0 && (log || top > WIDE * bottom) {
        Axis::log(bottom / 1.2, (top * 1.2).max(bottom * 5.0))
    } else {
        Axis::from_zero(top, 6)
    }
}

impl Drawing for Budgets {
    fn size(&self) -> (i32, i32) {
        self.size
    }

    fn paint<DB: DrawingBackend>(&self, sheet: &Sheet<DB>) -> Drawn<DB> {
        let frame = self.frame();
        let (left, top) = (frame.left_room(), self.heading.height());
        self.heading.draw(sheet, left)?;
        let size = (
            self.size.0 - frame.right_room(),
            self.size.1 - top - points(BOTTOM_POINTS),
        );
        let panel = frame.draw(&part(sheet, (0, top), size), left)?;
        draw_series(&panel, &self.series)
    }
}
