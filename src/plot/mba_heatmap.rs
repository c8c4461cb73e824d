//! MBA of every head: layers down, query heads across, the mean over prompts as a colour.

use super::chart::Chart;
use super::figure::{Axis, Cell, Colour, ColourBar, Description, EDGES, Entry, Gaps, Key, Panel};
use super::figure::{Pen, Shape, Words, amount, ends, figure_width, grid_columns, heading_room};
use super::figure::{label_count, labels_up, points, text_width};
use super::layer_windows::{runs, words};
use super::options::{ChartOption as Opt, ChartOptions};
use super::over_layers::about_models;
use super::profiles::{by_head, columns, facts, names, prompt_tokens};
use super::source::{Source, SourceKind, of_type};
use crate::error::Result;
use crate::profile::Profile;
use crate::run::ModelRecord;

const MOST_PROFILES: usize = 12;
/// Height of a layer's row in points, before the whole is held between its bounds.
const ROW_POINTS: f64 = 6.0;
const HEIGHTS: (f64, f64) = (96.0, 330.0);
/// Most height of one of several panels, in points.
const MOST_OF_SEVERAL: f64 = 190.0;
/// Least width of one of several panels with its labels, in points.
const LEAST_PANEL: f64 = 80.0;
/// Room that the label of a head or layer needs, in points.
const LABEL_POINTS: f64 = 14.0;
/// Room right of the panels for the colour bar with its labels and name, in points.
const BAR_POINTS: f64 = 44.0;
/// How far a bracket reaches beyond the middle of its outermost rows.
const HALF_ROW: f64 = 0.36;
const BETWEEN_GROUPS: Pen = Pen::plain(Colour(255, 255, 255), 1.2);
const GAPS: Gaps = Gaps {
    top: 2.0,
    row: 0.0,
    column: None,
};
/// Between panels: a bracket lies in the gap between two columns.
const GAPS_OF_SEVERAL: Gaps = Gaps {
    top: 2.0,
    row: 5.0,
    column: Some(8.0),
};

/// The mean MBA of every query head, a panel per profile with one scale of colours; white lines separate the KV heads'
/// groups, and brackets join the layers that see a window only.
///
/// Layer 0 is at the top, as a token passes through the model. Panels beside each other are equally high, however many
/// layers they have.
/// Units: tokens, or per cent of T where [`ChartOptions::relative`] is set or the profiles' prompts differ in length, since
/// only shares compare then; on a logarithmic colour scale where they span a decade or more.
pub(super) const CHART: Chart = Chart {
    name: "mba-heatmap",
    about: "MBA of every layer and query head, mean over prompts, a panel per profile",
    needs: "heads: mba_QUERY_THRESHOLD, of 1 to 12 profiles",
    reads: &[Opt::Query, Opt::Threshold, Opt::Relative],
    takes: SourceKind::Profiles,
    describe,
};

fn describe(all: &[&dyn Source], options: &ChartOptions) -> Result<Description> {
    let profiles: Vec<&Profile> = of_type(all);
    CHART.at_most(MOST_PROFILES, profiles.len())?;
    let (query, threshold) = (options.query.name(), options.threshold);
    let prefix = format!("mba_{query}_");
    let columns = columns(&profiles, |p| &p.heads, (&prefix, threshold, ""))?;
    let grids = profiles.iter().zip(&columns);
    let grids = grids.map(|(profile, column)| by_head(profile, column));
    let mut grids: Vec<Vec<Vec<Vec<f64>>>> = grids.collect::<Result<_>>()?;
    let relative = options.relative || (profiles.len() > 1 && !same_lengths(&profiles)?);
    if relative {
        for (profile, grid) in profiles.iter().zip(&mut grids) {
            shares(grid, &prompt_tokens(profile)?);
        }
    }
    let means: Vec<Vec<Vec<f64>>> = grids.iter().map(|grid| mean_over_prompts(grid)).collect();
    let width = figure_width(options.width)?;
    let places = Places::of(&profiles, width);
    let unit = if relative { "% of T" } else { "tokens" };
    let name = format!("MBA, {query}, τ={threshold} ({unit})");
    let colour = colour_axis(&means.concat(), labels_up(places.height)).called(name);
    // The name beside the colours may make the panels higher.
    let height = points(places.height);
    let shown = height.max(text_width(&colour.named(height)));
    let panel = |((profile, mean), name): ((&&Profile, &Vec<Vec<f64>>), Words)| {
        let model = &profile.meta.model;
        let x = places.x(model);
        let y = Axis::indices(model.num_layers, 0.5, label_count(shown, LABEL_POINTS))
            .reversed()
            .called("Layer");
        let shapes = shapes(mean, &colour, model);
        Panel::named(name, (&x, &y), places.height, shapes)
    };
    let (facts, names, gaps) = match profiles[..] {
        [one] => (facts(one), vec![Words::default()], GAPS),
        // Panels have their profiles' names.
        _ => (Vec::new(), names(&profiles), GAPS_OF_SEVERAL),
    };
    let panels = profiles.iter().zip(&means).zip(names).map(panel);
    let models: Vec<&ModelRecord> = profiles.iter().map(|p| &p.meta.model).collect();
    let about = about_models(&models, "bracketed rows");
    Ok(Description {
        facts,
        entries: places.entries(&models),
        panels: panels.collect(),
        columns: places.columns,
        gaps: Some(gaps),
        bars: vec![ColourBar::continuous(colour, amount, 0..profiles.len())],
        ..Description::new(format!("MBA of every layer and head{about}"), width)
    })
}

