//! Charts of several models, and of models whose layers differ.

use serde_json::json;

use super::*;
use crate::budget::{Budget, Granularity};
use crate::profile::Profile;
use crate::table::Table;

/// A second model: more layers, other heads, shorter prompts.
fn other() -> Sample {
    Sample {
        model: "sample-7b",
        layers: 20,
        heads: 8,
        kv_heads: 4,
        tokens: (0..10).map(|p| 900 + 11 * p).collect(),
        ..Sample::default()
    }
}

/// A model of which every sixth layer sees all and the others 512 keys.
fn local() -> Sample {
    let window = |layer: usize| (layer % 6 != 5).then_some(512);
    Sample {
        model: "local-1b",
        windows: (0..12).map(window).collect(),
        ..Sample::default()
    }
}

const SEEN: &str = "layers that see a window of 512 keys";

fn count(figure: &Figure, part: &str) -> usize {
    words(&figure.svg)
        .iter()
        .filter(|w| w.contains(part))
        .count()
}

/// What screen readers say of a figure.
fn about(figure: &Figure) -> &str {
    let (_, rest) = figure.svg.split_once("<title>").unwrap();
    rest.split_once("</title>").unwrap().0
}

fn one_cosine(depth: Option<Depth>) -> ChartOptions {
    ChartOptions {
        output_thresholds: vec![0.99],
        depth,
        ..ChartOptions::default()
    }
}

#[test]
fn models_of_other_depths_share_relative_depth() {
    let profiles = [Sample::default().profile(), other().profile()];
    for chart in ["lmba", "lmbo"] {
        for options in [ChartOptions::default(), one_cosine(None)] {
            let figure = drawn(chart, &profiles, &options);
            shows(&figure, &["Relative depth, l/(L − 1)", "0", "0.8", "1"]);
            assert_eq!(count(&figure, "Layer"), 0);
            assert!(about(&figure).ends_with("against relative depth of sample-1b and sample-7b"));
        }
        let by_index = drawn(chart, &profiles, &one_cosine(Some(Depth::Index)));
        shows(&by_index, &["Layer", "19"]);
        assert_eq!(count(&by_index, "Relative"), 0);
        let alike = [Sample::default().profile(), Sample::default().profile()];
        shows(
            &drawn(chart, &alike, &ChartOptions::default()),
            &["Layer", "11"],
        );
        let asked = drawn(chart, &alike, &one_cosine(Some(Depth::Relative)));
        shows(&asked, &["Relative depth, l/(L − 1)"]);
    }
}

#[test]
fn lmbo_of_one_cosine_has_a_line_per_model() {
    let profiles = [Sample::default().profile(), other().profile()];
    let figure = drawn("lmbo", &profiles, &one_cosine(None));
    shows(
        &figure,
        &[
            "cos ≥ 0.99",
            "LMBO, pooled, first (tokens, log)",
            "sample-1b, T = 1,900–2,053",
            "sample-7b, T = 900–999",
        ],
    );
    assert!(figure.svg.contains("#D55E00"), "the second model's colour");
    let panels = drawn("lmbo", &profiles, &ChartOptions::default());
    assert_eq!(count(&figure, "LMBO"), 1);
    assert_eq!(count(&panels, "LMBO"), 2);
    let relative = ChartOptions {
        relative: true,
        ..one_cosine(None)
    };
    let shares = drawn("lmbo", &profiles, &relative);
    shows(&shares, &["LMBO, pooled, first (% of T, log)"]);
}

#[test]
fn heat_maps_of_several_models_share_one_scale() {
    let profiles = [Sample::default().profile(), other().profile()];
    for width in [2.0, COLUMN, PAGE] {
        let options = ChartOptions {
            width,
            ..ChartOptions::default()
        };
        let figure = drawn("mba-heatmap", &profiles, &options);
        is_well_formed(&figure.svg);
        assert_eq!(count(&figure, "MBA, pooled"), 1, "one scale");
        assert_eq!(count(&figure, "MBA, pooled, τ=0.9 (% of T"), 1);
        shows(&figure, &["11", "19", "Layer"]);
        assert_eq!(
            (count(&figure, "sample-1b"), count(&figure, "sample-7b")),
            (1, 1)
        );
        let said = count(&figure, "grouped by KV head") + count(&figure, "white lines");
        assert!(said > 0, "{:?}", words(&figure.svg));
        assert_eq!(
            about(&figure),
            "MBA of every layer and head of sample-1b and sample-7b"
        );
    }
    let longer = Sample {
        tokens: Sample::default().tokens,
        ..other()
    };
    let alike = [Sample::default().profile(), longer.profile()];
    let counts = drawn("mba-heatmap", &alike, &ChartOptions::default());
    assert_eq!(count(&counts, "MBA, pooled, τ=0.9 (tokens"), 1);
    let relative = ChartOptions {
        relative: true,
        ..ChartOptions::default()
    };
    let shares = drawn("mba-heatmap", &alike, &relative);
    assert_eq!(count(&shares, "MBA, pooled, τ=0.9 (% of T"), 1);
}

