//! Caches that live: bounds, rewinding, and what leaves.

use kvprof::method::residency::FirstCache;
use kvprof::method::{LiveCache, RESIDENCIES, ResidencyRule};
use kvprof::model::Model;
use kvprof::model::attention::NoProbe;
use kvprof::model::cache::{KvCache, Representation};
use kvprof::registry;
use kvprof::select::Slots;
use serde_json::{Value, json};

use crate::family_models::{assert_close, each, numbers, prompt};
use crate::{FLOOR, T, prefilled, ragged, window};

/// A cut cache under a residency.
pub fn living(cache: &KvCache, kept: &[Slots], name: &str, parameters: Value) -> LiveCache {
    let rule = registry::build("residency", RESIDENCIES, name, parameters).unwrap();
    let first = FirstCache::new(kept, T, FLOOR);
    let cut = cache.cut(kept, 8).unwrap();
    LiveCache::new(cut, rule.start(&first).unwrap()).unwrap()
}

fn rule(name: &str) -> Box<dyn ResidencyRule> {
    registry::build("residency", RESIDENCIES, name, Value::Null).unwrap()
}

/// Residencies that let tokens leave.
fn letting_go() -> impl Iterator<Item = &'static str> {
    let names = RESIDENCIES.iter().map(|rule| rule.name);
    names.filter(|name| !rule(name).can_rewind() && rule(name).holds_as().is_none())
}

/// Residencies that let tokens leave over a bound of rows that holds at every step.
pub fn evicting() -> impl Iterator<Item = &'static str> {
    letting_go().filter(|name| !cuts_to_target(name))
}

/// Residencies that cut to a target and let heads grow until the next cut.
fn compressing() -> impl Iterator<Item = &'static str> {
    letting_go().filter(|name| cuts_to_target(name))
}

/// Residencies that say after every step what a token is worth, with the method's sinks and window.
pub fn adding_up() -> impl Iterator<Item = &'static str> {
    evicting().filter(|name| !rule(name).has_own_floor())
}

/// Whether rows are bounded right after a cut alone.
pub fn cuts_to_target(name: &str) -> bool {
    rule(name).parameters().get("target").is_some()
}

/// A bound for prompts as short as these, with the sinks and window of these tests and nothing of the prompt pinned.
pub fn bounded(name: &str, rows: impl Into<Value>, every: usize) -> Value {
    let own = rule(name).parameters();
    let bound = if cuts_to_target(name) {
        "target"
    } else {
        "budget"
    };
    let mut parameters = json!({"every": every});
    parameters[bound] = rows.into();
    if rule(name).has_own_floor() {
        parameters["sinks"] = FLOOR.sinks.into();
        parameters["window"] = FLOOR.window.into();
    }
    if own.get("pinned").is_some() {
        parameters["pinned"] = false.into();
    }
    parameters
}

/// Residencies of which steps recall what others left out.
fn recalling() -> impl Iterator<Item = &'static str> {
    let names = RESIDENCIES.iter().map(|rule| rule.name);
    names.filter(|name| rule(name).recalls())
}

/// Recall from prompts as short as these.
fn recall(budget: &str) -> Value {
    json!({
        "budget": budget, "sinks": 2, "tokens_per_cluster": 4, "every": 5, "new": 2, "full_layers": 1,
    })
}

fn steps(live: &mut LiveCache, model: &Model, count: u32) -> Vec<Vec<f32>> {
    let id = |step: u32| 7 + step * 31 % 280;
    (0..count)
        .map(|step| numbers(&live.step(&model.decoder, id(step)).unwrap()))
        .collect()
}

#[test]
fn no_step_sees_more_than_the_bound_or_the_window() {
    each(|name, model| {
        let cache = prefilled(&model.decoder, &prompt(T));
        for residency in evicting() {
            for every in [1, 4] {
                let bound = bounded(residency, 12, every);
                let mut live = living(&cache, &cache.slots_in_sight(), residency, bound);
                for step in 0..22u32 {
                    let seen = live.cache().lengths_after(1);
                    live.step(&model.decoder, step * 13 % 290).unwrap();
                    for (l, heads) in seen.iter().enumerate() {
                        let most = window(model, l).unwrap_or(12).min(12);
                        let what = format!("{name}, {residency} every {every}, layer {l}");
                        assert!(heads.iter().all(|rows| *rows <= most), "{what}: {heads:?}");
                        let held = &live.cache().lengths()[l];
                        assert!(held.iter().all(|rows| *rows <= most), "{what}: {held:?}");
                    }
                }
                assert!(live.held().peak <= 12, "{name}, {residency}");
                assert!(!live.can_rewind() && live.held().steps == 22);
            }
        }
        // Without a bound windows hold all the same.
        let mut live = LiveCache::keeping(cache.copy(8).unwrap());
        steps(&mut live, model, 20);
        for (l, heads) in live.cache().lengths().iter().enumerate() {
            let most = window(model, l).unwrap_or(T + 20);
            assert!(heads.iter().all(|rows| *rows == most), "{name}: {heads:?}");
        }
        let peak = (0..live.cache().num_layers()).map(|l| window(model, l).unwrap_or(T + 20));
        assert_eq!(live.held().peak, peak.max().unwrap(), "{name}");
    });
}

