//! The chart of plans names what differs between them, and what they share.

use serde_json::json;

use super::*;
use crate::budget::Granularity;

#[test]
fn budgets_name_strategies_and_heads() {
    let sample = Sample::default();
    let even = sample.plan("uniform", json!({}), Granularity::Layer);
    let pyramid = sample.plan("pyramid", json!({}), Granularity::Layer);
    let figure = drawn(
        "budgets",
        &vec![even.clone(), pyramid],
        &ChartOptions::default(),
    );
    shows(
        &figure,
        &[
            "Layer",
            "Budget (tokens per KV head)",
            "uniform, B = 128",
            "pyramid, B = 128",
            "100",
        ],
    );
    assert!(!words(&figure.svg).iter().any(|w| w.contains("KV heads")));
    let both = vec![even, sample.plan_by_need()];
    let words_of_heads = ["by-need, B = 128, by head", "min–max of KV heads", "10"];
    shows(
        &drawn("budgets", &both, &ChartOptions::default()),
        &words_of_heads,
    );
    let relative = ChartOptions {
        relative: true,
        ..ChartOptions::default()
    };
    shows(&drawn("budgets", &both, &relative), &["Budget (% of T)"]);
}
