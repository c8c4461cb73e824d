//! The chart of hit rates names both observations.

use super::*;

#[test]
fn hit_rates_name_both_observations() {
    let all = [Sample::default().hit_rates()];
    let figure = drawn("hitrate", &all, &ChartOptions::default());
    shows(
        &figure,
        &[
            "Hit rate of prompt windows",
            "Hit rate of the last one while generating",
            "Its vote shared by generated windows",
            "Steps with an important key",
            "Window",
            "Generated window",
            "sample-1b, prompts-2k",
            "top 5 %, θ = 0.05, 10 prompts",
        ],
    );
    let beyond = ChartOptions {
        metric: Some("beyond-sinks".to_owned()),
        ..ChartOptions::default()
    };
    let other = drawn("hitrate", &all, &beyond);
    shows(&other, &["top 5 %, θ = 0.05, beyond the sinks, 10 prompts"]);
    // Layer 1 parts every line of a hit rate, in both pieces of a panel.
    let lines = |figure: &Figure| figure.svg.matches("<polyline").count();
    let whole = [Sample {
        layers: 1,
        ..Sample::default()
    }
    .hit_rates()];
    assert!(lines(&figure) > lines(&drawn("hitrate", &whole, &ChartOptions::default())));
}
