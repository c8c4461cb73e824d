//! The real model against an independent float32 PyTorch reference (fixtures/oracle, made by
//! scripts/make_fixtures.py). The model is downloaded into the cache on first use.
#![allow(clippy::unwrap_used)]

mod real_model;

use kvprof::model::attention::NoProbe;
use kvprof::model::decoder::PREFILL_RUN;
use kvprof::profile::{LayerMeasures, MeasureOptions, Profiler, PromptLabel, prompt_tables};
use kvprof::table::Table;
use real_model::model;
use serde::Deserialize;

/// Float32 re-ordering moves the reference's own logits by about 3e-5.
const LOGIT_TOLERANCE: f32 = 1e-3;
/// Sums of float32 probabilities over 32 rows.
const MASS_TOLERANCE: f64 = 5e-6;
/// A decision closer than this to flipping may flip in float32.
const MARGIN: f64 = 1e-5;

#[derive(Deserialize)]
struct Reference {
    name: String,
    ids: Vec<u32>,
    mba_last: Vec<Vec<u32>>,
    margin_last: Vec<Vec<f64>>,
    mba_pooled: Vec<Vec<u32>>,
    margin_pooled: Vec<Vec<f64>>,
    mba_rows_sum: Vec<Vec<u32>>,
    mba_kv_pooled: Vec<Vec<u32>>,
    sink_mass: Vec<Vec<f64>>,
    window_mass: Vec<Vec<f64>>,
    output_norm_last: Vec<f64>,
    lmba: std::collections::BTreeMap<String, Vec<f64>>,
    lmbo: std::collections::BTreeMap<String, Vec<f64>>,
    top10_ids: Vec<usize>,
    top10_logits: Vec<f32>,
    greedy: Vec<u32>,
}

