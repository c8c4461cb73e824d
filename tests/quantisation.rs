//! What few bits cost, against its definition in loops on a tiny model, and as a table of a profile.
#![allow(clippy::unwrap_used)]

mod tiny_model;

use std::fs;
use std::path::Path;

use candle_core::{DType, Device};
use kvprof::error::Result;
use kvprof::model::attention::{AttentionProbe, AttentionView, Tee};
use kvprof::model::cache::Representation;
use kvprof::model::config::ModelConfig;
use kvprof::model::decoder::Decoder;
use kvprof::model::gguf::Gguf;
use kvprof::model::precision::Precision;
use kvprof::profile::{
    LayerMeasures, MeasureOptions, Profile, ProfileRecord, ProfileRun, ProfileSettings, Profiler,
    Prompt, QUANTISATION, TABLES,
};
use kvprof::run::{DataRecord, ModelRecord};
use tiny_model::{HEAD_DIM, LAYERS, tiny_model};

/// Without a residual, so that few tokens are coded; heads of four numbers fill no block of llama.cpp.
const TYPES: [&str; 6] = [
    "f32",
    "f16",
    "q8(residual=0)",
    "q4(residual=0)",
    "q2(residual=0)",
    "k=q8(residual=0),v=q2(residual=0)",
];

const GEOMETRIES: [(usize, usize); 4] = [(2, 1), (4, 2), (3, 3), (1, 1)];

fn decoder(heads: usize, kv_heads: usize) -> Decoder {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    fs::write(&path, tiny_model(heads, kv_heads, |_, t| t)).unwrap();
    let mut gguf = Gguf::open(&path).unwrap();
    let config = ModelConfig::from_gguf(&mut gguf).unwrap();
    Decoder::load(&mut gguf, config, &Device::Cpu, Precision::FLOAT32).unwrap()
}

fn ids(tokens: usize) -> Vec<u32> {
    (0..tokens).map(|i| ((i * 7 + i * i) % 12) as u32).collect()
}

fn options(window: Option<usize>, types: &[&str]) -> MeasureOptions {
    MeasureOptions {
        window,
        quantise: types.iter().map(|name| name.parse().unwrap()).collect(),
        ..MeasureOptions::default()
    }
}

/// Rows of numbers.
type Matrix = Vec<Vec<f32>>;

/// Keeps queries, W_o, and what keys and values become in every type.
struct Seen<'a> {
    types: &'a [Representation],
    /// `[layer][query head][row]`.
    queries: Vec<Vec<Matrix>>,
    projections: Vec<Matrix>,
    /// `[layer][type, as held first][KV head]` of keys and values.
    rows: Vec<Vec<Vec<[Matrix; 2]>>>,
}

impl AttentionProbe for Seen<'_> {
    fn observe(&mut self, view: &AttentionView<'_>) -> Result<()> {
        let queries = view.queries.to_vec3::<f32>()?;
        if self.queries.len() <= view.layer {
            self.queries.push(vec![Vec::new(); queries.len()]);
        }
        for (own, rows) in self.queries[view.layer].iter_mut().zip(queries) {
            own.extend(rows);
        }
        if !view.is_last() {
            return Ok(());
        }
        self.projections.push(view.output_projection()?.to_vec2()?);
        let all = (0..view.prompt_tokens as u32).collect::<Vec<_>>();
        let kv_heads = view.cache.heads.len();
        let held = |cache: &kvprof::model::cache::LayerCache| -> Result<Vec<[Matrix; 2]>> {
            let head = |h: &kvprof::model::cache::HeadCache| -> Result<[Matrix; 2]> {
                let rows = |t: candle_core::Tensor| t.to_dtype(DType::F32)?.to_vec2::<f32>();
                Ok([rows(h.keys()?)?, rows(h.values()?)?])
            };
            cache.heads.iter().map(head).collect()
        };
        let mut rows = vec![held(view.cache)?];
        for one in self.types {
            let coded = view
                .cache
                .cut(&vec![all.clone(); kv_heads], 0, &vec![*one; kv_heads])?;
            rows.push(held(&coded)?);
        }
        self.rows.push(rows);
        Ok(())
    }
}

