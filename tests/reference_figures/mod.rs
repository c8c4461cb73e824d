//! Figures that an independent PyTorch reference gives for a prompt, and how ours are held to them.

use std::collections::BTreeMap;

use kvprof::eval::most_likely;
use kvprof::method::{Prefilled, prefill};
use kvprof::model::Model;
use kvprof::model::attention::{AttentionProbe, Tee};
use kvprof::profile::{LayerMeasures, MeasureOptions, Profiler, PromptLabel, prompt_tables};
use kvprof::select::Scorer;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Everything that a reference says of a prompt, by name.
#[derive(Deserialize)]
pub struct Figures {
    /// What the prompt is called.
    pub name: String,
    /// Its tokens.
    pub ids: Vec<u32>,
    /// What the full cache says next.
    pub greedy: Vec<u32>,
    /// All others.
    #[serde(flatten)]
    pub others: BTreeMap<String, Value>,
}

impl Figures {
    /// Figures of a name.
    pub fn of<T: DeserializeOwned>(&self, name: &str) -> T {
        let value = self.others.get(name).unwrap_or_else(|| panic!("{name}"));
        serde_json::from_value(value.clone()).unwrap_or_else(|e| panic!("{name}: {e}"))
    }
}

/// Prefills a prompt with room for `room` tokens: the measures of every layer, and what the prefill left, while another
/// probe watches.
pub fn measured(
    model: &Model,
    figures: &Figures,
    room: usize,
    scorers: Vec<(&dyn Scorer, usize)>,
    probe: &mut dyn AttentionProbe,
) -> (Vec<LayerMeasures>, Prefilled) {
    let options = MeasureOptions::default();
    let mut ignore = |_| ();
    let mut profiler = Profiler::new(&options, &mut ignore);
    let mut both = Tee(&mut profiler, probe);
    let prefilled = prefill(&model.decoder, &figures.ids, room, scorers, &mut both).unwrap();
    (profiler.finish(), prefilled)
}

/// Float32 logits of the prompt's last token.
pub fn logits(prefilled: &Prefilled) -> Vec<f64> {
    let logits = prefilled.logits.to_vec1::<f32>().unwrap();
    logits.into_iter().map(f64::from).collect()
}

/// Holds what the full cache says next to the reference.
pub fn check_continuation(what: &str, model: &Model, figures: &Figures, full: &mut Prefilled) {
    let mut logits = full.logits.to_vec1::<f32>().unwrap();
    let mut said = Vec::new();
    for _ in 0..figures.greedy.len() {
        let id = most_likely(&logits);
        said.push(id);
        let next = model.decoder.decode(id, &mut full.cache).unwrap();
        logits = next.to_vec1().unwrap();
    }
    assert_eq!(said, figures.greedy, "{what}");
}

/// Decisions that were compared, and those that another order of float32 sums has moved.
#[derive(Debug, Default)]
pub struct Compared {
    /// All.
    pub all: usize,
    /// Those that differ, each by a key and closer to flipping than the margin that was allowed.
    pub moved: usize,
}

impl Compared {
    /// Takes one decision.
    fn decide(&mut self, what: &str, [got, want]: [f64; 2], own_margin: f64, allowed: f64) {
        self.all += 1;
        if got != want {
            let close = (got - want).abs() <= 1.0 && own_margin < allowed;
            assert!(close, "{what}: {got}, not {want} (margin {own_margin:.1e})");
            self.moved += 1;
        }
    }
}

/// Holds MBA of every head and KV head to the reference: equal, but where a decision is closer to flipping than
/// `margin` and differs by one key.
pub fn check_heads(
    what: &str,
    layers: &[LayerMeasures],
    figures: &Figures,
    margin: f64,
) -> Compared {
    let mut compared = Compared::default();
    let two = |name: &str| -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
        (figures.of(name), figures.of(&format!("{name}_margin")))
    };
    let options = MeasureOptions::default();
    for (place, threshold) in options.thresholds.iter().enumerate() {
        let percent = (threshold * 100.0).round();
        let last = two(&format!("mba_last_{percent}"));
        let pooled = two(&format!("mba_pooled_{percent}"));
        let of_kv_heads = two(&format!("mba_kv_pooled_{percent}"));
        let mut decide = |got: f64, want: &(Vec<Vec<f64>>, Vec<Vec<f64>>), l: usize, h: usize| {
            let what = format!("{what}: MBA {percent} of layer {l}, head {h}");
            compared.decide(&what, [got, want.0[l][h]], want.1[l][h], margin);
        };
        for (l, layer) in layers.iter().enumerate() {
            for (h, head) in layer.heads.iter().enumerate() {
                decide(f64::from(head.budgets.last[place]), &last, l, h);
                decide(f64::from(head.budgets.pooled[place]), &pooled, l, h);
            }
            for (h, head) in layer.kv_heads.iter().enumerate() {
                decide(f64::from(head.pooled[place]), &of_kv_heads, l, h);
            }
        }
    }
    let (rows, margins) = two("mba_rows_90");
    let place = options.thresholds.iter().position(|t| *t == 0.9).unwrap();
    for (l, layer) in layers.iter().enumerate() {
        for (h, head) in layer.heads.iter().enumerate() {
            // Means over 32 rows, compared as their sums: a row or two may move.
            let [got, want] = [head.budgets.rows[place], rows[l][h]].map(|mean| mean * 32.0);
            let what = format!("{what}: rows of layer {l}, head {h}");
            if margin > 0.0 && (got - want).abs() <= 3.0 {
                compared.decide(
                    &what,
                    [got.min(want + 1.0).max(want - 1.0), want],
                    margins[l][h],
                    margin,
                );
            } else {
                compared.decide(&what, [got, want], margins[l][h], margin);
            }
        }
    }
    compared
}

/// Holds LMBO and output norms to the reference, as [`check_heads`] does.
pub fn check_layers(
    what: &str,
    layers: &[LayerMeasures],
    figures: &Figures,
    margin: f64,
) -> Compared {
    let mut compared = Compared::default();
    let label = PromptLabel {
        index: 0,
        id: "p".into(),
        tokens: figures.ids.len(),
    };
    let [_, _, table, _] = prompt_tables(&label, layers, &MeasureOptions::default());
    for query in ["last", "pooled"] {
        for threshold in ["90", "99"] {
            let margins: Vec<f64> = figures.of(&format!("lmbo_{query}_{threshold}_margin"));
            for kind in ["first", "stable"] {
                let name = format!("lmbo_{query}_{threshold}_{kind}");
                let (got, want) = (table.numbers(&name).unwrap(), figures.of::<Vec<f64>>(&name));
                for (l, (got, want)) in got.into_iter().zip(want).enumerate() {
                    let what = format!("{what}: {name} of layer {l}");
                    compared.decide(&what, [got, want], margins[l], margin);
                }
            }
        }
        let name = format!("output_norm_{query}");
        let want: Vec<f64> = figures.of(&name);
        let got = table.numbers(&name).unwrap();
        for (got, want) in got.iter().zip(&want) {
            assert!(
                (got / want - 1.0).abs() < 1e-5,
                "{what}: {name}: {got} {want}"
            );
        }
    }
    compared
}
