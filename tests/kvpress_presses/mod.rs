//! The presses of kvpress in our terms, and what they keep of a model's prompts.
//!
//! The schema of the references stands in scripts/make_scorer_references.py.

use std::collections::BTreeMap;
use std::path::Path;

use kvprof::budget::Geometry;
use kvprof::model::Model;
use kvprof::model::decoder::PREFILL_RUN;
use kvprof::registry;
use kvprof::select::{HeadSplit, LayerScores, SCORERS, Scorer, ScoringProbe, Slots, select_layers};
use kvprof::table::read_json_rows;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::real_model::fixture;
use crate::ties::{TIE, check_across_heads, check_stages};

/// How far rounding may move the distance of two scores, relative to the larger, from what it is in float64.
///
/// Float32 moves logits by about 1e-5.
const ROUNDING: f64 = 2e-5;

/// A press in our terms.
pub struct Press {
    /// Name in the fixture.
    pub method: &'static str,
    pub scorer: Box<dyn Scorer>,
    /// A scorer whose scores rank without jumps, where those of `scorer` have any.
    ranked_by: Option<Box<dyn Scorer>>,
    sinks: usize,
    pub window: usize,
    split: HeadSplit,
}

pub fn scorer(name: &str, parameters: Value) -> Box<dyn Scorer> {
    registry::build("scorer", SCORERS, name, parameters).unwrap()
}

/// Method, scorer, its parameters, sinks, window and split.
type InOurTerms = (&'static str, &'static str, Value, usize, usize, HeadSplit);

fn in_our_terms((method, name, parameters, sinks, window, split): InOurTerms) -> Press {
    Press {
        method,
        scorer: scorer(name, parameters),
        ranked_by: (name == "lagkv").then(|| scorer(name, json!({"cross": true}))),
        sinks,
        window,
        split,
    }
}

const EACH: HeadSplit = HeadSplit::PerHead;
const POOLED: HeadSplit = HeadSplit::Pooled { safeguard: 0.2 };

/// The presses that both models have references of, but leverage.
pub fn presses() -> Vec<Press> {
    let snapkv = json!({"pooling": "avg", "kernel": 5});
    let chunks = json!({"pooling": "avg", "kernel": 5, "chunk": 16});
    let mean = json!({"covariance": false, "values": false});
    let padded = json!({"epsilon": 0.01});
    let expected = "expected-attention";
    let table: [InOurTerms; 10] = [
        ("keydiff", "keydiff", json!({}), 0, 0, EACH),
        ("expected_attention", expected, json!({}), 4, 0, EACH),
        ("expected_attention_mean", expected, mean, 4, 0, EACH),
        ("adakv_expected_attention", expected, padded, 4, 0, POOLED),
        ("criticalkv", "criticalkv", snapkv.clone(), 0, 32, EACH),
        ("critical_adakv", "criticalkv", snapkv, 0, 32, POOLED),
        ("chunkkv", "chunkkv", chunks, 0, 32, EACH),
        ("cur", "cur", json!({}), 4, 0, EACH),
        ("finch", "finch", json!({}), 0, 32, EACH),
        ("lagkv", "lagkv", json!({}), 4, 0, EACH),
    ];
    table.map(in_our_terms).into()
}

/// Leverage, whose scores a Gram matrix of keys makes far more sensitive to rounding than others are.
pub fn leverage() -> Press {
    in_our_terms(("leverage", "leverage", json!({}), 0, 0, EACH))
}

/// Those that SmolLM2 has in fixtures/oracle, where what it says from them stands too.
pub fn presses_of_the_oracle() -> Vec<Press> {
    let snapkv = json!({"pooling": "avg", "kernel": 5});
    let table: [InOurTerms; 6] = [
        ("snapkv", "snapkv", snapkv.clone(), 0, 32, EACH),
        ("adakv", "snapkv", snapkv, 0, 32, POOLED),
        ("streaming", "streaming", json!({}), 4, 0, EACH),
        ("tova", "tova", json!({}), 0, 1, EACH),
        ("knorm", "knorm", json!({}), 0, 0, EACH),
        ("observed", "h2o", json!({"normalise": true}), 0, 0, EACH),
    ];
    table.map(in_our_terms).into()
}

/// What kvpress keeps of one KV head.
#[derive(Deserialize)]
struct Row {
    prompt: String,
    method: String,
    keep: usize,
    layer: usize,
    kv_head: usize,
    gaps: Vec<u32>,
}

