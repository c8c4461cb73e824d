//! Quality against held bytes: a line per method, an interval at every budget.

use plotters::prelude::{DrawingBackend, PathElement, RGBColor};

use super::axis::{Axis, number};
use super::canvas::{Drawing, Drawn, Sheet, figure_width, label_count, name_room, points};
use super::facts;
use super::figure::{Figure, render};
use super::frame::Panel;
use super::held_quality::{Point, Series, bytes_axis, line, quality_axis, visible};
use super::layer_series::HEIGHT_OF_LABEL;
use super::legend::{HEADING_MARGIN, Heading, Key};
use super::options::ChartOptions;
use super::outcomes::{
    FULL, check_number_of_methods, chosen_methods, count_words, distinct, outcomes, sample_noun,
};
use super::panel_grid::PanelGrid;
use super::pen::{BASELINE, OTHERS, PENS, Pen, REFERENCE, Spot, stroke};
use super::series::only;
use super::text;
use crate::error::Result;
use crate::eval::{Metric, Results};

/// Methods whose intervals can stand side by side; more get a panel each.
const TOGETHER: usize = 6;
const SINGLE_POINTS: f64 = 150.0;
const MULTIPLE_POINTS: f64 = 64.0;
const LEAST_PANEL: f64 = 68.0;
const BOTTOM_POINTS: f64 = 1.5;

/// Methods at one budget hold the same bytes: their marks are set apart by at most this, in points.
const APART_POINTS: (f64, f64) = (2.6, 13.0);

struct Frontier {
    size: (i32, i32),
    heading: Heading,
    grid: PanelGrid,
    series: Vec<Series>,
    /// Index of the series that the others are compared with.
    baseline: Option<usize>,
    /// The full cache, where the axis has a place for it.
    full: Option<Point>,
    together: bool,
}

/// Draws the mean of a metric against the bytes that are held, with 95 % intervals over prompts.
///
/// Up to six methods share a panel, where the full cache is a dotted line that ends at its own bytes. More have
/// a panel each, with the evaluation's baseline and the other methods behind, and the full cache as a dotted line
/// across. Where a logarithmic axis has no place for the full cache's value, the legend names it.
///
/// Units: MB per prompt, or per cent of the full cache where [`ChartOptions::relative`] is set.
/// Errors: [`crate::error::Error::UnknownName`] for a metric, column or method that is not there,
/// [`crate::error::Error::Invalid`] for several evaluations, too many methods, or no row with a value.
pub(super) fn draw(all: &[Results], options: &ChartOptions, record: &str) -> Result<Figure> {
    let metric = Metric::find(options.metric.as_deref().unwrap_or("kl"))?;
    let title = format!("{} against held KV cache", metric.title);
    let chart = Frontier::read(only("frontier", all)?, metric, options)?;
    render(&chart, &title, record)
}

