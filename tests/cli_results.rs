//! Charts and the report of an evaluation, from the command line.
#![allow(clippy::unwrap_used)]

mod binary;
mod sample_results;

use std::fs;
use std::path::Path;

use binary::{PROFILE, kvprof, printed, refusal};
use sample_results::SampleResults;

/// A folder with the evaluations `qa` and `needle`.
fn evaluations() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for task in ["qa", "needle"] {
        fs::create_dir(folder.path().join(task)).unwrap();
        let sample = SampleResults {
            task,
            layers: 6,
            prompts: 12,
            ..SampleResults::default()
        };
        sample.write(&folder.path().join(task));
    }
    folder
}

#[test]
fn all_charts_of_the_sources_are_drawn_and_the_rest_is_named() {
    let folder = evaluations();
    let profile = Path::new(env!("CARGO_MANIFEST_DIR")).join(PROFILE);
    let run = kvprof(folder.path())
        .args([
            "plot",
            "all",
            "--results",
            "qa",
            "--out",
            "figures",
            "--profile",
        ])
        .arg(profile)
        .assert()
        .success();
    let said = String::from_utf8_lossy(&run.get_output().stderr).into_owned();
    assert!(said.contains("skipped budgets: no --plan"), "{said}");
    assert!(
        said.contains("skipped needle: number of rows with length and depth is 0"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 4, "{said}");
    let written = String::from_utf8_lossy(&run.get_output().stdout).into_owned();
    let charts = [
        "lmba",
        "lmbo",
        "mba-heatmap",
        "curves",
        "frontier",
        "evidence",
    ];
    assert_eq!(written.lines().count(), 2 * charts.len(), "{written}");
    for chart in charts {
        let svg = fs::read_to_string(folder.path().join(format!("figures/{chart}.svg"))).unwrap();
        assert!(
            svg.contains("command: kvprof plot all --results qa"),
            "{chart}"
        );
    }
}

#[test]
fn one_chart_takes_its_own_source_metric_and_budget() {
    let folder = evaluations();
    let path = folder.path();
    let needle = [
        "plot",
        "needle",
        "--results",
        "needle",
        "--metric",
        "evidence",
        "--budget",
        "256",
    ];
    assert_eq!(printed(path, &needle), "needle.svg\nneedle.png\n");
    let svg = fs::read_to_string(path.join("needle.svg")).unwrap();
    assert!(svg.contains("Evidence kept (%)") && svg.contains("B = 256 tokens per KV head"));
    let other = refusal(
        path,
        &["plot", "needle", "--results", "needle", "--budget", "65"],
        1,
    );
    assert!(
        other.contains("unknown budget '65'; known: 64, 128, 256, 512"),
        "{other}"
    );
    let mixed = refusal(
        path,
        &["plot", "frontier", "--results", "qa", "--profile", "p"],
        1,
    );
    assert!(
        mixed.contains("frontier is drawn from evaluations: leave p out"),
        "{mixed}"
    );
    let nothing = refusal(path, &["plot", "all"], 1);
    assert!(
        nothing.contains("--profile, --plan, --results"),
        "{nothing}"
    );
    let folder = refusal(path, &["plot", "frontier", "--results", "nowhere"], 1);
    assert!(folder.contains("is not an evaluation folder"), "{folder}");
}

#[test]
fn a_report_is_one_file_or_an_error_before_reading() {
    let folder = evaluations();
    let path = folder.path();
    assert_eq!(
        printed(path, &["report", "qa", "--out", "pages/qa.html"]),
        "pages/qa.html\n"
    );
    let page = fs::read_to_string(path.join("pages/qa.html")).unwrap();
    assert!(page.contains("<code>kvprof report qa --out pages&#x2f;qa.html</code>"));
    assert_eq!(fs::read_dir(path.join("pages")).unwrap().count(), 1);
    let place = refusal(path, &["report", "nowhere", "--out", "qa"], 1);
    assert!(place.contains("is a folder"), "{place}");
    assert!(refusal(path, &["report", "nowhere"], 1).contains("is not an evaluation folder"));
}
