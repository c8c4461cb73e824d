//! ClusterKV against one that is written down slowly, on tiny models; what it must equal, and how it goes back.
#![allow(clippy::unwrap_used)]

mod real_model;
mod slow_clusterkv;
mod tiny_model;

use candle_core::Device;
use kvprof::budget::{Budget, Floor};
use kvprof::eval::{Case, QuerySource, Sweep};
use kvprof::method::residency::FirstCache;
use kvprof::method::{LiveCache, Method, RESIDENCIES, observe};
use kvprof::model::attention::NoProbe;
use kvprof::model::cache::KvCache;
use kvprof::model::config::ModelConfig;
use kvprof::model::decoder::Decoder;
use kvprof::model::gguf::Gguf;
use kvprof::model::precision::Precision;
use kvprof::registry;
use kvprof::select::Slots;
use real_model::{model, prompt_ids};
use serde_json::{Value, json};
use slow_clusterkv::{Rules, Seen, SlowClusterKv};
use tiny_model::{HEAD_DIM, LAYERS, tiny_model};

/// Query heads and KV heads.
const GEOMETRIES: [(usize, usize); 4] = [(2, 1), (4, 2), (3, 3), (6, 2)];

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

fn prefilled(decoder: &Decoder) -> KvCache {
    let ids: Vec<u32> = (0..T).map(|i| ((i * 7 + i * i) % 12) as u32).collect();
    let mut cache = decoder.new_cache(T).unwrap();
    decoder.prefill(&ids, &mut cache, 16, &mut NoProbe).unwrap();
    cache
}

/// Slots that differ in number and place by layer and head.
fn ragged(kv_heads: usize) -> Vec<Slots> {
    let head = |l: usize, h: usize| {
        let stays = move |s: &usize| *s < 2 || !(s + l).is_multiple_of(h + 2);
        (0..T).filter(stays).map(|s| s as u32).collect()
    };
    (0..LAYERS)
        .map(|l| (0..kv_heads).map(|h| head(l, h)).collect())
        .collect()
}

fn living(cache: &KvCache, kept: &[Slots], parameters: Value) -> LiveCache {
    let rule = registry::build("residency", RESIDENCIES, "clusterkv", parameters).unwrap();
    let first = FirstCache::new(kept, T, Floor::of(2, 3));
    LiveCache::new(cache.cut(kept, 8).unwrap(), rule.start(&first).unwrap()).unwrap()
}

fn rules(budget: usize, every: usize, full_layers: usize) -> Rules {
    Rules {
        tokens: T,
        budget,
        sinks: 3,
        tokens_per_cluster: 4.0,
        every,
        new: 2,
        full_layers,
        seed: 5,
    }
}

fn parameters(rules: &Rules) -> Value {
    json!({
        "budget": rules.budget, "sinks": rules.sinks, "tokens_per_cluster": rules.tokens_per_cluster as usize,
        "every": rules.every, "new": rules.new, "full_layers": rules.full_layers, "seed": rules.seed,
    })
}

fn step(live: &mut LiveCache, decoder: &Decoder, step: u32) -> Vec<u32> {
    let id = (step * 7 + step * step) % 12;
    let logits = live.step(decoder, id).unwrap().to_vec1::<f32>().unwrap();
    logits.into_iter().map(f32::to_bits).collect()
}

#[test]
fn steps_are_those_of_the_slow_one_to_the_bit() {
    let (mut returns, mut misses) = (0, 0);
    for (heads, kv_heads) in GEOMETRIES {
        let decoder = decoder(heads, kv_heads);
        let cache = prefilled(&decoder);
        for kept in [cache.slots(), ragged(kv_heads)] {
            for (budget, every, full_layers) in
                [(9, 5, 0), (12, 1, 0), (7, 50, 1), (T, 6, 0), (9, 4, 2)]
            {
                let rules = rules(budget, every, full_layers);
                let mut live = living(&cache, &kept, parameters(&rules));
                let seen = Seen::default();
                let slow = Box::new(SlowClusterKv::new(rules, seen.clone()));
                let mut slow = LiveCache::new(cache.cut(&kept, 8).unwrap(), slow).unwrap();
                live.measure_recall(true);
                for s in 0..36 {
                    let what = format!("{heads}/{kv_heads}, {budget} every {every}: step {s}");
                    let want = step(&mut slow, &decoder, s);
                    assert_eq!(step(&mut live, &decoder, s), want, "{what}");
                }
                let (ours, theirs) = (live.recalled(), slow.recalled());
                assert_eq!((ours.len(), theirs.len()), (36, 36));
                for (a, b) in ours.iter().zip(theirs) {
                    let same = |a: f64, b: f64| (a - b).abs() < 1e-12 || a.is_nan() && b.is_nan();
                    assert!(same(a.hit_rate, b.hit_rate), "{a:?} {b:?}");
                    assert_eq!(a.returned, b.returned, "{a:?} {b:?}");
                    assert!(same(a.recalled, b.recalled) && same(a.clustered, b.clustered));
                    assert_eq!(a.position, b.position);
                    returns += usize::from(a.returned > Some(0.0));
                    misses += usize::from(a.hit_rate < 1.0);
                }
                let seen = seen.lock().unwrap().iter().sum::<usize>() as f64;
                let all = (36 * LAYERS * kv_heads) as f64;
                assert!((live.held().mean() - seen / all).abs() < 1e-9);
            }
        }
    }
    assert!(returns > 100 && misses > 100, "{returns} {misses}");
}

