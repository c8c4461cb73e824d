//! Profiles of made-up models, measured as real ones are.

use kvprof::profile::{
    HeadMeasures, LayerMeasures, MeasureOptions, MinimumBudgets, OutputCurve, OutputCurves,
    Profile, ProfileRecord, ProfileSettings, PromptLabel, Ranked, budget_grid, prompt_tables,
};
use kvprof::run::{DataRecord, ModelRecord};
use kvprof::table::Table;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A made-up model's attention, measured as a real one's is.
pub struct Maker {
    random: ChaCha8Rng,
    options: MeasureOptions,
    layers: usize,
    group: usize,
    kv_heads: usize,
    /// Every layer, head and prompt the same.
    flat: bool,
}

impl Maker {
    /// For a model of so many layers of groups of query heads.
    pub fn new(seed: u64, layers: usize, group: usize, kv_heads: usize, flat: bool) -> Self {
        Self {
            random: ChaCha8Rng::seed_from_u64(seed),
            options: MeasureOptions::default(),
            layers,
            group,
            kv_heads,
            flat,
        }
    }

    fn uniform(&mut self) -> f64 {
        f64::from(self.random.next_u32()) / f64::from(u32::MAX)
    }

    /// A vector between flat and peaked.
    fn ranked(&mut self, tokens: usize) -> Ranked {
        let power = if self.flat { 3.0 } else { self.uniform() * 8.0 };
        let weights: Vec<f64> = (0..tokens)
            .map(|i| {
                let x = if self.flat {
                    (i as f64 + 1.0) / tokens as f64
                } else {
                    self.uniform()
                };
                x.powf(power) + 1e-6
            })
            .collect();
        Ranked::new(&weights)
    }

    fn budgets(&self, ranked: &Ranked) -> MinimumBudgets {
        let at = |t: &f64| ranked.minimum_budget(*t) as u32;
        let counts: Vec<u32> = self.options.thresholds.iter().map(at).collect();
        MinimumBudgets {
            rows: counts.iter().map(|&c| f64::from(c)).collect(),
            last: counts.clone(),
            pooled: counts,
        }
    }

    fn head(&mut self, tokens: usize) -> HeadMeasures {
        let ranked = self.ranked(tokens);
        let mass: Vec<f64> = budget_grid(tokens)
            .iter()
            .map(|&b| ranked.retained_mass(b))
            .collect();
        HeadMeasures {
            budgets: self.budgets(&ranked),
            entropy: 5.0 - 4.0 * ranked.retained_mass(1),
            sink_mass: 0.1,
            window_mass: 0.1,
            mass_last: mass.clone(),
            mass_pooled: mass,
        }
    }

    fn output(&mut self, tokens: usize) -> OutputCurves {
        let ranked = self.ranked(tokens);
        // Rises like a mass, with dips.
        let cosine: Vec<f64> = (1..=tokens)
            .map(|b| {
                let dip = if self.flat { 0.0 } else { 0.2 * self.uniform() };
                let left = 1.0 - b as f64 / tokens as f64;
                ranked.retained_mass(b) - dip * left
            })
            .collect();
        let curve = OutputCurve {
            budgets: (1..=tokens as u32).collect(),
            relative_l2: cosine.iter().map(|c| (1.0 - c).max(0.0).sqrt()).collect(),
            cosine,
        };
        OutputCurves {
            renormalised: curve.clone(),
            raw: curve,
            norm: 1.0,
        }
    }

    fn layer(&mut self, tokens: usize) -> LayerMeasures {
        let heads = self.group * self.kv_heads;
        LayerMeasures {
            heads: (0..heads).map(|_| self.head(tokens)).collect(),
            kv_heads: (0..self.kv_heads)
                .map(|_| {
                    let ranked = self.ranked(tokens);
                    self.budgets(&ranked)
                })
                .collect(),
            output_last: self.output(tokens),
            output_pooled: self.output(tokens),
            quantised: Vec::new(),
            window: None,
            residual_cosine: None,
        }
    }

    /// Measured on prompts of these lengths.
    pub fn profile(mut self, prompts: &[usize]) -> Profile {
        let mut tables: [Table; 4] = Default::default();
        for (index, &tokens) in prompts.iter().enumerate() {
            let layers: Vec<LayerMeasures> = (0..self.layers).map(|_| self.layer(tokens)).collect();
            let label = PromptLabel {
                index,
                id: format!("p{index}"),
                tokens,
            };
            let parts = prompt_tables(&label, &layers, &self.options);
            for (table, part) in tables.iter_mut().zip(parts) {
                table.append(part).unwrap();
            }
        }
        let meta = self.meta(prompts.len());
        let [heads, kv_heads, layers, curves] = tables;
        Profile {
            meta,
            heads,
            kv_heads,
            layers,
            curves,
            quantisation: None,
        }
    }

    fn meta(&self, prompts: usize) -> ProfileRecord {
        let model = ModelRecord {
            name: "made-up".into(),
            source: "made-up".into(),
            sha256: "ab".into(),
            architecture: "llama".into(),
            num_layers: self.layers,
            num_heads: self.group * self.kv_heads,
            num_kv_heads: self.kv_heads,
            head_dim: 8,
            windows: Vec::new(),
            device: "Cpu".into(),
            dtype: "f32".into(),
        };
        let data = DataRecord {
            name: "made-up".into(),
            sha256: "cd".into(),
            template: "raw".into(),
            prompts,
            prompts_sha256: "0".into(),
            max_prompt_tokens: None,
            protocol: None,
        };
        let settings = ProfileSettings {
            measures: self.options.clone(),
            seed: 0,
        };
        ProfileRecord::new("kvprof profile", model, data, settings)
    }
}
