//! A part of a profile is measured as the whole is, and allocates as the whole does, to the last bit.
#![allow(clippy::unwrap_used)]

mod real_model;
mod tiny_model;

use candle_core::Device;
use kvprof::budget::{
    ALLOCATORS, Allocator, Budget, BudgetPlan, Floor, Geometry, Granularity, Measures, Provenance,
    Request,
};
use kvprof::error::Error;
use kvprof::model::config::ModelConfig;
use kvprof::model::decoder::Decoder;
use kvprof::model::gguf::Gguf;
use kvprof::model::precision::Precision;
use kvprof::profile::{
    LayerMeasures, MeasureOptions, Needs, Profile, ProfileRecord, ProfileSettings, Profiler,
    PromptLabel, prompt_tables,
};
use kvprof::registry;
use kvprof::run::{DataRecord, ModelRecord};
use serde_json::{Value, json};
use tiny_model::tiny_model;

/// Strategies with every query and variant that they read.
fn strategies() -> Vec<(&'static str, Value)> {
    let mut all: Vec<(&str, Value)> = ALLOCATORS.iter().map(|a| (a.name, json!({}))).collect();
    for strategy in ["proportional", "zigzag"] {
        all.push((strategy, json!({"query": "last", "threshold": 0.5})));
        all.push((strategy, json!({"query": "rows", "threshold": 0.95})));
    }
    for (query, threshold) in [("last", 0.8), ("pooled", 0.999)] {
        let parameters =
            json!({"query": query, "threshold": threshold, "raw": true, "crossing": "stable"});
        all.push(("zigzag-lmbo", parameters));
        all.push(("output-optimal", json!({"query": query, "raw": true})));
        all.push((
            "output-optimal",
            json!({"query": query, "measure": "relative-l2"}),
        ));
        all.push(("mass-optimal", json!({"query": query})));
    }
    all
}

/// The same by layer and by KV head.
fn every_way() -> impl Iterator<Item = (&'static str, Value, Granularity)> {
    let both = |(strategy, parameters): (&'static str, Value)| {
        Granularity::ALL.map(|granularity| (strategy, parameters.clone(), granularity))
    };
    strategies().into_iter().flat_map(both)
}

fn allocator(strategy: &str, parameters: &Value) -> Box<dyn Allocator> {
    registry::build("strategy", ALLOCATORS, strategy, parameters.clone()).unwrap()
}

/// A model and a prompt, whose measures are taken.
struct Case<'a> {
    decoder: &'a Decoder,
    ids: Vec<u32>,
    run: usize,
    window: Option<usize>,
}

impl Case<'_> {
    fn options(&self, needs: Option<Needs>) -> MeasureOptions {
        MeasureOptions {
            window: self.window,
            needs,
            ..MeasureOptions::default()
        }
    }

    fn layers(&self, options: &MeasureOptions) -> Vec<LayerMeasures> {
        let mut ignore = |_| ();
        let mut profiler = Profiler::new(options, &mut ignore);
        let mut cache = self.decoder.new_cache(self.ids.len()).unwrap();
        (self.decoder)
            .prefill(&self.ids, &mut cache, self.run, &mut profiler)
            .unwrap();
        profiler.finish()
    }

    fn geometry(&self) -> Geometry {
        let config = self.decoder.config();
        Geometry {
            model: "tiny".into(),
            model_sha256: "ab".into(),
            layers: config.num_hidden_layers(),
            heads: config.num_attention_heads,
            kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
            windows: Vec::new(),
        }
    }

    /// A part alone, as a prompt's own prefill measures it.
    fn part(&self, needs: &Needs) -> Measures {
        let options = self.options(Some(needs.clone()));
        let layers = self.layers(&options);
        Measures::of_prompt(self.geometry(), self.ids.len(), &layers, &options)
    }

    /// Everything, as it is written to a profile and read from it.
    fn whole(&self) -> Measures {
        let options = self.options(None);
        let label = PromptLabel {
            index: 0,
            id: "prompt".into(),
            tokens: self.ids.len(),
        };
        let tables = prompt_tables(&label, &self.layers(&options), &options);
        let [heads, kv_heads, layers, curves] = tables;
        let geometry = self.geometry();
        let model = ModelRecord {
            name: geometry.model,
            sha256: geometry.model_sha256,
            num_layers: geometry.layers,
            num_heads: geometry.heads,
            num_kv_heads: geometry.kv_heads,
            head_dim: geometry.head_dim,
            ..ModelRecord::default()
        };
        let data = DataRecord {
            prompts: 1,
            ..DataRecord::default()
        };
        let settings = ProfileSettings {
            measures: options.clone(),
            seed: 0,
        };
        let profile = Profile {
            meta: ProfileRecord::new("kvprof profile", model, data, settings),
            heads,
            kv_heads,
            layers,
            curves,
            quantisation: None,
        };
        Measures::of_profile(&profile, &Needs::all(&options)).unwrap()
    }

    /// Strategies that `alone` names, each for itself, and all strategies together, against the whole.
    fn check(&self, alone: fn(&str) -> bool) {
        let whole = self.whole();
        let mut together = Needs::default();
        for (strategy, parameters, granularity) in every_way() {
            let Ok(needs) = allocator(strategy, &parameters).needs(granularity) else {
                continue;
            };
            if alone(strategy) {
                let part = self.part(&needs);
                same_bits(&part, &whole, &needs);
                self.same_budgets(strategy, &parameters, granularity, [&part, &whole]);
            }
            together.join(needs);
        }
        let part = self.part(&together);
        same_bits(&part, &whole, &together);
        for (strategy, parameters, granularity) in every_way() {
            self.same_budgets(strategy, &parameters, granularity, [&part, &whole]);
        }
    }

    fn same_budgets(
        &self,
        strategy: &str,
        parameters: &Value,
        granularity: Granularity,
        both: [&Measures; 2],
    ) {
        for budget in [0.5, 0.8].map(Budget::RetainedFraction) {
            let [part, whole] = both.map(|measures| {
                let floor = Floor::of(0, 1);
                let request = Request::of_measures(measures, budget, floor, self.ids.len());
                let request = request.by(granularity);
                let provenance = Provenance::default();
                BudgetPlan::allocate(strategy, parameters.clone(), &request, provenance)
            });
            match (part, whole) {
                (Ok(part), Ok(whole)) => assert_eq!(part, whole),
                (Err(part), Err(whole)) => {
                    assert!(matches!(whole, Error::Unsupported { .. }), "{whole}");
                    assert_eq!(part.to_string(), whole.to_string());
                }
                (part, whole) => panic!("{strategy} {parameters}: {part:?}, {whole:?}"),
            }
        }
    }
}

