//! The binary as a stranger meets it: results, refusals, exit codes.
#![allow(clippy::unwrap_used)]

mod binary;

use std::fs;

use binary::{kvprof, refusal, short_prompts};

/// The runs share the cores in another way; no sum may notice.
#[test]
fn jobs_change_no_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let data = short_prompts(path);
    for (out, jobs, threads) in [("one", "1", "1"), ("two", "2", "4")] {
        kvprof(path)
            .env("RAYON_NUM_THREADS", threads)
            .args([
                "profile", "--data", &data, "--quiet", "--jobs", jobs, "--out", out,
            ])
            .assert()
            .success();
    }
    for table in ["heads", "kv_heads", "layers", "curves"] {
        let bytes = |run: &str| fs::read(path.join(format!("{run}/{table}.parquet"))).unwrap();
        assert_eq!(bytes("one"), bytes("two"), "{table}");
    }
    let compared = kvprof(path)
        .args(["compare", "one", "two", "--json"])
        .output()
        .unwrap();
    let compared: serde_json::Value = serde_json::from_slice(&compared.stdout).unwrap();
    let columns = compared["columns"].as_array().unwrap();
    assert!(columns.len() > 50, "{}", columns.len());
    assert!(
        columns
            .iter()
            .all(|c| c["equal"] == c["rows"] && c["largest"] == 0.0)
    );
    let other = [
        "profile", "--data", &data, "--limit", "2", "--quiet", "--out", "less",
    ];
    kvprof(path).args(other).assert().success();
    let refused = refusal(path, &["compare", "one", "less"], 1);
    assert!(refused.contains("same prompts"), "{refused}");
    let refused = refusal(path, &["profile", "--data", &data, "--jobs", "0"], 1);
    assert!(refused.contains("--jobs is 0"), "{refused}");
}

#[test]
fn short_prompts_are_profiled_listed_and_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let data = short_prompts(folder.path());
    let run = kvprof(folder.path())
        .args(["profile", "--data", &data, "--out", "p", "--json"])
        .assert()
        .success();
    let summary: serde_json::Value = serde_json::from_slice(&run.get_output().stdout).unwrap();
    assert_eq!(summary["meta"]["prompts"], 3);
    assert_eq!(summary["layers"].as_array().unwrap().len(), 30);
    for layer in summary["layers"].as_array().unwrap() {
        let lmba = layer["lmba_pooled_90"].as_f64().unwrap();
        assert!((1.0..=42.0).contains(&lmba), "{layer}");
    }
    for table in ["heads", "kv_heads", "layers", "curves"] {
        assert!(folder.path().join(format!("p/{table}.parquet")).is_file());
    }
    assert!(!folder.path().join("p/.parts").exists());
    for chart in ["lmba", "lmbo", "mba-heatmap", "curves"] {
        kvprof(folder.path())
            .args(["plot", chart, "--profile", "p", "--out", chart])
            .assert()
            .success();
        let svg = fs::read_to_string(folder.path().join(format!("{chart}.svg"))).unwrap();
        assert!(svg.contains("kvprof plot"), "{chart} lacks its provenance");
    }

    let again = refusal(
        folder.path(),
        &["profile", "--data", &data, "--out", "p"],
        1,
    );
    assert!(again.contains("--resume"), "{again}");
    let other = [
        "profile", "--data", &data, "--out", "p", "--window", "8", "--resume",
    ];
    let other = refusal(folder.path(), &other, 1);
    assert!(other.contains("another window"), "{other}");
}

