//! Every chart reads the options that it declares, and no others: what it draws says so.

use super::sample::Sample;
use super::*;
use crate::budget::Granularity;
use crate::sample_results::SampleResults;
use serde_json::json;

/// `options` with another value of `option`.
fn changed(option: ChartOption, options: &ChartOptions) -> ChartOptions {
    let mut other = options.clone();
    match option {
        ChartOption::Query => other.query = Query::Last,
        ChartOption::Threshold => other.threshold = 0.5,
        ChartOption::OutputThresholds => other.output_thresholds = vec![0.99],
        ChartOption::Crossing => other.crossing = Crossing::Stable,
        ChartOption::Raw => other.raw = true,
        ChartOption::Depth => other.depth = Some(Depth::Relative),
        ChartOption::Relative => other.relative = true,
        ChartOption::Log => other.log = true,
        ChartOption::Metric => other.metric = Some("evidence".to_owned()),
        ChartOption::Methods => other.methods = Some("zigzag,snapkv".to_owned()),
        ChartOption::Budget => other.budget = Some("256".to_owned()),
        ChartOption::Layers => other.layers = Some(vec![0, 3]),
    }
    other
}

/// What `chart` draws of a small subject, or why not.
fn outcome(chart: &Chart, options: &ChartOptions) -> std::result::Result<Figure, String> {
    let sample = Sample {
        tokens: vec![600, 640],
        layers: 5,
        heads: 2,
        kv_heads: 1,
        ..Sample::default()
    };
    let results = SampleResults {
        task: if chart.name == "needle" {
            chart.name
        } else {
            "qa"
        },
        budgets: vec![64, 256],
        prompts: 4,
        layers: 5,
        ..SampleResults::default()
    };
    let source: Box<dyn Source> = match chart.takes() {
        // Equal for every layer: such a plan's axis is not logarithmic by itself.
        SourceKind::Plans => Box::new(sample.plan("uniform", json!({}), Granularity::Layer)),
        SourceKind::Results => Box::new(results.results()),
        _ => source_of(chart, &sample),
    };
    let drawn = chart.draw(&[&*source], options, "");
    drawn.map_err(|error| error.to_string())
}

#[test]
fn every_option_is_among_all() {
    for (place, option) in ChartOption::ALL.into_iter().enumerate() {
        assert_eq!(option as usize, place, "{}", option.name());
        assert!(
            !readers(option).is_empty(),
            "{} has no reader",
            option.name()
        );
    }
    // Fails to compile with another field, which then belongs into `ChartOption` and `changed` as well,
    // unless every chart reads it.
    let ChartOptions {
        query: _,
        threshold: _,
        output_thresholds: _,
        crossing: _,
        raw: _,
        depth: _,
        relative: _,
        log: _,
        metric: _,
        methods: _,
        budget: _,
        layers: _,
        title: _,
        width: _,
    } = ChartOptions::default();
    let fields = format!("{:?}", ChartOptions::default());
    assert_eq!(fields.matches(": ").count(), ChartOption::ALL.len() + 2);
}

#[test]
fn charts_read_the_options_that_they_declare_and_no_others() {
    let narrow = ChartOptions {
        width: 2.0,
        ..ChartOptions::default()
    };
    for chart in CHARTS {
        let options = ChartOptions {
            // The vertical axes of KL and of bytes may be logarithmic by themselves, those of a share and of times are not.
            metric: match chart.name {
                "frontier" => Some("top1".to_owned()),
                "residency" => Some("ms".to_owned()),
                _ => None,
            },
            ..narrow.clone()
        };
        let base = outcome(chart, &options);
        assert!(base.is_ok(), "{}: {base:?}", chart.name);
        for option in ChartOption::ALL {
            let changes = outcome(chart, &changed(option, &options)) != base;
            let (name, option_name) = (chart.name, option.name());
            let declared = chart.reads.contains(&option);
            assert_eq!(
                declared, changes,
                "{name} declares --{option_name}: {declared}; its figure changes with it: {changes}"
            );
        }
        let mut titled = options.clone();
        titled.title = Some("A title".to_owned());
        let mut wide = options.clone();
        wide.width = 2.5;
        for options in [titled, wide] {
            assert!(outcome(chart, &options) != base, "{}", chart.name);
        }
    }
}
