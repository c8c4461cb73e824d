//! Evaluations made up for tests: any methods and budgets, values that look like a model's.
// Every test uses its own part of this.
#![allow(dead_code, clippy::unwrap_used)]

use std::path::Path;

use kvprof::eval::{EvalRecord, EvalSettings, RESULT_TABLES, Results};
use kvprof::run::{DataRecord, ModelRecord};
use kvprof::table::{Column, Table};

/// What a made-up evaluation holds.
#[derive(Clone)]
pub struct SampleResults {
    /// `qa` or `needle`.
    pub task: &'static str,
    /// Methods besides full.
    pub methods: Vec<&'static str>,
    /// Budgets in tokens per KV head.
    pub budgets: Vec<u32>,
    /// Prompts of a task qa; a task needle has three seeds of every length and depth.
    pub prompts: usize,
    /// L.
    pub layers: usize,
}

/// Twelve methods with names as long as real ones.
pub const TWELVE: [&str; 12] = [
    "snapkv",
    "zigzag",
    "pyramid",
    "mass-optimal",
    "output-optimal",
    "streaming",
    "h2o",
    "tova",
    "knorm",
    "random",
    "oracle",
    "zigzag+snapkv+pooled",
];

impl Default for SampleResults {
    fn default() -> Self {
        Self {
            task: "qa",
            methods: TWELVE[..3].to_vec(),
            budgets: vec![64, 128, 256, 512],
            prompts: 40,
            layers: 30,
        }
    }
}

/// A prompt of a made-up evaluation.
struct Prompt {
    tokens: u32,
    length: f64,
    depth: f64,
}

/// A repeatable number between 0 and 1 that looks random.
fn noise(key: &[usize]) -> f64 {
    let mixed = key.iter().fold(0x9E37_79B9_7F4A_7C15u64, |state, part| {
        let state = (state ^ *part as u64).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        state ^ (state >> 29)
    });
    (mixed >> 11) as f64 / (1u64 << 53) as f64
}

impl SampleResults {
    /// The evaluation in memory.
    pub fn results(&self) -> Results {
        let prompts = self.prompt_list();
        let mut tables = Tables::default();
        for (index, prompt) in prompts.iter().enumerate() {
            self.push(&mut tables, index, prompt, None);
            for method in 0..self.methods.len() {
                for budget in &self.budgets {
                    self.push(&mut tables, index, prompt, Some((method, *budget)));
                }
            }
        }
        Results {
            meta: self.meta(prompts.len()),
            results: table(tables.results),
            evidence: table(tables.evidence),
            timings: table(tables.timings),
            residency: None,
            recall: None,
        }
    }

    /// Writes the evaluation as a results folder.
    pub fn write(&self, folder: &Path) {
        let results = self.results();
        let all = [&results.results, &results.evidence, &results.timings];
        for (name, table) in RESULT_TABLES.iter().zip(all) {
            table
                .write(&folder.join(format!("{name}.parquet")))
                .unwrap();
        }
        let meta = serde_json::to_string_pretty(&results.meta).unwrap();
        std::fs::write(folder.join("meta.json"), meta).unwrap();
    }

    fn prompt_list(&self) -> Vec<Prompt> {
        if self.task == "needle" {
            let grid = [1024u32, 2048, 4096, 8192]
                .into_iter()
                .flat_map(|length| (0..=10).map(move |depth| (length, depth)));
            return grid
                .flat_map(|(length, depth)| {
                    (0..3).map(move |_| Prompt {
                        tokens: length,
                        length: f64::from(length),
                        depth: f64::from(depth * 10),
                    })
                })
                .collect();
        }
        let prompt = |p| Prompt {
            tokens: 1900 + 7 * p as u32,
            length: f64::NAN,
            depth: f64::NAN,
        };
        (0..self.prompts).map(prompt).collect()
    }

