//! What a reader of any chart must find: where it comes from, the first and the last layer, and ends of axes.

use super::*;

#[test]
fn every_chart_says_what_model_it_is_of() {
    let sample = Sample::default();
    for chart in CHARTS {
        for width in [COLUMN, PAGE] {
            let options = ChartOptions {
                width,
                ..ChartOptions::default()
            };
            let words = words(&drawn_of(chart, &sample, &options).svg);
            let model = words.iter().filter(|w| w.contains("sample-1b")).count();
            assert_eq!(model, 1, "{} at {width}: {words:?}", chart.name);
        }
    }
}

#[test]
fn the_first_and_the_last_layer_have_a_label() {
    let sample = Sample::default();
    for chart in CHARTS {
        let figure = drawn_of(chart, &sample, &ChartOptions::default());
        if words(&figure.svg).iter().any(|w| w == "Layer") {
            shows(&figure, &["0", "11"]);
        }
    }
}

#[test]
fn markers_on_the_rim_of_a_panel_are_whole() {
    // 1,000 tokens lie on the end of the axis, where half a marker stands above it.
    let sample = Sample {
        mba: |_, layer, _| if layer == 5 { 1000.0 } else { 400.0 },
        ..Sample::default()
    };
    let figure = drawn("lmba", &[sample.profile()], &ChartOptions::default());
    shows(&figure, &["1,000"]);
    let discs = figure.svg.split("<circle ").skip(1);
    let place = |disc: &str| -> i32 {
        let after = disc.split("cy=\"").nth(1).unwrap();
        after.split('"').next().unwrap().parse().unwrap()
    };
    // The legend's own disc is above all of them, the marker of layer 5 next.
    let mut places: Vec<i32> = discs.map(place).collect();
    places.sort_unstable();
    let radius = figure::points(1.7);
    let grid = figure.svg.split("<line ").skip(1).map(|line| {
        let after = line.split("y1=\"").nth(1).unwrap();
        after.split('"').next().unwrap().parse::<i32>().unwrap()
    });
    let top = grid.min().unwrap();
    assert!(places[1] <= top + 3, "{} is not at {top}", places[1]);
    assert!(
        places[1] > places[0] + 2 * radius,
        "the legend is clear of it"
    );
}
