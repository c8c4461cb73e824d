//! LMBO per layer: how many tokens keep a layer's output in its direction, for several cosines.

use super::chart::Chart;
use super::figure::{Axis, Description, Gaps, Marks, PENS, Panel, Series, Shape, Words};
use super::figure::{figure_width, keys, labels_up, panel_columns, spread_ends};
use super::options::{ChartOption as Opt, ChartOptions};
use super::over_prompts::Band;
use super::profiles::{by_layer, column, names, output_query, prompts};
use super::source::{Source, SourceKind, of_type};
use crate::error::{Error, Result};
use crate::profile::Profile;

const MOST_PROFILES: usize = 12;
/// Height of a lone panel and of one of several, in points.
const HEIGHTS: [f64; 2] = [125.0, 96.0];
const GAPS: Gaps = Gaps {
    top: 0.0,
    row: 4.0,
    column: None,
};

/// LMBO against the layer on a logarithmic axis, a line per cosine and a panel per profile.
///
/// Units: tokens.
/// Errors: as the other charts; [`Error::Unsupported`] for the query `rows`.
pub(super) const CHART: Chart = Chart {
    name: "lmbo",
    about: "LMBO per layer, a line per output threshold, a panel per profile",
    needs: "layers: lmbo_QUERY_THRESHOLD_CROSSING, of 1 to 12 profiles",
    reads: &[Opt::Query, Opt::OutputThresholds, Opt::Crossing, Opt::Raw],
    takes: SourceKind::Profiles,
    describe,
};

fn describe(all: &[&dyn Source], options: &ChartOptions) -> Result<Description> {
    let profiles: Vec<&Profile> = of_type(all);
    CHART.at_most(MOST_PROFILES, profiles.len())?;
    let values = values(&profiles, options)?;
    let width = figure_width(options.width)?;
    let counts = |of_profile: &Vec<Vec<Vec<f64>>>| of_profile.first().map_or(0, Vec::len);
    let counts: Vec<usize> = values.iter().map(counts).collect();
    let band = Band::of(&counts);
    let series: Vec<Vec<Series>> = (values.iter())
        .map(|of_profile| Series::each(of_profile.iter().map(|grid| band.around_means(grid))))
        .collect();
    let cosines = options.output_thresholds.iter();
    let mut entries = keys(cosines.map(|t| format!("cos ≥ {t}")));
    entries.extend(band.entry(&counts, series.first().map_or(&[], Vec::as_slice)));
    let top = spread_ends(series.iter().flatten()).1.max(10.0);
    let height = HEIGHTS[usize::from(profiles.len() > 1)];
    let columns = panel_columns(width, profiles.len());
    let (raw, query) = (if options.raw { ", raw" } else { "" }, options.query.name());
    let name = format!("LMBO, {query}{raw}, {} (tokens)", options.crossing.name());
    // A budget is one token at least.
    let y = Axis::log(1.0, top, labels_up(height)).called(name);
    let panel = |(name, series): (Words, Vec<Series>)| {
        let x = Axis::layers(Series::longest(&series), width, columns, 0.0);
        let shapes = vec![Shape::Series(series, Marks::Apart)];
        Panel::named(name, (&x, &y), height, shapes)
    };
    let mut facts = names(&profiles);
    match profiles[..] {
        // The key of a band says how many prompts there are.
        [one] if band == Band::None => facts.push(prompts(one.meta.data.prompts).into()),
        [_] => {}
        // Panels have their profiles' names.
        _ => facts.clear(),
    }
    Ok(Description {
        facts,
        entries,
        panels: (names(&profiles).into_iter().zip(series))
            .map(panel)
            .collect(),
        columns,
        gaps: Some(GAPS),
        ..Description::new("LMBO per layer", width)
    })
}

/// `[profile][threshold][prompt][layer]`.
fn values(profiles: &[&Profile], options: &ChartOptions) -> Result<Vec<Vec<Vec<Vec<f64>>>>> {
    let thresholds = &options.output_thresholds;
    if !(1..=PENS.len()).contains(&thresholds.len()) {
        let bound = format!("it must lie between 1 and {}", PENS.len());
        let what = "number of output thresholds";
        return Err(Error::invalid(what, thresholds.len(), bound));
    }
    let raw = if options.raw { "raw_" } else { "" };
    let prefix = format!("lmbo_{}_{raw}", output_query(options.query)?);
    let suffix = format!("_{}", options.crossing.name());
    let read = |profile: &Profile, threshold: f64| {
        let column = column(&profile.layers, &prefix, threshold, &suffix)?;
        by_layer(profile, &column)
    };
    let of_profile = |profile: &&Profile| thresholds.iter().map(|t| read(profile, *t)).collect();
    profiles.iter().map(of_profile).collect()
}
