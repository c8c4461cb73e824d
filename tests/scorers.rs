//! What every scorer keeps, against the presses of kvpress 0.5.5 (fixtures/kvpress_scorers.parquet).
#![allow(clippy::unwrap_used)]

mod real_model;
mod ties;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

use kvprof::method::prefill;
use kvprof::model::attention::NoProbe;
use kvprof::model::decoder::PREFILL_RUN;
use kvprof::registry;
use kvprof::select::{HeadSplit, LayerScores, SCORERS, Scorer, ScoringProbe, Slots, select_layers};
use kvprof::table::read_json_rows;
use real_model::{fixture, model, prompt_ids};
use serde_json::{Value, json};
use ties::check_stages;

/// A press in our terms.
struct Press {
    /// Name in the fixture.
    method: &'static str,
    scorer: Box<dyn Scorer>,
    /// A scorer whose scores rank without jumps, where those of `scorer` have any.
    ranked_by: Option<Box<dyn Scorer>>,
    sinks: usize,
    window: usize,
    split: HeadSplit,
}

fn scorer(name: &str, parameters: Value) -> Box<dyn Scorer> {
    registry::build("scorer", SCORERS, name, parameters).unwrap()
}

fn presses() -> Vec<Press> {
    let snapkv = json!({"pooling": "avg", "kernel": 5});
    let chunks = json!({"pooling": "avg", "kernel": 5, "chunk": 16});
    let pooled = HeadSplit::Pooled { safeguard: 0.2 };
    let each = HeadSplit::PerHead;
    let mean = json!({"covariance": false, "values": false});
    let table = [
        ("keydiff", "keydiff", json!({}), 0, 0, each),
        (
            "expected_attention",
            "expected-attention",
            json!({}),
            4,
            0,
            each,
        ),
        (
            "expected_attention_mean",
            "expected-attention",
            mean,
            4,
            0,
            each,
        ),
        (
            "adakv_expected_attention",
            "expected-attention",
            json!({"epsilon": 0.01}),
            4,
            0,
            pooled,
        ),
        ("criticalkv", "criticalkv", snapkv.clone(), 0, 32, each),
        ("critical_adakv", "criticalkv", snapkv, 0, 32, pooled),
        ("chunkkv", "chunkkv", chunks, 0, 32, each),
        ("cur", "cur", json!({}), 4, 0, each),
        ("finch", "finch", json!({}), 0, 32, each),
        ("lagkv", "lagkv", json!({}), 4, 0, each),
    ];
    let press = |(method, name, parameters, sinks, window, split)| Press {
        method,
        scorer: scorer(name, parameters),
        ranked_by: (name == "lagkv").then(|| scorer(name, json!({"cross": true}))),
        sinks,
        window,
        split,
    };
    table.map(press).into()
}

/// `(method, keep)` -> kept slots, `[layer][kv_head]`, empty for layers that the reference leaves out.
type Kept = BTreeMap<(String, usize), Vec<Slots>>;

fn kvpress_kept(prompt: &str) -> Kept {
    static ROWS: OnceLock<Vec<serde_json::Map<String, Value>>> = OnceLock::new();
    let path = fixture("kvpress_scorers.parquet");
    let rows = ROWS.get_or_init(|| read_json_rows(Path::new(&path)).unwrap());
    let mut kept = Kept::new();
    for row in rows.iter().filter(|row| row["prompt"] == prompt) {
        let number = |name: &str| row[name].as_u64().unwrap() as usize;
        let method = row["method"].as_str().unwrap().to_owned();
        let layers = kept
            .entry((method, number("keep")))
            .or_insert_with(|| vec![vec![vec![]; 3]; 30]);
        let gaps = row["gaps"].as_array().unwrap().iter();
        let slots = gaps.scan(0, |slot, gap| {
            *slot += gap.as_u64().unwrap() as u32;
            Some(*slot)
        });
        layers[number("layer")][number("kv_head")] = slots.collect();
    }
    kept
}

/// A scorer's scores of every layer, by each of its stages: `[layer][stage][kv_head][token]`.
fn stages(scores: &[LayerScores]) -> Vec<Vec<Vec<Vec<f64>>>> {
    let of_layer = |scores: &LayerScores| {
        let first = scores.first_stage();
        let first = first.map(|stage| stage.scores.to_vec2().unwrap());
        first
            .into_iter()
            .chain([scores.to_rows().unwrap()])
            .collect()
    };
    scores.iter().map(of_layer).collect()
}

/// All scores of one prefill in runs of `run` tokens: of each press, and of what ranks for it.
fn scores_of(presses: &[Press], ids: &[u32], run: usize) -> Vec<[Vec<LayerScores>; 2]> {
    let decoder = &model().decoder;
    let mut scorers: Vec<(&dyn Scorer, usize)> = Vec::new();
    for press in presses {
        scorers.push((&*press.scorer, press.window));
        let ranks = press.ranked_by.as_ref().unwrap_or(&press.scorer);
        scorers.push((&**ranks, press.window));
    }
    let mut probe = ScoringProbe::new(scorers);
    let mut cache = decoder.new_cache(ids.len()).unwrap();
    decoder.prefill(ids, &mut cache, run, &mut probe).unwrap();
    let mut scores = probe.finish().into_iter();
    presses
        .iter()
        .map(|_| [scores.next().unwrap(), scores.next().unwrap()])
        .collect()
}

