//! LMBA per layer: how many tokens each layer attends to, and how much that differs between prompts.

use plotters::prelude::DrawingBackend;

use super::axis::Axis;
use super::canvas::{Drawing, Drawn, Sheet, figure_width, label_count, points};
use super::figure::{Figure, render};
use super::frame::Frame;
use super::layer_series::{LAYER_LABEL, Marks, band_key, draw_series, value_axis};
use super::legend::{HEADING_MARGIN, Heading, Key, words_room};
use super::options::ChartOptions;
use super::pen::{PENS, Pen};
use super::series::{Family, at_most, by_layer, common_count, names};
use super::spread::{Band, Spread};
use super::text;
use crate::error::Result;
use crate::profile::Profile;

const PANEL_POINTS: f64 = 125.0;
const BOTTOM_POINTS: f64 = 1.5;

struct Lmba {
    size: (i32, i32),
    heading: Heading,
    x: Axis,
    y: Axis,
    y_name: String,
    series: Vec<(Pen, Spread)>,
}

/// Draws LMBA against the layer, a line with markers per profile; the band is the spread over prompts.
///
/// The axis is logarithmic where [`ChartOptions::log`] asks for it.
///
/// Units: tokens, or per cent of T where [`ChartOptions::relative`] is set.
/// Errors: [`crate::error::Error::UnknownName`] for a threshold that a profile lacks,
/// [`crate::error::Error::Invalid`] for no prompt or too many profiles.
pub(super) fn draw(profiles: &[Profile], options: &ChartOptions, record: &str) -> Result<Figure> {
    render(&Lmba::read(profiles, options)?, "LMBA per layer", record)
}

impl Lmba {
    fn read(profiles: &[Profile], options: &ChartOptions) -> Result<Self> {
        at_most(PENS.len(), "lmba", profiles)?;
        let (suffix, factor, unit) = if options.relative {
            ("_of_t", 100.0, "% of T")
        } else {
            ("", 1.0, "tokens")
        };
        let query = options.query.name();
        let family = Family {
            prefix: format!("lmba_{query}_"),
            suffix: suffix.to_owned(),
        };
        let mut values = Vec::new();
        for profile in profiles {
            let column = family.column(&profile.layers, options.threshold)?;
            let mut grid = by_layer(profile, &column)?;
            grid.iter_mut().flatten().for_each(|v| *v *= factor);
            values.push(grid);
        }
        let prompts: Vec<usize> = values.iter().map(Vec::len).collect();
        let band = Band::of(prompts.iter().copied());
        let spreads = values.iter().map(|grid| Spread::over_prompts(grid, band));
        let series: Vec<(Pen, Spread)> = PENS.into_iter().zip(spreads).collect();

        let width = figure_width(options.width)?;
        let room = width - points(HEADING_MARGIN);
        let keys = series.iter().map(|(pen, _)| Key::Series(*pen));
        let words = names(profiles)
            .into_iter()
            .map(|name| name.within(words_room(room)));
        let mut entries: Vec<(Key, String)> = keys.zip(words).collect();
        entries.extend(
            band.words(common_count(&prompts), words_room(room))
                .map(|words| (band_key(&series), words)),
        );
        let heading = Heading::new(options.title.as_deref(), Vec::new(), entries, room);

        let layers = series.iter().map(|(_, s)| s.mean.len()).max().unwrap_or(0);
        let x = Axis::layers(layers, label_count(room, LAYER_LABEL));
        let y = value_axis(series.iter().map(|(_, s)| s), options.log, PANEL_POINTS)?;
        let y_name = format!("LMBA, {query}, τ={} ({unit})", options.threshold);
        let y_name = y.named(&y_name, points(PANEL_POINTS));
        let mut chart = Self {
            size: (width, 0),
            heading,
            x,
            y,
            y_name,
            series,
        };
        chart.size.1 = chart.heading.height()
            + points(PANEL_POINTS).max(text::width(&chart.y_name))
            + points(BOTTOM_POINTS)
            + chart.frame().bottom_room();
        Ok(chart)
    }

    fn frame(&self) -> Frame<'_> {
        Frame {
            x: &self.x,
            y: &self.y,
            x_name: Some("Layer"),
            y_name: Some(&self.y_name),
            grid: true,
        }
    }
}

impl Drawing for Lmba {
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
        let panel = frame.draw(sheet, ((0, top), size), left)?;
        draw_series(&panel, &self.series, Marks::InTurn)
    }
}