impl Seen<'_> {
    /// W_o times the mean over the last `w` rows of every head's attention output, in loops.
    fn output(&self, layer: usize, held: usize, w: usize) -> Vec<f64> {
        let (queries, kv) = (&self.queries[layer], &self.rows[layer][held]);
        let (group, tokens) = (queries.len() / kv.len(), queries[0].len());
        let mut concat = Vec::new();
        for (h, rows) in queries.iter().enumerate() {
            let [keys, values] = &kv[h / group];
            let mut mean = [0f64; HEAD_DIM];
            for (i, query) in rows.iter().enumerate().skip(tokens - w) {
                let dot = |key: &Vec<f32>| -> f64 {
                    let pairs = query.iter().zip(key);
                    pairs.map(|(q, k)| f64::from(*q) * f64::from(*k)).sum()
                };
                let scores = keys[..=i]
                    .iter()
                    .map(|key| dot(key) / (HEAD_DIM as f64).sqrt());
                let weights: Vec<f64> = scores.map(f64::exp).collect();
                let sum: f64 = weights.iter().sum();
                for (p, value) in weights.iter().zip(values) {
                    for (m, v) in mean.iter_mut().zip(value) {
                        *m += p / sum * f64::from(*v) / w as f64;
                    }
                }
            }
            concat.extend(mean);
        }
        let row = |row: &Vec<f32>| {
            row.iter()
                .zip(&concat)
                .map(|(w, x)| f64::from(*w) * x)
                .sum()
        };
        self.projections[layer].iter().map(row).collect()
    }
}

