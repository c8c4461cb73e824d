//! Every family, from Hugging Face folders and GGUF files, against transformers on tiny random models
//! (fixtures/families, made by scripts/make_tiny_models.py).
#![allow(clippy::unwrap_used)]

mod family_models;

use std::collections::BTreeMap;

use candle_core::DType;
use family_models::FamilyModel;
use kvprof::error::Result;
use kvprof::eval::most_likely;
use kvprof::method::prefill;
use kvprof::model::Model;
use kvprof::model::attention::{AttentionProbe, AttentionView, Tee};
use kvprof::model::chat::Message;
use kvprof::profile::{LayerMeasures, MeasureOptions, Profiler, PromptLabel, prompt_tables};
use kvprof::registry;
use kvprof::select::{HeadSplit, SCORERS, select_layers};
use serde::Deserialize;
use serde_json::{Value, json};

/// Logits differ from the reference by at most so many times what float32 differs from float64 in the reference.
const ROUNDINGS: f64 = 4.0;

#[derive(Deserialize)]
struct Golden {
    spans: Vec<Option<usize>>,
    float64_difference: BTreeMap<String, f64>,
    tokenizer: Texts,
    prompts: Vec<Prompt>,
}

#[derive(Deserialize)]
struct Texts {
    strings: Vec<Text>,
    chat: Option<Value>,
}

#[derive(Deserialize)]
struct Text {
    text: String,
    ids: Vec<u32>,
}

#[derive(Deserialize)]
struct Prompt {
    name: String,
    ids: Vec<u32>,
    logits: Vec<f64>,
    attention_last: Vec<Vec<Vec<f64>>>,
    attention_pooled: Vec<Vec<Vec<f64>>>,
    mba_rows_90: Vec<Vec<f64>>,
    greedy: Vec<u32>,
    snapkv: Option<SnapKv>,
    /// Measures by the names of their columns.
    #[serde(flatten)]
    measures: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct SnapKv {
    window: usize,
    kernel: usize,
    keep: usize,
    kept: Vec<Vec<Vec<u32>>>,
}

/// All models with their references.
fn each(check: impl Fn(&FamilyModel, &Model, &Golden)) {
    let all = family_models::all();
    assert!(all.len() >= 22, "{}", all.len());
    for family in all {
        let path = family_models::folder()
            .join(&family.name)
            .join("golden.json");
        let golden = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        check(&family, &family.load(DType::F32), &golden);
    }
}

#[test]
fn layers_see_what_they_should() {
    each(|family, model, golden| {
        let mut windows = model.decoder.config().windows();
        windows.resize(golden.spans.len(), None);
        assert_eq!(windows, golden.spans, "{family:?}");
    });
}

#[test]
fn texts_and_chats_become_the_same_ids() {
    each(|family, model, golden| {
        let tokenizer = &model.tokenizer;
        for Text { text, ids } in &golden.tokenizer.strings {
            let got = tokenizer.encode_with_bos(text).unwrap();
            assert_eq!(&got, ids, "{family:?}: {text:?}");
        }
        let Some(chat) = &golden.tokenizer.chat else {
            return;
        };
        let messages = chat["messages"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let messages = messages.map(|m| Message::new(text(&m["role"]), text(&m["content"])));
        let messages: Vec<_> = messages.collect();
        let template = model
            .chat
            .as_ref()
            .unwrap_or_else(|| panic!("{family:?}: no template"));
        let rendered = template.render(&messages, true).unwrap();
        assert_eq!(rendered, chat["rendered"].as_str().unwrap(), "{family:?}");
        let ids: Vec<u32> = serde_json::from_value(chat["ids"].clone()).unwrap();
        // As transformers does, which leaves the beginning of a chat to its template.
        assert_eq!(tokenizer.encode(&rendered).unwrap(), ids, "{family:?}");
    });
}

/// Rows of the whole prompt, `[layer][head][row][key]`.
#[derive(Default)]
struct Rows(Vec<Vec<Vec<Vec<f32>>>>);

impl AttentionProbe for Rows {
    fn observe(&mut self, view: &AttentionView<'_>) -> Result<()> {
        self.0
            .push(view.probabilities(view.rows.clone())?.to_vec3()?);
        Ok(())
    }
}

fn measured(model: &Model, ids: &[u32]) -> (Vec<LayerMeasures>, Rows, Vec<f64>) {
    let options = MeasureOptions::default();
    let mut ignore = |_| ();
    let mut profiler = Profiler::new(&options, &mut ignore);
    let mut rows = Rows::default();
    let mut both = Tee(&mut profiler, &mut rows);
    let prefilled = prefill(&model.decoder, ids, 0, Vec::new(), &mut both).unwrap();
    let logits = prefilled.logits.to_vec1::<f32>().unwrap();
    (
        profiler.finish(),
        rows,
        logits.into_iter().map(f64::from).collect(),
    )
}

fn farthest<'a>(pairs: impl Iterator<Item = (f64, &'a f64)>) -> f64 {
    pairs
        .map(|(got, want)| (got - want).abs())
        .fold(0.0, f64::max)
}

