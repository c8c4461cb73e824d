//! What is kept, and what the model says from it, against kvpress 0.5.5 (fixtures/oracle).
#![allow(clippy::unwrap_used)]

mod real_model;
mod ties;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

use candle_core::Tensor;
use kvprof::budget::{Budget, BudgetPlan, Floor, Geometry, Measures, Provenance, Request};
use kvprof::eval::most_likely;
use kvprof::generate;
use kvprof::method::{LiveCache, prefill};
use kvprof::model::attention::NoProbe;
use kvprof::model::cache::KvCache;
use kvprof::model::decoder::PREFILL_RUN;
use kvprof::profile::{MeasureOptions, Profiler};
use kvprof::registry;
use kvprof::select::{
    HeadSplit, LayerScores, SCORERS, Scorer, ScoringProbe, Slots, select, select_layers,
};
use kvprof::table::read_json_rows;
use real_model::{fixture, model, prompt_ids};
use serde::Deserialize;
use serde_json::{Value, json};
use ties::check_head;

/// A scorer with what it needs to choose slots.
struct Selector {
    scorer: Box<dyn Scorer>,
    sinks: usize,
    window: usize,
    split: HeadSplit,
}

impl Selector {
    fn kept(&self, scores: &[LayerScores], budgets: &[Vec<usize>]) -> Vec<Slots> {
        select_layers(
            scores,
            &vec![0; budgets.len()],
            budgets,
            self.sinks,
            self.window,
            self.split,
        )
        .unwrap()
    }
}

/// A kvpress method in our terms.
fn selector(method: &str) -> Selector {
    let snapkv = json!({"pooling": "avg", "kernel": 5});
    let (scorer, parameters, sinks, window, split) = match method {
        "snapkv_w32_k5" => ("snapkv", snapkv, 0, 32, HeadSplit::PerHead),
        pyramid if pyramid.starts_with("pyramidkv_w32_k5") => {
            ("snapkv", snapkv, 0, 32, HeadSplit::PerHead)
        }
        "adakv_snapkv_a0.2" => {
            let split = HeadSplit::Pooled { safeguard: 0.2 };
            ("snapkv", snapkv, 0, 32, split)
        }
        "streamingllm_sink4" => ("streaming", json!({}), 4, 0, HeadSplit::PerHead),
        "tova" => ("tova", json!({}), 0, 1, HeadSplit::PerHead),
        "knorm" => ("knorm", json!({}), 0, 0, HeadSplit::PerHead),
        "observed_h2o" => ("h2o", json!({"normalise": true}), 0, 0, HeadSplit::PerHead),
        other => panic!("{other}"),
    };
    Selector {
        scorer: registry::build("scorer", SCORERS, scorer, parameters).unwrap(),
        sinks,
        window,
        split,
    }
}

const METHODS: [&str; 9] = [
    "snapkv_w32_k5",
    "adakv_snapkv_a0.2",
    "streamingllm_sink4",
    "tova",
    "knorm",
    "observed_h2o",
    // Their layers keep different numbers of tokens.
    "pyramidkv_w32_k5_beta4",
    "pyramidkv_w32_k5_beta8",
    "pyramidkv_w32_k5_beta20",
];

/// `(method, keep)` -> kept slots, `[layer * 3 + kv_head]`.
type Kept = BTreeMap<(String, usize), Vec<Vec<u32>>>;

fn kvpress_kept(prompt: &str) -> Kept {
    static ROWS: OnceLock<Vec<serde_json::Map<String, Value>>> = OnceLock::new();
    let path = fixture("oracle/kvpress_kept.parquet");
    let rows = ROWS.get_or_init(|| read_json_rows(Path::new(&path)).unwrap());
    let number =
        |row: &serde_json::Map<String, Value>, name: &str| row[name].as_u64().unwrap() as usize;
    let mut kept = Kept::new();
    for row in rows.iter().filter(|row| row["prompt"] == prompt) {
        let method = row["method"].as_str().unwrap().to_owned();
        let heads = kept
            .entry((method, number(row, "keep")))
            .or_insert_with(|| vec![vec![]; 90]);
        let slots = row["kept"].as_array().unwrap().iter();
        heads[number(row, "layer") * 3 + number(row, "kv_head")] =
            slots.map(|s| s.as_u64().unwrap() as u32).collect();
    }
    kept
}

