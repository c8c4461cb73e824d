//! What every chart refuses: requests it cannot fulfil and profiles that are empty, incomplete or broken.

use super::sample::Sample;
use super::*;
use crate::budget::BudgetPlan;
use crate::profile::Profile;
use crate::sample_results::SampleResults;
use crate::table::{Column, Table};

fn error<S: Source>(name: &str, all: &[S], options: &ChartOptions) -> String {
    draw(name, all, options, "test").unwrap_err().to_string()
}

#[test]
fn wrong_requests_are_refused_with_a_way_out() {
    let profile = Sample::default().profile();
    let one = std::slice::from_ref(&profile);
    let default = ChartOptions::default();
    assert!(error("pie", one, &default).contains("lmba, lmbo, mba-heatmap, curves, budgets"));
    let threshold = ChartOptions {
        threshold: 0.85,
        output_thresholds: vec![0.5],
        ..default.clone()
    };
    assert_eq!(
        error("lmba", one, &threshold),
        "unknown threshold '0.85'; known: 0.5, 0.9"
    );
    assert_eq!(
        error("lmbo", one, &threshold),
        "unknown threshold '0.5'; known: 0.9, 0.99, 0.999"
    );
    assert_eq!(
        error("mba-heatmap", one, &threshold),
        "unknown threshold '0.85'; known: 0.9"
    );
    let rows = ChartOptions {
        query: Query::Rows,
        ..default.clone()
    };
    assert!(error("lmbo", one, &rows).contains("supported: last, pooled"));
    assert!(error("curves", one, &rows).contains("supported: last, pooled"));
    let layer = ChartOptions {
        layers: Some(vec![3, 12]),
        ..default.clone()
    };
    assert!(error("curves", one, &layer).contains("layers 0 to 11"));
    let two = [profile.clone(), profile.clone()];
    assert!(error("curves", &two, &default).contains("one at a time"));
    let many = vec![profile.clone(); 13];
    assert!(error("lmba", &many, &default).contains("between 1 and 7"));
    assert!(error("lmbo", &many, &default).contains("between 1 and 12"));
    assert!(error("mba-heatmap", &many, &default).contains("between 1 and 12"));
    let one_cosine = ChartOptions {
        output_thresholds: vec![0.99],
        ..default.clone()
    };
    assert!(error("lmbo", &many[..8], &one_cosine).contains("between 1 and 7"));
    let no_cosine = ChartOptions {
        output_thresholds: Vec::new(),
        ..default.clone()
    };
    assert!(error("lmbo", one, &no_cosine).contains("between 1 and 7"));
    for width in [f64::NAN, 0.0, 1e9] {
        let options = ChartOptions {
            width,
            ..default.clone()
        };
        assert!(error("lmba", one, &options).contains("between 2 and 12"));
    }
}

#[test]
fn charts_of_plans_draw_no_profiles_nor_the_reverse() {
    let sample = Sample::default();
    let plans = vec![sample.plan_by_need(); 25];
    let options = ChartOptions::default();
    assert!(error("lmba", &plans, &options).contains("with --profile"));
    assert!(error("budgets", &[sample.profile()], &options).contains("with --plan"));
    assert!(error("budgets", &Vec::<BudgetPlan>::new(), &options).contains("at least one"));
    assert!(error("budgets", &plans, &options).contains("number of plans for budgets is 25"));
    let width = ChartOptions {
        width: 0.5,
        ..options
    };
    assert!(error("budgets", &plans[..1], &width).contains("between 2 and 12"));
}