#[test]
fn logits_rows_and_measures_equal_the_reference() {
    each(|family, model, golden| {
        for prompt in &golden.prompts {
            let what = format!("{} as {}, {}", family.name, format(family), prompt.name);
            let (layers, rows, logits) = measured(model, &prompt.ids);
            let off = farthest(logits.iter().copied().zip(&prompt.logits));
            let bound = ROUNDINGS * golden.float64_difference["logits"];
            println!("{what}: logits {off:.1e} of {bound:.1e}");
            assert!(
                off <= bound,
                "{what}: logits are off by {off}, more than {bound}"
            );
            check_rows(
                &what,
                &rows,
                prompt,
                ROUNDINGS * golden.float64_difference["attention"],
            );
            check_heads(&what, &layers, prompt);
            check_layers(&what, &layers, prompt);
        }
    });
}

fn format(family: &FamilyModel) -> &'static str {
    if family.is_gguf() { "GGUF" } else { "folder" }
}

fn check_rows(what: &str, rows: &Rows, prompt: &Prompt, bound: f64) {
    for (l, layer) in rows.0.iter().enumerate() {
        for (h, head) in layer.iter().enumerate() {
            let last = head.last().unwrap().iter().map(|p| f64::from(*p));
            let off = farthest(last.zip(&prompt.attention_last[l][h]));
            assert!(
                off <= bound,
                "{what}: last row of layer {l}, head {h}: {off}"
            );
            let window = &head[head.len() - 32..];
            let mean =
                |key: usize| window.iter().map(|row| f64::from(row[key])).sum::<f64>() / 32.0;
            let pooled = (0..head.len()).map(mean);
            let off = farthest(pooled.zip(&prompt.attention_pooled[l][h]));
            assert!(
                off <= bound,
                "{what}: pooled rows of layer {l}, head {h}: {off}"
            );
            // What a row does not see has no weight at all.
            let unseen = head
                .last()
                .unwrap()
                .iter()
                .zip(&prompt.attention_last[l][h]);
            assert!(
                unseen
                    .into_iter()
                    .all(|(got, want)| *want != 0.0 || *got == 0.0),
                "{what}"
            );
        }
    }
}

