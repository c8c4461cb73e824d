//! Evictions that judge tokens when some must leave: the same again on any threads, what is pinned, what a prompt's last
//! queries decide.
#![allow(clippy::unwrap_used)]

mod real_model;
mod tiny_model;

use candle_core::Device;
use kvprof::budget::Floor;
use kvprof::method::residency::FirstCache;
use kvprof::method::{LiveCache, Method, RESIDENCIES, observe};
use kvprof::model::attention::NoProbe;
use kvprof::model::cache::KvCache;
use kvprof::model::config::ModelConfig;
use kvprof::model::decoder::Decoder;
use kvprof::model::gguf::Gguf;
use kvprof::model::precision::Precision;
use kvprof::registry;
use real_model::{model, prompt_ids};
use serde_json::{Value, json};
use tiny_model::tiny_model;

const FLOOR: Floor = Floor {
    whole_windows: false,
    tokens: 5,
    sinks: 2,
    window: 3,
};

/// T; the tiny model's context is 64.
const T: usize = 24;

fn decoder() -> Decoder {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    std::fs::write(&path, tiny_model(4, 2, |_, t| t)).unwrap();
    let mut gguf = Gguf::open(&path).unwrap();
    let config = ModelConfig::from_gguf(&mut gguf).unwrap();
    Decoder::load(&mut gguf, config, &Device::Cpu, Precision::FLOAT32).unwrap()
}

fn living(decoder: &Decoder, name: &str, parameters: Value) -> LiveCache {
    let ids: Vec<u32> = (0..T).map(|i| ((i * 7 + i * i) % 12) as u32).collect();
    let mut cache = decoder.new_cache(T + 40).unwrap();
    decoder.prefill(&ids, &mut cache, 16, &mut NoProbe).unwrap();
    let rule = registry::build("residency", RESIDENCIES, name, parameters).unwrap();
    let kept = cache.slots();
    let first = FirstCache::new(&kept, T, FLOOR);
    LiveCache::new(cache, rule.start(&first).unwrap()).unwrap()
}

/// Positions of every KV head, sorted.
fn positions(cache: &KvCache) -> Vec<Vec<u32>> {
    let heads = (0..cache.num_layers()).flat_map(|l| &cache.layer(l).heads);
    let sorted = heads.map(|head| {
        let mut positions = head.positions().to_vec();
        positions.sort_unstable();
        positions
    });
    sorted.collect()
}

/// Positions and logits after every step of a text.
fn followed(live: &mut LiveCache, decoder: &Decoder) -> Vec<(Vec<Vec<u32>>, Vec<f32>)> {
    let step = |step: u32| {
        let logits = live.step(decoder, step * 7 % 12).unwrap();
        (positions(live.cache()), logits.to_vec1().unwrap())
    };
    (0..36).map(step).collect()
}

/// Of the generated tokens and the prompt's, small enough for the tiny model.
const SEEDED: [(&str, &str); 2] = [
    (
        "evict-vase",
        r#"{"budget": 18, "every": 3, "sinks": 1, "window": 4}"#,
    ),
    (
        "evict-random",
        r#"{"budget": 18, "every": 3, "sinks": 1, "window": 4, "pinned": false}"#,
    ),
];

#[test]
fn a_seed_gives_the_same_tokens_on_any_threads_and_another_gives_others() {
    let decoder = decoder();
    for (name, parameters) in SEEDED {
        let run = |seed: u64, threads: usize| {
            let mut parameters: Value = serde_json::from_str(parameters).unwrap();
            parameters["seed"] = seed.into();
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            pool.build()
                .unwrap()
                .install(|| followed(&mut living(&decoder, name, parameters), &decoder))
        };
        let first = run(3, 1);
        assert_eq!(first, run(3, 1), "{name}");
        let held = |run: &[(Vec<Vec<u32>>, Vec<f32>)]| -> Vec<Vec<Vec<u32>>> {
            run.iter().map(|(positions, _)| positions.clone()).collect()
        };
        assert_eq!(held(&first), held(&run(3, 4)), "{name}");
        assert_ne!(held(&first), held(&run(4, 1)), "{name}");
        // Heads draw for themselves.
        assert_ne!(first[35].0[0], first[35].0[1], "{name}");
        let peak = held(&first).concat().iter().map(Vec::len).max().unwrap();
        assert!(peak < 18, "{name}: {peak}");
    }
}

