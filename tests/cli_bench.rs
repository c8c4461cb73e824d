//! The bench on the command line: what is printed and written, and what is refused.
#![allow(clippy::unwrap_used)]

mod binary;

use binary::{json, printed, refusal};
use serde_json::Value;

const TINY: [&str; 9] = [
    "bench",
    "--lengths",
    "64,128,96",
    "--repeats",
    "2",
    "--steps",
    "2",
    "--only",
    "prefill,profile-32,decode-64",
];

/// Bytes of the tensors in the default model's file, which stay packed.
const WEIGHTS: u64 = 96_576_768;

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

#[test]
fn every_repeat_is_written_with_its_ratio() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let arguments = [&TINY[..], &["--out", "b", "--json"]].concat();
    let report: Value = serde_json::from_str(&printed(path, &arguments)).unwrap();
    assert_eq!(report, json(path.join("b/bench.json")));
    assert_eq!(report["schema"], 1);
    assert_eq!(report["lengths"], serde_json::json!([64, 96, 128]));
    let rows = report["rows"].as_array().unwrap();
    let names: Vec<(u64, &str)> = rows
        .iter()
        .map(|r| {
            (
                r["length"].as_u64().unwrap(),
                r["workload"].as_str().unwrap(),
            )
        })
        .collect();
    let at = |length, names: &[&'static str]| names.iter().map(move |n| (length, *n)).collect();
    let shortest: Vec<_> = at(64, &["prefill", "profile-32", "decode-full"]);
    let others = ["prefill", "profile-32", "decode-full", "decode-64"];
    assert_eq!(
        names,
        [shortest, at(96, &others), at(128, &others)].concat()
    );
    let left = serde_json::json!([{"length": 64, "workload": "decode-64", "least_tokens": 65}]);
    assert_eq!(report["left_out"], left);
    for row in rows {
        let repeats = row["repeats"].as_array().unwrap();
        assert_eq!(repeats.len(), 2, "{row}");
        assert!(repeats.iter().all(|r| number(&r["seconds"]["wall"]) > 0.0));
        if row["workload"] == row["base"] {
            assert_eq!(number(&row["ratio"]["median"]), 1.0);
        }
        // The machine's limits took half a gigabyte just before: that peak is forgotten.
        if let Some(peak) = row["peak_bytes"].as_u64() {
            assert!(peak > WEIGHTS && peak < 512 << 20, "{row}");
        }
        let (least, most) = (&row["wall"]["least"], &row["wall"]["most"]);
        assert!(number(least) <= number(&row["wall"]["median"]));
        assert!(number(&row["wall"]["median"]) <= number(most));
    }
    assert_eq!(report["model"]["weights"]["held"], WEIGHTS);
    // A token takes 46,080 bytes of cache.
    assert_eq!(rows[0]["needed_bytes"], WEIGHTS + 64 * 46_080);
    let rates = &rows[0]["rates"];
    // 106,168,320 weights in layers for 64 tokens, 28,311,552 in the head once.
    let linear = 2 * (106_168_320u64 * 64 + 28_311_552);
    assert_eq!(number(&rates["linear_flops"]), linear as f64);
    assert_eq!(
        number(&rates["attention_flops"]),
        (4 * 64 * 9 * 30 * 32 * 65) as f64
    );
    assert!(report["limits"]["flops_per_s"]["most"].is_number());
    assert_eq!(report["growth"]["points"].as_array().unwrap().len(), 3);
    assert_eq!(report["cpu_growth"]["points"].as_array().unwrap().len(), 3);
    if cfg!(target_os = "linux") {
        assert!(report["machine"]["threads"].as_u64().unwrap() > 0);
    }
    let again = refusal(path, &arguments, 1);
    assert!(again.contains("--force"), "{again}");
    let growth = ["plot", "growth", "--bench", "b"];
    assert_eq!(printed(path, &growth), "growth.svg\ngrowth.png\n");
    let svg = std::fs::read_to_string(path.join("growth.svg")).unwrap();
    for part in [
        "profile of 32 rows",
        "fit of prefill: ",
        "kvprof bench --lengths 64",
    ] {
        assert!(svg.contains(part), "{part}");
    }
    let cpu = [&growth[..], &["--metric", "cpu", "--out", "cpu"]].concat();
    assert_eq!(printed(path, &cpu), "cpu.svg\ncpu.png\n");
}

