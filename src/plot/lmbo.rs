//! LMBO per layer: how many tokens keep a layer's output in its direction, for one cosine or several.

use super::chart::Chart;
use super::figure::{Axis, Description, Gaps, Marks, PENS, Panel, Series, Shape, Words};
use super::figure::{figure_width, keys_of, labels_up, panel_columns, spread_ends};
use super::options::{ChartOption as Opt, ChartOptions};
use super::over_layers::OverLayers;
use super::over_prompts::Band;
use super::profiles::{by_layer, columns, names, of_prompts, output_query, prompts};
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

/// LMBO against the layer on a logarithmic axis: a line per cosine and a panel per profile, or, of one cosine, all
/// profiles in one panel with a line each.
///
/// Hollow markers are layers that see a window only.
/// Units: tokens, or per cent of T where [`ChartOptions::relative`] is set.
/// Errors: as the other charts; [`Error::Unsupported`] for the query `rows`.
pub(super) const CHART: Chart = Chart {
    name: "lmbo",
    about: "LMBO per layer, a line per output threshold, a panel per profile; of one threshold a line per profile",
    needs: "layers: lmbo_QUERY_THRESHOLD_CROSSING, of 1 to 12 profiles; of one threshold, 1 to 7",
    reads: &[
        Opt::Query,
        Opt::OutputThresholds,
        Opt::Crossing,
        Opt::Raw,
        Opt::Depth,
        Opt::Relative,
    ],
    takes: SourceKind::Profiles,
    describe,
};

/// LMBO of every profile and threshold, `[profile][threshold][prompt][layer]`, and what it is called.
struct Outputs {
    values: Vec<Vec<Vec<Vec<f64>>>>,
    /// What is measured, without its cosine and its unit.
    name: String,
    unit: &'static str,
}

fn describe(all: &[&dyn Source], options: &ChartOptions) -> Result<Description> {
    let profiles: Vec<&Profile> = of_type(all);
    let together = profiles.len() > 1 && options.output_thresholds.len() == 1;
    let most = if together { PENS.len() } else { MOST_PROFILES };
    CHART.at_most(most, profiles.len())?;
    let outputs = Outputs::read(&profiles, options)?;
    let layers = OverLayers::of(&profiles, options.depth);
    if together {
        outputs.lines(&profiles, &layers, options)
    } else {
        outputs.panels(&profiles, &layers, options)
    }
}

impl Outputs {
    fn read(profiles: &[&Profile], options: &ChartOptions) -> Result<Self> {
        let thresholds = &options.output_thresholds;
        if !(1..=PENS.len()).contains(&thresholds.len()) {
            let bound = format!("it must lie between 1 and {}", PENS.len());
            let what = "number of output thresholds";
            return Err(Error::invalid(what, thresholds.len(), bound));
        }
        let (query, crossing) = (output_query(options.query)?, options.crossing.name());
        let (in_column, in_name) = if options.raw {
            ("raw_", ", raw")
        } else {
            ("", "")
        };
        let (prefix, suffix) = (format!("lmbo_{query}_{in_column}"), format!("_{crossing}"));
        let mut values = vec![Vec::new(); profiles.len()];
        for &threshold in thresholds {
            let sought = (&*prefix, threshold, &*suffix);
            let columns = columns(profiles, |p| &p.layers, sought)?;
            for ((own, profile), column) in values.iter_mut().zip(profiles).zip(columns) {
                let grid = by_layer(profile, &column)?;
                own.push(if options.relative {
                    of_prompts(profile, grid)?
                } else {
                    grid
                });
            }
        }
        Ok(Self {
            values,
            name: format!("LMBO, {query}{in_name}, {crossing}"),
            unit: if options.relative { "% of T" } else { "tokens" },
        })
    }

    /// Prompts of every profile.
    fn prompts(&self) -> Vec<usize> {
        let counts = self.values.iter();
        let counts = counts.map(|of_profile| of_profile.first().map_or(0, Vec::len));
        counts.collect()
    }

    /// The vertical axis of all `series`, which begins at one token: no budget is smaller.
    fn axis<'s>(&self, series: impl IntoIterator<Item = &'s Series>, height: f64) -> Axis {
        let (low, high) = spread_ends(series);
        let (low, high) = if self.unit == "tokens" {
            (1.0, high.max(10.0))
        } else {
            (low, high)
        };
        Axis::log(low, high, labels_up(height)).called(format!("{} ({})", self.name, self.unit))
    }

    /// A panel per profile, a line per cosine.
    fn panels(
        &self,
        profiles: &[&Profile],
        layers: &OverLayers<'_>,
        options: &ChartOptions,
    ) -> Result<Description> {
        let width = figure_width(options.width)?;
        let counts = self.prompts();
        let band = Band::of(&counts);
        let series = self.values.iter().enumerate().map(|(index, of_profile)| {
            let means = of_profile.iter().map(|grid| band.around_means(grid));
            layers.series(means.map(|points| (index, points)))
        });
        let series: Vec<Vec<Series>> = series.collect();
        let cosines = options.output_thresholds.iter();
        let cosines = cosines.map(|t| format!("cos ≥ {t}"));
        let first = series.first().map_or(&[][..], Vec::as_slice);
        let mut entries = keys_of(first, cosines);
        entries.extend(layers.entry(series.iter().flatten()));
        entries.extend(band.entry(&counts, first));
        let height = HEIGHTS[usize::from(profiles.len() > 1)];
        let columns = panel_columns(width, profiles.len());
        let y = self.axis(series.iter().flatten(), height);
        let panel = |(name, series): (Words, Vec<Series>)| {
            let x = layers.axis(&series, width, columns);
            let shapes = vec![Shape::Series(series, Marks::Apart)];
            Panel::named(name, (&x, &y), height, shapes)
        };
        let mut facts = names(profiles);
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
            panels: names(profiles).into_iter().zip(series).map(panel).collect(),
            columns,
            gaps: Some(GAPS),
            ..Description::new(layers.about("LMBO per layer"), width)
        })
    }

    /// One panel, a line per profile.
    fn lines(
        &self,
        profiles: &[&Profile],
        layers: &OverLayers<'_>,
        options: &ChartOptions,
    ) -> Result<Description> {
        let width = figure_width(options.width)?;
        let counts = self.prompts();
        let band = Band::of(&counts);
        let grids = self.values.iter().flatten();
        let series = layers.series(grids.map(|grid| band.around_means(grid)).enumerate());
        let mut entries = keys_of(&series, names(profiles));
        entries.extend(layers.entry(&series));
        entries.extend(band.entry(&counts, &series));
        let cosine = options.output_thresholds.first().copied().unwrap_or(1.0);
        let x = layers.axis(&series, width, 1);
        let y = self.axis(&series, HEIGHTS[0]);
        let shapes = vec![Shape::Series(series, Marks::InTurn)];
        Ok(Description {
            facts: vec![format!("cos ≥ {cosine}").into()],
            entries,
            panels: Panel::alone((&x, &y), HEIGHTS[0], shapes),
            gaps: Some(GAPS),
            ..Description::new(layers.about("LMBO per layer"), width)
        })
    }
}
