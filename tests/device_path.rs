//! What runs on a device, followed on the CPU: the same measures, scores and texts as the CPU's own path.
#![allow(clippy::unwrap_used)]

use candle_core::{DType, Device};
use kvprof::model::attention::{AttentionProbe, NoProbe, Tee};
use kvprof::model::decoder::{Decoder, PREFILL_RUN};
use kvprof::model::{Model, source};
use kvprof::profile::{LayerMeasures, MeasureOptions, Profiler};
use kvprof::registry::{self, Entry};
use kvprof::select::{
    ContinuationProbe, H2o, HeadSplit, LayerScores, SCORERS, Scorer, ScoringProbe, Slots, SnapKv,
    select_layers,
};
use serde_json::Value;

fn decoder(dtype: DType, as_on_device: bool) -> Decoder {
    let cache = source::CacheFolder::from_env().unwrap();
    let files = source::resolve("smollm2-135m", &cache, &mut |_| ()).unwrap();
    let mut decoder = Model::load(files, &Device::Cpu, dtype).unwrap().decoder;
    if as_on_device {
        decoder.work_as_on_device();
    }
    decoder
}

fn prompt(tokens: u32) -> Vec<u32> {
    (0..tokens)
        .map(|i| 300 + (i * i * 7 + i * 31) % 4000)
        .collect()
}

/// Measures, scores of two scorers, logits of the prompt and of a few steps after a cut.
struct Seen {
    layers: Vec<LayerMeasures>,
    scores: Vec<Vec<LayerScores>>,
    logits: Vec<Vec<f32>>,
}

fn run(decoder: &Decoder, ids: &[u32], window: Option<usize>) -> Seen {
    let options = MeasureOptions {
        window,
        ..MeasureOptions::default()
    };
    let mut ignore = |_| ();
    let mut profiler = Profiler::new(&options, &mut ignore);
    let (snapkv, h2o) = (SnapKv::default(), H2o::default());
    let mut scoring = ScoringProbe::new(vec![(&snapkv, 32), (&h2o, 32)]);
    let mut cache = decoder.new_cache(ids.len() + 4).unwrap();
    let probe: &mut dyn AttentionProbe = &mut Tee(&mut profiler, &mut scoring);
    let logits = decoder
        .prefill(ids, &mut cache, PREFILL_RUN, probe)
        .unwrap();
    let mut logits = vec![logits.to_vec1().unwrap()];
    let last = ids.len() as u32 - 1;
    let kept = |layer: u32, head: u32| {
        (0..=last).filter(move |i| (i + layer + head) % 3 < 2 || *i > last - 8)
    };
    let kept: Vec<Vec<Vec<u32>>> = (0..cache.num_layers() as u32)
        .map(|layer| (0..3).map(|head| kept(layer, head).collect()).collect())
        .collect();
    let mut cut = cache.cut(&kept, 3).unwrap();
    for id in [11, 500, 77, 901] {
        let next = decoder.decode(id, &mut cut).unwrap();
        logits.push(next.to_vec1().unwrap());
    }
    let mut whole = decoder.new_cache(0).unwrap();
    decoder
        .prefill(&ids[..5], &mut whole, 2, &mut NoProbe)
        .unwrap();
    logits.push(decoder.decode(3, &mut whole).unwrap().to_vec1().unwrap());
    Seen {
        layers: profiler.finish(),
        scores: scoring.finish(),
        logits,
    }
}

#[test]
fn measures_scores_and_logits_equal_those_of_the_cpu() {
    for (tokens, window) in [(200, Some(32)), (150, None)] {
        let ids = prompt(tokens);
        let (own, device) = (
            run(&decoder(DType::F32, false), &ids, window),
            run(&decoder(DType::F32, true), &ids, window),
        );
        for (a, b) in own.logits.iter().zip(&device.logits) {
            let worst = a
                .iter()
                .zip(b)
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f32::max);
            assert!(worst < 1e-3, "logits differ by {worst}");
        }
        for (a, b) in own
            .scores
            .iter()
            .flatten()
            .zip(device.scores.iter().flatten())
        {
            let [a, b] = [a, b].map(|scores| scores.to_rows().unwrap());
            for (a, b) in a.iter().flatten().zip(b.iter().flatten()) {
                assert!((a - b).abs() <= 1e-4 * a.abs().max(1e-3), "{a} {b}");
            }
        }
        measures_are_alike(&own.layers, &device.layers);
    }
}