fn reference(name: &str) -> Reference {
    let path = format!(
        "{}/tests/fixtures/oracle/{name}.json",
        env!("CARGO_MANIFEST_DIR")
    );
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn measure(ids: &[u32], run: usize) -> (Vec<LayerMeasures>, Vec<f32>) {
    let decoder = &model().decoder;
    let options = MeasureOptions::default();
    let mut ignore = |_| ();
    let mut profiler = Profiler::new(&options, &mut ignore);
    let mut cache = decoder.new_cache(ids.len()).unwrap();
    let logits = decoder
        .prefill(ids, &mut cache, run, &mut profiler)
        .unwrap();
    (profiler.finish(), logits.to_vec1().unwrap())
}

fn tables(ids: &[u32], layers: &[LayerMeasures]) -> [Table; 4] {
    let label = PromptLabel {
        index: 0,
        id: "p".into(),
        tokens: ids.len(),
    };
    prompt_tables(&label, layers, &MeasureOptions::default())
}

fn argmax(logits: &[f32]) -> u32 {
    let best = logits
        .iter()
        .enumerate()
        .max_by(|a, b| a.1.total_cmp(b.1))
        .unwrap();
    best.0 as u32
}

#[test]
fn token_ids_equal_the_canonical_tokenizer() {
    #[derive(Deserialize)]
    struct Case {
        text: String,
        ids: Vec<u32>,
    }
    #[derive(Deserialize)]
    struct Cases {
        cases: Vec<Case>,
    }
    let text = include_str!("fixtures/tokenizer_goldens.json");
    let cases: Cases = serde_json::from_str(text).unwrap();
    assert_eq!(cases.cases.len(), 24);
    for case in cases.cases {
        assert_eq!(
            model().tokenizer.encode(&case.text).unwrap(),
            case.ids,
            "{:?}",
            case.text
        );
    }
}

fn check_prompt(name: &str) {
    let want = reference(name);
    assert_eq!(want.name, name);
    let (layers, logits) = measure(&want.ids, PREFILL_RUN);
    for (&id, logit) in want.top10_ids.iter().zip(&want.top10_logits) {
        assert!(
            (logits[id] - logit).abs() < LOGIT_TOLERANCE,
            "{name}: logit {id}"
        );
    }
    check_heads(&want, &layers);
    let [_, _, rows, _] = tables(&want.ids, &layers);
    for (column, values) in &want.lmba {
        let got = rows.numbers(column).unwrap();
        let total: f64 = got.iter().sum::<f64>() / values.iter().sum::<f64>();
        assert!((total - 1.0).abs() < 5e-4, "{name}: {column}");
        for (l, (g, w)) in got.iter().zip(values).enumerate() {
            // One head that moves by one key moves a layer's mean by a ninth of a key.
            assert!(
                (g - w).abs() < 5e-4 * w || (g - w).abs() <= 1.0 / 9.0 + 1e-9,
                "{name}: {column} layer {l}"
            );
        }
    }
    for (column, values) in &want.lmbo {
        let got = rows.numbers(column).unwrap();
        assert_eq!(&got, values, "{name}: {column}");
    }
}

fn check_heads(want: &Reference, layers: &[LayerMeasures]) {
    let threshold = MeasureOptions::default()
        .thresholds
        .iter()
        .position(|t| *t == 0.9)
        .unwrap();
    let (mut heads, mut moved, mut rows_moved) = (0, 0, 0);
    for (l, layer) in layers.iter().enumerate() {
        for (h, head) in layer.heads.iter().enumerate() {
            heads += 1;
            for (got, want, margin) in [
                (
                    head.budgets.last[threshold],
                    want.mba_last[l][h],
                    want.margin_last[l][h],
                ),
                (
                    head.budgets.pooled[threshold],
                    want.mba_pooled[l][h],
                    want.margin_pooled[l][h],
                ),
            ] {
                if got != want {
                    moved += 1;
                    assert!(
                        got.abs_diff(want) == 1 && margin < MARGIN,
                        "layer {l} head {h}: {got} {want} {margin}"
                    );
                }
            }
            let sum = (head.budgets.rows[threshold] * 32.0).round() as u32;
            if sum != want.mba_rows_sum[l][h] {
                rows_moved += 1;
                assert!(
                    sum.abs_diff(want.mba_rows_sum[l][h]) == 1,
                    "layer {l} head {h}: rows"
                );
            }
        }
        for (h, kv) in layer.kv_heads.iter().enumerate() {
            assert_eq!(
                kv.pooled[threshold], want.mba_kv_pooled[l][h],
                "layer {l} kv head {h}"
            );
        }
        for (h, head) in layer.heads.iter().enumerate() {
            let sinks = (head.sink_mass - want.sink_mass[l][h]).abs();
            let window = (head.window_mass - want.window_mass[l][h]).abs();
            assert!(
                sinks < MASS_TOLERANCE && window < MASS_TOLERANCE,
                "layer {l} head {h}"
            );
        }
        let norm = layer.output_last.norm / want.output_norm_last[l];
        assert!((norm - 1.0).abs() < 1e-5, "layer {l}: output norm");
    }
    assert!(
        moved * 200 <= heads * 2,
        "{moved} of {} MBA differ",
        heads * 2
    );
    // A head's mean over 32 rows moves when one of 32 decisions does; at most 2 % of heads may.
    assert!(
        rows_moved * 50 <= heads,
        "{rows_moved} of {heads} heads differ in a row"
    );
}

#[test]
fn measures_of_512_tokens_equal_the_reference() {
    check_prompt("synth512");
}

#[test]
fn measures_of_1024_tokens_equal_the_reference() {
    check_prompt("synth1024");
}

#[test]
fn measures_of_2048_tokens_equal_the_reference() {
    check_prompt("synth2048");
}

#[test]
fn measures_of_4096_tokens_equal_the_reference() {
    check_prompt("synth4096");
}

#[test]
fn greedy_continuations_equal_the_reference() {
    for name in ["synth512", "synth1024"] {
        let want = reference(name);
        let decoder = &model().decoder;
        let mut cache = decoder.new_cache(want.ids.len()).unwrap();
        let mut logits = decoder
            .prefill(&want.ids, &mut cache, PREFILL_RUN, &mut NoProbe)
            .unwrap();
        let mut ids = Vec::new();
        while ids.len() < want.greedy.len() {
            ids.push(argmax(&logits.to_vec1::<f32>().unwrap()));
            logits = decoder.decode(ids[ids.len() - 1], &mut cache).unwrap();
        }
        assert_eq!(ids, want.greedy, "{name}");
    }
}

#[test]
fn a_probe_changes_no_bit_of_the_logits() {
    let ids = &reference("synth512").ids[..200];
    let decoder = &model().decoder;
    let mut cache = decoder.new_cache(ids.len()).unwrap();
    let bare = decoder.prefill(ids, &mut cache, 128, &mut NoProbe).unwrap();
    let (_, probed) = measure(ids, 128);
    assert_eq!(bare.to_vec1::<f32>().unwrap(), probed);
}

#[test]
fn runs_of_any_length_give_the_same_measures() {
    let ids = &reference("synth512").ids[..160];
    let (whole, logits) = measure(ids, ids.len());
    for run in [1, 37, 64] {
        let (parts, part_logits) = measure(ids, run);
        for (a, b) in logits.iter().zip(&part_logits) {
            assert!((a - b).abs() < LOGIT_TOLERANCE, "runs of {run}");
        }
        let (mut moved, mut all) = (0, 0);
        for (a, b) in whole.iter().zip(&parts) {
            for (a, b) in a.heads.iter().zip(&b.heads) {
                for (x, y) in a.budgets.pooled.iter().zip(&b.budgets.pooled) {
                    all += 1;
                    moved += usize::from(x != y);
                    assert!(x.abs_diff(*y) <= 1, "runs of {run}");
                }
                for (x, y) in a.mass_pooled.iter().zip(&b.mass_pooled) {
                    assert!((x - y).abs() < 1e-4, "runs of {run}: {x} {y}");
                }
            }
        }
        assert!(
            moved * 200 <= all,
            "runs of {run}: {moved} of {all} MBA moved"
        );
    }
}
