//! What every chart must hold: its words, its provenance, its size, and equal bytes for equal input.

mod costs;
mod evaluations;
mod hit_rates;
mod legibility;
mod models;
mod options_read;
mod plans;
mod profiles;
mod refusals;
mod residency;
pub mod sample;
mod sample_costs;
mod sample_trace;

use std::io::Cursor;

use super::*;
use crate::sample_results::SampleResults;
use sample::Sample;

fn drawn<S: Source>(name: &str, all: &[S], options: &ChartOptions) -> Figure {
    draw(name, all, options, "kvprof plot <chart> & more").unwrap()
}

/// What `chart` is drawn from, of a sample.
fn source_of(chart: &Chart, sample: &Sample) -> Box<dyn Source> {
    match chart.takes() {
        SourceKind::Profiles => Box::new(sample.profile()),
        SourceKind::Plans => Box::new(sample.plan_by_need()),
        SourceKind::Speeds => Box::new(sample.speed()),
        SourceKind::Benches => Box::new(sample.bench()),
        SourceKind::Traces => Box::new(sample.trace()),
        SourceKind::HitRates => Box::new(sample.hit_rates()),
        SourceKind::Results => Box::new(evaluation(chart).results()),
    }
}

/// Any chart of a sample.
fn drawn_of(chart: &Chart, sample: &Sample, options: &ChartOptions) -> Figure {
    let command = "kvprof plot <chart> & more";
    let source = source_of(chart, sample);
    chart.draw(&[&*source], options, command).unwrap()
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
