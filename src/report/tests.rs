//! What a report must hold before any browser sees it.

use super::*;
use crate::sample_results::SampleResults;

fn line(results: &Results, metric: &str, method: &str, budget: &str) -> Line {
    let lines = means(results).unwrap();
    let mut found = lines.into_iter().filter(|line| {
        line.metric.name == metric && line.method == method && line.budget == budget
    });
    found.next().unwrap()
}

#[test]
fn means_leave_failures_out() {
    let sample = SampleResults {
        methods: vec!["snapkv", "random"],
        prompts: 3,
        ..SampleResults::default()
    };
    let results = sample.results();
    assert_eq!(line(&results, "kl", "random", "64").prompts, 2);
    assert_eq!(line(&results, "kl", "snapkv", "64").prompts, 3);
    let full = line(&results, "top1", "full", "full");
    assert_eq!((full.mean, full.prompts), (1.0, 3));
    // (1900 + 1907 + 1914) / 3 tokens of 30 layers, 3 KV heads, keys and values of 64 f32.
    assert_eq!(full.kv_bytes, 1907.0 * 30.0 * 3.0 * 64.0 * 8.0);
}

#[test]
fn a_page_is_escaped_whole_and_needs_nothing_else() {
    let sample = SampleResults {
        methods: vec!["snapkv", "random"],
        ..SampleResults::default()
    };
    let results = sample.results();
    let mut lines = means(&results).unwrap();
    for line in &mut lines {
        if line.method == "random" {
            line.difference = Some(PairedDifference {
                baseline: "snapkv".to_owned(),
                pairs: 39,
                mean: -0.25,
                low: -0.5,
                high: 0.125,
                sign_p: 0.75,
                verdict: "no difference shown".to_owned(),
            });
        }
    }
    let page = page(&results, &lines, "kvprof report 'a <b> & c'").unwrap();
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
    assert!(
        means(&results)
            .unwrap_err()
            .to_string()
            .contains("unknown column")
    );
    assert!(page(&results, &[], "").is_err());
}