impl Frontier {
    fn read(results: &Results, metric: &Metric, options: &ChartOptions) -> Result<Self> {
        let rows = outcomes(results, metric.name, metric.factor())?;
        let held = distinct(rows.iter().map(|row| row.method));
        let mut methods = chosen_methods(&held, options.methods.as_deref())?;
        methods.retain(|method| *method != FULL);
        check_number_of_methods("frontier", methods.len())?;
        let series: Vec<Series> = (methods.iter())
            .map(|method| Series {
                name: text::printable(method),
                points: line(&rows, method, options.relative),
            })
            .collect();
        let together = series.len() <= TOGETHER;
        let baseline = methods
            .iter()
            .position(|m| *m == results.meta.settings.baseline);
        let full = line(&rows, FULL, options.relative).into_iter().next();
        let height = points(if together {
            SINGLE_POINTS
        } else {
            MULTIPLE_POINTS
        });
        let most = label_count(height, HEIGHT_OF_LABEL);
        let y = quality_axis(&series, full.as_ref(), metric, options.log, most);
        let shown = full
            .as_ref()
            .is_some_and(|point| visible(&y, point.quality.mean));
        let mut entries = match together {
            true => keys_of_pens(&series),
            false => keys_of_panels(&series, baseline),
        };
        entries.extend(full.as_ref().map(|full| {
            let key = match (shown, together) {
                (false, _) => Key::Note,
                (true, true) => Key::Series(REFERENCE),
                (true, false) => Key::Reference,
            };
            (key, full_words(full, metric, options.relative))
        }));
        entries.extend(notes(&series, &y, together, sample_noun(&rows)));
        let width = figure_width(options.width)?;
        let full = full.filter(|_| shown);
        // In panels of their own, methods would lose most of the width to the way to the full cache's bytes.
        let columns = match together {
            true => 1,
            false => PanelGrid::columns(width, LEAST_PANEL, series.len()),
        };
        let panel = (width - points(HEADING_MARGIN)) / columns as i32 - points(10.0);
        let x = bytes_axis(&series, full.as_ref().filter(|_| together), panel);
        let grid = grid(width, (x, y), series.len(), columns);
        let x_name = match options.relative {
            true => "Held KV cache (% of the full cache)",
            false => "Held KV cache (MB per prompt)",
        };
        let grid = PanelGrid {
            x_name: grid.x.named(x_name, name_room(width)),
            y_name: grid.y.named(&metric.axis_name(), grid.panels_height()),
            ..grid
        }
        .tall_enough();
        let room = width - points(HEADING_MARGIN);
        let heading = Heading::new(
            options.title.as_deref(),
            facts::of_results(&results.meta),
            entries,
            room,
        );
        let height = heading.height() + grid.total_height() + points(BOTTOM_POINTS);
        Ok(Self {
            size: (width, height),
            heading,
            grid,
            series,
            baseline,
            full,
            together,
        })
    }

    fn low(&self) -> f64 {
        self.grid.y.low()
    }

    /// The points that the axis has a place for.
    fn shown<'s>(&'s self, series: &'s Series) -> impl Iterator<Item = &'s Point> {
        (series.points.iter()).filter(|p| visible(&self.grid.y, p.quality.mean))
    }

    fn draw_bars<DB: DrawingBackend>(
        &self,
        panel: &Panel<'_, DB>,
        (pen, series, aside): (Pen, &Series, i32),
    ) -> Drawn<DB> {
        for p in self.shown(series) {
            let [low, high] = [p.quality.low, p.quality.high].map(|value| {
                let (x, y) = panel.at(p.held, value.max(self.low()));
                (x + aside, y)
            });
            if p.quality.low < p.quality.high {
                pen.bar(&panel.sheet, low, high)?;
            }
        }
        Ok(())
    }

    /// Where a series' means lie, moved `aside`.
    fn spots<DB: DrawingBackend>(
        &self,
        panel: &Panel<'_, DB>,
        series: &Series,
        aside: i32,
    ) -> Vec<Spot> {
        let at = |p: &Point| panel.at(p.held, p.quality.mean);
        self.shown(series)
            .map(at)
            .map(|(x, y)| (x + aside, y))
            .collect()
    }

    /// Every method in one panel: bars first, then lines, then markers.
    fn draw_together<DB: DrawingBackend>(&self, panel: &Panel<'_, DB>) -> Drawn<DB> {
        if let Some(full) = &self.full {
            let end = panel.at(full.held, full.quality.mean);
            REFERENCE.line(&panel.sheet, vec![(panel.x_range().0, end.1), end])?;
            REFERENCE.mark(&panel.sheet, end)?;
        }
        let gaps = self.series.len().saturating_sub(1) as f64;
        let step = APART_POINTS.0.min(APART_POINTS.1 / gaps.max(1.0));
        let aside = |index: usize| points((index as f64 - gaps / 2.0) * step);
        let all = || PENS.into_iter().zip(&self.series).enumerate();
        for (index, (pen, series)) in all() {
            self.draw_bars(panel, (pen, series, aside(index)))?;
        }
        for (index, (pen, series)) in all() {
            pen.line(&panel.sheet, self.spots(panel, series, aside(index)))?;
        }
        for (index, (pen, series)) in all() {
            for spot in self.spots(panel, series, aside(index)) {
                pen.mark(&panel.sheet, spot)?;
            }
        }
        Ok(())
    }

