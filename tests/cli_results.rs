//! Charts and the report of an evaluation, from the command line.
#![allow(clippy::unwrap_used)]

mod binary;
mod sample_results;

use std::fs;
use std::path::Path;

use binary::{PROFILE, kvprof, printed, refusal};
use kvprof::plot::{CHARTS, ChartOption, ChartOptions};
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
    assert!(said.contains("skipped growth: no --bench"), "{said}");
    assert!(said.contains("skipped residency: no --trace"), "{said}");
    assert_eq!(said.lines().count(), 6, "{said}");
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

/// `--NAME` of an option that some charts read, with a value where it takes one.
fn with_value(option: ChartOption) -> Option<Vec<String>> {
    let value = match option {
        ChartOption::Query => "last",
        ChartOption::Threshold => "0.9",
        ChartOption::OutputThresholds => "0.9,0.99",
        ChartOption::Crossing => "first",
        ChartOption::Depth => "relative",
        ChartOption::Raw | ChartOption::Relative | ChartOption::Log => "",
        ChartOption::Metric => "kl",
        ChartOption::Methods => "snapkv",
        ChartOption::Budget => "64",
        ChartOption::Layers => return None,
    };
    let words = [format!("--{}", option.name()), value.to_owned()];
    Some(words.into_iter().filter(|word| !word.is_empty()).collect())
}

#[test]
fn options_that_a_chart_does_not_read_are_refused_before_any_file_is() {
    let folder = tempfile::tempdir().unwrap();
    for chart in CHARTS {
        for option in ChartOption::ALL {
            let Some(given) = with_value(option) else {
                continue;
            };
            let source = [chart.takes().option(), "nowhere"];
            let line = ["plot", chart.name].into_iter().chain(source);
            let line: Vec<&str> = line.chain(given.iter().map(String::as_str)).collect();
            let said = refusal(folder.path(), &line, 1);
            match chart.reads.contains(&option) {
                true => assert!(said.contains("nowhere"), "{said}"),
                false => {
                    let words = format!("{} does not read {}:", chart.name, given[0]);
                    assert!(said.contains(&words) && !said.contains("nowhere"), "{said}");
                    let readers = kvprof::plot::readers(option);
                    assert!(said.contains(&format!("it is for {readers}")), "{said}");
                }
            }
        }
    }
}

#[test]
fn all_charts_take_any_option_and_name_those_without_use() {
    let folder = evaluations();
    let given = ["--methods", "zigzag,snapkv", "--threshold", "0.9"];
    let run = kvprof(folder.path())
        .args(["plot", "all", "--results", "qa"])
        .args(given)
        .assert()
        .success();
    let said = String::from_utf8_lossy(&run.get_output().stderr).into_owned();
    let unused = "unused --threshold: it is for lmba, mba-heatmap";
    assert!(said.lines().any(|line| line == unused), "{said}");
    assert!(!said.contains("--methods"), "{said}");
    let svg = fs::read_to_string(folder.path().join("plots/frontier.svg")).unwrap();
    assert!(svg.find(">\nzigzag\n").unwrap() < svg.find(">\nsnapkv\n").unwrap());
    assert!(!svg.contains("pyramid"));
}

#[test]
fn help_shows_the_defaults_that_the_library_has() {
    let folder = tempfile::tempdir().unwrap();
    let help = printed(folder.path(), &["plot", "--help"]);
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let default = ChartOptions::default();
    let thresholds: Vec<String> = (default.output_thresholds.iter())
        .map(f64::to_string)
        .collect();
    for (option, value) in [
        ("query", default.query.name().to_owned()),
        ("threshold", default.threshold.to_string()),
        ("output-thresholds", thresholds.join(",")),
        ("crossing", default.crossing.name().to_owned()),
        ("width", default.width.to_string()),
    ] {
        let own = help.split(&format!("--{option} <")).nth(1).unwrap();
        let own = own.split(" --").next().unwrap();
        assert!(own.ends_with(&format!("[default: {value}]")), "{own}");
    }
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
