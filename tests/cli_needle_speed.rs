//! Needles and speed on the command line: what is written, drawn and refused.
#![allow(clippy::unwrap_used)]

mod binary;

use std::fs;

use binary::{kvprof, refusal};
use serde_json::Value;

#[test]
fn needles_are_built_for_every_length_depth_and_seed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let grid = |seeds: &'static str| {
        [
            "dataset",
            "needle",
            "--lengths",
            "300,600",
            "--depths",
            "0..100/50",
            "--seeds",
            seeds,
            "--out",
            "n.jsonl",
        ]
    };
    kvprof(path).args(grid("2")).assert().success();
    let bytes = fs::read(path.join("n.jsonl")).unwrap();
    let records: Vec<Value> = bytes
        .split(|b| *b == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert_eq!(records.len(), 12);
    for record in &records {
        let span = &record["evidence"][0];
        let (start, end) = (span[0].as_u64().unwrap(), span[1].as_u64().unwrap());
        let context = record["context"].as_str().unwrap().chars();
        let needle: String = (context.skip(start as usize))
            .take((end - start) as usize)
            .collect();
        assert_eq!(record["answers"][1], needle);
    }
    kvprof(path).args(grid("2")).assert().success();
    assert_eq!(fs::read(path.join("n.jsonl")).unwrap(), bytes);
    assert!(refusal(path, &grid("1"), 1).contains("--force"));
    let short = ["dataset", "needle", "--lengths", "50", "--out", "s.jsonl"];
    assert!(refusal(path, &short, 1).contains("need at least"));
    assert!(!path.join("s.jsonl").exists());
    let depths = [
        "dataset", "needle", "--depths", "0..100", "--out", "s.jsonl",
    ];
    assert!(refusal(path, &depths, 2).contains("START..END/STEP"));
}

#[test]
fn speed_is_measured_written_and_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let measure = [
        "speed",
        "--lengths",
        "300,400",
        "--budgets",
        "64,320",
        "--steps",
        "2",
        "--repeats",
        "2",
        "--out",
        "s",
        "--json",
    ];
    let run = kvprof(path).args(measure).assert().success();
    let printed: Value = serde_json::from_slice(&run.get_output().stdout).unwrap();
    let rows = printed["summary"].as_array().unwrap();
    let modes: Vec<(u64, &str, Option<u64>)> = rows
        .iter()
        .map(|r| {
            let length = r["length"].as_u64().unwrap();
            (length, r["mode"].as_str().unwrap(), r["budget"].as_u64())
        })
        .collect();
    let expected = [
        (300, "no-cache", None),
        (300, "full", None),
        (300, "budget", Some(64)),
        (400, "no-cache", None),
        (400, "full", None),
        (400, "budget", Some(320)),
        (400, "budget", Some(64)),
    ];
    assert_eq!(modes, expected);
    for row in rows {
        let tokens = row["tokens"].as_u64().unwrap();
        let length = row["length"].as_u64().unwrap();
        assert!(tokens <= length && tokens + 4 >= length, "{row}");
        // Keys and values of 30 layers, 3 KV heads, 64 dimensions, 4 bytes.
        let held = match row["mode"].as_str().unwrap() {
            "no-cache" => 0,
            "full" => tokens,
            _ => row["budget"].as_u64().unwrap(),
        };
        assert_eq!(row["kv_bytes"], held * 2 * 30 * 3 * 64 * 4);
        assert!(row["ms_per_token"].as_f64().unwrap() > 0.0);
    }
    kvprof(path)
        .args(["plot", "speed", "--speed", "s"])
        .assert()
        .success();
    let svg = fs::read_to_string(path.join("speed.svg")).unwrap();
    assert!(svg.contains("budget 320") && svg.contains("kvprof speed --lengths 300,400"));
    assert!(refusal(path, &measure, 1).contains("print it again with --resume"));
    let again = kvprof(path)
        .args(measure)
        .arg("--resume")
        .assert()
        .success();
    let again: Value = serde_json::from_slice(&again.get_output().stdout).unwrap();
    assert_eq!(again, printed, "nothing is measured anew");
}

#[test]
fn speed_refuses_what_it_cannot_measure() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::create_dir(path.join("full")).unwrap();
    fs::write(path.join("full/notes.txt"), "mine").unwrap();
    for (more, part) in [
        (&["--budgets", "20"][..], "sinks and window alone take 36"),
        (&["--budgets", "4096"], "cuts nothing"),
        (&["--repeats", "0"], "number of repeats is 0"),
        (&["--scorer", "guess"], "unknown scorer 'guess'"),
        (&["--lengths", "100"], "cuts nothing"),
        (&["--lengths", "100", "--budgets", "64"], "need at least"),
        (&["--lengths", "9000"], "exceed the model's context of 8192"),
        (&["--out", "full"], "holds files that are not"),
        (&["--out", "full/notes.txt"], "is not a folder"),
    ] {
        let refused = refusal(path, &[&["speed"], more].concat(), 1);
        assert!(refused.contains(part), "{more:?}: {refused}");
    }
    let nothing = refusal(path, &["plot", "speed", "--speed", "full"], 1);
    assert!(nothing.contains("kvprof speed --out"), "{nothing}");
    let profile = refusal(path, &["plot", "speed", "--profile", "full"], 1);
    assert!(profile.contains("give --speed"), "{profile}");
}
