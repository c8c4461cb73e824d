//! `kvprof certify` on made-up and on shipped evaluations, and the plans that carry its certificates: no model is needed.
#![allow(clippy::unwrap_used)]

mod binary;
mod sample_results;

use std::fs;
use std::path::{Path, PathBuf};

use binary::{json, kvprof, printed, profile, refusal};
use kvprof::budget::{BudgetPlan, Certificate, profile_digest};
use kvprof::eval::Results;
use sample_results::SampleResults;
use serde_json::Value;

/// An evaluation of 60 prompts at 64, 128, 256 and 512 in the folder `qa`.
fn evaluation() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("qa")).unwrap();
    let sample = SampleResults {
        prompts: 60,
        layers: 6,
        methods: vec!["snapkv", "zigzag", "random"],
        ..SampleResults::default()
    };
    sample.write(&folder.path().join("qa"));
    folder
}

fn arguments<'a>(results: &'a str, method: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let start = ["certify", "--results", results, "--method", method];
    [&start[..], more].concat()
}

fn said(folder: &Path, arguments: &[&str]) -> Value {
    let arguments = [arguments, &["--json"]].concat();
    serde_json::from_str(&printed(folder, &arguments)).unwrap()
}

/// KL of a method at a budget, prompt by prompt.
fn kl(folder: &Path, method: &str, budget: &str) -> Vec<f64> {
    let results = Results::load(&folder.join("qa")).unwrap().results;
    let (methods, budgets) = (
        results.texts("method").unwrap(),
        results.texts("budget").unwrap(),
    );
    let kl = results.numbers("kl").unwrap();
    let rows = (0..kl.len()).filter(|&r| methods[r] == method && budgets[r] == budget);
    rows.map(|r| kl[r]).collect()
}

#[test]
fn the_smallest_budget_is_that_of_the_rule_by_hand() {
    let folder = evaluation();
    let path = folder.path();
    let mut worst = [0.0f64; 60];
    let mut corrected = Vec::new();
    for budget in ["512", "256", "128", "64"] {
        for (worst, kl) in worst.iter_mut().zip(kl(path, "zigzag", budget)) {
            *worst = worst.max(kl.min(1.5));
        }
        corrected.push((budget, (worst.iter().sum::<f64>() + 1.5) / 61.0));
    }
    for (wanted, bound) in [
        ("256", corrected[1].1 + 1e-6),
        ("512", corrected[1].1 - 1e-6),
    ] {
        let bound = bound.to_string();
        let more = ["--loss", "kl", "--clip", "1.5", "--at-most", &bound];
        let found = said(path, &arguments("qa", "zigzag", &more));
        assert_eq!(found["budget"], wanted);
        assert_eq!(
            (&found["units"], &found["rule"]),
            (&60.into(), &"conformal risk control".into())
        );
        for (step, (budget, value)) in found["steps"].as_array().unwrap().iter().zip(&corrected) {
            assert_eq!(step["budget"], *budget);
            assert!((step["statistic"].as_f64().unwrap() - value).abs() < 1e-12);
        }
    }
}

