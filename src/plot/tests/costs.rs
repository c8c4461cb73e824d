//! Charts of times and bytes name workloads, lengths and repeats.

use super::*;

#[test]
fn speed_names_modes_units_and_lengths() {
    let sample = Sample {
        tokens: vec![512, 1024, 2048],
        ..Sample::default()
    };
    let both = [
        "Time per token (ms, log scale)",
        "KV cache held (MB, log scale)",
        "Context length (tokens, log scale)",
        "no cache",
        "full cache",
        "budget 256",
        "budget 64",
        "min–max of 3 repeats",
        "512",
        "2,048",
        "1,000",
    ];
    let column = drawn("speed", &[sample.speed()], &ChartOptions::default());
    shows(&column, &both);
    let page = ChartOptions {
        width: PAGE,
        ..ChartOptions::default()
    };
    let page = drawn("speed", &[sample.speed()], &page);
    shows(&page, &both);
    assert!(png_info(&page).1 < png_info(&column).1);
    let mut once = sample.speed();
    once.measurements.retain(|m| m.repeat == 0);
    let once = drawn("speed", &[once], &ChartOptions::default());
    assert!(!words(&once.svg).iter().any(|w| w.contains("repeats")));
}

#[test]
fn growth_names_workloads_fit_and_floor() {
    let sample = Sample {
        tokens: vec![512],
        ..Sample::default()
    };
    let both = [
        "Time (s, log scale)",
        "Time over prefill",
        "Prompt length T (tokens, log scale)",
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
    let draw = |bench, options: &ChartOptions| drawn("growth", &[bench], options);
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
    shows(
        &cpu,
        &["CPU time (s, log scale)", "CPU time over prefill", fit],
    );
}

#[test]
fn growth_leaves_out_what_was_not_measured() {
    let draw = |bench| drawn("growth", &[bench], &ChartOptions::default());
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
