//! What every registered thing and every geometry must keep, on a tiny model.
#![allow(clippy::unwrap_used)]

mod tiny_model;

use candle_core::{DType, Device};
use kvprof::budget::ALLOCATORS;
use kvprof::dataset::BUILT_IN;
use kvprof::error::Result;
use kvprof::method::prefill;
use kvprof::model::attention::{AttentionProbe, AttentionView, NoProbe, Tee};
use kvprof::model::config::{FAMILIES, ModelConfig};
use kvprof::model::decoder::Decoder;
use kvprof::model::gguf::Gguf;
use kvprof::model::precision::Precision;
use kvprof::model::source::MODELS;
use kvprof::plot::CHARTS;
use kvprof::profile::{
    LayerMeasures, MeasureOptions, Profiler, Ranked, budget_grid, entropy, share,
};
use kvprof::registry;
use kvprof::select::{
    ContinuationProbe, HeadSplit, LayerScores, ReplayProbe, SCORERS, Scorer, ScoringProbe,
    select_layers,
};
use serde_json::Value;
use tiny_model::{LAYERS, tiny_model};

/// Float32 re-ordering between runs of other lengths, on probabilities.
const TOLERANCE: f64 = 2e-6;

/// (query heads, KV heads): grouped, plain, one of each.
const GEOMETRIES: [(usize, usize); 4] = [(2, 1), (4, 2), (3, 3), (1, 1)];

fn decoder(heads: usize, kv_heads: usize, dtype: DType) -> Decoder {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    std::fs::write(&path, tiny_model(heads, kv_heads, |_, t| t)).unwrap();
    let mut gguf = Gguf::open(&path).unwrap();
    let config = ModelConfig::from_gguf(&mut gguf).unwrap();
    let precision = Precision::of(dtype).unwrap();
    Decoder::load(&mut gguf, config, &Device::Cpu, precision).unwrap()
}

fn prompt(tokens: usize) -> Vec<u32> {
    (0..tokens).map(|i| ((i * 7 + i * i) % 12) as u32).collect()
}

/// Keeps every row of every layer, one query head after the other.
#[derive(Default)]
struct Rows {
    /// `[layer][head][row]`, each row as long as the keys it sees.
    layers: Vec<Vec<Vec<Vec<f64>>>>,
}

impl AttentionProbe for Rows {
    fn observe(&mut self, view: &AttentionView<'_>) -> Result<()> {
        let block = view.probabilities(view.rows.clone())?.to_vec3::<f32>()?;
        if self.layers.len() <= view.layer {
            self.layers.push(vec![Vec::new(); block.len()]);
        }
        for (head, rows) in block.iter().enumerate() {
            for (row, position) in rows.iter().zip(view.rows.clone()) {
                assert!(row[position + 1..].iter().all(|p| *p == 0.0), "causal");
                let row = row[..=position].iter().map(|&p| f64::from(p)).collect();
                self.layers[view.layer][head].push(row);
            }
        }
        Ok(())
    }
}

fn measure(
    decoder: &Decoder,
    ids: &[u32],
    run: usize,
    options: &MeasureOptions,
) -> (Vec<LayerMeasures>, Rows, Vec<f32>) {
    let mut ignore = |_| ();
    let mut profiler = Profiler::new(options, &mut ignore);
    let mut rows = Rows::default();
    let mut cache = decoder.new_cache(ids.len()).unwrap();
    let mut probe = Tee(&mut profiler, &mut rows);
    let logits = decoder.prefill(ids, &mut cache, run, &mut probe).unwrap();
    (profiler.finish(), rows, logits.to_vec1().unwrap())
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() < TOLERANCE
}

/// MBA straight from the definition: sort, add, count.
fn mba(row: &[f64], threshold: f64) -> f64 {
    let mut sorted = row.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let total: f64 = sorted.iter().sum();
    let mut sum = 0.0;
    let kept = sorted.iter().take_while(|a| {
        let more = sum < threshold * total;
        sum += **a;
        more
    });
    kept.count() as f64
}

fn mean_row(rows: &[Vec<f64>], tokens: usize) -> Vec<f64> {
    let mut mean = vec![0.0; tokens];
    for row in rows {
        mean.iter_mut()
            .zip(row)
            .for_each(|(m, p)| *m += p / rows.len() as f64);
    }
    mean
}

