//! Budgets per layer: how many tokens a plan lets the KV heads of each layer keep.

use super::chart::Chart;
use super::figure::{Axis, Description, EDGES, Entry, GREY, Key, Look, Marks, Pen, Point};
use super::figure::{Series, Shape, Sharing, Words, ends, figure_width, from_zero_or_log};
use super::figure::{heading_room, points, spread_ends, text_width};
use super::layer_windows::{sentence, shown, sizes, words};
use super::options::{ChartOption as Opt, ChartOptions};
use super::over_prompts::mean;
use super::plan_words::PlanWords;
use super::source::{Source, SourceKind, of_type};
use crate::budget::{BudgetPlan, Granularity};
use crate::error::Result;

/// Plans whose lines can lie over each other; more get a panel each.
const TOGETHER: usize = 4;
const MOST_PLANS: usize = 24;
/// Height of a panel of all plans, and of one of several, in points.
const HEIGHTS: [f64; 2] = [125.0, 64.0];
/// Least and most width of one of several panels, in points: a plan's name stands above it.
const PANEL_POINTS: (f64, f64) = (68.0, 150.0);
const UNIFORM: Pen = Pen::plain(GREY, 0.6);

/// The mean budget of a layer's KV heads against the layer, a line with markers per plan, beside a thin line of the
/// uniform budget.
///
/// Up to four plans share a panel, in which their markers take turns; more have one each, all with the same axes. The
/// band of a plan by head is the range of its KV heads. What all plans share stands above the legend. The axis begins at
/// 0; it is logarithmic where the largest budget shown is at least ten times the smallest, or where
/// [`ChartOptions::log`] asks for it, and then says so.
///
/// Hollow markers are layers that see a window only. Where a plan keeps their windows whole, which is no part of its
/// budget, no line leads to them, and the uniform budget is that of the other layers.
///
/// Units: tokens per KV head, or per cent of the plan's own T where [`ChartOptions::relative`] is set.
pub(super) const CHART: Chart = Chart {
    name: "budgets",
    about: "tokens per KV head of every layer, a line or panel per budget plan with the range over KV heads",
    needs: "1 to 24 plans; more than four have a panel each",
    reads: &[Opt::Relative, Opt::Log],
    takes: SourceKind::Plans,
    describe,
};

fn describe(all: &[&dyn Source], options: &ChartOptions) -> Result<Description> {
    let plans: Vec<&BudgetPlan> = of_type(all);
    CHART.at_most(MOST_PLANS, plans.len())?;
    let width = figure_width(options.width)?;
    let words = PlanWords::of(&plans);
    let least = least_panel(width, &words.names);
    let sharing = Sharing::of(plans.len(), TOGETHER, HEIGHTS, width, least);
    let series: Vec<Series> = (plans.iter().enumerate())
        .map(|(index, plan)| Series::banded(sharing.pen(index), over_heads(plan, options.relative)))
        .collect();
    let ends = spread_ends(&series);
    let log = options.log || Axis::needs_log(ends.0, ends.1);
    let y = from_zero_or_log(ends, log, sharing.height)?.called(if options.relative {
        "Budget (% of T)"
    } else {
        "Tokens per KV head"
    });
    let x = Axis::layers(Series::longest(&series), width, sharing.columns, 12.0);
    let mut entries = sharing.keys(&words.names, "the plan named");
    entries.extend(window_entries(&plans, &series));
    let uniform = !sharing.together || uniform_tells(&series);
    entries.extend(uniform.then(|| (Key::Line(UNIFORM), "uniform budget".into())));
    let banded = series.iter().position(Series::is_spread);
    entries.extend(banded.map(|first| {
        let bands = if sharing.together {
            &series[..]
        } else {
            &series[first..=first]
        };
        (Key::bands(bands), "min\u{2013}max of KV heads".into())
    }));
    let panels = sharing.panels((&x, &y), &words.names, |own| {
        let (series, marks) = match own {
            None => (series.clone(), Marks::InTurn),
            Some(own) => (vec![series[own].clone()], Marks::Apart),
        };
        let budget = mean_budget(&series[0]);
        let line = Shape::line(UNIFORM, EDGES.map(|x| (x, budget)).to_vec());
        let line = uniform.then_some(line).into_iter();
        line.chain([Shape::Series(series, marks)]).collect()
    });
    Ok(Description {
        facts: words.shared,
        entries,
        panels,
        columns: sharing.columns,
        ..Description::new(about(&plans), width)
    })
}

/// Width in points of a panel that holds the plans' names, where a reasonable width does.
fn least_panel(width: i32, names: &[Words]) -> f64 {
    let names = Words::told_apart(names, heading_room(width));
    let widest = names.iter().map(|name| text_width(name)).max().unwrap_or(0);
    // A panel is narrower than its column by the labels and the gap beside it.
    let needed = f64::from(widest) / f64::from(points(1.0)) + 12.0;
    needed.clamp(PANEL_POINTS.0, PANEL_POINTS.1)
}

