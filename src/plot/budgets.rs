//! Budgets per layer: how many tokens a plan lets the KV heads of each layer keep.

use plotters::prelude::{DrawingBackend, PathElement};

use super::axis::Axis;
use super::canvas::{Drawing, Drawn, Sheet, figure_width, label_count, points};
use super::figure::{Figure, render};
use super::frame::Panel;
use super::layer_series::{LAYER_LABEL, Marks, band_key, draw_series, ends, value_axis};
use super::legend::{HEADING_MARGIN, Heading, Key, words_room};
use super::options::ChartOptions;
use super::panel_grid::PanelGrid;
use super::pen::{GREY, PENS, Pen, stroke};
use super::plan_words::PlanWords;
use super::series::at_most;
use super::spread::{Spread, mean};
use super::text;
use crate::budget::{BudgetPlan, Granularity};
use crate::error::Result;

/// Plans whose lines can lie over each other; more get a panel each.
const TOGETHER: usize = 4;
const MOST_PLANS: usize = 24;
const SINGLE_POINTS: f64 = 125.0;
const MULTIPLE_POINTS: f64 = 64.0;
/// Least and most width of one of several panels, in points: a plan's name stands above it.
const PANEL_POINTS: (f64, f64) = (68.0, 150.0);
const BOTTOM_POINTS: f64 = 1.5;

/// Width of the line of the uniform budget, in points.
const UNIFORM_POINTS: f64 = 0.6;

/// The lines of one panel.
struct Plot {
    /// What stands above it, where there are several.
    name: String,
    series: Vec<(Pen, Spread)>,
    /// What every layer would have if all had the same.
    uniform: Option<f64>,
}

struct Budgets {
    size: (i32, i32),
    heading: Heading,
    grid: PanelGrid,
    plots: Vec<Plot>,
    marks: Marks,
}

/// Draws the mean budget of a layer's KV heads against the layer, a line with markers per plan, beside a thin line of the
/// uniform budget.
///
/// Up to four plans share a panel, in which their markers take turns; more have one each, all with the same axes. The
/// band of a plan by head is the range of its KV heads. What all plans share stands above the legend. The axis begins at
/// 0; it is logarithmic where the largest budget shown is at least ten times the smallest, or where
/// [`ChartOptions::log`] asks for it, and then says so.
///
/// Units: tokens per KV head, or per cent of the plan's own T where [`ChartOptions::relative`] is set.
/// Errors: [`crate::error::Error::Invalid`] for too many plans, a width out of its bounds, or a logarithmic axis asked
/// for budgets of 0.
pub(super) fn draw(plans: &[BudgetPlan], options: &ChartOptions, record: &str) -> Result<Figure> {
    render(&Budgets::read(plans, options)?, "Budget per layer", record)
}

impl Budgets {
    fn read(plans: &[BudgetPlan], options: &ChartOptions) -> Result<Self> {
        at_most(MOST_PLANS, "budgets", plans)?;
        let width = figure_width(options.width)?;
        let room = width - points(HEADING_MARGIN);
        let words = PlanWords::of(plans);
        let spreads: Vec<Spread> = (plans.iter())
            .map(|plan| over_heads(plan, options.relative))
            .collect();
        let together = plans.len() <= TOGETHER;
        let columns = match together {
            true => 1,
            false => columns(width, &words.names(room)),
        };
        let grid = grid(&spreads, options, (width, columns))?;
        let plots = match together {
            true => vec![shared_plot(&spreads)],
            false => own_plots(&spreads, words.names(grid.panel_width())),
        };
        let entries = match together {
            true => PENS
                .into_iter()
                .map(Key::Series)
                .zip(words.names(words_room(room)))
                .collect(),
            false => vec![(Key::Series(PENS[0]), "the plan named".to_owned())],
        };
        let entries = [entries, other_entries(&plots)].concat();
        let heading = Heading::new(options.title.as_deref(), words.shared, entries, room);
        let height = heading.height() + grid.total_height() + points(BOTTOM_POINTS);
        Ok(Self {
            size: (width, height),
            heading,
            grid,
            plots,
            marks: if together {
                Marks::InTurn
            } else {
                Marks::Every
            },
        })
    }

    fn draw_plot<DB: DrawingBackend>(&self, panel: &Panel<'_, DB>, plot: &Plot) -> Drawn<DB> {
        if let Some(budget) = plot.uniform {
            let (left, right) = panel.x_range();
            let y = panel.at(0.0, budget).1;
            let line = PathElement::new(vec![(left, y), (right, y)], stroke(GREY, UNIFORM_POINTS));
            panel.sheet.draw(&line)?;
        }
        draw_series(panel, &plot.series, self.marks)
    }
}