/// The root of the mean square of what differs between two runs: logits, and the mass of the sinks.
fn gaps(a: &Seen, b: &Seen) -> [f64; 2] {
    let root_mean = |squares: Vec<f64>| (squares.iter().sum::<f64>() / squares.len() as f64).sqrt();
    let pairs = a.logits.iter().flatten().zip(b.logits.iter().flatten());
    let logits = pairs.map(|(a, b)| f64::from(a - b).powi(2)).collect();
    let heads = |seen: &Seen| -> Vec<f64> {
        let layers = seen.layers.iter();
        layers
            .flat_map(|layer| layer.heads.iter().map(|head| head.sink_mass))
            .collect()
    };
    let sinks = heads(a).into_iter().zip(heads(b));
    [logits, sinks.map(|(a, b)| (a - b).powi(2)).collect()].map(root_mean)
}

/// With a cache of a half type prompts go through the fused kernel, here through its twin: it rounds queries and outputs
/// as the cache's keys and values are rounded, and no more than that may come of it.
#[test]
fn half_caches_are_attended_to_as_closely_as_they_are_rounded() {
    let ids = prompt(130);
    let exact = run(&decoder(DType::F32, false), &ids, Some(32));
    for dtype in [DType::F16, DType::BF16] {
        let own = run(&decoder(dtype, false), &ids, Some(32));
        let device = run(&decoder(dtype, true), &ids, Some(32));
        let (rounding, kernel) = (gaps(&own, &exact), gaps(&device, &exact));
        eprintln!("{dtype:?}: {rounding:?} by the cache, {kernel:?} by all");
        for (rounding, kernel) in rounding.into_iter().zip(kernel) {
            assert!(
                kernel > 0.0 && kernel < 3.0 * rounding,
                "{dtype:?}: {kernel} {rounding}"
            );
        }
    }
}

/// Float32 sums come in another order: a budget may move by a key where a sum is next to its threshold.
fn measures_are_alike(own: &[LayerMeasures], device: &[LayerMeasures]) {
    let (mut budgets, mut moved) = (0, 0);
    let (mut evaluated, mut swapped) = (0, 0);
    for (own, device) in own.iter().zip(device) {
        for (a, b) in own.heads.iter().zip(&device.heads) {
            let pairs = [
                (&a.budgets.last, &b.budgets.last),
                (&a.budgets.pooled, &b.budgets.pooled),
            ];
            for (a, b) in pairs.iter().flat_map(|(a, b)| a.iter().zip(b.iter())) {
                budgets += 1;
                moved += usize::from(a != b);
                assert!(a.abs_diff(*b) <= 1, "{a} {b}");
            }
            for (a, b) in a.budgets.rows.iter().zip(&b.budgets.rows) {
                assert!((a - b).abs() < 0.1, "{a} {b}");
            }
            assert!((a.entropy - b.entropy).abs() < 1e-4);
            assert!((a.sink_mass - b.sink_mass).abs() < 1e-5);
            for (a, b) in a.mass_pooled.iter().zip(&b.mass_pooled) {
                assert!((a - b).abs() < 1e-5);
            }
        }
        for (a, b) in own.kv_heads.iter().zip(&device.kv_heads) {
            for (a, b) in a.pooled.iter().zip(&b.pooled) {
                assert!(a.abs_diff(*b) <= 1, "{a} {b}");
            }
        }
        let curves = [
            (&own.output_last, &device.output_last),
            (&own.output_pooled, &device.output_pooled),
        ];
        for (a, b) in curves {
            assert!((a.norm / b.norm - 1.0).abs() < 1e-4);
            for (a, b) in [(&a.renormalised, &b.renormalised), (&a.raw, &b.raw)] {
                for (&budget, &cosine) in a.budgets.iter().zip(&a.cosine) {
                    let [other, _] = b.at(budget as usize);
                    // Two keys of nearly one weight may change places: then one budget keeps the other of them.
                    evaluated += 1;
                    swapped += usize::from((cosine - other).abs() > 1e-5);
                    assert!((cosine - other).abs() < 1e-2, "{budget}: {cosine} {other}");
                }
            }
        }
    }
    eprintln!("{moved} of {budgets} budgets moved, {swapped} of {evaluated} outputs");
    assert!(moved * 100 <= budgets, "{moved} of {budgets} budgets moved");
    assert!(
        swapped * 100 <= evaluated,
        "{swapped} of {evaluated} outputs differ"
    );
}

