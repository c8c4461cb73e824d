//! What every chart must hold: its words, its provenance, its size, and equal bytes for equal input.

use std::io::Cursor;

use super::sample::Sample;
use super::*;
use crate::budget::Granularity;
use crate::sample_results::{SampleResults, TWELVE};
use serde_json::json;

fn drawn<'s>(name: &str, subject: impl Into<Subject<'s>>, options: &ChartOptions) -> Figure {
    draw(name, subject, options, "kvprof plot <chart> & more").unwrap()
}

/// Any chart of a sample: its profile, or a plan by its needs.
fn drawn_of(chart: &Chart, sample: &Sample, options: &ChartOptions) -> Figure {
    match chart.takes() {
        SubjectKind::Profiles => drawn(chart.name, &[sample.profile()], options),
        SubjectKind::Plans => drawn(chart.name, &vec![sample.plan_by_need()], options),
        SubjectKind::Speeds => drawn(chart.name, &[sample.speed()], options),
        SubjectKind::Benches => drawn(chart.name, &[sample.bench()], options),
        SubjectKind::HitRates => drawn(chart.name, &[sample.hit_rates()], options),
        SubjectKind::Results => drawn(chart.name, &[evaluation(chart).results()], options),
    }
}

/// An evaluation that `chart` can show.
fn evaluation(chart: &Chart) -> SampleResults {
    SampleResults {
        task: if chart.name == "needle" {
            "needle"
        } else {
            "qa"
        },
        layers: 12,
        ..SampleResults::default()
    }
}

/// The words of an SVG, in the order drawn.
fn words(svg: &str) -> Vec<String> {
    let texts = svg.split("<text").skip(1);
    let content = |t: &str| {
        t.split_once('>')
            .and_then(|(_, rest)| rest.split_once("</text>").map(|(w, _)| w.trim().to_owned()))
    };
    texts
        .filter_map(content)
        .filter(|w| !w.is_empty())
        .collect()
}

fn shows(figure: &Figure, expected: &[&str]) {
    let words = words(&figure.svg);
    for word in expected {
        assert!(
            words.iter().any(|w| w == word),
            "{word} is not among {words:?}"
        );
    }
}

