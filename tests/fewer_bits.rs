//! Caches of few bits on the real model: bytes, feeding, rewinding and eviction.
#![allow(clippy::unwrap_used)]

mod real_model;

use std::sync::OnceLock;

use candle_core::DType;
use kvprof::budget::Floor;
use kvprof::method::{LiveCache, Method, observe};
use kvprof::model::attention::NoProbe;
use kvprof::model::cache::{Elements, KvCache, Representation, Representations};
use kvprof::model::decoder::PREFILL_RUN;
use kvprof::select::Slots;
use real_model::{model, prompt_ids};

const D: usize = 64;

/// Every type of keys and values, alike and apart.
fn types() -> Vec<Representation> {
    let alike = Elements::all().into_iter().map(Representation::both);
    let apart = [
        "q8,q4",
        "k=q4(residual=0),v=q2(group=16)",
        "k=f32,v=q8_0",
        "k=q2,v=q4_0-hadamard",
    ];
    alike
        .chain(apart.map(|text| text.parse().unwrap()))
        .collect()
}

/// The cache of a prompt, prefilled once, and every slot of it.
fn prompt() -> &'static (KvCache, Vec<Slots>) {
    static PROMPT: OnceLock<(KvCache, Vec<Slots>)> = OnceLock::new();
    PROMPT.get_or_init(|| {
        let ids = &prompt_ids("synth512")[..300];
        let decoder = &model().decoder;
        let mut cache = decoder.new_cache(ids.len()).unwrap();
        decoder
            .prefill(ids, &mut cache, PREFILL_RUN, &mut NoProbe)
            .unwrap();
        let slots = cache.slots();
        (cache, slots)
    })
}

/// Tokens to feed; any will do.
fn text(tokens: usize) -> Vec<u32> {
    (0..tokens)
        .map(|i| ((i * 37 + 11) % 900 + 30) as u32)
        .collect()
}

fn living(held_as: Representation) -> LiveCache {
    let (cache, slots) = prompt();
    LiveCache::keeping(cache.cut_as(slots, 8, &held_as.into()).unwrap())
}

fn predicted(held_as: Representation, tokens: usize) -> usize {
    let config = model().decoder.config();
    assert_eq!(config.head_dim, D);
    config.num_hidden_layers() * config.num_key_value_heads * held_as.bytes(tokens, D)
}

/// Bytes are those that the type says at every length, and buffers hold little more.
#[test]
fn bytes_are_those_of_the_type_at_every_length() {
    let (full, slots) = prompt();
    for held_as in types() {
        for tokens in [1, 63, 64, 95, 96, 97, 127, 128, 200, 300] {
            let kept: Vec<Slots> = (slots.iter())
                .map(|layer| {
                    layer
                        .iter()
                        .map(|slots| slots[slots.len() - tokens..].to_vec())
                        .collect()
                })
                .collect();
            let cut = full.cut_as(&kept, 0, &held_as.into()).unwrap();
            assert_eq!(
                cut.bytes(),
                predicted(held_as, tokens),
                "{held_as}, {tokens}"
            );
            let room = cut.allocated_bytes() as f64 / cut.bytes() as f64;
            assert!((1.0..1.13).contains(&room), "{held_as}, {tokens}: {room}");
            assert_eq!(cut.representations(), Representations::Alike(held_as));
        }
    }
    for held_as in ["q4", "k=q4(residual=0),v=q2(group=16)", "k=f32,v=q8_0"] {
        let held_as: Representation = held_as.parse().unwrap();
        let mut live = living(held_as);
        for (step, id) in text(70).into_iter().enumerate() {
            live.step(&model().decoder, id).unwrap();
            assert_eq!(
                live.bytes().resident,
                predicted(held_as, 301 + step),
                "{held_as}, {step}"
            );
        }
        assert!(live.held().peak_resident >= live.bytes().resident);
    }
}

