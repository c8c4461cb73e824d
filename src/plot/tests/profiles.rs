//! Charts of profiles name what they show.

use super::*;

#[test]
fn lmba_names_axes_units_and_profiles() {
    let other = Sample {
        model: "sample-7b",
        layers: 20,
        ..Sample::default()
    };
    let profiles = [Sample::default().profile(), other.profile()];
    let by_index = ChartOptions {
        depth: Some(Depth::Index),
        ..ChartOptions::default()
    };
    let figure = drawn("lmba", &profiles, &by_index);
    shows(
        &figure,
        &[
            "Layer",
            "LMBA, pooled, τ=0.9 (tokens)",
            "sample-1b, T = 1,900–2,053",
            "sample-7b, T = 1,900–2,053",
            "10th–90th percentile of 10 prompts",
            "19",
            "1,000",
        ],
    );
    let options = ChartOptions {
        relative: true,
        query: Query::Last,
        ..ChartOptions::default()
    };
    shows(
        &drawn("lmba", &profiles, &options),
        &["LMBA, last, τ=0.9 (% of T)"],
    );
    let options = ChartOptions {
        log: true,
        threshold: 0.5,
        ..ChartOptions::default()
    };
    shows(
        &drawn("lmba", &profiles, &options),
        &["LMBA, pooled, τ=0.5 (tokens, log)", "10", "100"],
    );
}

#[test]
fn lmbo_has_a_line_per_threshold_and_a_panel_per_profile() {
    let other = Sample {
        model: "sample-7b",
        ..Sample::default()
    };
    let one = [Sample::default().profile()];
    let figure = drawn("lmbo", &one, &ChartOptions::default());
    shows(
        &figure,
        &[
            "LMBO, pooled, first (tokens, log)",
            "cos ≥ 0.9",
            "cos ≥ 0.99",
            "cos ≥ 0.999",
            "100",
        ],
    );
    let two = [Sample::default().profile(), other.profile()];
    let options = ChartOptions {
        crossing: Crossing::Stable,
        raw: true,
        ..ChartOptions::default()
    };
    let both = drawn("lmbo", &two, &options);
    shows(
        &both,
        &[
            "LMBO, pooled, raw, stable (tokens, log)",
            "sample-7b, T = 1,900–2,053",
        ],
    );
    assert!(png_info(&both).1 > png_info(&figure).1);
}

#[test]
fn profiles_that_nothing_tells_apart_are_numbered() {
    let twins = [Sample::default().profile(), Sample::default().profile()];
    for chart in ["lmba", "lmbo"] {
        let words = words(&drawn(chart, &twins, &ChartOptions::default()).svg);
        for number in ["profile 1", "profile 2"] {
            let named = words.iter().filter(|w| w.ends_with(number)).count();
            assert_eq!(named, 1, "{chart}: {words:?}");
        }
    }
}

#[test]
fn mba_heatmap_names_its_colours() {
    let figure = drawn(
        "mba-heatmap",
        &[Sample::default().profile()],
        &ChartOptions::default(),
    );
    shows(
        &figure,
        &[
            "Query head, grouped by KV head",
            "Layer",
            "MBA, pooled, τ=0.9 (tokens, log)",
            "1,000",
        ],
    );
    let lone = Sample {
        kv_heads: 6,
        ..Sample::default()
    };
    shows(
        &drawn("mba-heatmap", &[lone.profile()], &ChartOptions::default()),
        &["Query head"],
    );
}

#[test]
fn curves_name_both_panels() {
    let options = ChartOptions {
        width: PAGE,
        title: Some("A <title>".to_owned()),
        ..ChartOptions::default()
    };
    let figure = drawn("curves", &[Sample::default().profile()], &options);
    shows(
        &figure,
        &[
            "Retained mass, pooled (%)",
            "1 − cos(y, ŷ), pooled (log)",
            "Budget (tokens per head, log scale)",
            "Layer",
            "A &lt;title&gt;",
            "0.001",
            "1,900",
        ],
    );
    assert_eq!(png_info(&figure).0, 2800);
}