/// The KV heads of the two slots of a decision.
#[derive(Deserialize)]
#[serde(untagged)]
enum Heads {
    /// Every head ranks its own tokens.
    One(usize),
    /// The heads of a layer compete: that of the kept slot, and that of the dropped one.
    Pool([usize; 2]),
}

/// KV head and slot.
type Place = (usize, u32);

/// Two slots at the edge of a budget whose scores are so close that rounding may choose between them.
#[derive(Deserialize)]
struct ByRounding {
    prompt: String,
    method: String,
    keep: usize,
    layer: usize,
    kv_head: Heads,
    kept: u32,
    dropped: u32,
    float64: [f64; 2],
}

/// How far the first score is above the second, relative to the larger.
fn gap([first, second]: [f64; 2]) -> f64 {
    (first - second) / first.abs().max(second.abs())
}

/// Whether a layer's slots have the first of two and lack the second.
fn has_only(slots: &[Vec<u32>], one: Place, other: Place) -> bool {
    let has = |(head, slot): Place| slots[head].contains(&slot);
    has(one) && !has(other)
}

/// Puts one slot of a layer in the place of another.
fn exchange(slots: &mut [Vec<u32>], gone: Place, instead: Place) {
    slots[gone.0].retain(|slot| *slot != gone.1);
    slots[instead.0].push(instead.1);
}

impl ByRounding {
    /// What kvpress keeps, and what it drops.
    fn places(&self) -> [Place; 2] {
        let [kept, dropped] = match self.kv_head {
            Heads::One(head) => [head; 2],
            Heads::Pool(heads) => heads,
        };
        [(kept, self.kept), (dropped, self.dropped)]
    }

    /// Makes what both programs keep of a layer comparable; returns whether one of them was given another slot.
    ///
    /// Where float64 reverses kvpress's choice, kvpress is put right, and ours has to be that of float64: no distance is
    /// forgiven. Elsewhere ours is given kvpress's choice if it is the other one, and our own scores must be as far apart as
    /// those in float64, up to what rounding moves them.
    fn settle(
        &self,
        scores: &[Vec<f64>],
        ours: &mut [Vec<u32>],
        theirs: &mut [Vec<u32>],
        what: &str,
    ) -> bool {
        let [kept, dropped] = self.places();
        let name = |(head, slot): Place| format!("slot {slot} of head {head}");
        let place = format!("{what}: {} and {}", name(kept), name(dropped));
        let chosen_so = has_only(theirs, kept, dropped);
        assert!(chosen_so, "{place} are not as kvpress has them");
        let distance = gap([kept, dropped].map(|(head, slot)| scores[head][slot as usize]));
        let exact = gap(self.float64);
        let apart = format!("{distance:.2e} apart, in float64 {exact:.2e}");
        if exact < -TIE {
            eprintln!("{place} are the other way round in float64: {apart}");
            exchange(theirs, kept, dropped);
            return true;
        }
        let is_rounding = (distance - exact).abs() < ROUNDING;
        assert!(is_rounding, "{place} score {apart}");
        let has_other = has_only(ours, dropped, kept);
        if has_other {
            eprintln!("{place} are chosen by rounding: {apart}");
            exchange(ours, dropped, kept);
        }
        has_other
    }
}

/// What kvpress keeps of the prompts of one model.
pub struct Reference {
    rows: Vec<Row>,
    by_rounding: Vec<ByRounding>,
}

fn read<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

impl Reference {
    pub fn open(name: &str) -> Self {
        let rows = read_json_rows(Path::new(&fixture(&format!("{name}.parquet")))).unwrap();
        let text = std::fs::read_to_string(fixture(&format!("{name}.json"))).unwrap();
        Self {
            rows: rows.into_iter().map(|r| read(Value::Object(r))).collect(),
            by_rounding: serde_json::from_str(&text).unwrap(),
        }
    }

    /// `(method, keep)` -> kept slots, `[layer][kv_head]`, empty for layers that the reference leaves out.
    fn kept(&self, prompt: &str, model: &Model) -> BTreeMap<(String, usize), Vec<Slots>> {
        let geometry = Geometry::of_model(model);
        let mut kept: BTreeMap<(String, usize), Vec<Slots>> = BTreeMap::new();
        for row in self.rows.iter().filter(|row| row.prompt == prompt) {
            let none = || vec![vec![vec![]; geometry.kv_heads]; geometry.layers];
            let layers = kept
                .entry((row.method.clone(), row.keep))
                .or_insert_with(none);
            let slots = row.gaps.iter().scan(0u32, |slot, gap| {
                *slot += gap;
                Some(*slot)
            });
            layers[row.layer][row.kv_head] = slots.collect();
        }
        kept
    }