#[test]
fn measures_equal_their_definitions_for_every_geometry_length_and_window() {
    for (heads, kv_heads) in GEOMETRIES {
        let decoder = decoder(heads, kv_heads, DType::F32);
        for tokens in [1, 2, 5, 40] {
            for window in [Some(1), Some(3), Some(32), None] {
                let options = MeasureOptions {
                    window,
                    ..MeasureOptions::default()
                };
                let ids = prompt(tokens);
                let (layers, rows, _) = measure(&decoder, &ids, 1024, &options);
                assert_eq!(layers.len(), LAYERS);
                let w = window.unwrap_or(tokens).min(tokens);
                for (layer, rows) in layers.iter().zip(&rows.layers) {
                    assert_eq!((layer.heads.len(), layer.kv_heads.len()), (heads, kv_heads));
                    for (head, rows) in layer.heads.iter().zip(rows) {
                        check_head(head, &rows[tokens - w..], tokens, &options);
                    }
                    for curve in [&layer.output_last, &layer.output_pooled] {
                        for curve in [&curve.renormalised, &curve.raw] {
                            let [cosine, relative_l2] = curve.at(tokens);
                            assert!(near(cosine, 1.0) && near(relative_l2, 0.0));
                            for &budget in &budget_grid(tokens) {
                                assert!(curve.at(budget)[0].is_finite());
                            }
                        }
                    }
                }
            }
        }
    }
}

fn check_head(
    head: &kvprof::profile::HeadMeasures,
    rows: &[Vec<f64>],
    tokens: usize,
    options: &MeasureOptions,
) {
    let pooled = mean_row(rows, tokens);
    for (i, &threshold) in options.thresholds.iter().enumerate() {
        let last = &rows[rows.len() - 1];
        assert_eq!(f64::from(head.budgets.last[i]), mba(last, threshold));
        assert_eq!(f64::from(head.budgets.pooled[i]), mba(&pooled, threshold));
        let mean = rows.iter().map(|r| mba(r, threshold)).sum::<f64>() / rows.len() as f64;
        assert!(near(head.budgets.rows[i], mean));
    }
    assert!(near(head.entropy, entropy(&pooled)));
    assert!(near(head.sink_mass, share(&pooled, 0..tokens.min(4))));
    assert!(near(
        head.window_mass,
        share(&pooled, tokens - rows.len()..tokens)
    ));
    let ranked = Ranked::new(&pooled);
    for (mass, budget) in head.mass_pooled.iter().zip(budget_grid(tokens)) {
        assert!(near(*mass, ranked.retained_mass(budget)));
    }
}

#[test]
fn runs_of_any_length_give_the_same_measures() {
    for (heads, kv_heads) in GEOMETRIES {
        let decoder = decoder(heads, kv_heads, DType::F32);
        let (options, ids) = (MeasureOptions::default(), prompt(50));
        let (whole, _, logits) = measure(&decoder, &ids, 50, &options);
        for run in [1, 7, 31, 49] {
            let (parts, _, part_logits) = measure(&decoder, &ids, run, &options);
            for (a, b) in logits.iter().zip(&part_logits) {
                assert!((a - b).abs() < 1e-4, "runs of {run}");
            }
            for (a, b) in whole.iter().zip(&parts) {
                for (a, b) in a.heads.iter().zip(&b.heads) {
                    assert!(near(a.entropy, b.entropy), "runs of {run}");
                    let masses = a.mass_pooled.iter().zip(&b.mass_pooled);
                    masses.for_each(|(a, b)| assert!(near(*a, *b), "runs of {run}"));
                }
                let cosines = a
                    .output_pooled
                    .raw
                    .cosine
                    .iter()
                    .zip(&b.output_pooled.raw.cosine);
                cosines.for_each(|(a, b)| assert!((a - b).abs() < 1e-5, "runs of {run}"));
            }
        }
    }
}

#[test]
fn a_probe_changes_no_bit_of_the_logits() {
    for (heads, kv_heads) in GEOMETRIES {
        let decoder = decoder(heads, kv_heads, DType::F32);
        let ids = prompt(33);
        let mut cache = decoder.new_cache(0).unwrap();
        let bare = decoder.prefill(&ids, &mut cache, 10, &mut NoProbe).unwrap();
        let (_, _, probed) = measure(&decoder, &ids, 10, &MeasureOptions::default());
        assert_eq!(bare.to_vec1::<f32>().unwrap(), probed);
        assert_eq!(cache.next_position(), 33);
        let least = 33
            * decoder
                .config()
                .cache_bytes_per_token(decoder.precision().cache);
        assert!(cache.bytes() >= least);
    }
}