#[test]
fn evaluations_without_what_a_chart_needs_are_refused() {
    let sample = SampleResults::default();
    let one = [sample.results()];
    let two = [sample.results(), sample.results()];
    let options = ChartOptions::default();
    let asked = |metric: &str, budget: &str| ChartOptions {
        metric: Some(metric.to_owned()),
        budget: Some(budget.to_owned()),
        ..ChartOptions::default()
    };
    let mut none = sample.results();
    (none.results, none.evidence) = Default::default();
    let only_full = SampleResults {
        methods: Vec::new(),
        ..sample.clone()
    };
    let only_full = [only_full.results()];
    let many = SampleResults {
        methods: "a b c d e f g h i j k l m n o p q r s t u v w x y"
            .split(' ')
            .collect(),
        prompts: 2,
        ..sample
    };
    for name in ["frontier", "needle", "evidence"] {
        assert!(error(name, &two, &options).contains("one at a time; run it once per evaluation"));
        assert!(error(name, &[none.clone()], &options).contains("unknown column"));
        assert!(
            is_lack(&draw(name, &only_full, &options, "").unwrap_err()),
            "{name}"
        );
    }
    assert!(error("frontier", &one, &asked("bleu", "64")).contains("known: kl, top1, nll"));
    let unknown = ChartOptions {
        methods: Some("snapkv,h2o".to_owned()),
        ..ChartOptions::default()
    };
    let needle = SampleResults {
        task: "needle",
        ..many.clone()
    };
    let known = "unknown method 'h2o'; known: full, snapkv, zigzag, pyramid";
    assert_eq!(error("frontier", &one, &unknown), known);
    assert_eq!(
        error("evidence", &one, &unknown),
        known.replace("full, ", "")
    );
    let few = [SampleResults {
        methods: SampleResults::default().methods,
        ..needle.clone()
    }
    .results()];
    assert_eq!(error("needle", &few, &unknown), known);
    for (chart, sample) in [
        ("frontier", &many),
        ("evidence", &many),
        ("needle", &needle),
    ] {
        let refused = error(chart, &[sample.results()], &options);
        assert!(
            refused.contains("is 25, but it must lie between 1 and 24"),
            "{refused}"
        );
        assert!(refused.contains("--methods"), "{refused}");
    }
    assert!(error("needle", &one, &options).contains("--task needle"));
    assert!(error("evidence", &one, &asked("kl", "65")).contains("known: 64, 128, 256, 512"));
    let mut short = one[0].clone();
    short.meta.model.num_layers += 1;
    assert!(error("evidence", &[short], &options).contains("evaluate again"));
}

#[test]
fn empty_incomplete_or_broken_profiles_are_refused() {
    let empty = [Sample {
        tokens: Vec::new(),
        ..Sample::default()
    }
    .profile()];
    let no_layers = [Sample {
        layers: 0,
        ..Sample::default()
    }
    .profile()];
    let mut without = Sample::default().profile();
    (without.layers, without.heads, without.curves) = Default::default();
    let mut short = Sample::default().profile();
    short.meta.model.num_layers += 1;
    short.curves = Table::default();
    for chart in CHARTS.iter().filter(|c| c.takes() == SourceKind::Profiles) {
        let options = ChartOptions::default();
        assert!(error(chart.name, &[] as &[Profile], &options).contains("at least one"));
        assert!(error(chart.name, &empty, &options).contains("number of prompts"));
        assert!(error(chart.name, &no_layers, &options).contains("number of prompts"));
        assert!(
            error(chart.name, std::slice::from_ref(&without), &options).contains("unknown column")
        );
        let refused = error(chart.name, std::slice::from_ref(&short), &options);
        assert!(
            refused.contains("profile again") || refused.contains("unknown column"),
            "{refused}"
        );
    }
}

#[test]
fn values_that_are_not_finite_are_named() {
    let mut profile = Sample::default().profile();
    profile.layers = with_nan(&profile.layers);
    profile.heads = with_nan(&profile.heads);
    profile.curves = with_nan(&profile.curves);
    let lmbo = ChartOptions {
        query: Query::Pooled,
        ..ChartOptions::default()
    };
    for (chart, column) in [
        ("lmba", "lmba_pooled_90"),
        ("lmbo", "lmbo_pooled_90_first"),
        ("mba-heatmap", "mba_pooled_90"),
        ("curves", "mass_pooled"),
    ] {
        let refused = error(chart, std::slice::from_ref(&profile), &lmbo);
        assert!(
            refused.contains(column) && refused.contains("not finite"),
            "{refused}"
        );
    }
}

/// The table with its last value of every measurement replaced by NaN.
fn with_nan(table: &Table) -> Table {
    let keys = ["prompt", "tokens", "layer", "head", "budget"];
    let mut broken = Table::default();
    for name in table.names() {
        let column = match table.column(name) {
            Some(key @ Column::Count(_)) if keys.contains(&name) => key.clone(),
            _ => {
                let mut values = table.numbers(name).unwrap();
                *values.last_mut().unwrap() = f64::NAN;
                Column::Number(values)
            }
        };
        broken.push(name, column);
    }
    broken
}