fn norm(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn measured(
    decoder: &Decoder,
    tokens: usize,
    run: usize,
    options: &MeasureOptions,
    beside: &mut dyn AttentionProbe,
) -> Vec<LayerMeasures> {
    let mut ignore = |_| ();
    let mut profiler = Profiler::new(options, &mut ignore);
    let mut cache = decoder.new_cache(tokens).unwrap();
    let mut probe = Tee(&mut profiler, beside);
    decoder
        .prefill(&ids(tokens), &mut cache, run, &mut probe)
        .unwrap();
    profiler.finish()
}

#[test]
fn errors_of_types_are_those_of_the_definition_whatever_the_window_and_the_runs() {
    for (heads, kv_heads) in GEOMETRIES {
        let decoder = decoder(heads, kv_heads);
        for tokens in [1, 5, 50] {
            for window in [Some(1), Some(7), Some(32), None] {
                for run in [4, 31, 1024] {
                    let options = options(window, &TYPES);
                    let mut seen = Seen {
                        types: &options.quantise,
                        queries: Vec::new(),
                        projections: Vec::new(),
                        rows: Vec::new(),
                    };
                    let layers = measured(&decoder, tokens, run, &options, &mut seen);
                    let w = window.unwrap_or(tokens).min(tokens);
                    assert_eq!(layers.len(), LAYERS);
                    for (l, layer) in layers.iter().enumerate() {
                        let full = seen.output(l, 0, w);
                        assert_eq!(layer.quantised.len(), TYPES.len());
                        for (i, found) in layer.quantised.iter().enumerate() {
                            assert_eq!(found.held_as, options.quantise[i]);
                            let other = seen.output(l, i + 1, w);
                            let dot: f64 = full.iter().zip(&other).map(|(a, b)| a * b).sum();
                            let gap: Vec<f64> =
                                full.iter().zip(&other).map(|(a, b)| a - b).collect();
                            let cosine = dot / norm(&full) / norm(&other);
                            let close = |a: f64, b: f64| (a - b).abs() < 1e-5;
                            let place =
                                format!("{} of {tokens}, {window:?}, runs of {run}", TYPES[i]);
                            assert!(
                                close(found.cosine, cosine),
                                "{place}: {} {cosine}",
                                found.cosine
                            );
                            let l2 = norm(&gap) / norm(&full);
                            assert!(
                                close(found.relative_l2, l2),
                                "{place}: {} {l2}",
                                found.relative_l2
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn what_is_held_exactly_moves_nothing_and_more_bits_are_nearer() {
    let decoder = decoder(4, 2);
    let options = options(Some(16), &TYPES);
    struct Nobody;
    impl AttentionProbe for Nobody {
        fn observe(&mut self, _: &AttentionView<'_>) -> Result<()> {
            Ok(())
        }
    }
    let layers = measured(&decoder, 60, 64, &options, &mut Nobody);
    for layer in &layers {
        let errors: Vec<f64> = layer.quantised.iter().map(|q| q.relative_l2).collect();
        assert_eq!(errors[0], 0.0);
        assert!((layer.quantised[0].cosine - 1.0).abs() < 1e-15);
        assert!(
            errors[..5].windows(2).all(|pair| pair[0] < pair[1]),
            "{errors:?}"
        );
        let bytes: Vec<f64> = layer.quantised.iter().map(|q| q.bytes_per_token).collect();
        // Scales weigh more than codes in heads of four numbers.
        assert_eq!(bytes[..2], [32.0, 16.0]);
        assert!(
            bytes[2..5].windows(2).all(|pair| pair[0] > pair[1]),
            "{bytes:?}"
        );
    }
    // Nothing else moves, and a part asks for no types.
    let plain = MeasureOptions {
        quantise: Vec::new(),
        ..options.clone()
    };
    let bare = measured(&decoder, 60, 64, &plain, &mut Nobody);
    for (with, without) in layers.into_iter().zip(bare) {
        let with = LayerMeasures {
            quantised: Vec::new(),
            ..with
        };
        assert_eq!(with, without);
    }
}

fn record(options: MeasureOptions, prompts: usize) -> ProfileRecord {
    let model = ModelRecord {
        name: "tiny".into(),
        num_layers: LAYERS,
        num_heads: 4,
        num_kv_heads: 2,
        head_dim: HEAD_DIM,
        ..ModelRecord::default()
    };
    let data = DataRecord {
        prompts,
        ..DataRecord::default()
    };
    let settings = ProfileSettings {
        measures: options,
        seed: 0,
    };
    ProfileRecord::new("kvprof profile", model, data, settings)
}

fn bytes(folder: &Path) -> Vec<Vec<u8>> {
    let tables = TABLES.iter().chain([&QUANTISATION]);
    let names = tables
        .map(|t| format!("{t}.parquet"))
        .chain(["meta.json".into()]);
    names
        .map(|name| fs::read(folder.join(name)).unwrap())
        .collect()
}

#[test]
fn a_profile_with_types_is_resumed_to_the_byte_and_read_back() {
    let decoder = decoder(4, 2);
    let folder = tempfile::tempdir().unwrap();
    let prompts: Vec<Prompt> = [3, 40]
        .map(|n| Prompt {
            id: format!("n{n}"),
            ids: ids(n),
        })
        .to_vec();
    let asked = options(Some(8), &["q8(residual=0)", "q2(residual=0)"]);
    let measure = |run: &ProfileRun, prompts_of: std::ops::Range<usize>| {
        for i in prompts_of.filter(|&i| !run.has(i)) {
            run.measure(i, &prompts[i], &decoder, &mut |_| ()).unwrap();
        }
    };
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    let run = ProfileRun::prepare(&whole, record(asked.clone(), 2), 2, false).unwrap();
    measure(&run, 0..2);
    run.finish().unwrap();
    measure(
        &ProfileRun::prepare(&parts, record(asked.clone(), 2), 2, false).unwrap(),
        0..1,
    );
    // Neither other types nor none are this run.
    for other in [options(Some(8), &["q8"]), options(Some(8), &[])] {
        let refused = ProfileRun::prepare(&parts, record(other, 2), 2, true);
        assert!(
            refused
                .unwrap_err()
                .to_string()
                .contains("another quantise")
        );
    }
    let run = ProfileRun::prepare(&parts, record(asked.clone(), 2), 2, true).unwrap();
    measure(&run, 0..2);
    run.finish().unwrap();
    assert_eq!(bytes(&whole), bytes(&parts));

    let profile = Profile::load(&whole).unwrap();
    let grid = profile.type_grid("l2_pooled").unwrap();
    assert_eq!(
        (grid.len(), grid[0].len(), grid[0][0].len()),
        (2, LAYERS, 2)
    );
    // Three tokens are no group and stay in float16.
    assert!(grid[0].iter().all(|types| types[0] == types[1]));
    assert!(grid[1].iter().all(|types| types[0] < types[1]));
    let table = profile.quantisation.as_ref().unwrap();
    assert_eq!(
        table.names().collect::<Vec<_>>(),
        [
            "prompt",
            "prompt_id",
            "tokens",
            "layer",
            "cache",
            "cos_pooled",
            "l2_pooled",
            "bytes_per_token"
        ]
    );
    // Rows that were changed are refused.
    let path = whole.join("quantisation.parquet");
    let other = options(Some(8), &["q2(residual=0)", "q8(residual=0)"]);
    let swapped = folder.path().join("swapped");
    let run = ProfileRun::prepare(&swapped, record(other, 2), 2, false).unwrap();
    measure(&run, 0..2);
    run.finish().unwrap();
    fs::copy(swapped.join("quantisation.parquet"), path).unwrap();
    let said = Profile::load(&whole).unwrap_err().to_string();
    assert!(said.contains("quantisation.parquet"), "{said}");
}

#[test]
fn a_profile_without_types_has_no_such_table() {
    let decoder = decoder(4, 2);
    let folder = tempfile::tempdir().unwrap();
    let prompt = Prompt {
        id: "p".into(),
        ids: ids(9),
    };
    let place = folder.path().join("plain");
    let run = ProfileRun::prepare(&place, record(options(None, &[]), 1), 1, false).unwrap();
    run.measure(0, &prompt, &decoder, &mut |_| ()).unwrap();
    run.finish().unwrap();
    assert!(!place.join("quantisation.parquet").exists());
    let meta = fs::read_to_string(place.join("meta.json")).unwrap();
    assert!(!meta.contains("quantise"));
    let profile = Profile::load(&place).unwrap();
    let said = profile.type_grid("l2_pooled").unwrap_err().to_string();
    assert!(said.contains("--quantise"), "{said}");
}