#[test]
fn a_pinned_prompt_and_the_newest_tokens_stay() {
    let decoder = decoder();
    let parameters = json!({"budget": "kept+12", "every": 3, "window": 4, "seed": 1});
    let mut live = living(&decoder, "evict-random", parameters);
    let mut old = 0;
    for step in 0..36usize {
        live.step(&decoder, (step * 7 % 12) as u32).unwrap();
        let now = T + step + 1;
        for held in positions(live.cache()) {
            let prompt: Vec<u32> = (0..T as u32).collect();
            assert_eq!(held[..T], prompt);
            let newest = (now.saturating_sub(4).max(T)..now).map(|p| p as u32);
            assert!(newest.clone().all(|p| held.contains(&p)), "{held:?}");
            assert!(held.len() <= T + 12, "{held:?}");
            old += held[T..]
                .iter()
                .filter(|p| (**p as usize) + 12 < now)
                .count();
        }
    }
    // Some that are drawn are older than any window of twelve would have them.
    assert!(old > 0);
    assert_eq!(live.held().peak, T + 12);
}

#[test]
fn names_of_their_own_floors_say_so_and_budgets_that_are_too_small_are_refused() {
    let check = |name: &str, parameters: Value| {
        let rule = registry::build("residency", RESIDENCIES, name, parameters)?;
        rule.check(1000, &Floor::of(4, 32), None)
    };
    for (name, least) in [
        ("evict-r-kv", 136),
        ("evict-vase", 132),
        ("evict-random", 128),
    ] {
        check(name, json!({"budget": least})).unwrap();
        let said = check(name, json!({"budget": least - 1})).unwrap_err();
        assert!(
            said.to_string().contains(&format!("take {least}")),
            "{said}"
        );
        assert!(check(name, json!({"every": 0})).is_err(), "{name}");
    }
    // The method's sinks and window, without what comes until the next cut.
    check("compress-every", json!({"target": 36})).unwrap();
    let said = check("compress-every", json!({"target": 35})).unwrap_err();
    assert!(said.to_string().contains("take 36"), "{said}");
    for (name, parameters, part) in [
        ("evict-r-kv", json!({"lambda": 1.5}), "lambda"),
        ("evict-vase", json!({"ranges": -0.1}), "ranges"),
        ("evict-vase", json!({"kernel": 4}), "odd"),
        ("evict-random", json!({"budget": "kept+x"}), "kept+256"),
    ] {
        let said = check(name, parameters).unwrap_err().to_string();
        assert!(said.contains(part), "{said}");
    }
}

/// What leaves at once is judged by the prompt's last queries, which the prefill must have kept.
#[test]
fn what_leaves_after_the_prompt_is_judged_by_its_last_queries() {
    let ids = prompt_ids("synth512");
    let floor = Floor::of(4, 32);
    let text = "full+evict-r-kv(budget=64,every=8,sinks=4,lambda=1),full+evict-streaming(budget=64,every=8,window=8),\
                full+evict-vase(budget=96,every=8,window=16)";
    let methods = Method::parse_list(text).unwrap();
    let observed = observe(model(), &ids, 0, &methods, floor).unwrap();
    let start = |method: &Method| {
        let kept = observed.kept(method, None).unwrap();
        positions(observed.cut(method, &kept, None, 8).unwrap().cache())
    };
    let [by_attention, by_age, by_lot] = [0, 1, 2].map(|i| start(&methods[i]));
    let newest = |held: &[u32]| held.ends_with(&(504..512).collect::<Vec<u32>>());
    for held in [&by_attention, &by_age, &by_lot] {
        assert!(held.iter().all(|held| newest(held)));
    }
    assert!(
        by_attention
            .iter()
            .zip(&by_age)
            .all(|(a, b)| a.len() == b.len() && a != b)
    );
    assert!(
        by_lot
            .iter()
            .all(|held| held.len() == 88 && held[..4] == [0, 1, 2, 3])
    );
}