impl Press {
    fn kept(&self, scores: &[LayerScores], keep: usize) -> Vec<Slots> {
        let budgets = vec![vec![keep; 3]; 30];
        let (sinks, window) = (self.sinks, self.window);
        select_layers(scores, &[0; 30], &budgets, sinks, window, self.split).unwrap()
    }

    /// Slots at a tie between two selections.
    fn check(&self, by: &[LayerScores], ours: &[Slots], theirs: &[Slots], what: &str) -> usize {
        let mut ties = 0;
        for (layer, stages) in stages(by).iter().enumerate() {
            for head in (0..3).filter(|head| !theirs[layer][*head].is_empty()) {
                let what = format!("{what} {}: layer {layer} head {head}", self.method);
                let stages: Vec<&[f64]> = stages.iter().map(|s| &s[head][..]).collect();
                let (ours, theirs) = (&ours[layer][head], &theirs[layer][head]);
                ties += check_stages(&stages, ours, theirs, &what);
            }
        }
        ties
    }
}

fn check_prompt(prompt: &str, layers: usize) {
    let kvpress = kvpress_kept(prompt);
    let presses = presses();
    // One press of each of these decides a slot by rounding: the script says which.
    let left_out = ["synth1024", "synth4096"].contains(&prompt);
    assert_eq!(
        kvpress.len(),
        2 * presses.len() - usize::from(left_out),
        "{prompt}"
    );
    let scores = scores_of(&presses, &prompt_ids(prompt), PREFILL_RUN);
    let (mut ties, mut slots) = (0, 0);
    for (press, [scores, by]) in presses.iter().zip(&scores) {
        for ((_, keep), theirs) in kvpress.iter().filter(|((m, _), _)| m == press.method) {
            let what = format!("{prompt} {keep}");
            let kept = press.kept(scores, *keep);
            let total: usize = theirs.iter().flatten().map(Vec::len).sum();
            assert_eq!(total, 3 * layers * keep, "{what} {}", press.method);
            let of_press = press.check(by, &kept, theirs, &what);
            eprintln!(
                "{what} {}: {of_press} of {total} slots at a tie",
                press.method
            );
            ties += of_press;
            slots += total;
        }
    }
    // Ties are rare: a few of hundreds of thousands of slots.
    assert!(
        ties * 10_000 <= slots,
        "{prompt}: {ties} of {slots} slots are ties"
    );
}

#[test]
fn kept_tokens_of_512_tokens_equal_kvpress() {
    check_prompt("synth512", 30);
}

#[test]
fn kept_tokens_of_1024_tokens_equal_kvpress() {
    check_prompt("synth1024", 30);
}

#[test]
fn kept_tokens_of_2048_tokens_equal_kvpress() {
    check_prompt("synth2048", 10);
}

#[test]
fn kept_tokens_of_4096_tokens_equal_kvpress() {
    check_prompt("synth4096", 10);
}

/// Scorers do not disturb each other, and runs of any length, windows across two of them too, give the same scores.
#[test]
fn one_prefill_scores_for_every_press() {
    let ids = prompt_ids("synth512");
    let presses = presses();
    let together = scores_of(&presses, &ids, 100);
    for (press, [scores, by]) in presses.iter().zip(&together) {
        let scorers = vec![(&*press.scorer, press.window)];
        let alone = prefill(&model().decoder, &ids, 0, scorers, &mut NoProbe).unwrap();
        let [ours, theirs] = [&alone.scores[0], scores].map(|scores| press.kept(scores, 300));
        press.check(by, &ours, &theirs, "runs of 100");
    }
}

/// Every scorer that is served, with its defaults: the same bits on one thread and on several.
#[test]
fn scores_do_not_depend_on_threads() {
    let ids = &prompt_ids("synth512")[..300];
    let served = SCORERS
        .iter()
        .filter(|entry| !["oracle", "kvzip"].contains(&entry.name));
    let scorers: Vec<_> = served
        .map(|e| (e.name, scorer(e.name, json!({}))))
        .collect();
    let scored = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(|| {
            let asked = scorers.iter().map(|(_, scorer)| (&**scorer, 32)).collect();
            let prefilled = prefill(&model().decoder, ids, 0, asked, &mut NoProbe).unwrap();
            let layers = prefilled.scores.iter();
            layers.map(|scores| stages(scores)).collect::<Vec<_>>()
        })
    };
    let bits = |stages: &[Vec<Vec<Vec<f64>>>]| -> Vec<u64> {
        let all = stages.iter().flatten().flatten().flatten();
        all.map(|x| x.to_bits()).collect()
    };
    for ((name, _), (one, three)) in scorers.iter().zip(scored(1).iter().zip(&scored(3))) {
        assert!(bits(one) == bits(three), "{name}");
    }
}