fn same_bits(part: &Measures, whole: &Measures, needs: &Needs) {
    for measure in &needs.budgets {
        let [part, whole] = [part, whole].map(|m| m.budgets(measure).unwrap().concat());
        assert!(!whole.is_empty());
        assert_eq!(bits(part), bits(whole), "{measure:?}");
    }
    for measure in &needs.curves {
        let [part, whole] = [part, whole].map(|m| m.curves(measure).unwrap().concat().concat());
        let budgets = |points: &[(usize, f64)]| points.iter().map(|p| p.0).collect::<Vec<_>>();
        assert!(!whole.is_empty());
        assert_eq!(budgets(&part), budgets(&whole), "{measure:?}");
        let values = |points: Vec<(usize, f64)>| bits(points.iter().map(|p| p.1).collect());
        assert_eq!(values(part), values(whole), "{measure:?}");
    }
}

fn bits(values: Vec<f64>) -> Vec<u64> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn tiny(heads: usize, kv_heads: usize) -> Decoder {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    std::fs::write(&path, tiny_model(heads, kv_heads, |_, t| t)).unwrap();
    let mut gguf = Gguf::open(&path).unwrap();
    let config = ModelConfig::from_gguf(&mut gguf).unwrap();
    Decoder::load(&mut gguf, config, &Device::Cpu, Precision::FLOAT32).unwrap()
}

fn prompt(tokens: usize) -> Vec<u32> {
    (0..tokens).map(|i| ((i * 7 + i * i) % 12) as u32).collect()
}

#[test]
fn a_part_is_measured_and_allocated_as_the_whole() {
    for (heads, kv_heads) in [(2, 1), (4, 2), (3, 3)] {
        for as_on_device in [false, true] {
            let mut decoder = tiny(heads, kv_heads);
            if as_on_device {
                decoder.work_as_on_device();
            }
            for (tokens, run, window) in [(5, 64, Some(32)), (40, 7, Some(3)), (40, 64, None)] {
                let case = Case {
                    decoder: &decoder,
                    ids: prompt(tokens),
                    run,
                    window,
                };
                case.check(|_| true);
            }
        }
    }
}

/// Curves that dip and cross, and products of several sizes.
#[test]
fn a_part_of_a_real_prompt_is_measured_and_allocated_as_the_whole() {
    let case = Case {
        decoder: &real_model::model().decoder,
        ids: real_model::prompt_ids("synth512"),
        run: 300,
        window: Some(32),
    };
    case.check(|strategy| strategy == "zigzag-lmbo");
}

#[test]
fn nothing_is_measured_that_was_not_asked_for() {
    let decoder = tiny(4, 2);
    let case = Case {
        decoder: &decoder,
        ids: prompt(40),
        run: 64,
        window: Some(32),
    };
    let layers = |strategy: &str, granularity| {
        let needs = allocator(strategy, &json!({})).needs(granularity).unwrap();
        case.layers(&case.options(Some(needs)))
    };
    for strategy in ["uniform", "pyramid", "pyramid-infer"] {
        assert!(layers(strategy, Granularity::Layer).is_empty());
    }
    for layer in layers("zigzag", Granularity::Layer) {
        for head in &layer.heads {
            assert_eq!(head.budgets.pooled.len(), 1);
            assert!(head.budgets.last.is_empty() && head.budgets.rows.is_empty());
            assert!(head.mass_last.is_empty() && head.mass_pooled.is_empty());
            assert!(head.entropy.is_nan() && head.window_mass.is_nan());
        }
        assert!(layer.kv_heads.iter().all(|head| head.pooled.is_empty()));
        assert!(layer.output_pooled.renormalised.budgets.is_empty());
    }
    for layer in layers("zigzag", Granularity::Head) {
        assert!(layer.kv_heads.iter().all(|head| head.pooled.len() == 1));
        assert!(
            layer
                .heads
                .iter()
                .all(|head| head.budgets.pooled.is_empty())
        );
    }
    for layer in layers("zigzag-lmbo", Granularity::Layer) {
        assert!(!layer.output_pooled.renormalised.budgets.is_empty());
        assert!(layer.output_pooled.raw.budgets.is_empty());
        assert!(layer.output_last.renormalised.budgets.is_empty());
        assert!(
            layer
                .heads
                .iter()
                .all(|head| head.budgets.pooled.is_empty())
        );
    }
}