/// Tokens that come together leave the same cache as those that come one by one, and predict the same.
#[test]
fn feeding_at_once_is_feeding_one_by_one() {
    let decoder = &model().decoder;
    for held_as in [
        "q4",
        "q8(group=16,residual=24)",
        "k=q2,v=q8",
        "q8_0",
        "k=f16,v=q4(residual=0)",
    ] {
        let held_as: Representation = held_as.parse().unwrap();
        let ids = text(50);
        let (mut once, mut single) = (living(held_as), living(held_as));
        let together = once.feed(decoder, &ids).unwrap();
        let alone: Vec<Vec<f32>> = ids
            .iter()
            .map(|&id| single.step(decoder, id).unwrap().to_vec1().unwrap())
            .collect();
        assert_eq!(once.bytes(), single.bytes(), "{held_as}");
        assert_eq!(once.held().steps, single.held().steps);
        assert_eq!(once.held().peak, single.held().peak);
        let (mut most, mut largest) = (0f32, 0f32);
        for (a, b) in together.iter().flatten().zip(alone.iter().flatten()) {
            most = most.max((a - b).abs());
            largest = largest.max(b.abs());
        }
        // Sums come in another order; a code that rounds the other way moves what follows by a little of a scale.
        assert!(most < 0.05 * largest, "{held_as}: {most} of {largest}");
        let keys = |live: &LiveCache| {
            let keys = live.cache().layer(0).heads[1].keys().unwrap();
            keys.to_dtype(DType::F32).unwrap().to_vec2::<f32>().unwrap()
        };
        for (row, (a, b)) in keys(&once).iter().zip(&keys(&single)).enumerate() {
            let off = a
                .iter()
                .zip(b)
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f32::max);
            assert!(off < 0.2, "{held_as}, row {row}: {off}");
        }
    }
}

#[test]
fn what_is_coded_alone_can_be_rewound_and_what_is_coded_together_cannot() {
    let decoder = &model().decoder;
    let ids = text(40);
    for held_as in types() {
        let mut live = living(held_as);
        live.feed(decoder, &ids[..4]).unwrap();
        let first = live.feed(decoder, &ids[4..]).unwrap();
        if !held_as.holds_tokens_alone() {
            assert!(!live.can_rewind(), "{held_as}");
            // 40 tokens more than 300 end a group of 32 in every one of these types.
            let said = live.rewind(304).unwrap_err().to_string();
            assert!(said.contains("coded together"), "{held_as}: {said}");
            assert_eq!(live.cache().next_position(), 340);
            continue;
        }
        live.rewind(304).unwrap();
        assert_eq!(live.bytes().resident, predicted(held_as, 304), "{held_as}");
        assert_eq!(live.feed(decoder, &ids[4..]).unwrap(), first, "{held_as}");
    }
    // Nothing was coded since: the tokens of the tail alone are forgotten.
    let mut live = living("q4".parse().unwrap());
    let before = live.feed(decoder, &ids[..10]).unwrap();
    let mut cache = live.into_cache();
    cache.rewind(300).unwrap();
    assert_eq!(
        LiveCache::keeping(cache).feed(decoder, &ids[..10]).unwrap(),
        before
    );
}

/// By age the same tokens leave whatever they are held in, and those that stay are what they were.
#[test]
fn tokens_leave_a_cache_of_blocks_one_by_one() {
    let ids = prompt_ids("synth512");
    let spelled = |end: &str| format!("full+evict-streaming(budget=70,every=3){end}");
    let types = [
        "",
        "+cache(f16)",
        "+cache(q8_0)",
        "+cache(k=q4_0-hadamard,v=q5_1)",
    ];
    let methods: Vec<Method> = types
        .iter()
        .map(|end| Method::parse(&spelled(end)).unwrap())
        .collect();
    let observed = observe(model(), &ids[..200], 8, &methods, Floor::of(4, 32)).unwrap();
    let kept = observed.cache.slots_in_sight();
    let lives: Vec<LiveCache> = (methods.iter())
        .map(|method| {
            let mut live = observed.cut(method, &kept, None, 8).unwrap();
            live.feed(&model().decoder, &text(20)).unwrap();
            assert!(live.held().peak <= 70, "{}", method.name);
            live
        })
        .collect();
    let head = |live: &LiveCache| live.cache().layer(0).heads[2].positions().to_vec();
    let rows = |live: &LiveCache| {
        live.cache().layer(0).heads[2]
            .keys()
            .unwrap()
            .to_dtype(DType::F32)
            .unwrap()
            .to_vec2::<f32>()
            .unwrap()
    };
    let exact = rows(&lives[0]);
    for (live, end) in lives.iter().zip(types) {
        assert_eq!(head(live), head(&lives[0]), "{end}");
        for (got, want) in rows(live).iter().zip(&exact) {
            let largest = want.iter().fold(0f32, |m, x| m.max(x.abs()));
            let off = got
                .iter()
                .zip(want)
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f32::max);
            assert!(off <= 0.2 * largest, "{end}: {off} of {largest}");
        }
    }
}

