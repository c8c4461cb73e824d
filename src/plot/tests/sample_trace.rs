//! A trace made up for tests.

use super::sample::Sample;
use crate::eval::trace::{MethodTrace, Step, Trace, TraceRecord, TraceSettings};
use crate::model::residency::ResidencyBytes;
use crate::run::ModelRecord;
use serde_json::json;

/// Tokens that every method writes.
const NEW: usize = 240;

/// Rows of the full cache's heads that a method holds at a step, and rows that it keeps elsewhere.
type Rows = fn(usize, usize) -> (usize, usize);

/// Methods by name, the ms of a token and the rows after so many tokens of a prompt and so many steps.
const METHODS: [(&str, f64, Rows); 6] = [
    ("full", 9.0, |tokens, step| (tokens + step, 0)),
    ("snapkv", 7.0, |_, step| (64 + step, 0)),
    ("snapkv+evict-h2o", 8.0, |_, _| (64, 0)),
    ("snapkv+evict-tova", 8.5, |_, _| (64, 0)),
    ("clusterkv", 12.0, |tokens, step| {
        (100 + step % 80, tokens + step / 80 * 80)
    }),
    ("zigzag", 7.5, |_, step| (80 + step, 0)),
];

impl Sample {
    /// Six methods that write behind the first prompt, three repeats each.
    pub fn trace(&self) -> Trace {
        let of_profile = self.meta();
        let tokens = self.tokens.first().map_or(512, |&t| t as usize);
        let row = 2 * 4 * 64 * self.layers * self.kv_heads;
        let method = |(name, ms, rows): (&str, f64, Rows)| {
            let step = |s: usize| {
                let (resident, offloaded) = rows(tokens, s + 1);
                Step {
                    position: tokens + s,
                    token: (7 * s % 50) as u32,
                    bytes: ResidencyBytes {
                        resident: row * resident,
                        offloaded: row * offloaded,
                    },
                    mean_rows: resident as f64,
                    peak_rows: resident,
                }
            };
            let time = |repeat: usize, s: usize| {
                ms + 0.002 * s as f64 + (s * (repeat + 3) % 7) as f64 / 9.0
            };
            MethodTrace {
                name: name.to_owned(),
                budget: if name == "full" { name } else { "64" }.to_owned(),
                steps: (0..NEW).map(step).collect(),
                ms: (0..3)
                    .map(|r| (0..NEW).map(|s| time(r, s)).collect())
                    .collect(),
            }
        };
        let settings = TraceSettings {
            index: Some(0),
            prompt_tokens: tokens,
            methods: METHODS.map(|(name, ..)| json!({"name": name})).to_vec(),
            budget: Some("64".to_owned()),
            sinks: 4,
            window: 32,
            new_tokens: NEW,
            repeats: 3,
            threads: 2,
            ..TraceSettings::default()
        };
        let model = ModelRecord {
            device: "Cpu".to_owned(),
            ..of_profile.model
        };
        let command = "kvprof trace --model sample";
        Trace {
            meta: TraceRecord::new(command, model, of_profile.data, settings),
            methods: METHODS.map(method).to_vec(),
        }
    }
}
