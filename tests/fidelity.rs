//! `kl`, `top1` and `nll` of `kvprof eval` against an independent NumPy forward pass (fixtures/fidelity.json,
//! made in float64 by scripts/make_fidelity.py) that cuts its cache to the tokens that kvpress 0.5.5 keeps.
#![allow(clippy::unwrap_used)]

mod real_model;

use std::path::Path;
use std::sync::OnceLock;

use kvprof::budget::Budget;
use kvprof::eval::{Case, QuerySource, Scores, Sweep, fidelity, surprise, teacher_forced};
use kvprof::method::{LiveCache, Method};
use kvprof::model::attention::NoProbe;
use kvprof::model::decoder::PREFILL_RUN;
use kvprof::select::Slots;
use kvprof::table::read_json_rows;
use real_model::{fixture, model, prompt_ids};
use serde::Deserialize;

/// KL of one step, in nats: float32 moves it by 3.1e-5 at most, and NumPy's own by 3.8e-5.
const STEP: f64 = 1e-4;
/// Mean KL of a continuation, in nats: off by 4.7e-6 at most.
const MEAN: f64 = 2e-5;
/// Nats per token of an answer: off by 3.0e-6 at most.
const NLL: f64 = 1e-5;

/// One prompt under the full cache and under every cut.
#[derive(Deserialize)]
struct Fixture {
    name: String,
    /// The full cache's greedy continuation, past any stop id.
    continuation: Vec<u32>,
    /// Tokens of it before the first stop id.
    until_stop: usize,
    answers: Vec<String>,
    answer_ids: Vec<Vec<u32>>,
    /// Per answer.
    nll: Vec<f64>,
    configurations: Vec<Configuration>,
}

/// What one kept set does: `kl` and `top1` per step, `nll` per answer.
#[derive(Deserialize)]
struct Configuration {
    method: String,
    keep: usize,
    kl: Vec<f64>,
    top1: Vec<bool>,
    nll: Vec<f64>,
}

impl Configuration {
    /// Mean KL and share of agreement over the first steps.
    fn over(&self, steps: usize) -> (f64, f64) {
        let kl = self.kl[..steps].iter().sum::<f64>() / steps as f64;
        let agreed = self.top1[..steps].iter().filter(|same| **same).count();
        (kl, agreed as f64 / steps as f64)
    }
}

fn expected(prompt: &str) -> Fixture {
    let text = std::fs::read_to_string(fixture("fidelity.json")).unwrap();
    let all: Vec<Fixture> = serde_json::from_str(&text).unwrap();
    all.into_iter().find(|f| f.name == prompt).unwrap()
}

/// What kvpress keeps, `[layer][kv_head]`.
fn kvpress_kept(prompt: &str, method: &str, keep: usize) -> Vec<Slots> {
    type Rows = Vec<serde_json::Map<String, serde_json::Value>>;
    static ROWS: OnceLock<Rows> = OnceLock::new();
    let path = fixture("oracle/kvpress_kept.parquet");
    let rows = ROWS.get_or_init(|| read_json_rows(Path::new(&path)).unwrap());
    let mut kept = vec![vec![Vec::new(); 3]; 30];
    for row in rows
        .iter()
        .filter(|row| row["prompt"] == prompt && row["method"] == method && row["keep"] == keep)
    {
        let at = |name: &str| row[name].as_u64().unwrap() as usize;
        let slots = row["kept"].as_array().unwrap().iter();
        kept[at("layer")][at("kv_head")] = slots.map(|s| s.as_u64().unwrap() as u32).collect();
    }
    assert_eq!(
        kept.iter().flatten().map(Vec::len).sum::<usize>(),
        keep * 90
    );
    kept
}

/// Asserts that two numbers of nats are equal but for rounding.
fn check(ours: f64, theirs: f64, tolerance: f64, what: &str) {
    let off = (ours - theirs).abs();
    assert!(
        off < tolerance,
        "{what}: {ours} against {theirs}, off by {off:.1e}"
    );
}

/// A sweep of methods that share sinks and window, against kvpress's names for them, in the order of rows.
fn check_sweep(fixture: &Fixture, methods: &str, names: &[&str], sinks: usize, window: usize) {
    let methods = Method::parse_list(methods).unwrap();
    let budgets = [128u32, 256];
    let sweep = Sweep {
        whole_windows: false,
        model: model(),
        methods: &methods,
        budgets: &budgets.map(|b| Budget::TokensPerHead(f64::from(b)).into()),
        sinks,
        window,
        max_new_tokens: fixture.continuation.len(),
        observed_from: QuerySource::Context,
    };
    let case = Case {
        id: fixture.name.clone(),
        ids: prompt_ids(&fixture.name),
        answers: fixture.answers.clone(),
        question_tokens: 0,
        wants_all: false,
        answer_ids: fixture.answer_ids.clone(),
        evidence: Vec::new(),
        length: None,
        depth: None,
        needle: None,
    };
    let outcome = sweep.run(&case, &mut || ()).unwrap();
    let mut rows = outcome.rows.iter();
    for (name, budget) in names.iter().flat_map(|n| budgets.map(|b| (n, b))) {
        let scores = rows.next().unwrap().scores.as_ref().unwrap();
        let want = (fixture.configurations.iter())
            .find(|c| c.method == *name && c.keep == budget as usize)
            .unwrap();
        check_scores(scores, want, fixture);
    }
    if methods.last().unwrap().cut.is_none() {
        let full = rows.next().unwrap().scores.as_ref().unwrap();
        assert_eq!((full.kl, full.top1), (0.0, 1.0));
        check(full.nll, best(&fixture.nll), NLL, "nll of the full cache");
    }
    assert!(rows.next().is_none());
}

