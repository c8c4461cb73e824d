//! More of caches that live: ragged heads with unequal bounds, what the prompt has paid, and whole sweeps.
//!
//! Meant for tests/living_caches.rs (the first three helpers stand there already) or a file of its own beside it.
#![allow(clippy::unwrap_used)]

mod real_model;
mod slow_h2o;
mod tiny_model;

use std::collections::BTreeMap;

use candle_core::Device;
use kvprof::budget::{
    Budget, BudgetPlan, Floor, Geometry, Granularity, Provenance, Request, Targets,
};
use kvprof::error::Result;
use kvprof::eval::{Case, Outcome, QuerySource, Sweep};
use kvprof::method::residency::FirstCache;
use kvprof::method::{LiveCache, Method, RESIDENCIES, observe, prefill};
use kvprof::model::attention::NoProbe;
use kvprof::model::cache::KvCache;
use kvprof::model::config::ModelConfig;
use kvprof::model::decoder::Decoder;
use kvprof::model::gguf::Gguf;
use kvprof::model::precision::Precision;
use kvprof::registry;
use kvprof::select::{H2o, LayerScores, Scorer, Slots};
use real_model::{model, prompt_ids};
use serde_json::json;
use slow_h2o::{Received, SlowH2o};
use tiny_model::{HEAD_DIM, LAYERS, tiny_model};

const FLOOR: Floor = Floor {
    whole_windows: false,
    tokens: 5,
    sinks: 2,
    window: 3,
};

/// T; the tiny model's context is 64.
const T: usize = 24;

fn decoder(heads: usize, kv_heads: usize) -> Decoder {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    std::fs::write(&path, tiny_model(heads, kv_heads, |_, t| t)).unwrap();
    let mut gguf = Gguf::open(&path).unwrap();
    let config = ModelConfig::from_gguf(&mut gguf).unwrap();
    Decoder::load(&mut gguf, config, &Device::Cpu, Precision::FLOAT32).unwrap()
}

fn prompt() -> Vec<u32> {
    (0..T).map(|i| ((i * 7 + i * i) % 12) as u32).collect()
}

fn positions(cache: &KvCache) -> Vec<Vec<Vec<u32>>> {
    let head = |positions: &[u32]| {
        let mut sorted = positions.to_vec();
        sorted.sort_unstable();
        sorted
    };
    let layer = |l| cache.layer(l).heads.iter().map(|h| head(h.positions()));
    (0..cache.num_layers())
        .map(|l| layer(l).collect())
        .collect()
}

/// Slots that differ in number and place by layer and head; the first two and the last three are among them.
fn ragged(kv_heads: usize) -> Vec<Slots> {
    let head = |l: usize, h: usize| {
        let stays = move |s: &usize| *s < 2 || *s + 3 >= T || !(s + l).is_multiple_of(h + 2);
        (0..T).filter(stays).map(|s| s as u32).collect()
    };
    (0..LAYERS)
        .map(|l| (0..kv_heads).map(|h| head(l, h)).collect())
        .collect()
}

#[test]
fn h2o_counts_what_the_prompt_paid_in_heads_of_any_length_and_no_step_exceeds_a_bound() {
    for (heads, kv_heads, every) in [(4, 2, 1), (4, 2, 4), (3, 3, 3), (2, 1, 5)] {
        let (decoder, ids, kept) = (decoder(heads, kv_heads), prompt(), ragged(kv_heads));
        let mut paid = Received(vec![vec![BTreeMap::new(); kv_heads]; LAYERS]);
        let scorer = H2o::SUM;
        let prefilled = prefill(
            &decoder,
            &ids,
            0,
            vec![(&scorer as &dyn Scorer, 3)],
            &mut paid,
        )
        .unwrap();
        let scores = prefilled.scores[0].iter().map(LayerScores::to_rows);
        let first = FirstCache {
            prompt_scores: scores.collect::<Result<_>>().unwrap(),
            ..FirstCache::new(&kept, T, FLOOR)
        };
        let parameters = json!({"budget": "kept", "every": every});
        let rule = registry::build("residency", RESIDENCIES, "evict-h2o", parameters).unwrap();
        let cut = || prefilled.cache.cut(&kept, 8).unwrap();
        let mut live = LiveCache::new(cut(), rule.start(&first).unwrap()).unwrap();
        let budgets: Vec<Vec<usize>> = (kept.iter())
            .map(|layer| layer.iter().map(Vec::len).collect())
            .collect();
        let slow = SlowH2o {
            importance: paid.0,
            budgets: budgets.clone(),
            every,
            steps: 0,
        };
        let mut reference = LiveCache::new(cut(), Box::new(slow)).unwrap();
        assert_eq!(
            positions(live.cache()),
            positions(reference.cache()),
            "at once"
        );
        for step in 0..36u32 {
            // A step sees what is held before it, and its own token.
            let seen = live.cache().lengths();
            let bounded = |(seen, most): (&usize, &usize)| seen < most;
            let mut pairs = seen.iter().flatten().zip(budgets.iter().flatten());
            assert!(
                pairs.all(bounded),
                "{heads}/{kv_heads} every {every}: step {step}"
            );
            let id = step * 7 % 12;
            live.step(&decoder, id).unwrap();
            reference.step(&decoder, id).unwrap();
            let (ours, theirs) = (positions(live.cache()), positions(reference.cache()));
            assert_eq!(
                ours, theirs,
                "{heads}/{kv_heads} every {every}: step {step}"
            );
        }
    }
}

