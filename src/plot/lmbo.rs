//! LMBO per layer: how many tokens keep a layer's output in its direction, for several cosines.

use plotters::prelude::DrawingBackend;
use plotters::style::text_anchor::{HPos, VPos};

use super::axis::Axis;
use super::canvas::{Drawing, Drawn, Sheet, figure_width, label_count, panel_columns, points};
use super::facts;
use super::figure::{Figure, render};
use super::frame::Frame;
use super::layer_series::{HEIGHT_OF_LABEL, LAYER_LABEL, Marks, band_key, draw_series};
use super::legend::{HEADING_MARGIN, Heading, Key, words_room};
use super::options::ChartOptions;
use super::pen::{PENS, Pen};
use super::series::{Family, Name, at_most, by_layer, common_count, names, output_query};
use super::spread::{Band, Spread};
use super::text;
use crate::error::{Error, Result};
use crate::profile::Profile;

const MOST_PROFILES: usize = 12;
const SINGLE_POINTS: f64 = 125.0;
const MULTIPLE_POINTS: f64 = 96.0;
const BOTTOM_POINTS: f64 = 1.5;
const ROW_GAP: f64 = 4.0;

/// One profile's panel.
struct Plot {
    name: Name,
    x: Axis,
    series: Vec<(Pen, Spread)>,
}

struct Lmbo {
    width: i32,
    heading: Heading,
    y: Axis,
    y_name: String,
    plots: Vec<Plot>,
}

/// Draws LMBO against the layer on a logarithmic axis, a line per cosine and a panel per profile.
///
/// Units: tokens.
/// Errors: as the other charts; [`Error::Unsupported`] for the query `rows`.
pub(super) fn draw(profiles: &[Profile], options: &ChartOptions, record: &str) -> Result<Figure> {
    render(&Lmbo::read(profiles, options)?, "LMBO per layer", record)
}

impl Lmbo {
    fn read(profiles: &[Profile], options: &ChartOptions) -> Result<Self> {
        at_most(MOST_PROFILES, "lmbo", profiles)?;
        let thresholds = &options.output_thresholds;
        if !(1..=PENS.len()).contains(&thresholds.len()) {
            let bound = format!("it must lie between 1 and {}", PENS.len());
            return Err(Error::invalid(
                "number of output thresholds",
                thresholds.len(),
                bound,
            ));
        }
        let query = output_query(options.query)?;
        let raw = if options.raw { "raw_" } else { "" };
        let crossing = options.crossing.name();
        let family = Family {
            prefix: format!("lmbo_{query}_{raw}"),
            suffix: format!("_{crossing}"),
        };
        let mut values = Vec::new();
        for profile in profiles {
            let read =
                |&threshold: &f64| by_layer(profile, &family.column(&profile.layers, threshold)?);
            values.push(thresholds.iter().map(read).collect::<Result<Vec<_>>>()?);
        }
        let width = figure_width(options.width)?;
        let room = width - points(HEADING_MARGIN);
        let prompts: Vec<usize> = values
            .iter()
            .map(|v| v.first().map_or(0, Vec::len))
            .collect();
        let band = Band::of(prompts.iter().copied());
        let cosines = thresholds.iter().map(|t| format!("cos ≥ {t}"));
        let mut entries: Vec<(Key, String)> =
            PENS.into_iter().map(Key::Series).zip(cosines).collect();
        let panel_width = room / panel_columns(width, profiles.len()) as i32;
        let most_labels = label_count(panel_width, LAYER_LABEL);
        let plots = plots(&values, band, names(profiles), most_labels);
        let bands = plots.first().map_or(&[][..], |plot| &plot.series);
        entries.extend(
            band.words(common_count(&prompts), words_room(room))
                .map(|words| (band_key(bands), words)),
        );
        let all = plots.iter().flat_map(|p| &p.series);
        let top = all.map(|(_, s)| s.top()).fold(10.0, f64::max);
        let facts = match profiles {
            [one] if band == Band::None => facts::of_profile(one, room),
            // The key of the band says how many prompts there are.
            [one] => facts::name_of(one, room),
            // Panels have their profiles' names.
            _ => Vec::new(),
        };
        let height = panel_points(profiles.len());
        // A budget is one token at least.
        let y = Axis::log(1.0, top, label_count(height, HEIGHT_OF_LABEL));
        let raw = if options.raw { ", raw" } else { "" };
        Ok(Self {
            width,
            heading: Heading::new(options.title.as_deref(), facts, entries, room),
            y_name: y.named(&format!("LMBO, {query}{raw}, {crossing} (tokens)"), height),
            y,
            plots,
        })
    }

