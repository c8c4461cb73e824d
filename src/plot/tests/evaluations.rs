//! Charts of evaluations name methods, metrics and what stands behind them.

use super::*;
use crate::sample_results::TWELVE;

#[test]
fn frontier_names_methods_units_intervals_and_the_full_cache() {
    let sample = SampleResults {
        methods: TWELVE.to_vec(),
        ..SampleResults::default()
    };
    let all = [sample.results()];
    let figure = drawn("frontier", &all, &ChartOptions::default());
    shows(&figure, &TWELVE[..11]);
    shows(&figure, &["zigzag+…pooled"]);
    shows(
        &figure,
        &[
            "KL from the full cache (nats, log scale)",
            "Held KV cache (MB per prompt, log scale)",
            "full cache: 0 nats, 93.8 MB",
            "95 % interval of the mean, n = 39–40 prompts",
            "the method named",
            "snapkv, the baseline",
            "the others",
            "10",
        ],
    );
    let relative = ChartOptions {
        relative: true,
        metric: Some("top1".to_owned()),
        ..ChartOptions::default()
    };
    shows(
        &drawn("frontier", &all, &relative),
        &[
            "Top-1 agreement with the full cache (%)",
            "Held KV cache (% of the full cache, log scale)",
            "full cache: 100 %",
            "100",
        ],
    );
    let six = ChartOptions {
        methods: Some(TWELVE[..6].join(",")),
        ..ChartOptions::default()
    };
    let one_panel = drawn("frontier", &all, &six);
    shows(&one_panel, &TWELVE[..6]);
    shows(&one_panel, &["marks at one budget are set apart sideways"]);
    assert!(png_info(&one_panel).1 < png_info(&figure).1);
}

#[test]
fn chosen_methods_are_shown_in_the_order_asked_for() {
    for (chart, full) in [("frontier", true), ("needle", true), ("evidence", false)] {
        let chart = find(chart).unwrap();
        let all = [SampleResults {
            methods: TWELVE.to_vec(),
            ..evaluation(chart)
        }
        .results()];
        for chosen in [["tova", "snapkv"], ["snapkv", "tova"]] {
            let options = ChartOptions {
                methods: Some(chosen.join(",")),
                ..ChartOptions::default()
            };
            let words = words(&drawn(chart.name, &all, &options).svg);
            let place = |name: &str| words.iter().position(|w| w.starts_with(name));
            assert!(place(chosen[0]).unwrap() < place(chosen[1]).unwrap());
            assert_eq!(place("full cache").is_some(), full, "{}", chart.name);
            assert!(
                TWELVE
                    .iter()
                    .all(|name| chosen.contains(name) || place(name).is_none())
            );
        }
    }
}

#[test]
fn needle_has_the_full_cache_first_and_names_its_grid() {
    let sample = SampleResults {
        task: "needle",
        ..SampleResults::default()
    };
    let all = [sample.results()];
    let figure = drawn("needle", &all, &ChartOptions::default());
    shows(
        &figure,
        &[
            "Depth (%)",
            "Length (1,024 tokens)",
            "Answers that contain the gold (%)",
            "B = 64 tokens per KV head",
            "n = 3 prompts per cell, light is good",
        ],
    );
    let names = words(&figure.svg);
    let place = |start: &str| names.iter().position(|w| w.starts_with(start)).unwrap();
    assert!(place("full cache") < place("snapkv") && place("snapkv") < place("zigzag"));
    let nll = ChartOptions {
        metric: Some("nll".to_owned()),
        budget: Some("256".to_owned()),
        ..ChartOptions::default()
    };
    let figure = drawn("needle", &all, &nll);
    shows(
        &figure,
        &[
            "NLL above the full cache (nats per token)",
            "B = 256 tokens per KV head",
        ],
    );
    assert!(
        !words(&figure.svg)
            .iter()
            .any(|w| w.starts_with("full cache "))
    );
}

#[test]
fn evidence_has_a_line_per_method_and_a_panel_each_beyond_three() {
    let few = [SampleResults::default().results()];
    let figure = drawn("evidence", &few, &ChartOptions::default());
    shows(
        &figure,
        &[
            "Evidence tokens kept (%)",
            "Layer",
            "zigzag",
            "10th–90th percentile of 40 prompts",
            "B = 64 tokens per KV head",
        ],
    );
    let many = SampleResults {
        methods: TWELVE[..5].to_vec(),
        ..SampleResults::default()
    };
    let many = [many.results()];
    let panels = drawn("evidence", &many, &ChartOptions::default());
    shows(
        &panels,
        &["the method named", "the others", "output-optimal"],
    );
    assert!(png_info(&panels).1 > png_info(&figure).1);
}

#[test]
fn one_method_one_budget_one_prompt_is_drawn() {
    let least = SampleResults {
        methods: vec!["snapkv"],
        budgets: vec![4000],
        prompts: 1,
        layers: 1,
        ..SampleResults::default()
    };
    let all = [least.results()];
    let metrics = crate::eval::Metric::of_quality().map(|metric| ("frontier", Some(metric.name)));
    for (name, metric) in metrics.chain([("evidence", None)]) {
        let options = ChartOptions {
            metric: metric.map(str::to_owned),
            ..ChartOptions::default()
        };
        let figure = drawn(name, &all, &options);
        is_well_formed(&figure.svg);
        assert!(!figure.svg.contains("NaN"), "{name} {metric:?}");
    }
}
