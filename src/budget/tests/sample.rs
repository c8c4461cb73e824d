//! A made-up profile for hand-computed cases: 3 layers, 4 query heads, 2 KV heads.

use serde_json::json;

use super::{
    Allocator, Budget, BudgetPlan, CERTIFICATE_SCHEMA, Calibration, Certificate, Floor, Geometry,
    Measures, Provenance, Request, Targets, TokenBudgets, fit,
};
use crate::profile::{
    BudgetMeasure, Crossing, CurveMeasure, LayerNumber, MeasureOptions, Needs, OutputMeasure,
    Profile, ProfileRecord, ProfileSettings, Query, Vector, budget_grid,
};
use crate::run::{DataRecord, ModelRecord};
use crate::table::{Column, Table};

pub(super) struct Sample {
    /// T and LMBA (pooled, 0.9) of every layer, for every prompt.
    pub(super) prompts: Vec<(u32, Vec<f64>)>,
    /// Budget at which the mass of (layer, KV head) reaches 1, from 0 in a straight line.
    pub(super) need: fn(usize, usize) -> usize,
}

/// A certificate of a made-up evaluation.
pub(super) fn certificate() -> Certificate {
    Certificate {
        schema: CERTIFICATE_SCHEMA,
        kvprof: "0.1.0".into(),
        command: "kvprof certify --results r --method zigzag@profile --loss kl --at-most 0.5"
            .into(),
        statement: "The expected kl is at most 0.5 nats.".into(),
        assumes: "It holds for exchangeable prompts.".into(),
        budget: "20".into(),
        loss: "kl".into(),
        at_most: 0.5,
        except: None,
        clip: Some(2.0),
        confidence: Some(0.95),
        calibration: Calibration {
            results: "r".into(),
            results_sha256: "cd".into(),
            dataset: "sample".into(),
            dataset_sha256: "ef".into(),
            template: String::new(),
            units: 50,
            prompts: 50,
            tokens: [100, 100],
            seen: 0.125,
            allowed: 0.25,
            violations: 1,
            failed: 0,
        },
        method: json!({"name": "zigzag@profile"}),
        sinks: 0,
        window: 2,
        whole_windows: false,
        max_new_tokens: 32,
        protocol: None,
        observed_from: None,
        model: "sample".into(),
        model_sha256: "ab".into(),
        dtype: "f32".into(),
        profile_sha256: None,
        held_out: None,
    }
}

/// Budget at which a layer's cosine reaches 1.
const NEED: [usize; 3] = [10, 20, 58];

impl Default for Sample {
    fn default() -> Self {
        Self {
            prompts: vec![(100, vec![10.0, 30.0, 60.0])],
            need: |layer, _| NEED[layer],
        }
    }
}

impl Sample {
    /// A zigzag plan of 20 tokens per KV head whose lower bound is not whole.
    pub(super) fn plan(&self) -> BudgetPlan {
        let provenance = Provenance {
            kvprof: "0.1.0".into(),
            command: "kvprof allocate --strategy zigzag --budget 20".into(),
            source: Some("profiles/sample".into()),
            source_sha256: None,
            certificate: None,
        };
        let request = self.request(20.0, 2);
        BudgetPlan::allocate("zigzag", json!({"floor": 4.5}), &request, provenance).unwrap()
    }

    fn layers(&self) -> usize {
        self.prompts[0].1.len()
    }

