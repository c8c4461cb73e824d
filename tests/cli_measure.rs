//! `kvprof measure` and `kvprof profile --capture-out` as a stranger meets them.
#![allow(clippy::unwrap_used)]

mod binary;

use std::fs;
use std::path::Path;

use binary::{kvprof, refusal, short_prompts};

/// A profile in `own` and its capture in `capture`.
fn captured(path: &Path, data: &str, window: &str) {
    kvprof(path)
        .args(["profile", "--data", data, "--window", window, "--quiet"])
        .args(["--out", "own", "--capture-out", "capture"])
        .assert()
        .success();
}

/// A folder of files and folders of files.
fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn tables(profile: &Path) -> Vec<Vec<u8>> {
    let names = ["heads", "kv_heads", "layers", "curves"];
    let read = |name| fs::read(profile.join(format!("{name}.parquet"))).unwrap();
    names.map(read).to_vec()
}

#[test]
fn a_capture_of_our_own_is_measured_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let data = short_prompts(path);
    captured(path, &data, "16");
    let measured = kvprof(path)
        .args(["measure", "capture", "--out", "m", "--json"])
        .output()
        .unwrap();
    let said: serde_json::Value = serde_json::from_slice(&measured.stdout).unwrap();
    assert_eq!(said["meta"]["window"], 16);
    assert_eq!(said["meta"]["template"], "captured");
    let device = said["meta"]["device"].as_str().unwrap();
    assert!(device.contains("captured by kvprof"), "{device}");
    assert_eq!(tables(&path.join("own")), tables(&path.join("m")));
    // It is a profile to every other verb.
    let compared = kvprof(path).args(["compare", "own", "m"]).output().unwrap();
    assert!(compared.status.success(), "{compared:?}");
    // Fewer rows than were captured, and a part of a killed run.
    let few = [
        "measure", "capture", "--window", "4", "--out", "few", "--quiet",
    ];
    kvprof(path).args(few).assert().success();
    kvprof(path)
        .args(["profile", "--data", &data, "--window", "4", "--quiet"])
        .args(["--out", "own4"])
        .assert()
        .success();
    assert_eq!(tables(&path.join("own4")), tables(&path.join("few")));
    let again = refusal(path, &few, 1);
    assert!(again.contains("already holds this very profile"), "{again}");
    kvprof(path).args(few).arg("--resume").assert().success();
}

#[test]
fn captures_that_do_not_go_together_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let data = short_prompts(path);
    captured(path, &data, "8");
    let refused = |arguments: &[&str], code| refusal(path, arguments, code);
    let wide = refused(&["measure", "capture", "--window", "9"], 1);
    assert!(
        wide.contains("--window is 9") && wide.contains("last 8 rows"),
        "{wide}"
    );
    let all = refused(&["measure", "capture", "--window", "all"], 1);
    assert!(all.contains("--window is all"), "{all}");
    let none = refused(&["measure"], 2);
    assert!(none.contains("CAPTURE"), "{none}");
    refused(&["measure", "capture", "--stdin-layers"], 2);
    let folder = refused(&["measure", "own"], 1);
    assert!(folder.contains("no capture.json"), "{folder}");
    let taken = [
        "profile", "--data", &data, "--window", "8", "--out", "other", "--quiet",
    ];
    let taken = [&taken[..], &["--capture-out", "capture"]].concat();
    let taken = refused(&taken, 1);
    assert!(taken.contains("already holds this very capture"), "{taken}");
    let occupied = [
        "profile",
        "--data",
        &data,
        "--out",
        "own",
        "--capture-out",
        "new",
    ];
    let inside = [
        "profile",
        "--data",
        &data,
        "--out",
        "p",
        "--capture-out",
        "p/capture",
    ];
    assert!(refused(&inside, 1).contains("keep them apart"));
    assert!(!path.join("p").exists());
    assert!(refused(&occupied, 1).contains("another window"));
    assert!(
        !path.join("new").exists(),
        "nothing of a capture without a profile"
    );
    let coded = [
        "profile",
        "--data",
        &data,
        "--cache-dtype",
        "q8",
        "--capture-out",
        "c8",
    ];
    assert!(refused(&coded, 1).contains("--cache-dtype"));

    // Two captures of one model make one profile; of another type they do not.
    let manifest = path.join("capture/capture.json");
    copy_folder(&path.join("capture"), &path.join("copy"));
    let both = ["measure", "capture", "copy", "--out", "both", "--quiet"];
    kvprof(path).args(both).assert().success();
    let twice = refused(&["measure", "capture", "./capture"], 1);
    assert!(twice.contains("./capture comes twice"), "{twice}");
    let meta = fs::read_to_string(path.join("both/meta.json")).unwrap();
    let meta: serde_json::Value = serde_json::from_str(&meta).unwrap();
    let prompts = fs::read_to_string(&manifest).unwrap();
    let prompts: serde_json::Value = serde_json::from_str(&prompts).unwrap();
    let count = prompts["prompts"].as_array().unwrap().len();
    assert_eq!(meta["prompts"], 2 * count);
    fs::create_dir(path.join("second")).unwrap();
    for entry in fs::read_dir(path.join("capture")).unwrap() {
        let entry = entry.unwrap();
        let to = path.join("second").join(entry.file_name());
        #[cfg(unix)]
        std::os::unix::fs::symlink(entry.path(), to).unwrap();
    }
    fs::remove_file(path.join("second/capture.json")).unwrap();
    let mut other = prompts.clone();
    other["dtype"] = "bf16".into();
    fs::write(path.join("second/capture.json"), other.to_string()).unwrap();
    let differ = refused(&["measure", "capture", "second"], 1);
    // Names of a capture lead to no other folder.
    let mut evil = prompts.clone();
    evil["model"]["name"] = "x/../../../escaped".into();
    fs::write(path.join("second/capture.json"), evil.to_string()).unwrap();
    kvprof(path)
        .args(["measure", "second", "--quiet"])
        .assert()
        .success();
    assert!(path.join("measure-x-..-..-..-escaped-short").is_dir());
    assert!(
        differ.contains("second has another dtype than capture"),
        "{differ}"
    );
}

#[test]
fn a_pipe_that_breaks_leaves_no_profile() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    for (input, part) in [
        ("", "without the end of a line"),
        ("hello\n", "not the manifest of a capture"),
        (
            "{\"format\": \"kvprof-capture\", \"version\": 9}\n",
            "version 9",
        ),
    ] {
        let output = kvprof(path)
            .args(["measure", "--stdin-layers", "--out", "m"])
            .write_stdin(input)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            said.contains(part) && said.contains("standard input"),
            "{said}"
        );
        assert!(!path.join("m").exists());
    }
}
