//! SnapKV's two observations per layer: a line per window, coloured by its place in the text.

use plotters::prelude::{Circle, DrawingBackend, PathElement, RGBColor};
use plotters::style::Color;

use super::axis::{self, Axis};
use super::canvas::{Drawing, Drawn, Sheet, figure_width, label_count, points};
use super::colour_bar::ColourBar;
use super::facts::{on_data, prompts};
use super::figure::{Figure, render};
use super::frame::Panel;
use super::layer_series::LAYER_LABEL;
use super::legend::{HEADING_MARGIN, Heading};
use super::options::ChartOptions;
use super::panel_grid::PanelGrid;
use super::pen::{depth, stroke};
use super::series::only;
use crate::error::{Error, Result};
use crate::eval::hit_rate::{HitRates, LayerRates, Observation, WindowRates};

const PANEL_POINTS: f64 = 48.0;
const BAR_GAP: f64 = 6.0;
const BOTTOM_POINTS: f64 = 1.5;
const LINE_POINTS: f64 = 0.8;

/// What [`ChartOptions::metric`] may be.
const METRICS: [&str; 2] = ["all", "beyond-sinks"];

/// Lines of one panel, `[window][layer]` in per cent.
struct Plot {
    name: &'static str,
    observation: Observation,
    windows: Vec<Vec<f64>>,
}

struct HitRateChart {
    size: (i32, i32),
    heading: Heading,
    grid: PanelGrid,
    plots: [Plot; 4],
    bars: [Axis; 2],
}

/// Draws hit rates of the prompt's windows, of generated ones, the votes that these share with the last prompt
/// window, and how many steps the hit rates stand on.
///
/// Units: per cent; a layer without an important key has no hit rate and interrupts the line.
/// Errors: [`Error::UnknownName`] for a metric other than `all` and `beyond-sinks`, [`Error::Invalid`] for
/// several runs or a width out of its bounds, [`Error::NotFinite`].
pub(super) fn draw(all: &[HitRates], options: &ChartOptions, record: &str) -> Result<Figure> {
    let chart = HitRateChart::read(only("hitrate", all)?, options)?;
    render(&chart, "Hit rates per layer", record)
}

impl HitRateChart {
    fn read(rates: &HitRates, options: &ChartOptions) -> Result<Self> {
        let metric = options.metric.as_deref().unwrap_or(METRICS[0]);
        let chosen: fn(&WindowRates) -> &LayerRates = match metric {
            "all" => |w| &w.all,
            "beyond-sinks" => |w| &w.beyond_sinks,
            other => return Err(Error::unknown("metric of hitrate", other, METRICS)),
        };
        if rates.meta.data.prompts == 0 || rates.meta.model.num_layers == 0 {
            let what = format!(
                "number of prompts in the hit rates of {}",
                rates.meta.model.name
            );
            return Err(Error::invalid(what, 0, "a chart needs at least one"));
        }
        let prompt = rates.rates(Observation::Prompt)?;
        let generated = rates.rates(Observation::Generated)?;
        let plot = |name, observation, pick: &dyn Fn(&WindowRates) -> Vec<f64>| {
            let windows = match observation {
                Observation::Prompt => &prompt,
                Observation::Generated => &generated,
            };
            let percent = |w| pick(w).iter().map(|v| 100.0 * v).collect();
            Plot {
                name,
                observation,
                windows: windows.iter().map(percent).collect(),
            }
        };
        let hit_rate = |w: &WindowRates| chosen(w).hit_rate.clone();
        let plots = [
            plot("Hit rate of prompt windows", Observation::Prompt, &hit_rate),
            plot(
                "Hit rate of the last one while generating",
                Observation::Generated,
                &hit_rate,
            ),
            plot(
                "Its vote shared by generated windows",
                Observation::Generated,
                &|w| w.overlap.clone(),
            ),
            plot(
                "Steps with an important key",
                Observation::Generated,
                &|w| chosen(w).counted.clone(),
            ),
        ];
        let bars = Observation::ALL.map(|o| {
            let windows = match o {
                Observation::Prompt => prompt.len(),
                Observation::Generated => generated.len(),
            };
            Axis::indices(windows, 0.5, 5)
        });
        let width = figure_width(options.width)?;
        let room = width - points(HEADING_MARGIN);
        let heading = Heading::new(
            options.title.as_deref(),
            facts(rates, metric),
            Vec::new(),
            room,
        );
        let mut chart = Self {
            size: (width, 0),
            heading,
            grid: grid(rates.meta.model.num_layers, room),
            plots,
            bars,
        };
        let bars = [0, 1].map(|i| chart.bar(i, &|_| RGBColor(0, 0, 0)).room());
        chart.grid.width = width - bars[0].max(bars[1]) - points(BAR_GAP);
        chart.size.1 = chart.heading.height() + chart.grid.total_height() + points(BOTTOM_POINTS);
        Ok(chart)
    }

