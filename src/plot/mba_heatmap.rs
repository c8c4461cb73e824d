//! MBA of every head: layers down, query heads across, the mean over prompts as a colour.

use plotters::prelude::{DrawingBackend, PathElement, RGBColor};

use super::axis::Axis;
use super::canvas::{Drawing, Drawn, Sheet, figure_width, label_count, points};
use super::colour_bar::ColourBar;
use super::facts;
use super::figure::{Figure, render};
use super::frame::{Frame, Panel};
use super::layer_series::HEIGHT_OF_LABEL;
use super::legend::{HEADING_MARGIN, Heading};
use super::options::ChartOptions;
use super::pen::{amount, stroke};
use super::series::{Family, by_head, only};
use super::text;
use crate::error::Result;
use crate::profile::Profile;

/// Height of a layer's row in points, before the whole is held between its bounds.
const ROW_POINTS: f64 = 6.0;
const HEIGHT_POINTS: (f64, f64) = (96.0, 330.0);
const BAR_GAP: f64 = 6.0;
const BOTTOM_POINTS: f64 = 1.5;
const PATCHES: usize = 200;

struct Heatmap {
    size: (i32, i32),
    heading: Heading,
    x: Axis,
    y: Axis,
    x_name: &'static str,
    colour: Axis,
    colour_name: String,
    /// Mean over prompts, `[layer][query head]`.
    mean: Vec<Vec<f64>>,
    /// G, query heads per KV head.
    group: usize,
}

/// Draws the mean MBA of every query head of one profile; white lines separate the KV heads' groups.
///
/// Layer 0 is at the top, as a token passes through the model.
/// Units: tokens, on a logarithmic colour scale where they span a decade or more.
/// Errors: [`crate::error::Error::Invalid`] for several profiles: each needs a figure of its own.
pub(super) fn draw(profiles: &[Profile], options: &ChartOptions, record: &str) -> Result<Figure> {
    render(
        &Heatmap::read(profiles, options)?,
        "MBA of every layer and head",
        record,
    )
}

impl Heatmap {
    fn read(profiles: &[Profile], options: &ChartOptions) -> Result<Self> {
        let profile = only("mba-heatmap", profiles)?;
        let query = options.query.name();
        let family = Family {
            prefix: format!("mba_{query}_"),
            suffix: String::new(),
        };
        let column = family.column(&profile.heads, options.threshold)?;
        let mean = mean_over_prompts(&by_head(profile, &column)?);
        let (layers, heads) = (profile.meta.model.num_layers, profile.meta.model.num_heads);
        let group = match profile.meta.model.num_kv_heads {
            kv if kv > 0 && heads.is_multiple_of(kv) => heads / kv,
            _ => 1,
        };
        let width = figure_width(options.width)?;
        let colour_name = format!("MBA, {query}, τ={} (tokens)", options.threshold);
        let height = points((layers as f64 * ROW_POINTS).clamp(HEIGHT_POINTS.0, HEIGHT_POINTS.1));
        let colour = colour_axis(&mean, label_count(height, HEIGHT_OF_LABEL));
        let colour_name = colour.named(&colour_name, height);
        let height = height.max(text::width(&colour_name));
        let room = width - points(HEADING_MARGIN);
        let facts = facts::of_profile(profile, room);
        let heading = Heading::new(options.title.as_deref(), facts, Vec::new(), room);
        let mut chart = Self {
            size: (width, 0),
            heading,
            x: Axis::indices(heads, 0.5, label_count(width - points(80.0), 14.0)),
            y: Axis::indices(layers, 0.5, label_count(height, 14.0)).reversed(),
            x_name: if group > 1 {
                "Query head, grouped by KV head"
            } else {
                "Query head"
            },
            colour,
            colour_name,
            mean,
            group,
        };
        chart.size.1 = chart.heading.height()
            + points(2.0 + BOTTOM_POINTS)
            + height
            + chart.frame().bottom_room();
        Ok(chart)
    }