/// Scores of every scorer, `[scorer][layer]`; what looks ahead watches seventy more tokens.
fn scored(decoder: &Decoder, ids: &[u32], scorers: &[Box<dyn Scorer>]) -> Vec<Vec<LayerScores>> {
    let looks_ahead = |scorer: &dyn Scorer| scorer.needs(WINDOW).continuation;
    let during = scorers.iter().filter(|s| !looks_ahead(&***s));
    let mut scoring = ScoringProbe::new(during.map(|s| (&**s, WINDOW)).collect());
    let mut cache = decoder.new_cache(ids.len() + 100).unwrap();
    (decoder.prefill(ids, &mut cache, 128, &mut scoring)).unwrap();
    let mut ahead = ContinuationProbe::new(ids.len());
    // More rows than are watched at once.
    let after: Vec<u32> = (0..70).map(|i| 900 + i * 13 % 500).collect();
    (decoder.continue_with(&after, &mut cache, &mut ahead)).unwrap();
    let mut during = scoring.finish().into_iter();
    let scores = scorers.iter().map(|scorer| match looks_ahead(&**scorer) {
        true => ahead.score(&**scorer, WINDOW).unwrap(),
        false => during.next().unwrap(),
    });
    scores.collect()
}

/// Scorers that devices other than the CPU score by: reading a prompt again is refused there.
fn of_devices() -> impl Iterator<Item = &'static Entry<dyn Scorer>> {
    SCORERS.iter().filter(|entry| entry.name != "kvzip")
}

const SINKS: usize = 4;
const WINDOW: usize = 24;

#[test]
fn kept_slots_equal_those_of_the_cpu_but_for_near_ties() {
    let ids = prompt(300);
    let build = |name| registry::build("scorer", SCORERS, name, Value::Null).unwrap();
    let scorers: Vec<Box<dyn Scorer>> = of_devices().map(|entry| build(entry.name)).collect();
    let [own, device] = [false, true]
        .map(|as_on_device| scored(&decoder(DType::F32, as_on_device), &ids, &scorers));
    let splits = [
        HeadSplit::PerHead,
        HeadSplit::Pooled { safeguard: 0.2 },
        HeadSplit::Pooled { safeguard: 0.0 },
    ];
    let (mut slots, mut moved) = (0, 0);
    for (entry, (own, device)) in of_devices().zip(own.iter().zip(&device)) {
        // Two ways, or else this compares nothing.
        let reads = !["streaming", "random"].contains(&entry.name);
        let rows = |scores: &[LayerScores]| scores[5].to_rows().unwrap();
        assert_eq!(rows(own) != rows(device), reads, "{}", entry.name);
        for split in splits {
            let budgets: Vec<Vec<usize>> = (0..own.len())
                .map(|layer| {
                    (0..3)
                        .map(|head| 40 + (layer * 7 + head * 31) % 90)
                        .collect()
                })
                .collect();
            let kept = |scores| {
                select_layers(
                    scores,
                    &vec![0; budgets.len()],
                    &budgets,
                    SINKS,
                    WINDOW,
                    split,
                )
                .unwrap()
            };
            for ((own, scores), device) in kept(own).iter().zip(own).zip(&kept(device)) {
                slots += own.iter().map(Vec::len).sum::<usize>();
                moved += near_ties(own, device, &scores.to_rows().unwrap(), entry.name);
            }
        }
    }
    eprintln!("{moved} of {slots} slots moved");
    assert!(moved * 1000 <= slots, "{moved} of {slots} slots moved");
}

/// Slots that one side alone keeps, each of which must be nearly as good as one that the other keeps instead.
fn near_ties(own: &Slots, device: &Slots, scores: &[Vec<f64>], name: &str) -> usize {
    let only = |of: &Slots, without: &Slots| -> Vec<f64> {
        let heads = of.iter().zip(without).zip(scores);
        heads
            .flat_map(|((of, without), scores)| {
                let alone = of.iter().filter(|slot| !without.contains(slot));
                alone.map(|slot| scores[*slot as usize])
            })
            .collect()
    };
    let (mine, theirs) = (only(own, device), only(device, own));
    assert_eq!(mine.len(), theirs.len(), "{name}");
    for (a, b) in mine.iter().flat_map(|a| theirs.iter().map(move |b| (a, b))) {
        let near = (a - b).abs() <= 1e-4 * a.abs().max(b.abs());
        assert!(near, "{name}: {a} and {b} are no near tie");
    }
    mine.len()
}
