//! `kvprof allocate` on the shipped profile: no model is needed.
#![allow(clippy::unwrap_used)]

mod binary;
mod tiny_model;

use std::fs;
use std::path::{Path, PathBuf};

use binary::{PROFILE, allocate, json, printed, profile, refusal};
use kvprof::budget::{ALLOCATORS, BudgetPlan};
use kvprof::table::Table;
use serde_json::Value;
use tiny_model::{LAYERS, tiny_model};

/// L x H_kv and the longest prompt of the shipped profile.
const CELLS: usize = 90;
const LONGEST: usize = 2038;

fn tokens(plan: &Value) -> Vec<Vec<u64>> {
    serde_json::from_value(plan["tokens"].clone()).unwrap()
}

#[test]
fn every_strategy_spends_its_total_to_the_token() {
    let folder = tempfile::tempdir().unwrap();
    let profile = profile();
    let totals = [
        ("64", 64 * CELLS),
        ("123.4", 1234 * CELLS / 10),
        ("12.5%", 125 * LONGEST * CELLS / 1000),
    ];
    for entry in ALLOCATORS {
        for granularity in ["layer", "head"] {
            let more = [
                "--budgets",
                "64,123.4,12.5%",
                "--granularity",
                granularity,
                "--out",
                "p.json",
                "--force",
                "--json",
            ];
            let arguments = allocate(&profile, entry.name, &more);
            let by_head = ["proportional", "zigzag", "mass-optimal"].contains(&entry.name);
            if granularity == "head" && !by_head {
                assert!(refusal(folder.path(), &arguments, 1).contains("supported: layer"));
                continue;
            }
            let said: Value = serde_json::from_str(&printed(folder.path(), &arguments)).unwrap();
            for (report, (budget, total)) in said["plans"].as_array().unwrap().iter().zip(totals) {
                let name = format!("{} {granularity} {budget}", entry.name);
                let file = format!("p-{}.json", budget.replace('%', "pct"));
                assert_eq!(report["out"], file.as_str());
                let plan = json(folder.path().join(file));
                let tokens = tokens(&plan);
                let sum: u64 = tokens.iter().flatten().sum();
                assert_eq!(sum as usize, total, "{name}");
                let floor = plan["floor"].as_u64().unwrap();
                assert!(tokens.iter().flatten().all(|&t| t >= floor), "{name}");
                assert_eq!(report["total"], total);
                let layers = report["layers"].as_array().unwrap();
                for (layer, heads) in layers.iter().zip(&tokens) {
                    let (least, most) = (heads.iter().min().unwrap(), heads.iter().max().unwrap());
                    assert_eq!(
                        (&layer["min"], &layer["max"]),
                        (&(*least).into(), &(*most).into())
                    );
                    assert!(granularity == "head" || most - least <= 1, "{name}");
                    let mean = heads.iter().sum::<u64>() as f64 / heads.len() as f64;
                    assert!((layer["tokens"].as_f64().unwrap() - mean).abs() < 1e-9);
                    let share = mean * heads.len() as f64 / sum as f64;
                    assert!((layer["share"].as_f64().unwrap() - share).abs() < 1e-12);
                }
                let mass = |of: &str| report["predicted"][of]["mass"].as_f64().unwrap();
                assert!((0.5..1.0).contains(&mass("plan")), "{name}");
                if entry.name == "mass-optimal" {
                    assert!(mass("plan") > mass("uniform"));
                }
            }
        }
    }
}