/// With `every` tokens at once it is still the last query that decides, and at the start it is the prompt's last one.
#[test]
fn tova_leaves_by_attention_from_the_first_eviction_on() {
    let ids = prompt_ids("synth512");
    let floor = Floor::of(4, 32);
    let text = "full+evict-tova(budget=64),full+evict-streaming(budget=64)";
    let methods = Method::parse_list(text).unwrap();
    let observed = observe(model(), &ids, 0, &methods, floor).unwrap();
    let start = |method: &Method| {
        let kept = observed.kept(method, None).unwrap();
        positions(observed.cut(method, &kept, None, 8).unwrap().cache())
    };
    // What a moving window keeps is the first and the newest tokens; the last query of a prompt looks elsewhere too.
    assert_ne!(start(&methods[0]), start(&methods[1]));
}

#[test]
fn no_bound_lets_nothing_leave_however_long_between_evictions() {
    let (decoder, ids) = (decoder(4, 2), prompt());
    for parameters in [
        json!({"budget": "none", "every": usize::MAX}),
        json!({"budget": "none", "every": 1usize << 62, "window": usize::MAX}),
    ] {
        let mut cache = decoder.new_cache(T + 8).unwrap();
        decoder.prefill(&ids, &mut cache, 16, &mut NoProbe).unwrap();
        let kept: Vec<Slots> = vec![vec![(0..T as u32).collect(); 2]; LAYERS];
        let first = FirstCache::new(&kept, T, FLOOR);
        let rule = registry::build("residency", RESIDENCIES, "evict-h2o", parameters).unwrap();
        let mut live = LiveCache::new(cache, rule.start(&first).unwrap()).unwrap();
        for id in 0..6 {
            live.step(&decoder, id).unwrap();
        }
        assert_eq!(live.cache().lengths(), vec![vec![T + 6; 2]; LAYERS]);
    }
}

/// The most bytes belong to the step that has the most rows: before what is over the bound leaves again.
#[test]
fn the_most_bytes_are_those_of_the_most_rows() {
    let (decoder, ids) = (decoder(4, 2), prompt());
    let mut cache = decoder.new_cache(T).unwrap();
    decoder.prefill(&ids, &mut cache, 16, &mut NoProbe).unwrap();
    let kept: Vec<Slots> = vec![vec![(0..T as u32).collect(); 2]; LAYERS];
    let row = cache.bytes() / T; // of all heads of all layers
    for every in [1, 4] {
        let first = FirstCache::new(&kept, T, FLOOR);
        let parameters = json!({"budget": 14, "every": every});
        let rule =
            registry::build("residency", RESIDENCIES, "evict-streaming", parameters).unwrap();
        let cut = cache.cut(&kept, 8).unwrap();
        let mut live = LiveCache::new(cut, rule.start(&first).unwrap()).unwrap();
        for id in 0..9 {
            live.step(&decoder, id).unwrap();
        }
        assert_eq!(live.held().peak, 14);
        assert_eq!(live.held().peak_resident, 14 * row, "every {every}");
    }
}

/// A plan whose layers differ bounds every head by its own number.
#[test]
fn a_plan_bounds_every_head_by_its_own_tokens() {
    let (decoder, ids, kv_heads) = (decoder(4, 2), prompt(), 2);
    let geometry = Geometry {
        model: "tiny".into(),
        model_sha256: String::new(),
        layers: LAYERS,
        heads: 4,
        kv_heads,
        head_dim: HEAD_DIM,
        windows: Vec::new(),
    };
    let request = Request::of_model(geometry, Budget::TokensPerHead(12.0), FLOOR, T);
    let request = request.by(Granularity::Head);
    let targets = Targets {
        floor: FLOOR.tokens,
        tokens: vec![15.0, 13.0, 11.0, 9.0],
    };
    let (rule, made) = ("uniform", Provenance::default());
    let plan = BudgetPlan::of_targets(rule, json!({}), &request, &targets, made).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plan.json");
    plan.write(&path).unwrap();
    let most = plan.tokens_at(T).unwrap();
    let mut distinct: Vec<usize> = most.iter().flatten().copied().collect();
    distinct.dedup();
    assert!(
        distinct.len() > 1,
        "bounds must differ for this to say anything: {most:?}"
    );

    let mut cache = decoder.new_cache(T + 8).unwrap();
    decoder.prefill(&ids, &mut cache, 16, &mut NoProbe).unwrap();
    let kept: Vec<Slots> = vec![vec![(0..T as u32).collect(); kv_heads]; LAYERS];
    let first = FirstCache::new(&kept, T, FLOOR);
    let parameters = json!({"budget": path.to_str().unwrap(), "every": 2});
    let rule = registry::build("residency", RESIDENCIES, "evict-tova", parameters).unwrap();
    let mut live = LiveCache::new(cache, rule.start(&first).unwrap()).unwrap();
    let mut largest = vec![vec![0; kv_heads]; LAYERS];
    for id in 0..12 {
        for (largest, held) in largest
            .iter_mut()
            .flatten()
            .zip(live.cache().lengths().iter().flatten())
        {
            *largest = (*largest).max(held + 1);
        }
        live.step(&decoder, id).unwrap();
    }
    assert_eq!(largest, most);
    // Another shape is refused with the plan's file.
    let other = FirstCache {
        kept: &kept[..1],
        ..first
    };
    let said = rule.start(&other).unwrap_err().to_string();
    assert!(said.contains("plan.json"), "{said}");
}

