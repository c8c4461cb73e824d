//! MBA of every head: layers down, query heads across, the mean over prompts as a colour.

use super::chart::Chart;
use super::figure::{Axis, Cell, Colour, ColourBar, Description, EDGES, Gaps, Panel};
use super::figure::{Pen, Shape, amount, ends, figure_width, heading_room, label_count, labels_up};
use super::figure::{points, text_width};
use super::options::{ChartOption as Opt, ChartOptions};
use super::profiles::{by_head, column, facts};
use super::source::{Source, SourceKind};
use crate::error::Result;
use crate::profile::Profile;

/// Height of a layer's row in points, before the whole is held between its bounds.
const ROW_POINTS: f64 = 6.0;
const HEIGHTS: (f64, f64) = (96.0, 330.0);
/// Room that the label of a head or layer needs, in points.
const LABEL_POINTS: f64 = 14.0;
const BETWEEN_GROUPS: Pen = Pen::plain(Colour(255, 255, 255), 1.2);
const GAPS: Gaps = Gaps {
    top: 2.0,
    row: 0.0,
    column: None,
};

/// The mean MBA of every query head of one profile; white lines separate the KV heads' groups.
///
/// Layer 0 is at the top, as a token passes through the model.
/// Units: tokens, on a logarithmic colour scale where they span a decade or more.
pub(super) const CHART: Chart = Chart {
    name: "mba-heatmap",
    about: "MBA of every layer and query head, mean over prompts",
    needs: "heads: mba_QUERY_THRESHOLD, of 1 profile",
    reads: &[Opt::Query, Opt::Threshold],
    takes: SourceKind::Profiles,
    describe,
};

fn describe(all: &[&dyn Source], options: &ChartOptions) -> Result<Description> {
    let profile: &Profile = CHART.only(all)?;
    let (query, threshold) = (options.query.name(), options.threshold);
    let column = column(&profile.heads, &format!("mba_{query}_"), threshold, "")?;
    let mean = mean_over_prompts(&by_head(profile, &column)?);
    let (layers, heads) = (profile.meta.model.num_layers, profile.meta.model.num_heads);
    let group = match profile.meta.model.num_kv_heads {
        kv if kv > 0 && heads.is_multiple_of(kv) => heads / kv,
        _ => 1,
    };
    let width = figure_width(options.width)?;
    let height = (layers as f64 * ROW_POINTS).clamp(HEIGHTS.0, HEIGHTS.1);
    let name = format!("MBA, {query}, τ={threshold} (tokens)");
    let colour = colour_axis(&mean, labels_up(height)).called(name);
    let x_labels = label_count(heading_room(width) - points(44.0), LABEL_POINTS);
    let x = Axis::indices(heads, 0.5, x_labels).called(if group > 1 {
        "Query head, grouped by KV head"
    } else {
        "Query head"
    });
    // The name beside the colours may make the panel higher.
    let shown = points(height).max(text_width(&colour.named(points(height))));
    let y_labels = label_count(shown, LABEL_POINTS);
    let y = Axis::indices(layers, 0.5, y_labels)
        .reversed()
        .called("Layer");
    let shapes = shapes(&mean, &colour, group);
    Ok(Description {
        facts: facts(profile),
        panels: Panel::alone((&x, &y), height, shapes),
        gaps: Some(GAPS),
        bars: vec![ColourBar::continuous(colour, amount, 0..1)],
        ..Description::new("MBA of every layer and head", width)
    })
}

/// Every head's cell, and lines between groups.
fn shapes(mean: &[Vec<f64>], colour: &Axis, group: usize) -> Vec<Shape> {
    let cells = mean.iter().enumerate().flat_map(|(layer, heads)| {
        let heads = heads.iter().enumerate();
        heads.map(move |(head, value)| {
            let colour = amount(colour.fraction(*value));
            Cell::around(head as f64, layer as f64, colour)
        })
    });
    let heads = mean.first().map_or(0, Vec::len);
    let firsts = (group..heads).step_by(group).filter(|_| group > 1);
    let line = |first: usize| {
        let x = first as f64 - 0.5;
        let [bottom, top] = EDGES;
        Shape::line(BETWEEN_GROUPS, vec![(x, top), (x, bottom)])
    };
    [Shape::Cells(cells.collect())]
        .into_iter()
        .chain(firsts.map(line))
        .collect()
}

fn mean_over_prompts(values: &[Vec<Vec<f64>>]) -> Vec<Vec<f64>> {
    let mut sums = values.first().cloned().unwrap_or_default();
    for prompt in values.iter().skip(1) {
        for (sum, value) in sums.iter_mut().flatten().zip(prompt.iter().flatten()) {
            *sum += value;
        }
    }
    let mean = |sum: &mut f64| *sum /= values.len() as f64;
    sums.iter_mut().flatten().for_each(mean);
    sums
}

fn colour_axis(mean: &[Vec<f64>], most: usize) -> Axis {
    let (low, high) = ends(mean.iter().flatten().copied());
    if Axis::needs_log(low, high) {
        Axis::log(low, high, most)
    } else {
        Axis::covering(low, high, most.min(6))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_averaged() {
        let values = [
            vec![vec![1.0, 2.0], vec![3.0, 4.0]],
            vec![vec![3.0, 2.0], vec![5.0, 0.0]],
        ];
        assert_eq!(mean_over_prompts(&values), [[2.0, 2.0], [4.0, 2.0]]);
    }

    #[test]
    fn colours_are_logarithmic_only_over_a_decade() {
        let middle = |values: &[f64], middle| {
            let fraction = colour_axis(&[values.to_vec()], 12).fraction(middle);
            assert!((fraction - 0.5).abs() < 1e-9, "{values:?}: {fraction}");
        };
        middle(&[1.0, 100.0], 10.0);
        middle(&[10.0, 30.0], 20.0);
        middle(&[7.0], 7.0);
    }
}