/// How large panels are, and what fits below them.
struct Places {
    columns: usize,
    /// Height of a panel in points.
    height: f64,
    /// Room for the labels of heads, in canvas units.
    room: i32,
    /// Whether the grouping of heads is told in the legend, for want of room below a panel.
    groups_above: bool,
}

const GROUPED: &str = "Query head, grouped by KV head";

impl Places {
    fn of(profiles: &[&Profile], width: i32) -> Self {
        let most = if profiles.len() == 1 {
            HEIGHTS.1
        } else {
            MOST_OF_SEVERAL
        };
        let layers = profiles.iter().map(|p| p.meta.model.num_layers).max();
        let height = (layers.unwrap_or(0) as f64 * ROW_POINTS).clamp(HEIGHTS.0, most);
        if profiles.len() == 1 {
            return Self {
                columns: 1,
                height,
                room: heading_room(width) - points(BAR_POINTS),
                groups_above: false,
            };
        }
        let columns = grid_columns(width - points(BAR_POINTS), LEAST_PANEL, profiles.len());
        let pitch = (width - points(BAR_POINTS)) / columns as i32;
        let room = pitch - (width - heading_room(width));
        Self {
            columns,
            height,
            room,
            groups_above: text_width(GROUPED) > pitch - points(8.0)
                && profiles.iter().any(|p| group(&p.meta.model) > 1),
        }
    }

    /// The axis of a model's query heads.
    fn x(&self, model: &ModelRecord) -> Axis {
        let labels = label_count(self.room, LABEL_POINTS);
        let name = if group(model) > 1 && !self.groups_above {
            GROUPED
        } else {
            "Query head"
        };
        Axis::indices(model.num_heads, 0.5, labels).called(name)
    }

    fn entries(&self, models: &[&ModelRecord]) -> Vec<Entry> {
        let groups = (Key::Note, "white lines: between KV heads".into());
        let windows = models.iter().map(|model| &model.windows[..]);
        let windows = words("bracket", windows).map(|words| (Key::Bracket, words));
        let groups = self.groups_above.then_some(groups);
        groups.into_iter().chain(windows).collect()
    }
}

/// Query heads per KV head.
fn group(model: &ModelRecord) -> usize {
    match model.num_kv_heads {
        kv if kv > 0 && model.num_heads.is_multiple_of(kv) => model.num_heads / kv,
        _ => 1,
    }
}

/// Every head's cell, lines between groups, and brackets beside layers with a window.
fn shapes(mean: &[Vec<f64>], colour: &Axis, model: &ModelRecord) -> Vec<Shape> {
    let group = group(model);
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
    let span = |(first, last): (usize, usize)| (first as f64 - HALF_ROW, last as f64 + HALF_ROW);
    let spans = runs(&model.windows).into_iter().map(span);
    [Shape::Cells(cells.collect())]
        .into_iter()
        .chain(firsts.map(line))
        .chain([Shape::Brackets(spans.collect())])
        .collect()
}

/// Whether the prompts of all profiles have the same lengths, in the same order.
fn same_lengths(profiles: &[&Profile]) -> Result<bool> {
    let tokens = profiles.iter().map(|profile| prompt_tokens(profile));
    let tokens: Vec<Vec<f64>> = tokens.collect::<Result<_>>()?;
    Ok(tokens.windows(2).all(|pair| pair[0] == pair[1]))
}

/// Makes `values` per cent of each prompt's `tokens`.
fn shares(values: &mut [Vec<Vec<f64>>], tokens: &[f64]) {
    for (prompt, tokens) in values.iter_mut().zip(tokens) {
        let all = prompt.iter_mut().flatten();
        all.for_each(|value| *value *= 100.0 / tokens);
    }
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
    fn shares_are_of_each_prompt() {
        let mut values = [vec![vec![1.0, 2.0]], vec![vec![3.0, 20.0]]];
        shares(&mut values, &[100.0, 20.0]);
        assert_eq!(values, [vec![vec![1.0, 2.0]], vec![vec![15.0, 100.0]]]);
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
