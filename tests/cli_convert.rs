//! `kvprof convert` on plans of the shipped profile.
#![allow(clippy::unwrap_used)]

mod binary;

use std::fs;

use binary::{allocate, json, printed, profile, refusal};
use kvprof::budget::BudgetPlan;
use kvprof::budget::interchange::{BudgetCurve, read_npy, write_npy};

/// L x H_kv of the shipped profile.
const CELLS: usize = 90;

/// Its longest prompt.
const LONGEST: usize = 2038;

#[test]
fn plans_travel_to_other_tools_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let profile = profile();
    let write = ["--budget", "12%", "--out", "plan.json", "--quiet"];
    printed(path, &allocate(&profile, "zigzag", &write));
    let heads = [
        "--budget",
        "12%",
        "--granularity",
        "head",
        "--out",
        "heads.json",
        "--quiet",
    ];
    printed(path, &allocate(&profile, "mass-optimal", &heads));
    let read = |name: &str| BudgetPlan::read(&path.join(name)).unwrap();

    let said = printed(path, &["convert", "plan.json", "--out", "ratios.json"]);
    assert!(said.contains("PerLayerCompressionPress"), "{said}");
    assert_eq!(json(path.join("ratios.json")).as_array().unwrap().len(), 30);
    printed(
        path,
        &["convert", "plan.json", "--out", "ratios.json", "--quiet"],
    );
    let back = [
        "convert",
        "ratios.json",
        "--out",
        "back.json",
        "--like",
        "plan.json",
    ];
    printed(path, &back);
    // A total of 22,010 leaves tokens over that equal heads cannot have.
    for (kept, meant) in read("back.json")
        .tokens
        .iter()
        .zip(&read("plan.json").tokens)
    {
        assert!(kept.iter().all(|k| Some(k) == meant.iter().min()));
    }

    let said = printed(path, &["convert", "heads.json", "--out", "heads.npy"]);
    // 1 % of 2038 tokens are 20.38, 2 % are 40.76.
    let even = "; the row of 99 % removed leaves less than the floor of 36 tokens per head: what it leaves is \
                spread evenly";
    assert!(said.contains(even), "{said}");
    let back = [
        "convert",
        "heads.npy",
        "--budget",
        "12%",
        "--profile",
        &profile,
        "--out",
        "hback.json",
    ];
    printed(path, &back);
    assert_eq!(read("hback.json").tokens, read("heads.json").tokens);
    assert_eq!(
        read("hback.json").provenance.source.as_deref(),
        Some("heads.npy")
    );

    // The curve of a plan's shares is that plan's; allocated anew it is the strategy's at any budget.
    let anew = [
        "convert",
        "heads.json",
        "--profile",
        &profile,
        "--out",
        "anew.npy",
    ];
    assert!(printed(path, &anew).contains("anew by mass-optimal"));
    let half = [
        "--budget",
        "50%",
        "--granularity",
        "head",
        "--out",
        "half.json",
        "--quiet",
    ];
    printed(path, &allocate(&profile, "mass-optimal", &half));
    for (curve, same) in [("heads.npy", false), ("anew.npy", true)] {
        let back = [
            "convert",
            curve,
            "--budget",
            "50%",
            "--like",
            "half.json",
            "--out",
            "b.json",
        ];
        printed(path, &[&back[..], &["--force"]].concat());
        assert_eq!(
            read("b.json").tokens == read("half.json").tokens,
            same,
            "{curve}"
        );
    }

    let scores: Vec<String> = (0..30)
        .flat_map(|l| (0..9).map(move |h| format!("\"{l}-{h}\": [0.1, {h}.5]")))
        .collect();
    fs::write(
        path.join("scores.json"),
        format!("{{{}}}", scores.join(",")),
    )
    .unwrap();
    let scores = [
        "convert",
        "scores.json",
        "--budget",
        "128",
        "--beta",
        "1.2",
        "--profile",
        &profile,
        "--out",
        "scored.json",
    ];
    printed(path, &scores);
    let scored = read("scored.json");
    assert_eq!(scored.tokens.iter().flatten().sum::<usize>(), 128 * CELLS);
    assert!(
        scored
            .tokens
            .iter()
            .all(|heads| heads[0] < heads[1] && heads[1] < heads[2])
    );
}