#[test]
fn plans_are_shown_written_and_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let profile = profile();
    let arguments = allocate(&profile, "zigzag", &["--budget", "128"]);
    let shown = printed(path, &arguments);
    assert!(shown.contains("--out zigzag-128.json"), "{shown}");
    assert_eq!(fs::read_dir(path).unwrap().count(), 0, "only shown");

    let write = [&arguments[..], &["--out", "a plan.json"]].concat();
    let shown = printed(path, &write);
    assert!(shown.contains("Next: kvprof plot budgets --plan 'a plan.json'"));
    assert_eq!(
        shown.matches('█').count() > 90,
        shown.contains("retained mass")
    );
    printed(path, &write);
    let other = allocate(
        &profile,
        "uniform",
        &["--budget", "128", "--out", "a plan.json"],
    );
    assert!(refusal(path, &other, 1).contains("--force"));
    printed(path, &[&other[..], &["--force", "--quiet"]].concat());
    assert_eq!(json(path.join("a plan.json"))["strategy"], "uniform");

    let heads = [
        "--budgets",
        "64,10%",
        "--granularity",
        "head",
        "--out",
        "h.json",
    ];
    let shown = printed(path, &allocate(&profile, "proportional", &heads));
    let words: Vec<&str> = shown.split_whitespace().collect();
    assert!(
        words.join(" ").contains("tokens in all 5760 18342"),
        "{shown}"
    );
    printed(
        path,
        &[
            "plot",
            "budgets",
            "--plan",
            "a plan.json",
            "--plan",
            "h-64.json",
            "--plan",
            "h-10pct.json",
        ],
    );
    let svg = fs::read_to_string(path.join("budgets.svg")).unwrap();
    for words in [
        "uniform, by layer, B = 128",
        "proportional, by head, B = 10% of T",
        "plan 3: strategy proportional",
        "min–max of KV heads",
    ] {
        assert!(svg.contains(words), "{words}");
    }
    let strategies = printed(path, &["list", "strategies"]);
    for entry in ALLOCATORS {
        assert!(strategies.contains(entry.name) && strategies.contains(entry.paper));
        assert!(strategies.contains(&format!("differs: {}\n", entry.differs)));
    }
}

#[test]
fn parameters_reach_the_strategy() {
    let folder = tempfile::tempdir().unwrap();
    let profile = profile();
    let plan = |strategy: &str, more: &[&str]| {
        let more = [
            &["--budget", "128", "--out", "p.json", "--force", "--quiet"],
            more,
        ]
        .concat();
        printed(folder.path(), &allocate(&profile, strategy, &more));
        json(folder.path().join("p.json"))
    };
    let set = plan(
        "zigzag",
        &[
            "--set",
            "query=last",
            "--set",
            "threshold=0.95",
            "--floor",
            "50%",
        ],
    );
    assert_eq!(set["parameters"]["query"], "last");
    assert_eq!(set["parameters"]["threshold"], 0.95);
    assert_eq!(
        (&set["parameters"]["floor"], &set["floor"]),
        (&"50%".into(), &64.into())
    );
}

