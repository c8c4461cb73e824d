//! Evidence kept per layer: which layers drop the tokens that the answer stands on.

use std::collections::BTreeMap;

use super::chart::Chart;
use super::figure::figure_width;
use super::figure::{Axis, Description, Key, Look, Marks, OTHERS, Pen};
use super::figure::{Series, Shape, Sharing, Words};
use super::layer_windows::{shown, words};
use super::options::{ChartOption as Opt, ChartOptions};
use super::outcomes::{
    FULL, budget_words, chosen_budget, count_words, distinct, facts, shown_methods,
};
use super::over_layers::about_models;
use super::over_prompts::{Band, common_count};
use super::source::{Source, SourceKind};
use crate::error::{Error, Result};
use crate::eval::Results;

/// Methods whose bands can lie over each other; more get a panel each.
const TOGETHER: usize = 3;
/// Height of a panel of all methods, and of one of several, in points.
const HEIGHTS: [f64; 2] = [125.0, 64.0];
const LEAST_PANEL: f64 = 70.0;

/// The share of evidence tokens that each layer keeps at one budget, with its spread over prompts.
///
/// Up to three methods share a panel. More have one each, with the other methods' means in grey.
///
/// Units: per cent of the evidence tokens, mean over the layer's KV heads.
pub(super) const CHART: Chart = Chart {
    name: "evidence",
    about: "share of the evidence that each layer keeps at one budget, a line or panel per method",
    needs: "evidence: evidence, of 1 evaluation with 1 to 24 methods besides full",
    reads: &[Opt::Methods, Opt::Budget],
    takes: SourceKind::Results,
    describe,
};

fn describe(all: &[&dyn Source], options: &ChartOptions) -> Result<Description> {
    let results: &Results = CHART.only(all)?;
    let mut rows = kept(results)?;
    let of_budget = rows.iter().filter(|row| row.budget != FULL);
    let budgets = distinct(of_budget.map(|row| row.budget));
    let budget = chosen_budget(&budgets, options.budget.as_deref())?;
    rows.retain(|row| row.budget == FULL || row.budget == budget);
    let held = rows.iter().map(|row| row.method);
    let names = shown_methods(CHART.name, held, options.methods.as_deref())?;
    let layers = results.meta.model.num_layers;
    let values = names.iter().map(|name| by_prompt(&rows, name, layers));
    let values: Vec<Vec<Vec<f64>>> = values.collect::<Result<_>>()?;
    let prompts: Vec<usize> = values.iter().map(Vec::len).collect();
    let band = Band::of(&prompts);
    let width = figure_width(options.width)?;
    let sharing = Sharing::of(names.len(), TOGETHER, HEIGHTS, width, LEAST_PANEL);
    let windows = &results.meta.model.windows[..];
    let series: Vec<Series> = (values.iter().enumerate())
        .map(|(index, grid)| {
            let means = shown(band.around_means(grid), windows, Look::Hollow);
            Series::banded(sharing.pen(index), means)
        })
        .collect();
    let named: Vec<Words> = names.iter().map(Words::from).collect();
    let mut entries = sharing.keys(&named, "the method named");
    let (labels, name) = if sharing.together {
        (6, "Evidence tokens kept (%)")
    } else {
        let others = Key::Line(Pen::plain(OTHERS, 0.6));
        entries.push((others, "the others".into()));
        (3, "Evidence kept (%)")
    };
    let banded = if sharing.together { series.len() } else { 1 };
    let hollow = Key::Hollow(sharing.pen(0));
    entries.extend(words("hollow", [windows]).map(|words| (hollow, words)));
    entries.extend(band.entry(&prompts, &series[..banded]));
    let about = about_models(&[&results.meta.model], "hollow markers");
    let mut note = budget_words(budget);
    if common_count(&prompts).is_none() || band == Band::None {
        note = format!("{note}, {}", count_words(&prompts));
    }
    entries.push((Key::Note, note.into()));
    let x = Axis::layers(layers, width, sharing.columns, 12.0);
    let y = Axis::per_cent(labels).called(name);
    let panels = sharing.panels((&x, &y), &named, |own| match own {
        None => vec![Shape::Series(series.clone(), Marks::InTurn)],
        Some(own) => in_front(&series, own),
    });
    Ok(Description {
        facts: facts(results),
        entries,
        panels,
        columns: sharing.columns,
        ..Description::new(format!("Evidence kept per layer{about}"), width)
    })
}

/// Series `own` in front of the others' lines.
fn in_front(series: &[Series], own: usize) -> Vec<Shape> {
    let others = series.iter().enumerate().filter(|(index, _)| *index != own);
    let line = |(_, other): (usize, &Series)| {
        let path = other.points.iter().map(|p| (p.x, p.middle));
        Shape::line(Pen::plain(OTHERS, 0.5), path.collect())
    };
    let front = Shape::Series(vec![series[own].clone()], Marks::Apart);
    others.map(line).chain([front]).collect()
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
    let rows = rows.filter(|row| row.method != FULL && row.share.is_finite());
    let rows: Vec<Kept<'_>> = rows.collect();
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
    let count = prompts.len();
    if prompts.values().flatten().all(|v| v.is_finite()) && seen == layers * count {
        return Ok(prompts.into_values().collect());
    }
    Err(Error::invalid(
        format!("number of layers with evidence under {method}"),
        seen,
        format!("{count} prompts of {layers} layers are expected: evaluate again"),
    ))
}