#[test]
fn a_budget_of_the_whole_prompt_is_the_full_cache() {
    for (heads, kv_heads) in GEOMETRIES {
        let decoder = decoder(heads, kv_heads);
        let cache = prefilled(&decoder);
        for budget in [json!(T), json!("100%"), json!(1000)] {
            let mut own = parameters(&rules(T, 5, 0));
            own["budget"] = budget;
            let mut live = living(&cache, &cache.slots(), own);
            let mut plain = LiveCache::keeping(cache.copy(8).unwrap());
            for s in 0..38 {
                assert_eq!(step(&mut live, &decoder, s), step(&mut plain, &decoder, s));
            }
            let (a, b) = (plain.held(), live.held());
            assert_eq!((a.steps, a.mean(), a.peak), (b.steps, b.mean(), b.peak));
        }
    }
}

#[test]
fn going_back_is_never_having_been() {
    let (decoder, kv_heads) = (decoder(4, 2), 2);
    let cache = prefilled(&decoder);
    for kept in [cache.slots(), ragged(kv_heads)] {
        for back in [0, 3, 4, 5, 9, 10, 17, 20] {
            let own = || living(&cache, &kept, parameters(&rules(9, 5, 0)));
            let (mut live, mut fresh) = (own(), own());
            live.measure_recall(true);
            fresh.measure_recall(true);
            for s in 0..20 {
                step(&mut live, &decoder, s);
            }
            live.rewind(T + back as usize).unwrap();
            for s in 0..back {
                step(&mut fresh, &decoder, s);
            }
            assert_eq!(live.bytes(), fresh.bytes(), "back to {back}");
            for s in 30..42 {
                let want = step(&mut fresh, &decoder, s);
                assert_eq!(
                    step(&mut live, &decoder, s),
                    want,
                    "back to {back}: step {s}"
                );
            }
            assert_eq!(live.recalled(), fresh.recalled(), "back to {back}");
            assert_eq!(live.bytes(), fresh.bytes(), "back to {back}");
        }
    }
}

/// A text may go back into its own prompt; what is left of that belongs to no cluster then.
#[test]
fn going_back_into_the_prompt_leaves_nothing_clustered() {
    let decoder = decoder(4, 2);
    let cache = prefilled(&decoder);
    for back in [20, 2] {
        let mut live = living(&cache, &cache.slots(), parameters(&rules(9, 5, 0)));
        let mut plain = LiveCache::keeping(cache.copy(8).unwrap());
        for s in 0..7 {
            step(&mut live, &decoder, s);
        }
        live.rewind(back).unwrap();
        plain.rewind(back).unwrap();
        assert_eq!(live.bytes(), plain.bytes());
        for s in 0..5 {
            assert_eq!(step(&mut live, &decoder, s), step(&mut plain, &decoder, s));
        }
        assert!(
            live.bytes().offloaded > 0,
            "five more are clustered with what is left"
        );
        step(&mut live, &decoder, 5);
    }
}

/// T = 24 of which 3 are sinks: 21 clustered, six of them recalled under a budget of 9; keys and values of four
/// float32 each take 32 bytes, a centroid 16, an entry of a list 4. A layer that is left alone holds all.
#[test]
fn bytes_are_those_of_what_lies_where() {
    let decoder = decoder(4, 2);
    let cache = prefilled(&decoder);
    let row = 2 * HEAD_DIM * 4;
    // As many clusters as keys, so that none is dropped for want of members.
    let own = json!({
        "budget": 9, "sinks": 3, "tokens_per_cluster": 1, "every": 4, "new": 4, "full_layers": 1, "iterations": 1,
    });
    let mut live = living(&cache, &cache.slots(), own);
    let heads = 2;
    let alone = heads * T * row;
    let before = live.bytes();
    assert_eq!(before.offloaded, heads * 21 * row);
    let lists = 21 * 4;
    let centroids = before.resident - alone - heads * (9 * row + lists);
    assert_eq!(centroids % (HEAD_DIM * 4), 0);
    assert!(centroids > 0 && centroids <= heads * 21 * HEAD_DIM * 4);
    for s in 0..3 {
        step(&mut live, &decoder, s);
    }
    let bytes = live.bytes();
    assert_eq!(bytes.offloaded, before.offloaded);
    assert_eq!(bytes.resident, before.resident + 2 * heads * 3 * row);
    // The fourth makes the four a batch of up to four clusters.
    step(&mut live, &decoder, 3);
    let bytes = live.bytes();
    assert_eq!(bytes.offloaded, before.offloaded + heads * 4 * row);
    let added = bytes.resident - before.resident - heads * 4 * row - heads * 4 * 4;
    assert!(added.is_multiple_of(HEAD_DIM * 4) && added <= heads * 4 * HEAD_DIM * 4);
    // The layer that is left alone saw all, the fourth step's own token among it.
    assert_eq!(live.held().peak, T + 4);
    assert_eq!(
        live.held().peak_resident,
        before.resident + 2 * heads * 4 * row
    );
}