#[test]
fn impossible_plans_are_refused_with_a_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::write(path.join("file"), "x").unwrap();
    let profile = profile();
    let no = |strategy: &str, more: &[&str]| refusal(path, &allocate(&profile, strategy, more), 1);
    for (budget, words) in [
        ("0", "between 1 and"),
        ("-5", "-5 tokens"),
        ("NaN", "'NaN'"),
        ("99999999999", "between 1 and"),
        ("0%", "above 0%"),
        ("101%", "at most 100%"),
        ("0.12", "such as 12%"),
    ] {
        let more = ["--budget", budget, "--out", "p.json"];
        let said = refusal(path, &allocate(&profile, "zigzag", &more), 2);
        assert!(said.contains(words), "{budget}: {said}");
    }
    for (strategy, more, words) in [
        (
            "uniform",
            &["--budget", "30"][..],
            &["budget is 30", "the floor is 36"][..],
        ),
        (
            "zigzag",
            &["--budget", "30"],
            &["budget is 30", "the floor is 37"],
        ),
        (
            "zigzag",
            &["--budget", "128", "--floor", "129"],
            &["128 tokens", "floor is 129"],
        ),
        (
            "uniform",
            &["--budget", "128", "--floor", "129"],
            &["budget is 128", "floor is 129"],
        ),
        (
            "uniform",
            &["--budget", "128", "--floor", "40.5"],
            &["40.5", "whole number"],
        ),
        (
            "zigzag",
            &["--budget", "128", "--floor", "-3"],
            &["--floor is -3"],
        ),
        (
            "zigzag",
            &["--budget", "128", "--window", "2038"],
            &["window 2038", "lower --sinks"],
        ),
        (
            "zigzag",
            &["--budget", "128", "--tokens", "36"],
            &["36 tokens", "raise --tokens"],
        ),
        (
            "zigzag",
            &["--budget", "128", "--set", "tau=1"],
            &["`tau`", "`threshold`"],
        ),
        (
            "zigzag",
            &["--budget", "128", "--set", "threshold=0.87"],
            &["0.87", "0.5, 0.8, 0.9"],
        ),
        (
            "zigzag",
            &["--budget", "128", "--set", "threshold"],
            &["KEY=VALUE"],
        ),
        (
            "mass-optimal",
            &["--budget", "12%", "--tokens", "8192"],
            &["8192 tokens", "longest prompt has 2038", "--tokens"],
        ),
        (
            "output-optimal",
            &["--budget", "12%", "--tokens", "2039"],
            &["2039 tokens", "longest prompt has 2038"],
        ),
        (
            "uniform",
            &["--budget", "64", "--granularity", "head"],
            &["'head' is not supported", "layer"],
        ),
        ("zigzag", &["--budgets", "64,64"], &["64 twice"]),
        (
            "zig",
            &["--budget", "128"],
            &["known: uniform, proportional"],
        ),
        (
            "zigzag",
            &["--budget", "128", "--out", "file/p.json"],
            &["file is no folder"],
        ),
        (
            "zigzag",
            &["--budget", "128", "--out", "."],
            &["is a folder"],
        ),
    ] {
        let said = no(strategy, more);
        for word in words {
            assert!(said.contains(word), "{strategy} {more:?}: {said}");
        }
    }
    let blind = ["allocate", "--strategy", "uniform", "--budget", "64"];
    assert!(refusal(path, &blind, 1).contains("--profile is needed"));
    let crossed = ["plot", "budgets", "--profile", &profile];
    assert!(refusal(path, &crossed, 1).contains("give --plan"));
    assert_eq!(
        fs::read_dir(path).unwrap().count(),
        1,
        "a refused run leaves nothing"
    );
}

/// A copy of the shipped profile inside `folder`.
fn copy_of_profile(folder: &Path) -> PathBuf {
    let copy = folder.join("profile");
    fs::create_dir(&copy).unwrap();
    for entry in fs::read_dir(profile()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    copy
}

#[test]
fn a_damaged_profile_promises_no_rows_that_it_has_not() {
    let folder = tempfile::tempdir().unwrap();
    let copy = copy_of_profile(folder.path());
    let sound = json(copy.join("meta.json"));
    let arguments = allocate("profile", "zigzag", &["--budget", "128"]);
    printed(folder.path(), &arguments);
    for field in ["num_layers", "num_heads", "num_kv_heads", "prompts"] {
        for damage in [0, 1, 1u64 << 40, u64::MAX] {
            let mut meta = sound.clone();
            meta[field] = damage.into();
            fs::write(copy.join("meta.json"), meta.to_string()).unwrap();
            let said = refusal(folder.path(), &arguments, 1);
            assert!(
                said.contains("rows, but meta.json says"),
                "{field} {damage}: {said}"
            );
            assert!(
                said.contains(&damage.to_string()) && said.contains("profile again"),
                "{said}"
            );
        }
    }
}

/// The first file of several is not written where a later one cannot be.
#[cfg(unix)]
#[test]
fn devices_and_pipes_are_refused_before_any_work() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    // A profile that is not there would be the next complaint.
    let no_profile = |more: &[&str]| refusal(path, &allocate("absent", "zigzag", more), 1);
    let said = no_profile(&["--budget", "64", "--out", "/dev/null"]);
    assert!(said.contains("device or pipe"), "{said}");
    let made = std::process::Command::new("mkfifo")
        .arg(path.join("p-128.json"))
        .status();
    assert!(made.unwrap().success());
    let said = no_profile(&["--budgets", "64,128", "--out", "p.json"]);
    assert!(said.contains("p-128.json is a device or pipe"), "{said}");
    let convert = ["convert", "absent.json", "--out", "/dev/null"];
    assert!(refusal(path, &convert, 1).contains("device or pipe"));
    let plot = [
        "plot",
        "budgets",
        "--plan",
        "absent.json",
        "--out",
        "/dev/null",
    ];
    assert!(refusal(path, &plot, 1).contains("device or pipe"));
    assert!(!path.join("p-64.json").exists());
}