/// Every element is closed, every attribute quoted, no bare ampersand.
fn is_well_formed(svg: &str) {
    let mut open = Vec::new();
    for piece in svg.split('<').skip(1) {
        let (tag, text) = piece.split_once('>').unwrap();
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        for reference in text.split('&').skip(1).chain(tag.split('&').skip(1)) {
            assert!(
                reference
                    .split_once(';')
                    .is_some_and(|(name, _)| name.len() < 6),
                "{reference}"
            );
        }
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !tag.starts_with('?') && !tag.ends_with('/') {
            open.push(tag.split_whitespace().next().unwrap());
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

fn png_info(figure: &Figure) -> (u32, u32, String) {
    let reader = png::Decoder::new(Cursor::new(&figure.png))
        .read_info()
        .unwrap();
    let info = reader.info();
    let texts = info.utf8_text.iter();
    let record = texts
        .filter(|t| t.keyword == "Description")
        .map(|t| t.get_text().unwrap())
        .collect();
    assert_eq!(
        info.pixel_dims.unwrap().xppu,
        15748,
        "400 dpi in pixels per metre"
    );
    (info.width, info.height, record)
}

#[test]
fn every_chart_keeps_its_contract() {
    let sample = Sample::default();
    for chart in CHARTS {
        let figure = drawn_of(chart, &sample, &ChartOptions::default());
        is_well_formed(&figure.svg);
        assert!(figure.svg.contains("width=\"3.4in\""), "{}", chart.name);
        assert!(
            figure
                .svg
                .contains("command: kvprof plot &lt;chart&gt; &amp; more")
        );
        assert!(figure.svg.contains("from made up &lt;here&gt; &amp; now"));
        assert!(figure.svg.contains(&"a1".repeat(32)) && figure.svg.contains(&"b2".repeat(32)));
        let (width, height, record) = png_info(&figure);
        assert_eq!(width, 1360);
        assert!(
            (500..1700).contains(&height),
            "{} is {height} high",
            chart.name
        );
        assert!(record.contains("command: kvprof plot <chart> & more\nkvprof: "));
        assert!(record.contains(&"a1".repeat(32)) && record.contains(&"b2".repeat(32)));
        assert_eq!(figure, drawn_of(chart, &sample, &ChartOptions::default()));
        // At 3.4 inches, 7 points are 116.7 units of 1/1200 inch.
        let sizes = figure
            .svg
            .split("font-size=\"")
            .skip(1)
            .map(|s| s.split('"').next().unwrap());
        assert!(
            sizes
                .map(|s| s.parse::<f64>().unwrap())
                .all(|size| size >= 116.0)
        );
    }
}

#[test]
fn lmba_names_axes_units_and_profiles() {
    let other = Sample {
        model: "sample-7b",
        layers: 20,
        ..Sample::default()
    };
    let profiles = [Sample::default().profile(), other.profile()];
    let figure = drawn("lmba", &profiles, &ChartOptions::default());
    shows(
        &figure,
        &[
            "Layer",
            "LMBA, pooled, τ=0.9 (tokens)",
            "sample-1b, T = 1,900–2,053",
            "sample-7b, T = 1,900–2,053",
            "10th–90th percentile of 10 prompts",
            "15",
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
        &["LMBA, pooled, τ=0.5 (tokens)", "10", "100"],
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
            "LMBO, pooled, first (tokens)",
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
            "LMBO, pooled, raw, stable (tokens)",
            "sample-7b, T = 1,900–2,053",
        ],
    );
    assert!(png_info(&both).1 > png_info(&figure).1);
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
            "MBA, pooled, τ=0.9 (tokens)",
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
            "1 − cos(y, ŷ), pooled",
            "Budget (tokens per head)",
            "Layer",
            "A &lt;title&gt;",
            "0.001",
            "1,000",
        ],
    );
    assert_eq!(png_info(&figure).0, 2800);
}

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

#[test]
fn degenerate_profiles_are_drawn() {
    let base = Sample::default;
    let flat: fn(usize, usize, usize) -> f64 = |_, _, _| 7.0;
    let samples = [
        Sample {
            layers: 1,
            ..base()
        },
        Sample {
            tokens: vec![2000],
            ..base()
        },
        Sample {
            heads: 1,
            kv_heads: 1,
            ..base()
        },
        Sample {
            mba: flat,
            ..base()
        },
        Sample {
            tokens: vec![1],
            ..base()
        },
        Sample {
            tokens: vec![1, 2],
            layers: 1,
            heads: 1,
            kv_heads: 1,
            mba: flat,
            ..base()
        },
        Sample {
            tokens: vec![64, 100_000],
            layers: 120,
            heads: 2,
            kv_heads: 1,
            ..base()
        },
        Sample {
            model: "a\u{0}model\u{1b}[31m with a name & <marks> far longer than any column is wide",
            ..base()
        },
    ];
    for sample in samples {
        for chart in CHARTS {
            for log in [false, true] {
                let options = ChartOptions {
                    log,
                    ..ChartOptions::default()
                };
                let figure = drawn_of(chart, &sample, &options);
                is_well_formed(&figure.svg);
                assert!(!figure.svg.contains(['\u{0}', '\u{1b}']) && !figure.svg.contains("NaN"));
                assert!(words(&figure.svg).len() >= 5, "{:?}", words(&figure.svg));
            }
        }
    }
}

#[test]
fn figures_are_written_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let figure = drawn(
        "lmba",
        &[Sample::default().profile()],
        &ChartOptions::default(),
    );
    let [svg, png] = figure.write(&folder.path().join("plots/lmba.0.9")).unwrap();
    assert!(svg.ends_with("plots/lmba.0.9.svg") && png.ends_with("plots/lmba.0.9.png"));
    assert_eq!(std::fs::read_to_string(svg).unwrap(), figure.svg);
    assert_eq!(std::fs::read(png).unwrap(), figure.png);
}

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
            "KL from the full cache (nats)",
            "Held KV cache (MB per prompt)",
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
            "Held KV cache (% of the full cache)",
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