#[test]
fn panels_beside_each_other_are_labelled_alike() {
    let profile = |model, heads| {
        let sample = Sample {
            model,
            heads,
            kv_heads: heads,
            ..Sample::default()
        };
        sample.profile()
    };
    // Two columns: only the panel at the right has the same axis below.
    let all = [("a", 4), ("b", 3), ("c", 5), ("d", 3)].map(|(name, heads)| profile(name, heads));
    let figure = drawn("mba-heatmap", &all, &ChartOptions::default());
    assert_eq!(count(&figure, "Query head"), 4);
    let alike = ["a", "b", "c", "d"].map(|name| profile(name, 4));
    let figure = drawn("mba-heatmap", &alike, &ChartOptions::default());
    assert_eq!(count(&figure, "Query head"), 2, "below the last row");
}

#[test]
fn layers_with_a_window_look_otherwise_in_every_chart_over_layers() {
    let (sample, options) = (local(), ChartOptions::default());
    let both = [Sample::default().profile(), sample.profile()];
    let layers = "layers 0–4, 6–10 of local-1b, which see a window of 512 keys";
    for (chart, how) in [
        ("lmba", "hollow"),
        ("lmbo", "hollow"),
        ("mba-heatmap", "bracket"),
        ("curves", "dashed"),
    ] {
        let figure = drawn(chart, &[sample.profile()], &options);
        shows(&figure, &[&format!("{how}: {SEEN}")]);
        assert!(about(&figure).contains(layers), "{}", about(&figure));
        let without = Sample {
            windows: Vec::new(),
            ..local()
        };
        let without = drawn(chart, &[without.profile()], &options);
        assert_eq!(count(&without, how), 0);
        let all_global = Sample {
            windows: vec![None; 12],
            ..local()
        };
        assert_eq!(drawn(chart, &[all_global.profile()], &options), without);
        if chart != "curves" {
            let figure = drawn(chart, &both, &options);
            assert_eq!(count(&figure, "window of 512 keys"), 1);
            assert!(about(&figure).contains("of sample-1b and local-1b; "));
            assert!(
                !about(&figure).contains("of sample-1b,"),
                "{}",
                about(&figure)
            );
        }
    }
}

#[test]
fn evidence_marks_layers_with_a_window() {
    let chart = find("evidence").unwrap();
    let mut results = evaluation(chart).results();
    let plain = drawn(
        "evidence",
        std::slice::from_ref(&results),
        &ChartOptions::default(),
    );
    assert_eq!(count(&plain, "hollow"), 0);
    results.meta.model.windows = local().windows;
    let figure = drawn("evidence", &[results], &ChartOptions::default());
    shows(&figure, &[&format!("hollow: {SEEN}")]);
    assert!(about(&figure).contains("layers 0–4, 6–10 of "));
}

#[test]
fn brackets_join_layers_with_a_window() {
    let brackets = |windows: Vec<Option<usize>>| {
        let sample = Sample { windows, ..local() };
        let figure = drawn("mba-heatmap", &[sample.profile()], &ChartOptions::default());
        let lines = figure.svg.split("<polyline ").skip(1);
        let of_axes = lines.filter(|line| line.contains("stroke=\"#3C3C3C\""));
        let corners = |line: &str| {
            let (_, points) = line.split_once(" points=\"").unwrap();
            points.split('"').next().unwrap().split_whitespace().count()
        };
        of_axes.filter(|line| corners(line) == 4).count()
    };
    // One more stands in the legend.
    assert_eq!(brackets(local().windows), 2 + 1);
    assert_eq!(brackets(vec![Some(512); 12]), 1 + 1);
    assert_eq!(brackets(Vec::new()), 0);
}

#[test]
fn budgets_say_which_layers_take_part() {
    let sample = local();
    let shared = sample.plan("uniform", json!({}), Granularity::Layer);
    let whole = sample.plan_of_global_layers("uniform");
    let options = ChartOptions::default();
    let kept = "window of 512 keys kept whole, not in the budget";
    let part = drawn("budgets", std::slice::from_ref(&shared), &options);
    shows(&part, &[&format!("hollow: {SEEN}")]);
    shows(&part, &["over all layers"]);
    assert_eq!(count(&part, "whole") + count(&part, "global"), 0);
    let apart = drawn("budgets", std::slice::from_ref(&whole), &options);
    shows(&apart, &[kept, "over global layers"]);
    assert_eq!(count(&apart, SEEN), 0);
    assert!(about(&apart).contains("not in the budget: layers 0–4, 6–10 of local-1b"));
    let mut share = whole.clone();
    share.budget = Budget::RetainedFraction(0.1);
    shows(
        &drawn("budgets", &[share], &options),
        &["B = 10% of the full cache"],
    );
    let both = drawn("budgets", &[shared, whole], &options);
    shows(
        &both,
        &[kept, "uniform", "over all layers", "over global layers"],
    );
    shows(&both, &[&format!("hollow: {SEEN}")]);
}