    pub(super) fn request(&self, budget: f64, floor: usize) -> Request<'static> {
        // Leaked: a test process is short.
        let measures = Measures::of_profile(&self.profile(), &needs()).unwrap();
        let measures: &'static Measures = Box::leak(Box::new(measures));
        let total = (budget * (2 * self.layers()) as f64).round() as usize;
        let budget = Budget::of_total(total, 2 * self.layers());
        Request::of_measures(measures, budget, Floor::of(0, floor), 100)
    }

    pub(super) fn profile(&self) -> Profile {
        Profile {
            meta: self.meta(),
            heads: self.heads_table(),
            kv_heads: self.kv_heads_table(),
            layers: self.layers_table(),
            curves: self.curves_table(),
            quantisation: None,
        }
    }

    fn meta(&self) -> ProfileRecord {
        let model = ModelRecord {
            name: "sample".into(),
            source: "sample".into(),
            sha256: "ab".into(),
            architecture: "llama".into(),
            num_layers: self.layers(),
            num_heads: 4,
            num_kv_heads: 2,
            head_dim: 8,
            windows: Vec::new(),
            device: "Cpu".into(),
            dtype: "f32".into(),
        };
        let data = DataRecord {
            name: "sample".into(),
            sha256: "cd".into(),
            template: "raw".into(),
            prompts: self.prompts.len(),
            prompts_sha256: "0".into(),
            max_prompt_tokens: None,
            protocol: None,
        };
        let measures = MeasureOptions {
            window: Some(32),
            thresholds: vec![0.9],
            output_thresholds: vec![0.99],
            quantise: Vec::new(),
            needs: None,
        };
        let settings = ProfileSettings { measures, seed: 0 };
        ProfileRecord::new("kvprof profile", model, data, settings)
    }

    /// Entropies of l, l + 1, l and l + 1 nats in layer l.
    fn heads_table(&self) -> Table {
        let layers = (0..self.layers()).flat_map(|l| [l, l + 1, l, l + 1]);
        let entropies: Vec<f64> = layers.map(|entropy| entropy as f64).collect();
        let mut table = Table::default();
        table.push(
            "entropy",
            Column::Number(entropies.repeat(self.prompts.len())),
        );
        table
    }

    fn kv_heads_table(&self) -> Table {
        let (mut tokens, mut mba) = (Vec::new(), Vec::new());
        for (t, lmba) in &self.prompts {
            for (need, apart) in lmba.iter().zip([0.2, 1.0 / 3.0, 0.0]) {
                tokens.extend([*t, *t]);
                mba.extend([need * (1.0 - apart), need * (1.0 + apart)]);
            }
        }
        let mut table = Table::default();
        table.push("tokens", Column::Count(tokens));
        table.push("mba_pooled_90", Column::Number(mba));
        table
    }

    fn layers_table(&self) -> Table {
        let rows = self.prompts.len();
        let repeated = |values: [u32; 3]| {
            let layers = &values[..self.layers()];
            Column::Count(layers.repeat(rows))
        };
        let lmba = self.prompts.iter().flat_map(|p| p.1.clone()).collect();
        let tokens = self.prompts.iter();
        let tokens = tokens.flat_map(|p| vec![p.0; self.layers()]).collect();
        let mut table = Table::default();
        table.push("tokens", Column::Count(tokens));
        table.push("lmba_pooled_90", Column::Number(lmba));
        table.push("lmbo_pooled_99_first", repeated([5, 10, 5]));
        table.push("lmbo_pooled_raw_99_stable", repeated([1, 1, 2]));
        table
    }

    fn curves_table(&self) -> Table {
        let mut counts: [Vec<u32>; 5] = Default::default();
        let mut values: [Vec<f64>; 3] = Default::default();
        for (p, (t, _)) in self.prompts.iter().enumerate() {
            for l in 0..self.layers() {
                for h in 0..4 {
                    for b in budget_grid(*t as usize) {
                        let row = [p as u32, *t, l as u32, h as u32, b as u32];
                        counts.iter_mut().zip(row).for_each(|(c, x)| c.push(x));
                        let rise = |need: usize| (b as f64 / need as f64).min(1.0);
                        let row = [
                            rise((self.need)(l, h / 2)),
                            rise(NEED[l]),
                            1.0 - rise(NEED[2 - l]),
                        ];
                        values.iter_mut().zip(row).for_each(|(c, x)| c.push(x));
                    }
                }
            }
        }
        let mut table = Table::default();
        for (name, column) in ["prompt", "tokens", "layer", "head", "budget"]
            .iter()
            .zip(counts)
        {
            table.push(*name, Column::Count(column));
        }
        for (name, column) in ["mass_pooled", "cos_pooled", "l2_pooled"]
            .iter()
            .zip(values)
        {
            table.push(*name, Column::Number(column));
        }
        table
    }
}

/// Everything that the sample has.
pub(super) fn needs() -> Needs {
    let (query, threshold) = (Query::Pooled, 0.9);
    let vector = Vector::Pooled;
    let output = |crossing, raw| BudgetMeasure::Outputs {
        vector,
        threshold: 0.99,
        crossing,
        raw,
    };
    let outputs = OutputMeasure::ALL.map(|measure| CurveMeasure::Output {
        vector,
        measure,
        raw: false,
    });
    Needs {
        budgets: vec![
            BudgetMeasure::Layers { query, threshold },
            BudgetMeasure::KvHeads { query, threshold },
            output(Crossing::First, false),
            output(Crossing::Stable, true),
        ],
        curves: [CurveMeasure::Mass(vector)]
            .into_iter()
            .chain(outputs)
            .collect(),
        numbers: vec![LayerNumber::PooledEntropy],
        ..Needs::default()
    }
}

/// Tokens at the reference length, which must add up.
pub(super) fn allocated(allocator: &dyn Allocator, request: &Request<'_>) -> TokenBudgets {
    request.check().unwrap();
    let targets: Targets = allocator.targets(request).unwrap();
    let geometry: &Geometry = &request.geometry;
    let shares = geometry.by_layer(&targets.shares());
    let floor = Floor {
        whole_windows: false,
        tokens: targets.floor,
        ..request.floor
    };
    let tokens = fit(&shares, request.budget, &floor, request.tokens).unwrap();
    assert_eq!(tokens.concat().iter().sum::<usize>(), request.total());
    tokens
}
