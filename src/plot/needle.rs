//! Needles by length of the haystack and depth: which ones a cut cache still finds.

use std::collections::BTreeMap;

use super::chart::Chart;
use super::figure::{Axis, Cell, Colour, ColourBar, Description, Key, Panel, Shape, Words, amount};
use super::figure::{ends, figure_width, grid_columns, label_count, number, points};
use super::options::{ChartOption as Opt, ChartOptions};
use super::outcomes::{
    FULL, Outcome, budget_words, chosen_budget, count_words, distinct, facts, outcomes,
    shown_methods,
};
use super::over_prompts::mean;
use super::source::{Source, SourceKind};
use crate::error::{Error, Result};
use crate::eval::{Direction, Metric, Results};

/// Room for the axis' name and most methods' names, in points.
const LEAST_PANEL: f64 = 86.0;
/// Height of a depth's row in points, before the whole is held between its bounds.
const ROW_POINTS: f64 = 7.0;
const HEIGHTS: (f64, f64) = (48.0, 140.0);

/// Behind cells that nothing was measured for.
const UNMEASURED: Colour = Colour(225, 225, 225);

/// The mean of a metric for every length and depth at one budget, the full cache first.
///
/// Light is good. The NLL is that of the same prompt less what the full cache has, which then needs no
/// panel of its own.
///
/// Units: per cent, or nats.
pub(super) const CHART: Chart = Chart {
    name: "needle",
    about: "needles found by length and depth at one budget, a panel per method, the full cache first",
    needs: "results: METRIC, length, depth, of 1 evaluation of task needle with 1 to 24 methods",
    reads: &[Opt::Metric, Opt::Methods, Opt::Budget],
    takes: SourceKind::Results,
    describe,
};

/// A method's means, by place on the grid of lengths and depths.
struct Found {
    name: String,
    mean: f64,
    cells: Vec<(usize, usize, f64)>,
}

fn describe(all: &[&dyn Source], options: &ChartOptions) -> Result<Description> {
    let metric = Metric::find(options.metric.as_deref().unwrap_or("contains"))?;
    let results: &Results = CHART.only(all)?;
    let paired = metric.name == "nll";
    let (rows, methods, budget) = rows(results, metric, options)?;
    let lengths = ascending(rows.iter().map(|row| row.length));
    let depths = ascending(rows.iter().map(|row| row.depth));
    let (found, counts) = found(&rows, &methods, &lengths, &depths);
    let values = found.iter().flat_map(|f| f.cells.iter().map(|cell| cell.2));
    let colour = colour_axis(values, metric, paired).called(if paired {
        "NLL above the full cache (nats per token)".to_owned()
    } else {
        metric.axis_name()
    });
    let low_is_light = metric.direction == Direction::Lower;
    let shade = |share: f64| amount(if low_is_light { 1.0 - share } else { share });
    let width = figure_width(options.width)?;
    let room = width - points(40.0);
    let columns = grid_columns(room, LEAST_PANEL, found.len());
    let height = (depths.len() as f64 * ROW_POINTS).clamp(HEIGHTS.0, HEIGHTS.1);
    let x = length_axis(&lengths, room / columns as i32 - points(16.0));
    let up = label_count(points(height), 12.0);
    let labels = depths.iter().map(|v| number(*v)).collect();
    let y = Axis::categories(labels, up).reversed().called("Depth (%)");
    let behind = Cell {
        from: (x.low(), y.low()),
        to: (x.high(), y.high()),
        colour: UNMEASURED,
    };
    let panel = |found: &Found| {
        let cells = found.cells.iter().map(|&(length, depth, value)| {
            let colour = shade(colour.fraction(value));
            Cell::around(length as f64, depth as f64, colour)
        });
        let mean = if low_is_light {
            format!(" {:.2}", found.mean)
        } else {
            format!(" {:.0}%", found.mean)
        };
        let cells = Shape::Cells([behind].into_iter().chain(cells).collect());
        (Words::from(&found.name).before(mean), vec![cells])
    };
    let panels = Panel::each((&x, &y), height, found.iter().map(panel));
    let alone = counts.iter().all(|&count| count == 1);
    let prompts = if alone { "prompt" } else { "prompts" };
    let counts = count_words(&counts);
    let cells = format!("{counts} {prompts} per cell, light is good");
    Ok(Description {
        facts: facts(results),
        entries: [budget_words(budget), cells]
            .map(|note| (Key::Note, note.into()))
            .to_vec(),
        columns,
        bars: vec![ColourBar::continuous(colour, shade, 0..panels.len())],
        panels,
        ..Description::new(format!("{} by length and depth", metric.title), width)
    })
}