#[test]
fn half_precision_follows_float32() {
    let ids = prompt(40);
    let exact = measure(
        &decoder(4, 2, DType::F32),
        &ids,
        64,
        &MeasureOptions::default(),
    );
    let half = measure(
        &decoder(4, 2, DType::BF16),
        &ids,
        64,
        &MeasureOptions::default(),
    );
    let scale = exact.2.iter().fold(0f32, |m, x| m.max(x.abs()));
    for (a, b) in exact.2.iter().zip(&half.2) {
        // bfloat16 keeps 8 bits: about 0.4 % per operation.
        assert!((a - b).abs() < 0.05 * scale, "{a} {b}");
    }
    for (a, b) in exact.0.iter().zip(&half.0) {
        for (a, b) in a.heads.iter().zip(&b.heads) {
            assert!((a.entropy - b.entropy).abs() < 0.1);
        }
    }
}

#[test]
fn half_precision_caches_take_half_the_bytes() {
    let ids = prompt(40);
    let bytes = [DType::F32, DType::BF16, DType::F16].map(|dtype| {
        let decoder = decoder(4, 2, dtype);
        assert_eq!(decoder.precision().dtype, dtype);
        let mut cache = decoder.new_cache(41).unwrap();
        (decoder.prefill(&ids, &mut cache, 64, &mut NoProbe)).unwrap();
        decoder.decode(3, &mut cache).unwrap();
        let want = 41
            * decoder
                .config()
                .cache_bytes_per_token(decoder.precision().cache);
        assert_eq!(cache.bytes(), want);
        assert_eq!(cache.allocated_bytes(), want);
        cache.bytes()
    });
    assert_eq!(bytes[0], 2 * bytes[1]);
    assert_eq!(bytes[1], bytes[2]);
}

#[test]
fn prompts_that_cannot_run_are_refused() {
    let decoder = decoder(2, 1, DType::F32);
    let run = |ids: &[u32], run| {
        let mut cache = decoder.new_cache(4).unwrap();
        let result = decoder.prefill(ids, &mut cache, run, &mut NoProbe);
        result.unwrap_err().to_string()
    };
    assert!(run(&[], 4).contains("at least one token"));
    assert!(run(&[1], 0).contains("prefill run"));
    assert!(run(&[12], 4).contains("vocabulary ends at 11"));
    assert!(run(&prompt(65), 4).contains("context of 64"));
}

#[test]
fn names_are_unique_and_kebab_case() {
    let registries: [Vec<&str>; 5] = [
        ALLOCATORS.iter().map(|a| a.name).collect(),
        MODELS.iter().map(|m| m.name).collect(),
        FAMILIES.iter().map(|f| f.architecture).collect(),
        BUILT_IN.iter().map(|d| d.name).collect(),
        CHARTS.iter().map(|c| c.name).collect(),
    ];
    for names in registries {
        for (i, name) in names.iter().enumerate() {
            // Versions and sizes of models have a point.
            let kebab = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b);
            assert!(name.bytes().all(kebab), "{name}");
            assert!(!names[..i].contains(name), "{name} twice");
        }
    }
}

/// Scores `[layer][kv_head][token]`.
fn scores_of(
    decoder: &Decoder,
    ids: &[u32],
    run: usize,
    scorer: &dyn Scorer,
) -> Vec<Vec<Vec<f64>>> {
    let rows = |layers: Vec<LayerScores>| layers.iter().map(|s| s.to_rows().unwrap()).collect();
    let mut cache = decoder.new_cache(ids.len()).unwrap();
    if scorer.needs(3).continuation {
        decoder.prefill(ids, &mut cache, run, &mut NoProbe).unwrap();
        let mut ahead = ContinuationProbe::new(ids.len());
        (decoder.continue_with(&[1, 2, 3], &mut cache, &mut ahead)).unwrap();
        return rows(ahead.score(scorer, 3).unwrap());
    }
    if let Some(needs) = scorer.needs(3).replay {
        decoder.prefill(ids, &mut cache, run, &mut NoProbe).unwrap();
        let mut probe = ReplayProbe::new(ids.len(), needs);
        for chunk in needs.chunks(0, ids.len()) {
            probe.begin(chunk.clone());
            (decoder.prefill(&ids[chunk], &mut cache, run, &mut probe)).unwrap();
            cache.rewind(ids.len()).unwrap();
        }
        return rows(probe.score(scorer, 3).unwrap());
    }
    let mut probe = ScoringProbe::new(vec![(scorer, 3)]);
    decoder.prefill(ids, &mut cache, run, &mut probe).unwrap();
    rows(probe.finish().remove(0))
}

