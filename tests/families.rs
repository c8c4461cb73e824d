//! Every family, from Hugging Face folders and GGUF files, against transformers on tiny random models
//! (fixtures/families, made by scripts/make_tiny_models.py).
#![allow(clippy::unwrap_used)]

mod family_models;
mod reference_figures;

use std::collections::BTreeMap;

use candle_core::{DType, Device};
use family_models::FamilyModel;
use kvprof::error::Result;
use kvprof::method::prefill;
use kvprof::model::attention::{AttentionProbe, AttentionView};
use kvprof::model::chat::Message;
use kvprof::model::source::ModelFiles;
use kvprof::model::{Model, ModelCard};
use kvprof::registry;
use kvprof::select::{HeadSplit, SCORERS, select_layers};
use reference_figures::{Figures, check_continuation, check_heads, check_layers, logits, measured};
use serde::Deserialize;
use serde_json::{Value, json};

/// Logits differ from the reference by at most so many times what float32 differs from float64 in the reference.
const ROUNDINGS: f64 = 4.0;

#[derive(Deserialize)]
struct Golden {
    spans: Vec<Option<usize>>,
    float64_difference: BTreeMap<String, f64>,
    tokenizer: Texts,
    prompts: Vec<Figures>,
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

/// What kvpress's SnapKV keeps.
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

/// A card is read without what encodes; it must not say anything else of the tokens.
#[test]
fn cards_tell_what_tokenizers_do() {
    each(|family, model, _| {
        let card = ModelCard::read(&model.files).unwrap();
        let tokenizer = &model.tokenizer;
        assert_eq!(card.tokens.tokens, tokenizer.vocab_size(), "{family:?}");
        let stops: Vec<u32> = card.tokens.stops.iter().map(|(id, _)| *id).collect();
        assert_eq!(stops, tokenizer.stop_ids(), "{family:?}");
        let begins = tokenizer.bos_id().filter(|_| tokenizer.adds_bos());
        assert_eq!(
            card.tokens.bos.as_ref().map(|(id, _)| *id),
            begins,
            "{family:?}"
        );
        for (id, text) in card.tokens.stops.iter().chain(&card.tokens.bos) {
            assert_eq!(tokenizer.token(*id), Some(text.as_str()), "{family:?}");
        }
        assert_eq!(card.has_chat_template, model.chat.is_some(), "{family:?}");
        assert_eq!(card.config.windows(), model.decoder.config().windows());
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

fn farthest<'a>(pairs: impl Iterator<Item = (f64, &'a f64)>) -> f64 {
    pairs
        .map(|(got, want)| (got - want).abs())
        .fold(0.0, f64::max)
}

#[test]
fn logits_rows_measures_and_continuations_equal_the_reference() {
    each(|family, model, golden| {
        for prompt in &golden.prompts {
            let what = format!("{} as {}, {}", family.name, format(family), prompt.name);
            let mut rows = Rows::default();
            let steps = prompt.greedy.len();
            let (layers, mut full) = measured(model, prompt, steps, Vec::new(), &mut rows);
            let logits = logits(&full);
            let off = farthest(logits.iter().copied().zip(&prompt.of::<Vec<f64>>("logits")));
            let bound = ROUNDINGS * golden.float64_difference["logits"];
            eprintln!("{what}: logits {off:.1e} of {bound:.1e}");
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
            // Every margin of these references is wider than float32 is exact: nothing may move.
            check_heads(&what, &layers, prompt, 0.0);
            check_layers(&what, &layers, prompt, 0.0);
            check_continuation(&what, model, prompt, &mut full);
        }
    });
}

fn format(family: &FamilyModel) -> &'static str {
    if family.is_gguf() { "GGUF" } else { "folder" }
}

fn check_rows(what: &str, rows: &Rows, prompt: &Figures, bound: f64) {
    let all_last: Vec<Vec<Vec<f64>>> = prompt.of("attention_last");
    let all_pooled: Vec<Vec<Vec<f64>>> = prompt.of("attention_pooled");
    for (l, layer) in rows.0.iter().enumerate() {
        for (h, head) in layer.iter().enumerate() {
            let last = head.last().unwrap().iter().map(|p| f64::from(*p));
            let off = farthest(last.zip(&all_last[l][h]));
            assert!(
                off <= bound,
                "{what}: last row of layer {l}, head {h}: {off}"
            );
            let window = &head[head.len() - 32..];
            let mean =
                |key: usize| window.iter().map(|row| f64::from(row[key])).sum::<f64>() / 32.0;
            let pooled = (0..head.len()).map(mean);
            let off = farthest(pooled.zip(&all_pooled[l][h]));
            assert!(
                off <= bound,
                "{what}: pooled rows of layer {l}, head {h}: {off}"
            );
            // What a row does not see has no weight at all.
            let unseen = head.last().unwrap().iter().zip(&all_last[l][h]);
            assert!(
                unseen
                    .into_iter()
                    .all(|(got, want)| *want != 0.0 || *got == 0.0),
                "{what}"
            );
        }
    }
}

#[test]
fn snapkv_keeps_what_kvpress_keeps() {
    let mut compared = 0;
    let counted = std::cell::RefCell::new(&mut compared);
    each(|family, model, golden| {
        for prompt in &golden.prompts {
            if !prompt.others.contains_key("snapkv") {
                continue;
            }
            let want: SnapKv = prompt.of("snapkv");
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

/// Keys are held after rotation: what a short prompt began cannot go on with the frequencies of a long text.
#[test]
fn a_text_that_began_short_ends_where_longer_ones_are_rotated_otherwise() {
    each(|family, model, golden| {
        let Some(prompt) = golden.prompts.iter().find(|p| p.name == "tokens48") else {
            return;
        };
        let decoder = &model.decoder;
        assert_eq!(decoder.config().context_of(48), 64, "{family:?}");
        assert_eq!(decoder.config().context_of(65), 256, "{family:?}");
        let mut probe = kvprof::model::attention::NoProbe;
        let mut full = prefill(decoder, &prompt.ids, 20, Vec::new(), &mut probe).unwrap();
        for id in 0..16 {
            decoder.decode(id, &mut full.cache).unwrap();
        }
        let error = decoder.decode(16, &mut full.cache).unwrap_err();
        assert!(error.to_string().contains("64"), "{family:?}: {error}");
        // A cut cache remembers how its text began.
        let cut = full.cache.cut(&full.cache.slots(), 4).unwrap();
        assert_eq!(cut.begun_for(), 48);
    });
}

/// A copy of a model's folder whose `config.json` is changed, as the files of a model.
fn changed(
    name: &str,
    change: impl Fn(&mut serde_json::Map<String, Value>),
) -> (tempfile::TempDir, ModelFiles) {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(family_models::folder().join(name)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    let path = folder.path().join("config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    change(config.as_object_mut().unwrap());
    std::fs::write(&path, config.to_string()).unwrap();
    let files = ModelFiles {
        name: name.to_owned(),
        weights: folder.path().to_owned(),
        tokenizer_json: None,
        origin: String::new(),
        sha256: String::new(),
        in_use: Default::default(),
    };
    (folder, files)
}

/// Newer versions of transformers keep everything of the rotary embedding in one object.
#[test]
fn both_spellings_of_a_rotary_embedding_are_read() {
    for name in ["phi3_partial", "llama3", "llama_yarn", "llama_linear"] {
        let (_older, older) = changed(name, |_| ());
        let (_newer, newer) = changed(name, |fields| {
            let mut own = fields.remove("rope_scaling").unwrap();
            for key in ["rope_theta", "partial_rotary_factor"] {
                if let Some(value) = fields.remove(key) {
                    own[key] = value;
                }
            }
            fields.insert("rope_parameters".into(), own);
        });
        let [older, newer] = [older, newer].map(|files| ModelCard::read(&files).unwrap().config);
        assert_eq!(newer.ropes, older.ropes, "{name}");
    }
}

#[test]
fn biases_that_are_declared_must_be_there() {
    let (_folder, files) = changed("llama", |fields| {
        fields.insert("attention_bias".into(), true.into());
    });
    let error = Model::load(files, &Device::Cpu, DType::F32).err().unwrap();
    assert!(error.to_string().contains("q_proj.bias"), "{error}");
}