    fn columns(&self) -> usize {
        panel_columns(self.width, self.plots.len())
    }

    /// The frame of a plot; the name of x is left to the plot below where that has as many layers.
    fn frame(&self, index: usize) -> Frame<'_> {
        let plot = &self.plots[index];
        let below = self.plots.get(index + self.columns());
        let x_name = if below.is_some_and(|b| b.x == plot.x) {
            None
        } else {
            Some("Layer")
        };
        Frame {
            x: &plot.x,
            y: &self.y,
            x_name,
            y_name: Some(&self.y_name),
            grid: true,
        }
    }

    fn panel_height(&self) -> i32 {
        panel_points(self.plots.len()).max(text::width(&self.y_name))
    }

    fn name_height(&self) -> i32 {
        if self.plots.len() == 1 {
            0
        } else {
            text::line_height()
        }
    }

    /// Height of a row of panels with names and labels.
    fn row_height(&self, row: usize) -> i32 {
        let first = row * self.columns();
        let last = (first + self.columns()).min(self.plots.len());
        let labels = (first..last)
            .map(|i| self.frame(i).bottom_room())
            .max()
            .unwrap_or(0);
        self.name_height() + self.panel_height() + labels
    }
}

/// Least height of one of `count` panels.
fn panel_points(count: usize) -> i32 {
    points(match count {
        1 => SINGLE_POINTS,
        _ => MULTIPLE_POINTS,
    })
}

/// Panels of `values[profile][threshold][prompt][layer]`.
fn plots(
    values: &[Vec<Vec<Vec<f64>>>],
    band: Band,
    names: Vec<Name>,
    most_labels: usize,
) -> Vec<Plot> {
    let plot = |(by_threshold, name): (&Vec<Vec<Vec<f64>>>, Name)| {
        let spreads = by_threshold
            .iter()
            .map(|grid| Spread::over_prompts(grid, band));
        let series: Vec<(Pen, Spread)> = PENS.into_iter().zip(spreads).collect();
        let layers = series.iter().map(|(_, s)| s.mean.len()).max().unwrap_or(0);
        Plot {
            name,
            x: Axis::layers(layers, most_labels),
            series,
        }
    };
    values.iter().zip(names).map(plot).collect()
}

impl Drawing for Lmbo {
    fn size(&self) -> (i32, i32) {
        let rows = self.plots.len().div_ceil(self.columns());
        let heights: i32 = (0..rows).map(|row| self.row_height(row)).sum();
        let gaps = points(BOTTOM_POINTS) + points(ROW_GAP) * (rows as i32 - 1);
        (self.width, self.heading.height() + heights + gaps)
    }

    fn paint<DB: DrawingBackend>(&self, sheet: &Sheet<DB>) -> Drawn<DB> {
        let columns = self.columns();
        let column_width = self.width / columns as i32;
        let left = self.frame(0).left_room();
        self.heading.draw(sheet, left)?;
        let mut top = self.heading.height();
        for (index, plot) in self.plots.iter().enumerate() {
            let (row, column) = (index / columns, index % columns);
            if column == 0 && row > 0 {
                top += self.row_height(row - 1) + points(ROW_GAP);
            }
            let frame = self.frame(index);
            let corner = (column as i32 * column_width, top + self.name_height());
            let right = frame.right_room();
            let size = (
                column_width - right,
                self.panel_height() + frame.bottom_room(),
            );
            if self.plots.len() > 1 {
                let name = plot.name.within(size.0 - left);
                let at = (corner.0 + left, top + text::line_height() / 2);
                sheet.draw_text(&name, &text::style(HPos::Left, VPos::Center), at)?;
            }
            let panel = frame.draw(sheet, (corner, size), left)?;
            draw_series(&panel, &plot.series, Marks::Every)?;
        }
        Ok(())
    }
}
