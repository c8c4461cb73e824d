//! `kvprof eval` as a stranger meets it: what it must equal, how it resumes, what it refuses.
#![allow(clippy::unwrap_used)]

mod binary;

use std::fs;
use std::path::Path;

use binary::{json, printed, refusal};
use kvprof::eval::Results;
use kvprof::table::{Column, Table};

/// Three short questions with answers and marked evidence.
fn questions(folder: &Path) -> String {
    let places = ["Orlen", "Tavi", "Mirrow"];
    let lines: Vec<String> = (places.iter().enumerate())
        .map(|(p, place)| {
            let fact = format!("The ferry leaves from {place}.");
            let filler =
                "The harbour is quiet and the boats lie still in the morning. ".repeat(4 + p);
            let context = format!("{filler}{fact} {filler}");
            let start = filler.len();
            serde_json::json!({
                "_id": format!("q{p}"), "input": "Where does the ferry leave from?",
                "context": context, "answers": [place], "evidence": [[start, start + fact.len()]],
            })
            .to_string()
        })
        .collect();
    fs::write(folder.join("ferry.jsonl"), lines.join("\n")).unwrap();
    "ferry.jsonl".to_owned()
}

fn arguments<'a>(data: &'a str, out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let start = [
        "eval",
        "--data",
        data,
        "--out",
        out,
        "--window",
        "8",
        "--max-new-tokens",
        "10",
        "--resamples",
        "200",
    ];
    [&start[..], more].concat()
}