#[test]
fn growth_refuses_what_it_cannot_draw() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let refused = |source: &str| refusal(path, &["plot", "growth", "--bench", source], 1);
    assert!(refused("nowhere").contains("make one with `kvprof bench --out`"));
    let profile = refused(&binary::profile());
    assert!(
        profile.contains("is a folder of `kvprof profile`"),
        "{profile}"
    );
    let speed = refusal(path, &["plot", "growth", "--speed", "nowhere"], 1);
    assert!(speed.contains("give --bench"), "{speed}");
    for (text, part) in [
        ("{", "line 1: is not what `kvprof bench` writes"),
        (
            r#"{"schema": 99}"#,
            "layout version 99, this kvprof reads 1",
        ),
        (r#"{"schema": 1}"#, "missing field"),
    ] {
        std::fs::write(path.join("bench.json"), text).unwrap();
        assert!(refused(".").contains(part), "{text}: {}", refused("."));
    }
    let lengths = [
        "bench",
        "--lengths",
        "64,96",
        "--repeats",
        "1",
        "--out",
        "two",
        "--quiet",
    ];
    printed(path, &[&lengths[..], &["--only", "prefill"]].concat());
    let two = refused("two");
    assert!(two.contains("is 2, but its fit needs three"), "{two}");
}

#[test]
fn the_table_says_what_was_measured() {
    let folder = tempfile::tempdir().unwrap();
    let only = [
        "bench",
        "--lengths",
        "64",
        "--repeats",
        "1",
        "--only",
        "profile-32",
    ];
    let table = printed(folder.path(), &only);
    let first = |name: &str| table.lines().filter(|l| l.contains(name)).count();
    assert!(
        first("profile-32") == 1 && first("Limits in the same turns") == 1,
        "{table}"
    );
    assert!(table.contains("prefill") && !table.contains("decode-64"));
    assert!(!table.contains("Prefill in"), "one length does not grow");
    let quiet = [&only[..], &["--quiet"]].concat();
    assert!(printed(folder.path(), &quiet).is_empty());
    let workloads = printed(folder.path(), &["list", "workloads"]);
    assert!(workloads.contains("profile-all"));
    let all = printed(folder.path(), &["list"]);
    for scorer in kvprof::select::SCORERS {
        let differs = format!("differs: {}\n", scorer.differs);
        assert!(
            all.contains(scorer.paper) && all.contains(&differs),
            "{all}"
        );
    }
    for kind in [
        "models\n",
        "scorers\n",
        "charts\n",
        "workloads\n",
        "  profile-all",
    ] {
        assert!(all.contains(kind), "{all}");
    }
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    std::fs::write(path.join("file"), "mine").unwrap();
    for (more, part) in [
        (&["--only", "decode-65"][..], "unknown workload 'decode-65'"),
        (&["--only", "grid,grid"], "named twice"),
        (
            &["--lengths", "64", "--only", "grid"],
            "at least 513 tokens",
        ),
        (&["--lengths", "0"], "length is 0"),
        (&["--repeats", "0"], "number of repeats is 0"),
        (&["--steps", "0"], "number of steps is 0"),
        (&["--lengths", "8192"], "at most 8175 fit"),
        (
            &["--lengths", "9000", "--only", "prefill"],
            "at most 8192 fit",
        ),
        (&["--out", "file"], "is no folder"),
    ] {
        let refused = refusal(path, &[&["bench"], more].concat(), 1);
        assert!(refused.contains(part), "{more:?}: {refused}");
    }
}