/// Budgets of every layer: the same, or those of kvpress where its layers differ.
fn budgets(method: &str, keep: usize, theirs: &[Vec<u32>]) -> Vec<Vec<usize>> {
    if !method.starts_with("pyramidkv") {
        return vec![vec![keep; 3]; 30];
    }
    let layers = theirs.chunks(3);
    let budgets: Vec<Vec<usize>> = layers
        .map(|heads| heads.iter().map(Vec::len).collect())
        .collect();
    assert!(
        budgets[0][0] > 4 * budgets[29][0],
        "{method} {keep} is even"
    );
    budgets
}

/// Bytes of the keys and values that a cache gives out.
fn tensor_bytes(cache: &KvCache) -> usize {
    let bytes = |tensor: Tensor| tensor.elem_count() * tensor.dtype().size_in_bytes();
    let layers = (0..cache.num_layers()).map(|layer| cache.layer(layer));
    layers
        .flat_map(|layer| &layer.heads)
        .map(|head| bytes(head.keys().unwrap()) + bytes(head.values().unwrap()))
        .sum()
}

fn probe(selectors: &[Selector]) -> ScoringProbe<'_> {
    ScoringProbe::new(selectors.iter().map(|s| (&*s.scorer, s.window)).collect())
}

fn check_prompt(prompt: &str, steps: usize) {
    let (ids, model) = (prompt_ids(prompt), model());
    let kvpress = kvpress_kept(prompt);
    let uneven = if prompt == "synth4096" { 3 } else { 2 };
    assert_eq!(kvpress.len(), 6 * 2 + uneven, "{prompt}");
    let selectors = METHODS.map(selector);
    let mut full = model.decoder.new_cache(ids.len()).unwrap();
    let mut probe = probe(&selectors);
    let logits = model
        .decoder
        .prefill(&ids, &mut full, PREFILL_RUN, &mut probe)
        .unwrap();
    let (mut ties, mut slots) = (0, 0);
    for ((method, selector), scores) in METHODS.iter().zip(&selectors).zip(probe.finish()) {
        let rows: Vec<_> = scores.iter().map(|s| s.to_rows().unwrap()).collect();
        let runs = kvpress.iter().filter(|((name, _), _)| name == method);
        for ((_, keep), theirs) in runs {
            let keep = *keep;
            let kept = selector.kept(&scores, &budgets(method, keep, theirs));
            let cache = full.cut(&kept, 64).unwrap();
            for (i, theirs) in theirs.iter().enumerate() {
                let (layer, head) = (i / 3, i % 3);
                let what = format!("{prompt} {method} {keep}: layer {layer} head {head}");
                let scores = &rows[layer][head];
                ties += check_head(scores, &kept[layer][head], theirs, &what);
                slots += theirs.len();
            }
            let held: usize = kept.iter().flatten().map(Vec::len).sum();
            assert_eq!(held, theirs.iter().map(Vec::len).sum::<usize>());
            assert_eq!(tensor_bytes(&cache), held * 64 * 2 * 4);
            assert_eq!(cache.bytes(), tensor_bytes(&cache));
            check_greedy(
                prompt,
                method,
                keep,
                LiveCache::keeping(cache),
                &logits,
                steps,
            );
        }
    }
    // Ties are rare: a few of hundreds of thousands of slots.
    assert!(
        ties * 10_000 <= slots,
        "{prompt}: {ties} of {slots} slots are ties"
    );
}

#[derive(Deserialize)]
struct Greedy {
    prompt: String,
    method: String,
    keep: usize,
    greedy32: Vec<u32>,
}

fn check_greedy(
    prompt: &str,
    method: &str,
    keep: usize,
    mut cache: LiveCache,
    logits: &Tensor,
    steps: usize,
) {
    let text = std::fs::read_to_string(fixture("oracle/kvpress_greedy.json")).unwrap();
    let all: Vec<Greedy> = serde_json::from_str(&text).unwrap();
    let want = all
        .iter()
        .find(|g| g.prompt == prompt && g.method == method && g.keep == keep)
        .unwrap();
    let done = generate::decode(&model().decoder, &mut cache, logits, steps, &mut |logits| {
        Ok(Some(most_likely(&logits.to_vec1::<f32>()?)))
    })
    .unwrap();
    assert_eq!(done.ids, want.greedy32[..steps], "{prompt} {method} {keep}");
}