#[test]
fn all_kinds_of_bounds_say_what_they_certify() {
    let folder = evaluation();
    let path = folder.path();
    let kl = ["--loss", "kl", "--at-most", "0.9"];
    for (more, words) in [
        (
            &[][..],
            "The expected kl of a new prompt under snapkv at budget",
        ),
        (
            &["--confidence", "0.95"][..],
            "With confidence 95 %, the expected kl of a new prompt",
        ),
        (
            &["--except", "10%"][..],
            "A new prompt has a kl above 0.9 nats under snapkv at budget",
        ),
        (
            &["--except", "10%", "--confidence", "90%"][..],
            "with a probability of at most 10 %.",
        ),
    ] {
        let all = [&kl[..], more].concat();
        let text = printed(path, &arguments("qa", "snapkv", &all));
        assert!(text.contains(words), "{text}");
        assert!(
            text.contains("Certified: ") && text.contains("not for other tasks"),
            "{text}"
        );
        let clipped = text.contains("larger losses count as 2 nats");
        assert_eq!(clipped, !more.contains(&"--except"), "{text}");
    }
    for loss in ["nll", "answer", "f1", "em", "contains"] {
        let more = ["--loss", loss, "--at-most", "0.95"];
        let found = said(path, &arguments("qa", "zigzag", &more));
        assert_eq!(found["loss"]["name"], loss);
    }
    let list = printed(path, &["list", "losses"]);
    assert!(
        list.contains("answer") && list.contains("[nats per token]"),
        "{list}"
    );
    // One run of this method failed: it counts as the largest loss.
    let more = ["--loss", "kl", "--at-most", "0.9", "--budgets", "512"];
    let failed = said(path, &arguments("qa", "random", &more));
    assert_eq!(failed["steps"][0]["failed"], 1);
    let text = printed(path, &arguments("qa", "random", &more));
    assert!(text.contains("failed"), "{text}");
}

#[test]
fn no_budget_is_an_answer_with_a_reason() {
    let folder = evaluation();
    let path = folder.path();
    let none = |more: &[&str]| {
        let all = arguments("qa", "snapkv", more);
        let json = [&all[..], &["--json", "--out", "c.json"]].concat();
        let run = kvprof(path).args(&json).assert().code(1);
        let found: Value = serde_json::from_slice(&run.get_output().stdout).unwrap();
        assert!(found["budget"].is_null() && found["certificate"].is_null());
        assert!(found["steps"].as_array().unwrap().len() == 4 && !path.join("c.json").exists());
        let error = refusal(path, &all, 1);
        assert!(error.contains(found["reason"].as_str().unwrap()), "{error}");
        error
    };
    let few = none(&["--loss", "kl", "--at-most", "0.01"]);
    assert!(
        few.contains("60 prompts are too few: at least 199 are needed"),
        "{few}"
    );
    let lost = none(&["--loss", "kl", "--at-most", "0.01", "--except", "5%"]);
    assert!(
        lost.contains("lose more than 0.01 nats, and 2 are allowed"),
        "{lost}"
    );
    let sure = none(&["--loss", "kl", "--at-most", "0.1", "--confidence", "0.9"]);
    assert!(
        sure.contains("at 512, the largest budget that was tried"),
        "{sure}"
    );
}