/// Every margin of the references is wider than float32 is exact, so that all budgets must be equal.
fn check_heads(what: &str, layers: &[LayerMeasures], prompt: &Prompt) {
    let options = MeasureOptions::default();
    let want = |name: String| -> Vec<Vec<u32>> {
        serde_json::from_value(prompt.measures[&name].clone()).unwrap()
    };
    for (place, threshold) in options.thresholds.iter().enumerate() {
        let percent = (threshold * 100.0).round();
        let last = want(format!("mba_last_{percent}"));
        let pooled = want(format!("mba_pooled_{percent}"));
        let of_kv_heads = want(format!("mba_kv_pooled_{percent}"));
        for (l, layer) in layers.iter().enumerate() {
            for (h, head) in layer.heads.iter().enumerate() {
                let budgets = (head.budgets.last[place], head.budgets.pooled[place]);
                assert_eq!(
                    budgets,
                    (last[l][h], pooled[l][h]),
                    "{what}: layer {l}, head {h}"
                );
                if percent == 90.0 {
                    let rows = (head.budgets.rows[place], prompt.mba_rows_90[l][h]);
                    assert_eq!(rows.0, rows.1, "{what}: rows of layer {l}, head {h}");
                }
            }
            for (h, head) in layer.kv_heads.iter().enumerate() {
                assert_eq!(
                    head.pooled[place], of_kv_heads[l][h],
                    "{what}: layer {l}, KV head {h}"
                );
            }
        }
    }
}

fn check_layers(what: &str, layers: &[LayerMeasures], prompt: &Prompt) {
    let label = PromptLabel {
        index: 0,
        id: "p".into(),
        tokens: prompt.ids.len(),
    };
    let [_, _, table, _] = prompt_tables(&label, layers, &MeasureOptions::default());
    for query in ["last", "pooled"] {
        for kind in ["90_first", "90_stable", "99_first", "99_stable"] {
            let name = format!("lmbo_{query}_{kind}");
            let want: Vec<f64> = serde_json::from_value(prompt.measures[&name].clone()).unwrap();
            assert_eq!(table.numbers(&name).unwrap(), want, "{what}: {name}");
        }
        let name = format!("output_norm_{query}");
        let want: Vec<f64> = serde_json::from_value(prompt.measures[&name].clone()).unwrap();
        let got = table.numbers(&name).unwrap();
        for (got, want) in got.iter().zip(&want) {
            assert!(
                (got / want - 1.0).abs() < 1e-5,
                "{what}: {name}: {got} {want}"
            );
        }
    }
}

#[test]
fn greedy_texts_equal_the_reference() {
    each(|family, model, golden| {
        for prompt in &golden.prompts {
            let decoder = &model.decoder;
            let steps = prompt.greedy.len();
            let mut probe = kvprof::model::attention::NoProbe;
            let mut prefilled =
                prefill(decoder, &prompt.ids, steps, Vec::new(), &mut probe).unwrap();
            let mut logits = prefilled.logits.to_vec1::<f32>().unwrap();
            let mut said = Vec::new();
            for _ in 0..steps {
                let id = most_likely(&logits);
                said.push(id);
                logits = decoder
                    .decode(id, &mut prefilled.cache)
                    .unwrap()
                    .to_vec1()
                    .unwrap();
            }
            assert_eq!(said, prompt.greedy, "{family:?}, {}", prompt.name);
        }
    });
}

#[test]
fn snapkv_keeps_what_kvpress_keeps() {
    let mut compared = 0;
    let counted = std::cell::RefCell::new(&mut compared);
    each(|family, model, golden| {
        for prompt in &golden.prompts {
            let Some(want) = &prompt.snapkv else {
                continue;
            };
            let parameters = json!({"pooling": "avg", "kernel": want.kernel});
            let scorer = registry::build("scorer", SCORERS, "snapkv", parameters).unwrap();
            let scorers = vec![(&*scorer, want.window)];
            let mut probe = kvprof::model::attention::NoProbe;
            let full = prefill(&model.decoder, &prompt.ids, 0, scorers, &mut probe).unwrap();
            let budgets: Vec<Vec<usize>> = full.cache.lengths();
            let budgets: Vec<Vec<usize>> = budgets
                .iter()
                .map(|layer| vec![want.keep; layer.len()])
                .collect();
            let firsts = full.cache.firsts_in_sight();
            let split = HeadSplit::PerHead;
            let kept =
                select_layers(&full.scores[0], &firsts, &budgets, 0, want.window, split).unwrap();
            assert_eq!(kept, want.kept, "{family:?}, {}", prompt.name);
            **counted.borrow_mut() += 1;
        }
    });
    assert!(compared >= 18, "{compared}");
}