#[test]
fn speed_names_modes_units_and_lengths() {
    let sample = Sample {
        tokens: vec![512, 1024, 2048],
        ..Sample::default()
    };
    let both = [
        "Time per token (ms)",
        "KV cache held (MB)",
        "Context length (tokens)",
        "no cache",
        "full cache",
        "budget 256",
        "budget 64",
        "min–max of 3 repeats",
        "512",
        "2,048",
        "1,000",
    ];
    let column = drawn("speed", &vec![sample.speed()], &ChartOptions::default());
    shows(&column, &both);
    let page = ChartOptions {
        width: PAGE,
        ..ChartOptions::default()
    };
    let page = drawn("speed", &vec![sample.speed()], &page);
    shows(&page, &both);
    assert!(png_info(&page).1 < png_info(&column).1);
    let mut once = sample.speed();
    once.measurements.retain(|m| m.repeat == 0);
    let once = drawn("speed", &vec![once], &ChartOptions::default());
    assert!(!words(&once.svg).iter().any(|w| w.contains("repeats")));
}

#[test]
fn growth_names_workloads_fit_and_floor() {
    let sample = Sample {
        tokens: vec![512],
        ..Sample::default()
    };
    let both = [
        "Time (s)",
        "Time over prefill",
        "Prompt length T (tokens)",
        "bare prefill",
        "profile of 32 rows",
        "profile of 128 rows",
        "profile of all rows",
        "fit of prefill: 2.31 ms · T + 155 ns · T²",
        "operations of prefill at the machine’s limit",
        "min–max of 3 repeats",
        "512",
        "1,024",
        "2,048",
    ];
    let draw = |bench, options: &ChartOptions| drawn("growth", &vec![bench], options);
    let column = draw(sample.bench(), &ChartOptions::default());
    shows(&column, &both);
    let page = ChartOptions {
        width: PAGE,
        ..ChartOptions::default()
    };
    let page = draw(sample.bench(), &page);
    shows(&page, &both);
    assert!(png_info(&page).1 < png_info(&column).1);
    let cpu = ChartOptions {
        metric: Some("cpu".to_owned()),
        ..ChartOptions::default()
    };
    let cpu = draw(sample.bench(), &cpu);
    let fit = "fit of prefill: 4.62 ms · T + 310 ns · T²";
    shows(&cpu, &["CPU time (s)", "CPU time over prefill", fit]);
}

#[test]
fn growth_leaves_out_what_was_not_measured() {
    let draw = |bench| drawn("growth", &vec![bench], &ChartOptions::default());
    let whole = draw(Sample::default().bench());
    let mut bench = Sample::default().bench();
    bench.rows.retain(|row| row.workload != "profile-32");
    bench.growth.as_mut().unwrap().linear_at_limit = None;
    let fewer = words(&draw(bench.clone()).svg);
    let has = |words: &[String], part: &str| words.iter().any(|w| w.contains(part));
    assert!(!has(&fewer, "32 rows") && !has(&fewer, "machine’s limit"));
    assert!(has(&fewer, "128 rows") && has(&fewer, "Time over prefill"));
    bench.rows.retain(|row| row.workload == "prefill");
    bench.repeats = 1;
    let bare = draw(bench);
    let words = words(&bare.svg);
    assert!(!has(&words, "Time over prefill") && !has(&words, "repeats"));
    assert!(has(&words, "fit of prefill"));
    assert!(png_info(&bare).1 < png_info(&whole).1);
    // A pen belongs to its workload, whichever others are there.
    let colour = "#CC79A7";
    assert!(whole.svg.contains(colour) && !bare.svg.contains(colour));
}

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