#[test]
fn what_says_nothing_is_refused() {
    let folder = evaluation();
    let path = folder.path();
    let refused =
        |method: &str, more: &[&str], code| refusal(path, &arguments("qa", method, more), code);
    let kl = |more: &[&'static str]| [&["--loss", "kl"][..], more].concat();
    for (method, more, code, words) in [
        (
            "snapkv",
            kl(&["--at-most", "3"]),
            1,
            "below the largest loss of 2",
        ),
        ("snapkv", kl(&["--at-most", "0"]), 1, "above 0"),
        (
            "snapkv",
            kl(&["--at-most", "1", "--confidence", "95"]),
            2,
            "not between 0 and 100%",
        ),
        (
            "snapkv",
            kl(&["--at-most", "1", "--except", "10%", "--clip", "3"]),
            2,
            "--clip",
        ),
        (
            "snapkv",
            vec!["--loss", "f1", "--at-most", "0.5", "--clip", "3"],
            1,
            "not needed",
        ),
        (
            "snapkv",
            vec!["--loss", "rouge", "--at-most", "0.5"],
            1,
            "known: kl, nll, answer",
        ),
        (
            "h2o",
            kl(&["--at-most", "1"]),
            1,
            "known: random, snapkv, zigzag",
        ),
        (
            "full",
            kl(&["--at-most", "1"]),
            1,
            "losses are taken against",
        ),
        (
            "snapkv",
            kl(&["--at-most", "1", "--budgets", "65"]),
            1,
            "unknown budget '65'",
        ),
        (
            "snapkv",
            kl(&["--at-most", "1", "--held-out", "nowhere"]),
            1,
            "nowhere",
        ),
        (
            "snapkv",
            kl(&["--at-most", "1", "--held-out", "qa"]),
            1,
            "prompt p0 too",
        ),
    ] {
        let said = refused(method, &more, code);
        assert!(said.contains(words), "{more:?}: {said}");
    }
}

#[test]
fn held_out_prompts_are_reported_beside_the_certificate() {
    let folder = evaluation();
    let path = folder.path();
    let bound = [
        "--loss",
        "kl",
        "--at-most",
        "0.9",
        "--held-out",
        "30%",
        "--out",
        "c.json",
    ];
    let text = printed(path, &arguments("qa", "snapkv", &bound));
    assert!(text.contains("Calibrated on 42 prompts"), "{text}");
    assert!(
        text.contains("Held out (30% of the same evaluation, drawn with seed 0), 18 prompts"),
        "{text}"
    );
    let certificate = Certificate::read(&path.join("c.json")).unwrap();
    let held_out = certificate.held_out.unwrap();
    assert_eq!((held_out.units, certificate.calibration.units), (18, 42));
    let [low, high] = held_out.interval.unwrap();
    assert!(low <= held_out.seen && held_out.seen <= high);
    // Calibrated and held-out prompts are all prompts.
    let all = kl(path, "snapkv", &certificate.budget);
    let sum = 18.0 * held_out.seen + 42.0 * certificate.calibration.seen;
    let clipped: f64 = all.iter().map(|kl| kl.min(2.0)).sum();
    assert!((sum - clipped).abs() < 1e-9);

    // The same prompts under other names and another digest: another data set.
    copy(&path.join("qa"), &path.join("other"));
    edit(&path.join("other"), |meta| {
        meta["dataset"] = "elsewhere".into();
        meta["dataset_sha256"] = "ff".into();
    });
    let other = ["--loss", "kl", "--at-most", "0.9", "--held-out", "other"];
    let text = printed(path, &arguments("qa", "snapkv", &other));
    assert!(
        text.contains("the other data set elsewhere, which the certificate does not cover"),
        "{text}"
    );
    edit(&path.join("other"), |meta| {
        meta["model_sha256"] = "00".into()
    });
    let said = refusal(path, &arguments("qa", "snapkv", &other), 1);
    assert!(said.contains("of another model"), "{said}");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn edit(folder: &Path, change: impl FnOnce(&mut Value)) {
    let path = folder.join("meta.json");
    let mut meta = json(path.clone());
    change(&mut meta);
    fs::write(path, meta.to_string()).unwrap();
}

/// The shipped evaluation of twelve prompts in the folder `qa`.
fn shipped() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let from =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles/smollm2-135m-wikimqa-style-2k-eval");
    copy(&from, &folder.path().join("qa"));
    folder
}

const WIDE: [&str; 6] = ["--loss", "kl", "--at-most", "1.2", "--out", "c.json"];

#[test]
fn a_plan_carries_the_certificate_of_its_budget() {
    let folder = shipped();
    let path = folder.path();
    let text = printed(path, &arguments("qa", "snapkv", &WIDE));
    let next = "Next: kvprof allocate --certificate c.json --model smollm2-135m --out plan.json";
    assert!(text.contains(next), "{text}");
    let certificate = Certificate::read(&path.join("c.json")).unwrap();
    let profile = profile();
    let allocate = [
        "allocate",
        "--certificate",
        "c.json",
        "--profile",
        &profile,
        "--out",
        "p.json",
    ];
    let text = printed(path, &allocate);
    assert!(
        text.contains(&format!("Certified. {}", certificate.statement)),
        "{text}"
    );
    let plan = BudgetPlan::read(&path.join("p.json")).unwrap();
    assert_eq!(plan.provenance.certificate.as_deref(), Some(&certificate));
    assert_eq!(plan.budget.to_string(), certificate.budget);
    assert_eq!(
        (plan.strategy.as_str(), plan.sinks, plan.window),
        ("uniform", 4, 32)
    );
    let shown = printed(path, &["inspect", "p.json"]);
    assert!(
        shown.contains(&certificate.statement) && shown.contains("not for other tasks"),
        "{shown}"
    );
    let shown: Value =
        serde_json::from_str(&printed(path, &["inspect", "p.json", "--json"])).unwrap();
    assert_eq!(
        shown["certificate"]["statement"],
        certificate.statement.as_str()
    );

    // The same plan without its certificate would lose it.
    let plain = [
        "allocate",
        "--profile",
        &profile,
        "--strategy",
        "uniform",
        "--out",
        "p.json",
    ];
    let plain = [&plain[..], &["--budget", &certificate.budget]].concat();
    assert!(refusal(path, &plain, 1).contains("--force"));
    let both = [&allocate[..], &["--budget", "64"]].concat();
    assert!(refusal(path, &both, 2).contains("--budget"));
    let window = [&allocate[..], &["--window", "16"]].concat();
    assert!(refusal(path, &window, 1).contains("those of the certificate"));
}

#[test]
fn a_plan_that_was_not_evaluated_carries_none() {
    let folder = shipped();
    let path = folder.path();
    let profile = profile();
    let allocate = [
        "allocate",
        "--certificate",
        "c.json",
        "--profile",
        &profile,
        "--out",
        "p.json",
    ];
    let text = printed(path, &arguments("qa", "zigzag", &WIDE));
    assert!(
        text.contains("No plan can carry it: zigzag allocates from each prompt's own"),
        "{text}"
    );
    assert!(refusal(path, &allocate, 1).contains("zigzag@profile"));

    let mut own = json(path.join("qa/meta.json"));
    for method in own["methods"].as_array_mut().unwrap() {
        if method["name"] == "zigzag" {
            method["measured"] = "profile".into();
        }
    }
    own["profile_sha256"] = profile_digest(&PathBuf::from(&profile)).unwrap().into();
    fs::write(path.join("qa/meta.json"), own.to_string()).unwrap();
    printed(
        path,
        &[&arguments("qa", "zigzag", &WIDE)[..], &["--force"]].concat(),
    );
    printed(path, &allocate);
    let plan = BudgetPlan::read(&path.join("p.json")).unwrap();
    assert_eq!(plan.strategy, "zigzag");
    assert_eq!(plan.parameters["threshold"], 0.9);
    assert!(plan.provenance.certificate.is_some());

    let mut certificate = json(path.join("c.json"));
    let mut refused = |field: &str, value: Value| {
        let old = certificate[field].take();
        certificate[field] = value;
        fs::write(path.join("c.json"), certificate.to_string()).unwrap();
        certificate[field] = old;
        refusal(path, &allocate, 1)
    };
    assert!(refused("profile_sha256", "00".into()).contains("another profile"));
    assert!(refused("model_sha256", "00".into()).contains("not for these of smollm2-135m"));
    // 12 % is another lower bound of zigzag at every length.
    let calibration = json(path.join("c.json"))["calibration"].clone();
    let mut wide = calibration;
    wide["tokens"] = serde_json::json!([400, 2038]);
    let mut share = json(path.join("c.json"));
    share["budget"] = "12%".into();
    share["model_sha256"] = "".into();
    share["calibration"] = wide;
    fs::write(path.join("c.json"), share.to_string()).unwrap();
    let said = refusal(path, &allocate, 1);
    assert!(said.contains("the certificate does not cover it"), "{said}");
    share["method"]["residency"] = "evict-h2o".into();
    fs::write(path.join("c.json"), share.to_string()).unwrap();
    assert!(refusal(path, &allocate, 1).contains("changes while it lives"));
}
