//! Summaries, windows and folders of traces made up by hand.

use super::*;
use crate::error::Error;
use crate::model::residency::ResidencyBytes;
use crate::run::{DataRecord, ModelRecord};
use serde_json::json;

/// A method of so many steps: `bytes` and `token` by step, `ms` by repeat and step.
fn method(
    name: &str,
    steps: usize,
    bytes: fn(usize) -> usize,
    token: fn(usize) -> u32,
    ms: Vec<Vec<f64>>,
) -> MethodTrace {
    let step = |s: usize| Step {
        position: 10 + s,
        token: token(s),
        bytes: ResidencyBytes {
            resident: bytes(s),
            offloaded: 3 * s,
        },
        mean_rows: s as f64 + 0.5,
        peak_rows: s + 1,
    };
    MethodTrace {
        name: name.to_owned(),
        budget: "64".to_owned(),
        steps: (0..steps).map(step).collect(),
        ms,
    }
}

fn record(methods: &[&str], new_tokens: usize, repeats: usize) -> TraceRecord {
    let model = ModelRecord {
        name: "tiny".to_owned(),
        ..ModelRecord::default()
    };
    let settings = TraceSettings {
        index: Some(1),
        prompt_tokens: 10,
        methods: methods.iter().map(|name| json!({"name": name})).collect(),
        budget: Some("64".to_owned()),
        sinks: 4,
        window: 8,
        new_tokens,
        repeats,
        threads: 2,
        ..TraceSettings::default()
    };
    TraceRecord::new("kvprof trace", model, DataRecord::default(), settings)
}

#[test]
fn summaries_by_hand() {
    // Of 6 steps the first and the last 3 are the ends; each step's time is the median of its repeats.
    let ms = vec![
        vec![1.0, 2.0, 3.0, 7.0, 8.0, 9.0],
        vec![1.0, 2.0, 3.0, 7.0, 8.0, 9.0],
        vec![90.0, 80.0, 70.0, 7.0, 8.0, 0.5],
    ];
    let rising = method("full", 6, |s| 100 + s, |s| s as u32, ms.clone());
    let bent = |s: usize| [50, 60, 70, 60, 50, 40][s];
    let parts_at_4 = |s: usize| if s == 4 { 99 } else { s as u32 };
    let other = method("snapkv", 6, bent, parts_at_4, ms);
    let trace = Trace {
        meta: record(&["full", "snapkv"], 6, 3),
        methods: vec![rising, other],
    };
    let [full, snapkv] = &summarise(&trace)[..] else {
        panic!("a summary per method")
    };
    assert_eq!(
        (full.first_bytes, full.last_bytes, full.most_bytes),
        (100, 105, 105)
    );
    assert_eq!(
        (snapkv.first_bytes, snapkv.last_bytes, snapkv.most_bytes),
        (50, 40, 70)
    );
    assert_eq!(snapkv.most_offloaded_bytes, 15);
    assert_eq!((snapkv.mean_rows, snapkv.peak_rows), (3.0, 6));
    assert_eq!((snapkv.ms_per_token, snapkv.slowdown), (5.0, 4.0));
    assert_eq!(
        (full.shared_tokens, snapkv.shared_tokens),
        (Some(6), Some(4))
    );
    let alone = Trace {
        methods: trace.methods[1..].to_vec(),
        ..trace
    };
    assert_eq!(summarise(&alone)[0].shared_tokens, None);
}

#[test]
fn ends_are_of_a_hundred_steps_at_most() {
    let ms: Vec<f64> = (0..300)
        .map(|s| {
            if s < 100 {
                2.0
            } else if s < 200 {
                50.0
            } else {
                3.0
            }
        })
        .collect();
    let trace = Trace {
        meta: record(&["full"], 300, 1),
        methods: vec![method("full", 300, |_| 1, |_| 0, vec![ms])],
    };
    assert_eq!(summarise(&trace)[0].slowdown, 1.5);
    let once = Trace {
        meta: record(&["full"], 1, 1),
        methods: vec![method("full", 1, |_| 1, |_| 0, vec![vec![4.0]])],
    };
    let once = &summarise(&once)[0];
    assert_eq!((once.ms_per_token, once.slowdown), (4.0, 1.0));
}

#[test]
fn windows_are_medians_and_quartiles_over_repeats() {
    let ms = vec![
        vec![1.0, 2.0, 3.0, 4.0, 9.0],
        vec![5.0, 6.0, 7.0, 8.0, 11.0],
    ];
    let own = method("full", 5, |_| 1, |_| 0, ms);
    let windows = own.time_windows(2);
    let of = |value: fn(&TimeWindow) -> f64| windows.iter().map(value).collect::<Vec<_>>();
    assert_eq!(of(|w| w.middle), [1.0, 3.5]);
    // 1, 2, 3, 5, 6, 7 and 4, 8, 9, 11.
    assert_eq!(of(|w| w.median), [4.0, 8.5]);
    assert_eq!(of(|w| w.lower), [2.25, 7.0]);
    assert_eq!(of(|w| w.upper), [5.75, 9.5]);
    assert_eq!(own.time_windows(100).len(), 5);
    assert!(MethodTrace::default().time_windows(3).is_empty());
}

#[test]
fn a_folder_is_filled_turn_by_turn_and_read_back() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("t");
    let names = ["full", "snapkv"];
    let all: Vec<MethodTrace> = (names.into_iter().zip([3.0, 5.0]))
        .map(|(name, ms)| {
            method(
                name,
                4,
                |s| 9 + s,
                |s| s as u32,
                vec![vec![ms; 4], vec![ms + 1.0; 4]],
            )
        })
        .collect();
    let run = TraceRun::prepare(&folder, record(&names, 4, 2), 4, false).unwrap();
    for turn in turns(2, 2) {
        let own = &all[turn.method];
        let steps = if turn.repeat == 0 {
            &own.steps[..]
        } else {
            &[]
        };
        let tables = [
            steps_table(&own.name, &own.budget, steps),
            times_table(&own.name, turn.repeat, &own.ms[turn.repeat]),
        ];
        run.write(turn.part, &tables).unwrap();
    }
    assert!(Trace::load(&folder).is_err(), "not finished");
    run.finish().unwrap();
    let trace = Trace::load(&folder).unwrap();
    assert_eq!(trace.meta, record(&names, 4, 2));
    assert_eq!(trace.methods, all);

    // A table of other rows, or of values that cannot be, is refused.
    for ms in [f64::NAN, -1.0] {
        let mut times = times_table("full", 0, &[3.0, ms, 3.0, 3.0]);
        for turn in turns(2, 2).into_iter().filter(|turn| turn.part > 0) {
            let own = &all[turn.method];
            let own = times_table(&own.name, turn.repeat, &own.ms[turn.repeat]);
            times.append(own).unwrap();
        }
        times.write(&folder.join("step_times.parquet")).unwrap();
        let said = Trace::load(&folder).unwrap_err();
        assert!(
            matches!(said, Error::Format { .. }) && said.to_string().contains("step_times"),
            "{said}"
        );
    }
    steps_table("full", "64", &all[0].steps)
        .write(&folder.join("steps.parquet"))
        .unwrap();
    let said = Trace::load(&folder).unwrap_err().to_string();
    assert!(said.contains("steps.parquet does not hold"), "{said}");
}