    fn frame(&self) -> Frame<'_> {
        Frame {
            x: &self.x,
            y: &self.y,
            x_name: Some(self.x_name),
            y_name: Some("Layer"),
            grid: false,
        }
    }

    fn draw_cells<DB: DrawingBackend>(&self, panel: &Panel<'_, DB>) -> Drawn<DB> {
        for (layer, heads) in self.mean.iter().enumerate() {
            for (head, &value) in heads.iter().enumerate() {
                let (x, y) = (head as f64, layer as f64);
                let colour = amount(self.colour.fraction(value));
                panel.cell((x - 0.5, y - 0.5), (x + 0.5, y + 0.5), colour)?;
            }
        }
        let heads = self.mean.first().map_or(0, Vec::len);
        let (top, bottom) = panel.y_range();
        for first in (self.group..heads)
            .step_by(self.group)
            .filter(|_| self.group > 1)
        {
            let x = panel.at(first as f64 - 0.5, 0.0).0;
            let white = stroke(RGBColor(255, 255, 255), 1.2);
            panel
                .sheet
                .draw(&PathElement::new(vec![(x, top), (x, bottom)], white))?;
        }
        Ok(())
    }
}

fn mean_over_prompts(values: &[Vec<Vec<f64>>]) -> Vec<Vec<f64>> {
    let mut sums = values.first().cloned().unwrap_or_default();
    for prompt in values.iter().skip(1) {
        for (sum, value) in sums.iter_mut().flatten().zip(prompt.iter().flatten()) {
            *sum += value;
        }
    }
    sums.iter_mut()
        .flatten()
        .for_each(|sum| *sum /= values.len() as f64);
    sums
}

fn colour_axis(mean: &[Vec<f64>], most: usize) -> Axis {
    let low = mean.iter().flatten().copied().fold(f64::INFINITY, f64::min);
    let high = mean
        .iter()
        .flatten()
        .copied()
        .fold(f64::NEG_INFINITY, f64::max);
    match Axis::needs_log(low, high) {
        true => Axis::log(low, high, most),
        false => Axis::covering(low, high, most.min(6)),
    }
}

impl Drawing for Heatmap {
    fn size(&self) -> (i32, i32) {
        self.size
    }

    fn paint<DB: DrawingBackend>(&self, sheet: &Sheet<DB>) -> Drawn<DB> {
        let frame = self.frame();
        let (left, top) = (frame.left_room(), self.heading.height() + points(2.0));
        self.heading.draw(sheet, left)?;
        let ramp = |patch: usize| amount((patch as f64 + 0.5) / PATCHES as f64);
        let bar = ColourBar {
            axis: &self.colour,
            name: &self.colour_name,
            patches: PATCHES,
            colour: &ramp,
        };
        let width = self.size.0 - bar.room() - points(BAR_GAP);
        let height = self.size.1 - top - points(BOTTOM_POINTS);
        let panel = frame.draw(sheet, ((0, top), (width, height)), left)?;
        self.draw_cells(&panel)?;
        bar.draw(sheet, width + points(BAR_GAP), panel.y_range())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_averaged() {
        let values = [
            vec![vec![1.0, 2.0], vec![3.0, 4.0]],
            vec![vec![3.0, 2.0], vec![5.0, 0.0]],
        ];
        assert_eq!(mean_over_prompts(&values), [[2.0, 2.0], [4.0, 2.0]]);
    }

    #[test]
    fn colours_are_logarithmic_only_over_a_decade() {
        let middle = |values: &[f64], middle| {
            let fraction = colour_axis(&[values.to_vec()], 12).fraction(middle);
            assert!((fraction - 0.5).abs() < 1e-9, "{values:?}: {fraction}");
        };
        middle(&[1.0, 100.0], 10.0);
        middle(&[10.0, 30.0], 20.0);
        middle(&[7.0], 7.0);
    }
}