fn swept(methods: &str, answer_ids: Vec<Vec<u32>>) -> Outcome {
    let methods = Method::parse_list(methods).unwrap();
    let sweep = Sweep {
        whole_windows: false,
        model: model(),
        methods: &methods,
        budgets: &[Budget::TokensPerHead(64.0).into()],
        sinks: 4,
        window: 32,
        max_new_tokens: 12,
        observed_from: QuerySource::Context,
    };
    let ids = prompt_ids("synth512");
    let case = Case {
        id: "synth512".into(),
        evidence: vec![0, 1, ids.len() as u32 - 1],
        ids,
        answers: answer_ids.iter().map(|_| "x".to_owned()).collect(),
        question_tokens: 0,
        wants_all: false,
        answer_ids,
        length: None,
        depth: None,
        needle: None,
    };
    sweep.run(&case, &mut || ()).unwrap()
}

/// Fed in chunks and step by step are one measurement: rows, bytes, text and metrics, but for the order of sums.
#[test]
fn a_sweep_without_a_bound_is_one_without_eviction() {
    let answers = vec![vec![314, 260, 2811], vec![500, 28, 284, 253]];
    let text = "full,snapkv,snapkv+evict-h2o(budget=none),full+evict-tova(budget=none)";
    let rows = swept(text, answers).rows;
    for (plain, living) in [(1, 2), (0, 3)] {
        let (plain, living) = (&rows[plain], &rows[living]);
        assert_eq!(plain.held, living.held);
        let scores = [plain, living].map(|row| row.scores.as_ref().unwrap());
        let [plain, living] = scores;
        assert_eq!(plain.answer, living.answer);
        assert_eq!(
            (plain.kv_bytes, plain.budget_tokens),
            (living.kv_bytes, living.budget_tokens)
        );
        assert_eq!(plain.top1, living.top1);
        assert_eq!(plain.evidence, living.evidence);
        assert!((plain.kl - living.kl).abs() < 1e-4 && (plain.nll - living.nll).abs() < 1e-4);
    }
}

/// A bound holds while the reference is fed, and every answer starts from a cache of its own.
#[test]
fn answers_of_a_cache_that_cannot_be_rewound_do_not_see_each_other() {
    let (one, two) = (vec![314, 260, 2811, 282, 253], vec![500, 28, 284, 253, 339]);
    for method in [
        "snapkv+evict-h2o(budget=64)",
        "snapkv+evict-tova(budget=64,every=5)",
        "full+evict-streaming(budget=64)",
    ] {
        let nll = |answers: Vec<Vec<u32>>| {
            let row = swept(&format!("full,{method}"), answers).rows.remove(1);
            assert!(row.held.steps > 0 && row.held.peak <= 64, "{method}");
            assert!(row.held.mean() <= 64.0, "{method}");
            row.scores.unwrap().nll
        };
        let alone = nll(vec![one.clone()]).min(nll(vec![two.clone()]));
        assert_eq!(nll(vec![one.clone(), two.clone()]), alone, "{method}");
        assert_eq!(nll(vec![two.clone(), one.clone()]), alone, "{method}");
    }
}

/// Drafts are other caches' texts; a cache's own text must not depend on who went before it.
#[test]
fn texts_do_not_depend_on_the_order_of_methods() {
    let living = "snapkv+evict-h2o(budget=64)";
    let text = |methods: &str, place: usize| {
        let rows = swept(methods, Vec::new()).rows;
        rows[place].scores.as_ref().unwrap().answer.clone()
    };
    let alone = text(living, 0);
    assert_eq!(alone, text(&format!("random,streaming,{living}"), 2));
    assert_eq!(
        text("streaming", 0),
        text(&format!("{living},random,streaming"), 2)
    );
}

/// A bound that no prompt could meet is a row with its reason, without numbers.
#[test]
fn a_row_that_failed_has_no_rows_and_no_bytes() {
    let rows = swept("snapkv,snapkv+evict-h2o(budget=10)", Vec::new()).rows;
    let failed = &rows[1];
    assert!(failed.scores.as_ref().unwrap_err().contains("take 37"));
    assert_eq!(
        (failed.held.steps, failed.held.peak, failed.decode_steps),
        (0, 0, 0)
    );
    assert!(failed.held.mean().is_nan() && failed.cut_s.is_nan() && failed.decode_s.is_nan());
}