fn best(nll: &[f64]) -> f64 {
    nll.iter().copied().fold(f64::INFINITY, f64::min)
}

fn check_scores(scores: &Scores, want: &Configuration, fixture: &Fixture) {
    let what = format!("{} {} {}", fixture.name, want.method, want.keep);
    let (kl, top1) = want.over(fixture.until_stop);
    assert_eq!(scores.budget_tokens, want.keep as f64, "{what}");
    check(scores.kl, kl, MEAN, &format!("{what}: kl"));
    assert_eq!(scores.top1, top1, "{what}: top1");
    check(scores.nll, best(&want.nll), NLL, &format!("{what}: nll"));
}

/// What `kvprof eval` writes: its own selection, tokens fed at once, the continuation cut at a stop id.
fn check_eval(prompt: &str) {
    let fixture = expected(prompt);
    for (answer, ids) in fixture.answers.iter().zip(&fixture.answer_ids) {
        assert_eq!(model().tokenizer.encode(answer).unwrap(), *ids);
    }
    let snapkv = "uniform+snapkv(pooling=avg,kernel=5)";
    let methods = format!("{snapkv},{snapkv}+pooled,full");
    let names = ["snapkv_w32_k5", "adakv_snapkv_a0.2"];
    check_sweep(&fixture, &methods, &names, 0, 32);
    check_sweep(&fixture, "streaming", &["streamingllm_sink4"], 4, 32);
}

#[test]
fn scores_of_a_sweep_on_512_tokens_equal_numpy() {
    check_eval("synth512");
}

#[test]
fn scores_of_a_sweep_on_1024_tokens_that_stops_early_equal_numpy() {
    assert_eq!(expected("synth1024").until_stop, 6);
    check_eval("synth1024");
}

/// Logits after each token, fed one by one, and the cache back where it was.
fn rows(cache: &mut LiveCache, ids: &[u32]) -> Vec<Vec<f32>> {
    let start = cache.cache().next_position();
    let (rows, _) = teacher_forced(&model().decoder, cache, ids).unwrap();
    cache.rewind(start).unwrap();
    rows
}

/// Every step and every answer of every method, from kvpress's own kept sets, token by token.
fn check_steps(prompt: &str) {
    let (fixture, ids, decoder) = (expected(prompt), prompt_ids(prompt), &model().decoder);
    let mut cache = decoder.new_cache(ids.len() + 32).unwrap();
    let first = decoder.prefill(&ids, &mut cache, PREFILL_RUN, &mut NoProbe);
    let first = first.unwrap().to_vec1::<f32>().unwrap();
    let mut cache = LiveCache::keeping(cache);
    let nll = |cache: &mut LiveCache, answer: &[u32]| {
        let mut before = vec![first.clone()];
        before.extend(rows(cache, &answer[..answer.len() - 1]));
        let surprises = before
            .iter()
            .zip(answer)
            .map(|(row, id)| surprise(row, *id));
        surprises.sum::<f64>() / answer.len() as f64
    };
    for (answer, want) in fixture.answer_ids.iter().zip(&fixture.nll) {
        check(nll(&mut cache, answer), *want, NLL, "nll of the full cache");
    }
    let full = rows(&mut cache, &fixture.continuation);
    assert_eq!(fixture.configurations.len(), 12);
    for want in &fixture.configurations {
        let what = format!("{prompt} {} {}", want.method, want.keep);
        let kept = kvpress_kept(prompt, &want.method, want.keep);
        let mut cut = LiveCache::keeping(cache.cache().cut(&kept, 32).unwrap());
        let cut_rows = rows(&mut cut, &fixture.continuation);
        for step in 0..full.len() {
            let one = fidelity(&full[step..=step], &cut_rows[step..=step]);
            check(one.kl, want.kl[step], STEP, &format!("{what}: step {step}"));
            assert_eq!(one.top1 == 1.0, want.top1[step], "{what}: step {step}");
        }
        for (answer, theirs) in fixture.answer_ids.iter().zip(&want.nll) {
            check(nll(&mut cut, answer), *theirs, NLL, &format!("{what}: nll"));
        }
    }
}

#[test]
fn every_step_on_512_tokens_equals_numpy() {
    check_steps("synth512");
}

#[test]
fn every_step_on_1024_tokens_equals_numpy() {
    check_steps("synth1024");
}