#[test]
fn odd_models_are_drawn_together() {
    let flat: fn(usize, usize, usize) -> f64 = |_, _, _| 7.0;
    let lone = Sample {
        layers: 1,
        heads: 1,
        kv_heads: 1,
        windows: vec![Some(1)],
        tokens: vec![1],
        mba: flat,
        ..Sample::default()
    };
    let deep = Sample {
        model: "a model & its <name>, far longer than any column of any paper is wide",
        layers: 120,
        heads: 64,
        kv_heads: 8,
        windows: vec![Some(4096); 120],
        ..Sample::default()
    };
    let all = [
        lone.profile(),
        deep.profile(),
        local().profile(),
        other().profile(),
    ];
    let cosines = vec![0.9, 0.99];
    for (chart, depth, output_thresholds) in [
        ("lmba", None, vec![0.99]),
        ("lmba", Some(Depth::Index), vec![0.99]),
        ("lmbo", None, vec![0.99]),
        ("lmbo", Some(Depth::Index), cosines.clone()),
        ("lmbo", None, cosines),
        ("mba-heatmap", None, vec![0.99]),
    ] {
        for width in [2.0, PAGE] {
            let options = ChartOptions {
                width,
                depth,
                output_thresholds: output_thresholds.clone(),
                ..ChartOptions::default()
            };
            let figure = drawn(chart, &all, &options);
            is_well_formed(&figure.svg);
            assert!(!figure.svg.contains("NaN"));
            assert_eq!(count(&figure, "window"), 1, "{:?}", words(&figure.svg));
        }
    }
}

/// `table` without the columns whose names begin with `prefix`.
fn without(table: &Table, prefix: &str) -> Table {
    let mut rest = Table::default();
    for name in table.names().filter(|name| !name.starts_with(prefix)) {
        rest.push(name, table.column(name).unwrap().clone());
    }
    rest
}

#[test]
fn profiles_that_cannot_be_drawn_together_are_named() {
    let whole = Sample::default().profile();
    let lacking = |prefix: &str| -> Profile {
        let profile = other().profile();
        Profile {
            layers: without(&profile.layers, prefix),
            heads: without(&profile.heads, prefix),
            ..profile
        }
    };
    let refused = |chart: &str, prefix: &str, options: &ChartOptions| {
        let all = [whole.clone(), lacking(prefix)];
        let error = draw(chart, &all, options, "").unwrap_err();
        assert!(is_lack(&error));
        error.to_string()
    };
    let options = ChartOptions::default();
    assert_eq!(
        refused("lmba", "lmba_pooled_90", &options),
        "threshold of lmba_pooled_THRESHOLD is 0.9, but the profile of sample-7b, T = 900–999 has 0.5; \
         take one that all profiles have (0.5), leave this one out, or profile it again"
    );
    let one_cosine = one_cosine(None);
    let cosine = refused("lmbo", "lmbo_pooled_99_first", &one_cosine);
    assert!(
        cosine.contains("sample-7b, T = 900–999 has 0.9, 0.999; "),
        "{cosine}"
    );
    assert!(cosine.contains("(0.9, 0.999)"), "{cosine}");
    let query = refused("mba-heatmap", "mba_pooled_", &options);
    assert!(
        query.contains("sample-7b, T = 900–999 has none; no threshold is in all"),
        "{query}"
    );
    let twice = [whole.clone(), other().profile()];
    let unknown = ChartOptions {
        threshold: 0.42,
        ..ChartOptions::default()
    };
    assert_eq!(
        draw("lmba", &twice, &unknown, "").unwrap_err().to_string(),
        "unknown threshold '0.42'; known: 0.5, 0.9"
    );
    let both = [lacking("mba_pooled_"), lacking("mba_pooled_")];
    let neither = draw("mba-heatmap", &both, &options, "").unwrap_err();
    assert!(
        neither
            .to_string()
            .contains("unknown column 'mba_pooled_90'")
    );
}

#[test]
fn profiles_of_other_observation_windows_are_told_apart() {
    let (short, mut long) = (Sample::default().profile(), Sample::default().profile());
    long.meta.settings.measures.window = None;
    let figure = drawn("lmba", &[short, long], &ChartOptions::default());
    assert_eq!((count(&figure, "w = 32"), count(&figure, "w = T")), (1, 1));
}
