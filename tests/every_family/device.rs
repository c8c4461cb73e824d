//! What runs on a device, followed on the CPU: the same measures, scores and texts as by the CPU's own path.

use candle_core::DType;
use kvprof::method::LiveCache;
use kvprof::model::attention::{AttentionProbe, NoProbe, Tee};
use kvprof::model::decoder::Decoder;
use kvprof::profile::{LayerMeasures, MeasureOptions, Profiler};
use kvprof::select::{ContinuationProbe, LayerScores, SCORERS, Scorer, ScoringProbe};

use crate::family_models::{assert_close, folders, numbers, prompt};
use crate::{FLOOR, T, ragged, scorer};

struct Seen {
    layers: Vec<LayerMeasures>,
    scores: Vec<(&'static str, Vec<LayerScores>)>,
    logits: Vec<Vec<f32>>,
}

fn run(decoder: &Decoder, kept: &[Vec<Vec<u32>>], run: usize) -> Seen {
    let options = MeasureOptions::default();
    let mut ignore = |_| ();
    let mut profiler = Profiler::new(&options, &mut ignore);
    // Reading a prompt again is refused on devices.
    let of_devices = SCORERS.iter().filter(|e| e.name != "kvzip");
    let scorers: Vec<(&str, Box<dyn Scorer>)> =
        of_devices.map(|e| (e.name, scorer(e.name))).collect();
    let looks_ahead = |scorer: &dyn Scorer| scorer.needs(FLOOR.window).continuation;
    let during = || scorers.iter().filter(|(_, s)| !looks_ahead(&**s));
    let mut scoring = ScoringProbe::new(during().map(|(_, s)| (&**s, FLOOR.window)).collect());
    let mut cache = decoder.new_cache(0).unwrap();
    let probe: &mut dyn AttentionProbe = &mut Tee(&mut profiler, &mut scoring);
    let prefilled = decoder.prefill(&prompt(T), &mut cache, run, probe);
    let mut logits = vec![numbers(&prefilled.unwrap())];
    let mut cut = LiveCache::keeping(cache.cut(kept, 3).unwrap());
    // Several at once, then one by one past every window.
    logits.extend(cut.feed(decoder, &[11, 5, 77]).unwrap());
    for step in 0..17u32 {
        let next = cut.step(decoder, step * 31 % 290).unwrap();
        logits.push(numbers(&next));
    }
    let mut scores: Vec<(&str, Vec<LayerScores>)> = during()
        .map(|(name, _)| *name)
        .zip(scoring.finish())
        .collect();
    let mut ahead = ContinuationProbe::new(T);
    (decoder.continue_with(&prompt(9), &mut cache, &mut ahead)).unwrap();
    for (name, scorer) in scorers.iter().filter(|(_, s)| looks_ahead(&**s)) {
        scores.push((name, ahead.score(&**scorer, FLOOR.window).unwrap()));
    }
    let mut whole = decoder.new_cache(0).unwrap();
    decoder
        .prefill(&prompt(5), &mut whole, 2, &mut NoProbe)
        .unwrap();
    logits.push(numbers(&decoder.decode(3, &mut whole).unwrap()));
    Seen {
        layers: profiler.finish(),
        scores,
        logits,
    }
}

#[test]
fn every_family_is_the_same_on_a_device() {
    for family in folders() {
        let model = family.load(DType::F32);
        let kept = ragged(&model, T);
        let mut on_device = family.load(DType::F32).decoder;
        on_device.work_as_on_device();
        for length in [T, 13] {
            let what = format!("{} in runs of {length}", family.name);
            let own = run(&model.decoder, &kept, length);
            let device = run(&on_device, &kept, length);
            for (i, (a, b)) in own.logits.iter().zip(&device.logits).enumerate() {
                assert_close(a, b, 2e-5, &format!("{what}, logits {i}"));
            }
            for ((name, a), (_, b)) in own.scores.iter().zip(&device.scores) {
                for (a, b) in a.iter().zip(b) {
                    let [a, b] = [a, b].map(|scores| scores.to_rows().unwrap().concat());
                    let close = |a: f64, b: f64| (a - b).abs() <= 1e-4 * a.abs().max(0.01);
                    assert!(
                        a.iter().zip(&b).all(|(a, b)| close(*a, *b)),
                        "{what}, {name}"
                    );
                }
            }
            for (a, b) in own.layers.iter().zip(&device.layers) {
                check_layer(a, b, &what);
            }
        }
    }
}

/// A sum next to its threshold may need a key more or less.
fn check_layer(own: &LayerMeasures, device: &LayerMeasures, what: &str) {
    assert_eq!(own.window, device.window, "{what}");
    for (a, b) in own.heads.iter().zip(&device.heads) {
        let counts = |head: &kvprof::profile::HeadMeasures| {
            [&head.budgets.last[..], &head.budgets.pooled].concat()
        };
        let mut pairs = counts(a).into_iter().zip(counts(b));
        assert!(pairs.all(|(a, b)| a.abs_diff(b) <= 1), "{what}");
        assert!((a.entropy - b.entropy).abs() < 1e-4, "{what}");
        assert!((a.sink_mass - b.sink_mass).abs() < 1e-5, "{what}");
        assert!((a.window_mass - b.window_mass).abs() < 1e-5, "{what}");
        let mut masses = a.mass_pooled.iter().zip(&b.mass_pooled);
        assert!(masses.all(|(a, b)| (a - b).abs() < 1e-5), "{what}");
    }
    for (a, b) in [
        (&own.output_last, &device.output_last),
        (&own.output_pooled, &device.output_pooled),
    ] {
        assert!((a.norm / b.norm - 1.0).abs() < 1e-4, "{what}");
        let [a_cosine, _] = a.raw.at(T);
        let [b_cosine, _] = b.raw.at(T);
        assert!((a_cosine - b_cosine).abs() < 1e-5, "{what}");
    }
}
