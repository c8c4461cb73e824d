//! A run's record is read and written again without a byte changed, and refused where a field is another's.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use kvprof::eval::EvalSettings;
use kvprof::eval::hit_rate::HitRateSettings;
use kvprof::eval::speed::SpeedSettings;
use kvprof::eval::trace::TraceSettings;
use kvprof::profile::ProfileSettings;
use kvprof::run::{RunRecord, RunSettings};

/// Reads `text` as a record and writes it as a run does.
fn again<S: RunSettings>(text: &str) -> String {
    let record: RunRecord<S> = serde_json::from_str(text).unwrap();
    serde_json::to_string_pretty(&record).unwrap() + "\n"
}

fn shipped(folder: &str) -> String {
    let profiles = Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles");
    fs::read_to_string(profiles.join(folder).join("meta.json")).unwrap()
}

#[test]
fn shipped_records_keep_their_bytes() {
    let profile = shipped("smollm2-135m-wikimqa-style-2k");
    assert_eq!(again::<ProfileSettings>(&profile), profile);
    for folder in ["smollm2-135m-wikimqa-style-2k-eval", "smollm2-135m-needle"] {
        let evaluation = shipped(folder);
        assert_eq!(again::<EvalSettings>(&evaluation), evaluation);
    }
}

const SPEED: &str = r#"{
  "schema": 2,
  "kvprof": "0.1.0",
  "command": "kvprof speed",
  "model": "tiny",
  "model_source": "here",
  "model_sha256": "a1",
  "device": "Cpu",
  "dtype": "f32",
  "threads": 2,
  "scorer": "snapkv",
  "scorer_parameters": {
    "pooling": "max"
  },
  "sinks": 4,
  "window": 32,
  "lengths": [
    512
  ],
  "budgets": [
    64
  ],
  "prompts_sha256": "b2",
  "steps": 16,
  "uncached_steps": 1,
  "repeats": 5,
  "seed": 0
}
"#;

const HIT_RATES: &str = r#"{
  "schema": 1,
  "kvprof": "0.1.0",
  "command": "kvprof hitrate",
  "model": "tiny",
  "model_source": "here",
  "model_sha256": "a1",
  "num_layers": 2,
  "num_heads": 4,
  "dataset": "made-up",
  "dataset_sha256": "c3",
  "template": "d4 raw",
  "prompts": 3,
  "prompts_sha256": "b2",
  "max_prompt_tokens": 4096,
  "options": {
    "windows": 20,
    "window": 128,
    "generated_windows": 4,
    "top": 0.05,
    "theta": 0.05
  },
  "device": "Cpu",
  "dtype": "bf16"
}
"#;

const TRACE: &str = r#"{
  "schema": 1,
  "kvprof": "0.1.0",
  "command": "kvprof trace",
  "model": "tiny",
  "model_source": "here",
  "model_sha256": "a1",
  "num_layers": 2,
  "num_kv_heads": 2,
  "head_dim": 8,
  "device": "Cpu",
  "dtype": "f32",
  "threads": 2,
  "dataset": "made-up",
  "dataset_sha256": "c3",
  "template": "d4 raw",
  "index": null,
  "prompts_sha256": "b2",
  "max_prompt_tokens": 1024,
  "prompt_tokens": 40,
  "methods": [
    {
      "name": "full"
    }
  ],
  "budget": null,
  "sinks": 4,
  "window": 32,
  "new_tokens": 5,
  "repeats": 1
}
"#;

#[test]
fn records_of_speed_hit_rates_and_traces_keep_their_bytes() {
    assert_eq!(again::<SpeedSettings>(SPEED), SPEED);
    assert_eq!(again::<HitRateSettings>(HIT_RATES), HIT_RATES);
    assert_eq!(again::<TraceSettings>(TRACE), TRACE);
}

#[test]
fn fields_that_are_strange_missing_or_damaged_are_named() {
    let refused = |from: &str, to: &str| {
        let text = SPEED.replace(from, to);
        assert_ne!(text, SPEED);
        let read = serde_json::from_str::<RunRecord<SpeedSettings>>(&text);
        read.unwrap_err().to_string()
    };
    // Known to another kind of run.
    let strange = refused("\"seed\": 0", "\"seed\": 0,\n  \"num_layers\": 2");
    assert!(
        strange.contains("unknown field `num_layers`, expected one of schema, kvprof"),
        "{strange}"
    );
    let missing = refused("  \"threads\": 2,\n", "");
    assert!(missing.contains("missing field `threads`"), "{missing}");
    let damaged = refused("\"steps\": 16", "\"steps\": \"many\"");
    assert!(
        damaged.contains("field `steps`: invalid type: string \"many\""),
        "{damaged}"
    );
    let optional = HIT_RATES.replace("  \"max_prompt_tokens\": 4096,\n", "");
    let read: RunRecord<HitRateSettings> = serde_json::from_str(&optional).unwrap();
    assert_eq!(read.data.max_prompt_tokens, None);
    let inner = HIT_RATES.replace("\"top\"", "\"bottom\"");
    let inner = serde_json::from_str::<RunRecord<HitRateSettings>>(&inner).unwrap_err();
    assert!(
        inner
            .to_string()
            .contains("field `options`: unknown field `bottom`"),
        "{inner}"
    );
}