    /// One method in front of the others.
    fn draw_alone<DB: DrawingBackend>(&self, panel: &Panel<'_, DB>, own: usize) -> Drawn<DB> {
        let behind = |series: &Series, colour: RGBColor, width: f64| {
            let path = self.spots(panel, series, 0);
            let path = PathElement::new(path, stroke(colour, width));
            panel.sheet.draw(&path)
        };
        for (index, series) in self.series.iter().enumerate() {
            if index != own && Some(index) != self.baseline {
                behind(series, OTHERS, 0.5)?;
            }
        }
        if let Some(full) = &self.full {
            let (left, right) = panel.x_range();
            let y = panel.at(full.held, full.quality.mean).1;
            REFERENCE.line(&panel.sheet, vec![(left, y), (right, y)])?;
        }
        if let Some(baseline) = self.baseline.and_then(|index| self.series.get(index)) {
            behind(baseline, BASELINE, 0.7)?;
        }
        let (pen, Some(series)) = (PENS[0], self.series.get(own)) else {
            return Ok(());
        };
        self.draw_bars(panel, (pen, series, 0))?;
        let spots = self.spots(panel, series, 0);
        pen.line(&panel.sheet, spots.clone())?;
        spots
            .into_iter()
            .try_for_each(|spot| pen.mark(&panel.sheet, spot))
    }
}

fn grid(width: i32, (x, y): (Axis, Axis), methods: usize, columns: usize) -> PanelGrid {
    let (count, height) = match methods <= TOGETHER {
        true => (1, SINGLE_POINTS),
        false => (methods, MULTIPLE_POINTS),
    };
    PanelGrid {
        x,
        y,
        x_name: String::new(),
        y_name: String::new(),
        lines: true,
        count,
        columns,
        width,
        height: points(height),
    }
}

fn keys_of_pens(series: &[Series]) -> Vec<(Key, String)> {
    let keys = PENS.into_iter().map(Key::Series);
    keys.zip(series.iter().map(|s| s.name.clone())).collect()
}

fn keys_of_panels(series: &[Series], baseline: Option<usize>) -> Vec<(Key, String)> {
    let mut entries = vec![(Key::Series(PENS[0]), "the method named".to_owned())];
    if let Some(baseline) = baseline.and_then(|index| series.get(index)) {
        entries.push((
            Key::Line(BASELINE),
            format!("{}, the baseline", baseline.name),
        ));
    }
    entries.push((Key::Line(OTHERS), "the others".to_owned()));
    entries
}

/// The full cache's value and bytes.
fn full_words(full: &Point, metric: &Metric, relative: bool) -> String {
    let rounded = |v: f64, to: f64| number((v * to).round() / to);
    let precision = if metric.is_share() { 10.0 } else { 1000.0 };
    let value = rounded(full.quality.mean, precision);
    let held = match relative {
        true => String::new(),
        false => format!(", {} MB", rounded(full.held, 10.0)),
    };
    format!("full cache: {value} {}{held}", metric.shown_unit())
}

fn notes(series: &[Series], y: &Axis, together: bool, noun: &str) -> Vec<(Key, String)> {
    let all = || series.iter().flat_map(|s| &s.points);
    let counts = count_words(all().map(|p| p.samples));
    let mut notes = vec![(
        Key::Bar(if together { REFERENCE } else { PENS[0] }),
        format!("95 % interval of the mean, {counts} {noun}"),
    )];
    if together && series.len() > 1 {
        let aside = "marks at one budget are set apart sideways";
        notes.push((Key::Note, aside.to_owned()));
    }
    let absent = all().filter(|p| !visible(y, p.quality.mean)).count();
    if absent > 0 {
        let words = format!("{absent} of {} points at 0: off this axis", all().count());
        notes.push((Key::Note, words));
    }
    notes
}

impl Drawing for Frontier {
    fn size(&self) -> (i32, i32) {
        self.size
    }

    fn paint<DB: DrawingBackend>(&self, sheet: &Sheet<DB>) -> Drawn<DB> {
        let top = self.heading.height();
        self.heading.draw(sheet, self.grid.heading_left())?;
        self.grid.draw_names(sheet, top)?;
        if self.together {
            let panel = self.grid.draw(sheet, top, 0, "")?;
            return self.draw_together(&panel);
        }
        for (index, series) in self.series.iter().enumerate() {
            let name = text::fitted(&series.name, self.grid.panel_width());
            let panel = self.grid.draw(sheet, top, index, &name)?;
            self.draw_alone(&panel, index)?;
        }
        Ok(())
    }
}