#[test]
fn tokens_come_one_at_a_time() {
    let decoder = decoder(4, 2);
    let cache = prefilled(&decoder);
    let own = || living(&cache, &cache.slots(), parameters(&rules(9, 3, 0)));
    let (mut fed, mut stepped) = (own(), own());
    assert_eq!(fed.at_once(), 1);
    assert!(fed.can_rewind());
    let ids: Vec<u32> = (0..9).map(|s| (s * 7 + s * s) % 12).collect();
    let rows = fed.feed(&decoder, &ids).unwrap();
    for (s, row) in rows.iter().enumerate() {
        let bits: Vec<u32> = row.iter().map(|x| x.to_bits()).collect();
        assert_eq!(step(&mut stepped, &decoder, s as u32), bits);
    }
    let said = fed
        .feed_watched(&decoder, &ids[..2], &mut NoProbe)
        .unwrap_err();
    assert!(
        said.to_string().contains("at most 1 may come in one pass"),
        "{said}"
    );
}

/// The real model: a budget of the prompt is the full cache bit for bit, and a small one is not.
#[test]
fn on_the_real_model_the_whole_prompt_is_the_full_cache_and_less_is_measured() {
    let (model, ids) = (model(), prompt_ids("synth512"));
    let methods = Method::parse_list("full,clusterkv,snapkv+clusterkv(budget=64)").unwrap();
    let observed = observe(model, &ids, 0, &methods, Floor::of(4, 32)).unwrap();
    let whole = Some(Budget::TokensPerHead(ids.len() as f64).into());
    let kept = observed.kept(&methods[1], whole).unwrap();
    let mut live = observed.cut(&methods[1], &kept, whole, 8).unwrap();
    let mut plain = observed.cut(&methods[0], &kept, None, 8).unwrap();
    for s in 0..6u32 {
        let id = 100 + s * 13;
        let [a, b] = [&mut live, &mut plain].map(|cache| cache.step(&model.decoder, id).unwrap());
        assert_eq!(a.to_vec1::<f32>().unwrap(), b.to_vec1::<f32>().unwrap());
    }
    let sweep = Sweep {
        whole_windows: false,
        model,
        methods: &methods,
        budgets: &[Budget::TokensPerHead(128.0), Budget::RetainedFraction(1.0)].map(Into::into),
        sinks: 4,
        window: 32,
        max_new_tokens: 8,
        observed_from: QuerySource::Context,
    };
    let case = Case {
        id: "synth512".into(),
        evidence: Vec::new(),
        ids: ids.clone(),
        answers: Vec::new(),
        question_tokens: 0,
        wants_all: false,
        answer_ids: vec![vec![314, 260, 2811]],
        length: None,
        depth: None,
        needle: None,
    };
    let rows = sweep.run(&case, &mut || ()).unwrap().rows;
    let budgets: Vec<_> = rows.iter().map(|row| (row.method, row.budget)).collect();
    assert_eq!(
        budgets,
        [
            (0, None),
            (1, Some(0)),
            (1, Some(1)),
            (2, Some(0)),
            (2, Some(1))
        ]
    );
    let scores = |row: usize| rows[row].scores.as_ref().unwrap();
    assert!(rows[0].recall.is_empty());
    let [some, all] = [1, 2].map(|row| &rows[row]);
    assert_eq!(some.recall.len(), some.held.steps);
    assert!(
        some.recall
            .iter()
            .all(|step| (0.0..1.0).contains(&step.hit_rate))
    );
    assert_eq!(some.recall[0].recalled, 112.0);
    assert_eq!(some.recall[0].clustered, (ids.len() - 16) as f64);
    assert!(some.recall.iter().any(|step| step.returned > Some(0.0)));
    assert_eq!(some.recall[0].returned, None);
    assert!(
        all.recall
            .iter()
            .all(|step| step.hit_rate == 1.0 && step.returned.is_none_or(|share| share == 0.0))
    );
    assert!(scores(1).kl > 0.0);
    // Fed in one pass there, token by token here: only the order of float32 sums differs.
    assert!(scores(2).kl < 1e-4 && (scores(2).nll - scores(0).nll).abs() < 1e-4);
    assert_eq!(scores(2).answer, scores(0).answer);
    assert!(scores(1).kv_bytes < scores(0).kv_bytes && scores(1).offloaded_bytes > 0);
}