#[test]
fn a_profile_without_curves_has_no_optimum() {
    let folder = tempfile::tempdir().unwrap();
    let copy = copy_of_profile(folder.path());
    let curves = Table::read(&copy.join("curves.parquet")).unwrap();
    let mut without = Table::default();
    for name in curves.names().filter(|name| !name.starts_with("mass")) {
        without.push(name, curves.column(name).unwrap().clone());
    }
    without.write(&copy.join("curves.parquet")).unwrap();
    let arguments = allocate(
        "profile",
        "mass-optimal",
        &["--budget", "128", "--out", "p.json"],
    );
    let said = refusal(folder.path(), &arguments, 1);
    assert!(said.contains("mass_pooled"), "{said}");
    fs::remove_file(copy.join("curves.parquet")).unwrap();
    assert!(refusal(folder.path(), &arguments, 1).contains("curves.parquet"));
    assert!(!folder.path().join("p.json").exists());
}

#[test]
fn a_model_alone_is_enough_for_static_strategies() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::write(path.join("tiny.gguf"), tiny_model(4, 2, |_, t| t)).unwrap();
    let start = [
        "allocate",
        "--model",
        "tiny.gguf",
        "--budget",
        "48",
        "--strategy",
    ];
    let with = |more: &[&'static str]| [&start[..], more].concat();
    printed(
        path,
        &with(&["pyramid", "--tokens", "64", "--out", "p.json"]),
    );
    let plan = BudgetPlan::read(&path.join("p.json")).unwrap();
    assert_eq!(plan.geometry.layers, LAYERS);
    assert_eq!(plan.tokens.iter().flatten().sum::<usize>(), 48 * LAYERS * 2);
    assert!(plan.provenance.source.is_none() && plan.geometry.model_sha256.len() == 64);
    assert!(refusal(path, &with(&["pyramid"]), 1).contains("--model needs --tokens"));
    let measured = with(&["zigzag", "--tokens", "64"]);
    assert!(refusal(path, &measured, 1).contains("name it with --profile"));
    let both = with(&["pyramid", "--profile", "p"]);
    assert!(refusal(path, &both, 2).contains("--profile"));
}

/// The README's worked example, line by line; `...` stands for lines left out.
#[test]
fn the_readme_shows_what_allocate_prints() {
    let readme = include_str!("../README.md");
    let (_, example) = readme.split_once("$ kvprof allocate").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    let (command, output) = example.split_once('\n').unwrap();
    let folder = tempfile::tempdir().unwrap();
    let arguments: Vec<String> = ["allocate"]
        .into_iter()
        .chain(command.split_whitespace())
        .map(|word| match word == PROFILE {
            true => profile(),
            false => word.to_owned(),
        })
        .collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let said = printed(folder.path(), &arguments);
    let mut lines = said.lines();
    for line in output.lines().filter(|line| *line != "...") {
        assert!(
            lines.any(|l| l == line),
            "{line} is not printed by{command}:\n{said}"
        );
    }
}

#[test]
fn nothing_is_predicted_of_prompts_that_were_not_measured() {
    let folder = tempfile::tempdir().unwrap();
    let profile = profile();
    let shown = |tokens: &str| {
        let more = ["--budget", "128", "--tokens", tokens];
        printed(folder.path(), &allocate(&profile, "zigzag", &more))
    };
    assert!(shown("2038").contains("retained mass"));
    for tokens in ["1000", "8192"] {
        let text = shown(tokens);
        let why = format!("Nothing is predicted for {tokens} tokens");
        assert!(text.contains(&why), "{text}");
        assert!(text.contains("2032 to 2038") && !text.contains("retained mass"));
    }
    let json = ["--budget", "128", "--tokens", "1000", "--json"];
    let text = printed(folder.path(), &allocate(&profile, "zigzag", &json));
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(value["plans"][0]["predicted"].is_null());
    assert_eq!(value["plans"][0]["evicts_nothing"], false);
}