/// The rows of the chosen budget and methods, with the methods besides the full cache and the budget.
fn rows<'r>(
    results: &'r Results,
    metric: &Metric,
    options: &ChartOptions,
) -> Result<(Vec<Outcome<'r>>, Vec<&'r str>, &'r str)> {
    let mut rows = outcomes(results, metric)?;
    if metric.name == "nll" {
        rows = less_full(rows);
    }
    rows.retain(|row| row.length.is_finite() && row.depth.is_finite());
    if rows.is_empty() {
        let bound = "a chart needs some: evaluate with --task needle";
        let what = "number of rows with length and depth";
        return Err(Error::invalid(what, 0, bound));
    }
    let cut = rows.iter().filter(|row| row.budget != FULL);
    let budgets = distinct(cut.map(|row| row.budget));
    let budget = chosen_budget(&budgets, options.budget.as_deref())?;
    rows.retain(|row| row.budget == FULL || row.budget == budget);
    let held = rows.iter().map(|row| row.method);
    let methods = shown_methods(CHART.name, held, options.methods.as_deref())?;
    rows.retain(|row| row.method == FULL || methods.contains(&row.method));
    Ok((rows, methods, budget))
}

/// Every cut cache's value less that of the full cache on the same prompt; prompts without one are left out.
fn less_full(rows: Vec<Outcome<'_>>) -> Vec<Outcome<'_>> {
    let full = rows.iter().filter(|row| row.method == FULL);
    let full: BTreeMap<u32, f64> = full.map(|row| (row.prompt, row.value)).collect();
    let cut = rows.into_iter().filter(|row| row.method != FULL);
    cut.filter_map(|row| {
        let value = row.value - full.get(&row.prompt)?;
        Some(Outcome { value, ..row })
    })
    .collect()
}

fn ascending(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.dedup();
    values
}

/// What the full cache, where it has rows, and every method found, and the number of prompts in every cell.
fn found(
    rows: &[Outcome<'_>],
    methods: &[&str],
    lengths: &[f64],
    depths: &[f64],
) -> (Vec<Found>, Vec<usize>) {
    let place = |values: &[f64], value: f64| values.iter().position(|v| *v == value).unwrap_or(0);
    let (mut all, mut counts) = (Vec::new(), Vec::new());
    for method in [FULL].iter().chain(methods) {
        let mut cells: BTreeMap<(usize, usize), Vec<f64>> = BTreeMap::new();
        let mut values = Vec::new();
        for row in rows.iter().filter(|row| row.method == *method) {
            let at = (place(lengths, row.length), place(depths, row.depth));
            cells.entry(at).or_default().push(row.value);
            values.push(row.value);
        }
        // The NLL is already less the full cache's, which then has no rows.
        if values.is_empty() {
            continue;
        }
        counts.extend(cells.values().map(Vec::len));
        let name = if *method == FULL {
            "full cache"
        } else {
            method
        };
        let cells = cells.into_iter().map(|((l, d), v)| (l, d, mean(&v)));
        all.push(Found {
            name: name.to_owned(),
            mean: mean(&values),
            cells: cells.collect(),
        });
    }
    (all, counts)
}

fn colour_axis(values: impl Iterator<Item = f64>, metric: &Metric, paired: bool) -> Axis {
    if metric.is_share() && !paired {
        return Axis::covering(0.0, 100.0, 5);
    }
    let (low, high) = ends(values);
    // Without a difference worth a colour the bar still starts at "as good as the full cache".
    Axis::covering(low.min(0.0), high, 5)
}

/// Lengths in the largest unit that all are whole in, on an axis `room` units long.
fn length_axis(lengths: &[f64], room: i32) -> Axis {
    let whole = |unit: &f64| lengths.iter().all(|length| length % unit == 0.0);
    let unit = [1024.0, 1000.0].into_iter().find(whole);
    let (name, widest) = match unit {
        Some(unit) => (format!("Length ({} tokens)", number(unit)), 12.0),
        None => ("Length (tokens)".to_owned(), 26.0),
    };
    let shown = lengths.iter().map(|v| number(v / unit.unwrap_or(1.0)));
    Axis::categories(shown.collect(), label_count(room, widest)).called(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::draw;
    use crate::plot::figure::text_width;
    use crate::sample_results::{SampleResults, TWELVE};

    /// Top and bottom of every rectangle as wide as `width`, or of any where there is none.
    fn range(svg: &str, fill: Option<&str>, width: Option<i32>) -> (i32, i32) {
        let number = |tag: &str, name: &str| -> i32 {
            let value = tag.split(&format!(" {name}=\"")).nth(1).unwrap();
            value.split('"').next().unwrap().parse().unwrap()
        };
        let tags = svg.split("<rect").skip(1);
        let tags = tags.filter(|tag| fill.is_none_or(|fill| tag.contains(fill)));
        let tags = tags.filter(|tag| width.is_none_or(|width| number(tag, "width") == width));
        tags.map(|tag| (number(tag, "y"), number(tag, "y") + number(tag, "height")))
            .reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
            .unwrap()
    }

    #[test]
    fn the_colour_bar_is_as_tall_as_the_panels_and_its_name_fits() {
        for (methods, metric) in [1, 3]
            .into_iter()
            .flat_map(|methods| ["contains", "nll", "evidence"].map(|metric| (methods, metric)))
        {
            let sample = SampleResults {
                task: "needle",
                methods: TWELVE[..methods].to_vec(),
                ..SampleResults::default()
            };
            let options = ChartOptions {
                metric: Some(metric.to_owned()),
                ..ChartOptions::default()
            };
            let all = [sample.results()];
            let svg = draw("needle", &all, &options, "").unwrap().svg;
            let panels = range(&svg, Some("#E1E1E1"), None);
            // 7 points of a colour bar, 15 of a legend's key.
            let bar = range(&svg, None, Some(points(7.0)));
            assert_eq!(bar, panels, "{methods} {metric}");
            let name = match metric {
                "nll" => "NLL above the full cache (nats per token)",
                _ => &Metric::find(metric).unwrap().axis_name(),
            };
            let upright = text_width(name) <= panels.1 - panels.0;
            let tag = svg.split("<text").find(|tag| tag.contains(name)).unwrap();
            assert_eq!(tag.contains("rotate"), upright, "{methods} {metric}");
        }
    }

    fn row(prompt: u32, method: &'static str, value: f64) -> Outcome<'static> {
        Outcome {
            prompt,
            sample: prompt,
            method,
            budget: "64",
            held: 1.0,
            full: 2.0,
            value,
            length: 1024.0,
            depth: f64::from(prompt),
        }
    }

    #[test]
    fn nll_is_paired_with_the_full_cache_of_its_prompt() {
        let rows = vec![
            row(0, "full", 2.0),
            row(0, "snapkv", 3.5),
            row(1, "snapkv", 9.0),
        ];
        let differences: Vec<f64> = less_full(rows).iter().map(|r| r.value).collect();
        assert_eq!(differences, [1.5]);
    }

    #[test]
    fn cells_are_means_and_full_comes_first() {
        let rows = [
            row(0, "snapkv", 1.0),
            row(0, "snapkv", 0.0),
            row(0, "full", 1.0),
        ];
        let (all, counts) = found(&rows, &["snapkv"], &[1024.0], &[0.0]);
        assert_eq!(all[0].name, "full cache");
        assert_eq!(all[1].cells, [(0, 0, 0.5)]);
        assert_eq!(counts, [1, 2]);
    }
}
