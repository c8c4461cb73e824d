//! What every scorer keeps, against the presses of kvpress 0.5.5 (fixtures/kvpress_scorers*).
#![allow(clippy::unwrap_used)]

mod kvpress_presses;
mod real_model;
mod ties;

use kvpress_presses::{
    Press, Reference, leverage, presses, presses_of_the_oracle, scorer, scores_of, stages,
};
use kvprof::method::prefill;
use kvprof::model::attention::NoProbe;
use kvprof::select::SCORERS;
use real_model::{ids_of, load, model, prompt_ids};
use serde_json::json;

fn check_prompt(prompt: &str, presses: &[Press], layers: usize) {
    let reference = Reference::open("kvpress_scorers");
    reference.check(model(), presses, prompt, &prompt_ids(prompt), layers);
}

fn with_leverage() -> Vec<Press> {
    presses().into_iter().chain([leverage()]).collect()
}

#[test]
fn kept_tokens_of_512_tokens_equal_kvpress() {
    check_prompt("synth512", &with_leverage(), 30);
}

#[test]
fn kept_tokens_of_1024_tokens_equal_kvpress() {
    check_prompt("synth1024", &with_leverage(), 30);
}

#[test]
fn kept_tokens_of_2048_tokens_equal_kvpress() {
    check_prompt("synth2048", &presses(), 10);
}

#[test]
fn kept_tokens_of_4096_tokens_equal_kvpress() {
    check_prompt("synth4096", &presses(), 10);
}

/// Another family, with biases of queries and keys, and seven query heads of a KV head.
#[test]
fn kept_tokens_of_qwen_equal_kvpress() {
    let reference = Reference::open("kvpress_scorers_qwen2.5-coder-0.5b");
    let model = load("qwen2.5-coder-0.5b");
    let presses = with_leverage().into_iter().chain(presses_of_the_oracle());
    let presses: Vec<_> = presses.collect();
    for (prompt, tokens) in [("wiki2048", 512), ("wiki1024", 1024)] {
        let ids = ids_of("oracle_qwen2.5-coder-0.5b", prompt);
        let name = format!("{prompt}:{tokens}");
        reference.check(&model, &presses, &name, &ids[..tokens], 8);
    }
}

/// Scorers do not disturb each other, and runs of any length, windows across two of them too, give the same scores.
#[test]
fn one_prefill_scores_for_every_press() {
    let ids = prompt_ids("synth512");
    let presses = presses();
    let together = scores_of(model(), &presses, &ids, 100);
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