    fn push(&self, tables: &mut Tables, index: usize, prompt: &Prompt, cut: Option<(usize, u32)>) {
        let tokens = f64::from(prompt.tokens);
        let (method, budget) = cut.unwrap_or((99, prompt.tokens));
        let name = self.methods.get(method).copied().unwrap_or("full");
        let typed = cut.map_or("full".to_owned(), |(_, b)| b.to_string());
        let kept = f64::from(budget.min(prompt.tokens));
        let random = |what: usize| noise(&[index, method, budget as usize, what]);
        let lost = 1.0 - kept / tokens;
        let hard = 0.4 + noise(&[index, 7]);
        let skill = 1.0 + 0.35 * noise(&[method, 3]) + 0.08 * method as f64;
        let kl = lost * hard * skill * (90.0 / kept).powf(0.8) * (0.8 + 0.4 * random(0));
        let evidence =
            1.0 - (lost * skill * (0.35 + 0.5 * random(1)) * (64.0 / kept).powf(0.3)).min(1.0);
        let found =
            f64::from(random(2) < 0.85 - (0.9 * lost * skill * (60.0 / kept).sqrt() * hard));
        let bytes = |per_head: f64| per_head * (self.layers * 3 * 64 * 2 * 4) as f64;
        let failed = name == "random" && index == 1;
        let number = |value: f64| if failed { f64::NAN } else { value };
        tables.results.texts([
            ("prompt_id", format!("p{index}")),
            ("method", name.to_owned()),
            ("strategy", name.to_owned()),
            ("scorer", "snapkv".to_owned()),
            ("split", "per-head".to_owned()),
            ("budget", typed.clone()),
            ("answer", "an answer <b> & more".to_owned()),
            (
                "error",
                if failed {
                    "the seed <0> & no other is refused"
                } else {
                    ""
                }
                .to_owned(),
            ),
        ]);
        tables
            .results
            .counts([("prompt", index as u32), ("tokens", prompt.tokens)]);
        tables.results.numbers([
            ("budget_tokens", kept),
            ("kv_bytes", number(bytes(kept))),
            ("full_bytes", bytes(tokens)),
            ("f1", number(found * (0.4 + 0.6 * random(3)))),
            ("em", number(found * f64::from(random(4) < 0.5))),
            ("contains", number(found)),
            ("nll", number(2.3 * hard + 0.6 * kl)),
            ("kl", number(if cut.is_none() { 0.0 } else { kl })),
            ("top1", number(1.0 - (0.5 * kl / (1.0 + kl)))),
            ("evidence", number(evidence)),
            ("length", prompt.length),
            ("depth", prompt.depth),
        ]);
        tables
            .timings
            .texts([("method", name.to_owned()), ("budget", typed.clone())]);
        tables
            .timings
            .counts([("prompt", index as u32), ("decode_steps", 32)]);
        tables.timings.numbers([
            ("prefill_s", 3.1 + 0.1 * noise(&[index])),
            ("cut_s", 0.02),
            ("decode_s", 0.4 + kept / tokens),
        ]);
        for layer in (0..self.layers).filter(|_| !failed) {
            let bend = (layer as f64 * 0.45 + method as f64 * 0.3).sin();
            let share =
                (evidence + 0.25 * bend * lost * (0.6 + 0.8 * random(40 + layer))).clamp(0.0, 1.0);
            tables
                .evidence
                .texts([("method", name.to_owned()), ("budget", typed.clone())]);
            tables
                .evidence
                .counts([("prompt", index as u32), ("layer", layer as u32)]);
            tables.evidence.numbers([("evidence", share)]);
        }
    }

    fn meta(&self, prompts: usize) -> EvalRecord {
        let method = |name: &&str| serde_json::json!({"name": name});
        let model = ModelRecord {
            name: "sample-1b from made up <here> & now".to_owned(),
            sha256: "a1".repeat(32),
            num_layers: self.layers,
            num_kv_heads: 3,
            device: "cpu".to_owned(),
            dtype: "f32".to_owned(),
            ..ModelRecord::default()
        };
        let data = DataRecord {
            name: "prompts-2k".to_owned(),
            sha256: "b2".repeat(32),
            template: "c3".repeat(32),
            prompts,
            prompts_sha256: "d4".repeat(32),
            max_prompt_tokens: None,
            protocol: None,
        };
        let settings = EvalSettings {
            task: self.task.to_owned(),
            methods: ["full"].iter().chain(&self.methods).map(method).collect(),
            budgets: self.budgets.iter().map(u32::to_string).collect(),
            baseline: "snapkv".to_owned(),
            sinks: 4,
            window: 32,
            whole_windows: false,
            max_new_tokens: 32,
            profile_sha256: None,
            seed: 0,
            observed_from: None,
        };
        let command = "kvprof eval --data 'made up <here> & now' --methods full,snapkv --budgets 64 --out results/a-folder-with-a-long-name-that-must-break-somewhere";
        EvalRecord::new(command, model, data, settings)
    }
}

/// Columns that grow row by row.
#[derive(Default)]
struct Rows(Vec<(String, Column)>);

#[derive(Default)]
struct Tables {
    results: Rows,
    evidence: Rows,
    timings: Rows,
}

impl Rows {
    fn column(&mut self, name: &str, empty: Column) -> &mut Column {
        if !self.0.iter().any(|(n, _)| n == name) {
            self.0.push((name.to_owned(), empty));
        }
        self.0
            .iter_mut()
            .find(|(n, _)| n == name)
            .map(|(_, c)| c)
            .unwrap()
    }

    fn texts<const N: usize>(&mut self, values: [(&str, String); N]) {
        for (name, value) in values {
            if let Column::Text(column) = self.column(name, Column::Text(Vec::new())) {
                column.push(value);
            }
        }
    }

    fn counts<const N: usize>(&mut self, values: [(&str, u32); N]) {
        for (name, value) in values {
            if let Column::Count(column) = self.column(name, Column::Count(Vec::new())) {
                column.push(value);
            }
        }
    }

    fn numbers<const N: usize>(&mut self, values: [(&str, f64); N]) {
        for (name, value) in values {
            if let Column::Number(column) = self.column(name, Column::Number(Vec::new())) {
                column.push(value);
            }
        }
    }
}

fn table(rows: Rows) -> Table {
    let mut table = Table::default();
    for (name, column) in rows.0 {
        table.push(name, column);
    }
    table
}