#[test]
fn residencies_that_take_tokens_one_by_one_refuse_groups() {
    for text in [
        "snapkv+evict-h2o+cache(q4)",
        "full+evict-tova(budget=64)+cache(k=q8,v=f16)",
        "clusterkv+cache(q2)",
    ] {
        let said = Method::parse(text)
            .unwrap()
            .check()
            .unwrap_err()
            .to_string();
        assert!(
            said.contains("one by one") && said.contains("q8_0"),
            "{said}"
        );
    }
    let said = Method::parse("leankv+cache(q8_0)")
        .unwrap()
        .check()
        .unwrap_err()
        .to_string();
    assert!(said.contains("leave cache() out"), "{said}");
    for text in [
        "snapkv+cache(q4)",
        "snapkv+evict-h2o+cache(q8_0)",
        "clusterkv+cache(q4_0)",
        "leankv",
    ] {
        Method::parse(text).unwrap().check().unwrap();
    }
}

/// A cache that is prefilled into codes gives what it gives, with a reference of its own.
#[test]
fn a_prefilled_cache_of_groups_serves_a_sweep() {
    let ids = &prompt_ids("synth512")[..300];
    let decoder = &model().decoder;
    for held_as in ["q8", "q4", "q8_0", "k=q8,v=q4_0-hadamard"] {
        let held_as: Representation = held_as.parse().unwrap();
        let mut cache = KvCache::new(decoder.config(), 300, held_as, decoder.device()).unwrap();
        let logits = decoder
            .prefill(ids, &mut cache, 64, &mut NoProbe)
            .unwrap()
            .to_vec1::<f32>()
            .unwrap();
        assert_eq!(cache.bytes(), predicted(held_as, 300), "{held_as}");
        let mut exact = prompt().0.copy(8).unwrap();
        let next = decoder
            .decode(5, &mut exact)
            .unwrap()
            .to_vec1::<f32>()
            .unwrap();
        let mut copy = cache.copy(8).unwrap();
        let got = decoder
            .decode(5, &mut copy)
            .unwrap()
            .to_vec1::<f32>()
            .unwrap();
        assert_eq!(
            got,
            decoder
                .decode(5, &mut cache)
                .unwrap()
                .to_vec1::<f32>()
                .unwrap(),
            "{held_as}"
        );
        let norm = |x: &[f32]| x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let difference: Vec<f32> = got.iter().zip(&next).map(|(a, b)| a - b).collect();
        assert!(norm(&difference) < 0.25 * norm(&next), "{held_as}");
        assert!(logits.iter().all(|x| x.is_finite()));
    }
}

/// Heads of one layer may each hold their own types, tensors and codes side by side.
#[test]
fn heads_of_a_layer_hold_types_of_their_own() {
    let (full, slots) = prompt();
    let types = [
        ["f16", "q4", "q8_0"],
        ["f32", "bf16", "k=f16,v=f32"],
        ["q4_0-hadamard", "f32", "q2"],
    ];
    let layer = |l: usize| types[l % 3].map(|text| text.parse::<Representation>().unwrap());
    let by_head: Vec<Vec<Representation>> = (0..slots.len()).map(|l| layer(l).to_vec()).collect();
    let held_as = Representations::ByHead(by_head.clone());
    let cut = full.cut_as(slots, 4, &held_as).unwrap();
    assert_eq!(cut.representations(), held_as);
    let of_head = |tokens| {
        by_head
            .iter()
            .flatten()
            .map(|r| r.bytes(tokens, D))
            .sum::<usize>()
    };
    assert_eq!(cut.bytes(), of_head(300));
    let mut live = LiveCache::keeping(cut);
    let ids = text(40);
    let rows = live.feed(&model().decoder, &ids).unwrap();
    assert_eq!(live.bytes().resident, of_head(340));
    assert!(live.held().peak_resident >= of_head(340));
    let mut exact = LiveCache::keeping(full.copy(8).unwrap());
    let exact = exact.feed(&model().decoder, &ids).unwrap();
    let kl = kvprof::eval::fidelity(&exact, &rows).kl;
    assert!(kl > 0.0 && kl < 0.5, "{kl}");
}
