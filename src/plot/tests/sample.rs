//! Profiles made up for tests: any geometry, any prompt lengths, values that look like a model's.

use crate::budget::{
    Budget, BudgetPlan, Floor, Geometry, Granularity, Provenance, Request, Targets,
};
use crate::eval::hit_rate::{
    HitRateOptions, HitRateRecord, HitRateSettings, HitRates, Observation,
};
use crate::profile::{
    MeasureOptions, Profile, ProfileRecord, ProfileSettings, PromptLabel, threshold_name,
};
use crate::run::{DataRecord, ModelRecord};
use crate::table::{Column, Rows, Table};
use serde_json::Value;

/// MBA of (prompt, layer, query head).
type Mba = fn(usize, usize, usize) -> f64;

/// What a made-up profile holds.
pub struct Sample {
    /// Model name.
    pub model: &'static str,
    /// T of every prompt.
    pub tokens: Vec<u32>,
    /// L.
    pub layers: usize,
    /// H_q.
    pub heads: usize,
    /// H_kv.
    pub kv_heads: usize,
    /// The keys that a query of each layer sees, `None` for all; empty where every layer sees all.
    pub windows: Vec<Option<usize>>,
    /// MBA at 0.9 in tokens, held between 1 and what the layer sees of T.
    pub mba: Mba,
}

impl Default for Sample {
    fn default() -> Self {
        Self {
            model: "sample-1b",
            tokens: (0..10).map(|p| 1900 + 17 * p).collect(),
            layers: 12,
            heads: 6,
            kv_heads: 2,
            windows: Vec::new(),
            mba: |prompt, layer, head| {
                let bend = (layer as f64 * 1.7).sin() + 1.2;
                1200.0 / (1.0 + layer as f64) * bend + 13.0 * head as f64 + 3.0 * prompt as f64
            },
        }
    }
}

impl Sample {
    /// Every measurement of the sample as a profile.
    pub fn profile(&self) -> Profile {
        Profile {
            meta: self.meta(),
            heads: self.heads_table(),
            kv_heads: Table::default(),
            layers: self.layers_table(),
            curves: self.curves_table(),
            quantisation: None,
        }
    }

