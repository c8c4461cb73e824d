//! Needles found: length of the haystack across, depth of the needle down, a panel per method.

use std::collections::BTreeMap;

use plotters::prelude::{DrawingBackend, RGBColor, Rectangle};
use plotters::style::Color;

use super::axis::{Axis, number};
use super::canvas::{Drawing, Drawn, Sheet, figure_width, label_count, points};
use super::colour_bar::ColourBar;
use super::facts;
use super::figure::{Figure, render};
use super::frame::Panel;
use super::legend::{HEADING_MARGIN, Heading, Key};
use super::options::ChartOptions;
use super::outcomes::{
    FULL, Outcome, budget_words, check_number_of_methods, chosen_budget, chosen_methods,
    count_words, distinct, outcomes,
};
use super::panel_grid::PanelGrid;
use super::pen::amount;
use super::series::only;
use super::spread::mean;
use super::text;
use crate::error::{Error, Result};
use crate::eval::{Direction, Metric, Results};

/// Room for the axis' name and most methods' names, in points.
const LEAST_PANEL: f64 = 86.0;
const ROW_POINTS: f64 = 7.0;
const HEIGHT_POINTS: (f64, f64) = (48.0, 140.0);
const BAR_GAP: f64 = 6.0;
const BOTTOM_POINTS: f64 = 1.5;
const PATCHES: usize = 200;

/// Behind cells that nothing was measured for.
const UNMEASURED: RGBColor = RGBColor(225, 225, 225);

/// A method's means, by place on the grid of lengths and depths.
struct Plot {
    name: String,
    mean: f64,
    cells: Vec<(usize, usize, f64)>,
}

struct Needle {
    size: (i32, i32),
    heading: Heading,
    grid: PanelGrid,
    colour: Axis,
    /// What stands beside the colour bar: the name of its values, or nothing.
    bar_name: String,
    light_is_low: bool,
    plots: Vec<Plot>,
}

/// Draws the mean of a metric for every length and depth at one budget, the full cache first.
///
/// Light is good. The NLL is that of the same prompt less what the full cache has, which then needs no
/// panel of its own.
///
/// Units: per cent, or nats.
/// Errors: [`Error::UnknownName`] for a metric, column, method or budget that is not there, [`Error::Invalid`] for
/// an evaluation without a grid of lengths and depths, or too many methods.
pub(super) fn draw(all: &[Results], options: &ChartOptions, record: &str) -> Result<Figure> {
    let metric = Metric::find(options.metric.as_deref().unwrap_or("contains"))?;
    let chart = Needle::read(only("needle", all)?, metric, options)?;
    let title = format!("{} by length and depth", metric.title);
    render(&chart, &title, record)
}

impl Needle {
    fn read(results: &Results, metric: &Metric, options: &ChartOptions) -> Result<Self> {
        let rows = outcomes(results, metric.name, metric.factor())?;
        let paired = metric.name == "nll";
        let rows = if paired { less_full(rows) } else { rows };
        let rows: Vec<_> = rows
            .into_iter()
            .filter(|row| row.length.is_finite() && row.depth.is_finite())
            .collect();
        if rows.is_empty() {
            let bound = "a chart needs some: evaluate with --task needle";
            return Err(Error::invalid(
                "number of rows with length and depth",
                0,
                bound,
            ));
        }
        let cut = rows.iter().filter(|row| row.method != FULL);
        let budgets = distinct(cut.map(|row| row.budget));
        let budget = chosen_budget(&budgets, options.budget.as_deref())?;
        let rows: Vec<_> = rows
            .into_iter()
            .filter(|row| row.method == FULL || row.budget == budget)
            .collect();
        let held = distinct(rows.iter().map(|row| row.method));
        let mut methods = chosen_methods(&held, options.methods.as_deref())?;
        methods.retain(|method| *method != FULL);
        check_number_of_methods("needle", methods.len())?;
        let shown = |row: &Outcome<'_>| row.method == FULL || methods.contains(&row.method);
        let rows: Vec<_> = rows.into_iter().filter(shown).collect();
        let [lengths, depths] = [
            |row: &Outcome<'_>| row.length,
            |row: &Outcome<'_>| row.depth,
        ]
        .map(|of| ascending(rows.iter().map(of)));
        let (plots, counts) = plots(&rows, &methods, &lengths, &depths);
        let values = plots
            .iter()
            .flat_map(|plot| plot.cells.iter().map(|cell| cell.2));
        let colour = colour_axis(values, metric, paired);
        let width = figure_width(options.width)?;
        let grid = grid(width, plots.len(), &lengths, &depths);
        let colour_name = match paired {
            true => "NLL above the full cache (nats per token)".to_owned(),
            false => metric.axis_name(),
        };
        let beside = text::width(&colour_name) <= grid.panels_height();
        let alone = counts.iter().all(|&count| count == 1);
        let prompts = if alone { "prompt" } else { "prompts" };
        let counts = count_words(counts.into_iter());
        let mut notes = vec![
            (Key::Note, budget_words(budget)),
            (
                Key::Note,
                format!("{counts} {prompts} per cell, light is good"),
            ),
        ];
        // A bar as high as few panels has no room for a long name, which then stands above them.
        if !beside {
            notes.insert(0, (Key::Colours, colour_name.clone()));
        }
        let room = width - points(HEADING_MARGIN);
        let mut chart = Self {
            size: (width, 0),
            heading: Heading::new(
                options.title.as_deref(),
                facts::of_results(&results.meta),
                notes,
                room,
            ),
            grid,
            colour,
            bar_name: if beside { colour_name } else { String::new() },
            light_is_low: metric.direction == Direction::Lower,
            plots,
        };
        chart.grid.width = width - chart.bar(&|_| UNMEASURED).room() - points(BAR_GAP);
        chart.size.1 = chart.heading.height() + chart.grid.total_height() + points(BOTTOM_POINTS);
        Ok(chart)
    }