#[test]
fn kept_tokens_and_continuations_of_512_tokens_equal_kvpress() {
    check_prompt("synth512", 32);
}

#[test]
fn kept_tokens_and_continuations_of_1024_tokens_equal_kvpress() {
    check_prompt("synth1024", 32);
}

#[test]
fn kept_tokens_and_continuations_of_2048_tokens_equal_kvpress() {
    check_prompt("synth2048", 32);
}

#[test]
fn kept_tokens_and_continuations_of_4096_tokens_equal_kvpress() {
    check_prompt("synth4096", 32);
}

/// More keys than a piece of decoding has, on every thread there is.
#[test]
fn a_budget_of_every_token_of_a_real_prompt_changes_no_bit() {
    let (ids, model) = (prompt_ids("synth1024"), model());
    let selector = selector("snapkv_w32_k5");
    let scorers = vec![(&*selector.scorer, selector.window)];
    let full = prefill(&model.decoder, &ids, 0, scorers, &mut NoProbe).unwrap();
    let budgets = vec![vec![ids.len(); 3]; 30];
    let kept = selector.kept(&full.scores[0], &budgets);
    let mut cut = full.cache.cut(&kept, 4).unwrap();
    let mut full = full.cache;
    for id in [504, 2988, 288, 260, 1962, 314, 42, 7] {
        let [a, b] = [&mut full, &mut cut].map(|cache| {
            let logits = model.decoder.decode(id, cache).unwrap();
            logits.to_vec1::<f32>().unwrap()
        });
        assert!(a.iter().zip(&b).all(|(a, b)| a.to_bits() == b.to_bits()));
    }
}

/// Scores whose window slots are padded with their maximum would measure the same need everywhere.
#[test]
fn budgets_from_a_prompts_own_prefill_differ_between_layers() {
    let (ids, model) = (prompt_ids("synth512"), model());
    let options = MeasureOptions::default();
    let mut ignore = |_| ();
    let mut profiler = Profiler::new(&options, &mut ignore);
    prefill(&model.decoder, &ids, 0, Vec::new(), &mut profiler).unwrap();
    let geometry = Geometry::of_model(model);
    let measures = Measures::of_prompt(geometry, ids.len(), &profiler.finish(), &options);
    let request = Request::of_measures(
        &measures,
        Budget::TokensPerHead(128.0),
        Floor::of(4, 32),
        ids.len(),
    );
    for strategy in ["proportional", "zigzag", "zigzag-lmbo"] {
        let plan = BudgetPlan::allocate(strategy, json!({}), &request, Provenance::default());
        let mut layers: Vec<usize> = plan.unwrap().tokens.iter().map(|l| l[0]).collect();
        layers.sort_unstable();
        assert!(layers[29] > 3 * layers[0], "{strategy}: {layers:?}");
        layers.dedup();
        assert!(layers.len() > 10, "{strategy}: {layers:?}");
    }
}

/// Scorers do not disturb each other, and runs of any length give the same scores.
#[test]
fn one_prefill_scores_for_every_scorer() {
    let (ids, model) = (prompt_ids("synth512"), model());
    let selectors = METHODS.map(selector);
    let mut probe = probe(&selectors);
    let mut cache = model.decoder.new_cache(ids.len()).unwrap();
    model
        .decoder
        .prefill(&ids, &mut cache, 100, &mut probe)
        .unwrap();
    let together: Vec<Vec<LayerScores>> = probe.finish();
    for (selector, scores) in selectors.iter().zip(together) {
        let scorers = vec![(&*selector.scorer, selector.window)];
        let alone = prefill(&model.decoder, &ids, 0, scorers, &mut NoProbe).unwrap();
        for (layer, (a, b)) in alone.scores[0].iter().zip(&scores).enumerate() {
            let (sinks, window, split) = (selector.sinks, selector.window, selector.split);
            let kept = |scores| select(scores, &[100; 3], sinks, window, split).unwrap();
            let scores = a.to_rows().unwrap();
            for ((a_kept, b_kept), scores) in kept(a).iter().zip(&kept(b)).zip(&scores) {
                let what = format!("{:?} layer {layer}", selector.scorer);
                check_head(scores, a_kept, b_kept, &what);
            }
        }
    }
}