/// Whether all plans have the same uniform budget and none is it already.
fn uniform_tells(series: &[Series]) -> bool {
    let budgets: Vec<f64> = series.iter().map(mean_budget).collect();
    let close = |a: f64, b: f64, share: f64| (a - b).abs() <= share * a.max(b);
    // Totals are rounded down to whole tokens, and what is left over goes to some heads.
    let same = budgets
        .windows(2)
        .all(|pair| close(pair[0], pair[1], 0.005));
    let flat = |s: &Series| {
        let budgets = of_parts(s);
        budgets.iter().all(|b| close(*b, budgets[0], 0.03))
    };
    same && !series.iter().any(flat)
}

/// What every layer that takes part would have if all had the same.
fn mean_budget(series: &Series) -> f64 {
    mean(&of_parts(series))
}

/// Budgets of the layers that take part.
fn of_parts(series: &Series) -> Vec<f64> {
    let parts = series.points.iter().filter(|p| p.look != Look::Aside);
    parts.map(|p| p.middle).collect()
}

/// How a plan's layers with a window look.
fn look(plan: &BudgetPlan) -> Look {
    if plan.whole_windows {
        Look::Aside
    } else {
        Look::Hollow
    }
}

/// The legend's entries for layers with a window: those that share the budget, and those that keep their window whole.
fn window_entries(plans: &[&BudgetPlan], series: &[Series]) -> Vec<Entry> {
    let entry = |sought: Look| {
        let all = plans.iter().zip(series);
        let has = |layer: &Option<usize>| layer.is_some();
        let own =
            all.filter(|(plan, _)| look(plan) == sought && plan.geometry.windows.iter().any(has));
        let own: Vec<(&&BudgetPlan, &Series)> = own.collect();
        let pen = own.first()?.1.pen;
        let windows = own.iter().map(|(plan, _)| &plan.geometry.windows[..]);
        if sought == Look::Hollow {
            return Some((Key::Hollow(pen), words("hollow", windows)?));
        }
        let sizes = sizes(windows)?;
        let short = sizes.strip_prefix("a ").unwrap_or(&sizes);
        let whole = Words::of([
            format!("{short} kept whole, not in the budget"),
            format!("{short} kept whole"),
            "windows kept whole".to_owned(),
        ]);
        Some((Key::Aside(pen), whole))
    };
    [Look::Hollow, Look::Aside]
        .into_iter()
        .filter_map(entry)
        .collect()
}

/// For screen readers: what is shown, and which layers have a window, model by model.
fn about(plans: &[&BudgetPlan]) -> String {
    let mut about = "Budget per layer".to_owned();
    for plan in plans {
        let how = if plan.whole_windows {
            "hollow markers beside the line, not in the budget"
        } else {
            "hollow markers"
        };
        let own = sentence(how, &plan.geometry.model, &plan.geometry.windows);
        if !about.contains(&own) {
            about += &own;
        }
    }
    about
}

/// Mean over KV heads, with their range where a plan means them to differ.
fn over_heads(plan: &BudgetPlan, relative: bool) -> Vec<Point> {
    let factor = if relative {
        100.0 / plan.reference_tokens.max(1) as f64
    } else {
        1.0
    };
    let point = |(layer, heads): (usize, &Vec<usize>)| {
        let values: Vec<f64> = heads.iter().map(|&t| t as f64 * factor).collect();
        let (layer, mean) = (layer as f64, mean(&values));
        // The token that a total leaves over is no spread.
        if plan.granularity == Granularity::Head {
            Point::between(layer, mean, ends(values.into_iter()))
        } else {
            Point::alone(layer, mean)
        }
    };
    let points = plan.tokens.iter().enumerate().map(point).collect();
    shown(points, &plan.geometry.windows, look(plan))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::tests::sample::Sample;
    use serde_json::Value;

    #[test]
    fn the_line_leads_past_layers_that_keep_their_window() {
        let sample = Sample {
            layers: 4,
            windows: vec![Some(512), Some(512), None, Some(512)],
            ..Sample::default()
        };
        let whole = sample.plan_of_global_layers("uniform");
        let series = Series::banded(Pen::plain(GREY, 1.0), over_heads(&whole, false));
        let looks: Vec<Look> = series.points.iter().map(|p| p.look).collect();
        let aside = Look::Aside;
        assert_eq!(looks, [aside, aside, Look::Filled, aside]);
        assert_eq!(series.points[0].middle, 512.0);
        assert_eq!(mean_budget(&series), 128.0, "of the layer that takes part");
        let shared = sample.plan("uniform", Value::Null, Granularity::Layer);
        let looks = over_heads(&shared, false).into_iter().map(|p| p.look);
        assert!(looks.filter(|look| *look == Look::Hollow).count() == 3);
    }
}