    fn bar<'b>(&'b self, colour: &'b dyn Fn(usize) -> RGBColor) -> ColourBar<'b> {
        ColourBar {
            axis: &self.colour,
            name: &self.bar_name,
            patches: PATCHES,
            colour,
        }
    }

    fn shade(&self, fraction: f64) -> RGBColor {
        amount(if self.light_is_low {
            1.0 - fraction
        } else {
            fraction
        })
    }

    fn draw_cells<DB: DrawingBackend>(&self, panel: &Panel<'_, DB>, plot: &Plot) -> Drawn<DB> {
        let (left, right) = panel.x_range();
        let (top, bottom) = panel.y_range();
        let whole = [(left, top), (right, bottom)];
        panel
            .sheet
            .draw(&Rectangle::new(whole, UNMEASURED.filled()))?;
        for &(length, depth, value) in &plot.cells {
            let (x, y) = (length as f64, depth as f64);
            let colour = self.shade(self.colour.fraction(value));
            panel.cell((x - 0.5, y - 0.5), (x + 0.5, y + 0.5), colour)?;
        }
        Ok(())
    }
}

/// Every cut cache's value less that of the full cache on the same prompt; prompts without one are left out.
fn less_full(rows: Vec<Outcome<'_>>) -> Vec<Outcome<'_>> {
    let full: BTreeMap<u32, f64> = rows
        .iter()
        .filter(|row| row.method == FULL)
        .map(|row| (row.prompt, row.value))
        .collect();
    let cut = rows.into_iter().filter(|row| row.method != FULL);
    cut.filter_map(|row| {
        let value = row.value - full.get(&row.prompt)?;
        Some(Outcome { value, ..row })
    })
    .collect()
}

fn ascending(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.dedup();
    values
}

/// A plot of the full cache, where it has rows, and of every method, and the number of prompts in every cell.
fn plots(
    rows: &[Outcome<'_>],
    methods: &[&str],
    lengths: &[f64],
    depths: &[f64],
) -> (Vec<Plot>, Vec<usize>) {
    let place = |values: &[f64], value: f64| values.iter().position(|v| *v == value).unwrap_or(0);
    let (mut plots, mut counts) = (Vec::new(), Vec::new());
    for method in [FULL].iter().chain(methods) {
        let own = rows.iter().filter(|row| row.method == *method);
        let mut cells: BTreeMap<(usize, usize), Vec<f64>> = BTreeMap::new();
        let mut values = Vec::new();
        for row in own {
            let at = (place(lengths, row.length), place(depths, row.depth));
            cells.entry(at).or_default().push(row.value);
            values.push(row.value);
        }
        // The NLL is already less the full cache's, which then has no rows.
        if values.is_empty() {
            continue;
        }
        counts.extend(cells.values().map(Vec::len));
        plots.push(Plot {
            name: match *method {
                FULL => "full cache".to_owned(),
                _ => text::printable(method),
            },
            mean: mean(&values),
            cells: cells
                .into_iter()
                .map(|((l, d), v)| (l, d, mean(&v)))
                .collect(),
        });
    }
    (plots, counts)
}

fn colour_axis(values: impl Iterator<Item = f64> + Clone, metric: &Metric, paired: bool) -> Axis {
    if metric.is_share() && !paired {
        return Axis::covering(0.0, 100.0, 5);
    }
    let low = values.clone().fold(f64::INFINITY, f64::min);
    let high = values.fold(f64::NEG_INFINITY, f64::max);
    // Without a difference worth a colour the bar still starts at "as good as the full cache".
    Axis::covering(low.min(0.0), high, 5)
}

fn grid(width: i32, panels: usize, lengths: &[f64], depths: &[f64]) -> PanelGrid {
    let room = width - points(40.0);
    let columns = PanelGrid::columns(room, LEAST_PANEL, panels);
    let (lowest, highest) = HEIGHT_POINTS;
    let height = points((depths.len() as f64 * ROW_POINTS).clamp(lowest, highest));
    let (unit, x_name) = [1024.0, 1000.0]
        .into_iter()
        .find(|unit| lengths.iter().all(|length| length % unit == 0.0))
        .map_or((1.0, "Length (tokens)".to_owned()), |unit| {
            (unit, format!("Length ({} tokens)", number(unit)))
        });
    let labels = |values: &[f64], unit: f64| values.iter().map(|v| number(v / unit)).collect();
    let panel = room / columns as i32 - points(16.0);
    let widest = if unit == 1.0 { 26.0 } else { 12.0 };
    PanelGrid {
        x: Axis::categories(labels(lengths, unit), label_count(panel, widest)),
        y: Axis::categories(labels(depths, 1.0), label_count(height, 12.0)).reversed(),
        x_name,
        y_name: "Depth (%)".to_owned(),
        lines: false,
        count: panels,
        columns,
        width,
        height,
    }
}

impl Drawing for Needle {
    fn size(&self) -> (i32, i32) {
        self.size
    }

    fn paint<DB: DrawingBackend>(&self, sheet: &Sheet<DB>) -> Drawn<DB> {
        let top = self.heading.height();
        self.heading.draw(sheet, self.grid.heading_left())?;
        self.grid.draw_names(sheet, top)?;
        for (index, plot) in self.plots.iter().enumerate() {
            let mean = match self.light_is_low {
                true => format!(" {:.2}", plot.mean),
                false => format!(" {:.0}%", plot.mean),
            };
            let room = self.grid.panel_width() - text::width(&mean);
            let name = text::fitted(&plot.name, room);
            let panel = self
                .grid
                .draw(sheet, top, index, &format!("{name}{mean}"))?;
            self.draw_cells(&panel, plot)?;
        }
        let shade = |patch: usize| self.shade((patch as f64 + 0.5) / PATCHES as f64);
        let left = self.grid.width + points(BAR_GAP);
        self.bar(&shade)
            .draw(sheet, left, self.grid.panels_range(top))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample_results::{SampleResults, TWELVE};

    /// Top and bottom of every rectangle as wide as `width`, or of any where there is none.
    fn range(svg: &str, fill: Option<&str>, width: Option<i32>) -> (i32, i32) {
        let number = |tag: &str, name: &str| -> i32 {
            let value = tag.split(&format!(" {name}=\"")).nth(1).unwrap();
            value.split('"').next().unwrap().parse().unwrap()
        };
        let tags = svg.split("<rect").skip(1);
        let tags = tags.filter(|tag| fill.is_none_or(|fill| tag.contains(fill)));
        let tags = tags.filter(|tag| width.is_none_or(|width| number(tag, "width") == width));
        tags.map(|tag| (number(tag, "y"), number(tag, "y") + number(tag, "height")))
            .reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
            .unwrap()
    }

    #[test]
    fn the_colour_bar_is_as_tall_as_the_panels_and_its_name_fits() {
        for (methods, metric) in [1, 3]
            .into_iter()
            .flat_map(|methods| ["contains", "nll", "evidence"].map(|metric| (methods, metric)))
        {
            let sample = SampleResults {
                task: "needle",
                methods: TWELVE[..methods].to_vec(),
                ..SampleResults::default()
            };
            let options = ChartOptions {
                metric: Some(metric.to_owned()),
                ..ChartOptions::default()
            };
            let all = [sample.results()];
            let svg = draw(&all, &options, "").unwrap().svg;
            let panels = range(&svg, Some("#E1E1E1"), None);
            // 7 points of a colour bar, 15 of a legend's key.
            let bar = range(&svg, None, Some(points(7.0)));
            assert_eq!(bar, panels, "{methods} {metric}");
            let name = match metric {
                "nll" => "NLL above the full cache (nats per token)",
                _ => &Metric::find(metric).unwrap().axis_name(),
            };
            let upright = text::width(name) <= panels.1 - panels.0;
            let tag = svg.split("<text").find(|tag| tag.contains(name)).unwrap();
            assert_eq!(tag.contains("rotate"), upright, "{methods} {metric}");
        }
    }

    fn row(prompt: u32, method: &'static str, value: f64) -> Outcome<'static> {
        Outcome {
            prompt,
            sample: prompt,
            method,
            budget: "64",
            held: 1.0,
            full: 2.0,
            value,
            length: 1024.0,
            depth: f64::from(prompt),
        }
    }

    #[test]
    fn nll_is_paired_with_the_full_cache_of_its_prompt() {
        let rows = vec![
            row(0, "full", 2.0),
            row(0, "snapkv", 3.5),
            row(1, "snapkv", 9.0),
        ];
        let differences: Vec<f64> = less_full(rows).iter().map(|r| r.value).collect();
        assert_eq!(differences, [1.5]);
    }

    #[test]
    fn cells_are_means_and_full_comes_first() {
        let rows = [
            row(0, "snapkv", 1.0),
            row(0, "snapkv", 0.0),
            row(0, "full", 1.0),
        ];
        let (plots, counts) = plots(&rows, &["snapkv"], &[1024.0], &[0.0]);
        assert_eq!(plots[0].name, "full cache");
        assert_eq!(plots[1].cells, [(0, 0, 0.5)]);
        assert_eq!(counts, [1, 2]);
    }
}