    fn request(&self, granularity: Granularity) -> Request<'static> {
        let tokens = self.tokens.iter().copied().max().unwrap_or(2000) as usize;
        let geometry = Geometry::of(&self.meta());
        let budget = Budget::TokensPerHead(128.0);
        Request::of_model(geometry, budget, Floor::of(2, 2), tokens).by(granularity)
    }

    fn provenance() -> Provenance {
        Provenance {
            kvprof: "0.1.0".to_owned(),
            command: "kvprof allocate".to_owned(),
            source: Some("made up <here> & now".to_owned()),
            source_sha256: Some("b2".repeat(32)),
            certificate: None,
        }
    }

    /// A static strategy's plan of 128 tokens per KV head, which may say that heads could differ.
    pub fn plan(&self, strategy: &str, parameters: Value, granularity: Granularity) -> BudgetPlan {
        let request = self.request(Granularity::Layer);
        let plan = BudgetPlan::allocate(strategy, parameters, &request, Self::provenance());
        BudgetPlan {
            granularity,
            ..plan.unwrap()
        }
    }

    /// A static strategy's plan of 128 tokens per KV head of the layers without a window, whose windows stay whole.
    pub fn plan_of_global_layers(&self, strategy: &str) -> BudgetPlan {
        let mut request = self.request(Granularity::Layer);
        request.floor.whole_windows = true;
        BudgetPlan::allocate(strategy, Value::Null, &request, Self::provenance()).unwrap()
    }

    /// A plan of 128 tokens per KV head by the MBA of each.
    pub fn plan_by_need(&self) -> BudgetPlan {
        let group = self.heads / self.kv_heads;
        let cells = (0..self.layers).flat_map(|l| (0..self.kv_heads).map(move |h| (l, h)));
        let targets = Targets {
            floor: 4,
            tokens: cells.map(|(l, h)| self.mba(0, l, h * group)).collect(),
        };
        let request = self.request(Granularity::Head);
        let parameters = Value::Null;
        BudgetPlan::of_targets(
            "by-need",
            parameters,
            &request,
            &targets,
            Self::provenance(),
        )
        .unwrap()
    }

    /// Hit rates of three prompt windows and two generated ones; layer 1 has no important key.
    pub fn hit_rates(&self) -> HitRates {
        let of_profile = self.meta();
        let options = HitRateOptions {
            windows: 3,
            window: 128,
            generated_windows: 2,
            ..HitRateOptions::default()
        };
        let mut rows = Rows::default();
        for (prompt, layer) in self.prompt_layers() {
            for head in 0..self.heads {
                let windows = |o| match o {
                    Observation::Prompt => 0..3,
                    Observation::Generated => 0..2,
                };
                let of_head = Observation::ALL.into_iter();
                for (o, w) in of_head.flat_map(|o| windows(o).map(move |w| (o, w))) {
                    rows.label(&self.label(prompt), layer);
                    rows.count("head", head);
                    rows.text("observation", o.name());
                    rows.count("window", w);
                    rows.count("answer_tokens", 10);
                    let share = 0.2 * (w + 1) as f64 + 0.2 * (layer as f64).sin().abs();
                    for (suffix, steps) in [("", 200), ("_beyond_sinks", 20)] {
                        let steps = if layer == 1 { 0 } else { steps };
                        rows.number(format!("hits{suffix}"), share * steps as f64);
                        rows.count(format!("steps{suffix}"), steps);
                        rows.count(format!("skipped{suffix}"), 256 - steps);
                    }
                    rows.number("overlap", share);
                }
            }
        }
        HitRates {
            meta: HitRateRecord::new(
                "kvprof hitrate --model sample",
                of_profile.model,
                of_profile.data,
                HitRateSettings { options },
            ),
            table: rows.finish(),
        }
    }

    fn label(&self, prompt: usize) -> PromptLabel {
        PromptLabel {
            index: prompt,
            id: format!("p{prompt}"),
            tokens: self.tokens[prompt] as usize,
        }
    }

    fn mba(&self, prompt: usize, layer: usize, head: usize) -> f64 {
        let tokens = f64::from(self.tokens[prompt]);
        let window = self.windows.get(layer).copied().flatten();
        let seen = window.map_or(tokens, |window| tokens.min(window as f64));
        (self.mba)(prompt, layer, head).clamp(1.0, seen)
    }

    fn lmba(&self, prompt: usize, layer: usize) -> f64 {
        (0..self.heads)
            .map(|h| self.mba(prompt, layer, h))
            .sum::<f64>()
            / self.heads as f64
    }

    pub(super) fn meta(&self) -> ProfileRecord {
        let model = ModelRecord {
            name: self.model.into(),
            source: "made up <here> & now".into(),
            sha256: "a1".repeat(32),
            architecture: "llama".into(),
            num_layers: self.layers,
            num_heads: self.heads,
            num_kv_heads: self.kv_heads,
            head_dim: 64,
            windows: self.windows.clone(),
            device: "cpu".into(),
            dtype: "f32".into(),
        };
        let data = DataRecord {
            name: "prompts-2k".into(),
            sha256: "b2".repeat(32),
            template: "raw".into(),
            prompts: self.tokens.len(),
            prompts_sha256: "0".into(),
            max_prompt_tokens: None,
            protocol: None,
        };
        let measures = MeasureOptions {
            window: Some(32),
            thresholds: vec![0.5, 0.9],
            output_thresholds: vec![0.9, 0.99, 0.999],
            quantise: Vec::new(),
            needs: None,
        };
        let settings = ProfileSettings { measures, seed: 0 };
        ProfileRecord::new("kvprof profile --model sample", model, data, settings)
    }

    fn prompt_layers(&self) -> impl Iterator<Item = (usize, usize)> {
        let layers = self.layers;
        (0..self.tokens.len()).flat_map(move |p| (0..layers).map(move |l| (p, l)))
    }

    fn layers_table(&self) -> Table {
        let keys: Vec<(usize, usize)> = self.prompt_layers().collect();
        let tokens = |p: usize| f64::from(self.tokens[p]);
        let mut table = Table::default();
        let count = |f: &dyn Fn(usize, usize) -> u32| {
            Column::Count(keys.iter().map(|&(p, l)| f(p, l)).collect())
        };
        let number = |f: &dyn Fn(usize, usize) -> f64| {
            Column::Number(keys.iter().map(|&(p, l)| f(p, l)).collect())
        };
        table.push("prompt", count(&|p, _| p as u32));
        table.push("tokens", count(&|p, _| self.tokens[p]));
        table.push("layer", count(&|_, l| l as u32));
        for query in ["last", "pooled", "rows"] {
            for (name, part) in [("50", 0.2), ("90", 1.0)] {
                let lmba = |p: usize, l: usize| (self.lmba(p, l) * part).max(1.0);
                table.push(format!("lmba_{query}_{name}"), number(&lmba));
                table.push(
                    format!("lmba_{query}_{name}_of_t"),
                    number(&|p, l| lmba(p, l) / tokens(p)),
                );
            }
        }
        for query in ["last", "pooled", "raw_last", "raw_pooled"] {
            let (query, raw) = query
                .strip_prefix("raw_")
                .map_or((query, ""), |q| (q, "raw_"));
            for (threshold, part) in [(0.9, 0.02), (0.99, 0.2), (0.999, 0.8)] {
                for (crossing, more) in [("first", 1.0), ("stable", 1.5)] {
                    let lmbo = |p: usize, l: usize| {
                        (self.lmba(p, l) * part * more)
                            .round()
                            .clamp(1.0, tokens(p)) as u32
                    };
                    let name = threshold_name(threshold);
                    table.push(format!("lmbo_{query}_{raw}{name}_{crossing}"), count(&lmbo));
                }
            }
        }
        table
    }

    fn heads_table(&self) -> Table {
        let mut values = Vec::new();
        for (p, l) in self.prompt_layers() {
            values.extend((0..self.heads).map(|h| self.mba(p, l, h).round() as u32));
        }
        let mut table = Table::default();
        for query in ["last", "pooled"] {
            table.push(format!("mba_{query}_90"), Column::Count(values.clone()));
        }
        let rows = values.iter().map(|&v| f64::from(v) + 0.5).collect();
        table.push("mba_rows_90", Column::Number(rows));
        table
    }

    fn curves_table(&self) -> Table {
        let mut keys: [Vec<u32>; 5] = Default::default();
        let mut values: [Vec<f64>; 2] = Default::default();
        for (p, l) in self.prompt_layers() {
            for h in 0..self.heads {
                for b in budgets(self.tokens[p]) {
                    let key = [p as u32, self.tokens[p], l as u32, h as u32, b];
                    keys.iter_mut()
                        .zip(key)
                        .for_each(|(column, k)| column.push(k));
                    let mass = self.mass(p, self.mba(p, l, h), b);
                    let of_layer = self.mass(p, self.lmba(p, l), b);
                    values[0].push(mass);
                    values[1].push(1.0 - 0.8 * (1.0 - of_layer).powf(1.5));
                }
            }
        }
        let mut table = Table::default();
        for (name, column) in ["prompt", "tokens", "layer", "head", "budget"]
            .into_iter()
            .zip(keys)
        {
            table.push(name, Column::Count(column));
        }
        for query in ["last", "pooled"] {
            table.push(format!("mass_{query}"), Column::Number(values[0].clone()));
            table.push(format!("cos_{query}"), Column::Number(values[1].clone()));
            table.push(
                format!("cos_raw_{query}"),
                Column::Number(values[1].clone()),
            );
        }
        table
    }

    /// Retained mass at budget `b` of a head whose MBA at 0.9 is `mba`: a power law through both.
    fn mass(&self, prompt: usize, mba: f64, b: u32) -> f64 {
        let t = f64::from(self.tokens[prompt]);
        if mba >= t {
            return f64::from(b) / t;
        }
        (f64::from(b) / t).powf(0.9f64.ln() / (mba / t).ln())
    }
}

/// Budgets as a profile has them: every one up to 16, then a quarter more each, then T.
pub fn budgets(tokens: u32) -> Vec<u32> {
    let mut grid = Vec::new();
    let mut budget = 1;
    while budget < tokens {
        grid.push(budget);
        budget = (budget + 1).max(if budget < 16 { 0 } else { budget * 5 / 4 });
    }
    grid.push(tokens);
    grid
}
