//! LMBA per layer: how many tokens each layer attends to, and how much that differs between prompts.

use super::chart::Chart;
use super::figure::{Description, Gaps, Marks, PENS, Panel, Shape};
use super::figure::{figure_width, from_zero_or_log, keys_of, spread_ends};
use super::options::{ChartOption as Opt, ChartOptions};
use super::over_layers::OverLayers;
use super::over_prompts::Band;
use super::profiles::{by_layer, columns, names};
use super::source::{Source, SourceKind, of_type};
use crate::error::Result;
use crate::profile::Profile;

const HEIGHT: f64 = 125.0;

/// LMBA against the layer, a line with markers per profile; the band is the spread over prompts.
///
/// The axis is logarithmic where [`ChartOptions::log`] asks for it. Hollow markers are layers that see a window only.
/// Units: tokens, or per cent of T where [`ChartOptions::relative`] is set.
pub(super) const CHART: Chart = Chart {
    name: "lmba",
    about: "LMBA per layer, a line per profile with the spread over prompts",
    needs: "layers: lmba_QUERY_THRESHOLD (with --relative: ..._of_t), of 1 to 7 profiles",
    reads: &[
        Opt::Query,
        Opt::Threshold,
        Opt::Depth,
        Opt::Relative,
        Opt::Log,
    ],
    takes: SourceKind::Profiles,
    describe,
};

fn describe(all: &[&dyn Source], options: &ChartOptions) -> Result<Description> {
    let profiles: Vec<&Profile> = of_type(all);
    CHART.at_most(PENS.len(), profiles.len())?;
    let (suffix, factor, unit) = if options.relative {
        ("_of_t", 100.0, "% of T")
    } else {
        ("", 1.0, "tokens")
    };
    let query = options.query.name();
    let prefix = format!("lmba_{query}_");
    let sought = (&*prefix, options.threshold, suffix);
    let mut values = Vec::new();
    for (profile, column) in profiles
        .iter()
        .zip(columns(&profiles, |p| &p.layers, sought)?)
    {
        let mut grid = by_layer(profile, &column)?;
        grid.iter_mut().flatten().for_each(|v| *v *= factor);
        values.push(grid);
    }
    let prompts: Vec<usize> = values.iter().map(Vec::len).collect();
    let band = Band::of(&prompts);
    let layers = OverLayers::of(&profiles, options.depth);
    let means = values.iter().map(|grid| band.around_means(grid));
    let series = layers.series(means.enumerate());
    let mut entries = keys_of(&series, names(&profiles));
    entries.extend(layers.entry(&series));
    entries.extend(band.entry(&prompts, &series));
    let width = figure_width(options.width)?;
    let x = layers.axis(&series, width, 1);
    let name = format!("LMBA, {query}, τ={} ({unit})", options.threshold);
    let y = from_zero_or_log(spread_ends(&series), options.log, HEIGHT)?.called(name);
    Ok(Description {
        entries,
        panels: Panel::alone((&x, &y), HEIGHT, vec![Shape::Series(series, Marks::InTurn)]),
        gaps: Some(Gaps::default()),
        ..Description::new(layers.about("LMBA per layer"), width)
    })
}
