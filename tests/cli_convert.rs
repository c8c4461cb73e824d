//! `kvprof convert` on plans of the shipped profile.
#![allow(clippy::unwrap_used)]

mod binary;

use std::fs;

use binary::{allocate, json, printed, profile, refusal};
use kvprof::budget::BudgetPlan;

/// L x H_kv of the shipped profile.
const CELLS: usize = 90;

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

    printed(path, &["convert", "heads.json", "--out", "heads.npy"]);
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
    fs::write(path.join("ratios.json"), "[0.5, 2]").unwrap();
    fs::write(path.join("scores.json"), "{\"0-0\": [1]}").unwrap();
    for (arguments, words) in [
        (&["h.json"][..], "--granularity layer"),
        (&["p.json", "--to", "plan"], "already"),
        (&["p.json", "--to", "headkv"], "only read"),
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
        (&["text.json"], "--from"),
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
    let anew = ["convert", "f.json", "--profile", &profile, "--out", "f.npy"];
    let said = refusal(path, &anew, 1);
    assert!(
        said.contains("96 % removed") && said.contains("floor is 100"),
        "{said}"
    );
    let other = ["convert", "p.json", "--tokens", "4096", "--out", "r.json"];
    assert!(refusal(path, &other, 1).contains("--force"));
    assert!(!path.join("x.json").exists());
}