#[test]
fn conversions_that_cannot_be_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let profile = profile();
    printed(
        path,
        &allocate(
            &profile,
            "zigzag",
            &["--budget", "128", "--out", "p.json", "--quiet"],
        ),
    );
    let heads = [
        "--budget",
        "128",
        "--granularity",
        "head",
        "--out",
        "h.json",
        "--quiet",
    ];
    printed(path, &allocate(&profile, "zigzag", &heads));
    printed(path, &["convert", "p.json", "--out", "r.json", "--quiet"]);
    printed(path, &["convert", "h.json", "--out", "c.npy", "--quiet"]);
    fs::write(path.join("text.json"), "no JSON").unwrap();
    fs::write(path.join("number.json"), "3").unwrap();
    fs::copy(path.join("c.npy"), path.join("array")).unwrap();
    fs::write(path.join("ratios.json"), "[0.5, 2]").unwrap();
    fs::write(path.join("scores.json"), "{\"0-0\": [1]}").unwrap();
    for (arguments, words) in [
        (&["h.json"][..], "--granularity layer"),
        (&["p.json", "--to", "plan"], "already"),
        (&["p.json", "--like", "h.json"], "a plan knows its model"),
        (&["r.json"], "says nothing of its model"),
        (
            &["r.json", "--like", "p.json", "--budget", "128"],
            "has its own",
        ),
        (
            &["r.json", "--like", "p.json", "--beta", "2"],
            "--beta belongs",
        ),
        (&["r.json", "--from", "plan"], "is not a budget plan"),
        (&["c.npy", "--like", "p.json"], "99 budgets"),
        (
            &["c.npy", "--like", "p.json", "--budget", "12.5%"],
            "whole per cents",
        ),
        (&["ratios.json", "--like", "p.json"], "ratio 2"),
        (
            &[
                "scores.json",
                "--like",
                "p.json",
                "--budget",
                "64",
                "--beta",
                "2",
            ],
            "head scores",
        ),
        (
            &["scores.json", "--like", "p.json", "--budget", "64"],
            "--beta is needed",
        ),
        (
            &["text.json"],
            "neither .npy nor JSON: expected ident at line 1 column 2",
        ),
        (&["number.json"], "say what it is with --from"),
        (&["array", "--like", "p.json"], "99 budgets"),
        (&["absent.json"], "absent.json"),
        (&["p.json", "--tokens", "20"], "36 tokens"),
    ] {
        let all = [&["convert"], arguments, &["--out", "x.json"]].concat();
        let said = refusal(path, &all, 1);
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
    let high = [
        "--budget", "128", "--floor", "100", "--out", "f.json", "--quiet",
    ];
    printed(path, &allocate(&profile, "zigzag", &high));
    // A share of the budget falls below sinks and window: no floor that rows could be held against.
    let share = [
        "--budget", "50%", "--floor", "10%", "--out", "s.json", "--quiet",
    ];
    printed(path, &allocate(&profile, "zigzag", &share));
    let anew = ["convert", "s.json", "--profile", &profile, "--out", "f.npy"];
    let said = refusal(path, &anew, 1);
    assert!(
        said.contains("at 83 % removed, the floor of the strategy is 34"),
        "{said}"
    );
    assert!(
        said.contains("without --profile, the plan's own shares serve"),
        "{said}"
    );
    let scores = ["convert", "p.json", "--to", "headkv", "--out", "x.json"];
    let said = refusal(path, &scores, 2);
    assert!(
        said.contains("possible values: plan, kvpress, lu-kv"),
        "{said}"
    );
    let other = ["convert", "p.json", "--tokens", "4096", "--out", "r.json"];
    assert!(refusal(path, &other, 1).contains("--force"));
    assert!(!path.join("x.json").exists());
}

/// Tokens that every KV head keeps by a row of a budget curve.
fn row(curve: &BudgetCurve, percent: usize) -> Vec<usize> {
    let row = curve.at(percent).unwrap().concat();
    let kept = row
        .iter()
        .map(|p| ((1.0 - p) * LONGEST as f64).round() as usize);
    kept.collect()
}

