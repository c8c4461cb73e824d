//! Evidence kept per layer: which layers drop the tokens that the answer stands on.

use std::collections::BTreeMap;

use plotters::prelude::{DrawingBackend, PathElement};

use super::axis::Axis;
use super::canvas::{Drawing, Drawn, Sheet, figure_width, label_count, points};
use super::facts;
use super::figure::{Figure, render};
use super::frame::Panel;
use super::layer_series::{LAYER_LABEL, Marks, band_key, draw_series};
use super::legend::{HEADING_MARGIN, Heading, Key, words_room};
use super::options::ChartOptions;
use super::outcomes::{
    FULL, budget_words, check_number_of_methods, chosen_budget, chosen_methods, count_words,
    distinct,
};
use super::panel_grid::PanelGrid;
use super::pen::{OTHERS, PENS, Pen, Spot, stroke};
use super::series::{common_count, only};
use super::spread::{Band, Spread};
use super::text;
use crate::error::{Error, Result};
use crate::eval::Results;

/// Methods whose bands can lie over each other; more get a panel each.
const TOGETHER: usize = 3;
const SINGLE_POINTS: f64 = 125.0;
const MULTIPLE_POINTS: f64 = 64.0;
const LEAST_PANEL: f64 = 70.0;
const BOTTOM_POINTS: f64 = 1.5;

struct Evidence {
    size: (i32, i32),
    heading: Heading,
    grid: PanelGrid,
    names: Vec<String>,
    series: Vec<Spread>,
    together: bool,
}

/// Draws the share of evidence tokens that each layer keeps at one budget, with its spread over prompts.
///
/// Up to three methods share a panel. More have one each, with the other methods' means in grey.
///
/// Units: per cent of the evidence tokens, mean over the layer's KV heads.
/// Errors: [`Error::UnknownName`] for a method or budget that was not evaluated, [`Error::Invalid`] for data without
/// marked evidence, an incomplete table, or too many methods.
pub(super) fn draw(all: &[Results], options: &ChartOptions, record: &str) -> Result<Figure> {
    let chart = Evidence::read(only("evidence", all)?, options)?;
    render(&chart, "Evidence kept per layer", record)
}

impl Evidence {
    fn read(results: &Results, options: &ChartOptions) -> Result<Self> {
        let rows = kept(results)?;
        let budgets = distinct(rows.iter().map(|row| row.budget));
        let budget = chosen_budget(&budgets, options.budget.as_deref())?;
        let rows: Vec<Kept<'_>> = rows
            .into_iter()
            .filter(|row| row.budget == budget)
            .collect();
        let held = distinct(rows.iter().map(|row| row.method));
        let names = chosen_methods(&held, options.methods.as_deref())?;
        check_number_of_methods("evidence", names.len())?;
        let layers = results.meta.model.num_layers;
        let values = names.iter().map(|name| by_prompt(&rows, name, layers));
        let values = values.collect::<Result<Vec<_>>>()?;
        let prompts: Vec<usize> = values.iter().map(Vec::len).collect();
        let band = Band::of(prompts.iter().copied());
        let spreads = values.iter().map(|grid| Spread::over_prompts(grid, band));
        let series: Vec<Spread> = spreads.collect();
        let together = names.len() <= TOGETHER;
        let width = figure_width(options.width)?;
        let room = width - points(HEADING_MARGIN);
        let mut entries: Vec<(Key, String)> = Vec::new();
        if together {
            let keys = PENS.into_iter().map(Key::Series);
            entries.extend(keys.zip(names.iter().map(|name| text::printable(name))));
        } else {
            entries.push((Key::Series(PENS[0]), "the method named".to_owned()));
            entries.push((Key::Line(OTHERS), "the others".to_owned()));
        }
        let words = band.words(common_count(&prompts), words_room(room));
        let pens = match together {
            true => PENS,
            false => [PENS[0]; PENS.len()],
        };
        let banded: Vec<(Pen, Spread)> = pens.into_iter().zip(series.iter().cloned()).collect();
        let shown = if together { &banded[..] } else { &banded[..1] };
        entries.extend(words.map(|words| (band_key(shown), words)));
        let mut note = budget_words(budget);
        if common_count(&prompts).is_none() || band == Band::None {
            note = format!("{note}, {}", count_words(prompts.iter().copied()));
        }
        entries.push((Key::Note, note));
        let grid = grid(width, names.len(), together, layers);
        let heading = Heading::new(
            options.title.as_deref(),
            facts::of_results(&results.meta),
            entries,
            room,
        );
        Ok(Self {
            size: (
                width,
                heading.height() + grid.total_height() + points(BOTTOM_POINTS),
            ),
            heading,
            names: names.iter().map(|name| text::printable(name)).collect(),
            series,
            grid,
            together,
        })
    }