#[test]
fn a_dry_run_says_what_a_profile_takes_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let data = short_prompts(folder.path());
    let dry = |more: &[&str]| {
        let mut command = kvprof(folder.path());
        command
            .args(["profile", "--data", &data, "--dry-run"])
            .args(more);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let room: serde_json::Value = serde_json::from_str(&dry(&["--json"])).unwrap();
    let number = |name: &str| room["room"][name].as_u64().unwrap();
    let tokens = number("longest_prompt_tokens");
    assert_eq!(number("cache"), tokens * 46_080 / 30, "of one layer");
    assert_eq!(
        number("total"),
        number("weights") + number("cache") + number("hidden") + number("workspace")
    );
    assert!(number("all_layers") > tokens * 46_080 + number("weights"));
    assert!(number("most_prompt_tokens") > tokens);
    its_estimate_is_whole(&room["estimate"], tokens);
    let text = dry(&[]);
    for part in [
        "weights",
        "cache",
        "hidden",
        "workspace",
        "total",
        "disk",
        "tokens fit",
        "FLOP in attention",
        "layer by layer",
        "all layers at once",
        "on this machine, now: layer 0 on",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let little: serde_json::Value =
        serde_json::from_str(&dry(&["--json", "--memory", "1MB"])).unwrap();
    let little = &little["estimate"];
    let why = little["not_timed"].as_str().unwrap();
    assert!(why.contains("does not fit"), "{why}");
    assert_eq!(little["flops_layers"], room["estimate"]["flops_layers"]);
    assert!(little["seconds_streamed"].is_null());
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "only the prompts: {left:?}");
    let refused = refusal(folder.path(), &["profile", "--dry-run", "--out", "x"], 2);
    assert!(refused.contains("--out"), "{refused}");
}

/// Operations as the geometry has them, and times that belong together; what they are is the machine's affair.
fn its_estimate_is_whole(estimate: &serde_json::Value, longest: u64) {
    let number = |value: &serde_json::Value| value.as_f64().unwrap();
    // Three prompts, each with one row of the head.
    assert_eq!(number(&estimate["flops_head"]), 3.0 * 2.0 * 49152.0 * 576.0);
    // Of each token in 30 layers: q and o, k and v, three of the feed-forward.
    let per_token = 2.0 * 30.0 * 576.0 * (2.0 * 576.0 + 2.0 * 192.0 + 3.0 * 1536.0);
    let tokens = number(&estimate["flops_layers"]) / per_token;
    assert_eq!(tokens.fract(), 0.0);
    assert!(tokens > longest as f64 && tokens <= 3.0 * longest as f64);
    assert!(number(&estimate["flops_attention"]) > 0.0);
    for run in ["streamed", "unstreamed"] {
        let total = &estimate[run]["total"];
        assert_eq!(estimate[format!("seconds_{run}")], total["seconds"]);
        let [least, seconds, most] = ["least", "seconds", "most"].map(|name| number(&total[name]));
        assert!(0.0 < least && least <= seconds && seconds <= most);
        assert!(number(&estimate[run]["reading"]["seconds"]) < seconds);
    }
    let memory = |run: &str| number(&estimate[run]["memory"]);
    assert!(memory("streamed") < memory("unstreamed"));
    let calibration = &estimate["calibration"];
    assert!(number(&calibration["seconds"]) > 0.0);
    let first = &calibration["kinds"][0];
    let timed = first["tokens"].as_array().unwrap();
    assert_eq!(timed.last().unwrap().as_u64(), Some(longest));
    assert_eq!(first["seconds_of"].as_array().unwrap().len(), timed.len());
}

#[test]
fn bad_models_are_refused_with_a_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    short_prompts(path);
    fs::write(path.join("empty.gguf"), b"").unwrap();
    fs::write(path.join("text.gguf"), b"just some text, no model").unwrap();
    fs::write(
        path.join("cut.gguf"),
        b"GGUF\x03\0\0\0\x01\0\0\0\0\0\0\0\x01\0",
    )
    .unwrap();
    let with = |model: &str| {
        refusal(
            path,
            &[
                "profile",
                "--data",
                "short.jsonl",
                "--model",
                model,
                "--out",
                "o",
            ],
            1,
        )
    };
    assert!(with("empty.gguf").contains("not a GGUF file"));
    assert!(with("text.gguf").contains("not a GGUF file"));
    assert!(with("cut.gguf").contains("damaged, truncated"));
    assert!(with("no-such-model").contains("known: smollm2-135m"));
    assert!(with("pypi:bad").contains("pypi:package==version/path-in-wheel"));
    assert!(!path.join("o").exists(), "a refused run leaves nothing");
}