/// Columns of panels that hold the plans' names, where a reasonable width does.
fn columns(width: i32, names: &[String]) -> usize {
    let widest = names
        .iter()
        .map(|name| text::width(name))
        .max()
        .unwrap_or(0);
    // A panel is narrower than its column by the labels and the gap beside it.
    let needed = f64::from(widest) / f64::from(points(1.0)) + 12.0;
    let least = needed.clamp(PANEL_POINTS.0, PANEL_POINTS.1);
    PanelGrid::columns(width, least, names.len())
}

fn grid(
    spreads: &[Spread],
    options: &ChartOptions,
    (width, columns): (i32, usize),
) -> Result<PanelGrid> {
    let (count, height) = match spreads.len() <= TOGETHER {
        true => (1, SINGLE_POINTS),
        false => (spreads.len(), MULTIPLE_POINTS),
    };
    let (low, high) = ends(spreads.iter());
    let log = options.log || Axis::needs_log(low, high);
    let y = value_axis(spreads.iter(), log, height)?;
    let y_name = match options.relative {
        true => "Budget (% of T)",
        false => "Tokens per KV head",
    };
    let layers = spreads.iter().map(|s| s.mean.len()).max().unwrap_or(0);
    let panel = (width - points(HEADING_MARGIN)) / columns as i32 - points(12.0);
    let grid = PanelGrid {
        x: Axis::layers(layers, label_count(panel, LAYER_LABEL)),
        y,
        x_name: "Layer".to_owned(),
        y_name: String::new(),
        lines: true,
        count,
        columns,
        width,
        height: points(height),
    };
    Ok(PanelGrid {
        y_name: grid.y.named(y_name, grid.panels_height()),
        ..grid
    }
    .tall_enough())
}

/// One panel of all plans, with the uniform budget where all have the same and no plan is it already.
fn shared_plot(spreads: &[Spread]) -> Plot {
    let series: Vec<(Pen, Spread)> = PENS.into_iter().zip(spreads.iter().cloned()).collect();
    let budgets: Vec<f64> = spreads.iter().map(|s| mean(&s.mean)).collect();
    let close = |a: f64, b: f64, share: f64| (a - b).abs() <= share * a.max(b);
    // Totals are rounded down to whole tokens, and what is left over goes to some heads.
    let same = budgets
        .windows(2)
        .all(|pair| close(pair[0], pair[1], 0.005));
    let flat = |s: &Spread| s.mean.iter().all(|&v| close(v, s.mean[0], 0.03));
    let needed = same && !spreads.iter().any(flat);
    Plot {
        name: String::new(),
        series,
        uniform: budgets.first().copied().filter(|_| needed),
    }
}

/// A panel for every plan.
fn own_plots(spreads: &[Spread], names: Vec<String>) -> Vec<Plot> {
    let plot = |(spread, name): (&Spread, String)| Plot {
        name,
        series: vec![(PENS[0], spread.clone())],
        uniform: Some(mean(&spread.mean)),
    };
    spreads.iter().zip(names).map(plot).collect()
}

/// The keys of what is no plan: uniform budgets and bands.
fn other_entries(plots: &[Plot]) -> Vec<(Key, String)> {
    let mut entries = Vec::new();
    if plots.iter().any(|plot| plot.uniform.is_some()) {
        entries.push((Key::Line(GREY), "uniform budget".to_owned()));
    }
    let banded = |plot: &&Plot| plot.series.iter().any(|(_, s)| s.low != s.high);
    if let Some(plot) = plots.iter().find(banded) {
        let words = "min\u{2013}max of KV heads".to_owned();
        entries.push((band_key(&plot.series), words));
    }
    entries
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

impl Drawing for Budgets {
    fn size(&self) -> (i32, i32) {
        self.size
    }

    fn paint<DB: DrawingBackend>(&self, sheet: &Sheet<DB>) -> Drawn<DB> {
        let top = self.heading.height();
        self.heading.draw(sheet, self.grid.heading_left())?;
        self.grid.draw_names(sheet, top)?;
        for (index, plot) in self.plots.iter().enumerate() {
            let panel = self.grid.draw(sheet, top, index, &plot.name)?;
            self.draw_plot(&panel, plot)?;
        }
        Ok(())
    }
}