fn texts<'t>(table: &'t Table, name: &str) -> &'t [String] {
    match table.column(name) {
        Some(Column::Text(values)) => values,
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn budgets_of_every_token_are_the_full_cache_and_fidelity_is_perfect() {
    let folder = tempfile::tempdir().unwrap();
    let (path, data) = (folder.path(), questions(folder.path()));
    let methods = "full,snapkv,ada-kv,zigzag,h2o,tova,random,oracle";
    let grid = ["--methods", methods, "--budgets", "24,100%", "--json"];
    let said = printed(path, &arguments(&data, "r", &grid));
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert!(said["comparisons"].as_array().unwrap().len() > 20);
    let results = Results::load(&path.join("r")).unwrap();
    let table = &results.results;
    let (methods, budgets) = (texts(table, "method"), texts(table, "budget"));
    assert!(texts(table, "error").iter().all(String::is_empty));
    assert_eq!(table.rows(), 3 * (1 + 7 * 2));
    let numbers = |name: &str| table.numbers(name).unwrap();
    let prompts = table.counts("prompt").unwrap();
    let full = |row: usize| {
        (0..table.rows())
            .find(|&r| prompts[r] == prompts[row] && methods[r] == "full")
            .unwrap()
    };
    let (mut perfect, mut worse) = (0, 0);
    for row in 0..table.rows() {
        if budgets[row] == "100%" || methods[row] == "full" {
            assert_eq!(numbers("kl")[row], 0.0, "{} {}", methods[row], budgets[row]);
            assert_eq!(numbers("top1")[row], 1.0);
            assert_eq!(numbers("evidence")[row], 1.0);
            for same in ["kv_bytes", "nll", "f1", "em", "contains", "budget_tokens"] {
                assert_eq!(numbers(same)[row], numbers(same)[full(row)], "{same}");
            }
            assert_eq!(
                texts(table, "answer")[row],
                texts(table, "answer")[full(row)]
            );
            perfect += 1;
        } else {
            assert!(
                numbers("kl")[row] > 0.0,
                "{} changes something",
                methods[row]
            );
            assert!((numbers("budget_tokens")[row] - 24.0).abs() < 1e-9);
            assert_eq!(
                numbers("kv_bytes")[row] * numbers("tokens")[row],
                numbers("full_bytes")[row] * 24.0
            );
            worse += 1;
        }
    }
    assert_eq!((perfect, worse), (3 + 7 * 3, 7 * 3));
    let timings = results.timings.numbers("prefill_s").unwrap();
    assert!(timings.iter().all(|s| *s > 0.0));
    assert_eq!(results.evidence.rows(), table.rows() * 30);
}

#[test]
fn the_full_cache_and_a_cut_one_answer_as_generate_does() {
    let folder = tempfile::tempdir().unwrap();
    let (path, data) = (folder.path(), questions(folder.path()));
    let grid = [
        "--methods",
        "full,zigzag",
        "--baseline",
        "full",
        "--budgets",
        "30",
        "--quiet",
    ];
    printed(path, &arguments(&data, "r", &grid));
    let results = Results::load(&path.join("r")).unwrap();
    let answers = texts(&results.results, "answer");
    for index in ["0", "1", "2"] {
        let generate = |more: &[&str]| {
            let start = [
                "generate",
                "--data",
                &data,
                "--index",
                index,
                "--max-new-tokens",
                "10",
                "--json",
            ];
            let text = printed(path, &[&start[..], more].concat());
            serde_json::from_str::<serde_json::Value>(&text).unwrap()
        };
        let row = 2 * index.parse::<usize>().unwrap();
        assert_eq!(answers[row], generate(&[])["text"]);
        let cut = [
            "--strategy",
            "zigzag",
            "--budget",
            "30",
            "--window",
            "8",
            "--compare",
        ];
        let cut = generate(&cut);
        assert_eq!(answers[row + 1], cut["text"]);
        // There token by token, here all at once: only the order of float32 sums differs.
        let compared = &cut["comparison"];
        let kl = results.results.numbers("kl").unwrap()[row + 1];
        assert!(
            (kl - compared["kl"].as_f64().unwrap()).abs() < 1e-3 * (1.0 + kl),
            "{kl} {compared}"
        );
        let top1 = results.results.numbers("top1").unwrap()[row + 1];
        assert_eq!(top1, compared["top1"].as_f64().unwrap());
    }
}

#[test]
fn an_interrupted_run_resumes_to_the_same_bytes_and_failures_are_rows() {
    let folder = tempfile::tempdir().unwrap();
    let (path, data) = (folder.path(), questions(folder.path()));
    // A bound above the budget: that configuration fails, the other does not.
    let grid = [
        "--methods",
        "snapkv,zigzag(floor=30)",
        "--budgets",
        "20",
        "--quiet",
    ];
    printed(path, &arguments(&data, "a", &grid));
    let results = Results::load(&path.join("a")).unwrap();
    let errors = texts(&results.results, "error");
    assert!(errors.iter().step_by(2).all(String::is_empty));
    assert!(
        errors
            .iter()
            .skip(1)
            .step_by(2)
            .all(|e| e.contains("floor is 30 tokens")),
        "{errors:?}"
    );
    // What a killed run leaves: its settings and the first prompt's part.
    printed(path, &arguments(&data, "b", &grid));
    let parts = path.join("b/.parts");
    fs::create_dir(&parts).unwrap();
    fs::rename(path.join("b/meta.json"), parts.join("meta.json")).unwrap();
    for table in ["results", "evidence", "timings"] {
        fs::remove_file(path.join(format!("b/{table}.parquet"))).unwrap();
    }
    let resumed = [&grid[..], &["--resume"]].concat();
    printed(path, &arguments(&data, "b", &resumed));
    for table in ["results", "evidence"] {
        let bytes = |run: &str| fs::read(path.join(format!("{run}/{table}.parquet"))).unwrap();
        assert_eq!(bytes("a"), bytes("b"), "{table}");
    }
    let all = [
        "--methods",
        "zigzag(floor=30)",
        "--baseline",
        "zigzag(floor=30)",
        "--budgets",
        "20",
    ];
    let said = refusal(path, &arguments(&data, "c", &all), 1);
    assert!(said.contains("every configuration failed"), "{said}");
    let other = [&grid[..], &["--resume", "--sinks", "2"]].concat();
    let said = refusal(path, &arguments(&data, "b", &other), 1);
    assert!(said.contains("another sinks"), "{said}");
    assert_eq!(
        json(path.join("b/meta.json"))["methods"][0]["scorer"],
        "snapkv"
    );
}

#[test]
fn needles_are_hidden_found_and_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let grid = [
        "eval",
        "--task",
        "needle",
        "--lengths",
        "320",
        "--depths",
        "0,100",
        "--seeds",
        "2",
        "--methods",
        "full,snapkv",
        "--budgets",
        "64",
        "--max-new-tokens",
        "8",
        "--out",
        "n",
        "--quiet",
    ];
    printed(path, &grid);
    let results = Results::load(&path.join("n")).unwrap();
    let depths = results.results.numbers("depth").unwrap();
    assert_eq!(results.results.rows(), 2 * 2 * 2);
    assert!(depths.contains(&0.0) && depths.contains(&100.0));
    let evidence = results.results.numbers("evidence").unwrap();
    assert!(evidence.iter().all(|e| (0.0..=1.0).contains(e)));
    printed(path, &["plot", "frontier", "--results", "n"]);
    for chart in ["needle", "evidence"] {
        printed(path, &["plot", chart, "--results", "n", "--budget", "64"]);
    }
    printed(path, &["report", "n", "--baseline", "full"]);
    let page = fs::read_to_string(path.join("report.html")).unwrap();
    assert!(
        page.contains("too few prompts"),
        "comparisons reach the page"
    );
}