#[test]
fn bad_data_and_arguments_are_refused_with_the_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let long: Vec<u32> = vec![5; 9000];
    fs::write(path.join("empty.jsonl"), b"").unwrap();
    fs::write(
        path.join("broken.jsonl"),
        b"{\"prompt\": \"a\"}\n{\"prompt\": \n",
    )
    .unwrap();
    let line = serde_json::json!({"id": "long-one", "ids": long}).to_string();
    fs::write(path.join("long.jsonl"), line).unwrap();
    let with = |data: &str| refusal(path, &["profile", "--data", data, "--out", "o"], 1);
    assert!(with("empty.jsonl").contains("empty.jsonl"));
    assert!(with("broken.jsonl").contains("line 2"));
    assert!(with("nothing-here").contains("wikimqa-style-2k"));
    let long = with("long.jsonl");
    assert!(
        long.contains("long-one") && long.contains("--max-prompt-tokens 8192"),
        "{long}"
    );
    short_prompts(path);
    let arguments = [
        "profile",
        "--data",
        "short.jsonl",
        "--window",
        "0",
        "--out",
        "o",
    ];
    assert!(refusal(path, &arguments, 1).contains("--window is 0"));
    let arguments = [
        "profile",
        "--data",
        "short.jsonl",
        "--thresholds",
        "1",
        "--out",
        "o",
    ];
    assert!(refusal(path, &arguments, 1).contains("below 1"));
    let arguments = [
        "profile",
        "--data",
        "short.jsonl",
        "--device",
        "cuda",
        "--out",
        "o",
    ];
    if !cfg!(feature = "cuda") {
        assert!(refusal(path, &arguments, 1).contains("--features cuda"));
    }
    assert!(refusal(path, &["profile", "--window", "many"], 2).contains("--window"));
    assert!(refusal(path, &["plot", "lmba", "--profile", "o"], 1).contains("not a profile folder"));
    assert!(!path.join("o").exists(), "a refused run leaves nothing");
}

#[cfg(unix)]
#[test]
fn closed_outputs_odd_names_and_devices_end_in_words_not_panics() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let data = short_prompts(path);
    let profile = [
        "profile", "--data", &data, "--limit", "1", "--quiet", "--out",
    ];
    let odd = OsStr::from_bytes(b"p\xff");
    kvprof(path).args(profile).arg(odd).assert().success();
    assert!(path.join(odd).join("heads.parquet").is_file());

    kvprof(path).args(profile).arg("p").assert().success();
    for (arguments, code) in [
        (vec!["plot", "lmba", "--profile", "p"], 1),
        (vec!["list", "charts"], 1),
        (
            vec![
                "generate",
                "--prompt",
                "hi",
                "--max-new-tokens",
                "2",
                "--json",
            ],
            1,
        ),
    ] {
        let full = fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let status = std::process::Command::new(env!("CARGO_BIN_EXE_kvprof"))
            .current_dir(path)
            .args(&arguments)
            .stdout(full)
            .stderr(std::process::Stdio::null())
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(code), "{arguments:?}");
    }
    let device = [
        "dataset",
        "wikimqa-style",
        "--questions",
        "1",
        "--out",
        "/dev/null",
    ];
    assert!(refusal(path, &device, 1).contains("device"));
    let occupied = [
        "dataset",
        "wikimqa-style",
        "--questions",
        "1",
        "--out",
        &data,
    ];
    assert!(refusal(path, &occupied, 1).contains("--force"));
}

#[test]
fn a_changed_profile_is_not_drawn() {
    use kvprof::table::{Column, Table};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let data = short_prompts(path);
    kvprof(path)
        .args([
            "profile", "--data", &data, "--limit", "1", "--quiet", "--out", "p",
        ])
        .assert()
        .success();
    let layers = path.join("p/layers.parquet");
    let whole = Table::read(&layers).unwrap();
    let mut reversed = Table::default();
    for name in whole.names() {
        let mut column = whole.column(name).unwrap().clone();
        match &mut column {
            Column::Count(v) => v.reverse(),
            Column::Number(v) => v.reverse(),
            Column::Text(v) => v.reverse(),
        }
        reversed.push(name, column);
    }
    reversed.write(&layers).unwrap();
    let said = refusal(path, &["plot", "lmba", "--profile", "p"], 1);
    assert!(said.contains("changed or damaged"), "{said}");
    fs::write(&layers, b"PAR1").unwrap();
    assert!(refusal(path, &["plot", "lmba", "--profile", "p"], 1).contains("layers.parquet"));
}