    fn draw_others<DB: DrawingBackend>(&self, panel: &Panel<'_, DB>, own: usize) -> Drawn<DB> {
        for (index, spread) in self.series.iter().enumerate() {
            if index != own {
                let path = spread.mean.iter().enumerate();
                let path: Vec<Spot> = path.map(|(layer, &v)| panel.at(layer as f64, v)).collect();
                panel
                    .sheet
                    .draw(&PathElement::new(path, stroke(OTHERS, 0.5)))?;
            }
        }
        Ok(())
    }
}

fn grid(width: i32, methods: usize, together: bool, layers: usize) -> PanelGrid {
    let (count, columns, height) = match together {
        true => (1, 1, SINGLE_POINTS),
        false => (
            methods,
            PanelGrid::columns(width, LEAST_PANEL, methods),
            MULTIPLE_POINTS,
        ),
    };
    let panel = (width - points(HEADING_MARGIN)) / columns as i32 - points(12.0);
    PanelGrid {
        x: Axis::layers(layers, label_count(panel, LAYER_LABEL)),
        y: Axis::per_cent(if together { 6 } else { 3 }),
        x_name: "Layer".to_owned(),
        y_name: match together {
            true => "Evidence tokens kept (%)".to_owned(),
            false => "Evidence kept (%)".to_owned(),
        },
        lines: true,
        count,
        columns,
        width,
        height: points(height),
    }
    .tall_enough()
}

/// A row of `evidence.parquet`.
struct Kept<'r> {
    prompt: u32,
    method: &'r str,
    budget: &'r str,
    layer: usize,
    share: f64,
}

/// The rows of cut caches that have a value.
fn kept(results: &Results) -> Result<Vec<Kept<'_>>> {
    let table = &results.evidence;
    let (prompts, layers) = (table.counts("prompt")?, table.counts("layer")?);
    let (methods, budgets) = (table.texts("method")?, table.texts("budget")?);
    let shares = table.numbers("evidence")?;
    let keys = prompts.iter().zip(layers).zip(methods.iter().zip(budgets));
    let rows = keys
        .zip(shares)
        .map(|(((prompt, layer), (method, budget)), share)| Kept {
            prompt: *prompt,
            method,
            budget,
            layer: *layer as usize,
            share,
        });
    let rows: Vec<Kept<'_>> = rows
        .filter(|row| row.method != FULL && row.share.is_finite())
        .collect();
    if rows.is_empty() {
        let bound = "a chart needs some: evaluate a method other than full on data whose evidence is marked";
        return Err(Error::invalid("number of rows about evidence", 0, bound));
    }
    Ok(rows)
}

/// Per cent kept of every prompt and layer.
fn by_prompt(rows: &[Kept<'_>], method: &str, layers: usize) -> Result<Vec<Vec<f64>>> {
    let mut prompts: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
    let mut seen = 0;
    for row in rows.iter().filter(|row| row.method == method) {
        let values = prompts
            .entry(row.prompt)
            .or_insert_with(|| vec![f64::NAN; layers]);
        if let Some(value) = values.get_mut(row.layer) {
            *value = 100.0 * row.share;
            seen += 1;
        }
    }
    match prompts.values().flatten().all(|v| v.is_finite()) && seen == layers * prompts.len() {
        true => Ok(prompts.into_values().collect()),
        false => Err(Error::invalid(
            format!("number of layers with evidence under {method}"),
            seen,
            format!(
                "{} prompts of {layers} layers are expected: evaluate again",
                prompts.len()
            ),
        )),
    }
}

impl Drawing for Evidence {
    fn size(&self) -> (i32, i32) {
        self.size
    }

    fn paint<DB: DrawingBackend>(&self, sheet: &Sheet<DB>) -> Drawn<DB> {
        let top = self.heading.height();
        self.heading.draw(sheet, self.grid.heading_left())?;
        self.grid.draw_names(sheet, top)?;
        if self.together {
            let panel = self.grid.draw(sheet, top, 0, "")?;
            let series: Vec<(Pen, Spread)> =
                PENS.into_iter().zip(self.series.iter().cloned()).collect();
            return draw_series(&panel, &series, Marks::InTurn);
        }
        for (index, (name, spread)) in self.names.iter().zip(&self.series).enumerate() {
            let name = text::fitted(name, self.grid.panel_width());
            let panel = self.grid.draw(sheet, top, index, &name)?;
            self.draw_others(&panel, index)?;
            draw_series(&panel, &[(PENS[0], spread.clone())], Marks::Every)?;
        }
        Ok(())
    }
}