#[test]
fn scorers_score_every_token_of_every_kv_head_whatever_the_runs() {
    for entry in SCORERS {
        let scorer = registry::build("scorer", SCORERS, entry.name, Value::Null).unwrap();
        let again = registry::build("scorer", SCORERS, entry.name, scorer.parameters()).unwrap();
        assert_eq!(scorer.parameters(), again.parameters(), "{}", entry.name);
        for (heads, kv_heads) in GEOMETRIES {
            let decoder = decoder(heads, kv_heads, DType::F32);
            for tokens in [1, 2, 30] {
                let ids = prompt(tokens);
                let whole = scores_of(&decoder, &ids, 64, &*scorer);
                assert_eq!(whole.len(), LAYERS);
                for layer in &whole {
                    assert_eq!(layer.len(), kv_heads, "{}", entry.name);
                    assert!(layer.iter().all(|h| h.len() == tokens));
                    assert!(layer.iter().flatten().all(|s| s.is_finite()));
                }
                let parts = scores_of(&decoder, &ids, 7, &*scorer);
                let flat = |s: Vec<Vec<Vec<f64>>>| s.into_iter().flatten().flatten();
                for (a, b) in flat(whole).zip(flat(parts)) {
                    assert!((a - b).abs() < 1e-4, "{}: {a} {b}", entry.name);
                }
            }
        }
    }
}

#[test]
fn a_budget_of_every_token_is_the_full_cache_bit_for_bit() {
    let ids = prompt(40);
    let deployable = SCORERS
        .iter()
        .filter(|e| !["oracle", "kvzip"].contains(&e.name));
    for entry in deployable {
        let scorer = registry::build("scorer", SCORERS, entry.name, Value::Null).unwrap();
        let split = HeadSplit::Pooled { safeguard: 0.2 };
        for (heads, kv_heads) in GEOMETRIES {
            let decoder = decoder(heads, kv_heads, DType::F32);
            let mut full = prefill(&decoder, &ids, 8, vec![(&*scorer, 3)], &mut NoProbe).unwrap();
            let kept_of = |budgets: &[Vec<usize>]| {
                select_layers(
                    &full.scores[0],
                    &full.cache.firsts_in_sight(),
                    budgets,
                    2,
                    3,
                    split,
                )
            };
            let budgets = vec![vec![40; kv_heads]; LAYERS];
            let kept = kept_of(&budgets).unwrap();
            let short = vec![vec![4; kv_heads]; LAYERS];
            assert!(kept_of(&short).is_err());
            let mut cut = full.cache.copy(0).unwrap();
            cut.retain(&kept, 0).unwrap();
            for id in [3, 5, 7] {
                let a = decoder
                    .decode(id, &mut full.cache)
                    .unwrap()
                    .to_vec1::<f32>()
                    .unwrap();
                let b = decoder
                    .decode(id, &mut cut)
                    .unwrap()
                    .to_vec1::<f32>()
                    .unwrap();
                assert_eq!(a, b, "{}", entry.name);
            }
            assert_eq!(cut.next_position(), 43);
        }
    }
}

#[test]
fn decoding_goes_on_from_true_positions() {
    // Evicting all but the last tokens must not move them: the logits differ from those of the
    // last tokens alone as a prompt, whose positions start at 0.
    let decoder = decoder(4, 2, DType::F32);
    let ids = prompt(30);
    let mut cache = decoder.new_cache(30).unwrap();
    decoder.prefill(&ids, &mut cache, 64, &mut NoProbe).unwrap();
    let kept = vec![vec![(20..30).collect(); 2]; LAYERS];
    cache.retain(&kept, 4).unwrap();
    assert_eq!(
        cache.layer(0).heads[0].positions(),
        (20..30).collect::<Vec<u32>>()
    );
    let moved = {
        let mut alone = decoder.new_cache(11).unwrap();
        decoder
            .prefill(&ids[20..], &mut alone, 64, &mut NoProbe)
            .unwrap();
        decoder
            .decode(1, &mut alone)
            .unwrap()
            .to_vec1::<f32>()
            .unwrap()
    };
    let true_positions = decoder
        .decode(1, &mut cache)
        .unwrap()
        .to_vec1::<f32>()
        .unwrap();
    let gap = |(a, b): (&f32, &f32)| (a - b).abs();
    assert!(
        moved
            .iter()
            .zip(&true_positions)
            .map(gap)
            .fold(0.0, f32::max)
            > 1e-3
    );
    assert_eq!(cache.layer(1).heads[1].positions().last(), Some(&30));
    assert_eq!(cache.next_position(), 31);
}
