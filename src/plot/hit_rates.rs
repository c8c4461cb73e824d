//! SnapKV's two observations per layer: a line per window, coloured by its place in the text.

use super::chart::Chart;
use super::figure::number;
use super::figure::{Axis, ColourBar, Description, Panel, Pen, Shape, Words, depth, figure_width};
use super::options::{ChartOption as Opt, ChartOptions};
use super::profiles::prompts;
use super::source::{Source, SourceKind};
use crate::error::{Error, Result};
use crate::eval::hit_rate::{HitRates, LayerRates, Observation, WindowRates};

const HEIGHT: f64 = 48.0;
const LINE_POINTS: f64 = 0.8;
/// Radius of a piece of a line that is a single layer, in points.
const DOT_POINTS: f64 = 1.2;

/// What [`ChartOptions::metric`] may be.
const METRICS: [&str; 2] = ["all", "beyond-sinks"];

/// Hit rates of the prompt's windows, of generated ones, the votes that these share with the last prompt
/// window, and how many steps the hit rates stand on.
///
/// Units: per cent; a layer without an important key has no hit rate and interrupts the line.
/// Errors: [`Error::UnknownName`] for a metric other than `all` and `beyond-sinks`, [`Error::NotFinite`].
pub(super) const CHART: Chart = Chart {
    name: "hitrate",
    about: "SnapKV's observations: hit rates and shared votes per layer, a line per window",
    needs: "hitrate: hits, steps, skipped, overlap, of 1 hit-rate run",
    reads: &[Opt::Metric],
    takes: SourceKind::HitRates,
    describe,
};

fn describe(all: &[&dyn Source], options: &ChartOptions) -> Result<Description> {
    let rates: &HitRates = CHART.only(all)?;
    let metric = options.metric.as_deref().unwrap_or(METRICS[0]);
    let chosen: fn(&WindowRates) -> &LayerRates = match metric {
        "all" => |w| &w.all,
        "beyond-sinks" => |w| &w.beyond_sinks,
        other => return Err(Error::unknown("metric of hitrate", other, METRICS)),
    };
    let layers = rates.meta.model.num_layers;
    if rates.meta.data.prompts == 0 || layers == 0 {
        let what = format!(
            "number of prompts in the hit rates of {}",
            rates.meta.model.name
        );
        return Err(Error::invalid(what, 0, "a chart needs at least one"));
    }
    let prompt = rates.rates(Observation::Prompt)?;
    let generated = rates.rates(Observation::Generated)?;
    let width = figure_width(options.width)?;
    let x = Axis::layers(layers, width, 1, 0.0);
    let y = Axis::per_cent(3).called("Share (%)");
    let panel = |name: &str, windows: &[WindowRates], pick: &dyn Fn(&WindowRates) -> Vec<f64>| {
        let lines = windows.iter().enumerate().flat_map(|(index, window)| {
            let pen = Pen::plain(depth(index, windows.len()), LINE_POINTS);
            let path = (0..)
                .zip(pick(window))
                .map(|(layer, v)| (f64::from(layer), 100.0 * v));
            // Layers without a value part the line.
            Shape::pieces(pen, path.collect(), DOT_POINTS)
        });
        Panel::named(name, (&x, &y), HEIGHT, lines.collect())
    };
    let hits = |w: &WindowRates| chosen(w).hit_rate.clone();
    Ok(Description {
        facts: facts(rates, metric),
        panels: vec![
            panel("Hit rate of prompt windows", &prompt, &hits),
            panel(
                "Hit rate of the last one while generating",
                &generated,
                &hits,
            ),
            panel("Its vote shared by generated windows", &generated, &|w| {
                w.overlap.clone()
            }),
            panel("Steps with an important key", &generated, &|w| {
                chosen(w).counted.clone()
            }),
        ],
        bars: vec![
            ColourBar::of_lines("Window", prompt.len(), 5, 0..1),
            ColourBar::of_lines("Generated window", generated.len(), 5, 1..4),
        ],
        ..Description::new("Hit rates per layer", width)
    })
}

/// What the figure is over.
fn facts(rates: &HitRates, metric: &str) -> Vec<Words> {
    let meta = &rates.meta;
    let keys = match metric {
        "all" => "",
        _ => ", beyond the sinks",
    };
    let top = number(100.0 * meta.settings.options.top);
    let (theta, prompts) = (meta.settings.options.theta, prompts(meta.data.prompts));
    vec![
        format!("{}, {}", meta.model.name, meta.data.name).into(),
        format!("top {top} %, θ = {theta}{keys}, {prompts}").into(),
    ]
}
