//! What a report must hold before any browser sees it.

use super::*;
use crate::eval::{Interval, Verdict, compare};
use crate::sample_results::SampleResults;

fn rows(results: &Results) -> Vec<Row> {
    compare(&results.results, "snapkv", 0, 200).unwrap()
}

#[test]
fn means_leave_failures_out() {
    let sample = SampleResults {
        methods: vec!["snapkv", "random"],
        prompts: 3,
        ..SampleResults::default()
    };
    let results = sample.results();
    let rows = rows(&results);
    let row = |metric: &str, method: &str| {
        let mut found = rows.iter();
        let found = found.find(|r| r.metric.name == metric && r.method == method);
        found.unwrap()
    };
    assert_eq!(row("kl", "random").n, 2);
    assert_eq!(row("kl", "snapkv").n, 3);
    let full = row("top1", "full");
    assert_eq!((full.mean, full.n), (1.0, 3));
    // (1900 + 1907 + 1914) / 3 tokens of 30 layers, 3 KV heads, keys and values of 64 f32.
    assert_eq!(
        row("kv_bytes", "full").mean,
        1907.0 * 30.0 * 3.0 * 64.0 * 8.0
    );
}

#[test]
fn a_page_is_escaped_whole_and_needs_nothing_else() {
    let sample = SampleResults {
        methods: vec!["snapkv", "random"],
        ..SampleResults::default()
    };
    let results = sample.results();
    let mut rows = rows(&results);
    for row in rows.iter_mut().filter(|row| row.method == "random") {
        if let Some(paired) = &mut row.paired {
            (paired.difference, paired.sign_test_p) = (-0.25, 0.75);
            paired.interval = Some(Interval {
                low: -0.5,
                high: 0.125,
            });
            row.verdict = Some(Verdict::NoDifferenceShown);
        }
    }
    let page = page(&results, &rows, "snapkv", "kvprof report 'a <b> & c'").unwrap();
    assert!(page.contains("made up &lt;here&gt; &amp; now"));
    assert!(page.contains("the seed &lt;0&gt; &amp; no other is refused"));
    assert!(!page.contains("<here>") && !page.contains("a <b>"));
    assert!(page.contains("Differences are from snapkv at the same budget"));
    assert!(page.contains(">\u{2212}0.5000 to 0.1250<") && page.contains(">\u{2212}25.0<"));
    assert!(page.contains("n = 40 prompts"));
    assert_eq!(page.matches("<svg").count(), 2);
    assert!(page.contains("needle: number of rows with length and depth is 0"));
    for outside in ["http://", "https://", "src=", "@import", "url("] {
        let known = page.matches("http://www.w3.org/2000/svg").count();
        let found = page.matches(outside).count();
        assert_eq!(
            found,
            if outside == "http://" { known } else { 0 },
            "{outside}"
        );
    }
    assert_eq!(
        page.matches("<table>").count(),
        page.matches("<caption>").count()
    );
    assert!(!page.contains("NaN<") && !page.contains("none<"));
}

#[test]
fn an_evaluation_without_its_columns_is_refused() {
    let mut results = SampleResults::default().results();
    results.results = Default::default();
    assert!(page(&results, &[], "snapkv", "").is_err());
}