#[test]
fn hit_rates_that_cannot_be_drawn_are_refused() {
    let sample = Sample::default();
    let (one, two) = (
        [sample.hit_rates()],
        [sample.hit_rates(), sample.hit_rates()],
    );
    let options = ChartOptions::default();
    assert!(error("hitrate", &two, &options).contains("once per hit-rate run"));
    assert!(error("hitrate", &[sample.profile()], &options).contains("with --hitrate"));
    let metric = ChartOptions {
        metric: Some("kl".to_owned()),
        ..options.clone()
    };
    assert!(error("hitrate", &one, &metric).contains("known: all, beyond-sinks"));
    let empty = Sample {
        tokens: Vec::new(),
        ..Sample::default()
    };
    assert!(error("hitrate", &[empty.hit_rates()], &options).contains("number of prompts"));
    let whole = sample.hit_rates();
    let mut broken = whole.clone();
    broken.table = Table::default();
    for name in whole.table.names() {
        let column = match name {
            "overlap" => Column::Number(vec![f64::NAN; whole.table.rows()]),
            _ => whole.table.column(name).unwrap().clone(),
        };
        broken.table.push(name, column);
    }
    assert!(error("hitrate", &[broken], &options).contains("column overlap"));
}

#[test]
fn one_measurement_of_speed_with_few_modes_is_drawn() {
    use crate::eval::speed::Mode;
    let options = ChartOptions::default();
    let speed = Sample::default().speed();
    let two = [speed.clone(), speed.clone()];
    assert!(error("speed", &two, &options).contains("one at a time"));
    let mut empty = speed.clone();
    empty.measurements.clear();
    assert!(error("speed", &[empty], &options).contains("between 1 and 7"));
    let mut many = speed;
    for (budget, measurement) in many.measurements.iter_mut().enumerate().take(8) {
        measurement.mode = Mode::Budget(40 + budget);
    }
    assert!(error("speed", &[many], &options).contains("between 1 and 7"));
}

#[test]
fn one_bench_run_with_three_lengths_of_prefill_is_drawn() {
    let options = ChartOptions::default();
    let bench = Sample::default().bench();
    let refused = |change: &dyn Fn(&mut crate::bench::Bench), options: &ChartOptions| {
        let mut bench = bench.clone();
        change(&mut bench);
        error("growth", &[bench], options)
    };
    let two = [bench.clone(), bench.clone()];
    assert!(error("growth", &two, &options).contains("once per bench run"));
    assert!(error("growth", &[Sample::default().speed()], &options).contains("with --bench"));
    let few = refused(&|b| b.rows.retain(|row| row.length < 5000), &options);
    assert!(
        few.contains("number of lengths of prefill for growth is 2, but its fit needs three"),
        "{few}"
    );
    let none = refused(
        &|b| b.rows.retain(|r| r.workload == "decode-full"),
        &options,
    );
    assert!(none.contains("prefill for growth is 0"), "{none}");
    let unfitted = refused(&|b| b.growth = None, &options);
    assert!(unfitted.contains("fit of prefill is missing"), "{unfitted}");
    let metric = |name: &str| ChartOptions {
        metric: Some(name.to_owned()),
        ..options.clone()
    };
    let unknown = refused(&|_| {}, &metric("kl"));
    assert!(
        unknown.contains("unknown metric 'kl'; known: wall, cpu"),
        "{unknown}"
    );
    let untold = refused(&|b| b.rows[0].cpu = None, &metric("cpu"));
    assert!(
        untold.contains("CPU time of prefill at 1900 tokens is not known"),
        "{untold}"
    );
}

#[test]
fn one_trace_with_methods_besides_the_full_cache_is_drawn() {
    let sample = Sample::default();
    let options = ChartOptions::default();
    let trace = sample.trace();
    let two = [trace.clone(), trace.clone()];
    assert!(error("residency", &two, &options).contains("once per trace"));
    assert!(error("residency", &[sample.speed()], &options).contains("with --trace"));
    let asked = |metric: Option<&str>, methods: Option<&str>| {
        let options = ChartOptions {
            metric: metric.map(str::to_owned),
            methods: methods.map(str::to_owned),
            ..ChartOptions::default()
        };
        error("residency", std::slice::from_ref(&trace), &options)
    };
    assert!(asked(Some("kl"), None).contains("known: bytes, ms"));
    assert!(asked(None, Some("h2o")).contains("known: full, snapkv"));
    assert!(asked(None, Some("full")).contains("between 1 and 24"));
}
