//! Real weights of other families against PyTorch references (fixtures/oracle_*, made by scripts/reference_real.py).
//!
//! Qwen2.5-Coder-0.5B is downloaded into the cache on first use. Gemma 3 has terms of use, which who runs its test must
//! have accepted: `KVPROF_ACCEPT_TERMS=gemma cargo test --release --test real_references -- --ignored`.
#![allow(clippy::unwrap_used)]

mod reference_figures;

use candle_core::{DType, Device};
use kvprof::model::attention::NoProbe;
use kvprof::model::chat::Message;
use kvprof::model::{Model, source};
use kvprof::registry;
use kvprof::select::{HeadSplit, LayerScores, SCORERS, Slots, select};
use reference_figures::{Figures, check_continuation, check_heads, check_layers, logits, measured};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Float32 re-ordering moves the references' own logits by about 2e-5.
const LOGIT_TOLERANCE: f64 = 1e-3;
/// A decision closer than this to flipping may flip in float32.
const MARGIN: f64 = 1e-5;
/// The same of scores between which a selection decides.
const SCORE_MARGIN: f64 = 1e-6;

const PROMPTS: [&str; 3] = ["synth512", "wiki1024", "wiki2048"];

fn load(name: &str) -> Model {
    let cache = source::CacheFolder::from_env().unwrap();
    let files = source::resolve(name, &cache, &mut |text| eprintln!("{text}")).unwrap();
    Model::load(files, &Device::Cpu, DType::F32).unwrap()
}

fn fixture<T: DeserializeOwned>(model: &str, name: &str) -> T {
    let folder = format!("{}/tests/fixtures", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(format!("{folder}/oracle_{model}/{name}.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn check_model(name: &str) {
    let model = load(name);
    check_texts(name, &model);
    for prompt in PROMPTS {
        let figures: Figures = fixture(name, prompt);
        assert_eq!(figures.name, prompt);
        let what = format!("{name}, {prompt}");
        let steps = figures.greedy.len();
        let kept: Kept = figures.of("snapkv");
        let parameters = json!({"pooling": "avg", "kernel": kept.kernel});
        let scorer = registry::build("scorer", SCORERS, "snapkv", parameters).unwrap();
        let scorers = vec![(&*scorer, kept.window)];
        let (layers, mut full) = measured(&model, &figures, steps, scorers, &mut NoProbe);
        let logits = logits(&full);
        let top: Vec<usize> = figures.of("top10_ids");
        let want: Vec<f64> = figures.of("top10_logits");
        let off = top
            .iter()
            .zip(&want)
            .map(|(id, want)| (logits[*id] - want).abs());
        let off = off.fold(0.0, f64::max);
        assert!(off < LOGIT_TOLERANCE, "{what}: logits are off by {off}");
        let heads = check_heads(&what, &layers, &figures, MARGIN);
        let outputs = check_layers(&what, &layers, &figures, MARGIN);
        eprintln!("{what}: logits {off:.1e}, MBA {heads:?}, LMBO {outputs:?}");
        for method in ["snapkv", "adakv"] {
            check_kept(&what, &full.scores[0], method, &figures.of(method));
        }
        check_continuation(&what, &model, &figures, &mut full);
    }
}

fn check_texts(name: &str, model: &Model) {
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
    let texts: Texts = fixture(name, "tokenizer");
    assert!(texts.strings.len() >= 24);
    for Text { text, ids } in texts.strings {
        assert_eq!(
            model.tokenizer.encode(&text).unwrap(),
            ids,
            "{name}: {text:?}"
        );
    }
    let Some(chat) = texts.chat else {
        assert!(model.chat.is_none(), "{name}");
        return;
    };
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let messages = chat["messages"].as_array().unwrap().iter();
    let messages = messages.map(|m| Message::new(text(&m["role"]), text(&m["content"])));
    let messages: Vec<_> = messages.collect();
    let rendered = model
        .chat
        .as_ref()
        .unwrap()
        .render(&messages, true)
        .unwrap();
    assert_eq!(rendered, text(&chat["rendered"]));
    let ids: Vec<u32> = serde_json::from_value(chat["ids"].clone()).unwrap();
    assert_eq!(model.tokenizer.encode(&rendered).unwrap(), ids);
}

/// What kvpress's SnapKV and Ada-KV keep; null in layers that they leave alone.
#[derive(Deserialize)]
struct Kept {
    window: usize,
    kernel: usize,
    keep: usize,
    safeguard: Option<f64>,
    kept: Vec<Option<Slots>>,
    margin: Vec<Option<Vec<f64>>>,
}

fn check_kept(what: &str, scores: &[LayerScores], method: &str, want: &Kept) {
    let split = match want.safeguard {
        None => HeadSplit::PerHead,
        Some(safeguard) => HeadSplit::Pooled { safeguard },
    };
    let (mut tokens, mut swapped) = (0, 0);
    for (l, want_kept) in want.kept.iter().enumerate() {
        let Some(want_kept) = want_kept else {
            continue;
        };
        let budgets = vec![want.keep; want_kept.len()];
        let kept = select(&scores[l], &budgets, 0, want.window, split).unwrap();
        let margins = want.margin[l].iter().flatten().copied();
        let least = margins.fold(f64::MAX, f64::min);
        for (h, (kept, want_kept)) in kept.iter().zip(want_kept).enumerate() {
            tokens += want_kept.len();
            let others = kept.iter().filter(|slot| !want_kept.contains(slot)).count();
            let place = format!("{what}: {method} in layer {l}, KV head {h}");
            assert!(
                others == 0 || (others == 1 && least < SCORE_MARGIN),
                "{place}: {others} other tokens (margin {least:.1e})"
            );
            swapped += others;
        }
    }
    eprintln!("{what}: {method} keeps {tokens} tokens, {swapped} of them others");
}

#[test]
fn qwen_equals_its_reference() {
    check_model("qwen2.5-coder-0.5b");
}

#[test]
#[ignore = "downloads 254 MB under the Gemma Terms of Use"]
fn gemma_equals_its_reference() {
    check_model("gemma3-270m");
}