#[test]
fn what_cannot_be_is_refused_before_the_weights_load() {
    let folder = tempfile::tempdir().unwrap();
    let (path, data) = (folder.path(), questions(folder.path()));
    for (more, expected) in [
        (
            &["--methods", "snapkv", "--task", "needle"][..],
            "do not fit --task needle",
        ),
        (&["--methods", "snapkv,zigzack"][..], "zigzag-lmbo"),
        (&["--methods", "zigzag"], "--baseline snapkv is not among"),
        (&["--methods", "snapkv,snapkv"], "named twice"),
        (&["--methods", "snapkv,zigzag@profile"], "--profile"),
        (
            &["--methods", "snapkv,output-optimal:head"],
            "granularity 'head'",
        ),
        (&["--methods", "snapkv,uniform:head"], "granularity 'head'"),
        (&["--methods", "snapkv,pyramid:head"], "granularity 'head'"),
        (
            &["--methods", "snapkv,zigzag(threshold=2)"],
            "unknown threshold '2'",
        ),
        (
            &["--methods", "snapkv", "--profile", binary::PROFILE],
            "leave it out",
        ),
        (
            &["--methods", "snapkv", "--budgets", "11"],
            "below the 12 tokens",
        ),
        (
            &["--methods", "snapkv", "--budgets", "20,20"],
            "given twice",
        ),
        (
            &["--methods", "snapkv", "--lengths", "512"],
            "--task needle",
        ),
        (
            &["--methods", "snapkv", "--max-new-tokens", "0"],
            "at least one",
        ),
        (&["--methods", "snapkv", "--resamples", "5"], "at least 100"),
    ] {
        // A later argument of the same name would be a usage error: only the base ones that are not replaced.
        let base = ["eval", "--data", &data, "--window", "8", "--out", "x"];
        let said = refusal(path, &[&base[..], more].concat(), 1);
        assert!(said.contains(expected), "{more:?}: {said}");
        assert!(!path.join("x").exists());
    }
    let full = [
        "eval",
        "--task",
        "needle",
        "--lengths",
        "8192",
        "--depths",
        "50",
        "--seeds",
        "1",
        "--methods",
        "full",
        "--baseline",
        "full",
    ];
    let said = refusal(path, &full, 1);
    assert!(said.contains("at most 8160 leave room for 32"), "{said}");
    let wide = [
        "eval",
        "--data",
        &data,
        "--methods",
        "snapkv",
        "--window",
        "4000",
        "--budgets",
        "5000",
    ];
    let said = refusal(path, &wide, 1);
    assert!(said.contains("lower --window"), "{said}");
}

#[test]
fn questions_after_the_cut_share_it_and_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let (path, data) = (folder.path(), questions(folder.path()));
    // The first context is asked about twice.
    let lines = fs::read_to_string(path.join(&data)).unwrap();
    let again = lines.lines().next().unwrap().replace("q0", "q0b");
    let again = again.replace("Where does the ferry leave from?", "What lies still?");
    fs::write(path.join(&data), format!("{lines}\n{again}")).unwrap();
    let after = [
        "--protocol",
        "question-after",
        "--methods",
        "full,snapkv",
        "--budgets",
        "24",
    ];
    let said = printed(path, &arguments(&data, "a", &after));
    assert!(
        said.contains("question-after: contexts were prefilled and cut alone"),
        "{said}"
    );
    let results = Results::load(&path.join("a")).unwrap();
    assert_eq!(
        results.meta.data.protocol.as_deref(),
        Some("question-after")
    );
    let table = &results.results;
    assert!(texts(table, "error").iter().all(String::is_empty));
    let (ids, clusters) = (texts(table, "prompt_id"), texts(table, "cluster"));
    let cluster = |id: &str| &clusters[ids.iter().position(|i| i == id).unwrap()];
    assert_eq!(cluster("q0"), cluster("q0b"));
    assert_ne!(cluster("q0"), cluster("q1"));
    assert!(
        table
            .counts("question_tokens")
            .unwrap()
            .iter()
            .all(|&tokens| tokens > 20)
    );
    // Alone, the second question finds what it found beside the first.
    fs::write(path.join("alone.jsonl"), &again).unwrap();
    printed(path, &arguments("alone.jsonl", "b", &after));
    let alone = Results::load(&path.join("b")).unwrap().results;
    let of = |table: &Table, name: &str| -> Vec<f64> {
        let rows = texts(table, "prompt_id").iter().enumerate();
        let rows = rows.filter(|(_, id)| *id == "q0b");
        rows.map(|(row, _)| table.numbers(name).unwrap()[row])
            .collect()
    };
    for name in ["kl", "nll", "kv_bytes", "evidence"] {
        assert_eq!(of(table, name), of(&alone, name), "{name}");
    }
    let other = [&after[..], &["--resume"]].concat();
    let known = arguments(
        &data,
        "a",
        &["--methods", "full,snapkv", "--budgets", "24", "--resume"],
    );
    assert!(refusal(path, &known, 1).contains("another prompts"));
    printed(path, &arguments(&data, "a", &other));
    let source = [
        "--observe-from",
        "dummy",
        "--methods",
        "full,snapkv",
        "--budgets",
        "24",
    ];
    assert!(refusal(path, &arguments(&data, "c", &source), 1).contains("question-after"));
}