#[test]
fn without_a_bound_nothing_that_is_seen_leaves() {
    each(|name, model| {
        let cache = prefilled(&model.decoder, &prompt(T));
        let windowless = (0..cache.num_layers()).all(|l| window(model, l).is_none());
        for (kept, every) in [(cache.slots(), 1), (ragged(model, T), 5)] {
            let letting_go = letting_go().map(|name| (name, bounded(name, "none", every)));
            let recalling = recalling().map(|name| (name, recall("100%")));
            for (residency, parameters) in letting_go.chain(recalling) {
                let mut live = living(&cache, &kept, residency, parameters);
                let mut plain = LiveCache::keeping(cache.cut(&kept, 8).unwrap());
                let (a, b) = (steps(&mut plain, model, 12), steps(&mut live, model, 12));
                let what = format!("{name}, {residency} every {every}");
                if windowless {
                    assert_eq!(a, b, "{what}");
                }
                assert_close(&a.concat(), &b.concat(), 1e-5, &what);
                let (a, b) = (plain.held(), live.held());
                assert_eq!(
                    (a.steps, a.mean(), a.peak),
                    (b.steps, b.mean(), b.peak),
                    "{what}"
                );
                let (a, b) = (plain.cache(), live.cache());
                // What no later token sees may be gone by then.
                assert_eq!(a.lengths_after(1), b.lengths_after(1), "{what}");
            }
        }
    });
}

/// Between two cuts a head grows by a row per step, or as far as its window goes.
#[test]
fn a_cut_leaves_its_target_and_the_rows_in_between_are_counted() {
    each(|name, model| {
        let cache = prefilled(&model.decoder, &prompt(T));
        let layers = cache.num_layers();
        for residency in compressing() {
            let parameters = bounded(residency, 12, 5);
            let mut live = living(&cache, &cache.slots_in_sight(), residency, parameters);
            let (mut all, mut peak) = (0, 0);
            for step in 1..=17usize {
                live.step(&model.decoder, step as u32 * 13 % 290).unwrap();
                let what = format!("{name}, {residency}, step {step}");
                let grown = if step <= 5 {
                    T + step
                } else {
                    12 + (step - 1) % 5 + 1
                };
                let left = if step % 5 == 0 { 12 } else { grown };
                for l in 0..layers {
                    let most = window(model, l).unwrap_or(usize::MAX);
                    let held = &live.cache().lengths()[l];
                    // Of a target below it, a window passes what a cut left.
                    let within = |rows: &usize| *rows <= left.min(most);
                    assert!(held.iter().all(within), "{what}: {held:?}");
                    if window(model, l).is_none() {
                        assert!(held.iter().all(|rows| *rows == left), "{what}: {held:?}");
                    }
                }
                (all, peak) = (all + grown, peak.max(grown));
            }
            let windowless = (0..layers).all(|l| window(model, l).is_none());
            if windowless {
                let held = live.held();
                assert_eq!(
                    (held.peak, held.mean()),
                    (peak, all as f64 / 17.0),
                    "{name}"
                );
                assert_eq!(peak, T + 5);
            }
            assert!(!live.can_rewind());
        }
    });
}

