//! The chart of residencies over a long text names methods, what is offloaded, and windows of time.

use super::*;

fn with(metric: &str, methods: Option<&str>) -> ChartOptions {
    ChartOptions {
        metric: Some(metric.to_owned()),
        methods: methods.map(str::to_owned),
        ..ChartOptions::default()
    }
}

#[test]
fn bytes_name_every_line_once() {
    let all = [Sample::default().trace()];
    let figure = drawn("residency", &all, &ChartOptions::default());
    shows(
        &figure,
        &[
            "KV cache (MB, log scale)",
            "Tokens written",
            "full cache",
            "snapkv",
            "snapkv+evict-h2o, snapkv+evict-tova",
            "clusterkv",
            "clusterkv, offloaded",
            "sample-1b, prompts-2k",
            "prompt of T = 1,900 tokens, B = 64 tokens per KV head",
        ],
    );
    assert_eq!(figure, drawn("residency", &all, &with("bytes", None)));
    let one = drawn("residency", &all, &with("bytes", Some("snapkv")));
    let words = words(&one.svg);
    assert!(words.iter().any(|w| w == "full cache"), "{words:?}");
    assert!(!words.iter().any(|w| w.contains("offloaded")), "{words:?}");
}

#[test]
fn times_are_medians_with_their_quartiles() {
    let all = [Sample::default().trace()];
    let together = drawn("residency", &all, &with("ms", Some("snapkv,clusterkv")));
    shows(
        &together,
        &[
            "Time per token (ms)",
            "full cache",
            "medians and quartiles of 8 steps in 3 repeats",
            "f32 on cpu, 2 threads",
        ],
    );
    let apart = drawn("residency", &all, &with("ms", None));
    shows(
        &apart,
        &["ms per token", "the method named", "the others", "zigzag"],
    );
    assert!(png_info(&apart).1 > png_info(&together).1);
}

#[test]
fn lines_that_are_alike_share_one_and_many_have_a_panel_each() {
    let mut trace = Sample::default().trace();
    for index in 0..6 {
        let mut more = trace.methods[1].clone();
        more.name = format!("more-{index}");
        trace.methods.push(more);
    }
    let shared = drawn("residency", &[trace.clone()], &ChartOptions::default());
    assert!(!words(&shared.svg).iter().any(|w| w == "the method named"));
    for (index, method) in trace.methods.iter_mut().enumerate() {
        method.steps[0].bytes.resident += index;
    }
    let apart = drawn("residency", &[trace], &ChartOptions::default());
    shows(
        &apart,
        &["the method named", "the others", "offloaded", "more-5"],
    );
}