    /// The bar of the prompt's or of the generated windows.
    fn bar<'b>(&'b self, index: usize, colour: &'b dyn Fn(usize) -> RGBColor) -> ColourBar<'b> {
        ColourBar {
            axis: &self.bars[index],
            name: ["Window", "Generated window"][index],
            patches: self.plots[index].windows.len(),
            colour,
        }
    }
}

/// What the figure is over.
fn facts(rates: &HitRates, metric: &str) -> Vec<String> {
    let meta = &rates.meta;
    let keys = match metric {
        "all" => "",
        _ => ", beyond the sinks",
    };
    let settings = format!(
        "top {} %, θ = {}{keys}, {}",
        axis::number(100.0 * meta.settings.options.top),
        meta.settings.options.theta,
        prompts(meta.data.prompts)
    );
    vec![on_data(&meta.model.name, &meta.data.name), settings]
}

fn grid(layers: usize, room: i32) -> PanelGrid {
    PanelGrid {
        x: Axis::layers(layers, label_count(room, LAYER_LABEL)),
        y: Axis::per_cent(3),
        x_name: "Layer".to_owned(),
        y_name: "Share (%)".to_owned(),
        lines: true,
        count: 4,
        columns: 1,
        width: room,
        height: points(PANEL_POINTS),
    }
}

/// Colour of a window among `count`, the last being the lightest.
fn colour(window: usize, count: usize) -> RGBColor {
    depth(window as f64 / count.saturating_sub(1).max(1) as f64)
}

fn draw_lines<DB: DrawingBackend>(panel: &Panel<'_, DB>, windows: &[Vec<f64>]) -> Drawn<DB> {
    for (w, window) in windows.iter().enumerate() {
        let colour = colour(w, windows.len());
        let layers: Vec<(usize, f64)> = window.iter().copied().enumerate().collect();
        // Layers without a value part the line.
        for piece in layers.split(|(_, value)| !value.is_finite()) {
            let spots: Vec<_> = piece
                .iter()
                .map(|&(layer, value)| panel.at(layer as f64, value))
                .collect();
            if let [spot] = spots[..] {
                let dot = Circle::new(spot, points(1.2), colour.filled());
                panel.sheet.draw(&dot)?;
            }
            let line = PathElement::new(spots, stroke(colour, LINE_POINTS));
            panel.sheet.draw(&line)?;
        }
    }
    Ok(())
}

impl Drawing for HitRateChart {
    fn size(&self) -> (i32, i32) {
        self.size
    }

    fn paint<DB: DrawingBackend>(&self, sheet: &Sheet<DB>) -> Drawn<DB> {
        self.heading.draw(sheet, self.grid.heading_left())?;
        self.grid.draw_names(sheet, self.heading.height())?;
        let mut ranges = Vec::new();
        for (index, plot) in self.plots.iter().enumerate() {
            let top = self.heading.height();
            let panel = self.grid.draw(sheet, top, index, plot.name)?;
            draw_lines(&panel, &plot.windows)?;
            ranges.push((plot.observation, panel.y_range()));
        }
        for (index, observation) in Observation::ALL.into_iter().enumerate() {
            let mine = || ranges.iter().filter(|(o, _)| *o == observation);
            let (Some((_, first)), Some((_, last))) = (mine().next(), mine().next_back()) else {
                continue;
            };
            let count = self.plots[index].windows.len();
            let shade = |window: usize| colour(window, count);
            let left = self.grid.width + points(BAR_GAP);
            let bar = self.bar(index, &shade);
            bar.draw(sheet, left, (first.0, last.1))?;
        }
        Ok(())
    }
}