    /// Settles what rounding may choose between our slots and kvpress's; returns how many slots that changed.
    fn settle_rounding(
        &self,
        (prompt, method, keep): (&str, &str, usize),
        scores: &[LayerScores],
        ours: &mut [Slots],
        theirs: &mut [Slots],
    ) -> usize {
        let of_run = self.by_rounding.iter().filter(|decision| {
            decision.prompt == prompt && decision.method == method && decision.keep == keep
        });
        let settled = of_run.filter(|decision| {
            let layer = decision.layer;
            let what = format!("{prompt} {keep} {method}: layer {layer}");
            let rows = scores[layer].to_rows().unwrap();
            decision.settle(&rows, &mut ours[layer], &mut theirs[layer], &what)
        });
        settled.count()
    }

    /// Checks all that the presses keep of a prompt of which the reference has so many layers.
    pub fn check(
        &self,
        model: &Model,
        presses: &[Press],
        prompt: &str,
        ids: &[u32],
        layers: usize,
    ) {
        let mut kvpress = self.kept(prompt, model);
        assert_eq!(kvpress.len(), 2 * presses.len(), "{prompt}");
        let heads = Geometry::of_model(model).kv_heads;
        let scores = scores_of(model, presses, ids, PREFILL_RUN);
        let (mut ties, mut settled, mut slots) = (0, 0, 0);
        for (press, [scores, by]) in presses.iter().zip(&scores) {
            let method = press.method;
            // Equal tokens have equal leverage in the first layer.
            let layers = layers - usize::from(method == "leverage");
            for ((_, keep), theirs) in kvpress.iter_mut().filter(|((m, _), _)| m == method) {
                let what = format!("{prompt} {keep}");
                let total: usize = theirs.iter().flatten().map(Vec::len).sum();
                assert_eq!(total, heads * layers * keep, "{what} {method}");
                let mut kept = press.kept(scores, *keep);
                let run = (prompt, method, *keep);
                let by_rounding = self.settle_rounding(run, scores, &mut kept, theirs);
                let of_press = press.check(by, &kept, theirs, &what);
                eprintln!("{what} {method}: {of_press} of {total} slots at a tie");
                ties += of_press;
                settled += by_rounding;
                slots += total;
            }
        }
        // Ties are rare, as are decisions by rounding: a few of hundreds of thousands of slots.
        assert!(
            (ties + settled) * 10_000 <= slots,
            "{prompt}: of {slots} slots {ties} are ties and {settled} decided by rounding"
        );
    }
}

/// A scorer's scores of every layer, by each of its stages: `[layer][stage][kv_head][token]`.
pub fn stages(scores: &[LayerScores]) -> Vec<Vec<Vec<Vec<f64>>>> {
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
pub fn scores_of(
    model: &Model,
    presses: &[Press],
    ids: &[u32],
    run: usize,
) -> Vec<[Vec<LayerScores>; 2]> {
    let decoder = &model.decoder;
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
    pub fn kept(&self, scores: &[LayerScores], keep: usize) -> Vec<Slots> {
        let heads = |scores: &LayerScores| scores.to_rows().unwrap().len();
        let budgets: Vec<_> = scores.iter().map(|s| vec![keep; heads(s)]).collect();
        let (firsts, sinks, window) = (vec![0; scores.len()], self.sinks, self.window);
        select_layers(scores, &firsts, &budgets, sinks, window, self.split).unwrap()
    }

    /// Slots at a tie between two selections.
    pub fn check(&self, by: &[LayerScores], ours: &[Slots], theirs: &[Slots], what: &str) -> usize {
        let mut ties = 0;
        for (layer, stages) in stages(by).iter().enumerate() {
            let moved = ours[layer].iter().zip(&theirs[layer]);
            if moved
                .clone()
                .any(|(ours, theirs)| ours.len() != theirs.len())
                && !theirs[layer][0].is_empty()
            {
                let what = format!("{what} {}: layer {layer}", self.method);
                ties += check_across_heads(stages, &ours[layer], &theirs[layer], &what);
                continue;
            }
            let heads = theirs[layer].iter().zip(&ours[layer]).enumerate();
            for (head, (theirs, ours)) in heads.filter(|(_, (theirs, _))| !theirs.is_empty()) {
                let what = format!("{what} {}: layer {layer} head {head}", self.method);
                let stages: Vec<&[f64]> = stages.iter().map(|s| &s[head][..]).collect();
                ties += check_stages(&stages, ours, theirs, &what);
            }
        }
        ties
    }
}