/// Layers with a window and the first ones see what a full cache sees; the others no more than the bound and what was
/// generated since the last clusters.
#[test]
fn recall_stays_within_its_bound_and_goes_back() {
    each(|name, model| {
        let cache = prefilled(&model.decoder, &prompt(T));
        for kept in [cache.slots(), ragged(model, T)] {
            for residency in recalling() {
                let mut live = living(&cache, &kept, residency, recall("12"));
                let plain = LiveCache::keeping(cache.cut(&kept, 8).unwrap());
                let chooses = |l: usize| l > 0 && window(model, l).is_none();
                let layers = live.cache().num_layers();
                let before = live.bytes();
                live.measure_recall(true);
                let first = steps(&mut live, model, 20);
                let what = format!("{name}, {residency}");
                let any = (0..layers).any(chooses);
                let peak = (0..layers).map(|l| {
                    // 19 tokens before the last one, of which three batches of five are clustered.
                    let all = window(model, l).unwrap_or(T + 20);
                    if chooses(l) { 12 + 5 } else { all }
                });
                assert!(live.held().peak <= peak.max().unwrap(), "{what}");
                assert_eq!(before.offloaded > 0, any, "{what}");
                assert_eq!(live.bytes().offloaded > before.offloaded, any, "{what}");
                if !any {
                    assert_eq!(before.resident, plain.bytes().resident, "{what}");
                }
                let measured = live.recalled().to_vec();
                assert_eq!(measured.len(), 20, "{what}");
                assert!(
                    measured.iter().all(|step| step.hit_rate.is_nan() != any),
                    "{what}"
                );
                live.rewind(T + 3).unwrap();
                let rest: Vec<Vec<f32>> = (3..20u32)
                    .map(|step| numbers(&live.step(&model.decoder, 7 + step * 31 % 280).unwrap()))
                    .collect();
                assert_eq!(rest, first[3..], "{what}");
                let positions = live.recalled().iter().map(|step| step.position);
                assert!(positions.eq(T..T + 20), "{what}");
                if any {
                    assert_eq!(live.recalled(), measured, "{what}");
                }
                live.rewind(T).unwrap();
                assert_eq!(live.bytes(), before, "{what}");
                assert!(
                    live.feed_watched(&model.decoder, &[1, 2], &mut NoProbe)
                        .is_err()
                );
            }
        }
    });
}

/// A bound that a window keeps by itself lets no token leave early.
#[test]
fn a_bound_of_the_window_is_no_bound_for_its_layers() {
    let mut compared = 0;
    let counted = std::cell::RefCell::new(&mut compared);
    each(|name, model| {
        let windows = (0..model.decoder.config().num_hidden_layers()).map(|l| window(model, l));
        let Some(largest) = windows.collect::<Option<Vec<_>>>() else {
            return;
        };
        let largest = *largest.iter().max().unwrap();
        let cache = prefilled(&model.decoder, &prompt(T));
        let kept = cache.slots_in_sight();
        for residency in letting_go() {
            for every in [1, 4] {
                let parameters = bounded(residency, largest, every);
                let mut live = living(&cache, &kept, residency, parameters);
                let mut plain = LiveCache::keeping(cache.cut(&kept, 8).unwrap());
                let (a, b) = (steps(&mut plain, model, 20), steps(&mut live, model, 20));
                let what = format!("{name}, {residency} every {every}");
                assert_close(&a.concat(), &b.concat(), 1e-5, &what);
                **counted.borrow_mut() += 1;
            }
        }
    });
    assert!(compared >= 6, "{compared}");
}

#[test]
fn a_cache_that_went_back_says_the_same_again() {
    each(|name, model| {
        let (decoder, ids) = (&model.decoder, prompt(T));
        let full = prefilled(decoder, &ids);
        for kept in [full.slots(), full.slots_in_sight(), ragged(model, T)] {
            let mut live = LiveCache::keeping(full.cut(&kept, 4).unwrap());
            let before = live.cache().lengths();
            // Far enough that every window has left the prompt's end behind.
            let first = steps(&mut live, model, 20);
            live.rewind(T).unwrap();
            assert_eq!(live.cache().lengths(), before, "{name}");
            let other = live.feed(decoder, &[1, 2, 3]).unwrap();
            live.rewind(T).unwrap();
            assert_eq!(steps(&mut live, model, 20), first, "{name}");
            live.rewind(T).unwrap();
            assert_eq!(live.feed(decoder, &[1, 2, 3]).unwrap(), other, "{name}");
            live.rewind(T + 1).unwrap();
            assert_eq!(live.cache().next_position(), T + 1);
            assert!(live.rewind(T + 2).is_err());
        }
    });
}

#[test]
fn a_cache_goes_on_in_other_elements() {
    each(|name, model| {
        let full = prefilled(&model.decoder, &prompt(T));
        let kept = ragged(model, T);
        let run = |held_as: &str| {
            let cut = full
                .cut_as(&kept, 8, &held_as.parse::<Representation>().unwrap().into())
                .unwrap();
            let bytes = cut.bytes();
            (
                bytes,
                steps(&mut LiveCache::keeping(cut), model, 18).concat(),
            )
        };
        let (bytes, exact) = run("f32");
        for held_as in ["bf16", "f16"] {
            let (half, rounded) = run(held_as);
            assert_eq!(2 * half, bytes, "{name}");
            assert_ne!(exact, rounded, "{name}");
            assert_close(&exact, &rounded, 0.1, &format!("{name} as {held_as}"));
        }
    });
}