#[test]
fn a_budget_curve_keeps_the_plans_floor_and_says_where_it_cannot() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let profile = profile();
    let more = [
        "--budget", "12%", "--floor", "100", "--out", "mf.json", "--quiet",
    ];
    printed(path, &allocate(&profile, "mass-optimal", &more));
    let plan = BudgetPlan::read(&path.join("mf.json")).unwrap();
    for (out, with) in [
        ("shares.npy", &[][..]),
        ("anew.npy", &["--profile", &profile]),
    ] {
        let convert = [&["convert", "mf.json", "--out", out], with].concat();
        let said = printed(path, &convert);
        // 5 % of 2038 tokens are 101.9, 4 % are 81.52.
        assert!(
            said.contains(
                "; rows from 96 % to 99 % removed leave less than the floor of 100 tokens per head: what they \
                 leave is spread evenly"
            ),
            "{said}"
        );
        let curve = BudgetCurve::read(&path.join(out)).unwrap();
        assert_eq!(row(&curve, 88), plan.tokens.concat());
        for percent in 1..=99 {
            let kept = row(&curve, percent);
            let (least, most) = (kept.iter().min().unwrap(), kept.iter().max().unwrap());
            assert_eq!(
                kept.iter().sum::<usize>(),
                LONGEST * CELLS * (100 - percent) / 100
            );
            match percent {
                ..96 => assert!(*least >= 100, "{percent}: {least}"),
                _ => assert!(most - least <= 1, "{percent}: {least} to {most}"),
            }
        }
    }
}

#[test]
fn a_budget_curve_is_held_against_its_ratios_and_the_floor() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let profile = profile();
    let more = [
        "--budget",
        "12%",
        "--granularity",
        "head",
        "--out",
        "p.json",
        "--quiet",
    ];
    printed(path, &allocate(&profile, "mass-optimal", &more));
    printed(path, &["convert", "p.json", "--out", "c.npy", "--quiet"]);
    let (shape, removed) = read_npy(&path.join("c.npy")).unwrap();
    let kept: Vec<f64> = removed.iter().map(|p| 1.0 - p).collect();
    write_npy(&path.join("kept.npy"), &shape, &kept).unwrap();
    write_npy(&path.join("zeros.npy"), &shape, &vec![0.0; kept.len()]).unwrap();
    let convert = |file, more: &[&'static str]| {
        let start = [
            "convert", file, "--budget", "12%", "--like", "p.json", "--out", "b.json",
        ];
        [&start[..], more].concat()
    };
    for (file, found) in [("kept.npy", "0.1200"), ("zeros.npy", "0.0000")] {
        let said = refusal(path, &convert(file, &[]), 1);
        assert!(
            said.contains(&format!("at 88% removed is {found}")),
            "{said}"
        );
        assert!(
            said.contains("0.88 is expected") && said.contains("REMOVED"),
            "{said}"
        );
        assert!(!path.join("b.json").exists());
    }
    let said = printed(path, &convert("c.npy", &[]));
    assert!(!said.contains("raised"), "{said}");
    let said = printed(path, &convert("c.npy", &["--window", "96", "--force"]));
    let plan = BudgetPlan::read(&path.join("p.json")).unwrap();
    let low = plan
        .tokens
        .iter()
        .flatten()
        .filter(|&&kept| kept < 100)
        .count();
    assert!(low > 0);
    let words = format!(
        "{low} of 90 heads had less than the floor of 100 tokens: they were raised to it, at the cost of the others"
    );
    assert!(said.contains(&words), "{said}");
    let raised = BudgetPlan::read(&path.join("b.json")).unwrap();
    assert_eq!(raised.tokens.iter().flatten().min(), Some(&100));
}

#[test]
fn broken_json_is_shown_where_it_breaks() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let profile = profile();
    fs::write(path.join("nan.json"), "[0.5,\n NaN]").unwrap();
    fs::write(path.join("heads.json"), "{\"0-0\": [Infinity]}").unwrap();
    let with = ["--profile", &profile, "--budget", "12%", "--beta", "2"];
    for (file, from, place) in [
        ("nan.json", None, "line 2 column 2"),
        ("nan.json", Some("kvpress"), "line 2 column 2"),
        ("heads.json", None, "line 1 column 10"),
        ("heads.json", Some("headkv"), "line 1 column 10"),
    ] {
        let from: Vec<&str> = from.into_iter().flat_map(|from| ["--from", from]).collect();
        let with = &with[..if from.contains(&"kvpress") { 2 } else { 6 }];
        let all = [&["convert", file], &from[..], with, &["--out", "x.json"]].concat();
        let said = refusal(path, &all, 1);
        assert!(said.contains(place), "{said}");
        assert!(said.contains("JSON has neither NaN nor Infinity"), "{said}");
    }
}
